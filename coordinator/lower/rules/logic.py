"""Comparisons, boolean algebra, choices, and conversions between booleans, integers and floats."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.lookup import one_hot
from coordinator.lower.ranges import range_of
from coordinator.lower.rules import arithmetic, lookup, rounding
from coordinator.lower.rules.registry import Operand, Public, Site, rule
from mpcnode.graph import Kind

Term: TypeAlias = Value | float


def everywhere(s: Site, truth: bool) -> Public:
    """The known boolean in every place of the result."""
    return Public(np.broadcast_to(np.bool_(truth), s.shape), (), "b")


# ---- comparisons ---------------------------------------------------------------------------------------------------
def less(s: Site, x: Term, y: Term) -> Value:
    """The bit x < y.  A comparison with 0 is the same op wherever it is asked for, in a maximum or in its gradient."""
    if isinstance(x, float):
        assert isinstance(y, Value)
        x = s.b.fill(x, y, y.frac)
    if isinstance(y, float):
        y = s.b.fill(y, x, x.frac)
    if s.b.zero(y):
        return s.b.emit("sign", x, lo=0)
    if s.b.zero(x):
        return s.b.emit("sign", s.b.emit("neg", y), lo=0)
    return s.b.less(x, y)


def _settled(s: Site, x: Operand, y: Operand) -> Operand | None:
    """A comparison that needs none: of a value with itself (which asks for NaN), or with infinity."""
    if isinstance(x, Value) and isinstance(y, Value) and x == y:
        nan = _chosen_nan(s, x)
        if nan is None:
            return everywhere(s, s.name in ("eq", "le", "ge"))
        return nan if s.name == "ne" else s.b.emit("not", nan)
    above, below = ("gt", "ge", "ne"), ("lt", "le", "ne")
    for one, if_plus, if_minus in ((x, above, below), (y, below, above)):
        number = one.scalar if isinstance(one, Public) and one.kind == "f" else None
        if number is not None and np.isinf(number):
            return everywhere(s, s.name in (if_plus if number > 0 else if_minus))
    return None


def _compare(s: Site, x: Operand, y: Operand) -> Operand:
    known = _settled(s, x, y)
    if known is not None:
        return known
    a, b = s.both(x, y)
    whole = _settled_by_range(s, a, b)
    if whole is not None:
        return whole
    below = _bit_less if Kind.BIT in (a.type.kind, b.type.kind) else less
    if s.name in ("lt", "gt"):
        return below(s, a, b) if s.name == "lt" else below(s, b, a)
    return s.b.emit("not", below(s, b, a) if s.name == "le" else below(s, a, b))


def _bit_less(s: Site, a: Value, b: Value) -> Value:
    """False is before True."""
    return s.b.emit("and", s.b.emit("not", a), b)


def _settled_by_range(s: Site, a: Value, b: Value) -> Public | None:
    """A comparison of integers whose known ranges decide it (ranges of floats hold up to rounding only)."""
    if a.type.kind is Kind.BIT or b.type.kind is Kind.BIT or a.frac or b.frac:
        return None
    x, y = range_of(s.b, a), range_of(s.b, b)
    if s.name in ("gt", "le"):
        x, y = y, x  # x > y is y < x, and x <= y is not y < x
    negated = s.name in ("le", "ge")
    if x.high < y.low or x.low >= y.high:
        return everywhere(s, (x.high < y.low) != negated)
    return None


@rule("lt", "gt", "le", "ge")
def order(s: Site, x: Operand, y: Operand) -> Operand:
    return _compare(s, x, y)


@rule("lt_to", "le_to")
def total_order(s: Site, x: Operand, y: Operand) -> Operand:
    """As `lt` and `le`, from which it differs for NaN and -0 alone."""
    return _compare(s._replace(name=s.name.removesuffix("_to")), x, y)


@rule("eq", "ne")
def equal(s: Site, x: Operand, y: Operand) -> Operand:
    """Neither x < y nor y < x: exact for integers; for floats, within the last fraction bit."""
    known = _settled(s, x, y)
    if known is not None:
        return known
    found = lookup.equal_places(s, x, y)
    if found is not None:
        return found if s.name == "eq" else s.b.emit("not", found)
    a, b = s.both(x, y)
    if Kind.BIT in (a.type.kind, b.type.kind):
        differ = s.b.emit("xor", a, b)
        return differ if s.name == "ne" else s.b.emit("not", differ)
    extreme = _is_extreme(s, x, y) or _is_extreme(s, y, x)
    if extreme is not None:
        differ, chosen = extreme
        return differ if s.name == "ne" else s.note(s.b.emit("not", differ), "extreme", chosen)
    differ = s.b.emit("or", less(s, a, b), less(s, b, a))
    return differ if s.name == "ne" else s.b.emit("not", differ)


@rule("is_finite")
def is_finite(s: Site, x: Value) -> Operand:
    """Every fixed-point number is."""
    nan = _chosen_nan(s, x)
    return everywhere(s, True) if nan is None else s.b.emit("not", nan)


def _chosen_nan(s: Site, x: Value) -> Value | None:
    """The bit that chose NaN in the place of x, if there is one.  NaN itself is not held: where one was computed with,
    nobody can tell any more.
    """
    found = s.noted(x, "nan")
    if found is not None:
        bit: Value = found[0]
        return bit
    origins = {value.number for value, what in s.scope.notes.items() if what[0] == "nan"}
    seen, todo = set[int](), [x.number] if origins else []
    while todo:
        number = todo.pop()
        if number in origins:
            s.refuse(
                "asks for NaN of what was computed from it", "ask jnp.isnan of what jnp.where chose, or use a mask"
            )
        fresh = [a for a in s.b.ops[number].args if a not in seen]
        seen.update(fresh)
        todo += fresh
    return None


def _is_extreme(s: Site, x: Operand, largest: Operand) -> tuple[Value, Value] | None:
    """The bit x != largest, where that is the maximum (or minimum) of x and another: one comparison; and the bit that
    the maximum was chosen by, 1 where it is x.  This is what the gradient of jnp.maximum asks.
    """
    for what in ("max", "min"):
        pair = s.noted(largest, what)
        if pair is None:
            continue
        first, second = s.both(*pair)
        larger = less(s, second, first)
        won = larger if what == "max" else s.b.emit("not", larger)
        for one, other, chosen in ((first, second, won), (second, first, s.b.emit("not", won))):
            if same(pair[0] if one is first else pair[1], x):
                return (less(s, one, other) if what == "max" else less(s, other, one)), chosen
    return None


def same(x: Operand, y: Operand) -> bool:
    """Are both the same value, or the same known numbers?"""
    if isinstance(x, Public) and isinstance(y, Public):
        if x.array is y.array or (x.scalar is not None and x.scalar == y.scalar):
            return True
        return x.over == y.over and np.array_equal(np.asarray(x.array), np.asarray(y.array))
    return isinstance(x, Value) and isinstance(y, Value) and x == y


# ---- boolean algebra -----------------------------------------------------------------------------------------------
@rule("and", "or", "xor")
def boolean(s: Site, x: Operand, y: Operand) -> Value:
    if s.kind != "b":
        low = rounding.low_bits(s, x, y) if s.name == "and" else None
        if low is None:
            s.refuse("bitwise operations on secret integers are not supported", "use sums, and % 2**k for the low bits")
        return low
    return s.b.emit(s.name, *s.both(x, y))


@rule("not")
def negation(s: Site, x: Value) -> Value:
    if s.kind != "b":  # -1 - x, as in two's complement
        return s.b.emit("sub", s.b.fill(-1, x, 0), x)
    return s.b.emit("not", x)


@rule("reduce_and", "reduce_or", "reduce_xor")
def reduce_boolean(s: Site, x: Value) -> Value:
    """A tree over the reduced axes, two halves at a time."""
    name = s.name.removeprefix("reduce_")
    for axis in sorted((int(a) for a in s.params["axes"]), reverse=True):
        while x.shape[axis] > 1:
            half = x.shape[axis] // 2
            rest = s.b.slice_axis(x, axis, 2 * half, x.shape[axis])
            x = s.b.emit(name, s.b.slice_axis(x, axis, 0, half), s.b.slice_axis(x, axis, half, 2 * half))
            x = s.b.emit("concat", x, rest, axis=axis) if rest.type.size else x
        x = s.b.reshape(x, x.shape[:axis] + x.shape[axis + 1 :])
    return x


# ---- choices -------------------------------------------------------------------------------------------------------
@rule("select_n")
def select_n(s: Site, which: Operand, *cases: Operand) -> Operand:
    """cases[which], elementwise."""
    cases = tuple(s.bounded(case) for case in cases)
    if isinstance(which, Public):
        return _known_choice(s, which, cases)
    if which.type.kind is not Kind.BIT:
        return _numbered_choice(s, which, cases)
    no, yes = cases
    if _is_nan(no) or _is_nan(yes):
        return no if _is_nan(no) and _is_nan(yes) else _number_or_nan(s, s.b.spread(which, s.shape), no, yes)
    if same(no, yes):
        return s.value(yes, s.shape)
    counted = lookup.counted_from_the_end(s, which, no, yes)
    bit = s.b.spread(which, s.shape)
    kept = s.noted(yes, "kept")
    if kept is not None and kept[0] == bit and isinstance(no, Public) and no.scalar == 0:
        masked: Value = kept[1]
        return masked
    if s.kind == "b":
        return _bit_choice(s, bit, *s.both(yes, no))
    pair = tuple(c.scalar if isinstance(c, Public) else None for c in (yes, no))
    if pair[0] is not None and pair[1] is not None:
        return arithmetic.choose(s, bit, pair[0], pair[1])
    found = s.b.where(bit, *s.both(yes, no))
    return found if counted is None else s.note(found, "counted", *counted)


def _is_nan(x: Operand) -> bool:
    number = x.scalar if isinstance(x, Public) and x.kind == "f" else None
    return number is not None and bool(np.isnan(number))


def _number_or_nan(s: Site, bit: Value, no: Operand, yes: Operand) -> Value:
    """The number, where a library marks with NaN what is off a function's domain; and a note for who asks for NaN."""
    number = s.b.lift(s.value(no if _is_nan(yes) else yes, s.shape))
    found = s.b.emit("scale", number, by=1, frac=0)  # a value of its own, which the note is about
    return s.note(found, "nan", bit if _is_nan(yes) else s.b.emit("not", bit))


