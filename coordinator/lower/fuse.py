"""Truncations on the way into a product: `mul` and `select` take what is not truncated yet, and truncate it themselves.

That is one round instead of two (see mpcnode/protocols/fused.py), for somewhat more dealing.  Where nobody else reads
the truncated value it is cheaper in bytes as well, and is done.  Where others do, or the value is spread on the way, it
is done if the graph gets shallower by it and the bytes are worth the rounds.  No chain gets longer: the product waits
for no more than it did.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import ROUND_BYTES
from coordinator.lower.rewrite import prune, rounds
from mpcnode.graph import Graph, Kind

MOVES = ("reshape", "transpose", "broadcast")
EXTRA_BYTES = 16  # dealt an element, beyond what the product alone is dealt
MOST_TRIED = 64  # fusions, whether they could be spared


class Fusion(NamedTuple):
    """The product `at` may take its operand as it is before `trunc` and the `moves` behind it, the last one first."""

    at: int
    operand: int
    trunc: int
    moves: tuple[int, ...]


def fuse(graph: Graph, frac: int) -> Graph:
    """The graph, loop bodies included, with truncations fused where that is a gain."""
    return prune(_fused(graph, frac))


def _fused(graph: Graph, frac: int) -> Graph:
    b, new = Builder(frac), list[Value]()
    chosen = _chosen(graph)
    for i, op in enumerate(graph.ops):
        args = [new[a] for a in op.args]
        with b.at(op.where, op.most):
            if op.name == "loop":
                op = op._replace(attrs={**op.attrs, "body": _fused(op.body, frac)})  # noqa: PLW2901
            new.append(_product(b, graph, chosen[i], new) if i in chosen else b.again(op, *args))
    return b.graph([new[o] for o in graph.outputs])


def _product(b: Builder, graph: Graph, fusion: Fusion, new: Sequence[Value]) -> Value:
    op, trunc = graph.ops[fusion.at], graph.ops[fusion.trunc]
    x, by = new[trunc.args[0]], trunc.integer("by")
    for move in reversed(fusion.moves):
        x = b.again(graph.ops[move], x)
    if op.args[0] == op.args[-1]:
        return b.emit("square", x, by=by)
    other = new[op.args[1 - fusion.operand]]
    if op.name == "select":
        return b.emit("select", other, x, keep=op.integer("keep"), by=by)
    return b.emit("mul", x, other, by=by)


# ---- which ---------------------------------------------------------------------------------------------------------
def _chosen(graph: Graph) -> dict[int, Fusion]:
    """By product: those that cost nothing, and of the others those that make the graph shallower."""
    readers, schedule = _readers(graph), _Schedule(graph)
    ready = schedule.ready({})
    found = [f for i in range(len(graph.ops)) if (f := _fusion(graph, i, ready)) is not None]
    chosen = {f.at: f for f in found if _free(graph, readers, f)}
    dear = [f for f in found if f.at not in chosen]
    while dear:
        depth, critical = schedule.depth(chosen), schedule.critical(chosen)
        more = {f.at: f for f in dear if f.at not in chosen and f.at in critical and f.trunc in critical}
        saved = depth - schedule.depth(chosen | more)
        if saved <= 0:
            break
        for at in sorted(more)[:MOST_TRIED]:  # those that do not help the others
            fewer = {k: f for k, f in more.items() if k != at}
            if depth - schedule.depth(chosen | fewer) == saved:
                more = fewer
        if EXTRA_BYTES * sum(graph.ops[at].type.size for at in more) > saved * ROUND_BYTES:
            break
        chosen |= more
    return chosen


def _fusion(graph: Graph, i: int, ready: Sequence[int]) -> Fusion | None:
    """How an op may take one of its operands: that of a product which is there last, if both are truncated."""
    op = graph.ops[i]
    if op.name not in ("mul", "select") or "by" in op.attrs:
        return None
    if op.name == "mul" and any(graph.ops[a].type.kind is not Kind.ARITH for a in op.args):
        return None
    operands = (1,) if op.name == "select" else sorted((0, 1), key=lambda k: -ready[op.args[k]])
    for operand in operands:
        moves, number = [], op.args[operand]
        while graph.ops[number].name in MOVES:
            moves.append(number)
            number = graph.ops[number].args[0]
        if graph.ops[number].name == "trunc":
            return Fusion(i, operand, number, tuple(moves))
    return None


def _free(graph: Graph, readers: Sequence[Collection[int]], fusion: Fusion) -> bool:
    """Does nobody else read the truncated value, and is it not spread?"""
    way = [fusion.trunc, *reversed(fusion.moves), fusion.at]
    alone = all(readers[a] == {b} for a, b in itertools.pairwise(way))
    return alone and graph.ops[fusion.trunc].type.size == graph.ops[fusion.at].type.size


def _readers(graph: Graph) -> list[set[int]]:
    """Which ops read each value; the graph's end, as -1, reads its outputs."""
    found: list[set[int]] = [set() for _ in graph.ops]
    for i, op in enumerate(graph.ops):
        for a in op.args:
            found[a].add(i)
    for o in graph.outputs:
        found[o].add(-1)
    return found


class _Schedule:
    """When each op of a graph is done, in rounds, with some fusions."""

    def __init__(self, graph: Graph) -> None:
        self._ops = graph.ops
        self._rounds = [rounds(op, [graph.ops[a] for a in op.args]) for op in graph.ops]

    def _waits_for(self, i: int, chosen: Mapping[int, Fusion]) -> Sequence[int]:
        op = self._ops[i]
        if i not in chosen:
            return op.args
        fusion = chosen[i]
        before = self._ops[fusion.trunc].args[0]
        return [before if a == op.args[fusion.operand] else a for a in op.args]

    def ready(self, chosen: Mapping[int, Fusion]) -> list[int]:
        """For each op the round after which its value is there."""
        ready: list[int] = []
        for i, own in enumerate(self._rounds):
            ready.append(own + max((ready[a] for a in self._waits_for(i, chosen)), default=0))
        return ready

    def depth(self, chosen: Mapping[int, Fusion]) -> int:
        return max(self.ready(chosen), default=0)

    def critical(self, chosen: Mapping[int, Fusion]) -> set[int]:
        """The ops on the longest chains."""
        ready = self.ready(chosen)
        latest = [max(ready, default=0)] * len(ready)  # the round after which nothing would end later
        for i in reversed(range(len(ready))):
            for a in self._waits_for(i, chosen):
                latest[a] = min(latest[a], latest[i] - self._rounds[i])
        return {i for i in range(len(ready)) if ready[i] == latest[i]}
