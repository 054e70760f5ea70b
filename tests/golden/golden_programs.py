"""The programs whose compiled text is kept beside this file, stage by stage.

`python tests/golden/golden_programs.py` writes the texts anew, after a change that is meant to change them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from coordinator.frontend import Input, Piece, trace
from coordinator.lower.passes import compile
from mpcnode.graph import Graph

HERE = Path(__file__).parent
ROWS, BATCH, STEPS = 40, 16, 3


def logistic(x: Any, y: Any) -> dict[str, Any]:
    """Logistic regression, the gradient by jax."""

    def loss(params: Any, rows: Any) -> Any:
        logits = (x[rows] @ params["w"] + params["b"])[:, 0]
        return optax.sigmoid_binary_cross_entropy(logits, y[rows].astype(jnp.float32)).mean()

    def step(params: Any, rows: Any) -> tuple[Any, None]:
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, rows)), None

    params, _ = jax.lax.scan(step, {"w": jnp.zeros((5, 1)), "b": jnp.zeros(1)}, batches())
    return {"weights": params}


def perceptron(x: Any, y: Any) -> dict[str, Any]:
    """Two hidden layers of rectified units, softmax cross-entropy with secret labels, optax's SGD."""
    rng = np.random.default_rng(0)
    sizes = (5, 8, 8, 3)
    params = [
        {"w": jnp.asarray(rng.normal(size=(m, n)), jnp.float32), "b": jnp.zeros(n)}
        for m, n in itertools.pairwise(sizes)
    ]
    optimizer = optax.sgd(0.01)

    def loss(params: Any, rows: Any) -> Any:
        h = x[rows]
        for layer in params[:-1]:
            h = jax.nn.relu(h @ layer["w"] + layer["b"])
        logits = h @ params[-1]["w"] + params[-1]["b"]
        return optax.softmax_cross_entropy(logits, jax.nn.one_hot(y[rows], 3)).mean()

    def step(carry: Any, rows: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches())
    return {"weights": params}


def batches() -> Any:
    rng = np.random.default_rng(1)
    return jnp.asarray(np.stack([rng.permutation(ROWS)[:BATCH] for _ in range(STEPS)]))


PROGRAMS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {"logistic": logistic, "perceptron": perceptron}


def stages(program: Callable[[Any, Any], dict[str, Any]]) -> dict[str, Graph]:
    """The program on the rows of two owners, compiled."""
    columns = tuple("abcde")
    pieces = [(owner, ROWS // 2) for owner in ("clinic_a", "clinic_b")]
    inputs = {
        "x": Input(tuple(Piece(owner, "wdbc", rows, columns) for owner, rows in pieces), False, False),
        "y": Input(tuple(Piece(owner, "wdbc", rows, ("label",)) for owner, rows in pieces), True, True),
    }
    return compile(trace(program, inputs, {"weights": ("analyst",)}).graph)


def texts() -> Iterator[tuple[Path, str]]:
    """Every file and what belongs there."""
    for name, program in PROGRAMS.items():
        for stage, graph in stages(program).items():
            yield HERE / f"{name}.{stage}.txt", f"# jax {jax.__version__}\n{graph.text()}"


if __name__ == "__main__":
    for path, text in texts():
        path.write_text(text)
        print(path)
