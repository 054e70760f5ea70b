"""A small LeNet under masked evaluation learns what plain jax learns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiling import evaluated, stages
from jax import lax

SHAPES: tuple[tuple[int, ...], ...] = ((3, 3, 1, 4), (3, 3, 4, 6), (24, 10), (10, 3))
STEPS, RATE, BATCH = 5, 0.1, 6
R = np.random.default_rng(0)
IMAGES = R.uniform(size=(BATCH, 144)).astype(np.float32) * (R.uniform(size=(BATCH, 144)) > 0.4)
LABELS = np.eye(3, dtype=np.float32)[R.integers(0, 3, BATCH)]


def conv(h: Any, w: Any, padding: str) -> Any:
    return lax.conv_general_dilated(h, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def loss(params: Any, x: Any, y: Any) -> Any:
    """Of a maximum and a mean over windows, one padded convolution and one that is not."""
    (w1, c1), (w2, c2), (w3, c3), (w4, c4) = params
    h = jax.nn.relu(conv(x.reshape(-1, 12, 12, 1), w1, "SAME") + c1)
    h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = jax.nn.relu(conv(h, w2, "VALID") + c2)
    h = lax.reduce_window(h, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    h = jax.nn.relu(h.reshape(len(x), -1) @ w3 + c3)
    return optax.softmax_cross_entropy(h @ w4 + c4, y).mean()


def train(x: Any, y: Any) -> Any:
    """The parameters after SGD, and the loss in every step."""
    r = np.random.default_rng(1)
    start = [
        (jnp.asarray(r.normal(size=s) * np.sqrt(2 / np.prod(s[:-1])), jnp.float32), jnp.zeros(s[-1])) for s in SHAPES
    ]

    def step(params: Any, _: Any) -> tuple[Any, Any]:
        value, slope = jax.value_and_grad(loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - RATE * g, params, slope), value

    return lax.scan(step, start, None, length=STEPS)


def test_a_small_lenet_learns_under_masks() -> None:
    want, losses = jax.jit(train)(IMAGES, LABELS)
    assert losses[-1] < 0.85 * losses[0]
    final = stages(train, IMAGES, LABELS)["final"]
    got = list(evaluated(final, IMAGES, LABELS, protocol="masked").values())
    for g, w in zip(got, jax.tree.leaves((want, losses)), strict=True):
        np.testing.assert_allclose(g, w, atol=2e-3)
