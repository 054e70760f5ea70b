"""Operators that move elements and change none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from coordinator.torch.aten.registry import Refusal, rule


@rule("view", "reshape", "_unsafe_view", "view_copy")
def view(x: Any, size: Any) -> Any:
    if not isinstance(size, (list, tuple)):
        raise Refusal("reads the bits of numbers as another type")
    return jnp.reshape(x, size)


@rule("expand")
def expand(x: Any, size: Sequence[int], implicit: bool = False) -> Any:
    lead = len(size) - x.ndim
    return jnp.broadcast_to(x, [x.shape[i - lead] if n == -1 else n for i, n in enumerate(size)])


@rule("permute")
def permute(x: Any, dims: Sequence[int]) -> Any:
    return jnp.transpose(x, dims)


@rule("transpose")
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    return jnp.swapaxes(x, dim0, dim1) if x.ndim else x


@rule("t")
def t(x: Any) -> Any:
    return x.T


@rule("squeeze")
def squeeze(x: Any, dim: Any = None) -> Any:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.reshape(x, [n for i, n in enumerate(x.shape) if n != 1 or i not in {d % x.ndim for d in dims}])


@rule("unsqueeze")
def unsqueeze(x: Any, dim: int) -> Any:
    return jnp.expand_dims(x, dim)


@rule("cat")
def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    return jnp.concatenate([x for x in tensors if x.shape != (0,)] or tensors, dim)  # PyTorch leaves [0] out


@rule("stack")
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    return jnp.stack(tensors, dim)


@rule("split.Tensor")
def split(x: Any, split_size: int, dim: int = 0) -> list[Any]:
    return list(jnp.split(x, list(range(split_size, x.shape[dim], split_size)), dim))


@rule("split_with_sizes", "split.sizes")
def split_with_sizes(x: Any, split_sizes: Sequence[int], dim: int = 0) -> list[Any]:
    return list(jnp.split(x, np.cumsum(split_sizes)[:-1], dim))


@rule("chunk")
def chunk(x: Any, chunks: int, dim: int = 0) -> list[Any]:
    return split(x, max(1, -(-x.shape[dim] // chunks)), dim)


@rule("unbind")
def unbind(x: Any, dim: int = 0) -> list[Any]:
    return [jnp.take(x, i, dim) for i in range(x.shape[dim])]


@rule("flip")
def flip(x: Any, dims: Sequence[int]) -> Any:
    return jnp.flip(x, tuple(dims))


@rule("roll")
def roll(x: Any, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    return jnp.roll(x, tuple(shifts), tuple(dims)) if dims else jnp.roll(x, shifts[0])


@rule("repeat")
def repeat(x: Any, repeats: Sequence[int]) -> Any:
    return jnp.tile(x, repeats)


@rule("tril")
def tril(x: Any, diagonal: int = 0) -> Any:
    return jnp.tril(x, diagonal)


@rule("triu")
def triu(x: Any, diagonal: int = 0) -> Any:
    return jnp.triu(x, diagonal)


@rule("diagonal")
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return jnp.diagonal(x, offset, dim1, dim2)


@rule("unfold")
def unfold(x: Any, dimension: int, size: int, step: int) -> Any:
    starts = np.arange(0, x.shape[dimension] - size + 1, step)
    found = jnp.take(x, starts[:, None] + np.arange(size), dimension)
    return jnp.moveaxis(found, dimension % x.ndim + 1, -1)


# ---- padding -------------------------------------------------------------------------------------------------------
def _widths(x: Any, pad: Sequence[int]) -> list[tuple[int, int]]:
    """PyTorch counts axes from the last one."""
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]


@rule("constant_pad_nd")
def constant_pad_nd(x: Any, pad: Sequence[int], value: float = 0) -> Any:
    return lax.pad(jnp.asarray(x), np.asarray(value, x.dtype), [(low, high, 0) for low, high in _widths(x, pad)])


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(x: Any, padding: Sequence[int]) -> Any:
    return jnp.pad(x, _widths(x, padding), "reflect")


@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(x: Any, padding: Sequence[int]) -> Any:
    return jnp.pad(x, _widths(x, padding), "edge")


# ---- images --------------------------------------------------------------------------------------------------------
@rule("pixel_shuffle")
def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    r = upscale_factor
    *lead, c, h, w = x.shape
    parts = x.reshape(*lead, c // r**2, r, r, h, w)
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return parts.transpose(order).reshape(*lead, c // r**2, h * r, w * r)


@rule("pixel_unshuffle")
def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    r = downscale_factor
    *lead, c, h, w = x.shape
    parts = x.reshape(*lead, c, h // r, r, w // r, r)
    n = len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return parts.transpose(order).reshape(*lead, c * r**2, h // r, w // r)


@rule("channel_shuffle")
def channel_shuffle(x: Any, groups: int) -> Any:
    n, c, *space = x.shape
    return x.reshape(n, groups, c // groups, *space).swapaxes(1, 2).reshape(x.shape)


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def upsample_nearest(x: Any, output_size: Any, *scales: Any) -> Any:
    sizes, given = _sizes(x, output_size, scales)
    for axis, (size, scale) in enumerate(zip(sizes, given, strict=True), x.ndim - len(sizes)):
        n = x.shape[axis]
        places = np.floor(np.arange(size) * (1 / scale if scale else n / size)).astype(int)
        x = jnp.take(x, np.minimum(places, n - 1), axis)
    return x


@rule("upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d")
def upsample_linear(x: Any, output_size: Any, align_corners: bool, *scales: Any) -> Any:
    """A product with public weights along each axis."""
    sizes, given = _sizes(x, output_size, scales)
    for axis, (size, scale) in enumerate(zip(sizes, given, strict=True), x.ndim - len(sizes)):
        n = x.shape[axis]
        if align_corners:
            places = np.arange(size) * ((n - 1) / (size - 1) if size > 1 else 0.0)
        else:
            places = np.maximum((np.arange(size) + 0.5) * (1 / scale if scale else n / size) - 0.5, 0)
        low = np.minimum(np.floor(places).astype(int), n - 1)
        weights = np.zeros((n, size), np.float32)
        np.add.at(weights, (low, np.arange(size)), 1 - (places - low))
        np.add.at(weights, (np.minimum(low + 1, n - 1), np.arange(size)), places - low)
        x = jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ weights, -1, axis)
    return x


def _sizes(x: Any, output_size: Any, scales: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """The output's sizes, and the factors that were given, None where the sizes were.  Both overloads come here."""
    flat = [s for item in scales for s in (item if isinstance(item, (list, tuple)) else [item])]
    if output_size is None:
        space = x.shape[x.ndim - len(flat) :]
        return [int(n * s) for n, s in zip(space, flat, strict=True)], flat
    return list(output_size), (flat if len(flat) == len(output_size) else [None] * len(output_size))
