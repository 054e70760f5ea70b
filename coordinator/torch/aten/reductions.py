"""Operators over axes: sums, means, extrema, norms, orders."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.torch.aten.registry import Refusal, rule


def _axes(dim: Any) -> Any:
    """PyTorch takes [] as all axes."""
    if isinstance(dim, (list, tuple)):
        return tuple(dim) or None
    return dim


def _as(x: Any, dtype: Any) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(dtype)


@rule("sum")
def sum_(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return jnp.sum(_as(x, dtype), _axes(dim), keepdims=keepdim)


@rule("mean")
def mean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return jnp.mean(_as(x, dtype), _axes(dim), keepdims=keepdim)


@rule("prod")
def prod(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return jnp.prod(_as(x, dtype), _axes(dim), keepdims=keepdim)


@rule("cumsum")
def cumsum(x: Any, dim: int, dtype: Any = None) -> Any:
    return jnp.cumsum(_as(x, dtype), dim)


@rule("cumprod")
def cumprod(x: Any, dim: int, dtype: Any = None) -> Any:
    return jnp.cumprod(_as(x, dtype), dim)


# ---- moments -------------------------------------------------------------------------------------------------------
@rule("var.correction")
def var(x: Any, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> Any:
    return var_mean(x, dim, correction, keepdim)[0]


@rule("std.correction")
def std(x: Any, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> Any:
    return jnp.sqrt(var(x, dim, correction, keepdim))


@rule("var_mean.correction")
def var_mean(x: Any, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> tuple[Any, Any]:
    axes = _axes(dim)
    average = jnp.mean(x, axes, keepdims=True)
    count = x.size // average.size
    centred = x - average
    total = jnp.sum(centred * centred, axes, keepdims=keepdim)
    found = total * (1 / max(0.0, count - (1 if correction is None else correction)))
    return found, average if keepdim else jnp.reshape(average, found.shape)


@rule("linalg_vector_norm")
def linalg_vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    x, axes = _as(x, dtype), _axes(dim)
    if ord == 2:
        return jnp.sqrt(jnp.sum(x * x, axes, keepdims=keepdim))
    if ord == 1:
        return jnp.sum(jnp.abs(x), axes, keepdims=keepdim)
    if ord == float("inf"):
        return jnp.max(jnp.abs(x), axes, keepdims=keepdim)
    raise Refusal(f"of order {ord} is not supported", "take order 1, 2 or infinity")


# ---- extrema -------------------------------------------------------------------------------------------------------
@rule("amax")
def amax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.max(x, _axes(dim), keepdims=keepdim)


@rule("amin")
def amin(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.min(x, _axes(dim), keepdims=keepdim)


@rule("max.default")
def max_(x: Any) -> Any:
    return jnp.max(x)


@rule("min.default")
def min_(x: Any) -> Any:
    return jnp.min(x)


@rule("max.other")
def max_other(x: Any, other: Any) -> Any:
    return jnp.maximum(x, other)


@rule("min.other")
def min_other(x: Any, other: Any) -> Any:
    return jnp.minimum(x, other)


@rule("max.dim")
def max_dim(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    return jnp.max(x, dim, keepdims=keepdim), jnp.argmax(x, dim, keepdims=keepdim)


@rule("min.dim")
def min_dim(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    return jnp.min(x, dim, keepdims=keepdim), jnp.argmin(x, dim, keepdims=keepdim)


@rule("argmax")
def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return jnp.argmax(x, dim, keepdims=keepdim)


@rule("argmin")
def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return jnp.argmin(x, dim, keepdims=keepdim)


@rule("any")
def any_(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.any(x, _axes(dim), keepdims=keepdim)


@rule("all")
def all_(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.all(x, _axes(dim), keepdims=keepdim)


# ---- softmax -------------------------------------------------------------------------------------------------------
@rule("softmax.int", "_softmax")
def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    return jax.nn.softmax(_as(x, dtype or None), dim)


@rule("log_softmax.int", "_log_softmax")
def log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    return jax.nn.log_softmax(_as(x, dtype or None), dim)


@rule("logsumexp")
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    return jax.nn.logsumexp(x, _axes(dim), keepdims=keepdim)


# ---- orders --------------------------------------------------------------------------------------------------------
@rule("sort")
def sort(x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """sort(x, dim, descending) and sort(x, *, stable, dim, descending).  Equal elements keep their order."""
    named = dict(zip(("dim", "descending"), args, strict=False)) | kwargs
    dim, descending = named.get("dim", -1), named.get("descending", False)
    return (
        jnp.sort(x, dim, descending=descending),
        jnp.argsort(x, dim, descending=descending, stable=True),
    )


@rule("topk")
def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    moved = jnp.moveaxis(x, dim, -1)
    values, places = jax.lax.top_k(moved if largest else -moved, k)
    return jnp.moveaxis(values if largest else -values, -1, dim), jnp.moveaxis(places.astype(np.int32), -1, dim)
