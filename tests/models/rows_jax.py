"""Models in plain JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from model_table import classes, features, regression, row

STEPS = 5


def descend(loss: Any, params: Any, rate: float = 0.1, steps: int = STEPS) -> tuple[Any, Any]:
    """Gradient descent, as one writes it by hand."""

    def step(params: Any, _: Any) -> tuple[Any, Any]:
        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, slope), value

    params, losses = lax.scan(step, params, None, length=steps)
    return losses, params


@row("linear regression", "by hand", regression(16, 4), 1e-4, masked=True)
def linear_regression(x: Any, y: Any) -> Any:
    params = {"w": jnp.zeros(4), "b": 0.0}
    return descend(lambda p: jnp.mean((x @ p["w"] + p["b"] - y) ** 2), params)


@row("logistic regression", "by hand", classes(16, 4, 2), 1e-3, masked=True)
def logistic_regression(x: Any, y: Any) -> Any:
    params = {"w": jnp.zeros(4), "b": 0.0}
    return descend(lambda p: optax.sigmoid_binary_cross_entropy(x @ p["w"] + p["b"], y).mean(), params, 0.5)


@row("softmax regression", "by hand", classes(16, 4, 3), 1e-3)
def softmax_regression(x: Any, y: Any) -> Any:
    params = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}
    return descend(
        lambda p: optax.softmax_cross_entropy_with_integer_labels(x @ p["w"] + p["b"], y).mean(), params, 0.5
    )


@row("autoencoder, tied weights", "by hand", (features(16, 6),), 1e-3)
def autoencoder(x: Any) -> Any:
    params = {"w": 0.5 * jax.random.normal(jax.random.key(0), (6, 3)), "b": jnp.zeros(6)}
    return descend(lambda p: jnp.mean((jnp.tanh(x @ p["w"]) @ p["w"].T + p["b"] - x) ** 2), params, 0.5)
