"""Operators that make tensors: of constants, of counts, of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.torch.aten.registry import rule

Draw: TypeAlias = Callable[[], Any]  # this step's key


@rule("full")
def full(size: Sequence[int], fill_value: Any, dtype: Any = None) -> Any:
    return jnp.full(size, fill_value, dtype)


@rule("full_like")
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    return jnp.full(x.shape, fill_value, dtype or x.dtype)


@rule("zeros", "empty")
def zeros(size: Sequence[int], dtype: Any = np.float32) -> Any:
    return jnp.zeros(size, dtype)


@rule("zeros_like", "empty_like")
def zeros_like(x: Any, dtype: Any = None) -> Any:
    return jnp.zeros(x.shape, dtype or x.dtype)


@rule("ones")
def ones(size: Sequence[int], dtype: Any = np.float32) -> Any:
    return jnp.ones(size, dtype)


@rule("ones_like")
def ones_like(x: Any, dtype: Any = None) -> Any:
    return jnp.ones(x.shape, dtype or x.dtype)


@rule("scalar_tensor")
def scalar_tensor(value: Any, dtype: Any = np.float32) -> Any:
    return jnp.asarray(value, dtype)


@rule("arange.default", "arange.start", "arange.start_step")
def arange(*limits: Any, dtype: Any = None) -> Any:
    """(end), (start, end) or (start, end, step)."""
    start, end, step = (0, *limits, 1)[:3] if len(limits) == 1 else (*limits, 1)[:3]
    return jnp.arange(start, end, step, dtype=dtype)


@rule("eye.default", "eye.m")
def eye(n: int, m: int | None = None, dtype: Any = np.float32) -> Any:
    return jnp.eye(n, m, dtype=dtype)


# ---- random --------------------------------------------------------------------------------------------------------
@rule("dropout", random=True)
def dropout(x: Any, p: float, train: bool, draw: Draw) -> Any:
    return native_dropout(x, p, train, draw)[0]


@rule("native_dropout", random=True)
def native_dropout(x: Any, p: float, train: bool | None, draw: Draw) -> tuple[Any, Any]:
    """The mask is public: it depends on the key alone."""
    if not train or p == 0:
        return x, jnp.ones(x.shape, bool)
    if p == 1:
        return jnp.zeros_like(x), jnp.zeros(x.shape, bool)
    mask = jax.random.bernoulli(draw(), 1 - p, x.shape)
    return x * (mask.astype(np.float32) * np.float32(1 / (1 - p))), mask


@rule("rand", random=True)
def rand(size: Sequence[int], dtype: Any = np.float32, *, draw: Draw) -> Any:
    return jax.random.uniform(draw(), tuple(size), dtype or np.float32)


@rule("randn", random=True)
def randn(size: Sequence[int], dtype: Any = np.float32, *, draw: Draw) -> Any:
    return jax.random.normal(draw(), tuple(size), dtype or np.float32)


@rule("rand_like", random=True)
def rand_like(x: Any, dtype: Any = None, *, draw: Draw) -> Any:
    return rand(x.shape, dtype, draw=draw)


@rule("randn_like", random=True)
def randn_like(x: Any, dtype: Any = None, *, draw: Draw) -> Any:
    return randn(x.shape, dtype, draw=draw)
