"""jax.numpy: functions of numbers, over axes, and products.  Shapes and places are in rows_shapes.py."""

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
    STEEP,
    TRUTH,
    UNIT,
    UNITS,
    WHOLE,
    Module,
    reals,
)  # fmt: skip

NP = Module("jax.numpy", jnp)
POSITIVE = reals(-0.75, 8)
OTHERS = reals(-7.5, 8.25)  # none of them is one of ANY
KNOTS, HEIGHTS = np.array([-8.0, 0, 8]), np.array([1.0, 3, 2])
BITS = "'bitcast_convert_type': is not supported on secret values; fixed-point numbers have no such bits"
NO_BITS = "bitwise operations on secret integers are not supported; use sums"
MISSING = "is not supported on secret values; docs/functions.md lists what is"
PYTHON = "Python asks for the value of an array that is secret"
TURNS = "'while': the number of turns depends on secret data; run a fixed number"

# ---- of one number ---------------------------------------------------------------------------------------------------
NP.row("abs absolute fabs negative positive sign real conj conjugate nan_to_num", ANY, gradient=EXACT)
NP.row("floor ceil rint round around trunc", ANY, gradient=EXACT)
NP.row("square deg2rad radians", ANY, off=UNITS, gradient=UNITS)
NP.row("rad2deg degrees", ANY, off=UNITS, gradient=2 * UNITS)
NP.row("sqrt reciprocal log log2 log10", ABOVE, off=CURVE, gradient=CURVES)
NP.row("cbrt", ANY, off=CURVE)
NP.row("cbrt", ABOVE, off=CURVE, gradient=CURVES)
NP.row("exp exp2 expm1", ANY, off=CURVE, gradient=CURVE)
NP.row("log1p", POSITIVE, off=CURVE, gradient=CURVES)
NP.row("sin cos", reals(-100, 100), off=CURVE, gradient=CURVE, mind="|x| < 2^14")
NP.row("tan", INSIDE, off=CURVES, gradient=STEEP)
NP.row("sinc", NEAR, off=CURVES)
NP.row("asin arcsin acos arccos", INSIDE, off=CURVE, gradient=CURVES)
NP.row("atan arctan tanh", ANY, off=CURVE, gradient=CURVES)
NP.row("asinh arcsinh", ANY, off=CURVE, gradient=CURVES, mind="|x| < 2^12")
NP.row("acosh arccosh", reals(1.25, 8), off=CURVE, gradient=CURVES, mind="x < 2^12")
NP.row("atanh arctanh", INSIDE, off=CURVE, gradient=STEEP)
NP.row("sinh cosh", NEAR, off=CURVE, gradient=CURVE, mind="|x| < 14")
NP.row("angle imag", ANY, off=CURVE)
NP.row("isfinite isnan isinf isneginf isposinf iscomplex isreal", ANY, mind="every number is finite")
NP.row("modf", ANY)
NP.row("logical_not bitwise_not bitwise_invert invert", TRUTH)
NP.row("bitwise_not bitwise_invert invert", WHOLE)
NP.refused("signbit frexp spacing", BITS, ANY)
NP.refused("ldexp", BITS, ANY, call=lambda f, x: f(x, 3))
NP.refused("i0", MISSING, ANY)
NP.refused("unwrap", "divide by a number that is held exactly", ANY)
NP.refused("sort_complex", "there are no complex numbers", ANY)
NP.refused("bitwise_count", MISSING, WHOLE)

# ---- of two numbers --------------------------------------------------------------------------------------------------
NP.row("add subtract", ANY, ANY, gradient=EXACT)
NP.row("maximum minimum fmax fmin", ANY, OTHERS, gradient=EXACT, mind="of equal ones, one has the gradient")
NP.row("multiply", ANY, ANY, off=UNITS, gradient=UNITS)
NP.row("divide true_divide", ANY, ABOVE, off=CURVE, gradient=CURVES)
NP.row("atan2 arctan2", ANY, ANY, off=CURVES, gradient=STEEP)
NP.row("hypot", ANY, ANY, off=CURVES)
NP.row("heaviside equal not_equal less less_equal greater greater_equal isclose", ANY, ANY)
NP.row("allclose array_equal array_equiv", ANY, ANY)
NP.row("clip", ANY, gradient=EXACT, call=lambda f, x: f(x, -1, 1))
NP.row("logaddexp logaddexp2", ANY, ANY, off=CURVES, gradient=CURVES)
NP.row(
    "power pow float_power", ABOVE, off=CURVES, gradient=CURVES, call=lambda f, x: f(x, 1.5), mind="a constant power"
)
NP.row("power pow", NEAR, off=UNITS, gradient=UNITS, call=lambda f, x: f(x, 3), mind="a whole power")
NP.row("power pow", NEAR, off=UNITS, call=lambda f, x: f(x[..., None], jnp.arange(4)), mind="known whole powers")
NP.row("power pow float_power", ABOVE, UNIT, off=CURVES, gradient=STEEP, mind="a secret power of x > 0")
NP.row("power pow", NEAR, off=CURVES, gradient=CURVES, call=lambda f, x: f(2.0, x), mind="a constant base")
NP.row("power pow", COUNT, off=UNITS, call=lambda f, n: f(0.9, n), mind="a constant base, a secret integer")
NP.row(
    "mod remainder fmod floor_divide divmod", ANY, call=lambda f, x: f(x, 0.75), mind="by a number that is held exactly"
)
NP.row("mod remainder fmod floor_divide divmod", WHOLE, call=lambda f, x: f(x, 3), mind="by a constant")
NP.row("logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor", TRUTH, TRUTH)
NP.row("bitwise_and", WHOLE, call=lambda f, i: f(i, 3), mind="by 2^k - 1")
NP.row("left_shift bitwise_left_shift right_shift bitwise_right_shift", WHOLE, call=lambda f, i: f(i, 2))
NP.refused("bitwise_or bitwise_xor", NO_BITS, WHOLE, WHOLE)
NP.refused("copysign", BITS, ANY, ANY)
NP.refused("nextafter", "'nextafter': is not supported on secret values; fixed-point", ANY, ANY)
NP.refused("gcd lcm", TURNS, COUNT, COUNT)

