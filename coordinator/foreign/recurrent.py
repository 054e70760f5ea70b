"""Recurrent layers as scans over the steps of a sequence [steps, batch, features]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Weights(NamedTuple):
    """One direction of one layer; gates are stacked along axis 0.  Biases [gates·hidden] or None, projection
    [outputs, hidden] or None.
    """

    inputs: Any  # [gates·hidden, features]
    hidden: Any  # [gates·hidden, outputs]
    input_bias: Any
    hidden_bias: Any
    projection: Any = None


Cell = Callable[[Weights, Any, tuple[Any, ...]], tuple[Any, ...]]


def scan(cell: Cell, weights: Weights, xs: Any, state: tuple[Any, ...], backward: bool = False) -> tuple[Any, Any]:
    """The outputs of every step and the last state.  The inputs' part of all steps is one matrix product."""
    ahead = xs @ weights.inputs.T
    if weights.input_bias is not None:
        ahead = ahead + weights.input_bias

    def step(state: tuple[Any, ...], ahead: Any) -> tuple[tuple[Any, ...], Any]:
        state = cell(weights, ahead, state)
        return state, state[0]

    last, outputs = lax.scan(step, state, ahead, reverse=backward)
    return outputs, last


def _from_hidden(weights: Weights, h: Any) -> Any:
    found = h @ weights.hidden.T
    return found if weights.hidden_bias is None else found + weights.hidden_bias


def lstm(weights: Weights, ahead: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gates in the order input, forget, cell, output; the state is (output, cell)."""
    h, c = state
    i, f, g, o = jnp.split(ahead + _from_hidden(weights, h), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h if weights.projection is None else h @ weights.projection.T), c


def gru(weights: Weights, ahead: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gates in the order reset, update, new; the reset gate acts on the product (PyTorch, cuDNN)."""
    (h,) = state
    ar, az, an = jnp.split(ahead, 3, axis=-1)
    hr, hz, hn = jnp.split(_from_hidden(weights, h), 3, axis=-1)
    update = jax.nn.sigmoid(az + hz)
    new = jnp.tanh(an + jax.nn.sigmoid(ar + hr) * hn)
    return (new + update * (h - new),)


def gru_before(weights: Weights, ahead: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """As gru, but the reset gate acts on the state before its product (Cho et al., EMNLP 2014; ONNX's default)."""
    (h,) = state
    size = h.shape[-1]
    ar, az, an = jnp.split(ahead, 3, axis=-1)
    gates = weights._replace(
        hidden=weights.hidden[: 2 * size],
        hidden_bias=None if weights.hidden_bias is None else weights.hidden_bias[: 2 * size],
    )
    hr, hz = jnp.split(_from_hidden(gates, h), 2, axis=-1)
    update = jax.nn.sigmoid(az + hz)
    inner = (jax.nn.sigmoid(ar + hr) * h) @ weights.hidden[2 * size :].T
    inner = inner if weights.hidden_bias is None else inner + weights.hidden_bias[2 * size :]
    new = jnp.tanh(an + inner)
    return (new + update * (h - new),)


def elman(function: Callable[[Any], Any]) -> Cell:
    """h = function(W·x + U·h)."""

    def cell(weights: Weights, ahead: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        return (function(ahead + _from_hidden(weights, state[0])),)

    return cell
