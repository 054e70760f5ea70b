"""equinox: models are pytrees, `eqx.filter_value_and_grad`, `jax.vmap` over the batch."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from model_table import classes, regression, row

STEPS = 3
FINE = "the loss times 64"


def square(out: Any, y: Any) -> Any:
    return jnp.mean((out - y) ** 2)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1])).mean()


def fit(model: Any, loss: Any, optimiser: optax.GradientTransformation) -> Any:
    """As in the library's guide: a filtered, jitted step, called from a loop of Python."""
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        value, slopes = eqx.filter_value_and_grad(loss)(model)
        updates, state = optimiser.update(slopes, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, value

    losses = []
    for _ in range(STEPS):
        model, state, value = step(model, state)
        losses.append(value)
    return jnp.stack(losses), eqx.filter(model, eqx.is_inexact_array)


def scan(model: Any, loss: Any, optimiser: optax.GradientTransformation) -> Any:
    """The same as one scan over the arrays of the model."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def step(carry: Any, key: Any) -> Any:
        arrays, state = carry
        value, slopes = eqx.filter_value_and_grad(lambda m: loss(m, key))(eqx.combine(arrays, static))
        updates, state = optimiser.update(slopes, state, arrays)
        return (eqx.apply_updates(arrays, updates), state), value

    keys = jax.random.split(jax.random.key(5), STEPS)
    (arrays, _), losses = lax.scan(step, (arrays, optimiser.init(arrays)), keys)
    return losses, arrays


@row("MLP", "adam", regression(16, 4), 1e-3, mind=FINE)
def perceptron(x: Any, y: Any) -> Any:
    model = eqx.nn.MLP(4, "scalar", 8, 1, key=jax.random.key(0))
    return fit(model, lambda m: 64 * square(jax.vmap(m)(x), y), optax.adam(1e-2))


class Dropped(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    second: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        k1, k2 = jax.random.split(key)
        self.first = eqx.nn.Linear(4, 8, key=k1)
        self.norm = eqx.nn.LayerNorm(8)
        self.dropout = eqx.nn.Dropout(0.3)
        self.second = eqx.nn.Linear(8, 3, key=k2)

    def __call__(self, x: Any, key: Any) -> Any:
        return self.second(self.dropout(jax.nn.silu(self.norm(self.first(x))), key=key))


@row("LayerNorm and Dropout, a key a row", "sgd, momentum", classes(16, 4, 3), 3e-4)
def layer_norm_dropout(x: Any, y: Any) -> Any:
    def loss(model: Any, key: Any) -> Any:
        return cross_entropy(jax.vmap(model)(x, jax.random.split(key, len(x))), y)

    return scan(Dropped(jax.random.key(0)), loss, optax.sgd(0.05, 0.9))


class Recurrent(eqx.Module):
    cell: Any
    out: eqx.nn.Linear

    def __init__(self, cell: Any, key: Any) -> None:
        k1, k2 = jax.random.split(key)
        self.cell, self.out = cell(2, 4, key=k1), eqx.nn.Linear(4, "scalar", key=k2)

    def __call__(self, x: Any) -> Any:
        start = (jnp.zeros(4), jnp.zeros(4)) if isinstance(self.cell, eqx.nn.LSTMCell) else jnp.zeros(4)
        last, _ = lax.scan(lambda h, v: (self.cell(v, h), None), start, x)
        return self.out(last[0] if isinstance(last, tuple) else last)


@row("GRUCell in a scan", "sgd, momentum", regression(8, 8), 3e-4, masked=True)
def gru(x: Any, y: Any) -> Any:
    model = Recurrent(eqx.nn.GRUCell, jax.random.key(0))
    return scan(model, lambda m, _: square(jax.vmap(m)(x.reshape(8, 4, 2)), y), optax.sgd(0.05, 0.9))


@row("LSTMCell in a scan", "sgd, momentum", regression(8, 8), 3e-4)
def lstm(x: Any, y: Any) -> Any:
    model = Recurrent(eqx.nn.LSTMCell, jax.random.key(0))
    return scan(model, lambda m, _: square(jax.vmap(m)(x.reshape(8, 4, 2)), y), optax.sgd(0.05, 0.9))


class Attentive(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        k1, k2 = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=k1)
        self.norm, self.out = eqx.nn.LayerNorm(4), eqx.nn.Linear(4, "scalar", key=k2)

    def __call__(self, x: Any) -> Any:
        h = jax.vmap(self.norm)(x)
        causal = jnp.tril(jnp.ones((len(x), len(x)), bool))
        return self.out((x + self.attention(h, h, h, mask=causal)).mean(0))


@row("MultiheadAttention with a causal mask", "rmsprop", regression(8, 12), 5e-3, mind=FINE)
def attention(x: Any, y: Any) -> Any:
    model = Attentive(jax.random.key(0))
    return scan(model, lambda m, _: 64 * square(jax.vmap(m)(x.reshape(8, 3, 4)), y), optax.rmsprop(1e-2))


class Convolutional(eqx.Module):
    conv: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    out: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        k1, k2 = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 2, 3, padding=1, key=k1)
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.out = eqx.nn.Linear(18, 3, key=k2)

    def __call__(self, x: Any) -> Any:
        return self.out(self.pool(jax.nn.relu(self.conv(x))).reshape(-1))


@row("Conv2d and MaxPool2d", "sgd", classes(4, 36, 3), 3e-4)
def convolutional(x: Any, y: Any) -> Any:
    model = Convolutional(jax.random.key(0))
    return scan(model, lambda m, _: cross_entropy(jax.vmap(m)(x.reshape(4, 1, 6, 6)), y), optax.sgd(0.1))
