"""Whole parts, remainders and shifts: see `lower.rounding`."""

from __future__ import annotations

from coordinator.lower import rounding
from coordinator.lower.builder import Value
from coordinator.lower.ranges import note
from coordinator.lower.rules.registry import Operand, Public, Site, rule


def _raw(s: Site, x: Value) -> Value:
    """The ring elements of x, as whole numbers."""
    return s.b.shift(x, x.frac)


def _whole(s: Site, found: Value, frac: int) -> Value:
    """A whole number as the float that it is."""
    return s.b.align(found, frac)


@rule("floor")
def floor(s: Site, x: Value) -> Value:
    return _whole(s, rounding.floor_shift(s.b, _raw(s, x), x.frac), x.frac)


@rule("ceil")
def ceil(s: Site, x: Value) -> Value:
    return s.b.emit("neg", floor(s, s.b.emit("neg", x)))


@rule("round")
def round_(s: Site, x: Value) -> Value:
    to_even = "EVEN" in str(getattr(s.params["rounding_method"], "name", s.params["rounding_method"]))
    function = rounding.to_even_shift if to_even else rounding.away_shift
    return _whole(s, function(s.b, _raw(s, x), x.frac), x.frac)


def to_integer(s: Site, x: Value) -> Value:
    """A float as an integer: towards zero, as jax converts it."""
    return rounding.to_zero_shift(s.b, _raw(s, x), x.frac)


# ---- quotients and remainders by a known number ----------------------------------------------------------------------
def _divisor(s: Site, y: Operand, frac: int) -> int:
    """The known number y, as a ring element with `frac` fraction bits; refused if that is not exact."""
    number = y.scalar if isinstance(y, Public) else None
    if number is None:
        s.refuse("wants one known number to divide by", "convert to float32, and divide")
    raw = number * 2.0**frac
    if raw == 0 or raw != int(raw) or abs(raw) >= 2**31:
        s.refuse(f"does not divide by {number}", "divide by a number that is held exactly, such as 1 or 0.25")
    return int(raw)


def quotient(s: Site, x: Value, y: Operand) -> Value:
    """x / y of integers, towards zero."""
    c = _divisor(s, y, 0)
    found = rounding.to_zero_quotient(s.b, x, abs(c))
    return s.b.emit("neg", found) if c < 0 else found


@rule("rem")
def rem(s: Site, x: Operand, y: Operand) -> Value:
    """x - y·(x / y towards zero), with the sign of x."""
    v = s.value(x, s.shape)
    c = abs(_divisor(s, y, v.frac))
    raw = _raw(s, v)
    found = s.b.emit("sub", raw, s.b.emit("scale", _whole_times(s, raw, c), by=c, frac=0))
    return s.b.shift(note(s.b, found, 1 - c, c - 1), -v.frac)


def _whole_times(s: Site, x: Value, c: int) -> Value:
    """x / c towards zero, of whole numbers: by the largest power of two in c, and then by what is left, for which the
    first quotient must be below 2^31.
    """
    power = (c & -c).bit_length() - 1
    found = rounding.to_zero_shift(s.b, x, power)
    return found if c >> power == 1 else rounding.to_zero_quotient(s.b, found, c >> power)


def _places(s: Site, y: Operand) -> int:
    number = y.scalar if isinstance(y, Public) else None
    if number is None or not 0 <= number < 62:
        s.refuse("shifts by one known number of 0 to 61 bits")
    return int(number)


@rule("shift_left")
def shift_left(s: Site, x: Operand, y: Operand) -> Value:
    return s.b.emit("scale", s.value(x, s.shape), by=1 << _places(s, y), frac=0)


@rule("shift_right_arithmetic")
def shift_right(s: Site, x: Operand, y: Operand) -> Value:
    return rounding.floor_shift(s.b, s.value(x, s.shape), _places(s, y))


def low_bits(s: Site, x: Operand, y: Operand) -> Value | None:
    """x & (2^k - 1) of integers, the remainder by 2^k; None for another mask."""
    for one, other in ((x, y), (y, x)):
        mask = one.scalar if isinstance(one, Public) else None
        if mask is not None and mask >= 0 and int(mask) & (int(mask) + 1) == 0 and isinstance(other, Value):
            v, k = s.value(other, s.shape), int(mask).bit_length()
            high = s.b.emit("scale", rounding.floor_shift(s.b, v, k), by=1 << k, frac=0)
            return note(s.b, s.b.emit("sub", v, high), 0, int(mask))
    return None


__all__ = ["low_bits", "quotient", "to_integer"]
