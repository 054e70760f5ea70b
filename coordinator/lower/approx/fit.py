"""Piecewise polynomials of degree 4, fitted when a graph is compiled: no table of magic numbers stands anywhere.

A piece is the Chebyshev interpolant of the function (its error is within a small factor of the minimax polynomial's;
Trefethen, Approximation Theory and Approximation Practice, 2013, chapter 4).  Pieces are laid from the left, each as
wide as the tolerance allows.  The arithmetic is float64 and deterministic; what leaves are numbers that become
integers of the graph, so all parties see the same ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial, chebyshev
from numpy.polynomial.polynomial import polyval

from mpcnode.ring import FRAC

Numbers: TypeAlias = npt.NDArray[np.float64]
Function: TypeAlias = Callable[[Numbers], Numbers]

DEGREE = 4
NODES = np.cos((np.arange(DEGREE + 1) + 0.5) * np.pi / (DEGREE + 1))
FROM_VALUES = np.linalg.inv(chebyshev.chebvander(NODES, DEGREE))  # values at the nodes -> Chebyshev coefficients
CHECKED = np.linspace(-1.0, 1.0, 33)
AT_CHECKED = chebyshev.chebvander(CHECKED, DEGREE) @ FROM_VALUES


class Piece(NamedTuple):
    """On [start, stop) the function is Σ c_i·t^i with t = (x - centre) / half in [-1, 1]."""

    start: float
    stop: float
    centre: float  # a multiple of 2^-FRAC, so that x - centre is exact
    half: float
    c: tuple[float, ...]

    @property
    def top(self) -> float:
        """The largest absolute value on the piece."""
        return float(np.abs(polyval(CHECKED, self.c)).max())

    def times(self, factor: float) -> Piece:
        return self._replace(c=tuple(factor * c for c in self.c))

    def in_x(self) -> Numbers:
        """Coefficients of 1, x, x^2, ... instead of t's powers."""
        return np.asarray(Polynomial(self.c)(Polynomial([-self.centre / self.half, 1 / self.half])).coef)


def _error(f: Function, tolerance: Function, start: float, stop: float) -> float:
    """Largest error of the interpolant on the interval, as a multiple of the tolerance."""
    centre, half = (start + stop) / 2, (stop - start) / 2
    x = centre + half * CHECKED
    return float((np.abs(AT_CHECKED @ f(centre + half * NODES) - f(x)) / tolerance(x)).max())


def piece(f: Function, start: float, stop: float) -> Piece:
    middle, half, grid = (start + stop) / 2, (stop - start) / 2, 2.0**FRAC
    centre = float(np.rint(middle * grid)) / grid
    about_middle = Polynomial(chebyshev.cheb2poly(FROM_VALUES @ f(middle + half * NODES)))
    c = about_middle(Polynomial([(centre - middle) / half, 1.0])).coef
    return Piece(start, stop, centre, half, tuple(float(v) for v in c))


def _widest(f: Function, tolerance: Function, start: float, high: float) -> float:
    """The largest end up to which one piece from `start` keeps to the tolerance, by bisection; of x's logarithm where
    x is positive, since such functions look alike at every scale.
    """
    if _error(f, tolerance, start, high) <= 1:
        return high
    scale = start > 0
    low, top = (0.0, float(np.log(high / start))) if scale else (0.0, high - start)
    for _ in range(30):
        middle = (low + top) / 2
        stop = start * float(np.exp(middle)) if scale else start + middle
        if _error(f, tolerance, start, stop) <= 1:
            low = middle
        else:
            top = middle
    return start * float(np.exp(low)) if scale else start + low


def _lay(f: Function, tolerance: Function, low: float, high: float) -> list[float]:
    """The ends of pieces from `low` to `high`."""
    knots, grid = [low], 2.0**FRAC
    while knots[-1] < high:
        stop = _widest(f, tolerance, knots[-1], high)
        if stop < high:
            stop = max(float(np.floor(stop * grid)), knots[-1] * grid + 1) / grid
        knots.append(stop)
    return knots


def fit(f: Function, tolerance: Function, low: float, high: float) -> tuple[Piece, ...]:
    """Pieces from `low` to `high` that keep to the tolerance, as few as interpolation needs, and of those the tightest
    of a few tries: what the last piece has to spare is spread over all.  Knots are multiples of 2^-FRAC, so that
    comparing with them is exact.
    """
    knots = _lay(f, tolerance, low, high)
    for share in (0.4, 0.55, 0.7, 0.85):
        tighter = _lay(f, lambda x, share=share: share * tolerance(x), low, high)  # type: ignore[misc]
        if len(tighter) == len(knots):
            knots = tighter
            break
    return tuple(piece(f, start, stop) for start, stop in itertools.pairwise(knots))
