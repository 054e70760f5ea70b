"""Operators on each element: arithmetic, comparisons, choices, activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coordinator.foreign import activations
from coordinator.torch.aten.registry import rule

SAME: dict[str, Callable[..., Any]] = {  # an ATen operator that jax.numpy has under its own name or this one
    "abs": jnp.abs, "acos": jnp.arccos, "acosh": jnp.arccosh, "asin": jnp.arcsin, "asinh": jnp.arcsinh,
    "atan": jnp.arctan, "atan2": jnp.arctan2, "atanh": jnp.arctanh, "bitwise_and": jnp.bitwise_and,
    "bitwise_not": jnp.bitwise_not, "bitwise_or": jnp.bitwise_or, "bitwise_xor": jnp.bitwise_xor, "ceil": jnp.ceil,
    "cos": jnp.cos, "cosh": jnp.cosh, "eq": jnp.equal, "erf": jax.scipy.special.erf, "exp": jnp.exp,
    "exp2": jnp.exp2, "expm1": jnp.expm1, "floor": jnp.floor, "fmod": jnp.fmod, "ge": jnp.greater_equal,
    "gt": jnp.greater, "isfinite": jnp.isfinite, "isinf": jnp.isinf, "isnan": jnp.isnan, "le": jnp.less_equal,
    "log": jnp.log, "log10": jnp.log10, "log1p": jnp.log1p, "log2": jnp.log2, "logaddexp": jnp.logaddexp,
    "logical_and": jnp.logical_and, "logical_not": jnp.logical_not, "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor, "lt": jnp.less, "maximum": jnp.maximum, "minimum": jnp.minimum,
    "mul": jnp.multiply, "ne": jnp.not_equal, "neg": jnp.negative, "remainder": jnp.remainder, "sign": jnp.sign,
    "sin": jnp.sin, "sinh": jnp.sinh, "square": jnp.square, "tan": jnp.tan, "tanh": jnp.tanh, "trunc": jnp.trunc,
    "where": jnp.where,
    "elu": activations.elu, "gelu": activations.gelu, "hardsigmoid": activations.hardsigmoid,
    "hardtanh": activations.hardtanh, "leaky_relu": activations.leaky_relu, "mish": activations.mish,
    "softplus": activations.softplus,
    "relu": jax.nn.relu, "relu6": lambda x: activations.hardtanh(x, 0.0, 6.0), "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu, "log_sigmoid": jax.nn.log_sigmoid,
}  # fmt: skip
for _name, _function in SAME.items():
    rule(_name)(_function)


# ---- arithmetic ----------------------------------------------------------------------------------------------------
@rule("add")
def add(x: Any, y: Any, alpha: float = 1) -> Any:
    return jnp.add(x, y if alpha == 1 else jnp.multiply(y, alpha))


@rule("sub")
def sub(x: Any, y: Any, alpha: float = 1) -> Any:
    return jnp.subtract(x, y if alpha == 1 else jnp.multiply(y, alpha))


@rule("rsub")
def rsub(x: Any, y: Any, alpha: float = 1) -> Any:
    return sub(y, x, alpha)


@rule("div")
def div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    if rounding_mode == "trunc":
        found = jnp.trunc(jnp.divide(x, y))
        return found.astype(jnp.result_type(x, y)) if jnp.issubdtype(jnp.result_type(x, y), jnp.integer) else found
    if isinstance(y, (int, float)) and y:
        return jnp.multiply(x, 1 / y)
    return jnp.divide(x, y)


@rule("pow")
def power(x: Any, y: Any) -> Any:
    """A whole exponent is written as products."""
    if isinstance(y, float) and y.is_integer():
        y = int(y)
    return jnp.sqrt(x) if isinstance(y, float) and y == 0.5 else x**y


@rule("sqrt")
def sqrt(x: Any) -> Any:
    return jnp.sqrt(x)


@rule("rsqrt")
def rsqrt(x: Any) -> Any:
    return lax.rsqrt(_float(x))


@rule("reciprocal")
def reciprocal(x: Any) -> Any:
    return 1 / _float(x)


@rule("round")
def round_(x: Any, decimals: int = 0) -> Any:
    return jnp.round(x, decimals)


@rule("lerp")
def lerp(x: Any, y: Any, weight: Any) -> Any:
    return x + weight * (y - x)


@rule("addcmul")
def addcmul(x: Any, y: Any, z: Any, value: float = 1) -> Any:
    return x + y * z * value


@rule("addcdiv")
def addcdiv(x: Any, y: Any, z: Any, value: float = 1) -> Any:
    return x + y / z * value


# ---- choices -------------------------------------------------------------------------------------------------------
@rule("clamp")
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    return activations.clamp(x, min, max)


@rule("masked_fill")
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


@rule("prelu", "_prelu_kernel")
def prelu(x: Any, weight: Any) -> Any:
    if np.size(weight) > 1 and np.ndim(weight) == 1:
        weight = jnp.reshape(weight, (1, -1, *(1,) * (x.ndim - 2)))
    return jnp.where(x > 0, x, x * weight)


@rule("hardswish")
def hardswish(x: Any) -> Any:
    return x * activations.hardsigmoid(x)


# ---- types ---------------------------------------------------------------------------------------------------------
@rule("_to_copy")
def to_copy(x: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(dtype)


@rule("clone", "alias", "lift_fresh_copy", "contiguous", "_assert_tensor_metadata", "_assert_async.msg")
def same(x: Any, *_: Any, **__: Any) -> Any:
    return x


@rule("copy")
def copy(x: Any, src: Any, non_blocking: bool = False) -> Any:
    return jnp.broadcast_to(jnp.asarray(src).astype(x.dtype), x.shape)


@rule("detach")
def detach(x: Any) -> Any:
    return lax.stop_gradient(x)


def _float(x: Any) -> Any:
    return jnp.asarray(x, jnp.result_type(x, jnp.float32))
