"""Quotients."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from coordinator.lower.approx.curves import CURVES, Pieces, at_pieces, by_scale_pays, needed, scaled
from coordinator.lower.approx.pieces import column, elements, rows, split, weighted
from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import abs_, negative
from coordinator.lower.ranges import Range, note, range_of

PRODUCT_FRAC = 42  # of a quotient before it is truncated
NARROW = 16  # divisors that are known to be within such a factor share an exponent: the mantissa is 1/4 to 4 or so


class Inverse(NamedTuple):
    """1 / y = mantissa·Σ_k bits[k]·2^-exponents[k]; no bits for a single exponent."""

    mantissa: Value  # [elements]
    bits: Value | None
    exponents: list[int]

    @property
    def top(self) -> int:
        return max(0, *self.exponents)


def divide(b: Builder, x: Value, y: Value) -> Value:
    """x / y for secret y, x secret or public, 2^-12 <= |y| < 2^24 and |x / y| < 2^18: error <= 2^-12·|x / y| + 2^-16.
    Where y is nearer to 0, x·2^12 (for |x| < 2^7).  7 rounds for y known to be positive and below 2^12, 8 for others
    that are positive, else 4 more; for many elements 12, and 16.  Where y is broadcast, it is inverted before, which
    may cost a round more.

    y = 2^e·z, and the quotient is (x·2^-e)·(1/z): what is large never meets what was rounded to an absolute error.
    """
    if x.shape != y.shape:
        shape = np.broadcast_shapes(x.shape, y.shape)
        return divide(b, b.spread(x, shape), b.spread(y, shape))
    known = range_of(b, y)
    if known.low < 0:
        flipped = (b.emit("neg", x), b.emit("neg", y)) if known.high <= 0 else _absolute(b, x, y)
        return divide(b, *flipped)
    core = elements(b, _before_broadcast(b, y))
    many = by_scale_pays(core, "quotient", known)
    inverse = _inverse_by_scale(b, core, known) if many else _inverse(b, core, needed("quotient", known))
    if many or x.public or core.type.size < y.type.size:
        w = _times_scale(b, x, y, inverse)
    else:
        w = b.reshape(_times_scale_at_once(b, elements(b, x), inverse), x.shape)
    mantissa = _like(b, y, inverse.mantissa)
    quotient = b.align(b.emit("mul", b.align(w, PRODUCT_FRAC - mantissa.frac), mantissa), b.frac)
    return note(b, quotient, 0 if range_of(b, x).low >= 0 else -math.inf)


def _inverse(b: Builder, y: Value, pieces: Pieces) -> Inverse:
    """Pieces of 2^e / y, where e is the same for a few pieces."""
    where = split(b, y, pieces.knots, low=pieces.low, high=False)
    knots = pieces.knots
    ends = [(knots[0], knots[-1])] * pieces.total if knots[-1] <= NARROW * knots[0] else itertools.pairwise(knots)
    es = [3 * round((math.log2(p) + math.log2(q)) / 6) for p, q in ends]
    starts = [i for i, e in enumerate(es) if i == 0 or e != es[i - 1]]
    by_e = [p.times(2.0**e) for p, e in zip(pieces.near + pieces.far, es, strict=True)]
    cut = len(pieces.near)
    normal = pieces._replace(near=tuple(by_e[:cut]), far=tuple(by_e[cut:]))
    mantissa = at_pieces(b, y, normal, where, 20, CURVES["quotient"].below * 2.0 ** es[0])
    exponents = [es[i] for i in starts]
    if len(starts) == 1:
        if not pieces.low:
            note(b, mantissa, 2.0 ** es[0] / knots[-1], 2.0 ** es[0] / knots[0])
        return Inverse(mantissa, None, exponents)
    first = b.reshape(where.below(b, starts[1]), (1, *y.shape))  # what lies below the first piece included
    return Inverse(mantissa, b.emit("concat", first, where.between(b, [*starts[1:], len(es)]), axis=0), exponents)


def _inverse_by_scale(b: Builder, y: Value, known: Range) -> Inverse:
    mantissa, n = scaled(b, y, "quotient", known, 24)
    return Inverse(mantissa, n.bits, n.exponents)


def _times_scale_at_once(b: Builder, x: Value, inverse: Inverse) -> Value:
    """x·2^-e, not truncated, by a select an exponent: 1 round."""
    if inverse.bits is None:
        return b.shift(x, -inverse.exponents[0])
    ups = column(b, [1 << (inverse.top - e) for e in inverse.exponents], inverse.top, x.shape[0])
    shifted = b.emit("mul", rows(b, x, len(inverse.exponents)), ups)
    return b.emit("sum", b.emit("select", inverse.bits, shifted, keep=1), axes=(0,))


def _times_scale(b: Builder, x: Value, y: Value, inverse: Inverse) -> Value:
    """x·2^-e, not truncated, by a product: 2 rounds, or 1 for public x."""
    if inverse.bits is None:
        return b.shift(b.lift(x), -inverse.exponents[0])
    scale = weighted(b, inverse.bits, [2.0**-e for e in inverse.exponents], inverse.top)
    return b.emit("mul", x, _like(b, y, scale))


# ---- what was broadcast is computed before ---------------------------------------------------------------------------
def _before_broadcast(b: Builder, y: Value) -> Value:
    op = b.op(y)
    return Value(op.args[0], b.ops[op.args[0]].type) if op.name == "broadcast" else y


def _like(b: Builder, y: Value, flat: Value) -> Value:
    """What was computed for the elements of y before its broadcast, in y's place."""
    shaped, op = b.reshape(flat, _before_broadcast(b, y).shape), b.op(y)
    if op.name != "broadcast":
        return shaped
    return b.emit("broadcast", shaped, shape=y.shape, dims=op.integers("dims"))


def _absolute(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """x and y with the same quotient and y >= 0."""
    core = _before_broadcast(b, y)
    sign = _like(b, y, b.reshape(negative(b, core), (core.type.size,)))
    flipped = b.emit("sub", b.lift(x), b.emit("scale", b.keep(sign, x, 1), by=2, frac=0))
    return flipped, _like(b, y, b.reshape(abs_(b, core), (core.type.size,)))
