"""Sums, products and quotients, elementwise and over axes, of floats (fixed-point) and integers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from coordinator.lower import approx, associate
from coordinator.lower.approx import frames
from coordinator.lower.builder import Value
from coordinator.lower.rules import rounding
from coordinator.lower.rules.registry import Operand, Public, Site, approximate, pointwise, rule
from coordinator.lower.untruncated import total
from mpcnode.ring import FRAC

POWERS = 16  # different known exponents of one secret array
LOG_BITS = 30  # of the logarithm of a base: times an exponent below 2^31, it stays below 2^61


# ---- linear --------------------------------------------------------------------------------------------------------
@rule("add", "add_any")
def add(s: Site, x: Operand, y: Operand) -> Operand:
    x, y = s.bounded(x), s.bounded(y)
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Public):
            if one.scalar == 0 and isinstance(other, Value):
                return s.value(other, s.shape)
            again = rechoose(s, other, one.scalar, operator.add)
            if again is not None:
                return again
            guard, guarded = _guarded(s, one, other)
            return s.b.add(s.value(guarded, s.shape), s.value(guard, s.shape))
    return s.b.add(*s.both(x, y))


def _guarded(s: Site, guard: Public, x: Operand) -> tuple[Public, Operand]:
    """A guard and what it is added to.  A small constant added to a square root, or inside of it, keeps a later
    quotient small (optax.adam adds 1e-8); below the resolution of x it guards nothing.  So a quarter of a unit in the
    last place is added inside of the root, grown as x has grown since it was rounded: Adam's v / (1 - b2^t) is up to
    1000 v.  Then what was rounded to 0 is not divided by less than half of what it may have been.

    Where a calibration has met x, there are more fraction bits: a guard of a root is raised to the least root at most.
    """
    number, unit = guard.scalar, 2.0**-s.b.frac
    if number is None or number <= 0 or not isinstance(x, Value):
        return guard, x
    if s.b.most:
        grid = s.noted(x, "grid")
        raised = grid is not None and number < grid[0]
        return guard._replace(array=np.full((), grid[0]), over=()) if grid and raised else guard, x
    grown, root = s.noted(x, "times"), s.noted(x, "root")
    if grown is not None and number < unit:
        return _part_of_unit(s, grown[0]), x
    if root is None or number >= math.sqrt(unit):
        return guard, x
    square, growth = root
    inner = s._replace(shapes=[square.shape])
    lifted = s.b.add(square, inner.value(_part_of_unit(s, growth), square.shape))
    return guard._replace(array=np.float32(0)), pointwise(s, approx.sqrt, lifted)


def _part_of_unit(s: Site, growth: Public | None) -> Public:
    """A quarter of a unit in the last place times the growth, in whole units and one at least."""
    if growth is None:
        return Public(np.float64(2.0**-s.b.frac), (), "f")
    quarters = np.ceil(np.abs(np.asarray(growth.array, np.float64)) / 4)
    return growth._replace(array=np.maximum(1.0, quarters) * 2.0**-s.b.frac)


@rule("sub")
def sub(s: Site, x: Operand, y: Operand) -> Operand:
    x, y = s.bounded(x), s.bounded(y)
    if isinstance(y, Public):
        return add(s, x, y._replace(array=np.negative(np.asarray(y.array))))
    if isinstance(x, Public) and x.scalar == 0:
        return s.b.emit("neg", s.value(y, s.shape))
    found = s.b.sub(*s.both(x, y))
    return s.note(found, "difference", x, y) if isinstance(x, Value) else found


@rule("neg")
def neg(s: Site, x: Value) -> Value:
    again = rechoose(s, x, -1.0, operator.mul)
    op = s.b.op(x)
    if op.name == "neg":
        return Value(op.args[0], x.type)
    return s.b.emit("neg", x) if again is None else again


@rule("reduce_sum")
def reduce_sum(s: Site, x: Value) -> Value:
    axes = tuple(sorted(int(a) for a in s.params["axes"]))
    return total(s.b, x, axes) if axes else x


# ---- products ------------------------------------------------------------------------------------------------------
@rule("mul")
def mul(s: Site, x: Operand, y: Operand) -> Operand:
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Public):
            assert isinstance(other, Value)
            return times(s, other, one)
    for one, other in ((x, y), (y, x)):
        bit = lifted_bit(s, one)
        if bit is not None:  # a choice costs less than a product, and leaves nothing to truncate
            return s.b.keep(s.b.spread(bit, s.shape), s.value(other, s.shape), 1)
    chosen = choice_product(s, x, y)
    return chosen if chosen is not None else associate.mul(s.b, *s.both(x, y))


def times(s: Site, x: Value, c: Public) -> Value:
    """x·c for known c: a constant factor is written into the op, others are shared by no one and cost no round."""
    number = c.scalar
    if number is not None:
        s.check(c)
        again = rechoose(s, x, number, operator.mul)
        if again is not None or abs(number) <= 1:
            return s.b.spread(scaled(s, x, number), s.shape) if again is None else again
        return s.note(s.b.spread(scaled(s, x, number), s.shape), "times", c)
    x = s.b.spread(x, s.shape)
    if s.kind == "i":
        return s.b.emit("mul", x, s.value(c, s.shape))
    return s.note(s.b.mul(x, s.factor(c, s.shape, x)), "times", c)


def scaled(s: Site, x: Value, number: float) -> Value:
    """x·number, with x's own binary point; powers of two and small integers are exact."""
    if number == 1:
        return x
    if number == -1:
        return s.b.emit("neg", x)
    if x.frac == 0:
        assert number.is_integer(), "a whole number times a fraction is no whole number"
        return s.b.emit("scale", x, by=int(number), frac=0)
    mantissa, top = math.frexp(number)
    power_of_two = abs(mantissa) == 0.5
    if power_of_two and s.b.most:
        return s.b.shift(x if number > 0 else s.b.emit("neg", x), top - 1)
    bits = min(62 - x.frac, max(0, 1 - top)) if power_of_two else s.bits_of(np.asarray(number), x)
    if s.b.most and x.frac + bits > s.b.most:
        x = s.b.align(x, s.b.most - bits)
    frac = s.b.frac if s.b.most else x.frac
    return s.b.settle(s.b.emit("scale", x, by=round(number * 2.0**bits), frac=bits), frac)


