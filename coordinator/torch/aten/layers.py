"""Operators that are layers: linear, convolution, normalisation, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.foreign import normalization
from coordinator.foreign.convolution import convolve, convolve_transposed
from coordinator.torch.aten.creation import Draw
from coordinator.torch.aten.registry import rule


# ---- products ------------------------------------------------------------------------------------------------------
@rule("linear")
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    found = x @ weight.T
    return found if bias is None else found + bias


@rule("bilinear")
def bilinear(x: Any, y: Any, weight: Any, bias: Any = None) -> Any:
    found = jnp.einsum("...i,oij,...j->...o", x, weight, y)
    return found if bias is None else found + bias


@rule("mm", "bmm", "matmul", "dot", "mv")
def matmul(x: Any, y: Any) -> Any:
    return jnp.matmul(x, y)


@rule("addmm", "addmv", "baddbmm")
def addmm(z: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Any:
    product = jnp.matmul(x, y)
    return (z if beta == 1 else z * beta) + (product if alpha == 1 else product * alpha)


@rule("einsum")
def einsum(equation: str, tensors: Sequence[Any], path: Any = None) -> Any:
    return jnp.einsum(equation, *tensors)


# ---- convolution ---------------------------------------------------------------------------------------------------
@rule("convolution")
def convolution(
    x: Any, weight: Any, bias: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    transposed: bool, output_padding: Sequence[int], groups: int,
) -> Any:  # fmt: skip
    count = weight.ndim - 2
    stride, padding, dilation, extra = (_each(v, count) for v in (stride, padding, dilation, output_padding))
    pads = [(p, p) for p in padding]
    lone = x.ndim == count + 1  # without an axis for the batch
    x = x[None] if lone else x
    if transposed:
        found = convolve_transposed(x, weight, bias, stride, pads, dilation, extra, groups)
    else:
        found = convolve(x, weight, bias, stride, pads, dilation, groups)
    return found[0] if lone else found


def _each(value: Sequence[int], count: int) -> list[int]:
    return list(value) * count if len(value) == 1 else list(value)


# ---- normalisation -------------------------------------------------------------------------------------------------
@rule("_native_batch_norm_legit_no_training")
def batch_norm_fixed(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, momentum: float, eps: float
) -> tuple[Any, ...]:
    return normalization.batch_norm(x, running_mean, running_var, weight, bias, eps), None, None


@rule("_native_batch_norm_legit_functional")
def batch_norm_running(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: float, eps: float
) -> tuple[Any, ...]:
    """The result, the batch's mean and inverse deviation, and both running statistics afterwards."""
    if not training:
        found = normalization.batch_norm(x, running_mean, running_var, weight, bias, eps)
        return found, None, None, running_mean, running_var
    mean, variance = normalization.channel_statistics(x)
    count = x.size // x.shape[1]
    sample = variance * (count / max(1, count - 1))
    found = normalization.batch_norm(x, mean, variance, weight, bias, eps)
    return (
        found, None, None,
        running_mean + momentum * (mean - running_mean), running_var + momentum * (sample - running_var),
    )  # fmt: skip


@rule("_native_batch_norm_legit.no_stats")
def batch_norm_of_batch(x: Any, weight: Any, bias: Any, training: bool, momentum: float, eps: float) -> tuple[Any, ...]:
    mean, variance = normalization.channel_statistics(x)
    return normalization.batch_norm(x, mean, variance, weight, bias, eps), None, None


@rule("native_layer_norm")
def native_layer_norm(
    x: Any, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any]:
    axes = range(x.ndim - len(normalized_shape), x.ndim)
    found, mean, scale = normalization.normalize(x, axes, eps)
    return normalization.affine(found, weight, bias), mean, scale


@rule("native_group_norm")
def native_group_norm(
    x: Any, weight: Any, bias: Any, n: int, c: int, hxw: int, group: int, eps: float
) -> tuple[Any, Any, Any]:
    return normalization.group_norm(x, group, weight, bias, eps)


@rule("rms_norm")
def rms_norm(x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    epsilon = np.finfo(np.float32).eps if eps is None else eps
    scale = jax.lax.rsqrt((x * x).mean(axes, keepdims=True) + np.float32(epsilon))
    return normalization.affine(x * scale, weight, None)


# ---- attention -----------------------------------------------------------------------------------------------------
@rule("scaled_dot_product_attention", random=True)
def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    *, scale: float | None = None, enable_gqa: bool = False, draw: Draw,
) -> Any:  # fmt: skip
    """softmax(Q·Kᵀ·scale + mask)·V over the last two axes."""
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = jnp.repeat(key, times, -3), jnp.repeat(value, times, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ jnp.swapaxes(key, -1, -2)
    if is_causal:
        attn_mask = np.tri(*scores.shape[-2:], dtype=bool)
    if attn_mask is not None and attn_mask.dtype == np.bool_:
        scores = jnp.where(attn_mask, scores, -np.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = jax.nn.softmax(scores, axis=-1)
    if dropout_p > 0:
        weights = jnp.where(jax.random.bernoulli(draw(), 1 - dropout_p, weights.shape), weights / (1 - dropout_p), 0)
    return weights @ value
