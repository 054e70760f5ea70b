"""Convolutions over any number of axes, as PyTorch and ONNX define them: [batch, channels, *space]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

Pads = Sequence[tuple[int, int]]


def convolve(
    x: Any, kernel: Any, bias: Any, stride: Sequence[int], pads: Pads, dilation: Sequence[int], groups: int
) -> Any:
    """kernel: [out channels, in channels / groups, *window]; bias: [out channels] or None."""
    found = lax.conv_general_dilated(
        x, kernel, tuple(stride), list(pads), rhs_dilation=tuple(dilation), feature_group_count=groups
    )
    return add_channels(found, bias)


def convolve_transposed(
    x: Any, kernel: Any, bias: Any, stride: Sequence[int], pads: Pads, dilation: Sequence[int], extra: Sequence[int],
    groups: int,
) -> Any:  # fmt: skip
    """The gradient of a convolution as a layer.  kernel: [in channels, out channels / groups, *window]; extra: how much
    longer the output is at its end (output padding).
    """
    window = kernel.shape[2:]
    space = tuple(range(2, kernel.ndim))
    parts = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
    turned = jnp.flip(jnp.swapaxes(parts, 1, 2), axis=tuple(a + 1 for a in space))
    turned = turned.reshape(groups * kernel.shape[1], kernel.shape[0] // groups, *window)
    around = [
        (d * (k - 1) - low, d * (k - 1) - high + e)
        for k, d, (low, high), e in zip(window, dilation, pads, extra, strict=True)
    ]
    found = lax.conv_general_dilated(
        x, turned, (1,) * len(window), around,
        lhs_dilation=tuple(stride), rhs_dilation=tuple(dilation), feature_group_count=groups,
    )  # fmt: skip
    return add_channels(found, bias)


def along_channels(values: Any, ndim: int) -> Any:
    """[channels] as [1, channels, 1, ...] of that many axes."""
    return jnp.reshape(values, (1, -1, *(1,) * (ndim - 2)))


def add_channels(x: Any, bias: Any) -> Any:
    return x if bias is None else x + along_channels(bias, x.ndim)