def lifted_bit(s: Site, x: Operand) -> Value | None:
    """The bit, if x is a bit as a number 0 or 1."""
    found = s.noted(x, "choice")
    return found[0] if found is not None and (found[1], found[2]) == (1.0, 0.0) else None


@rule("square")
def square(s: Site, x: Value) -> Value:
    return s.b.mul(x, x)


@rule("integer_pow")
def integer_pow(s: Site, x: Value) -> Operand:
    n = int(s.params["y"])
    if n in (0, 1):
        return x if n else Public(np.broadcast_to(np.float32(1), s.shape), (), s.kind)
    if n == 2:
        return square(s, x)
    if s.kind == "i" and n < 0:
        s.refuse("a negative power of a secret integer", "convert it to float32 first")
    return approximate(s, approx.reciprocal, x) if n == -1 else approximate(s, approx.integer_pow, x, n)


@rule("pow")
def power(s: Site, x: Operand, y: Operand) -> Operand:
    """x ** c for a constant c, and c ** y; others, and fractions, by exp(c·log x) for x > 0."""
    if isinstance(x, Public):
        assert isinstance(y, Value)
        return _known_base(s, x, y)
    if isinstance(y, Value):
        return approximate(s, approx.exp, s.b.mul(s.value(approximate(s, approx.log, x), s.shape), s.value(y, s.shape)))
    number = y.scalar
    if number is None:
        return _powers(s, x, y)
    if number in (0.5, -0.5):
        return root(s, x) if number > 0 else inverse_root(s, x)
    if number == int(number):
        return integer_pow(s._replace(params={"y": int(number)}), x)
    return approximate(s, approx.exp, scaled(s, approximate(s, approx.log, x), number))


def _known_base(s: Site, c: Public, y: Value) -> Value:
    """c ** y = exp(y·log c); of an integer y, finer."""
    if np.any(np.asarray(c.array) <= 0):
        s.refuse("wants a positive number as its base")
    logs = c._replace(array=np.log(np.asarray(c.array, np.float64)))
    if y.frac:
        return approximate(s, approx.exp, times(s, y, logs))
    top = math.frexp(float(np.abs(logs.array).max(initial=0)))[1]
    return approximate(s, approx.whole_power, s.b.spread(y, s.shape), s.factor(logs, s.shape, bits=LOG_BITS - top))


def _powers(s: Site, x: Value, y: Public) -> Value:
    """x ** y for known exponents that are not all the same: every power that occurs, each in its places."""
    exponents = np.unique(np.asarray(y.array))
    if np.any(exponents != np.rint(exponents)) or len(exponents) > POWERS or not np.all(np.isfinite(exponents)):
        s.refuse(
            f"wants one constant exponent, or up to {POWERS} whole ones", "write jnp.exp(y * jnp.log(x)) for x > 0"
        )
    steps, own = np.shape(y.array)[: len(y.over)], (1,) * (len(s.shape) - len(y.shape)) + y.shape
    wide = np.broadcast_to(np.reshape(y.array, (*steps, *own)), (*steps, *s.shape))
    total: Value | None = None
    for n in exponents:
        found = s.value(integer_pow(s._replace(params={"y": int(n)}, shapes=[x.shape]), x), s.shape)
        here = s.value(Public((wide == n).astype(np.int64), y.over, "i"), s.shape)
        part = s.b.emit("mul", found, here)
        total = part if total is None else s.b.add(total, part)
    assert total is not None
    return s.b.lift(total)


