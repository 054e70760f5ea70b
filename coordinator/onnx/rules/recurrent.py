"""LSTM, GRU and RNN: each direction one scan.  Sequences have one length, and gates their usual functions."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from coordinator.foreign import recurrent
from coordinator.foreign.recurrent import Cell, Weights
from coordinator.onnx.rules.registry import Refusal, rule

USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@rule("LSTM")
def lstm(
    x: Any, w: Any, r: Any, b: Any = None, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None,
    p: Any = None, **attributes: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Gates are input, output, forget, cell here."""
    if p is not None:
        raise Refusal("with peepholes is not supported")
    return _layer("LSTM", recurrent.lstm, (0, 2, 3, 1), x, w, r, b, sequence_lens, [initial_h, initial_c], attributes)


@rule("GRU")
def gru(
    x: Any, w: Any, r: Any, b: Any = None, sequence_lens: Any = None, initial_h: Any = None, **attributes: Any
) -> tuple[Any, ...]:
    """Gates are update, reset, new here."""
    cell = recurrent.gru if attributes.pop("linear_before_reset", 0) else recurrent.gru_before
    return _layer("GRU", cell, (1, 0, 2), x, w, r, b, sequence_lens, [initial_h], attributes)


@rule("RNN")
def rnn(
    x: Any, w: Any, r: Any, b: Any = None, sequence_lens: Any = None, initial_h: Any = None, **attributes: Any
) -> tuple[Any, ...]:
    return _layer("RNN", recurrent.elman(jnp.tanh), (0,), x, w, r, b, sequence_lens, [initial_h], attributes)


def _layer(
    op: str, cell: Cell, order: tuple[int, ...], x: Any, w: Any, r: Any, b: Any, lengths: Any, initial: list[Any],
    attributes: dict[str, Any],
) -> tuple[Any, ...]:  # fmt: skip
    """order: which gate of the operator's stands where the cell expects it."""
    direction = attributes.pop("direction", "forward")
    layout = attributes.pop("layout", 0)
    hidden = attributes.pop("hidden_size", r.shape[-1])
    usual = USUAL[op] * w.shape[0]
    if lengths is not None and not _all_whole(lengths, x.shape[1 if layout else 0]):
        raise Refusal("with sequences of several lengths is not supported", "pad them, and leave sequence_lens out")
    if attributes.pop("activations", usual) != usual or attributes.pop("input_forget", 0) or attributes:
        raise Refusal("is not supported with its own activations, clip or input_forget")
    xs = jnp.swapaxes(x, 0, 1) if layout else x
    outputs, states = [], []
    for way in range(w.shape[0]):
        backward = direction == "reverse" or way == 1
        state = tuple(
            jnp.zeros((xs.shape[1], hidden), xs.dtype) if s is None else (s[:, way] if layout else s[way])
            for s in initial
        )
        weights = Weights(_gates(w[way], order), _gates(r[way], order), *_biases(b, way, order))
        out, last = recurrent.scan(cell, weights, xs, state, backward)
        outputs.append(out)
        states.append(last)
    y = jnp.stack(outputs, 1)  # [steps, directions, batch, hidden]
    ends = [jnp.stack(s) for s in zip(*states, strict=True)]
    if layout:
        return jnp.transpose(y, (2, 0, 1, 3)), *(jnp.swapaxes(s, 0, 1) for s in ends)
    return y, *ends


def _gates(stacked: Any, order: tuple[int, ...]) -> Any:
    parts = jnp.split(stacked, len(order), axis=0)
    return jnp.concatenate([parts[i] for i in order])


def _biases(b: Any, way: int, order: tuple[int, ...]) -> tuple[Any, Any]:
    if b is None:
        return None, None
    inputs, hidden = jnp.split(b[way], 2)
    return _gates(inputs, order), _gates(hidden, order)


def _all_whole(lengths: Any, steps: int) -> bool:
    return not hasattr(lengths, "aval") and bool((lengths == steps).all())
