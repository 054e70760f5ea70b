"""Loss functions.  Classes are chosen by comparison, so that labels may be secret."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coordinator.torch.aten.registry import rule

NONE, MEAN, SUM = 0, 1, 2
IGNORED = -100  # PyTorch's default class to ignore


def _reduce(losses: Any, reduction: int) -> Any:
    return losses if reduction == NONE else losses.mean() if reduction == MEAN else losses.sum()


@rule("mse_loss")
def mse_loss(x: Any, target: Any, reduction: int = MEAN) -> Any:
    return _reduce(jnp.square(x - target), reduction)


@rule("l1_loss")
def l1_loss(x: Any, target: Any, reduction: int = MEAN) -> Any:
    return _reduce(jnp.abs(x - target), reduction)


@rule("huber_loss")
def huber_loss(x: Any, target: Any, reduction: int = MEAN, delta: float = 1.0) -> Any:
    gap = jnp.abs(x - target)
    return _reduce(jnp.where(gap < delta, 0.5 * gap * gap, delta * (gap - 0.5 * delta)), reduction)


@rule("smooth_l1_loss")
def smooth_l1_loss(x: Any, target: Any, reduction: int = MEAN, beta: float = 1.0) -> Any:
    return l1_loss(x, target, reduction) if beta == 0 else huber_loss(x, target, reduction, beta) / beta


@rule("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = MEAN
) -> Any:
    positive = 1.0 if pos_weight is None else 1 + (pos_weight - 1) * target
    losses = (1 - target) * x + positive * jax.nn.softplus(-x)
    return _reduce(losses if weight is None else losses * weight, reduction)


@rule("nll_loss_nd", "nll_loss", "nll_loss2d")
def nll_loss(x: Any, target: Any, weight: Any = None, reduction: int = MEAN, ignore_index: int = IGNORED) -> Any:
    """x: log probabilities [classes], [batch, classes] or [batch, classes, *space]; target: classes, without that axis.

    A mean divides by the number of targets; only with a weight, or an `ignore_index` that is not PyTorch's default, by
    what has been counted, which is a quotient by a secret if the targets are secret.  So targets of -100 have no loss,
    as in PyTorch, but they count.
    """
    axis = 0 if x.ndim == 1 else 1
    chosen = _chosen(target, x.shape[axis], axis, ignore_index)
    chosen = chosen if weight is None else chosen * _per_class(weight, axis, x.ndim)
    losses = -(x * chosen).sum(axis)
    return _total(losses, chosen, reduction, plain=weight is None and ignore_index == IGNORED)


@rule("cross_entropy_loss")
def cross_entropy_loss(
    x: Any, target: Any, weight: Any = None, reduction: int = MEAN, ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """target: classes, or a probability for each class."""
    axis = 0 if x.ndim == 1 else 1
    logs = jax.nn.log_softmax(x, axis)
    n = x.shape[axis]
    if target.shape == x.shape and jnp.issubdtype(target.dtype, jnp.floating):
        target = target * (1 - label_smoothing) + label_smoothing / n if label_smoothing else target
        target = target if weight is None else target * _per_class(weight, axis, x.ndim)
        losses = -(logs * target).sum(axis)
        return losses.sum() / max(1, losses.size) if reduction == MEAN else _reduce(losses, reduction)
    plain = nll_loss(logs, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return plain
    chosen = _chosen(target, n, axis, ignore_index)
    shares = logs if weight is None else logs * _per_class(weight, axis, x.ndim)
    spread = -shares.sum(axis) * chosen.sum(axis)
    counted = chosen if weight is None else chosen * _per_class(weight, axis, x.ndim)
    spread = _total(spread, counted, reduction, plain=weight is None and ignore_index == IGNORED)
    return (1 - label_smoothing) * plain + label_smoothing / n * spread


def _chosen(target: Any, classes: int, axis: int, ignore_index: int) -> Any:
    """1 at the target's class, along the axis; nowhere for the ignored class."""
    wide = jnp.expand_dims(target, axis)
    count = np.arange(classes).reshape(-1, *(1,) * (wide.ndim - axis - 1))
    found = (wide == count).astype(np.float32)
    if 0 <= ignore_index < classes:
        found = found * (count != ignore_index)
    return found


def _per_class(weight: Any, axis: int, ndim: int) -> Any:
    return jnp.reshape(weight, (-1, *(1,) * (ndim - axis - 1)))


def _total(losses: Any, counted: Any, reduction: int, plain: bool) -> Any:
    """plain: every target counts once."""
    if reduction != MEAN or plain:
        return _reduce(losses, reduction)
    return losses.sum() / counted.sum()
