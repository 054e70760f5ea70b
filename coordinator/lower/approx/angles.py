"""Sines, and the angle of a point.

*Range reduction.*  x / 2π less a whole number t near it is a part of a turn.  t is a truncation, which yields either of
the two whole numbers around x / 2π; so there is up to a turn to either side, eight quadrants, and no comparison is
needed before the pieces.  A piece is a quadrant, and sine and cosine share the comparisons.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from coordinator.lower.approx.division import divide
from coordinator.lower.approx.fit import Function, Piece, piece
from coordinator.lower.approx.graded import graded
from coordinator.lower.approx.pieces import elements, evaluate, relabel, split
from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import abs_, negative
from coordinator.lower.ranges import note
from mpcnode.ring import FRAC

TURN_BITS = 32  # of 1 / 2π: x·2^-TURN_BITS turns are lost, and x / 2π has room for |x| < 2^14
EIGHTH = 3  # a part of a turn is held in eighths


def _eighths(b: Builder, x: Value) -> Value:
    """x [elements] modulo a turn, in eighths of it: within -8 .. 8.  2 rounds."""
    scaled = b.emit("scale", relabel(b, x, 0), by=round(2**TURN_BITS / (2 * math.pi)), frac=0)
    bits = FRAC + TURN_BITS
    whole = b.settled(b.emit("trunc", relabel(b, scaled, bits), by=bits))
    rest = b.emit("sub", scaled, b.emit("scale", whole, by=1 << bits, frac=0))
    return b.align(relabel(b, rest, bits - EIGHTH), FRAC)


@lru_cache(maxsize=2)
def _quadrants(name: str) -> tuple[Piece, ...]:
    f: Function = {"sin": lambda u: np.sin(u * math.pi / 4), "cos": lambda u: np.cos(u * math.pi / 4)}[name]
    return tuple(piece(f, 2.0 * k, 2.0 * k + 2) for k in range(-4, 4))


def _wave(b: Builder, x: Value, name: str) -> Value:
    u, pieces = _eighths(b, elements(b, x)), _quadrants(name)
    where = split(b, u, [p.start for p in pieces] + [pieces[-1].stop], low=False, high=False)
    y = evaluate(b, u, pieces, where.between(b, range(len(pieces) + 1)), b.frac)
    return note(b, b.reshape(y, x.shape), -1, 1)


def sin(b: Builder, x: Value) -> Value:
    """The sine for |x| < 2^14: error <= 2^-12.  7 rounds."""
    return _wave(b, x, "sin")


def cos(b: Builder, x: Value) -> Value:
    """The cosine for |x| < 2^14: error <= 2^-12.  7 rounds."""
    return _wave(b, x, "cos")


def tan(b: Builder, x: Value) -> Value:
    """sin(x) / cos(x): error <= 2^-11·(1 + tan(x)^2), for |cos(x)| > 2^-8.  19 rounds."""
    return divide(b, sin(b, x), cos(b, x))


def atan(b: Builder, x: Value) -> Value:
    """The arc tangent for |x| < 2^43: error <= 2^-12.  5 rounds."""
    return note(b, graded(b, x, "atan"), -math.pi / 2, math.pi / 2)


def asin(b: Builder, x: Value) -> Value:
    """The arc sine for |x| <= 1: error <= 2^-12.  ±π/2 beyond.  5 rounds."""
    return note(b, graded(b, x, "asin"), -math.pi / 2, math.pi / 2)


def acos(b: Builder, x: Value) -> Value:
    """π/2 - asin(x): as `asin`."""
    return note(b, b.sub(b.fill(math.pi / 2, x), asin(b, x)), 0, math.pi)


def atan2(b: Builder, y: Value, x: Value) -> Value:
    """The angle of (x, y) for |x|, |y| < 2^23, one of them 2^-12 or more: error <= 2^-11.  0 where both are 0.

    Let p <= q be |x| and |y|.  a = atan(p / q) is the angle with the nearer axis; with the x axis it is a, or π/2 - a
    where |x| < |y|; and π less that where x < 0.  Its sign is that of y.
    """
    width, height = abs_(b, x), abs_(b, y)
    steep = b.less(width, height)
    gap = b.keep(steep, b.sub(height, width), 1)
    near, far = b.sub(height, gap), b.add(width, gap)
    a = atan(b, note(b, divide(b, b.lift(near), note(b, far, 0)), 0, 1))
    a = b.where(steep, b.sub(b.fill(math.pi / 2, a), a), a)
    a = b.where(negative(b, x), b.sub(b.fill(math.pi, a), a), a)
    return note(b, b.where(negative(b, y), b.emit("neg", a), a), -math.pi, math.pi)
