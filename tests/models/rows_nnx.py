"""flax.nnx: modules with state, `nnx.value_and_grad` and `nnx.Optimizer`, or split and merged in a scan."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from model_table import classes, regression, row

STEPS = 3
FINE = "the loss times 64"


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1])).mean()


def square(out: Any, y: Any) -> Any:
    return jnp.mean((out - y) ** 2)


def fit(model: Any, x: Any, y: Any, loss: Any, optimiser: optax.GradientTransformation) -> Any:
    """As in the library's guide: a jitted step, called from a loop of Python."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        value, slopes = nnx.value_and_grad(lambda m: loss(m(x), y))(model)
        optimizer.update(model, slopes)
        return value

    losses = jnp.stack([step(model, optimizer) for _ in range(STEPS)])
    return losses, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))


def scan(model: Any, x: Any, y: Any, loss: Any, optimiser: optax.GradientTransformation) -> Any:
    """The same as one scan over the split state: a graph whose size does not grow with the steps."""
    graph, state = nnx.split((model, nnx.Optimizer(model, optimiser, wrt=nnx.Param)))

    def step(state: Any, _: Any) -> Any:
        model, optimizer = nnx.merge(graph, state)
        value, slopes = nnx.value_and_grad(lambda m: loss(m(x), y))(model)
        optimizer.update(model, slopes)
        return nnx.state((model, optimizer)), value

    state, losses = lax.scan(step, state, None, length=STEPS)
    model, _ = nnx.merge(graph, state)
    return losses, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))


class Perceptron(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.second = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(nnx.tanh(self.first(x)))[:, 0]


@row("perceptron", "adamw", regression(16, 4), 1e-3, mind=FINE)
def perceptron(x: Any, y: Any) -> Any:
    return fit(Perceptron(nnx.Rngs(0)), x, y, lambda out, y: 64 * square(out, y), optax.adamw(1e-2))


@row("perceptron, split and merged in a scan", "sgd, momentum", regression(16, 4), 3e-4, masked=True)
def perceptron_in_scan(x: Any, y: Any) -> Any:
    return scan(Perceptron(nnx.Rngs(0)), x, y, square, optax.sgd(0.05, 0.9))


class Normed(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.second = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))[:, 0]


@row("BatchNorm and Dropout", "sgd", regression(16, 4), 3e-4)
def batch_norm_dropout(x: Any, y: Any) -> Any:
    return scan(Normed(nnx.Rngs(0, dropout=1)), x, y, square, optax.sgd(0.05))


class Attentive(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=4, decode=False, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = x.reshape(len(x), 3, 4)
        return self.out((x + self.attention(self.norm(x))).mean(1))[:, 0]


@row("MultiHeadAttention, residual, LayerNorm", "sgd", regression(8, 12), 3e-4)
def attention(x: Any, y: Any) -> Any:
    return scan(Attentive(nnx.Rngs(0)), x, y, square, optax.sgd(0.05))


class Recurrent(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.rnn = nnx.RNN(nnx.GRUCell(2, 4, rngs=rngs), rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.rnn(x.reshape(len(x), 4, 2))[:, -1])[:, 0]


@row("GRUCell in RNN", "sgd, clipped by global norm", regression(8, 8), 3e-4)
def gru(x: Any, y: Any) -> Any:
    return scan(Recurrent(nnx.Rngs(0)), x, y, square, optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9)))


class Convolutional(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 2, kernel_size=(3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.out = nnx.Linear(18, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x.reshape(len(x), 6, 6, 1))))
        return self.out(nnx.max_pool(x, (2, 2), strides=(2, 2)).reshape(len(x), -1))


@row("convolution, BatchNorm, max pooling", "sgd", classes(4, 36, 3), 3e-4)
def convolutional(x: Any, y: Any) -> Any:
    return scan(Convolutional(nnx.Rngs(0)), x, y, cross_entropy, optax.sgd(0.1))
