"""What is larger: signs, maxima and where they stand.

A maximum over K values is a tournament of groups.  In a group of g, all g(g - 1)/2 pairs are compared at once
(3 rounds), and the winner is who beats the other g - 1.  That conjunction, up to 8 bits a round, and the choice of the
value by `select` take 2 rounds for g up to 10, as one bit may be applied to the value while the others are joined.  Of
equal values the first wins, so there is exactly one winner.  Large groups save rounds and small ones comparisons; which
is better depends on how many maxima there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import note, note_maximum, range_of
from mpcnode.graph import MAX_AND, TOP

ROUND_BYTES = 1 << 20  # a round is worth so much dealing: 0.2 ms at 1 GB/s is 0.2 MB, 20 ms at 1 Gbit/s is 2.5 MB
COMPARE_BYTES, SELECT_BYTES = 41, 16  # dealt an element, for 64 bits (see mpcnode.protocols.masked)
SIZES = (2, 3, 4, 5, 6, 8, 10, 16, 32)  # of groups


# ---- elementwise -----------------------------------------------------------------------------------------------------
def negative(b: Builder, x: Value) -> Value:
    """The bit x < 0.  3 rounds."""
    return b.emit("sign", x, lo=0)


def relu(b: Builder, x: Value) -> Value:
    """max(x, 0), exactly.  4 rounds."""
    return note(b, b.emit("select", negative(b, x), x, keep=0), 0, max(0, range_of(b, x).high))


def abs_(b: Builder, x: Value) -> Value:
    """|x|, exactly.  4 rounds."""
    return b.emit("sub", x, b.emit("scale", b.emit("select", negative(b, x), x, keep=1), by=2, frac=0))


def sign_(b: Builder, x: Value) -> Value:
    """-1, 0 or 1 with x's binary point, exactly.  4 rounds."""
    down, up = (b.emit("inject", negative(b, v)) for v in (x, b.emit("neg", x)))
    return note(b, b.align(b.emit("sub", up, down), x.frac), -1, 1)


def maximum(b: Builder, x: Value, y: Value) -> Value:
    """The larger of two, exactly; either may be public.  4 rounds."""
    (xl, xh), (yl, yh) = range_of(b, x), range_of(b, y)
    return note(b, b.where(b.less(x, y), y, x), max(xl, yl), max(xh, yh))


def minimum(b: Builder, x: Value, y: Value) -> Value:
    """The smaller of two, exactly; either may be public.  4 rounds."""
    (xl, xh), (yl, yh) = range_of(b, x), range_of(b, y)
    return note(b, b.where(b.less(x, y), x, y), min(xl, yl), min(xh, yh))


# ---- over an axis ----------------------------------------------------------------------------------------------------
class Entrants(NamedTuple):
    """Who is left: values [entrants, elements], and where they stood; None: nobody asks."""

    values: Value | None
    places: Value | None

    def map(self, f: Callable[[Value], Value]) -> Entrants:
        return Entrants(*(None if v is None else f(v) for v in self))


def reduce_max(b: Builder, x: Value, axis: int) -> Value:
    """The maximum over one axis, exactly.  4 rounds for 2 values, 5 up to 10, 6 up to 32; beyond that, or for many
    maxima, a few groups one after the other (see `rounds_of`).  Raises ValueError for an empty axis.
    """
    flat, rest = _front(b, x, axis)
    values = _winners(b, Entrants(flat, None), want_values=True).values
    assert values is not None
    return note_maximum(b, b.reshape(values, rest), x, axis)


def reduce_min(b: Builder, x: Value, axis: int) -> Value:
    """The minimum over one axis: as `reduce_max`."""
    low, high = range_of(b, x)
    return note(b, b.emit("neg", reduce_max(b, b.emit("neg", x), axis)), low, high)


def argmax(b: Builder, x: Value, axis: int) -> Value:
    """The first index of the maximum over one axis, without fraction bits.  Rounds as `reduce_max`."""
    flat, rest = _front(b, x, axis)
    count, size = flat.shape
    places = b.emit("broadcast", b.const(np.arange(count), 0), shape=(count, size), dims=(0,))
    won = _winners(b, Entrants(flat, places), want_values=False).places
    assert won is not None
    return note(b, b.reshape(b.lift(won), rest), 0, count - 1)


def argmin(b: Builder, x: Value, axis: int) -> Value:
    """The first index of the minimum over one axis: as `argmax`."""
    return argmax(b, b.emit("neg", x), axis)


def _front(b: Builder, x: Value, axis: int) -> tuple[Value, tuple[int, ...]]:
    """x as [axis, all others], and the shape of the others."""
    axis %= len(x.shape)
    rest = tuple(n for i, n in enumerate(x.shape) if i != axis)
    if not x.shape[axis]:
        raise ValueError("the maximum of no values is not defined")
    first = b.transpose(x, (axis, *(i for i in range(len(x.shape)) if i != axis)))
    return b.reshape(first, (x.shape[axis], math.prod(rest))), rest


