"""Functions of numbers whose sizes a calibration has met: brought to where the approximations are exact, and back.

sqrt(x·2^k) = sqrt(x)·2^(k/2), and so on: a power of two only reads a ring element at another binary point.  So the
roots of numbers around 1e-10 are right to a few parts in 1000, where the domains of `functions` end at 2^-18.  Each of
these takes x with any fraction bits and what was met of it, and returns a result with as many as it has.

A number may come to 2^MARGIN times the largest that was met; only then does it leave the function's domain.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.lower.approx import functions
from coordinator.lower.approx.curves import TOP, evaluate_curve
from coordinator.lower.approx.division import divide as plain_divide
from coordinator.lower.builder import Builder, Value
from coordinator.lower.points import MARGIN, Seen
from mpcnode.ring import FRAC

FINE_FRAC = 30  # of a reciprocal root, which may be as small as 2^-12
QUOTIENT_TOP = 18  # |x / y| < 2^18 in the domain of `division.divide`
FAMILIAR = (2.0**-8, 2.0**4)  # numbers of these sizes need no frame


def familiar(seen: Seen | None) -> bool:
    """Are all of these numbers where the plain functions are exact?"""
    return seen is None or (FAMILIAR[0] <= seen.least and seen.largest <= FAMILIAR[1])


def _up(seen: Seen) -> int:
    """k with x·2^k < 2^TOP, where even what is twice 2^MARGIN as large has room."""
    return TOP - MARGIN - seen.top


def _framed(b: Builder, x: Value, k: int) -> Value:
    return b.align(b.shift(x, k), FRAC)


def sqrt(b: Builder, x: Value, seen: Seen) -> Value:
    """The square root: error <= 2^-12·max(2^(top/2 - 10), sqrt(x)) for |x| < 2^top; 0 below 2^(top - 38)."""
    half = _up(seen) // 2
    with b.aiming(FRAC):
        return b.shift(functions.sqrt(b, _framed(b, x, 2 * half)), -half)


def grid(seen: Seen) -> float:
    """The least number but 0 that `sqrt` yields for numbers like these."""
    return 2.0 ** (-FRAC // 2 - _up(seen) // 2)


def rsqrt(b: Builder, x: Value, seen: Seen) -> Value:
    """1 / sqrt(x): error <= 2^-12 relative; below 2^(top - 38) as there."""
    half = _up(seen) // 2
    with b.aiming(FINE_FRAC):
        return b.shift(evaluate_curve(b, _framed(b, x, 2 * half), "rsqrt_everywhere"), half)


def divide(b: Builder, x: Value, y: Value, below: Seen, quotient: Seen) -> Value:
    """x / y, x secret or public: error <= 2^-12·|x / y| + 2^(top - 30) for |x / y| < 2^top; for y below 2^(top - 32) of
    its own top as there.
    """
    up = _up(below)
    more = QUOTIENT_TOP - MARGIN - quotient.top  # how much larger the quotient is made
    with b.aiming(FRAC):
        framed = plain_divide(b, _framed(b, x, up + more), _beneath(b, y, lambda v: _framed(b, v, up)))
        return b.shift(framed, -more)


def _beneath(b: Builder, y: Value, function: Callable[[Value], Value]) -> Value:
    """function(y), before y is broadcast."""
    op = b.op(y)
    if op.name != "broadcast":
        return function(y)
    inner = function(Value(op.args[0], b.ops[op.args[0]].type))
    return b.emit("broadcast", inner, shape=op.integers("shape"), dims=op.integers("dims"))


__all__ = ["divide", "familiar", "grid", "rsqrt", "sqrt"]