@rule("sqrt")
def root(s: Site, x: Value) -> Value:
    seen = s.seen[0] if s.seen else None
    if seen is not None and not frames.familiar(seen):
        return s.note(pointwise(s, partial(frames.sqrt, seen=seen), x, aligned=False), "grid", frames.grid(seen))
    y, grown = pointwise(s, approx.sqrt, x), s.noted(x, "times")
    if s.b.most:
        return s.note(y, "grid", 2.0 ** (-FRAC // 2))
    return s.note(y, "root", x, grown[0] if grown else None)


@rule("rsqrt")
def inverse_root(s: Site, x: Value) -> Value:
    seen = s.seen[0] if s.seen else None
    if seen is None or frames.familiar(seen):
        return pointwise(s, approx.rsqrt, x)
    return pointwise(s, partial(frames.rsqrt, seen=seen), x, aligned=False)


@rule("div")
def div(s: Site, x: Operand, y: Operand) -> Operand:
    if s.kind == "i":
        return rounding.quotient(s, s.value(x, s.shape), y)
    if isinstance(y, Public):
        assert isinstance(x, Value)
        with np.errstate(divide="ignore"):
            inverse = 1.0 / np.asarray(y.array, np.float64)
        return times(s, x, y._replace(array=inverse))
    chosen = choice_quotient(s, x, y)
    if chosen is not None:
        return chosen
    below = s.seen[1] if s.seen else None
    if below is not None and s.made is not None and not (frames.familiar(below) and frames.familiar(s.made)):
        over = s.value(x, s.shape)
        return frames.divide(s.b, over, s.b.spread(y, s.shape), below, s.made)
    wide = s.b.op(y)
    if wide.name == "broadcast" or y.type.size < math.prod(s.shape) or isinstance(x, Public):
        inverse_value = reciprocal(s, y)
        if isinstance(x, Public):
            return times(s, inverse_value, x)
        return s.b.mul(s.value(x, s.shape), s.b.spread(inverse_value, s.shape))
    return approximate(s, approx.divide, s.value(x, s.shape), y)


def reciprocal(s: Site, y: Value) -> Value:
    """1 / y, before y is broadcast."""
    return pointwise(s, approx.reciprocal, y)


# ---- a secret bit that chooses between two known numbers: known functions of it are again such choices -------------
def choose(s: Site, bit: Value, yes: float, no: float) -> Value:
    """`yes` where the bit is 1, else `no`."""
    frac = s.frac_of(s.kind)
    one = s.b.emit("inject", bit)
    gap = float(np.rint((yes - no) * 2.0**frac))
    found = one if gap == 1 and frac == 0 else s.b.emit("scale", one, by=int(gap), frac=frac)
    if no:
        found = s.b.add(found, s.value(Public(np.asarray(no), (), s.kind), bit.shape))
    return s.note(found, "choice", bit, float(yes), float(no))


def rechoose(s: Site, x: Operand, c: float | None, function: Callable[[float, float], float]) -> Value | None:
    """function(x, c) where x is one of two known numbers and c is known, if the results are held exactly."""
    found = s.noted(x, "choice")
    if found is None or c is None or not isinstance(x, Value) or x.shape != s.shape:
        return None
    yes, no = function(found[1], c), function(found[2], c)
    unit = 2.0 ** s.frac_of(s.kind)
    exact = (yes * unit).is_integer() and (no * unit).is_integer()
    return choose(s, found[0], yes, no) if exact else None


def choice_quotient(s: Site, x: Operand, y: Value) -> Operand | None:
    """x / y where y is one of two known numbers."""
    found = s.noted(y, "choice")
    if found is None or 0.0 in found[1:]:
        return None
    bit, yes, no = found
    share = _share_of_maximum(s, s.noted(x, "choice"), found)
    if share is not None:
        return share
    inverse = choose(s, bit, 1 / yes, 1 / no)
    return mul(s, x, inverse)


def _share_of_maximum(s: Site, own: tuple[Any, ...] | None, both: tuple[Any, ...]) -> Value | None:
    """The part that x has in the gradient of max(x, y), which jax writes as [x = max] / (1 + [y = max]): the bit that
    the maximum was chosen by.  So it costs no comparison; of equal ones, one has all of it instead of each one half.
    """
    if own is None or own[1:] != (1.0, 0.0) or both[1:] != (2.0, 1.0):
        return None
    x, y = s.noted(own[0], "extreme"), s.noted(both[0], "extreme")
    if x is None or y is None or not (s.b.emit("not", x[0]) == y[0] or s.b.emit("not", y[0]) == x[0]):
        return None
    return choose(s, x[0], 1.0, 0.0)


def choice_product(s: Site, x: Operand, y: Operand) -> Value | None:
    """x·y where y chooses between two known numbers: no·x + (yes - no)·[bit]·x."""
    for one, other in ((x, y), (y, x)):
        found: tuple[Any, ...] | None = s.noted(one, "choice")
        if found is None:
            continue
        bit, yes, no = found
        w = s.value(other, s.shape)
        part = scaled(s, s.b.keep(s.b.spread(bit, s.shape), w, 1), yes - no)
        return part if no == 0 else s.b.add(scaled(s, w, no), part)
    return None
