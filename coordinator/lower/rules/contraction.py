"""dot_general and convolutions, as the machine's batched matrix product."""

from __future__ import annotations

import math

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.rules.arithmetic import lifted_bit
from coordinator.lower.rules.registry import Operand, Public, Site, rule
from coordinator.lower.rules.structure import padded


def _others(rank: int, *groups: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are in none of the groups."""
    return tuple(a for a in range(rank) if not any(a in group for group in groups))


def _factor(s: Site, x: Operand) -> Value:
    """Known numbers with the bits that they need; bits as the integers 0 and 1, which leave nothing to truncate."""
    if not isinstance(x, Public):
        bit = lifted_bit(s, x)
        return x if bit is None else s.b.emit("inject", bit)
    return s.value(x) if s.kind == "i" else s.factor(x, x.shape)


def _product(s: Site, x: Value, y: Value) -> Value:
    """x @ y, truncated for floats."""
    return s.b.dot(x, y) if s.kind == "f" else s.b.dot(x, y, None)


@rule("dot_general")
def dot_general(s: Site, x: Operand, y: Operand) -> Value:
    """[batch, free, contracted] by [batch, contracted, free], each group made one axis, then spread out again."""
    (cx, cy), (bx, by) = s.params["dimension_numbers"]
    cx, cy, bx, by = (tuple(int(a) for a in axes) for axes in (cx, cy, bx, by))
    a, b = _factor(s, x), _factor(s, y)
    fx, fy = _others(len(a.shape), bx, cx), _others(len(b.shape), by, cy)
    batch, inner = tuple(a.shape[i] for i in bx), math.prod(a.shape[i] for i in cx)
    m, n = tuple(a.shape[i] for i in fx), tuple(b.shape[i] for i in fy)
    lead = (math.prod(batch),) if batch else ()
    left = s.b.reshape(s.b.transpose(a, bx + fx + cx), (*lead, math.prod(m), inner))
    right = s.b.reshape(s.b.transpose(b, by + cy + fy), (*lead, inner, math.prod(n)))
    return s.b.reshape(_product(s, left, right), batch + m + n)


@rule("conv_general_dilated")
def conv_general_dilated(s: Site, x: Operand, kernel: Operand) -> Value:
    """A convolution as one matrix product: for each place in the kernel, a strided slice of the padded input."""
    if s.params["feature_group_count"] != 1 or s.params["batch_group_count"] != 1:
        s.refuse("groups of features are not supported", "use a convolution for each group")
    numbers = s.params["dimension_numbers"]
    a = s.b.transpose(_factor(s, x), tuple(numbers.lhs_spec))  # [images, features, *space]
    k = s.b.transpose(_factor(s, kernel), tuple(numbers.rhs_spec))  # [outputs, features, *places]
    ends = zip(s.params["padding"], s.params["lhs_dilation"], strict=True)
    a = padded(s, a, [(0, 0, 0), (0, 0, 0), *((int(low), int(high), int(d) - 1) for (low, high), d in ends)])
    images, outputs, *space = (s.shape[i] for i in numbers.out_spec)
    features = math.prod(k.shape[1:])
    patches = _patches(s, a, k.shape[2:], tuple(space))  # [images, features, places, *space]
    to_rows = (0, *range(3, 3 + len(space)), 1, 2)
    rows = s.b.reshape(s.b.transpose(patches, to_rows), (images * math.prod(space), features))
    columns = s.b.transpose(s.b.reshape(k, (outputs, features)), (1, 0))
    spread = s.b.reshape(_product(s, rows, columns), (images, *space, outputs))
    plain = s.b.transpose(spread, (0, len(space) + 1, *range(1, len(space) + 1)))
    return s.b.transpose(plain, tuple(int(i) for i in np.argsort(numbers.out_spec)))


def _patches(s: Site, a: Value, places: tuple[int, ...], space: tuple[int, ...]) -> Value:
    """[images, features, places, *space]: what each place of the kernel meets."""
    strides, dilation = (tuple(int(n) for n in s.params[p]) for p in ("window_strides", "rhs_dilation"))
    cuts = []
    for place in np.ndindex(*places):
        start = tuple(int(p) * d for p, d in zip(place, dilation, strict=True))
        limit = tuple(i + (n - 1) * w + 1 for i, n, w in zip(start, space, strides, strict=True))
        cut = s.b.emit("slice", a, start=(0, 0, *start), limit=(*a.shape[:2], *limit), stride=(1, 1, *strides))
        cuts.append(s.b.reshape(cut, (*a.shape[:2], 1, *space)))
    return cuts[0] if len(cuts) == 1 else s.b.emit("concat", *cuts, axis=2)
