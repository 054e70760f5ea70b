"""conv_general_dilated, which is its own gradient by either factor, as the machine's convolution."""

from __future__ import annotations

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.rules.contraction import as_factor
from coordinator.lower.rules.registry import Operand, Site, rule
from mpcnode.window import Window


@rule("conv_general_dilated")
def conv_general_dilated(s: Site, x: Operand, kernel: Operand) -> Value:
    """[groups, images, *space, channels] by [groups, *window, channels, outputs]; what belongs to which group, and the
    order of axes, is a matter of views.
    """
    numbers, features, batches = (
        s.params[p] for p in ("dimension_numbers", "feature_group_count", "batch_group_count")
    )
    groups, rank = max(features, batches), len(s.shape) - 2
    space = tuple(range(2, 2 + rank))
    images, channels, *lengths = (int(a) for a in numbers.lhs_spec)
    x_value = s.b.transpose(as_factor(s, x, kernel), (images, *lengths, channels))
    outputs, inputs, *lengths = (int(a) for a in numbers.rhs_spec)
    w_value = s.b.transpose(as_factor(s, kernel, x), (*lengths, inputs, outputs))
    left = _grouped(s, x_value, 0 if batches > 1 else rank + 1, groups)
    right = _grouped(s, w_value, rank + 1, groups)
    if s.kind == "f":
        product = s.b.settle(s.b.emit("conv", *s.b.fitted(left, right), **_window(s)._asdict()))
    else:
        product = s.b.emit("conv", left, right, **_window(s)._asdict())
    joined = s.b.transpose(product, (1, *space, 0, rank + 2))  # [images, *places, groups, outputs]
    merged = s.b.reshape(joined, (*joined.shape[:-2], groups * joined.shape[-1]))
    plain = s.b.transpose(merged, (0, rank + 1, *range(1, rank + 1)))
    return s.b.transpose(plain, tuple(int(i) for i in np.argsort(numbers.out_spec)))


def _grouped(s: Site, x: Value, axis: int, groups: int) -> Value:
    """With the groups along an axis as the first axis."""
    split = s.b.reshape(x, (*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :]))
    return s.b.transpose(split, (axis, *(a for a in range(len(split.shape)) if a != axis)))


def _window(s: Site) -> Window:
    low, high = zip(*s.params["padding"], strict=True)
    fields = (s.params["window_strides"], low, high, s.params["lhs_dilation"], s.params["rhs_dilation"])
    return Window(*(tuple(int(n) for n in entries) for entries in fields))