# ---- over axes -------------------------------------------------------------------------------------------------------
NP.row("sum nansum mean nanmean average trapezoid", ANY, off=UNITS, gradient=UNITS)
NP.row("average", ANY, ABOVE, off=CURVE, gradient=STEEP, call=lambda f, x, w: f(x, weights=w), mind="secret weights")
NP.row("prod nanprod", UNIT, off=UNITS, gradient=UNITS)
NP.row("var cov", ANY, off=UNITS, gradient=UNITS)
NP.row("nanvar", ANY, off=UNITS)
NP.row("std", ANY, off=CURVE, gradient=CURVES)
NP.row("nanstd", ANY, off=CURVE)
NP.row("corrcoef", ANY, off=2 * CURVES, gradient=CURVES)
NP.row("max min amax amin nanmax nanmin ptp", ANY, gradient=CURVE)
NP.row("argmax argmin nanargmax nanargmin", ANY)
NP.row("max min argmax all any count_nonzero", TRUTH)
NP.row("median", ANY, off=UNITS, gradient=UNITS)
NP.row("percentile", ANY, off=UNITS, gradient=UNITS, call=lambda f, x: f(x, 30.0))
NP.row("quantile", ANY, off=UNITS, gradient=UNITS, call=lambda f, x: f(x, 0.3))
NP.row("nanmedian", ANY, off=UNITS)
NP.row("nanpercentile", ANY, off=UNITS, call=lambda f, x: f(x, 30.0))
NP.row("nanquantile", ANY, off=UNITS, call=lambda f, x: f(x, 0.3))
NP.row("cumsum nancumsum cumulative_sum", ANY, gradient=EXACT, call=lambda f, x: f(x, axis=1))
NP.row("cumprod nancumprod cumulative_prod", UNIT, off=UNITS, call=lambda f, x: f(x, axis=1))
NP.row("diff ediff1d", ANY, gradient=EXACT)
NP.row("gradient", ANY, off=UNITS, gradient=UNITS, call=lambda f, x: f(x, axis=1))
NP.row("histogram", ANY, off=UNITS, call=lambda f, x: f(x, 4, (-8, 8)))
NP.row("histogram2d", ANY, ANY, off=STEEP, call=lambda f, x, y: f(x[0], y[0], 3)[0])
NP.row("histogramdd", ANY, off=STEEP, call=lambda f, x: f(x.T[:, :2], 2)[0])
NP.row("histogram_bin_edges", ANY, off=UNITS, call=lambda f, x: f(x, 4))
NP.row("bincount", COUNT, call=lambda f, i: f(i.ravel(), length=6), mind="a known length")
NP.row("digitize", ANY, call=lambda f, x: f(x, KNOTS))
NP.row("searchsorted", ANY, call=lambda f, x: f(KNOTS, x), mind="in known numbers")
NP.row("searchsorted", ANY, call=lambda f, x: f(jnp.sort(x[0]), KNOTS), mind="in secret numbers")
NP.row("interp", ANY, off=CURVES, gradient=CURVES, call=lambda f, x: f(x, KNOTS, HEIGHTS))

