"""Operators that read or write some places of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from coordinator.torch.aten.registry import Refusal, rule


@rule("select.int")
def select(x: Any, dim: int, index: int) -> Any:
    return lax.index_in_dim(jnp.asarray(x), index, dim, keepdims=False)


def _slice(x: Any, dim: int, start: int | None, end: int | None, step: int) -> tuple[slice, ...]:
    return (*[slice(None)] * (dim % x.ndim), slice(*slice(start, end).indices(x.shape[dim])[:2], step))


@rule("slice.Tensor")
def slice_(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return x[_slice(x, dim, start, end, step)]


@rule("slice_scatter")
def slice_scatter(
    x: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    return jnp.asarray(x).at[_slice(x, dim, start, end, step)].set(src)


@rule("select_scatter")
def select_scatter(x: Any, src: Any, dim: int, index: int) -> Any:
    return jnp.asarray(x).at[(*[slice(None)] * (dim % x.ndim), index)].set(src)


@rule("index_select")
def index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(x, index, dim, mode="clip")


@rule("index.Tensor")
def index_tensor(x: Any, indices: Sequence[Any]) -> Any:
    return jnp.asarray(x)[_places(indices)]


@rule("index_put")
def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    at = jnp.asarray(x).at[_places(indices)]
    return at.add(values) if accumulate else at.set(values)


def _places(indices: Sequence[Any]) -> tuple[Any, ...]:
    if any(getattr(i, "dtype", None) == np.bool_ and not isinstance(i, np.ndarray) for i in indices):
        raise Refusal("chooses by a mask that depends on an input", "choose with torch.where(condition, x, y)")
    return tuple(slice(None) if i is None else i for i in indices)


@rule("gather")
def gather(x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    cut = tuple(slice(None) if axis == dim % x.ndim else slice(0, n) for axis, n in enumerate(index.shape))
    return jnp.take_along_axis(x[cut], index, dim, mode="clip")


@rule("scatter.src", "scatter.value")
def scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    """src: a tensor or a number."""
    return _at(x, dim, index).set(_part(src, index))


@rule("scatter_add")
def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    return _at(x, dim, index).add(_part(src, index))


def _at(x: Any, dim: int, index: Any) -> Any:
    grid = list(np.meshgrid(*[np.arange(n) for n in index.shape], indexing="ij", sparse=True))
    grid[dim % x.ndim] = index
    return jnp.asarray(x).at[tuple(grid)]


def _part(src: Any, index: Any) -> Any:
    return src[tuple(slice(0, n) for n in index.shape)] if np.ndim(src) else src


@rule("embedding")
def embedding(
    weight: Any, indices: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Any:
    """The row of the padding index gets no gradient."""
    if padding_idx >= 0:
        row = lax.stop_gradient(weight[padding_idx])
        weight = jnp.asarray(weight).at[padding_idx].set(row)
    return jnp.take(weight, indices, axis=0, mode="clip")
