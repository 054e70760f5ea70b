"""Functions with pieces on all of an interval, narrower towards where they are steep, and a constant beyond.

What is steep towards an end (the arc sine at 1, the inverse error function) is laid as a function of the distance d
from that end: d is a multiple of 2^-FRAC as x is, so the first piece begins at 2^-FRAC and the value at the end is the
constant's.  Odd functions have the same pieces mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from coordinator.lower.approx.curves import flat_tolerance, relative
from coordinator.lower.approx.fit import Function, Numbers, Piece, fit
from coordinator.lower.approx.pieces import Split, elements, evaluate, split, weighted
from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import note
from mpcnode.ring import FRAC

UNIT = 2.0**-FRAC
WIDE = 2.0**12  # x above it is too large to be squared
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)  # of ln Γ: Σ c_k·x^(1-2k)
FAR = 16.0  # from here Stirling's series with these terms is exact to float64's last bits


class Graded(NamedTuple):
    """Pieces from left to right; below the first, above the last: constants."""

    pieces: tuple[Piece, ...]
    below: float
    above: float

    @property
    def knots(self) -> list[float]:
        return [self.pieces[0].start, *(p.stop for p in self.pieces)]


def mirrored(p: Piece, about: float, sign: float) -> Piece:
    """The piece of sign·f(about - x), for p of f(x).  It begins a unit later than the mirrored one ends, since a piece
    holds its first number and not its last.
    """
    c = tuple(sign * v * (-1) ** k for k, v in enumerate(p.c))
    return Piece(about - p.stop + UNIT, about - p.start + UNIT, about - p.centre, p.half, c)


def odd(right: tuple[Piece, ...], above: float) -> Graded:
    """Of an odd function, by its pieces for x >= 0."""
    return Graded((*(mirrored(p, 0.0, -1.0) for p in reversed(right)), *right), -above, above)


def towards_one(f: Function) -> tuple[Piece, ...]:
    """Pieces from 0 to 1 - 2^-FRAC of a function that is steep at 1."""
    found = fit(lambda d: f(1.0 - d), flat_tolerance, UNIT, 1.0)
    return tuple(mirrored(p, 1.0, 1.0) for p in reversed(found))


# ---- the functions in float64 ----------------------------------------------------------------------------------------
def _each(f: Callable[[float], float]) -> Function:
    return lambda x: np.array([f(float(v)) for v in x])


def _erf_inv(y: float) -> float:
    """By Newton's iteration on erfc, from above where it is concave."""
    x, rest = 0.0, 1.0 - y
    for _ in range(60):
        step = (math.erfc(x) - rest) * math.sqrt(math.pi) / 2 * math.exp(x * x)
        x += step
        if abs(step) < 1e-14:
            break
    return x


def _digamma(x: Numbers) -> Numbers:
    """ψ(x) = ψ(x + 1) - 1 / x up to FAR, and Stirling's series there."""
    low = np.zeros_like(x)
    while (near := x < FAR).any():
        low, x = low - near / x, x + near
    series = sum((1 - 2 * k) * c * x ** (-2 * k) for k, c in enumerate(STIRLING, 1))
    return np.asarray(low + np.log(x) - 1 / (2 * x) + series)


def _log_gamma(x: Numbers) -> Numbers:
    return _each(math.lgamma)(x)


# ---- the tables ------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=16)
def table(name: str) -> Graded:
    """The pieces of one of the functions below."""
    if name == "atan":
        return odd(fit(np.arctan, flat_tolerance, 0.0, WIDE), math.pi / 2 - 0.5 / WIDE)
    if name == "asin":
        return odd(towards_one(np.arcsin), math.pi / 2)
    if name == "atanh":
        return odd(towards_one(np.arctanh), math.atanh(1 - UNIT))
    if name == "erf_inv":
        return odd(towards_one(_each(_erf_inv)), _erf_inv(1 - UNIT))
    if name == "asinh":
        return odd(fit(np.arcsinh, flat_tolerance, 0.0, WIDE), math.asinh(WIDE))
    if name == "acosh":
        from_one = fit(lambda d: np.arccosh(1.0 + d), flat_tolerance, UNIT, WIDE)
        moved = (p._replace(start=p.start + 1, stop=p.stop + 1, centre=p.centre + 1) for p in from_one)
        return Graded(tuple(moved), 0.0, math.acosh(WIDE))
    if name == "lgamma":
        return Graded(fit(_log_gamma, relative(_log_gamma), UNIT, WIDE), math.lgamma(UNIT), math.lgamma(WIDE))
    assert name == "digamma"
    low, high = _digamma(np.array([1 / WIDE, WIDE]))
    return Graded(fit(_digamma, relative(_digamma), 1 / WIDE, WIDE), float(low), float(high))


def graded(b: Builder, x: Value, name: str) -> Value:
    """The function of that name, with the Builder's fraction bits.  5 rounds, and a comparison a piece."""
    flat, t = elements(b, x), table(name)
    where = split(b, flat, t.knots, low=True, high=True)
    inside = evaluate(b, flat, t.pieces, where.between(b, range(len(t.pieces) + 1)), b.frac)
    return b.reshape(b.emit("add", inside, _beyond(b, where, t)), x.shape)


def asinh(b: Builder, x: Value) -> Value:
    """log(x + sqrt(x^2 + 1)) for |x| <= 2^12: error <= 2^-12.  ±9.01 beyond.  5 rounds."""
    return graded(b, x, "asinh")


def acosh(b: Builder, x: Value) -> Value:
    """log(x + sqrt(x^2 - 1)) for 1 <= x <= 2^12: error <= 2^-12.  0 below, 9.01 above.  5 rounds."""
    return note(b, graded(b, x, "acosh"), 0)


def atanh(b: Builder, x: Value) -> Value:
    """log((1 + x) / (1 - x)) / 2 for |x| < 1: error <= 2^-12.  ±6.58 from 1 on.  5 rounds."""
    return graded(b, x, "atanh")


def erf_inv(b: Builder, x: Value) -> Value:
    """The inverse error function for |x| < 1: error <= 2^-12.  ±3.27 from 1 on.  5 rounds."""
    return graded(b, x, "erf_inv")


def lgamma(b: Builder, x: Value) -> Value:
    """log(gamma(x)) for 2^-18 <= x <= 2^12: error <= 2^-12·max(1, |f|).  12.48 below, 29970 above.  5 rounds."""
    return graded(b, x, "lgamma")


def digamma(b: Builder, x: Value) -> Value:
    """The derivative of `lgamma` for 2^-12 <= x <= 2^12: error <= 2^-12·max(1, |f|).  -4097 below, 8.32 above.  5
    rounds.
    """
    return graded(b, x, "digamma")


def _beyond(b: Builder, where: Split, t: Graded) -> Value:
    """The constants, where x is outside of the pieces."""
    count = where.below(b, 0).shape[0]
    low = b.reshape(where.below(b, 0), (1, count))
    high = b.emit("not", b.reshape(where.below(b, len(t.pieces)), (1, count)))
    return weighted(b, b.emit("concat", low, high, axis=0), [t.below, t.above], b.frac)