# ---- order -----------------------------------------------------------------------------------------------------------
NP.row("sort", ANY, gradient=EXACT)
NP.row("sort argsort", TRUTH)
NP.row("argsort", ANY)
NP.row("lexsort", ANY, ANY, call=lambda f, x, y: f((x[0], y[0])))
NP.row("partition", ANY, call=lambda f, x: f(x, 2))
NP.refused("argpartition", "secret places that may be the same; pass unique", ANY, call=lambda f, x: f(x, 2))
NP.row("isin", COUNT, call=lambda f, i: f(i, np.array([1, 3])))
NP.row("unique unique_values unique_counts", COUNT, call=lambda f, i: f(i, size=6), mind="a known size")
NP.row("union1d setdiff1d intersect1d", COUNT, COUNT, call=lambda f, x, y: f(x[0], y[1], size=3), mind="a known size")
NP.refused("setxor1d", "sets booleans at secret places; convert", COUNT, COUNT, call=lambda f, x, y: f(x, y, size=3))
NP.refused(
    "unique_all unique_inverse",
    "secret places that may be the same; pass unique",
    COUNT,
    call=lambda f, i: f(i, size=6),
)

# ---- products --------------------------------------------------------------------------------------------------------
NP.row("dot matmul", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x, y.T))
NP.row("vdot inner outer vecdot tensordot kron", NEAR, NEAR, off=UNITS, gradient=UNITS)
NP.row("einsum", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f("ij,kj->ik", x, y))
NP.row("matvec", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x, y[0]))
NP.row("vecmat", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x[:, 0], y))
NP.row("cross", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x[:, :3], y[:, :3]))
NP.row("convolve correlate polymul", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x[0], y[0]))
NP.row("polyadd polysub", ANY, ANY, gradient=EXACT, call=lambda f, x, y: f(x[0], y[0]))
NP.row("polyval", NEAR, off=UNITS, gradient=UNITS, call=lambda f, x: f(HEIGHTS, x))
NP.row("polyder polyint", NEAR, off=UNITS, gradient=UNITS, call=lambda f, x: f(x[0]))
NP.row("polydiv", NEAR, ABOVE, off=2 * STEEP, call=lambda f, x, y: f(x[0, :4], y[0, :2] + 4))
NP.row("vander", NEAR, off=UNITS, call=lambda f, x: f(x[0], 3))
NP.row(
    "polyfit", NEAR, off=CURVES, gradient=CURVES, call=lambda f, y: f(np.arange(6.0), y[0], 1), mind="at known places"
)
NP.row("trace", ANY, gradient=EXACT)
NP.refused("roots", PYTHON, NEAR, call=lambda f, x: f(x[0]))
NP.refused("poly", "'eig': is not supported on secret values; let the owner", NEAR, call=lambda f, x: f(x[:3, :3]))

# ---- jax.numpy.linalg ------------------------------------------------------------------------------------------------
LA = Module("jax.numpy.linalg", jnp.linalg)
NO_LU = "'lu': is not supported on secret values; "
NO_SVD = "'svd': is not supported on secret values; let the owner"


def square(x: jnp.ndarray) -> jnp.ndarray:
    """3 x 3, and well conditioned."""
    return x[:3, :3] + 2 * np.eye(3, dtype=np.float32)


LA.row("norm vector_norm matrix_norm", ANY, off=CURVE, gradient=CURVES)
LA.row("outer", ANY, ANY, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x[0], y[0]))
LA.row("matmul", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x, y.T))
LA.row("vecdot tensordot", NEAR, NEAR, off=UNITS, gradient=UNITS)
LA.row("cross", NEAR, NEAR, off=UNITS, gradient=UNITS, call=lambda f, x, y: f(x[:, :3], y[:, :3]))
LA.row("multi_dot", UNIT, UNIT, off=UNITS, gradient=UNITS, call=lambda f, x, y: f([x, y.T, x]))
LA.row("trace diagonal matrix_transpose", ANY, gradient=EXACT)
LA.row("matrix_power", UNIT, off=UNITS, gradient=4 * UNITS, call=lambda f, x: f(square(x), 3))
LA.row("det", UNIT, off=UNITS, gradient=UNITS, call=lambda f, x: f(square(x)), mind="2 x 2 and 3 x 3")
LA.refused("inv slogdet", NO_LU, UNIT, call=lambda f, x: f(square(x)))
LA.refused("tensorinv", NO_LU, UNIT, call=lambda f, x: f(square(x), ind=1))
LA.refused("solve tensorsolve", NO_LU, UNIT, UNIT, call=lambda f, x, y: f(square(x), y[:3, 0]))
LA.refused("lstsq", NO_SVD, UNIT, UNIT, call=lambda f, x, y: f(x, y)[0])
LA.refused("cond svd svdvals pinv matrix_rank", NO_SVD, UNIT, call=lambda f, x: f(square(x)))
LA.refused(
    "eigh eigvalsh", "'eigh': is not supported on secret values; let the owner", UNIT, call=lambda f, x: f(square(x))
)
LA.refused(
    "eig eigvals", "'eig': is not supported on secret values; let the owner", UNIT, call=lambda f, x: f(square(x))
)
LA.refused("qr", "'qr': is not supported on secret values; let the owner", UNIT, call=lambda f, x: f(square(x)))
LA.refused("cholesky", MISSING, UNIT, call=lambda f, x: f(square(x)))
