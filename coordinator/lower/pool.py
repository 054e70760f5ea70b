"""The largest entry of each window, and which one that is.

A window along several axes is pooled axis by axis, so that overlapping windows share comparisons, or at once where few
windows make rounds dearer than comparisons; of equal entries the first wins either way.  Along an axis entrants meet in
pairs, and the winners again: 4 rounds for each halving, a comparison and a choice for each entrant but one.  Or all
pairs are compared in the same round, as `order` does.

Who won is kept as bits, and a gradient goes back the way on which the maximum came: no comparison is made for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import (
    COMPARE_BYTES,
    ROUND_BYTES,
    SELECT_BYTES,
    Entrants,
    beaten,
    choice_cost,
    joined,
    level,
)
from coordinator.lower.windows import Line, fold, unfold
from mpcnode.graph import MAX_AND


class Won(NamedTuple):
    """Who won among so many entrants: the bits of each level of a tournament, where an odd last one goes on unbeaten;
    or one bit an entrant.
    """

    entrants: int
    levels: tuple[Value, ...] = ()
    winner: Value | None = None

    def pick(self, b: Builder, y: Value) -> Value:
        """[count, ...] -> [...]: y where the entrant won."""
        if self.winner is not None:
            return b.emit("sum", b.keep(self.winner, y, 1), axes=(0,))
        for bits in self.levels:
            left, right, last = _pairs(b, y)
            y = _joined(b, b.add(left, b.keep(bits, b.sub(right, left), 1)), last)
        return b.reshape(y, y.shape[1:])

    def push(self, b: Builder, g: Value) -> list[Value]:
        """For each entrant, g where it won, else 0."""
        if self.winner is not None:
            return self._pushed(b, g)
        found = [g]
        for bits in reversed(self.levels):
            half = bits.shape[0]
            both = _stacked(b, found[:half])
            right = b.keep(bits, both, 1)
            pairs = zip(_unstacked(b, b.sub(both, right)), _unstacked(b, right), strict=True)
            found = [v for pair in pairs for v in pair] + found[half:]
        return found

    def _pushed(self, b: Builder, g: Value) -> list[Value]:
        """The last entrant gets what is left."""
        assert self.winner is not None
        wide = b.emit("broadcast", g, shape=(self.entrants - 1, *g.shape), dims=tuple(range(1, 1 + len(g.shape))))
        others = b.keep(b.slice_axis(self.winner, 0, 0, self.entrants - 1), wide, 1)
        return [*_unstacked(b, others), b.sub(g, b.emit("sum", others, axes=(0,)))]


class Pool(NamedTuple):
    """The largest entries, and how they were found: lines that were pooled at once, and who won."""

    largest: Value
    stages: tuple[tuple[tuple[Line, ...], Won], ...]

    def pick(self, b: Builder, y: Value) -> Value:
        """y where the largest entries stand."""
        for lines, won in self.stages:
            y = won.pick(b, _entrants(b, y, lines))
        return y

    def back(self, b: Builder, g: Value) -> Value:
        """The sum, for each entry, of g of all windows whose largest it is."""
        for lines, won in reversed(self.stages):
            parts = won.push(b, g)
            for windows in reversed(lines):
                rows = range(0, len(parts), windows.length)
                parts = [fold(b, parts[i : i + windows.length], windows) for i in rows]
            [g] = parts
        return g


def pool(b: Builder, x: Value, lines: Sequence[Line], lo: int = 0) -> Pool:
    """The largest entry of each window, exactly (within 2^lo, where that many bits need not count)."""
    stages = []
    for group in _groups(lines, x.shape):
        x, won = _largest(b, _entrants(b, x, group), lo)
        stages.append((group, won))
    return Pool(x, tuple(stages))


def _entrants(b: Builder, x: Value, lines: Sequence[Line]) -> Value:
    """[entrants, ...]: the windows' elements, the last axis fastest."""
    rest = len(x.shape)
    for done, windows in enumerate(reversed(lines)):
        x = unfold(b, x, windows._replace(axis=windows.axis + done))
    return b.reshape(x, (math.prod(n.length for n in lines), *x.shape[len(x.shape) - rest :]))


# ---- how -------------------------------------------------------------------------------------------------------------
def _cost(count: int, elements: int) -> tuple[int, bool]:
    """In bytes, when a round counts as ROUND_BYTES; and whether all pairs are compared at once."""
    if count == 1:
        return 0, False
    depth, (rounds, choice) = (count - 1).bit_length(), choice_cost(count)
    duels = 4 * depth * ROUND_BYTES + (COMPARE_BYTES + SELECT_BYTES) * (count - 1) * elements
    once = (3 + rounds) * ROUND_BYTES + (COMPARE_BYTES * count * (count - 1) // 2 + choice) * elements
    return min((duels, False), (once, True))


def _groups(lines: Sequence[Line], shape: tuple[int, ...]) -> list[tuple[Line, ...]]:
    """The lines one after the other, or all at once, whichever costs less."""
    apart, now = 0, list(shape)
    for windows in reversed(lines):
        now[windows.axis] = windows.places
        apart += _cost(windows.length, math.prod(now))[0]
    if _cost(math.prod(n.length for n in lines), math.prod(now))[0] < apart:
        return [tuple(lines)]
    return [(windows,) for windows in reversed(lines)]


def _largest(b: Builder, x: Value, lo: int) -> tuple[Value, Won]:
    """[entrants, ...] -> [...], the first of equal ones."""
    count, *rest = x.shape
    if count > 2 and _cost(count, math.prod(rest))[1]:
        return _of_all_pairs(b, x, lo)
    levels = []
    while x.shape[0] > 1:
        left, right, last = _pairs(b, x)
        gap = b.sub(left, right)
        bits = b.emit("sign", gap, lo=lo)
        x = _joined(b, b.sub(left, b.keep(bits, gap, 1)), last)
        levels.append(bits)
    return b.reshape(x, tuple(rest)), Won(count, tuple(levels))


def _of_all_pairs(b: Builder, x: Value, lo: int) -> tuple[Value, Won]:
    """One group of `order`; an entrant has won that beats all others."""
    count, *rest = x.shape
    group = b.reshape(x, (1, count, math.prod(rest)))
    largest = level(b, Entrants(group, None), want_values=True, lo=lo).values
    assert largest is not None
    bits = beaten(b, group, lo)
    while bits.shape[1] > 1:
        bits = joined(b, bits, -(-bits.shape[1] // MAX_AND))
    return b.reshape(largest, tuple(rest)), Won(count, (), b.reshape(bits, (count, *rest)))


def _pairs(b: Builder, x: Value) -> tuple[Value, Value, Value | None]:
    """Entrants 0, 2, 4, ... and 1, 3, 5, ..., and the last one if it has no partner."""
    count = x.shape[0]
    even = count // 2 * 2
    last = b.slice_axis(x, 0, even, count) if even < count else None
    return b.slice_axis(x, 0, 0, even, 2), b.slice_axis(x, 0, 1, even, 2), last


def _joined(b: Builder, x: Value, last: Value | None) -> Value:
    return x if last is None else b.emit("concat", x, last, axis=0)


def _stacked(b: Builder, values: Sequence[Value]) -> Value:
    """[...] each -> [number, ...]."""
    rows = [b.reshape(v, (1, *v.shape)) for v in values]
    return rows[0] if len(rows) == 1 else b.emit("concat", *rows, axis=0)


def _unstacked(b: Builder, x: Value) -> list[Value]:
    return [b.reshape(b.slice_axis(x, 0, i, i + 1), x.shape[1:]) for i in range(x.shape[0])]
