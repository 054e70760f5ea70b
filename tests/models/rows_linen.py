"""flax.linen: `Module.apply` on a TrainState."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import lax
from model_table import classes, regression, row, tokens

STEPS = 4


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1])).mean()


def fit(model: nn.Module, x: Any, loss: Any, optimiser: optax.GradientTransformation, steps: int = STEPS) -> Any:
    """Train the model; `loss` is of its outputs."""
    params = model.init(jax.random.key(0), jnp.zeros(x.shape, x.dtype))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optimiser)

    def step(state: TrainState, _: Any) -> Any:
        value, slopes = jax.value_and_grad(lambda p: loss(state.apply_fn({"params": p}, x)))(state.params)
        return state.apply_gradients(grads=slopes), value

    state, losses = lax.scan(step, state, None, length=steps)
    return losses, state.params


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Dense(8)(x))
        x = nn.gelu(nn.Dense(8)(x))
        return nn.Dense(3)(x)


@row("perceptron with relu and gelu", "sgd, nesterov", classes(16, 4, 3), 3e-4)
def perceptron(x: Any, y: Any) -> Any:
    return fit(Perceptron(), x, lambda out: cross_entropy(out, y), optax.sgd(0.1, 0.9, nesterov=True))


class Normed(nn.Module):
    norm: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = self.norm()(nn.Dense(8)(x))
        return nn.Dense(1)(nn.silu(x))[:, 0]


@row("LayerNorm", "sgd, momentum", regression(16, 4), 3e-4)
def layer_norm(x: Any, y: Any) -> Any:
    return fit(Normed(nn.LayerNorm), x, lambda out: jnp.mean((out - y) ** 2), optax.sgd(0.05, 0.9))


@row("GroupNorm", "sgd, nesterov", regression(16, 4), 3e-4)
def group_norm(x: Any, y: Any) -> Any:
    norm = lambda: nn.GroupNorm(num_groups=2)  # noqa: E731
    return fit(Normed(norm), x, lambda out: jnp.mean((out - y) ** 2), optax.sgd(0.05, 0.9, nesterov=True))


@row("RMSNorm", "sgd, momentum", regression(16, 4), 3e-4, masked=True)
def rms_norm(x: Any, y: Any) -> Any:
    return fit(Normed(nn.RMSNorm), x, lambda out: jnp.mean((out - y) ** 2), optax.sgd(0.05, 0.9))


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(8)(x)
        for _ in range(2):
            x = x + nn.Dense(8)(nn.relu(nn.Dense(8)(x)))
        return nn.Dense(3)(x)


@row("residual blocks", "sgd, momentum", classes(16, 4, 3), 3e-4)
def residual(x: Any, y: Any) -> Any:
    return fit(Residual(), x, lambda out: cross_entropy(out, y), optax.sgd(0.05, 0.9))


class TrainStateWithStatistics(TrainState):
    batch_stats: Any


class BatchNormed(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Dense(8)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(3)(nn.relu(x))


@row("BatchNorm", "sgd", classes(16, 4, 3), 3e-4)
def batch_norm(x: Any, y: Any) -> Any:
    model = BatchNormed()
    start = model.init(jax.random.key(0), jnp.zeros(x.shape), train=False)
    state = TrainStateWithStatistics.create(
        apply_fn=model.apply, params=start["params"], tx=optax.sgd(0.1), batch_stats=start["batch_stats"]
    )

    def loss(params: Any, state: Any) -> Any:
        out, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats}, x, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(out, y), updates

    def step(state: Any, _: Any) -> Any:
        (value, updates), slopes = jax.value_and_grad(loss, has_aux=True)(state.params, state)
        return state.apply_gradients(grads=slopes, batch_stats=updates["batch_stats"]), value

    state, losses = lax.scan(step, state, None, length=STEPS)
    return losses, (
        state.params,
        state.batch_stats,
        model.apply({"params": state.params, "batch_stats": state.batch_stats}, x, train=False),
    )


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.relu(nn.Dense(8)(x))
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(3)(x)


@row("Dropout, a key a step", "adamw", classes(16, 4, 3), 1e-3, mind="the loss times 64")
def dropout(x: Any, y: Any) -> Any:
    model, optimiser = Dropped(), optax.adamw(1e-2)
    params = model.init(jax.random.key(0), jnp.zeros(x.shape), train=False)["params"]

    def step(carry: Any, _: Any) -> Any:
        params, state, key = carry
        key, now = jax.random.split(key)

        def loss(p: Any) -> Any:
            return 64 * cross_entropy(model.apply({"params": p}, x, train=True, rngs={"dropout": now}), y)

        value, slopes = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(slopes, state, params)
        return (optax.apply_updates(params, updates), state, key), value

    (params, _, _), losses = lax.scan(step, (params, optimiser.init(params), jax.random.key(7)), None, length=STEPS)
    return losses, params


class Recurrent(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = x.reshape(len(x), 4, 2)
        return nn.Dense(1)(nn.RNN(self.cell)(x)[:, -1])[:, 0]


@row("GRUCell in RNN", "sgd, momentum", regression(8, 8), 3e-4)
def gru(x: Any, y: Any) -> Any:
    return fit(Recurrent(nn.GRUCell(4)), x, lambda out: jnp.mean((out - y) ** 2), optax.sgd(0.05, 0.9), 3)


@row("LSTMCell in RNN", "sgd, momentum", regression(8, 8), 3e-4)
def lstm(x: Any, y: Any) -> Any:
    return fit(Recurrent(nn.LSTMCell(4)), x, lambda out: jnp.mean((out - y) ** 2), optax.sgd(0.05, 0.9), 3)


CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(8)(x.reshape(len(x), 3, 2))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(3)(x.mean(1))


@row("transformer block: attention, LayerNorm, gelu, residuals", "sgd, clipped by global norm", classes(8, 6, 3), 5e-4)
def transformer(x: Any, y: Any) -> Any:
    return fit(Transformer(), x, lambda out: cross_entropy(out, y), CLIPPED, 3)


class Embedded(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(1)(nn.tanh(nn.Embed(5, 4)(x)).mean(1))[:, 0]


@row("Embed at secret numbers", "sgd, momentum", tokens(8, 3, 5), 3e-4)
def embedding(x: Any, y: Any) -> Any:
    return fit(Embedded(), x, lambda out: jnp.mean((out - y) ** 2), optax.sgd(0.05, 0.9), 3)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = x.reshape(len(x), 8, 8, 1)
        x = nn.max_pool(nn.relu(nn.Conv(2, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = nn.avg_pool(nn.relu(nn.Conv(3, (3, 3))(x)), (2, 2), strides=(2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


@row("convolutions, max and average pooling", "sgd", classes(4, 64, 3), 3e-4)
def convolutional(x: Any, y: Any) -> Any:
    return fit(Convolutional(), x, lambda out: cross_entropy(out, y), optax.sgd(0.1), 3)
