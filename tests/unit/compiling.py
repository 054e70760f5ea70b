"""For tests of the compiler: a jax function on secret arrays, compiled and evaluated in clear."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from coordinator.frontend import Input, Piece, Traced, flat_of, observe, trace
from coordinator.lower.passes import compile
from mpcnode.graph import Graph, Op
from mpcnode.simulate import simulate


def traced(function: Callable[..., Any], *arrays: np.ndarray, frac: int = 18, calibrated: bool = False) -> Traced:
    """`function` of these arrays, each of one owner; what it returns is output `out`.  calibrated: on these arrays."""
    inputs = {}
    for i, array in enumerate(arrays):
        columns = tuple(f"c{j}" for j in range(array.shape[1] if array.ndim == 2 else 1))
        piece = Piece("owner", f"d{i}", len(array), columns)
        inputs[f"x{i}"] = Input((piece,), array.ndim == 1, array.dtype.kind in "ib", boolean=array.dtype.kind == "b")
    outputs = {"out": ("reader",)}

    def program(*args: Any) -> dict[str, Any]:
        return {"out": function(*args)}

    if not calibrated:
        return trace(program, inputs, outputs, frac)
    named = {f"x{i}": array for i, array in enumerate(arrays)}
    met = observe.record(flat_of(program, inputs, outputs)[0], inputs, named)
    return trace(program, inputs, outputs, frac, met)


def evaluated(graph: Graph, *arrays: np.ndarray, protocol: str = "cleartext") -> dict[str, np.ndarray]:
    data = {("owner", f"d{i}"): a.reshape(len(a), -1) for i, a in enumerate(arrays)}
    return simulate(graph, data, protocol).outputs


def stages(function: Callable[..., Any], *arrays: np.ndarray, frac: int = 18) -> dict[str, Graph]:
    return compile(traced(function, *arrays, frac=frac).graph, frac)


def names(graph: Graph) -> list[str]:
    return [op.name for op in graph.walk()]


def ops(graph: Graph, *wanted: str) -> list[Op]:
    return [op for op in graph.walk() if op.name in wanted]


def agree(
    function: Callable[..., Any], *arrays: np.ndarray, tolerance: float = 1e-3, frac: int = 18
) -> dict[str, Graph]:
    """Every stage of the compiled function gives what jax gives, within tolerance·max(1, |result|); the stages."""
    arrays = tuple(a.astype({"i": np.int32, "b": bool}.get(a.dtype.kind, np.float32)) for a in arrays)
    want = jax.tree.leaves(jax.jit(function)(*arrays))
    found = stages(function, *arrays, frac=frac)
    for stage, graph in found.items():
        got = list(evaluated(graph, *arrays).values())
        _close(stage, got, want, tolerance)
    return found


def _close(stage: str, got: Iterable[np.ndarray], want: Iterable[Any], tolerance: float) -> None:
    for g, w in zip(got, want, strict=True):
        expected = np.asarray(w, np.float64)
        error = np.abs(np.asarray(g, np.float64) - expected) / np.maximum(1, np.abs(expected))
        assert g.shape == expected.shape
        assert error.max(initial=0) <= tolerance, f"{stage}: off by {error.max()}"
