"""Whole numbers near a secret number, exactly.

A truncation by f bits yields t, one of the two whole numbers around x / 2^f; which one, the signs of x - t·2^f less a
few public thresholds tell, all at once.  x - t·2^f is small, so a comparison passes over the bits above it: 1 + 2 or 3
rounds, and 1 for the bit as a number.  Right for |x| < 2^62 as a ring element.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import note, range_of
from mpcnode.graph import TOP


def _near(b: Builder, x: Value, bits: int) -> tuple[Value, Value]:
    """t, one of the whole numbers around x / 2^bits, without fraction bits; and x - t·2^bits, which is within ±2^bits.
    x is read as a whole number.
    """
    x = b.settled(x)
    t = b.settled(b.emit("trunc", b.shift(x, -bits), by=bits))
    return t, b.emit("sub", x, b.emit("scale", t, by=1 << bits, frac=0))


def _below(b: Builder, rest: Value, thresholds: Sequence[int], bits: int) -> list[Value]:
    """The bits rest < threshold, for thresholds within ±2^bits."""
    top = min(TOP, bits + 2)
    return [b.emit("sign", b.emit("sub", rest, b.fill(v, rest, 0)), lo=0, top=top) for v in thresholds]


def floor_shift(b: Builder, x: Value, bits: int) -> Value:
    """floor(x / 2^bits) of a whole number x.  5 rounds."""
    if not bits:
        return x
    known = range_of(b, x)
    t, rest = _near(b, x, bits)
    [under] = _below(b, rest, [0], bits)
    low, high = (v * 2.0**-bits for v in known)
    return note(b, b.emit("sub", t, b.emit("inject", under)), low - 1, high)


def to_zero_shift(b: Builder, x: Value, bits: int) -> Value:
    """x / 2^bits towards zero, of a whole number x.  6 rounds."""
    if not bits:
        return x
    t, rest = _near(b, x, bits)
    under, positive = _below(b, rest, [0, 1], bits)
    negative = b.emit("sign", x, lo=0)
    down = b.emit("inject", b.emit("and", b.emit("not", negative), under))
    up = b.emit("inject", b.emit("and", negative, b.emit("not", positive)))
    return b.emit("add", b.emit("sub", t, down), up)


def to_even_shift(b: Builder, x: Value, bits: int) -> Value:
    """x / 2^bits to the nearest, halves to the even one, of a whole number x.  5 rounds.

    Let h = x / 2^bits + 1/2 and r = h - 2t in (-2, 2), with t one of the whole numbers around h / 2.  Then the result
    is 2t - [r < 0] - [r <= -1] + [r > 1].
    """
    if not bits:
        return x
    one = 1 << bits
    h = b.emit("add", x, b.fill(one >> 1, x, 0))
    t, rest = _near(b, h, bits + 1)
    below, far_below, not_above = _below(b, rest, [0, 1 - one, one + 1], bits + 1)
    change = b.emit("sub", b.emit("inject", b.emit("not", not_above)), b.emit("inject", below))
    change = b.emit("sub", change, b.emit("inject", far_below))
    return b.emit("add", b.emit("scale", t, by=2, frac=0), change)


def away_shift(b: Builder, x: Value, bits: int) -> Value:
    """x / 2^bits to the nearest, halves away from zero, of a whole number x.  9 rounds."""
    if not bits:
        return x
    negative = b.emit("inject", b.emit("sign", x, lo=0))
    return floor_shift(b, b.emit("sub", b.emit("add", x, b.fill(1 << (bits - 1), x, 0)), negative), bits)


def to_zero_quotient(b: Builder, x: Value, c: int) -> Value:
    """x / c towards zero, for |x| < 2^31 and any 0 < c < 2^31; for a power of two, |x| < 2^62.  6 or 7 rounds.

    |x| / c comes from a product with round(2^31 / c): within 3/2 of the quotient, so it is among 4 numbers.
    """
    if c & (c - 1) == 0:
        return to_zero_shift(b, x, c.bit_length() - 1)
    negative = b.emit("sign", x, lo=0)
    size = b.emit("sub", x, b.emit("scale", b.emit("select", negative, x, keep=1), by=2, frac=0))
    near = b.settled(b.emit("trunc", b.emit("scale", size, by=round(2**31 / c), frac=31), by=31))
    rest = b.emit("sub", size, b.emit("scale", near, by=c, frac=0))
    steps = _below(b, rest, [-c, 0, c, 2 * c], c.bit_length() + 1)
    change = b.emit("sum", b.emit("inject", b.emit("not", _stacked(b, steps))), axes=(0,))
    found = b.emit("sub", b.emit("add", near, change), b.fill(2, change, 0))
    twice = b.emit("scale", b.emit("select", negative, found, keep=1), by=2, frac=0)
    return b.emit("sub", found, twice)


def _stacked(b: Builder, values: Sequence[Value]) -> Value:
    return b.emit("concat", *(b.reshape(v, (1, *v.shape)) for v in values), axis=0)
