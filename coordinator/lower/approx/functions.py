"""Functions of one secret number."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from coordinator.lower.approx.curves import TOLERANCE, evaluate_curve, flat_tolerance, relative
from coordinator.lower.approx.fit import Function, Numbers, Piece, fit
from coordinator.lower.approx.pieces import elements, evaluate, split, stair, weighted
from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import abs_, negative
from coordinator.lower.ranges import note, note_peaks, range_of

EXP_TOP = 14.0
EXP_ZERO = -9.2  # exp is 2^-13.3 here, and 0 below
FINE_ZERO = -13.0  # of fine_exp: 2^-18.8
FINE = 2.0**-18  # of its pieces
LOG2_BITS = 26  # fraction bits of log 2


# ---- exponentials ----------------------------------------------------------------------------------------------------
@lru_cache(maxsize=2)
def _exp_pieces(zero: float, tolerance: float) -> tuple[Piece, ...]:
    return fit(np.exp, relative(np.exp, tolerance=tolerance), zero, EXP_TOP + 1 / 32)


@lru_cache(maxsize=8)
def _stair_pieces(f: Function, low: float, high: float) -> tuple[Piece, ...]:
    return fit(f, flat_tolerance, low, high)


def exp(b: Builder, x: Value) -> Value:
    """e^x for x < 2^43 in absolute value: error <= 2^-12·max(1, e^x) up to 14; 0 below -9.2, e^14 above 14.  5 rounds.

    Where x <= 0 is known (x - max(x), -|x|), 3 comparisons an element instead of 14.
    """
    flat, known = elements(b, x), range_of(b, x)
    if known.high <= 0:
        y = stair(b, flat, _stair_pieces(np.exp, EXP_ZERO, 0.0), 0.0, None)
    else:
        y = _exp_everywhere(b, flat, EXP_ZERO, TOLERANCE)
    return note_peaks(b, _exp_noted(b, b.reshape(y, x.shape), x), x)


def fine_exp(b: Builder, x: Value) -> Value:
    """As `exp` with an error <= 2^-16·max(1, e^x), and 0 below -13: what is near 1 may be taken from 1, as Adam takes
    the powers of its decays.  5 rounds, 28 comparisons an element.
    """
    y = _exp_everywhere(b, elements(b, x), FINE_ZERO, FINE)
    return _exp_noted(b, b.reshape(y, x.shape), x)


def _exp_everywhere(b: Builder, x: Value, zero: float, tolerance: float) -> Value:
    """e^x of x [elements]: 0 below `zero`, e^14 above 14."""
    pieces = _exp_pieces(zero, tolerance)
    where = split(b, x, [zero, *(p.stop for p in pieces)], low=True, high=True)
    y = evaluate(b, x, pieces, where.between(b, range(len(pieces) + 1)), b.frac)
    above = b.emit("not", b.reshape(where.below(b, len(pieces)), (1, *x.shape)))
    return b.emit("add", y, weighted(b, above, [math.exp(EXP_TOP)], b.frac))


def _exp_noted(b: Builder, y: Value, x: Value) -> Value:
    """y = e^x, with its range."""
    return note(b, y, *(math.exp(min(EXP_TOP, v)) for v in range_of(b, x)))


def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1: as `exp`; near 0 the error is absolute."""
    return b.sub(exp(b, x), b.fill(1.0, x))


def exp2(b: Builder, x: Value) -> Value:
    """2^x for x < 20: error <= 2^-12·max(1, 2^x).  As `exp`, of x·log 2."""
    return exp(b, b.settle(b.emit("scale", x, by=round(math.log(2) * 2**LOG2_BITS), frac=LOG2_BITS)))


def sinh(b: Builder, x: Value) -> Value:
    """(e^x - e^-x) / 2 for |x| < 14: error <= 2^-12·max(1, |f|); near 0 it is absolute.  6 rounds."""
    return b.settle(b.shift(b.sub(exp(b, x), exp(b, b.emit("neg", x))), -1))


def cosh(b: Builder, x: Value) -> Value:
    """(e^x + e^-x) / 2: as `sinh`."""
    return note(b, b.settle(b.shift(b.add(exp(b, x), exp(b, b.emit("neg", x))), -1)), 1)


# ---- logarithm, roots, quotients -------------------------------------------------------------------------------------
def log(b: Builder, x: Value) -> Value:
    """The natural logarithm for 2^-18 <= x < 2^24: error <= 2^-12.  -12.48 below.  5 rounds for x known to be below
    2^12, else 6; for many elements 10.
    """
    known = range_of(b, x)
    y = evaluate_curve(b, x, "log")
    return note(b, y, *(math.log(min(max(v, 2.0**-18), 2.0**26)) for v in known))


