"""nn.RNN, nn.GRU and nn.LSTM: each layer and direction one scan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from coordinator.foreign import recurrent
from coordinator.foreign.recurrent import Weights
from coordinator.torch.aten.creation import Draw, native_dropout
from coordinator.torch.aten.registry import rule


@rule("lstm.input", random=True)
def lstm(
    x: Any, hx: Sequence[Any], params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool, draw: Draw,
) -> tuple[Any, Any, Any]:  # fmt: skip
    ways = 2 if bidirectional else 1
    weights = _weights(params, has_biases, len(params) // (num_layers * ways))
    outputs, (h, c) = _layers(recurrent.lstm, x, tuple(hx), weights, ways, dropout * train, batch_first, draw)
    return outputs, h, c


def _single(cell: recurrent.Cell) -> Any:
    def layers(
        x: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool, draw: Draw,
    ) -> tuple[Any, Any]:  # fmt: skip
        ways = 2 if bidirectional else 1
        weights = _weights(params, has_biases, len(params) // (num_layers * ways))
        outputs, (h,) = _layers(cell, x, (hx,), weights, ways, dropout * train, batch_first, draw)
        return outputs, h

    return layers


rule("gru.input", random=True)(_single(recurrent.gru))
rule("rnn_tanh.input", random=True)(_single(recurrent.elman(jnp.tanh)))
rule("rnn_relu.input", random=True)(_single(recurrent.elman(jax.nn.relu)))


def _folded(draw: Draw, layer: int) -> Any:
    return jax.random.fold_in(draw(), layer)


def _weights(params: Sequence[Any], biases: bool, each: int) -> list[Weights]:
    """Of each layer and direction: inputs, hidden, both biases if there are any, perhaps a projection."""
    found = []
    for i in range(0, len(params), each):
        part = params[i : i + each]
        rest = part[4:] if biases else part[2:]
        both = part[2:4] if biases else (None, None)
        found.append(Weights(part[0], part[1], both[0], both[1], rest[0] if rest else None))
    return found


def _layers(
    cell: recurrent.Cell, x: Any, state: tuple[Any, ...], weights: Sequence[Weights], ways: int, dropout: float,
    batch_first: bool, draw: Draw,
) -> tuple[Any, tuple[Any, ...]]:  # fmt: skip
    """The last layer's outputs, and the last states of all layers and directions."""
    lone = x.ndim == 2  # without an axis for the batch
    xs = x[:, None] if lone else jnp.swapaxes(x, 0, 1) if batch_first else x
    state = tuple(s[:, None] if lone else s for s in state)
    lasts = []
    for layer in range(len(weights) // ways):
        if layer and dropout:
            xs, _ = native_dropout(xs, dropout, True, partial(_folded, draw, layer))
        outputs = []
        for way in range(ways):
            i = layer * ways + way
            out, last = recurrent.scan(cell, weights[i], xs, tuple(s[i] for s in state), backward=way == 1)
            outputs.append(out)
            lasts.append(last)
        xs = jnp.concatenate(outputs, -1) if ways > 1 else outputs[0]
    ends = tuple(jnp.stack(s) for s in zip(*lasts, strict=True))
    if lone:
        return xs[:, 0], tuple(s[:, 0] for s in ends)
    return jnp.swapaxes(xs, 0, 1) if batch_first else xs, ends
