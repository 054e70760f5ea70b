"""Operators on each element: arithmetic, comparisons, choices, activations, types."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.foreign import activations
from coordinator.onnx.rules.registry import Refusal, rule

SAME: dict[str, Callable[..., Any]] = {
    "Abs": jnp.abs, "Acos": jnp.arccos, "Acosh": jnp.arccosh, "Add": jnp.add, "And": jnp.logical_and,
    "Asin": jnp.arcsin, "Asinh": jnp.arcsinh, "Atan": jnp.arctan, "Atanh": jnp.arctanh, "BitwiseAnd": jnp.bitwise_and,
    "BitwiseNot": jnp.bitwise_not, "BitwiseOr": jnp.bitwise_or, "BitwiseXor": jnp.bitwise_xor, "Ceil": jnp.ceil,
    "Cos": jnp.cos, "Cosh": jnp.cosh, "Equal": jnp.equal, "Erf": jax.scipy.special.erf, "Exp": jnp.exp,
    "Floor": jnp.floor, "Greater": jnp.greater, "GreaterOrEqual": jnp.greater_equal, "Identity": lambda x: x,
    "IsNaN": jnp.isnan, "Less": jnp.less, "LessOrEqual": jnp.less_equal, "Log": jnp.log, "Mul": jnp.multiply,
    "Neg": jnp.negative, "Not": jnp.logical_not, "Or": jnp.logical_or, "Reciprocal": lambda x: 1 / x,
    "Relu": jax.nn.relu, "Round": jnp.round, "Sigmoid": jax.nn.sigmoid, "Sign": jnp.sign, "Sin": jnp.sin,
    "Sinh": jnp.sinh, "Softsign": jax.nn.soft_sign, "Sqrt": jnp.sqrt, "Sub": jnp.subtract, "Tan": jnp.tan,
    "Tanh": jnp.tanh, "Where": jnp.where, "Xor": jnp.logical_xor,
    "Softplus": activations.softplus, "Mish": activations.mish,
    "HardSwish": lambda x: x * activations.hardsigmoid(x),
}  # fmt: skip
for _name, _function in SAME.items():
    rule(_name)(_function)


# ---- arithmetic ----------------------------------------------------------------------------------------------------
@rule("Sum")
def sum_(*xs: Any) -> Any:
    return reduce(jnp.add, xs)


@rule("Mean")
def mean(*xs: Any) -> Any:
    return reduce(jnp.add, xs) * (1 / len(xs))


@rule("Max")
def max_(*xs: Any) -> Any:
    return reduce(jnp.maximum, xs)


@rule("Min")
def min_(*xs: Any) -> Any:
    return reduce(jnp.minimum, xs)


@rule("Div")
def div(x: Any, y: Any) -> Any:
    """Integers are rounded towards 0."""
    if jnp.issubdtype(jnp.result_type(x, y), jnp.integer):
        return jax.lax.div(*jnp.broadcast_arrays(x, y))
    return jnp.divide(x, y)


@rule("Mod")
def mod(x: Any, y: Any, fmod: int = 0) -> Any:
    return jnp.fmod(x, y) if fmod else jnp.mod(x, y)


@rule("Pow")
def power(x: Any, y: Any) -> Any:
    """A whole exponent is written as products."""
    if isinstance(y, np.ndarray) and y.size == 1 and float(y.reshape(-1)[0]).is_integer():
        found = x ** int(y.reshape(-1)[0])
        return jnp.broadcast_to(found, jnp.broadcast_shapes(found.shape, y.shape))
    return jnp.power(x, y).astype(x.dtype)


# ---- activations ---------------------------------------------------------------------------------------------------
@rule("Clip")
def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    return activations.clamp(x, min, max)


@rule("LeakyRelu")
def leaky_relu(x: Any, alpha: float = 0.01) -> Any:
    return activations.leaky_relu(x, alpha)


@rule("PRelu")
def prelu(x: Any, slope: Any) -> Any:
    return activations.leaky_relu(x, slope)


@rule("ThresholdedRelu")
def thresholded_relu(x: Any, alpha: float = 1.0) -> Any:
    return jnp.where(x > alpha, x, 0.0)


@rule("Elu")
def elu(x: Any, alpha: float = 1.0) -> Any:
    return activations.elu(x, alpha)


@rule("Celu")
def celu(x: Any, alpha: float = 1.0) -> Any:
    return activations.elu(x, alpha, 1.0, 1 / alpha)


@rule("Selu")
def selu(x: Any, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    return activations.elu(x, alpha, gamma)


@rule("Gelu")
def gelu(x: Any, approximate: str = "none") -> Any:
    return activations.gelu(x, approximate)


@rule("HardSigmoid")
def hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return activations.hardsigmoid(x, alpha, beta)


@rule("Shrink")
def shrink(x: Any, bias: float = 0.0, lambd: float = 0.5) -> Any:
    return jnp.where(x < -lambd, x + bias, jnp.where(x > lambd, x - bias, 0.0))


@rule("IsInf")
def is_inf(x: Any, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    return (jnp.isposinf(x) & bool(detect_positive)) | (jnp.isneginf(x) & bool(detect_negative))


@rule("Softmax")
def softmax(x: Any, axis: int = -1) -> Any:
    return jax.nn.softmax(x, axis)


@rule("LogSoftmax")
def log_softmax(x: Any, axis: int = -1) -> Any:
    return jax.nn.log_softmax(x, axis)


@rule("Softmax.flat", "LogSoftmax.flat")
def flat(x: Any, axis: int = 1) -> Any:
    raise Refusal("of an opset below 13 has another meaning", "export the model with opset 13 or later")


# ---- types ---------------------------------------------------------------------------------------------------------
@rule("Cast")
def cast(x: Any, to: Any, **_: Any) -> Any:
    return jnp.asarray(x).astype(to)


@rule("CastLike")
def cast_like(x: Any, like: Any, **_: Any) -> Any:
    return jnp.asarray(x).astype(like.dtype)


@rule("Dropout")
def dropout(x: Any, ratio: Any = 0.5, training_mode: Any = False, seed: int = 0) -> tuple[Any, Any]:
    """As in inference."""
    if np.any(training_mode):
        raise Refusal("in training mode is not supported", "export the model for inference")
    return x, jnp.ones(x.shape, bool)
