"""Functions that look alike at every scale: log, reciprocal, square roots.

Two ways.  Directly: pieces over the whole domain, 20 to 40 of them, in five rounds.  Or, where there are many elements,
by scale: x is brought into [1, 64) first, and 4 to 7 pieces are left.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from coordinator.lower.approx.fit import Function, Numbers, Piece, fit
from coordinator.lower.approx.pieces import Split, column, elements, evaluate, relabel, rows, split, weighted
from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import ROUND_BYTES
from coordinator.lower.ranges import Range, range_of
from mpcnode.ring import FRAC

TOLERANCE = 2.0**-12.7  # of the pieces: what is left of 2^-12 is for rounding
NEAR = 12  # x >= 2^NEAR is too large to be squared: there pieces are evaluated at x / 2^NEAR, one round later
TOP = 24  # domains end at 2^TOP
OCTAVES = 6  # of a scale: what `normalise` brings into [1, 64)
# Dealt an element and piece or scale, if each comparison had leaves of its own; rounds that scaling adds.
PIECE_BYTES, SCALE_BYTES, SCALE_ROUNDS = 81, 65, 6


class Curve(NamedTuple):
    """A function for x >= low, and how it behaves under scaling: f(x·s) = s^power·f(x), or f(x) + log s (power 0)."""

    f: Function
    tolerance: Function
    low: int  # log2 of where the domain begins
    high: int  # ... and ends
    power: float
    below: float  # where x is below the domain
    zero_above: bool  # whether f is 0 above the domain (else it is as the last piece has it)


def flat_tolerance(x: Numbers) -> Numbers:
    return np.full_like(x, TOLERANCE)


def relative(f: Function, least: float = 1.0, tolerance: float = TOLERANCE) -> Function:
    return lambda x: tolerance * np.maximum(least, np.abs(f(x)))


def _reciprocal(x: Numbers) -> Numbers:
    return np.asarray(1 / x)


def _rsqrt(x: Numbers) -> Numbers:
    return np.asarray(1 / np.sqrt(x))


CURVES = {
    "log": Curve(np.log, flat_tolerance, -18, 24, 0, -18 * math.log(2), zero_above=False),
    "reciprocal": Curve(_reciprocal, relative(_reciprocal), -12, 13, -1, 2.0**12, zero_above=True),
    "quotient": Curve(_reciprocal, relative(_reciprocal, 0), -12, 24, -1, 2.0**12, zero_above=False),
    "sqrt": Curve(np.sqrt, relative(np.sqrt), -18, 24, 0.5, 0.0, zero_above=False),
    "cbrt": Curve(np.cbrt, relative(np.cbrt), -18, 24, 1 / 3, 0.0, zero_above=False),
    "rsqrt_everywhere": Curve(_rsqrt, relative(_rsqrt, 0), -18, 24, -0.5, 2.0**9, zero_above=False),
    "rsqrt": Curve(_rsqrt, relative(_rsqrt), -18, 24, -0.5, 2.0**9, zero_above=False),
}


# ---- pieces ----------------------------------------------------------------------------------------------------------
class Pieces(NamedTuple):
    """near: for x; far: for x / 2^NEAR, after them.  low, high: whether x may lie below the first or above the last."""

    near: tuple[Piece, ...]
    far: tuple[Piece, ...]
    low: bool
    high: bool

    @property
    def total(self) -> int:
        return len(self.near) + len(self.far)

    @property
    def knots(self) -> list[float]:
        far = [p.start * 2.0**NEAR for p in self.far] + [p.stop * 2.0**NEAR for p in self.far[-1:]]
        near = [p.start for p in self.near] + ([] if far else [self.near[-1].stop])
        return near + far


@lru_cache(maxsize=64)
def _unit(name: str) -> tuple[Piece, ...]:
    """Pieces for what `normalise` yields."""
    f, power = CURVES[name].f, CURVES[name].power
    return fit(f, relative(f, 0) if power else flat_tolerance, 1.0, 2.0**OCTAVES)


@lru_cache(maxsize=256)
def needed(name: str, known: Range) -> Pieces:
    """Pieces for what x can be; the outermost ones are open where x cannot leave the domain."""
    curve, split_at = CURVES[name], 2.0**NEAR
    bottom, top = 2.0**curve.low, 2.0**curve.high
    low = min(max(bottom, known.low), top / 2)
    high = max(min(top, known.high), low + 2.0**-FRAC)
    near: tuple[Piece, ...] = ()
    far: tuple[Piece, ...] = ()
    if high <= 2 * split_at:
        near = fit(curve.f, curve.tolerance, low, high)
    else:
        near = fit(curve.f, curve.tolerance, low, split_at) if low < split_at else ()
        far = fit(_at_far(curve.f), _at_far(curve.tolerance), max(1.0, low / split_at), high / split_at)
    return Pieces(near, far, known.low < bottom, curve.zero_above and known.high > top)


def _at_far(f: Function) -> Function:
    return lambda z: f(z * 2.0**NEAR)


def at_pieces(b: Builder, x: Value, pieces: Pieces, where: Split, frac: int, below: float) -> Value:
    """The polynomials at x, with `frac` fraction bits; `below` where x is below them.  5 rounds, far ones 6."""
    bits = None if where.edges is None else where.between(b, range(pieces.total + 1))
    constant = (where.below(b, 0), below) if where.low and below else None
    parts: list[Value] = []
    for group, far in ((pieces.near, False), (pieces.far, True)):
        if group:
            start = len(pieces.near) if far else 0
            own = None if bits is None else b.slice_axis(bits, 0, start, start + len(group))
            at = relabel(b, b.emit("trunc", x, by=NEAR), FRAC) if far else x
            parts.append(evaluate(b, at, group, own, frac, None if parts else constant))
    return parts[0] if len(parts) == 1 else b.emit("add", *parts)


# ---- scaling ---------------------------------------------------------------------------------------------------------
class Normal(NamedTuple):
    """z in [1, 64) and what was divided by: x = z·2^exponents[k] where bits[k]; z = 0 where x is below the domain."""

    z: Value
    bits: Value  # [1 + scales, elements]; the first row: below the domain, whose scale is the first one's
    exponents: list[int]


def scales(name: str, known: Range) -> list[int]:
    """Exponents from the beginning of the curve's domain up to where x can be."""
    top = TOP if known.high >= 2.0**TOP else math.log2(max(known.high, 2.0 ** CURVES[name].low * 1.01))
    return list(range(CURVES[name].low, math.ceil(top), OCTAVES))


