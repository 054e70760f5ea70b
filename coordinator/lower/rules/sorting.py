"""Sorts, and the largest few: see `lower.sorting`."""

from __future__ import annotations

import math

import numpy as np

from coordinator.lower import sorting
from coordinator.lower.builder import Value
from coordinator.lower.rules.registry import Operand, Site, rule
from mpcnode.graph import Kind


def _front(s: Site, x: Value, axis: int) -> Value:
    """[axis, all others]"""
    others = tuple(a for a in range(len(x.shape)) if a != axis)
    moved = s.b.transpose(x, (axis, *others))
    return s.b.reshape(moved, (x.shape[axis], math.prod(x.shape[a] for a in others)))


def _back(s: Site, x: Value, shape: tuple[int, ...], axis: int) -> Value:
    """The inverse of `_front`; `shape` is that of the result."""
    others = tuple(a for a in range(len(shape)) if a != axis)
    spread = s.b.reshape(x, (shape[axis], *(shape[a] for a in others)))
    return s.b.transpose(spread, tuple(int(i) for i in np.argsort((axis, *others))))


@rule("sort")
def sort(s: Site, *xs: Operand) -> list[Value]:
    """Stable, whether it is asked for or not."""
    axis, keys = int(s.params["dimension"]), int(s.params["num_keys"])
    values = [_front(s, s.value(x), axis) for x in xs]
    values = [s.b.lift(v, Kind.BIT) if kind == "b" else v for v, kind in zip(values, s.kinds, strict=True)]
    ordered = [s.b.emit("inject", v) if v.type.kind is Kind.BIT else v for v in values[:keys]]
    found = [s.b.lift(v) for v in sorting.sort(s.b, [*ordered, *values[keys:]], keys)]
    found = [_as_bit(s, v) if kind == "b" else v for v, kind in zip(found, s.kinds, strict=True)]
    return [_back(s, v, shape, axis) for v, shape in zip(found, s.shapes, strict=True)]


def _as_bit(s: Site, v: Value) -> Value:
    """A number 0 or 1 as a bit."""
    return v if v.type.kind is Kind.BIT else s.b.emit("sign", s.b.emit("neg", v), lo=0, top=2)


@rule("top_k")
def top_k(s: Site, x: Value) -> list[Value]:
    """The k largest, in falling order, and where they stood; of equal ones the earlier first."""
    axis, k = int(s.params.get("axis", len(x.shape) - 1)), int(s.params["k"])
    flat = _front(s, x, axis)
    n, many = flat.shape
    first = s.b.emit("broadcast", s.b.const(np.arange(n), 0), shape=(n, many), dims=(0,))
    lowest, places = sorting.sort(s.b, [s.b.emit("neg", flat), first], 1, k)
    largest = s.b.emit("neg", lowest)
    return [_back(s, v, shape, axis) for v, shape in zip((largest, s.b.lift(places)), s.shapes, strict=True)]
