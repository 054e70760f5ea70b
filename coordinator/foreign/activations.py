"""Activation functions, with the derivatives that PyTorch gives them at their corners."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    """x itself, with derivative 1, at both ends."""
    x = x if low is None else jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


def hardtanh(x: Any, low: float = -1.0, high: float = 1.0) -> Any:
    """As clamp, with derivative 0 at both ends."""
    return jnp.where(x >= high, np.float32(high), jnp.where(x <= low, np.float32(low), x))


def leaky_relu(x: Any, slope: Any = 0.01) -> Any:
    return jnp.where(x > 0, x, x * slope)


def elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    low = jnp.where(x > 0, 0.0, x)
    return jnp.where(x > 0, x * scale, jnp.expm1(low * input_scale) * (alpha * scale))


def gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta·x)) / beta.  Above the threshold that is x to a float's precision, unless it is set low."""
    found = jax.nn.softplus(x * beta) / beta
    return found if threshold >= 15 else jnp.where(x * beta > threshold, x, found)


def hardsigmoid(x: Any, slope: float = 1 / 6, offset: float = 0.5) -> Any:
    return hardtanh(x * slope + offset, 0.0, 1.0)


def mish(x: Any) -> Any:
    return x * jnp.tanh(jax.nn.softplus(x))
