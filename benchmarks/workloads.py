"""What is measured: W0 micro-operations, W1 logistic regression, training steps of a perceptron (W2) and LeNet (W3).

Each workload is a graph of a given number of repetitions, so that `run.py` can take the difference of a long and a
short run: set-up, the sharing of inputs and the connection of the nodes drop out, and what is left is the steady
state.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from sklearn.datasets import load_breast_cancer

from coordinator.client import Client
from coordinator.compiled import Compiled
from coordinator.jobfile import Plan
from coordinator.lower.builder import Builder, Value
from coordinator.lower.twice import twice
from mpcnode.graph import Graph, Kind, Type
from mpcnode.ring import FRAC
from mpcnode.verify import verify

OWNER_X, OWNER_Y, RECIPIENT = "clinic_a", "clinic_b", "analyst"


class Workload(NamedTuple):
    """data: the owners' arrays by (owner, dataset); compile: so many repetitions of the measured operation, one after
    the other.
    """

    name: str
    what: str
    data: dict[tuple[str, str], npt.NDArray[np.float64]]
    compile: Callable[[Client, int], Compiled]
    short: int
    long: int
    peers: dict[str, float]  # seconds that other systems took on the machine named in the README of benchmarks


def _input(b: Builder, owner: str, dataset: str, shape: tuple[int, int]) -> Value:
    columns = tuple(f"c{i}" for i in range(shape[1]))
    return b.emit("input", owner=owner, dataset=dataset, columns=columns, type=Type(Kind.ARITH, FRAC, shape))


def repeated(shapes: list[tuple[int, int]], step: Callable[..., Value], length: int) -> Graph:
    """x = step(x, y, ...) `length` times; the first element of the last x is revealed."""
    b, body = Builder(), Builder()
    inputs = [
        _input(b, owner, f"d{i}", shape)
        for i, (owner, shape) in enumerate(zip((OWNER_X, OWNER_Y), shapes, strict=False))
    ]
    params = [body.emit("param", index=i, type=inputs[j].type) for i, j in enumerate([*range(1, len(inputs)), 0])]
    x = step(body, params[-1], *params[:-1])
    loop = b.emit(
        "loop", *inputs[1:], inputs[0],
        length=length, reverse=0, consts=len(inputs) - 1, carry=1, body=body.graph([x]),
    )  # fmt: skip
    final = b.emit("get", loop, index=0)
    corner = b.emit("slice", final, start=(0, 0), limit=(1, 1), stride=(1, 1))
    b.emit("reveal", corner, to=(RECIPIENT,), name="out")
    graph = b.graph()
    verify(graph)
    return graph


def direct(name: str, graph: Graph) -> Compiled:
    """A graph that was written by hand, as a job; its products as the compiler writes them."""
    return Compiled(Plan(name, FRAC, {}, {}), {"final": twice(graph, FRAC)}, f"benchmark {name}")


def _mul(b: Builder, x: Value, y: Value) -> Value:
    return b.mul(x, y)


def _matmul(b: Builder, x: Value, y: Value) -> Value:
    return b.dot(x, y)


def _relu(b: Builder, x: Value) -> Value:
    return b.emit("select", b.emit("sign", x, lo=0), x, keep=0)


def _less(b: Builder, x: Value, y: Value) -> Value:
    """One bit of the comparison is put to use, so that each depends on the last."""
    bit = b.less(x, y)
    first = b.emit("slice", bit, start=(0, 0), limit=(1, 1), stride=(1, 1))
    one = b.align(b.emit("inject", first), FRAC)
    return b.add(x, b.emit("broadcast", one, shape=x.shape, dims=(0, 1)))


def micro() -> list[Workload]:
    """W0 but for the functions that the compiler approximates."""
    rng = np.random.default_rng(0)

    def of(
        name: str,
        what: str,
        step: Callable[..., Value],
        shapes: list[tuple[int, int]],
        runs: tuple[int, int],
        peers: dict[str, float],
    ) -> Workload:
        scale = 1.0 / np.sqrt(shapes[0][1]) if name == "matmul" else 1.0
        data = {
            (owner, f"d{i}"): rng.uniform(-1, 1, shape) * scale
            for i, (owner, shape) in enumerate(zip((OWNER_X, OWNER_Y), shapes, strict=False))
        }
        return Workload(name, what, data, lambda _, n: direct(name, repeated(shapes, step, n)), *runs, peers)

    million = (1000, 1000)
    return [
        of(
            "mul",
            "1,000,000 fixed-point products, truncated",
            _mul,
            [million, million],
            (1, 11),
            {"MP-SPDZ": 0.064, "SPU": 0.110, "CrypTen": 0.051},
        ),
        of(
            "matmul",
            "1024 x 1024 x 1024, truncated",
            _matmul,
            [(1024, 1024)] * 2,
            (1, 6),
            {"MP-SPDZ": 5.8, "SPU": 0.82, "CrypTen": 0.213},
        ),
        of("relu", "1,000,000", _relu, [million], (1, 6), {"MP-SPDZ": 0.12, "SPU": 1.23, "CrypTen": 0.79}),
        of("less", "1,000,000", _less, [million, million], (1, 6), {"MP-SPDZ": 0.086, "SPU": 1.06, "CrypTen": 0.81}),
        of(
            "latency",
            "one ReLU on one element",
            _relu,
            [(1, 1)],
            (20, 320),
            {"MP-SPDZ": 0.00016, "SPU": 0.0069, "CrypTen": 0.017},
        ),
    ]


# ---- workloads written in jax --------------------------------------------------------------------------------------
def iterate(step: Callable[[Any], Any], length: int) -> Callable[[Any], dict[str, Any]]:
    """x -> step applied `length` times."""

    def program(x: Any) -> dict[str, Any]:
        last, _ = jax.lax.scan(lambda carry, _: (step(carry), None), x, None, length=length)
        return {"out": last[:1, :1]}

    return program


def logistic_regression(epochs: int, batch: int = 64, rate: float = 0.1) -> Callable[[Any, Any], dict[str, Any]]:
    """W1: SGD on standardised data; 569 rows make 8 whole batches an epoch."""

    def program(x: Any, y: Any) -> dict[str, Any]:
        rows, columns = x.shape
        count = rows // batch
        order = np.stack(
            [np.random.default_rng(e).permutation(rows)[: count * batch].reshape(count, batch) for e in range(epochs)]
        )

        def step(params: Any, index: Any) -> tuple[Any, None]:
            w, c = params
            xb, yb = x[index], y[index]
            error = jax.nn.sigmoid(xb @ w + c) - yb
            return (w - rate / batch * (xb.T @ error), c - rate * jnp.mean(error, axis=0)), None

        (w, c), _ = jax.lax.scan(step, (jnp.zeros((columns, 1)), jnp.zeros(1)), jnp.asarray(order.reshape(-1, batch)))
        return {"w": w, "c": c}

    return program


def perceptron(
    steps: int, batch: int = 128, rate: float = 0.01, sizes: tuple[int, ...] = (784, 128, 128, 10)
) -> Callable[[Any, Any], dict[str, Any]]:
    """W2: ReLU, softmax cross-entropy, SGD; labels one-hot; the same batch serves every step, as every step costs the
    same.
    """

    def program(x: Any, y: Any) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        params = [
            (jnp.asarray(rng.normal(size=(i, o)) * np.sqrt(2 / i), jnp.float32), jnp.zeros(o))
            for i, o in itertools.pairwise(sizes)
        ]

        def loss(params: Any) -> Any:
            h = x
            for w, c in params[:-1]:
                h = jax.nn.relu(h @ w + c)
            w, c = params[-1]
            return optax.softmax_cross_entropy(h @ w + c, y).mean()

        def step(params: Any, _: Any) -> tuple[Any, None]:
            return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params)), None

        params, _ = jax.lax.scan(step, params, None, length=steps)
        return {"corner": params[0][0][:1, :1]}

    return program


def lenet(steps: int, batch: int = 128, rate: float = 0.01) -> Callable[[Any, Any], dict[str, Any]]:
    """W3: two convolutions of 5 x 5 with ReLU and a maximum over 2 x 2, two dense layers, softmax cross-entropy, SGD;
    images are rows of 28 x 28 grey values, labels one-hot; the same batch serves every step, as every step costs the
    same.
    """
    shapes: tuple[tuple[int, ...], ...] = ((5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10))

    def layer(h: Any, w: Any, c: Any) -> Any:
        same = jax.lax.conv_general_dilated(h, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.lax.reduce_window(jax.nn.relu(same + c), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def program(x: Any, y: Any) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        params = [
            (jnp.asarray(rng.normal(size=s) * np.sqrt(2 / np.prod(s[:-1])), jnp.float32), jnp.zeros(s[-1]))
            for s in shapes
        ]

        def loss(params: Any) -> Any:
            h = x.reshape(batch, 28, 28, 1)
            for w, c in params[:2]:
                h = layer(h, w, c)
            (w, c), (last, offset) = params[2:]
            return optax.softmax_cross_entropy(jax.nn.relu(h.reshape(batch, -1) @ w + c) @ last + offset, y).mean()

        def step(params: Any, _: Any) -> tuple[Any, None]:
            return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params)), None

        params, _ = jax.lax.scan(step, params, None, length=steps)
        return {"corner": params[0][0][0, 0]}

    return program


def traced(
    client: Client, program: Callable[..., dict[str, Any]], datasets: dict[str, tuple[str, str, int]], name: str
) -> Compiled:
    """A function as a job; datasets: argument -> (owner, dataset, columns)."""
    inputs = {
        argument: {"rows": [f"{owner}/{dataset}"], "columns": [f"c{i}" for i in range(columns)]}
        for argument, (owner, dataset, columns) in datasets.items()
    }
    named = {"W1": ("w", "c"), "W2": ("corner",), "W3": ("corner",)}.get(name, ("out",))
    outputs = dict.fromkeys(named, (RECIPIENT,))
    return client.trace(program, inputs, outputs, name=name)


def functions() -> list[Workload]:
    """The rest of W0: functions that the compiler approximates."""
    rng = np.random.default_rng(1)
    found = []
    for name, what, step, shape, peers in (
        ("sigmoid", "100,000", jax.nn.sigmoid, (100, 1000), {"MP-SPDZ": 0.245, "SPU": 0.557, "CrypTen": 0.209}),
        ("softmax", "128 x 10", jax.nn.softmax, (128, 10), {"MP-SPDZ": 0.0046, "SPU": 0.045, "CrypTen": 0.184}),
    ):

        def build(client: Client, n: int, step: Any = step, columns: int = shape[1], name: str = name) -> Compiled:
            return traced(client, iterate(step, n), {"x": (OWNER_X, "d0", columns)}, name)

        data = {(OWNER_X, "d0"): rng.uniform(-4, 4, shape)}
        found.append(Workload(name, what, data, build, 20, 60, peers))
    return found


def training(images: npt.NDArray[np.float64] | None, labels: npt.NDArray[np.float64] | None) -> list[Workload]:
    """W1, W2 and W3; these two on made-up numbers unless images [128, 784] and one-hot labels [128, 10] are given."""
    x, y = load_breast_cancer(return_X_y=True)
    w1 = {
        (OWNER_X, "features"): (x - x.mean(0)) / x.std(0),
        (OWNER_Y, "labels"): y[:, None].astype(np.float64),
    }
    rng = np.random.default_rng(2)
    w2 = {
        (OWNER_X, "images"): rng.uniform(0, 1, (128, 784)) if images is None else images,
        (OWNER_Y, "onehot"): np.eye(10)[rng.integers(0, 10, 128)] if labels is None else labels,
    }
    return [
        Workload(
            "W1",
            "logistic regression, 569 x 30, batch 64: 10 epochs",
            w1,
            lambda client, n: traced(
                client,
                logistic_regression(10 * n),
                {"x": (OWNER_X, "features", 30), "y": (OWNER_Y, "labels", 1)},
                "W1",
            ),
            1,
            3,
            {"MP-SPDZ": 0.273, "SPU": 2.9, "CrypTen": 4.3},
        ),
        Workload(
            "W2",
            "MLP 784-128-128-10, batch 128: one training step",
            w2,
            lambda client, n: traced(
                client, perceptron(n), {"x": (OWNER_X, "images", 784), "y": (OWNER_Y, "onehot", 10)}, "W2"
            ),
            20,
            60,
            {"MP-SPDZ": 0.135, "SPU": 0.58, "CrypTen": 0.28},
        ),
        Workload(
            "W3",
            "LeNet, batch 128: one training step",
            w2,
            lambda client, n: traced(
                client, lenet(n), {"x": (OWNER_X, "images", 784), "y": (OWNER_Y, "onehot", 10)}, "W3"
            ),
            1,
            4,
            {"MP-SPDZ": 4.06, "SPU": 27.8, "CrypTen": 9.0},
        ),
    ]


def all_workloads(mnist: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None) -> list[Workload]:
    return [*micro(), *functions(), *training(*(mnist or (None, None)))]
