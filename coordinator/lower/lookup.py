"""Oblivious lookup: a secret number as a vector of bits, and the product of that with a table.

`onehot` reads its argument modulo a power of two, for one round and no comparison.  Where the number is not known to be
in range, two comparisons a number, not a place, tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import range_of


def one_hot(b: Builder, x: Value, size: int, *, inside: bool = False) -> Value:
    """The bits x = j for j < size, [size, *shape of x]; no bit is set where x is outside, but with `inside`, which says
    that it never is, there some bit may be.  1 round, and 4 or 5 if a comparison is needed.
    """
    bits = b.emit("onehot", x, size=size)
    known, end = range_of(b, x), 1 << (size - 1).bit_length()
    checks = [] if inside or known.low >= 0 else [b.emit("not", b.emit("sign", x, lo=0))]
    if not inside and known.high >= end:
        checks.append(b.less(x, b.fill(end, x, 0)))
    if not checks:
        return bits
    valid = checks[0] if len(checks) == 1 else b.emit("and", *checks)
    return b.emit("and", bits, b.emit("broadcast", valid, shape=bits.shape, dims=tuple(range(1, len(bits.shape)))))


def one_hot_from_the_end(b: Builder, x: Value, size: int, *, inside: bool = False) -> Value:
    """As `one_hot`, where the negative numbers -size .. -1 count from the end: both halves of a vector of 2·size."""
    both = one_hot(b, b.emit("add", x, b.fill(size, x, 0)), 2 * size, inside=inside)
    return b.emit("xor", b.slice_axis(both, 0, 0, size), b.slice_axis(both, 0, size, 2 * size))


def joint(b: Builder, vectors: Sequence[Value]) -> Value:
    """One-hot vectors [size_i, count] as that of all numbers together, [product of sizes, count]."""
    found = vectors[0]
    for other in vectors[1:]:
        m, n, count = found.shape[0], other.shape[0], found.shape[1]
        left = b.emit("broadcast", found, shape=(m, n, count), dims=(0, 2))
        right = b.emit("broadcast", other, shape=(m, n, count), dims=(1, 2))
        found = b.reshape(b.emit("and", left, right), (m * n, count))
    return found
