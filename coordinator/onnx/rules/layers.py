"""Operators that are layers: products, convolution, pooling, normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from coordinator.foreign import normalization, pooling
from coordinator.foreign.convolution import along_channels, convolve, convolve_transposed
from coordinator.foreign.pooling import Windows
from coordinator.onnx.rules.registry import Refusal, rule


@rule("MatMul")
def matmul(x: Any, y: Any) -> Any:
    return jnp.matmul(x, y)


@rule("Gemm")
def gemm(a: Any, b: Any, c: Any = None, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    found = (a.T if transA else a) @ (b.T if transB else b)
    found = found if alpha == 1 else found * alpha
    return found if c is None else found + (c if beta == 1 else c * beta)


@rule("Einsum")
def einsum(*xs: Any, equation: str) -> Any:
    return jnp.einsum(equation, *xs)


# ---- windows -------------------------------------------------------------------------------------------------------
def _pads(
    space: Sequence[int], size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Any, auto: str
) -> list[tuple[int, int]]:
    if auto in ("NOTSET", ""):
        given = list(pads) if pads is not None else [0] * 2 * len(size)
        return list(zip(given[: len(size)], given[len(size) :], strict=True))
    if auto == "VALID":
        return [(0, 0)] * len(size)
    found = []
    for n, k, s, d in zip(space, size, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def _each(values: Any, count: int) -> tuple[int, ...]:
    return (1,) * count if values is None else tuple(int(v) for v in values)


@rule("Conv")
def conv(
    x: Any, kernel: Any, bias: Any = None, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    window = kernel.shape[2:]
    stride, dilation = _each(strides, len(window)), _each(dilations, len(window))
    return convolve(
        x, kernel, bias, stride, _pads(x.shape[2:], window, stride, dilation, pads, auto_pad), dilation, group
    )


@rule("ConvTranspose")
def conv_transpose(
    x: Any, kernel: Any, bias: Any = None, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, output_padding: Any = None, output_shape: Any = None, pads: Any = None,
    strides: Any = None,
) -> Any:  # fmt: skip
    window = kernel.shape[2:]
    count = len(window)
    stride, dilation = _each(strides, count), _each(dilations, count)
    extra = (0,) * count if output_padding is None else tuple(output_padding)
    if auto_pad in ("NOTSET", "VALID", "") and output_shape is None:
        around = _pads(x.shape[2:], window, stride, dilation, pads, auto_pad)
    else:
        sizes = output_shape or [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        around = []
        for i, n in enumerate(x.shape[2:]):
            total = stride[i] * (n - 1) + extra[i] + (window[i] - 1) * dilation[i] + 1 - sizes[i]
            half = total // 2
            around.append((half, total - half) if auto_pad == "SAME_UPPER" else (total - half, half))
    return convolve_transposed(x, kernel, bias, stride, around, dilation, extra, group)


def _windows(
    x: Any, kernel_shape: Any, strides: Any, dilations: Any, pads: Any, auto_pad: str, ceil_mode: int
) -> Windows:
    size, count = tuple(kernel_shape), len(kernel_shape)
    stride, dilation = _each(strides, count), _each(dilations, count)
    around = _pads(x.shape[2:], size, stride, dilation, pads, auto_pad)
    return Windows(size, stride, tuple(around), dilation, bool(ceil_mode))


@rule("MaxPool")
def max_pool(
    x: Any, kernel_shape: Any, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Any = None, pads: Any = None,
    storage_order: int = 0, strides: Any = None,
) -> Any:  # fmt: skip
    return pooling.max_pool(x, _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode))


@rule("AveragePool")
def average_pool(
    x: Any, kernel_shape: Any, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
    dilations: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return pooling.average_pool(x, windows, bool(count_include_pad))


@rule("GlobalAveragePool")
def global_average_pool(x: Any) -> Any:
    return x.mean(tuple(range(2, x.ndim)), keepdims=True)


@rule("GlobalMaxPool")
def global_max_pool(x: Any) -> Any:
    return x.max(tuple(range(2, x.ndim)), keepdims=True)


# ---- normalisation -------------------------------------------------------------------------------------------------
@rule("BatchNormalization")
def batch_normalization(
    x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:  # fmt: skip
    if training_mode:
        raise Refusal("in training mode is not supported", "export the model for inference")
    return normalization.batch_norm(x, mean, variance, scale, bias, epsilon)


@rule("InstanceNormalization")
def instance_normalization(x: Any, scale: Any, bias: Any, epsilon: float = 1e-5) -> Any:
    found, _, _ = normalization.normalize(x, range(2, x.ndim), epsilon)
    return normalization.affine(found, along_channels(scale, x.ndim), along_channels(bias, x.ndim))


@rule("LayerNormalization")
def layer_normalization(
    x: Any, scale: Any, bias: Any = None, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Any, Any, Any]:
    found, mean, inverse = normalization.normalize(x, range(axis % x.ndim, x.ndim), epsilon)
    return normalization.affine(found, scale, bias), mean, inverse


@rule("GroupNormalization")
def group_normalization(
    x: Any, scale: Any, bias: Any, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    if scale.shape[0] != x.shape[1]:  # one a group, as in opset 18
        scale, bias = (jnp.repeat(p, x.shape[1] // num_groups) for p in (scale, bias))
    return normalization.group_norm(x, num_groups, scale, bias, epsilon)[0]


@rule("LRN")
def lrn(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    """Each channel among its neighbours: a product with a public band of ones."""
    c = x.shape[1]
    before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
    gap = np.arange(c)[None, :] - np.arange(c)[:, None]  # what channel i takes of channel j
    band = ((gap >= -before) & (gap <= after)).astype(np.float32)
    total = jnp.moveaxis(jnp.moveaxis(x * x, 1, -1) @ band.T, -1, 1)
    return x * jnp.exp(jnp.log(bias + alpha / size * total) * -beta)
