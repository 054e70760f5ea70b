"""Operators over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.foreign.program import integers
from coordinator.onnx.rules.registry import rule


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduction(x: Any, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        if axes is None or np.size(axes) == 0:
            over = () if noop_with_empty_axes else tuple(range(x.ndim))
        else:
            over = integers(axes)
        return function(x, axis=over, keepdims=bool(keepdims))

    return reduction


def _l2(x: Any, **over: Any) -> Any:
    return jnp.sqrt(jnp.sum(x * x, **over))


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": jnp.sum, "ReduceMean": jnp.mean, "ReduceMax": jnp.max, "ReduceMin": jnp.min, "ReduceProd": jnp.prod,
    "ReduceL1": lambda x, **over: jnp.sum(jnp.abs(x), **over), "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, **over: jnp.sum(x * x, **over),
    "ReduceLogSum": lambda x, **over: jnp.log(jnp.sum(x, **over)), "ReduceLogSumExp": jax.nn.logsumexp,
}  # fmt: skip
for _name, _function in REDUCTIONS.items():
    rule(_name)(_reduction(_function))


@rule("ArgMax")
def arg_max(x: Any, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    if select_last_index:
        return x.shape[axis] - 1 - jnp.argmax(jnp.flip(x, axis), axis, keepdims=bool(keepdims))
    return jnp.argmax(x, axis, keepdims=bool(keepdims))


@rule("ArgMin")
def arg_min(x: Any, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return arg_max(-x, axis, keepdims, select_last_index)


@rule("CumSum")
def cum_sum(x: Any, axis: Any, exclusive: int = 0, reverse: int = 0) -> Any:
    along = integers(axis)[0]
    turned = jnp.flip(x, along) if reverse else x
    found = jnp.cumsum(turned, along)
    found = found - turned if exclusive else found
    return jnp.flip(found, along) if reverse else found


@rule("TopK")
def top_k(x: Any, k: Any, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Any, Any]:
    moved = jnp.moveaxis(x, axis, -1)
    values, places = jax.lax.top_k(moved if largest else -moved, integers(k)[0])
    return jnp.moveaxis(values if largest else -values, -1, axis), jnp.moveaxis(places, -1, axis)
