"""Normalisation layers.  What there is one of per channel is computed per channel, before it meets the data: an inverse
square root costs more than a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from coordinator.foreign.convolution import along_channels


def batch_norm(x: Any, mean: Any, variance: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    """x: [batch, channels, *space]; the others [channels], weight and bias perhaps None."""
    scale = lax.rsqrt(variance + epsilon)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * along_channels(scale, x.ndim) + along_channels(shift, x.ndim)


def channel_statistics(x: Any) -> tuple[Any, Any]:
    """Mean and variance (of the sample, without Bessel's correction) of each channel."""
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes)
    centred = x - along_channels(mean, x.ndim)
    return mean, (centred * centred).mean(axes)


def normalize(x: Any, axes: Sequence[int], epsilon: float) -> tuple[Any, Any, Any]:
    """x with mean 0 and variance 1 over the axes; the mean; one over the deviation."""
    mean = x.mean(tuple(axes), keepdims=True)
    centred = x - mean
    scale = lax.rsqrt((centred * centred).mean(tuple(axes), keepdims=True) + epsilon)
    return centred * scale, mean, scale


def affine(x: Any, weight: Any, bias: Any) -> Any:
    """weight and bias are broadcast, or None."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def group_norm(x: Any, groups: int, weight: Any, bias: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """x: [batch, channels, *space], normalised over the space and channels of each group; weight, bias: [channels]."""
    parts = x.reshape(x.shape[0], groups, -1)
    found, mean, scale = normalize(parts, (2,), epsilon)
    weight, bias = (None if p is None else along_channels(p, x.ndim) for p in (weight, bias))
    return affine(found.reshape(x.shape), weight, bias), jnp.squeeze(mean, 2), jnp.squeeze(scale, 2)
