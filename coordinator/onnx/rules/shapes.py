"""Operators that move elements, and those that compute with shapes."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from coordinator.foreign.program import integers
from coordinator.onnx.rules.registry import Refusal, rule


@rule("Shape")
def shape(x: Any, start: int = 0, end: int | None = None) -> Any:
    return np.asarray(x.shape[start:end], np.int32)


@rule("Size")
def size(x: Any) -> Any:
    return np.asarray(math.prod(x.shape), np.int32)


@rule("Reshape")
def reshape(x: Any, shape: Any, allowzero: int = 0) -> Any:
    sizes = [x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(integers(shape))]
    return jnp.reshape(x, sizes)


@rule("Flatten")
def flatten(x: Any, axis: int = 1) -> Any:
    axis = axis % x.ndim if axis < 0 else axis
    return jnp.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rule("Transpose")
def transpose(x: Any, perm: Any = None) -> Any:
    return jnp.transpose(x, perm)


@rule("Squeeze")
def squeeze(x: Any, axes: Any = None) -> Any:
    return jnp.squeeze(x, None if axes is None else integers(axes))


@rule("Unsqueeze")
def unsqueeze(x: Any, axes: Any) -> Any:
    return jnp.expand_dims(x, integers(axes))


@rule("Expand")
def expand(x: Any, shape: Any) -> Any:
    return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, integers(shape)))


@rule("Tile")
def tile(x: Any, repeats: Any) -> Any:
    return jnp.tile(x, integers(repeats))


@rule("Concat")
def concat(*xs: Any, axis: int) -> Any:
    return jnp.concatenate(xs, axis)


@rule("Split")
def split(x: Any, split: Any = None, axis: int = 0, num_outputs: int | None = None, outputs: int = 1) -> list[Any]:
    """outputs: how many the node has."""
    if split is not None:
        ends = np.cumsum(integers(split))[:-1]
    else:
        part = -(-x.shape[axis] // (num_outputs or outputs))
        ends = np.arange(part, x.shape[axis], part)
    return list(jnp.split(x, [int(end) for end in ends], axis))


@rule("Slice")
def slice_(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    first, last = integers(starts), integers(ends)
    chosen = range(len(first)) if axes is None else integers(axes)
    strides = (1,) * len(first) if steps is None else integers(steps)
    cut = [slice(None)] * x.ndim
    for axis, a, b, step in zip(chosen, first, last, strides, strict=True):
        end = None if step < 0 and b < -x.shape[axis] else b  # down to the first
        cut[axis] = slice(a, end, step)
    return x[tuple(cut)]


@rule("Pad")
def pad(x: Any, pads: Any, value: Any = None, axes: Any = None, mode: str = "constant") -> Any:
    """value: a number; 0 if there is none."""
    chosen = range(x.ndim) if axes is None else integers(axes)
    sizes = integers(pads)
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        widths[axis] = (sizes[i], sizes[i + len(sizes) // 2])
    cut = tuple(slice(max(0, -low), n - max(0, -high)) for n, (low, high) in zip(x.shape, widths, strict=True))
    x, widths = x[cut], [(max(0, low), max(0, high)) for low, high in widths]
    if mode == "constant":
        return jnp.pad(x, widths, constant_values=0 if value is None else jnp.reshape(value, ()))
    return jnp.pad(x, widths, {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode])


@rule("DepthToSpace")
def depth_to_space(x: Any, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        parts = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


@rule("SpaceToDepth")
def space_to_depth(x: Any, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    parts = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return parts.transpose(order).reshape(n, c * b**2, h // b, w // b)


@rule("Trilu")
def trilu(x: Any, k: Any = 0, upper: int = 1) -> Any:
    by = integers(k)[0]
    return jnp.triu(x, by) if upper else jnp.tril(x, by)


# ---- indices -------------------------------------------------------------------------------------------------------
@rule("Gather")
def gather(x: Any, indices: Any, axis: int = 0) -> Any:
    return jnp.take(x, _wrapped(indices, x.shape[axis]), axis, mode="clip")


@rule("GatherElements")
def gather_elements(x: Any, indices: Any, axis: int = 0) -> Any:
    cut = tuple(slice(None) if i == axis % x.ndim else slice(0, n) for i, n in enumerate(indices.shape))
    return jnp.take_along_axis(x[cut], _wrapped(indices, x.shape[axis]), axis, mode="clip")


def _wrapped(indices: Any, n: int) -> Any:
    """Known negative indices count from the end; others are taken for what they should be."""
    return np.where(indices < 0, indices + n, indices) if isinstance(indices, np.ndarray) else indices


@rule("OneHot")
def one_hot(indices: Any, depth: Any, values: Any, axis: int = -1) -> Any:
    n = integers(depth)[0]
    place = axis % (indices.ndim + 1)
    count = np.arange(n).reshape(n, *(1,) * (indices.ndim - place))
    wide = jnp.expand_dims(indices, place)
    return jnp.where((wide == count) | (wide == count - n), values[1], values[0])


# ---- constants -----------------------------------------------------------------------------------------------------
@rule("ConstantOfShape")
def constant_of_shape(shape: Any, value: Any = None) -> Any:
    one = np.zeros(1, np.float32) if value is None else value
    return np.full(integers(shape), one.reshape(-1)[0], one.dtype)


@rule("Range")
def range_(start: Any, limit: Any, delta: Any) -> Any:
    if not all(isinstance(v, np.ndarray) for v in (start, limit, delta)):
        raise Refusal("has limits that depend on an input", "make them constants of the model")
    return np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype)


@rule("EyeLike")
def eye_like(x: Any, dtype: Any = None, k: int = 0) -> Any:
    return jnp.eye(x.shape[0], x.shape[1], k=k, dtype=dtype or x.dtype)
