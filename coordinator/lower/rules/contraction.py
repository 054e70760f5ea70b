"""dot_general, as the machine's batched matrix product."""

from __future__ import annotations

import math

from coordinator.lower.builder import Value
from coordinator.lower.rules.arithmetic import lifted_bit
from coordinator.lower.rules.registry import Operand, Public, Site, rule
from mpcnode.graph import Kind


def _others(rank: int, *groups: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are in none of the groups."""
    return tuple(a for a in range(rank) if not any(a in group for group in groups))


def as_factor(s: Site, x: Operand, other: Operand | None = None) -> Value:
    """Known numbers with the bits that they need; bits as the integers 0 and 1, which leave nothing to truncate."""
    if not isinstance(x, Public):
        bit = x if x.type.kind is Kind.BIT else lifted_bit(s, x)
        return x if bit is None else s.b.emit("inject", bit)
    return s.value(x) if s.kind == "i" else s.factor(x, x.shape, other)


def _product(s: Site, x: Value, y: Value) -> Value:
    """x @ y, truncated for floats."""
    return s.b.dot(x, y) if s.kind == "f" else s.b.dot(x, y, None)


@rule("dot_general")
def dot_general(s: Site, x: Operand, y: Operand) -> Value:
    """[batch, free, contracted] by [batch, contracted, free], each group made one axis, then spread out again."""
    (cx, cy), (bx, by) = s.params["dimension_numbers"]
    cx, cy, bx, by = (tuple(int(a) for a in axes) for axes in (cx, cy, bx, by))
    a, b = as_factor(s, x, y), as_factor(s, y, x)
    fx, fy = _others(len(a.shape), bx, cx), _others(len(b.shape), by, cy)
    batch, inner = tuple(a.shape[i] for i in bx), math.prod(a.shape[i] for i in cx)
    m, n = tuple(a.shape[i] for i in fx), tuple(b.shape[i] for i in fy)
    lead = (math.prod(batch),) if batch else ()
    left = s.b.reshape(s.b.transpose(a, bx + fx + cx), (*lead, math.prod(m), inner))
    right = s.b.reshape(s.b.transpose(b, by + cy + fy), (*lead, inner, math.prod(n)))
    return s.b.reshape(_product(s, left, right), batch + m + n)
