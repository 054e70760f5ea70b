"""Functions of secret numbers, written in ops that the machine has.

Every function states its domain, where it is right, how far off it is at most, and what it yields elsewhere: that is
bounded, so a number that strays does not ruin its neighbours.  `error <= 2^-12·max(1, |f|)` is the rule; the largest
errors that the tests saw, rounds and costs are in docs/numerics.md.

Piecewise polynomials serve for all of them (`pieces`, `fit`): they need the fewest rounds, five for most.  What is
known of a value's range (`lower.ranges`) saves pieces.
"""

from coordinator.lower.approx.angles import acos, asin, atan, atan2, cos, sin, tan
from coordinator.lower.approx.division import divide
from coordinator.lower.approx.functions import (
    cbrt,
    cosh,
    erf,
    exp,
    exp2,
    expm1,
    integer_pow,
    log,
    log1p,
    logistic,
    reciprocal,
    rsqrt,
    sinh,
    sqrt,
    tanh,
    whole_power,
)
from coordinator.lower.approx.graded import acosh, asinh, atanh, digamma, erf_inv, lgamma
from coordinator.lower.order import (
    abs_,
    argmax,
    argmin,
    maximum,
    minimum,
    reduce_max,
    reduce_min,
    relu,
    sign_,
)

__all__ = [
    "abs_",
    "acos",
    "acosh",
    "argmax",
    "argmin",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "cos",
    "cosh",
    "digamma",
    "divide",
    "erf",
    "erf_inv",
    "exp",
    "exp2",
    "expm1",
    "integer_pow",
    "lgamma",
    "log",
    "log1p",
    "logistic",
    "maximum",
    "minimum",
    "reciprocal",
    "reduce_max",
    "reduce_min",
    "relu",
    "rsqrt",
    "sign_",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "whole_power",
]
