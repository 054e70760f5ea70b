"""Functions of one number, and what is the largest: by the compiler's approximations (`lower.approx`)."""

from __future__ import annotations

import math

import numpy as np

from coordinator.lower import approx
from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import note, range_of
from coordinator.lower.rules import logic
from coordinator.lower.rules.registry import RULES, Function, Operand, Public, Site, approximate, exact, pointwise, rule
from mpcnode.graph import Kind


def erfc(b: Builder, x: Value) -> Value:
    return b.sub(b.fill(1.0, x), approx.erf(b, x))


FUNCTIONS: dict[str, Function] = {
    "log": approx.log,
    "log1p": approx.log1p,
    "expm1": approx.expm1,
    "tanh": approx.tanh,
    "erf": approx.erf,
    "erfc": erfc,
    "erf_inv": approx.erf_inv,
    "exp2": approx.exp2,
    "cbrt": approx.cbrt,
    "sin": approx.sin,
    "cos": approx.cos,
    "tan": approx.tan,
    "asin": approx.asin,
    "acos": approx.acos,
    "atan": approx.atan,
    "sinh": approx.sinh,
    "cosh": approx.cosh,
    "asinh": approx.asinh,
    "acosh": approx.acosh,
    "atanh": approx.atanh,
    "lgamma": approx.lgamma,
    "digamma": approx.digamma,
}


def _register(name: str, function: Function) -> None:
    RULES[name] = lambda s, x: pointwise(s, function, x)


for _name, _function in FUNCTIONS.items():
    _register(_name, _function)


@rule("logistic")
def logistic(s: Site, x: Value) -> Value:
    """Of -z it is 1 - logistic(z): a loss asks for both."""
    op = s.b.op(x)
    if op.name != "neg":
        return pointwise(s, approx.logistic, x)
    other = logistic(s, Value(op.args[0], x.type))
    return note(s.b, s.b.sub(s.b.fill(1.0, other), other), 0, 1)


@rule("atan2")
def atan2(s: Site, y: Operand, x: Operand) -> Value:
    return approximate(s, approx.atan2, *(s.b.lift(v) for v in s.both(y, x)))


@rule("exp")
def exp(s: Site, x: Value) -> Value:
    """exp(x - log(exp(x) + exp(y))), the gradient of softplus, is logistic(x - y)."""
    found = s.noted(x, "difference")
    terms = s.noted(found[1], "logaddexp") if found else None
    if found and terms and found[0] == terms[0]:
        a, b = s.both(*terms)
        return logistic(s, a if s.b.zero(b) else s.b.sub(a, b))
    return pointwise(s, approx.exp, x)


@rule("logaddexp")
def logaddexp(s: Site, x: Operand, y: Operand) -> Value:
    """log(exp(x) + exp(y)) = max(x, y) + log1p(exp(-|x - y|)); jax.nn.softplus(x) is that with y = 0."""
    a, b = s.both(x, y)
    gap = a if s.b.zero(b) else s.b.sub(a, b)
    smooth = approximate(s, approx.log1p, approximate(s, approx.exp, s.b.emit("neg", absolute(s, gap))))
    return s.note(s.b.add(s.value(maximum(s, x, y)), smooth), "logaddexp", x, y)


@rule("abs")
def absolute(s: Site, x: Value) -> Value:
    if range_of(s.b, x).low >= 0:
        return x
    negative = logic.less(s, x, 0.0)
    return note(s.b, s.b.sub(x, s.b.emit("scale", s.b.keep(negative, x, 1), by=2, frac=0)), 0)


@rule("sign")
def sign(s: Site, x: Value) -> Value:
    up, down = s.b.emit("inject", logic.less(s, 0.0, x)), s.b.emit("inject", logic.less(s, x, 0.0))
    return s.b.align(s.b.emit("sub", up, down), x.frac)


@rule("max")
def maximum(s: Site, x: Operand, y: Operand) -> Operand:
    """By the bit x > y, which a gradient asks for again; so of equal ones the second has the gradient."""
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Public) and one.scalar == -np.inf:
            return s.value(other, s.shape)
    if isinstance(x, Public):
        x, y = y, x
    a, b = s.both(x, y)
    (al, ah), (bl, bh) = range_of(s.b, a), range_of(s.b, b)
    found = note(s.b, s.b.where(logic.less(s, b, a), a, b), max(al, bl), max(ah, bh))
    return s.note(found, "max", x, y)


@rule("min")
def minimum(s: Site, x: Operand, y: Operand) -> Operand:
    """By the bit x > y as `maximum`; of equal ones the first has the gradient, so that both together have it once."""
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Public) and one.scalar == np.inf:
            return s.value(other, s.shape)
    if isinstance(x, Public):
        x, y = y, x
    a, b = s.both(x, y)
    (al, ah), (bl, bh) = range_of(s.b, a), range_of(s.b, b)
    found = note(s.b, s.b.where(logic.less(s, b, a), b, a), min(al, bl), min(ah, bh))
    return s.note(found, "min", x, y)


@rule("clamp")
def clamp(s: Site, low: Operand, x: Operand, high: Operand) -> Value:
    """Both comparisons at once: x + [x < low]·(low - x) + [high < x]·(high - x), for low <= high."""
    value, lo, hi = s.value(x, s.shape), s.value(low, s.shape), s.value(high, s.shape)
    up = s.b.keep(logic.less(s, value, lo), s.b.sub(lo, value), 1)
    down = s.b.keep(logic.less(s, hi, value), s.b.sub(hi, value), 1)
    return s.b.add(value, s.b.add(up, down))


# ---- over axes -----------------------------------------------------------------------------------------------------
def _one_axis(s: Site, x: Value) -> tuple[Value, int]:
    """x with the axes of the reduction made one, which then is the last; bits as the numbers 0 and 1."""
    axes = tuple(int(a) for a in s.params["axes"])
    x = s.b.emit("inject", x) if x.type.kind is Kind.BIT else x
    if len(axes) == 1:
        return x, axes[0]
    rest = tuple(a for a in range(len(x.shape)) if a not in axes)
    moved = s.b.transpose(x, rest + axes)
    return s.b.reshape(moved, (*(x.shape[a] for a in rest), math.prod(x.shape[a] for a in axes))), len(rest)


@rule("reduce_max")
def reduce_max(s: Site, x: Value) -> Value:
    if s.kind == "b":
        return logic.reduce_boolean(s._replace(name="reduce_or"), x)
    moved, axis = _one_axis(s, x)
    return exact(s, approx.reduce_max, moved, axis)


@rule("reduce_min")
def reduce_min(s: Site, x: Value) -> Value:
    if s.kind == "b":
        return logic.reduce_boolean(s._replace(name="reduce_and"), x)
    moved, axis = _one_axis(s, x)
    return exact(s, approx.reduce_min, moved, axis)


@rule("argmax")
def argmax(s: Site, x: Value) -> Value:
    return exact(s, approx.argmax, *_one_axis(s, x))


@rule("argmin")
def argmin(s: Site, x: Value) -> Value:
    return exact(s, approx.argmin, *_one_axis(s, x))
