"""Runs a function of lowered ops on numbers: in clear but with the roughest rounding that the protocols allow, or under
the real protocol; and counts the rounds of its longest path.

Rough: a truncation goes up or down at random, as under masks, and is wrong by 2^64 / 2^by once |x| >= 2^62; a sign that
may pass over its lowest bits is random there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from coordinator.lower.builder import Builder, Value
from mpcnode.engine import execute
from mpcnode.graph import TOP, Graph, Kind, Type
from mpcnode.kernels.reference import scaled
from mpcnode.party import Party, Place
from mpcnode.protocols import Sharing
from mpcnode.protocols.cleartext import Cleartext
from mpcnode.protocols.comparison import sign_cost
from mpcnode.simulate import SimulatedHooks, decode, run, simulate
from mpcnode.verify import verify

OWNER = "evaluator_1"
Function = Callable[..., Value]
ROUNDS = {"trunc": 1, "rescale": 1, "select": 1, "inject": 1, "square": 1, "onehot": 1}
PRODUCTS = ("mul", "dot", "conv", "and", "or")


class Rough(Cleartext):
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    async def trunc(self, p: Place, x: Sharing, by: int, times: int = 1) -> Sharing:
        r = self.random.integers(0, 1 << 64, x.shape, np.uint64)
        c = x + r + np.uint64(1 << 62)
        wrapped = (c >> np.uint64(63) == 0) & (r >> np.uint64(63) == 1)
        out = scaled(c, times, by) - scaled(r, times, by) - np.uint64(times << (62 - by))
        return out + np.where(wrapped, np.uint64(times << (64 - by) & (1 << 64) - 1), np.uint64(0))

    async def sign(self, p: Place, x: Sharing, lo: int, top: int = TOP, cuts: tuple[int, ...] = ()) -> Sharing:
        if cuts:
            x = np.stack([x - np.array(cut, np.int64).view(np.uint64) for cut in cuts], axis=1)
        exact = await super().sign(p, x, lo, top)
        signed = x.view(np.int64)
        unsure = (signed > -(1 << lo)) & (signed < 1 << lo) if lo else np.zeros(x.shape, bool)
        return np.where(unsure, self.random.integers(0, 2, x.shape, np.uint8), exact)


def trace(function: Function, *shapes: tuple[int, ...], frac: int = 18, **kwargs: object) -> Graph:
    """`function` of inputs of these shapes, revealed as `out`."""
    b = Builder(frac)
    inputs = []
    for i, shape in enumerate(shapes):
        kind = Type(Kind.ARITH, frac, (math.prod(shape), 1))
        x = b.emit("input", owner=OWNER, dataset=f"d{i}", columns=("x",), type=kind)
        inputs.append(b.reshape(x, shape))
    b.emit("reveal", function(b, *inputs, **kwargs), to=(OWNER,), name="out")
    graph = b.graph()
    verify(graph)
    return graph


def evaluate(graph: Graph, *xs: np.ndarray, seed: int = 1, protocol: str = "rough") -> np.ndarray:
    data = {(OWNER, f"d{i}"): x.reshape(-1, 1) for i, x in enumerate(xs)}
    if protocol != "rough":
        return simulate(graph, data, protocol, evaluators=2).outputs["out"]
    [parts], _ = run([execute(Party(0, [OWNER], {}), Rough(seed), graph, SimulatedHooks(data))])
    return decode(parts["out"], graph.ops[-1].type)


def apply(
    function: Function, *xs: np.ndarray, seed: int = 1, frac: int = 18, protocol: str = "rough", **kwargs: object
) -> np.ndarray:
    """The function's values at these numbers."""
    return evaluate(trace(function, *(x.shape for x in xs), frac=frac, **kwargs), *xs, seed=seed, protocol=protocol)


def rounds(graph: Graph) -> int:
    """Of the longest path."""
    depth: list[int] = []
    for op in graph.ops:
        own = ROUNDS.get(op.name, 0)
        if op.name == "sign":
            own, _, _ = sign_cost(op.integer("lo"), op.integer("top", TOP), 1 << 20)
        if op.name in PRODUCTS:
            own = int(all(graph.ops[a].type.kind is not Kind.PUBLIC for a in op.args))
        depth.append(own + max((depth[a] for a in op.args), default=0))
    return max(depth)


def count(graph: Graph, name: str) -> int:
    """Elements that ops of that name yield."""
    return sum(op.type.size for op in graph.ops if op.name == name)
