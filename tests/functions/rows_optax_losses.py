"""Losses of optax."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from function_table import ABOVE, ANY, COUNT, CURVES, NEAR, SHARE, TRUTH, UNITS, Module, reals
from jax.scipy.special import logsumexp

LOSSES = Module("optax.losses", optax.losses)
LOG = reals(-4, -0.125)
LABELS, MASK = jnp.array([[1, 2]]), jnp.zeros((1, 2))

LOSSES.row("squared_error l2_loss", NEAR, NEAR, off=UNITS, gradient=UNITS)
LOSSES.row("huber_loss", ANY, ANY, off=UNITS, gradient=UNITS)
LOSSES.row("log_cosh", NEAR, NEAR, off=CURVES, gradient=CURVES)
LOSSES.row("cosine_similarity cosine_distance", ANY, ANY, off=CURVES, gradient=CURVES)
LOSSES.row(
    "hinge_loss perceptron_loss", ABOVE, TRUTH, off=UNITS, gradient=UNITS, call=lambda f, x, b: f(x, 2.0 * b - 1)
)
LOSSES.row("sparsemax_loss", ANY, TRUTH, off=UNITS, gradient=UNITS, call=lambda f, x, b: f(x, 1.0 * b))
LOSSES.row("sigmoid_binary_cross_entropy", ANY, TRUTH, off=CURVES, gradient=CURVES, call=lambda f, x, b: f(x, 1.0 * b))
LOSSES.row(
    "sigmoid_focal_loss", ANY, TRUTH, off=CURVES, gradient=CURVES, call=lambda f, x, b: f(x, 1.0 * b, alpha=0.25)
)
LOSSES.row(
    "softmax_cross_entropy safe_softmax_cross_entropy poly_loss_cross_entropy", ANY, SHARE, off=CURVES, gradient=CURVES
)
LOSSES.row(
    "softmax_cross_entropy_with_integer_labels",
    ANY,
    COUNT,
    off=CURVES,
    gradient=CURVES,
    call=lambda f, x, i: f(x, i[:, 0]),
)
LOSSES.row("kl_divergence generalized_kl_divergence", LOG, SHARE, off=CURVES, gradient=CURVES)
LOSSES.row("kl_divergence_with_log_targets", LOG, LOG, off=CURVES, gradient=CURVES)
LOSSES.row(
    "multiclass_hinge_loss multiclass_perceptron_loss multiclass_sparsemax_loss",
    ANY, COUNT, off=2 * CURVES, gradient=2 * CURVES, call=lambda f, x, i: f(x, i[:, 0]),
)  # fmt: skip
LOSSES.row("smooth_labels", SHARE, off=UNITS, gradient=UNITS, call=lambda f, p: f(p, 0.1))
LOSSES.row("triplet_margin_loss", NEAR, NEAR, NEAR, off=CURVES, gradient=CURVES)
LOSSES.row("dice_loss binary_dice_loss multiclass_generalized_dice_loss", ANY, SHARE, off=CURVES, gradient=CURVES)
LOSSES.row("ranking_softmax_loss", ANY, SHARE, off=CURVES, gradient=CURVES)
LOSSES.row("ntxent", ANY, off=CURVES, call=lambda f, x: f(x, jnp.array([0, 0, 1, 1])))
LOSSES.row("ctc_loss", ANY, off=CURVES, call=lambda f, x: f(x[None], jnp.zeros((1, 4)), LABELS, MASK))
LOSSES.row(
    "ctc_loss_with_forward_probs", ANY, off=CURVES, call=lambda f, x: f(x[None], jnp.zeros((1, 4)), LABELS, MASK)[0]
)
LOSSES.row("make_fenchel_young_loss", ANY, SHARE, off=CURVES, gradient=CURVES, call=lambda f, x, p: f(logsumexp)(x, p))
LOSSES.aside("is deprecated, and called generalized_kl_divergence", "convex_kl_divergence")
