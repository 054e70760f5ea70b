"""Sorting: by rank in a constant number of rounds, or by a network in many rounds with few comparisons.

*By rank.*  All pairs are compared at once; how many come before an entry is its place, and `onehot` makes of the places
a permutation matrix, by which everything that moves along is multiplied: 7 rounds for any number of entries.  Of equal
ones the earlier is first, so the sort is stable for nothing.

*By network.*  Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3, section 5.2.2, algorithm M)
sorts any number of entries in t(t + 1)/2 layers for t = ceil(log2 n): of a layer all pairs are compared at once, and
each is exchanged by its bit.  It is not stable by itself: where something moves along, the entries' first places are
the last key.

Which is cheaper depends on how many entries there are and how often, as for maxima (`lower.order`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import COMPARE_BYTES, ROUND_BYTES, SELECT_BYTES
from coordinator.lower.ranges import note
from mpcnode.graph import MAX_ONEHOT, Kind

RANK_ROUNDS = 7
PLACE_BYTES = 9  # dealt for an entry of the permutation matrix: a bit, and the bit as a number


def layers(n: int) -> Iterator[list[tuple[int, int]]]:
    """The pairs that each layer of the network exchanges, the smaller to the first of the two."""
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top if n > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            yield [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1


def by_rank(n: int, many: int, keys: int, wanted: int) -> bool:
    """Is it cheaper to sort `many` rows of n entries by rank, if `wanted` places are asked for?"""
    if n > MAX_ONEHOT:
        return False
    compare = COMPARE_BYTES * (2 * keys - 1)
    rank = RANK_ROUNDS * ROUND_BYTES + many * (compare * n * (n - 1) // 2 + PLACE_BYTES * n * wanted)
    pairs = [len(layer) for layer in layers(n)]
    return rank <= 4 * len(pairs) * ROUND_BYTES + many * sum(pairs) * (compare + SELECT_BYTES * keys)


def sort(b: Builder, operands: Sequence[Value], keys: int, wanted: int | None = None) -> list[Value]:
    """The operands, [entries, rows], sorted along the first axis by the first `keys` of them, stably; of the result the
    first `wanted` places.  Operands that are no keys may be public, bits are no keys.
    """
    n, many = operands[0].shape
    wanted = n if wanted is None else wanted
    if n < 2 or not many:
        return [b.slice_axis(v, 0, 0, wanted) for v in operands]
    if by_rank(n, many, keys, wanted):
        return _by_rank(b, operands, keys, wanted)
    found = _by_network(b, operands, keys)
    return [b.slice_axis(v, 0, 0, wanted) for v in found]


def _precedes(b: Builder, one: Sequence[Value], other: Sequence[Value]) -> Value:
    """The bit: is `one` before `other` in lexical order?"""
    first = b.less(one[0], other[0])
    if len(one) == 1:
        return first
    later = b.emit("and", b.emit("not", b.less(other[0], one[0])), _precedes(b, one[1:], other[1:]))
    return b.emit("or", first, later)


# ---- by rank ---------------------------------------------------------------------------------------------------------
def _by_rank(b: Builder, operands: Sequence[Value], keys: int, wanted: int) -> list[Value]:
    places = _places(b, ranks(b, operands[:keys]), wanted)  # [rows, places, entries]
    return [_moved(b, places, v) for v in operands]


def ranks(b: Builder, keys: Sequence[Value]) -> Value:
    """How many entries come before each, [entries, rows]; of equal ones the earlier do."""
    n = keys[0].shape[0]
    left, right = np.triu_indices(n, 1)
    settled = [b.settled(key) for key in keys]  # places must be a permutation, so comparisons must agree
    one, other = ([b.emit("take", key, b.const(i, 0), axis=0) for key in settled] for i in (left, right))
    later = b.emit("inject", _precedes(b, other, one))  # the right one of a pair comes before the left one
    both = b.emit("concat", later, b.sub(b.fill(1, later, 0), later), axis=0)
    pair = np.zeros((n, n), np.int64)
    pair[left, right], pair[right, left] = np.arange(len(left)), np.arange(len(left)) + len(left)
    rivals = np.array([[pair[i, j] for j in range(n) if j != i] for i in range(n)], np.int64).T
    found = b.emit("sum", b.emit("take", both, b.const(rivals, 0), axis=0), axes=(0,))
    return note(b, found, 0, n - 1)


def _places(b: Builder, rank: Value, wanted: int) -> Value:
    """[rows, wanted, entries]: 1 where the entry has that place."""
    bits = b.slice_axis(b.emit("onehot", rank, size=rank.shape[0]), 0, 0, wanted)
    return b.emit("inject", b.transpose(bits, (2, 0, 1)))


def _moved(b: Builder, places: Value, v: Value) -> Value:
    """The entries [entries, rows] at their places."""
    number = b.emit("inject", v) if v.type.kind is Kind.BIT else v
    columns = b.reshape(b.transpose(number, (1, 0)), (*v.shape[::-1], 1))
    found = b.transpose(b.reshape(b.emit("dot", places, columns), places.shape[:2]), (1, 0))
    return b.emit("sign", b.emit("neg", found), lo=0, top=2) if v.type.kind is Kind.BIT else found


# ---- by network ------------------------------------------------------------------------------------------------------
def _by_network(b: Builder, operands: Sequence[Value], keys: int) -> list[Value]:
    n, many = operands[0].shape
    bits = [v.type.kind is Kind.BIT for v in operands]
    moving = [b.emit("inject", v) if bit else b.lift(v) for v, bit in zip(operands, bits, strict=True)]
    if keys < len(operands):
        first = b.emit("broadcast", b.const(np.arange(n), 0), shape=(n, many), dims=(0,))
        moving.insert(keys, b.lift(first))
    count = keys + (keys < len(operands))
    for layer in layers(n):
        moving = _exchanged(b, moving, count, np.array(layer, np.int64))
    if keys < len(operands):
        del moving[keys]
    pairs = zip(moving, bits, strict=True)
    return [b.emit("sign", b.emit("neg", v), lo=0, top=2) if bit else v for v, bit in pairs]


def _exchanged(b: Builder, values: Sequence[Value], keys: int, pairs: np.ndarray) -> list[Value]:
    """One layer: the entries of each pair change places where the second precedes the first."""
    n = values[0].shape[0]
    rest = np.setdiff1d(np.arange(n), pairs)
    back = np.argsort(np.concatenate([pairs[:, 0], pairs[:, 1], rest]))
    low, high = ([b.emit("take", v, b.const(i, 0), axis=0) for v in values] for i in pairs.T)
    bit = _precedes(b, high[:keys], low[:keys])
    found = []
    for v, x, y in zip(values, low, high, strict=True):
        gap = b.keep(bit, b.sub(y, x), 1)
        parts = [b.emit("add", x, gap), b.emit("sub", y, gap)]
        if len(rest):
            parts.append(b.emit("take", v, b.const(rest, 0), axis=0))
        found.append(b.emit("take", b.emit("concat", *parts, axis=0), b.const(back, 0), axis=0))
    return found