def log1p(b: Builder, x: Value) -> Value:
    """log(1 + x): as `log`; near 0 the error is absolute.  4 rounds and no comparison for x known to be in [0, 1]."""
    return log(b, b.add(x, b.fill(1.0, x)))


def sqrt(b: Builder, x: Value) -> Value:
    """The square root for 0 <= x < 2^24: error <= 2^-12·max(1, sqrt(x)).  0 below.  5 rounds for x known to be below
    2^12, else 6; for many elements 12.
    """
    top = math.sqrt(max(0.0, range_of(b, x).high))
    return note(b, evaluate_curve(b, x, "sqrt"), 0, top)


def cbrt(b: Builder, x: Value) -> Value:
    """The cube root for |x| < 2^24: error <= 2^-12·max(1, |f|).  11 rounds; for many elements 7 more."""
    y = evaluate_curve(b, abs_(b, x), "cbrt")
    return b.sub(y, b.emit("scale", b.emit("select", negative(b, x), y, keep=1), by=2, frac=0))


def rsqrt(b: Builder, x: Value) -> Value:
    """1 / sqrt(x) for 2^-18 <= x < 2^24: error <= 2^-12·max(1, 1/sqrt(x)).  2^9 below.  Rounds as `sqrt`."""
    return note(b, evaluate_curve(b, x, "rsqrt"), 0, max(range_of(b, x).low, 2.0**-18) ** -0.5)


def reciprocal(b: Builder, x: Value) -> Value:
    """1 / x for |x| >= 2^-12: error <= 2^-12·max(1, 1/|x|).  Nearer to 0 it is 2^12 (-2^12 for x < 0).  5 rounds for x
    known to be positive, else 10; for many elements 7 more.

    The error is absolute for |x| > 1: to divide by large numbers, `divide`.
    """
    known = range_of(b, x)
    if known.low >= 0:  # also where it is 0 for certain
        return note(b, evaluate_curve(b, x, "reciprocal"), 0, 1 / max(known.low, 2.0**-12))
    if known.high <= 0:
        return b.emit("neg", reciprocal(b, b.emit("neg", x)))
    y = reciprocal(b, abs_(b, x))
    return b.emit("sub", y, b.emit("scale", b.emit("select", negative(b, x), y, keep=1), by=2, frac=0))


# ---- sigmoids --------------------------------------------------------------------------------------------------------
def _logistic(x: Numbers) -> Numbers:
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2))


def _erf(x: Numbers) -> Numbers:
    return np.array([math.erf(v) for v in x])


def logistic(b: Builder, x: Value) -> Value:
    """1 / (1 + e^-x) for |x| < 2^43: error <= 2^-12.  5 rounds."""
    pieces = _stair_pieces(_logistic, -9.2, 9.2)
    return note(b, b.reshape(stair(b, elements(b, x), pieces, 0.0, 1.0), x.shape), 0, 1)


def tanh(b: Builder, x: Value) -> Value:
    """The hyperbolic tangent for |x| < 2^43: error <= 2^-12.  5 rounds."""
    pieces = _stair_pieces(np.tanh, -4.95, 4.95)
    return note(b, b.reshape(stair(b, elements(b, x), pieces, -1.0, 1.0), x.shape), -1, 1)


def erf(b: Builder, x: Value) -> Value:
    """The error function for |x| < 2^43: error <= 2^-12.  5 rounds."""
    pieces = _stair_pieces(_erf, -2.75, 2.75)
    return note(b, b.reshape(stair(b, elements(b, x), pieces, -1.0, 1.0), x.shape), -1, 1)


# ---- powers ----------------------------------------------------------------------------------------------------------
def whole_power(b: Builder, n: Value, logs: Value) -> Value:
    """c^n for a secret whole number n, |n| < 2^31, by the logarithm of a known c: as `fine_exp`, 0 where c^n is below
    2^-18 and e^14 where it is above that.
    """
    return fine_exp(b, b.mul(n, logs))


def integer_pow(b: Builder, x: Value, n: int) -> Value:
    """x^n by squaring: 2 rounds a factor on the longest path.  Every power on the way must be below 2^25 in absolute
    value; the error is a unit in the last place of each, times what it is multiplied with.  n < 0: 1 / x^-n.
    """
    if n < 0:
        return reciprocal(b, integer_pow(b, x, -n))
    if n == 0:
        return b.fill(1.0, x)
    result: Value | None = None
    while True:
        if n & 1:
            result = x if result is None else b.mul(result, x)
        n >>= 1
        if not n:
            assert result is not None
            return result
        x = b.mul(x, x)
