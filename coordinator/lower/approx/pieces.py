"""Piecewise polynomials of secret values in five rounds.

All thresholds are compared in one batch (3 rounds).  Beside it, the polynomial of *every* piece is evaluated, which
takes products of degree 4 three rounds: the square, a truncation, a square.  Then `select` keeps the piece that x lies
in (1 round), and the sum over the pieces is truncated (1 round).  What the other pieces yield may overflow: Z_2^64 is
a ring, so b·w is 0 for b = 0 whatever w is.

Values here are [elements] and, with one row a piece, [pieces, elements]; binary points are FRAC where x is read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator.lower.approx.fit import Piece
from coordinator.lower.builder import Builder, Value
from mpcnode.graph import Kind
from mpcnode.ring import FRAC, LIMIT_BITS

SMALL = 64.0  # results below it have a binary point of their own, finer than that of the larger ones


def wrap(numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    """Integers of any size as elements of Z_2^64."""
    return np.array([n % (1 << 64) for n in numbers], np.uint64).view(np.int64)


def column(b: Builder, numbers: Sequence[int], frac: int, count: int) -> Value:
    """The public ring elements [pieces] as [pieces, count]."""
    return b.emit("broadcast", b.raw(wrap(numbers), frac), shape=(len(numbers), count), dims=(0,))


def rows(b: Builder, x: Value, count: int) -> Value:
    """[elements] as [count, elements]."""
    return b.spread(x, (count, *x.shape))


def relabel(b: Builder, x: Value, frac: int) -> Value:
    """The same ring elements, read at another binary point."""
    return x if x.frac == frac else b.emit("scale", x, by=1, frac=frac - x.frac)


def below(b: Builder, x: Value, knots: Sequence[float], *, exact: bool = False) -> Value:
    """The bits x < knot, [knots, elements], at the cost of one comparison's rounds.

    Unless `exact`, a few of the lowest bits are passed over where the pieces are wide enough: extrapolated by 1/256 of
    its width a piece is still right.
    """
    raw = [round(knot * 2**FRAC) for knot in knots]
    width = min((q - p for p, q in itertools.pairwise(raw)), default=1)
    lo = 0 if exact else max(0, min(12, width.bit_length() - 9))
    return b.emit("sign", b.emit("sub", rows(b, x, len(raw)), column(b, raw, FRAC, x.shape[0])), lo=lo)


class Split(NamedTuple):
    """Where x lies among pieces: the bits x < edge, [pieces + 1, elements], 0 and 1 at an open end; none for a single
    open piece.
    """

    edges: Value | None
    low: bool  # whether x may lie below the first edge, above the last one
    high: bool

    def below(self, b: Builder, edge: int) -> Value:
        """The bit [elements] x < edge."""
        assert self.edges is not None
        row = b.slice_axis(self.edges, 0, edge, edge + 1)
        return b.reshape(row, row.shape[1:])

    def between(self, b: Builder, cuts: Sequence[int]) -> Value:
        """The bits [len(cuts) - 1, elements] edge cuts[i] <= x < edge cuts[i + 1].  Local."""
        assert self.edges is not None
        if list(cuts) == list(range(cuts[0], cuts[-1] + 1)):
            upper = b.slice_axis(self.edges, 0, cuts[0] + 1, cuts[-1] + 1)
            lower = b.slice_axis(self.edges, 0, cuts[0], cuts[-1])
        else:
            upper, lower = (b.emit("take", self.edges, b.const(c, 0), axis=0) for c in (cuts[1:], cuts[:-1]))
        return b.emit("xor", upper, lower)


def split(b: Builder, x: Value, knots: Sequence[float], *, low: bool, high: bool, exact: bool = False) -> Split:
    """Compare x [elements] with the inner knots, and with the first (low) or last (high) where x may be outside of
    them.  3 rounds.
    """
    asked = knots[0 if low else 1 : len(knots) if high else -1]
    if not asked:
        return Split(None, low, high)
    edges = below(b, x, asked, exact=exact)
    ends = [b.lift(b.spread(b.const(bit, 0), (1, *x.shape)), Kind.BIT) for bit in (0, 1)]
    edges = edges if low else b.emit("concat", ends[0], edges, axis=0)
    return Split(edges if high else b.emit("concat", edges, ends[1], axis=0), low, high)


def evaluate(
    b: Builder,
    x: Value,
    pieces: Sequence[Piece],
    bits: Value | None,
    frac: int,
    constant: tuple[Value, float] | None = None,
) -> Value:
    """The polynomial of the piece whose bit is 1, at x [elements], with `frac` fraction bits; 0 where no bit is.

    bits [pieces, elements]; None: there is one piece, and it holds everywhere.  constant: a bit [elements], and what is
    added where it is 1.  3 rounds beside the comparisons and 2 after them.
    """
    cut = next((i for i, p in enumerate(pieces) if (p.top < SMALL) != (pieces[0].top < SMALL)), len(pieces))
    total: Value | None = None
    for at in (slice(0, cut), slice(cut, len(pieces))):
        group = pieces[at]
        if not group:
            continue
        assert len({p.top < SMALL for p in group}) == 1, "large on one side only"
        y = _group(b, x, group)
        if bits is not None:
            y = b.emit("select", b.slice_axis(bits, 0, at.start, at.stop), y, keep=1)
        y = b.emit("sum", y, axes=(0,))
        if constant is not None and at.start == 0:  # it continues the first piece, so it is as large
            y = b.emit("add", y, weighted(b, b.reshape(constant[0], (1, *x.shape)), constant[1:], y.frac))
        y = b.align(y, frac)
        total = y if total is None else b.emit("add", total, y)
    assert total is not None
    return total


def weighted(b: Builder, bits: Value, weights: Sequence[float], frac: int) -> Value:
    """Σ_k weights[k]·bits[k] of bits [weights, elements], with `frac` fraction bits.  1 round."""
    by = column(b, [round(w * 2**frac) for w in weights], frac, bits.shape[1])
    return b.emit("sum", b.emit("mul", b.emit("inject", bits), by), axes=(0,))


def _group(b: Builder, x: Value, pieces: Sequence[Piece]) -> Value:
    """Every piece's polynomial at every x, not truncated: a quartic as a quadratic in a quadratic,

        p(u) = c4·s² + c2·s + c1·u + c0   with u = x - centre, s = (u² + βu) / 2^e <= 1,

    which any quartic with c4 != 0 is.  One square and one truncation an element and piece; u² is x² and local sums.
    All pieces share binary points: s is made with the widest piece's, and narrower ones are scaled up to it.
    """
    count = x.shape[0]
    frac = min(58, LIMIT_BITS - 1 - math.ceil(math.log2(1.05 * max(p.top for p in pieces))))
    s_frac = min(18, (frac - 8) // 2)
    betas = [p.c[3] / (2 * p.c[4]) for p in pieces]
    es = [math.ceil(math.log2(p.half**2 * (1 + abs(beta)))) for p, beta in zip(pieces, betas, strict=True)]
    wide = max(0, *es)
    assert 2 * FRAC + wide < LIMIT_BITS, "a piece is too wide to be squared"

    centres = [round(p.centre * 2**FRAC) for p in pieces]
    ups = [1 << (wide - e) for e in es]
    slants = [round(beta * p.half * 2**FRAC * up) for p, beta, up in zip(pieces, betas, ups, strict=True)]
    lines = [slant - 2 * c * up for c, slant, up in zip(centres, slants, ups, strict=True)]
    offsets = [c * c * up - c * slant for c, slant, up in zip(centres, slants, ups, strict=True)]
    x2 = b.emit("mul", x, x)
    xs = rows(b, x, len(pieces))
    s = b.emit("mul", rows(b, x2, len(pieces)), column(b, ups, wide, count))
    s = b.emit("add", s, b.emit("mul", xs, column(b, lines, FRAC + wide, count)))
    s = b.emit("add", s, column(b, offsets, s.frac, count))
    s = b.emit("trunc", s, by=s.frac - s_frac)

    c4s, c2s, c1s, c0s = [], [], [], []
    for p, beta, e, c in zip(pieces, betas, es, centres, strict=True):
        gain, c2 = 2.0**e / p.half**2, p.c[2] - p.c[4] * beta**2
        c4s.append(round(p.c[4] * gain**2 * 2 ** (frac - 2 * s_frac)))
        c2s.append(round(c2 * gain * 2 ** (frac - s_frac)))
        c1s.append(round((p.c[1] - c2 * beta) / p.half * 2 ** (frac - FRAC)))
        c0s.append(round(p.c[0] * 2**frac) - c1s[-1] * c)
    y = b.emit("mul", b.emit("mul", s, s), column(b, c4s, frac - 2 * s_frac, count))
    y = b.emit("add", y, b.emit("mul", s, column(b, c2s, frac - s_frac, count)))
    y = b.emit("add", y, b.emit("mul", xs, column(b, c1s, frac - FRAC, count)))
    return b.emit("add", y, column(b, c0s, frac, count))


def stair(b: Builder, x: Value, pieces: Sequence[Piece], before: float | None, after: float | None) -> Value:
    """For functions that live near 0 (|x| < 16 or so, |values| <= 2) and are constant beyond, such as the logistic: all
    pieces share x's powers, so a piece costs a comparison and a select.  5 rounds.

    f = p_last + Σ_k [x < knot_k]·(p_{k-1} - p_k): far out only powers with coefficient 0 overflow.
    """
    frac, square = 58, 15  # of the sums, and of x²
    polynomials = [p.in_x() for p in pieces]
    knots = [p.start for p in pieces[1:]]
    if before is not None:
        polynomials.insert(0, np.array([before, 0, 0, 0, 0]))
        knots.insert(0, pieces[0].start)
    if after is not None:
        polynomials.append(np.array([after, 0, 0, 0, 0]))
        knots.append(pieces[-1].stop)
    points = [0, FRAC, square, FRAC + square, 2 * square]  # of 1, x, x², x³, x⁴
    tables = [[round(float(c) * 2 ** (frac - p)) for c, p in zip(poly, points, strict=True)] for poly in polynomials]

    x2 = b.emit("trunc", b.emit("mul", x, x), by=2 * FRAC - square)
    powers = [x, x2, b.emit("mul", x, x2), b.emit("mul", x2, x2)]
    stacked = b.emit("concat", *(b.reshape(relabel(b, p, 0), (1, *p.shape)) for p in powers), axis=0)

    def at(table: Sequence[Sequence[int]]) -> Value:
        matrix = wrap([c for row in table for c in row[1:]]).reshape(len(table), len(powers))
        y = b.emit("dot", b.raw(matrix, frac), stacked)
        return b.emit("add", y, column(b, [row[0] for row in table], frac, x.shape[0]))

    y = b.reshape(at(tables[-1:]), x.shape)
    if knots:
        steps = [[p - q for p, q in zip(left, right, strict=True)] for left, right in itertools.pairwise(tables)]
        y = b.emit("add", y, b.emit("sum", b.emit("select", below(b, x, knots), at(steps), keep=1), axes=(0,)))
    return b.emit("trunc", y, by=frac - b.frac)


def elements(b: Builder, x: Value) -> Value:
    """x as a vector with FRAC fraction bits, which everything here wants."""
    assert x.type.kind is Kind.ARITH, "public values are computed when the graph is written"
    return b.reshape(b.align(x, FRAC), (x.type.size,))