@lru_cache(maxsize=1024)
def plan(entrants: int, elements: int) -> tuple[tuple[int, ...], int]:
    """Sizes of the groups, level by level, and the cost in bytes when a round counts as ROUND_BYTES."""
    if entrants == 1:
        return (), 0
    best: tuple[tuple[int, ...], int] = (), 1 << 62
    for size in {min(size, entrants) for size in SIZES}:
        rounds, choice = choice_cost(size)
        each = COMPARE_BYTES * size * (size - 1) // 2 + choice
        later, cost = plan(-(-entrants // size), elements)
        cost += (3 + rounds) * ROUND_BYTES + each * elements * entrants // size
        if cost < best[1]:
            best = (size, *later), cost
    return best


def rounds_of(entrants: int, elements: int) -> int:
    """Rounds of a maximum over that many values, that many times."""
    return sum(3 + choice_cost(size)[0] for size in plan(entrants, elements)[0])


def _winners(b: Builder, left: Entrants, *, want_values: bool) -> Entrants:
    """[entrants, elements] -> [elements]."""
    assert left.values is not None
    count, size = left.values.shape
    for group in plan(count, size)[0]:
        assert left.values is not None
        groups, rest = divmod(left.values.shape[0], group)
        final = groups + bool(rest) == 1
        parts = []
        for start, of, many in ((0, group, groups), (groups * group, rest, 1)):
            if of and many:
                shape, stop = (many, of, size), start + many * of

                def cut(v: Value, start: int = start, stop: int = stop, shape: tuple[int, ...] = shape) -> Value:
                    return b.reshape(b.slice_axis(v, 0, start, stop), shape)

                parts.append(level(b, left.map(cut), want_values=want_values or not final))
        left = parts[0] if len(parts) == 1 else _both(b, *parts)
    return left.map(lambda v: b.reshape(v, (size,)))


def _both(b: Builder, x: Entrants, y: Entrants) -> Entrants:
    pairs = zip(x, y, strict=True)
    return Entrants(*(None if v is None or w is None else b.emit("concat", v, w, axis=0) for v, w in pairs))


def level(b: Builder, x: Entrants, *, want_values: bool, lo: int = 0) -> Entrants:
    """[groups, of, elements] -> the winners [groups, elements]."""
    assert x.values is not None
    groups, of, size = x.values.shape
    chosen = x if want_values else x._replace(values=None)
    if of == 1:
        return chosen.map(lambda v: b.reshape(b.lift(v), (groups, size)))
    bits = beaten(b, x.values, lo)
    for applied, left in conjunction(of - 1):
        if applied:
            last = b.reshape(b.slice_axis(bits, 1, bits.shape[1] - 1, bits.shape[1]), (groups, of, size))
            chosen = chosen.map(lambda v, bit=last: b.keep(bit, v, 1))  # type: ignore[misc]
        if left:
            bits = joined(b, b.slice_axis(bits, 1, 0, bits.shape[1] - applied), left)
    return chosen.map(lambda v: b.emit("sum", v, axes=(1,)))


@lru_cache(maxsize=256)
def conjunction(count: int) -> tuple[tuple[bool, int], ...]:
    """Round by round, how a value is kept where all of `count` bits are 1: whether one of them is applied to it, and
    into how many the others are joined.
    """
    if count == 1:
        return ((True, 0),)
    ways = [(applied, -(-(count - applied) // MAX_AND)) for applied in (False, True)]
    return min((((applied, left), *conjunction(left)) for applied, left in ways), key=len)


def joined(b: Builder, bits: Value, left: int) -> Value:
    """[..., of axis 1 `left` conjunctions, ...] of the bits along axis 1, as even as may be.  1 round."""
    fan, more = divmod(bits.shape[1], left)
    parts, start = [], 0
    for inputs, many in ((fan + 1, more), (fan, left - more)):
        if many:
            cuts = [b.slice_axis(bits, 1, start + i * many, start + (i + 1) * many) for i in range(inputs)]
            parts.append(cuts[0] if inputs == 1 else b.emit("and", *cuts))
            start += inputs * many
    return parts[0] if len(parts) == 1 else b.emit("concat", *parts, axis=1)


@lru_cache(maxsize=256)
def choice_cost(size: int) -> tuple[int, int]:
    """Rounds, and bytes dealt an element of the result, to choose among `size` entrants who are compared already."""
    steps, bits, dealt = conjunction(size - 1), size - 1, 0.0
    for applied, left in steps:
        dealt += SELECT_BYTES * applied
        fan, more = divmod(bits - applied, left) if left else (1, 0)
        dealt += sum(many * ((1 << n) - 1 - n) / 8 for n, many in ((fan + 1, more), (fan, left - more)))
        bits = left
    return len(steps), math.ceil(size * dealt)


def beaten(b: Builder, x: Value, lo: int = 0) -> Value:
    """For x [groups, of, elements] the bits [groups, of - 1, of, elements]: does entrant i beat its j-th rival?  Of
    equal ones the earlier does, so one comparison serves both sides of a pair.  (Of two within 2^lo, either may.  Of
    more all bits are compared: where comparisons disagree among each other, nobody beats all.)
    """
    of = x.shape[1]
    left, right = np.triu_indices(of, 1)
    one, other = (b.emit("take", x, b.const(i, 0), axis=1) for i in (left, right))
    gap = b.sub(one, other)
    # the right one of each pair beats the left one
    later = b.emit("sign", gap, lo=lo) if of == 2 else b.emit("sign", gap, lo=0, top=TOP)
    both = b.emit("concat", later, b.emit("not", later), axis=1)
    pair = np.zeros((of, of), np.int64)
    pair[right, left], pair[left, right] = np.arange(len(left)), np.arange(len(left)) + len(left)
    rivals = np.array([[pair[i, j] for j in range(of) if j != i] for i in range(of)], np.int64).T
    return b.emit("take", both, b.const(rivals, 0), axis=1)