def normalise(b: Builder, x: Value, exponents: list[int]) -> Normal:
    """Bring x [elements] into [1, 64): a comparison and a select for every 6 octaves.  5 rounds."""
    where = split(b, x, [2.0**e for e in exponents] + [math.inf], low=True, high=False, exact=True)
    groups = where.between(b, range(len(exponents) + 1))
    top = max(0, exponents[-1])
    shifted = b.emit("mul", rows(b, x, len(exponents)), column(b, [1 << (top - e) for e in exponents], top, x.shape[0]))
    z = b.align(b.emit("sum", b.emit("select", groups, shifted, keep=1), axes=(0,)), FRAC)
    first = b.reshape(where.below(b, 0), (1, *x.shape))
    return Normal(z, b.emit("concat", first, groups, axis=0), [exponents[0], *exponents])


def scaled(b: Builder, x: Value, name: str, known: Range, frac: int) -> tuple[Value, Normal]:
    """The curve at the normalised x."""
    curve, unit = CURVES[name], _unit(name)
    n = normalise(b, x, scales(name, known))
    where = split(b, n.z, [0.5, *(p.stop for p in unit)], low=True, high=False)  # z is 0, or about 1 and more
    at_one = float(curve.f(np.array(1.0))) if curve.below else 0.0
    return at_pieces(b, n.z, Pieces(unit, (), low=True, high=False), where, frac, at_one), n


def by_scale_pays(x: Value, name: str, known: Range) -> bool:
    """Whether scaling x, which needs more rounds, saves more than they are worth."""
    pieces = needed(name, known).total - len(_unit(name))
    saved = PIECE_BYTES * pieces - SCALE_BYTES * len(scales(name, known))
    return saved * x.type.size > SCALE_ROUNDS * ROUND_BYTES


def evaluate_curve(b: Builder, x: Value, name: str) -> Value:
    """f(x) with the Builder's fraction bits.  5 rounds, or 6 where x may be above 2^12; by scale 10 (log) or 12."""
    flat, known = elements(b, x), range_of(b, x)
    if by_scale_pays(flat, name, known):
        return b.reshape(_by_scale(b, flat, name, known), x.shape)
    pieces = needed(name, known)
    where = split(b, flat, pieces.knots, low=pieces.low, high=pieces.high)
    return b.reshape(at_pieces(b, flat, pieces, where, b.frac, CURVES[name].below), x.shape)


def _by_scale(b: Builder, x: Value, name: str, known: Range) -> Value:
    power = CURVES[name].power
    if not power:
        y, n = scaled(b, x, name, known, b.frac)
        return b.emit("add", y, weighted(b, n.bits, [e * math.log(2) for e in n.exponents], b.frac))
    y, n = scaled(b, x, name, known, 22)
    factors = [2.0 ** (power * e) for e in n.exponents]
    return b.align(b.emit("mul", y, weighted(b, n.bits, factors, 18)), b.frac)