def _numbered_choice(s: Site, which: Value, cases: tuple[Operand, ...]) -> Value:
    """cases[which] for a secret integer, which is in range: it becomes a vector of bits, and each keeps its case."""
    bits = one_hot(s.b, s.b.spread(which, s.shape), len(cases), inside=True)
    total: Value | None = None
    for i, case in enumerate(cases):
        bit, v = s.b.reshape(s.b.slice_axis(bits, 0, i, i + 1), s.shape), s.value(case, s.shape)
        part = s.b.emit("and", bit, v) if s.kind == "b" else s.b.keep(bit, v, 1)
        total = part if total is None else s.b.emit("xor", total, part) if s.kind == "b" else s.b.add(total, part)
    assert total is not None
    return total


def _bit_choice(s: Site, bit: Value, yes: Value, no: Value) -> Value:
    if yes.public and no.public:
        return s.b.emit("xor", s.b.emit("and", bit, yes), s.b.emit("and", s.b.emit("not", bit), no))
    return s.b.emit("xor", no, s.b.emit("and", bit, s.b.emit("xor", yes, no)))


def _known_choice(s: Site, which: Public, cases: tuple[Operand, ...]) -> Operand:
    number = which.scalar
    if number is not None:
        case = cases[int(number)]
        return case if isinstance(case, Public) else s.value(case, s.shape)
    index = np.asarray(which.array).astype(np.int64)
    total: Value | None = None
    for i, case in enumerate(cases):
        if isinstance(case, Public) and case.scalar == 0:
            continue
        mask = s.value(Public((index == i).astype(np.int64), which.over, "i"), s.shape)
        part = s.b.emit("and" if s.kind == "b" else "mul", s.value(case, s.shape), mask)
        total = part if total is None else s.b.emit("xor" if s.kind == "b" else "add", total, part)
    assert total is not None
    return total


# ---- conversions ---------------------------------------------------------------------------------------------------
@rule("convert_element_type")
def convert(s: Site, x: Value) -> Value:
    source = "b" if x.type.kind is Kind.BIT else "f" if x.frac else "i"
    if source == s.kind:
        return x
    if source == "b":
        return arithmetic.choose(s, x, 1.0, 0.0)
    if s.kind == "b":
        return s.b.emit("or", less(s, x, 0.0), less(s, 0.0, x))
    if np.dtype(s.params["new_dtype"]).kind == "c":
        s.refuse("there are no complex numbers on secret values", "keep real and imaginary part as two arrays")
    if source == "f":
        return rounding.to_integer(s, x)
    return s.b.align(x, s.b.frac)


__all__ = ["boolean", "convert", "equal", "less", "negation", "order", "reduce_boolean", "select_n"]
