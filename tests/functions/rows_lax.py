"""jax.lax, as far as it is written by users; jax.numpy and jax.nn stand on the rest."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from function_table import (
    ABOVE,
    ANY,
    COUNT,
    CURVE,
    CURVES,
    EXACT,
    INSIDE,
    NEAR,
    TRUTH,
    UNIT,
    UNITS,
    WHOLE,
    Module,
    reals,
)  # fmt: skip
from jax import lax

MISSING = "is not supported on secret values; docs/functions.md lists what is"
OTHERS = reals(-7.5, 8.25)  # none of them is one of ANY
LAX = Module("jax.lax", lax)

LAX.row("abs neg sign floor ceil round is_finite stop_gradient", ANY)
LAX.row("add sub", ANY, ANY, gradient=EXACT)
LAX.row("max min", ANY, OTHERS, gradient=EXACT)
LAX.row("mul", ANY, ANY, off=UNITS, gradient=UNITS)
LAX.row("square", ANY, off=UNITS, gradient=UNITS)
LAX.row("div", ANY, ABOVE, off=CURVE)
LAX.row("eq ne lt le gt ge", ANY, ANY)
LAX.row("eq ne lt le gt ge", TRUTH, TRUTH)
LAX.row("exp exp2 expm1 logistic tanh erf erfc sin cos atan asinh", ANY, off=CURVE)
LAX.row("log log1p sqrt rsqrt reciprocal cbrt lgamma digamma", ABOVE, off=CURVE)
LAX.row("asin acos atanh erf_inv", INSIDE, off=CURVE)
LAX.row("tan", INSIDE, off=CURVES)
LAX.row("sinh cosh", NEAR, off=CURVE)
LAX.row("acosh", reals(1.25, 8), off=CURVE)
LAX.row("atan2", ANY, ANY, off=CURVES)
LAX.row("rem", ANY, call=lambda f, x: f(x, 0.75))
LAX.row("integer_pow", NEAR, off=UNITS, gradient=UNITS, call=lambda f, x: f(x, 3))
LAX.row("pow", ABOVE, off=CURVES, call=lambda f, x: f(x, 1.5))
LAX.row("clamp", ANY, gradient=EXACT, call=lambda f, x: f(-1.0, x, 1.0))
LAX.row("cumsum cummax cummin", ANY)
LAX.row("cumprod", UNIT, off=UNITS)
LAX.row("cumlogsumexp", ANY, off=CURVES)
LAX.row("top_k", ANY, call=lambda f, x: f(x, 2))
LAX.row("sort_key_val", ANY, ANY)
LAX.row("associative_scan", ANY, call=lambda f, x: f(jnp.add, x))
LAX.row("map", ANY, call=lambda f, x: f(jnp.abs, x))
LAX.row("scan", ANY, call=lambda f, x: f(lambda c, r: (c + r, c), x[0], x))
LAX.row("fori_loop", ANY, off=UNITS, call=lambda f, x: f(0, 3, lambda i, c: 0.5 * c + i, x))
LAX.row(
    "while_loop",
    ANY,
    call=lambda f, x: f(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + x), (0, x))[1],
    mind="a known number of turns",
)
LAX.row("cond", ANY, call=lambda f, x: f(jnp.arange(3).sum() > 2, jnp.abs, jnp.negative, x), mind="a known choice")
LAX.row("switch", ANY, call=lambda f, x: f(jnp.int32(1), [jnp.abs, jnp.negative], x), mind="a known choice")
LAX.row("select", ANY, gradient=EXACT, call=lambda f, x: f(x > 0, x, -x))
LAX.row("select_n", COUNT, ANY, gradient=EXACT, call=lambda f, i, x: f(jnp.minimum(i, 2), x, -x, x + 1))
LAX.row(
    "dynamic_slice",
    ANY,
    COUNT,
    gradient=EXACT,
    call=lambda f, x, i: f(x, (i[0, 0], 1), (2, 2)),
    mind="at secret places",
)
LAX.row(
    "dynamic_update_slice",
    ANY,
    COUNT,
    gradient=EXACT,
    call=lambda f, x, i: f(x, x[:1], (i[0, 0], 0)),
    mind="at secret places",
)
LAX.row(
    "dynamic_index_in_dim", ANY, COUNT, gradient=EXACT, call=lambda f, x, i: f(x, i[0, 0], 1), mind="at secret places"
)
LAX.row("dot", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x, y.T))
LAX.row(
    "conv",
    NEAR,
    NEAR,
    off=UNITS,
    gradient=UNITS,
    call=lambda f, x, y: f(x[None, None], y[None, None, :2, :2], (1, 1), "SAME"),
)
LAX.row(
    "conv_general_dilated_patches", ANY, gradient=EXACT, call=lambda f, x: f(x[None, None], (2, 2), (1, 1), "VALID")
)
LAX.row("reduce_window", ANY, gradient=EXACT, call=lambda f, x: f(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"))
LAX.row("reduce_prod", UNIT, off=UNITS, gradient=UNITS, call=lambda f, x: f(x, (0,)))
LAX.row("scatter_mul", ANY, off=UNITS, call=lambda f, x: x.at[0].multiply(2.0), mind="x.at[i].multiply, known i")
LAX.row("scatter_max", ANY, call=lambda f, x: x.at[0].max(2.0), mind="x.at[i].max, known i")
LAX.row("scatter_min", ANY, call=lambda f, x: x.at[0].min(2.0), mind="x.at[i].min, known i")
LAX.row("scatter_sub", ANY, call=lambda f, x: x.at[0].subtract(2.0), mind="x.at[i].subtract, known i")
LAX.row(
    "scatter_add",
    ANY,
    COUNT,
    gradient=EXACT,
    call=lambda f, x, i: x.at[0, i].add(2.0),
    mind="x.at[i].add, known or secret i",
)
LAX.row(
    "scatter",
    ANY,
    COUNT,
    gradient=EXACT,
    call=lambda f, x, i: x.at[0, i[0, 0]].set(2.0),
    mind="x.at[i].set, one secret i",
)

LAX.refused(
    "cond",
    "'cond': the choice of a branch depends on secret data; compute both",
    ANY,
    call=lambda f, x: f(x[0, 0] > 0, jnp.abs, jnp.negative, x),
)
LAX.refused(
    "while_loop",
    "'while': the number of turns depends on secret data",
    ANY,
    call=lambda f, x: f(lambda c: c.sum() < 3, lambda c: c + 1, x),
)
LAX.refused("scatter_apply", "applies a function in place; write x.at", ANY, call=lambda f, x: x.at[0].apply(jnp.abs))
LAX.refused(
    "scatter_mul",
    "changes elements at secret places; compute",
    ANY,
    COUNT,
    call=lambda f, x, i: x.at[0, i].multiply(2.0),
)
LAX.refused(
    "scatter",
    "secret places that may be the same; pass unique",
    ANY,
    COUNT,
    call=lambda f, x, i: x.at[0, i[0]].set(2.0),
)
LAX.refused("bessel_i0e bessel_i1e", MISSING, NEAR)
LAX.refused("igamma igammac", MISSING, ABOVE, ABOVE)
LAX.refused("population_count clz", "is not supported on secret values", WHOLE)
LAX.refused("mulhi", "'mulhi': is not supported on secret values", WHOLE, WHOLE)
LAX.refused("shift_right_logical", "have no highest bit; shift with >>", WHOLE, call=lambda f, i: f(i, 2))
LAX.refused("bitcast_convert_type", "fixed-point numbers have no such bits", ANY, call=lambda f, x: f(x, jnp.int32))
LAX.refused("approx_max_k approx_min_k", "use lax.top_k, which is exact", ANY, call=lambda f, x: f(x, 2)[0])
LAX.refused(
    "ragged_dot",
    "multiply each group by itself",
    NEAR,
    NEAR,
    call=lambda f, x, y: f(x, y.reshape(1, 6, 4), np.array([4])),
)
LAX.refused("reduce", "use jnp.sum, jnp.max", ANY, call=lambda f, x: f(x, 0.0, lambda a, b: a + 2 * b, (0,)))
LAX.refused("nextafter", "'nextafter': is not supported on secret values; fixed-point", ANY, ANY)
