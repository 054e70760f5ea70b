"""jax.scipy.special."""

from __future__ import annotations

import jax.scipy.special as special
from function_table import ABOVE, ANY, COUNT, CURVE, CURVES, INSIDE, NEAR, SHARE, STEEP, UNIT, Module, reals

SP = Module("jax.scipy.special", special)
PYTHON = "Python asks for the value of an array that is secret"
TURNS = "'while': the number of turns depends on secret data; run a fixed number"
MISSING = "is not supported on secret values; docs/functions.md lists what is"
BITS = "fixed-point numbers have no such bits"

SP.row("expit erf erfc ndtr", ANY, off=CURVE, gradient=CURVES)
SP.row("logit", SHARE, off=CURVES, gradient=STEEP)
SP.row("ndtri", SHARE, off=CURVES)
SP.row("erfinv", INSIDE, off=CURVE, gradient=STEEP)
SP.row(
    "log_ndtr",
    reals(-1.5, 8),
    off=CURVES,
    gradient=CURVES,
    mind="far below 0 it is the logarithm of what is rounded to 0",
)
SP.row("entr", SHARE, off=CURVES, gradient=CURVES)
SP.row("xlogy xlog1py", ABOVE, ABOVE, off=CURVES, gradient=CURVES)
SP.row("rel_entr kl_div", SHARE, SHARE, off=CURVES, gradient=CURVES)
SP.row("logsumexp softmax log_softmax", ANY, off=CURVES, gradient=2 * CURVES)
SP.row("boxcox boxcox1p", ABOVE, off=CURVES, gradient=CURVES, call=lambda f, x: f(x, 0.5), mind="a constant power")
SP.row("gammaln loggamma", ABOVE, off=CURVE, gradient=CURVE)
SP.row("digamma", ABOVE, off=CURVE)
SP.row("betaln", ABOVE, ABOVE, off=CURVES)
SP.row("comb", reals(4, 8), reals(0.25, 3), off=STEEP)
SP.row("multigammaln", ABOVE, off=CURVES, gradient=CURVES, call=lambda f, x: f(x + 2, 2), mind="d = 2")
SP.row("dawsn", NEAR, off=CURVES)
SP.row("erfcx", UNIT, off=STEEP)
SP.row("sici", reals(0.25, 2), off=CURVES)
SP.row("fresnel", NEAR, off=2 * STEEP)
SP.row("owens_t", NEAR, NEAR, off=CURVES)
SP.aside("its recurrence goes through numbers beyond 2^26, which wrap around: do not use it", "bessel_jn")
SP.refused("exp1 expi", TURNS, ABOVE)
SP.refused("spence", "a constant is infinite or NaN", ABOVE)
SP.row("factorial", reals(0.25, 5), off=STEEP)
SP.refused("gamma gammasgn", BITS, ABOVE)
SP.refused("beta poch", BITS, ABOVE, ABOVE)
SP.refused("betainc", MISSING, ABOVE, call=lambda f, x: f(x, 2.0, 0.5))
SP.refused("gammainc gammaincc", MISSING, ABOVE, ABOVE)
SP.refused("i0 i0e i1 i1e", MISSING, NEAR)
SP.refused("zeta", MISSING, ABOVE, call=lambda f, x: f(1 + x, 1.0))
SP.refused("polygamma", MISSING, ABOVE, call=lambda f, x: f(1, x))
SP.refused("hyp1f1", TURNS, NEAR, call=lambda f, x: f(1.0, 2.0, x))
SP.refused("hyp2f1", TURNS, SHARE, call=lambda f, x: f(1.0, 2.0, 3.0, x))
SP.refused("expn", TURNS, ABOVE, call=lambda f, x: f(2, x))
SP.refused("wofz", "there are no complex numbers", NEAR)
SP.refused("sph_harm_y", PYTHON, COUNT, NEAR, call=lambda f, n, x: f(n[0], n[1], x[0], x[1]))
SP.aside("takes numbers that are known", "bernoulli")
