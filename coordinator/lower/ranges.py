"""What is known of values' ranges while a graph is written: exp of x - max(x) needs no positive half, and a denominator
that is a sum of exponentials no negative one.

Ranges hold up to rounding and the functions' stated errors, so who uses them must stay sane just outside.  Whoever
writes an approximation notes its range; sums and products in between are followed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from coordinator.lower.builder import Builder, Value
from mpcnode.graph import Kind, Op

DEPTH = 30  # ops that are followed back
ERROR = 2.0**-12  # of an approximated term of a sum


class Range(NamedTuple):
    low: float = -math.inf
    high: float = math.inf


ANY = Range()


class _Known(NamedTuple):
    ranges: dict[int, Range]
    maximum_of: dict[int, tuple[int, int]]  # a maximum -> the value and the axis that it was taken over
    peaked: dict[int, int]  # a value whose largest entry along an axis is 1 -> the axis


_notes: WeakKeyDictionary[Builder, _Known] = WeakKeyDictionary()


def _known(b: Builder) -> _Known:
    return _notes.setdefault(b, _Known({}, {}, {}))


def note(b: Builder, x: Value, low: float = -math.inf, high: float = math.inf) -> Value:
    """Remember that low <= x <= high, and so are the values that x is a mere rearrangement of; returns x."""
    ranges, number = _known(b).ranges, x.number
    ranges[number] = Range(low, high)
    while b.ops[number].name in ("reshape", "transpose", "broadcast"):
        number = b.ops[number].args[0]
        ranges[number] = Range(low, high)
    return x


def note_maximum(b: Builder, result: Value, x: Value, axis: int) -> Value:
    """Remember that `result` is the maximum of x over `axis`; returns it."""
    _known(b).maximum_of[result.number] = x.number, axis % len(x.shape)
    return note(b, result, *range_of(b, x))


def note_peaks(b: Builder, y: Value, x: Value) -> Value:
    """Remember that y = exp(x) is 1 at its largest along an axis, if x is a value less its maximum; returns y."""
    op = b.op(x)
    while op.name == "trunc":
        op = b.ops[op.args[0]]
    axis = _taken_maximum(b, op)
    if axis is not None:
        _known(b).peaked[y.number] = axis
    return y


def range_of(b: Builder, x: Value) -> Range:
    """Bounds of x, as far as they are known."""
    return _follow(b, x.number, DEPTH)


def _follow(b: Builder, number: int, depth: int) -> Range:
    known = _known(b).ranges
    if number in known:
        return known[number]
    op = b.ops[number]
    if depth == 0 or op.name not in RULES:  # not remembered: from a nearer value it may be found
        return ANY
    args = [_follow(b, a, depth - 1) if b.ops[a].type.kind is not Kind.BIT else Range(0, 1) for a in op.args]
    found = RULES[op.name](b, op, args)
    known[number] = ANY if any(math.isnan(v) for v in found) else found
    return known[number]


# ---- one rule an op --------------------------------------------------------------------------------------------------
Rule: TypeAlias = Callable[[Builder, Op, Sequence[Range]], Range]


def _same(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    return args[0]


def _const(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    if not op.value.size:
        return ANY
    unit = 2.0**-op.type.frac
    return Range(float(op.value.min()) * unit, float(op.value.max()) * unit)


def _inject(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    return Range(0, 1)


def _concat(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    return Range(min(a.low for a in args), max(a.high for a in args))


def _pad(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    return Range(min(0, args[0].low), max(0, args[0].high))


def _select(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    low, high = _pad(b, op, args[1:])
    side, terms = _side(b, op), b.ops[op.args[1]].type.size // max(1, op.type.size)
    return Range(0 if side > 0 else terms * low, 0 if side < 0 else terms * high)


def _add(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    return Range(args[0].low + args[1].low, args[0].high + args[1].high)


def _sub(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    x, y = args
    if _is_absolute(b, op):
        return Range(0, max(-x.low, x.high))
    return Range(x.low - y.high, x.high - y.low if _taken_maximum(b, op) is None else min(0, x.high))


def _neg(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    return Range(-args[0].high, -args[0].low)


def _sum(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    terms = b.ops[op.args[0]].type.size // max(1, op.type.size)
    if not terms:
        return Range(0, 0)
    peak = _known(b).peaked.get(op.args[0]) in op.integers("axes")
    return Range(max(terms * args[0].low, 1 - terms * ERROR if peak else -math.inf), terms * args[0].high)


def _scale(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    by = op.integer("by") * 2.0 ** -op.integer("frac")
    return _product(args[0], Range(by, by))


def _mul(b: Builder, op: Op, args: Sequence[Range]) -> Range:
    found = _product(*args)
    return Range(max(0, found.low), found.high) if op.args[0] == op.args[1] else found


def _product(x: Range, y: Range) -> Range:
    ends = [0.0 if 0 in (p, q) else p * q for p in x for q in y]
    return Range(min(ends), max(ends))


UNCHANGED = ("reshape", "transpose", "broadcast", "slice", "rev", "take", "dynamic_slice", "lift", "trunc")
RULES: Mapping[str, Rule] = dict.fromkeys(UNCHANGED, _same) | {
    "const": _const,
    "inject": _inject,
    "concat": _concat,
    "join": _concat,
    "pad": _pad,
    "select": _select,
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "sum": _sum,
    "scale": _scale,
    "mul": _mul,
}


# ---- idioms ----------------------------------------------------------------------------------------------------------
def _side(b: Builder, select: Op) -> int:
    """1 where x is kept if it is positive, -1 if negative; 0: neither."""
    sign, x, keep = b.ops[select.args[0]], select.args[1], select.integer("keep")
    if sign.name != "sign" or "cuts" in sign.attrs:
        return 0
    if sign.args[0] == x:
        return -1 if keep else 1
    asked = b.ops[sign.args[0]]
    return (1 if keep else -1) if asked.name == "neg" and asked.args[0] == x else 0


def _is_absolute(b: Builder, sub: Op) -> bool:
    """Whether a difference takes from x twice its negative part."""
    twice = b.ops[sub.args[1]]
    if twice.name != "scale" or (twice.integer("by"), twice.integer("frac")) != (2, 0):
        return False
    part = b.ops[twice.args[0]]
    return part.name == "select" and part.args[1] == sub.args[0] and _side(b, part) < 0


def _taken_maximum(b: Builder, sub: Op) -> int | None:
    """The axis, if this is a difference that takes from x its own maximum over an axis, spread back over that axis."""
    if sub.name != "sub":
        return None
    steps, number, maximum_of = [], sub.args[1], _known(b).maximum_of
    while number not in maximum_of and b.ops[number].name in ("reshape", "broadcast"):
        steps.append(b.ops[number])
        number = b.ops[number].args[0]
    x, axis = maximum_of.get(number, (-1, -1))
    if x != sub.args[0]:
        return None
    shape = b.ops[x].type.shape
    axes: Sequence[int | None] = [i for i in range(len(shape)) if i != axis]  # the axis of x that each axis is
    now = b.ops[number].type.shape
    for op in reversed(steps):
        moved = _moved(op, now, axes)
        if moved is None:
            return None
        axes, now = moved, op.type.shape
    same = (a == i or (a is None and i == axis) or n == 1 for i, (a, n) in enumerate(zip(axes, shape, strict=True)))
    return axis if all(same) else None


def _moved(op: Op, shape: tuple[int, ...], axes: Sequence[int | None]) -> list[int | None] | None:
    """Where the axes are after a broadcast, or after a reshape that only adds and drops axes of length 1; else None."""
    new: list[int | None] = [None] * len(op.type.shape)
    if op.name == "broadcast":
        for axis, length, d in zip(axes, shape, op.integers("dims"), strict=True):
            new[d] = axis if length == op.type.shape[d] else None
        return new
    kept = [(n, a) for n, a in zip(shape, axes, strict=True) if n != 1]
    places = [i for i, n in enumerate(op.type.shape) if n != 1]
    if [n for n, _ in kept] != [op.type.shape[i] for i in places]:
        return None
    for i, (_, axis) in zip(places, kept, strict=True):
        new[i] = axis
    return new
