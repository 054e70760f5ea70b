"""jax.nn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from function_table import ABOVE, ANY, COUNT, CURVE, CURVES, EXACT, NEAR, UNIT, UNITS, Module

NN = Module("jax.nn", jax.nn)

NN.row("relu relu6 hard_tanh identity", ANY, gradient=EXACT)
NN.row("leaky_relu hard_sigmoid hard_silu hard_swish sparse_plus sparse_sigmoid", ANY, off=UNITS, gradient=UNITS)
NN.row("sigmoid tanh soft_sign", ANY, off=CURVE, gradient=CURVES)
NN.row("silu swish softplus log_sigmoid elu celu selu squareplus glu", ANY, off=CURVES, gradient=CURVES)
NN.row("gelu", ANY, off=CURVES, gradient=CURVES)
NN.row("gelu", ANY, off=CURVES, gradient=CURVES, call=lambda f, x: f(x, approximate=False), mind="approximate=False")
NN.row("mish", ANY, off=2 * CURVES, gradient=CURVES)
NN.row("softmax log_softmax logsumexp logmeanexp standardize", ANY, off=CURVES, gradient=CURVES)
NN.row("log1mexp", ABOVE, off=CURVES, gradient=2 * CURVES)
NN.row("one_hot", COUNT, call=lambda f, i: f(i, 6), mind="6 classes")
NN.row(
    "dot_product_attention",
    *(NEAR, NEAR, NEAR),
    off=CURVES,
    gradient=2 * CURVES,
    call=lambda f, q, k, v: f(*(a.reshape(1, 4, 2, 3) for a in (q, k, v))),
)
NN.row("scaled_dot_general", UNIT, UNIT, off=UNITS, call=lambda f, x, y: f(x, y, (((1,), (1,)), ((), ()))))
NN.refused(
    "scaled_matmul",
    "is not supported on secret values; multiply with x @ y",
    *(UNIT, UNIT),
    call=lambda f, x, y: f(x[None], y[None], jnp.ones((1, 4, 1)), jnp.ones((1, 4, 1))),
)
NN.aside("makes a configuration", "get_scaled_dot_general_config")
