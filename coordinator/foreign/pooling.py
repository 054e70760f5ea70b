"""Pooling over the last axes of [batch, channels, *space], as PyTorch and ONNX define it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax


class Windows(NamedTuple):
    """How windows lie along each axis of space; ceil: a last window may reach beyond the end."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil: bool = False

    def lengths(self, space: Sequence[int]) -> list[int]:
        """How many windows there are along each axis."""
        found = []
        for n, k, s, (low, high), d in zip(space, self.size, self.stride, self.pads, self.dilation, strict=True):
            room = n + low + high - d * (k - 1) - 1
            count = (-(-room // s) if self.ceil else room // s) + 1
            if self.ceil and (count - 1) * s >= n + low:  # a window must begin before the end
                count -= 1
            found.append(count)
        return found

    def reduce(self, x: Any, start: float, function: Any) -> Any:
        """function over each window, beginning with `start`, which pads too."""
        lead = x.ndim - len(self.size)
        pads = list(self.pads)
        if self.ceil:
            space = x.shape[lead:]
            for i, (n, count) in enumerate(zip(space, self.lengths(space), strict=True)):
                end = (count - 1) * self.stride[i] + self.dilation[i] * (self.size[i] - 1) + 1
                pads[i] = (pads[i][0], max(0, end - n - pads[i][0]))
        ones = (1,) * lead
        return lax.reduce_window(
            x, np.asarray(start, x.dtype), function, (*ones, *self.size), (*ones, *self.stride),
            [(0, 0)] * lead + pads, window_dilation=(*ones, *self.dilation),
        )  # fmt: skip


def max_pool(x: Any, windows: Windows) -> Any:
    return windows.reduce(x, -np.inf, lax.max) if set(windows.dilation) == {1} else _dilated_max(x, windows)


def _dilated_max(x: Any, windows: Windows) -> Any:
    """Place by place of the window: jax has no derivative of a dilated reduce_window."""
    lead = x.ndim - len(windows.size)
    counts = windows.lengths(x.shape[lead:])
    reach = [
        (c - 1) * s + (k - 1) * d + 1
        for c, s, k, d in zip(counts, windows.stride, windows.size, windows.dilation, strict=True)
    ]
    ends = [max(0, r - n - low) for r, n, (low, _) in zip(reach, x.shape[lead:], windows.pads, strict=True)]
    pads = [(0, 0, 0)] * lead + [(low, end, 0) for (low, _), end in zip(windows.pads, ends, strict=True)]
    padded = lax.pad(x, np.asarray(-np.inf, x.dtype), pads)
    found = None
    for place in np.ndindex(*windows.size):
        starts = [p * d for p, d in zip(place, windows.dilation, strict=True)]
        cut = (slice(a, a + (c - 1) * s + 1, s) for a, c, s in zip(starts, counts, windows.stride, strict=True))
        part = padded[(*[slice(None)] * lead, *cut)]
        found = part if found is None else jnp.maximum(found, part)
    return found


def average_pool(x: Any, windows: Windows, count_pads: bool, divisor: int | None = None) -> Any:
    """The sum of each window, divided by its size within the padded array (`count_pads`) or within the array itself,
    or by `divisor`.
    """
    total = windows.reduce(x, 0.0, lax.add)
    if divisor is not None:
        return total * np.float32(1 / divisor)
    space = x.shape[x.ndim - len(windows.size) :]
    counts = []
    for i, (n, count) in enumerate(zip(space, windows.lengths(space), strict=True)):
        (low, high), d = windows.pads[i], windows.dilation[i]
        places = np.arange(count)[:, None] * windows.stride[i] - low + np.arange(windows.size[i]) * d
        inside = (places >= -low) & (places < n + high) if count_pads else (places >= 0) & (places < n)
        counts.append(inside.sum(1))
    sizes = reduce(np.multiply.outer, counts)
    one = sizes.reshape(-1)[0]
    return total * (np.float32(1 / one) if (sizes == one).all() else (1 / sizes).astype(np.float32))


def adaptive_average(x: Any, sizes: Sequence[int | None]) -> Any:
    """As many means along each of the last axes as `sizes` says; they overlap where it does not divide."""
    lead = x.ndim - len(sizes)
    for axis, size in enumerate(sizes, lead):
        n = x.shape[axis]
        if size is None or size == n:
            continue
        if n % size == 0:
            x = x.reshape(*x.shape[:axis], size, n // size, *x.shape[axis + 1 :]).mean(axis + 1)
        else:
            x = jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ _shares(n, size), -1, axis)
    return x


def _shares(n: int, size: int) -> Any:
    """[n, size]: window i spans floor(i·n/size) to ceil((i + 1)·n/size)."""
    starts, ends = np.arange(size) * n // size, -(-np.arange(1, size + 1) * n // size)
    inside = (np.arange(n)[:, None] >= starts) & (np.arange(n)[:, None] < ends)
    return (inside / (ends - starts)).astype(np.float32)


def adaptive_max(x: Any, sizes: Sequence[int | None]) -> Any:
    """As many maxima along each of the last axes as `sizes` says."""
    lead = x.ndim - len(sizes)
    for axis, size in enumerate(sizes, lead):
        n = x.shape[axis]
        if size is None or size == n:
            continue
        spans = [(math.floor(i * n / size), math.ceil((i + 1) * n / size)) for i in range(size)]
        parts = [lax.slice_in_dim(x, a, b, axis=axis).max(axis, keepdims=True) for a, b in spans]
        x = jnp.concatenate(parts, axis)
    return x
