"""Running sums, products and extremes along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.rules import arithmetic, elementwise
from coordinator.lower.rules.registry import Operand, Site, rule

Join: TypeAlias = Callable[[Site, Value, Value], Operand]


@rule("cumsum")
def cumsum(s: Site, x: Value) -> Value:
    """A product with a triangle of ones, which costs no round."""
    axis = int(s.params["axis"])
    n = x.shape[axis]
    ones = np.triu(np.ones((n, n), np.int64))
    last = len(x.shape) - 1
    perm = tuple(last if a == axis else axis if a == last else a for a in range(last + 1))
    moved = s.b.reshape(s.b.transpose(x, perm), (x.type.size // max(1, n), n))
    summed = s.b.emit("dot", moved, s.b.raw(ones.T.copy() if s.params["reverse"] else ones, 0))
    return s.b.transpose(s.b.reshape(summed, tuple(x.shape[p] for p in perm)), perm)


def _scan(s: Site, x: Value, join: Join) -> Value:
    """join over all entries up to each, in ceil(log2 n) steps (Hillis and Steele, Data Parallel Algorithms, CACM 1986):
    in step i, each is joined with the one 2^i places before it.
    """
    axis, n, ahead = int(s.params["axis"]), s.shape[int(s.params["axis"])], 1
    if s.params["reverse"]:
        x = s.b.emit("rev", x, axes=(axis,))
    while ahead < n:
        before, at = s.b.slice_axis(x, axis, 0, n - ahead), s.b.slice_axis(x, axis, ahead, n)
        joined = s.value(join(s._replace(shapes=[at.shape]), before, at))
        x = s.b.emit("concat", s.b.slice_axis(x, axis, 0, ahead), joined, axis=axis)
        ahead *= 2
    return s.b.emit("rev", x, axes=(axis,)) if s.params["reverse"] else x


JOINS: dict[str, Join] = {
    "cumprod": arithmetic.mul,
    "cummax": elementwise.maximum,
    "cummin": elementwise.minimum,
    "cumlogsumexp": elementwise.logaddexp,
}


@rule(*JOINS)
def scan(s: Site, x: Value) -> Value:
    return _scan(s, x, JOINS[s.name])


@rule("reduce_prod")
def reduce_prod(s: Site, x: Value) -> Value:
    """A tree over the reduced axes, two halves at a time."""
    for axis in sorted((int(a) for a in s.params["axes"]), reverse=True):
        while x.shape[axis] > 1:
            half = x.shape[axis] // 2
            low, high = s.b.slice_axis(x, axis, 0, half), s.b.slice_axis(x, axis, half, 2 * half)
            rest = s.b.slice_axis(x, axis, 2 * half, x.shape[axis])
            x = s.value(arithmetic.mul(s._replace(shapes=[low.shape]), low, high))
            x = s.b.emit("concat", x, rest, axis=axis) if rest.type.size else x
        if not x.shape[axis]:
            s.refuse("the product of no secret numbers")
        x = s.b.reshape(x, x.shape[:axis] + x.shape[axis + 1 :])
    return x
