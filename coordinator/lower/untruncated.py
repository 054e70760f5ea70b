"""Values as they are before the truncations on the way to them: what only asks for an order need not wait for these."""

from __future__ import annotations

import math

import numpy as np

from coordinator.lower.builder import LONGEST, Builder, Value
from coordinator.lower.ranges import note, range_of
from mpcnode.graph import Op
from mpcnode.ring import LIMIT_BITS

MARGIN = 8  # fraction bits above those of a product
SLACK = 1 + 2.0**-8  # ranges hold up to rounding and stated errors
MOVES = ("reshape", "transpose", "slice", "rev", "take", "dynamic_slice", "broadcast")


def most_frac(b: Builder, op: Op) -> int:
    """Fraction bits that what op makes may have before it is truncated: numbers keep their room below 2^62."""
    return op.most or min(2 * b.frac + MARGIN, LONGEST)


def total(b: Builder, x: Value, axes: tuple[int, ...]) -> Value:
    """The sum over axes.  Of truncated numbers whose range leaves room, the sum is truncated instead: whoever asks
    for its sign need not wait for that.
    """
    found, moves, number = b.emit("sum", x, axes=axes), list[Op](), x.number
    while b.ops[number].name in ("reshape", "transpose"):
        moves.append(b.ops[number])
        number = b.ops[number].args[0]
    op, known = b.ops[number], range_of(b, x)
    most = max(map(abs, known)) * (x.type.size // max(1, found.type.size)) * SLACK
    if op.name != "trunc" or b.most or most == math.inf:
        return found
    if most * 2.0 ** (x.frac + op.integer("by")) >= 2.0**LIMIT_BITS:
        return found
    y = Value(op.args[0], b.ops[op.args[0]].type)
    for move in reversed(moves):
        y = b.again(move, y)
    later = b.emit("trunc", b.emit("sum", y, axes=axes), by=op.integer("by"))
    return note(b, later, *range_of(b, found))


def argument(b: Builder, x: Value, i: int = 0) -> Value:
    """An argument of the op that makes x."""
    number = b.op(x).args[i]
    return Value(number, b.ops[number].type)


def finer(b: Builder, x: Value, bits: int) -> Value | None:
    """x with more fraction bits, exactly; None where a constant would not fit."""
    if bits == 0:
        return x
    if (largest_constant(b, x) or 0) >= 2.0 ** (61 - bits):
        return None
    if b.op(x).name == "broadcast":
        return b.again(b.op(x), b.emit("scale", argument(b, x), by=1 << bits, frac=bits))
    return b.emit("scale", x, by=1 << bits, frac=bits)


def largest_constant(b: Builder, x: Value) -> float | None:
    """The largest ring element of a constant, also one that was scaled or spread just now; None: it is none."""
    op, times = b.op(x), 1
    while op.name in ("broadcast", "reshape", "scale"):
        times *= abs(op.integer("by", 1))
        op = b.ops[op.args[0]]
    return times * float(np.abs(op.value.astype(np.float64)).max(initial=0)) if op.name == "const" else None


def untruncated(b: Builder, x: Value, deep: int) -> tuple[Value, int] | None:
    """x·2^bits as it is before the truncations on the way to it, and bits; None if there are none.  It may be
    up to 3/2·2^62 in absolute value, which is enough for a sign, and for nothing else: constants stay below 2^61.
    """
    op = b.op(x)
    if op.name == "trunc":  # what is truncated is below 2^62
        return argument(b, x), op.integer("by")
    if not deep or x.public:
        return None
    if op.name in ("add", "sub"):
        terms = [argument(b, x, 0), argument(b, x, 1)]
        found = [untruncated(b, t, deep - 1) or (t, 0) for t in terms]
        bits, against = max(n for _, n in found), any(largest_constant(b, t) is not None for t in terms)
        if not bits or (x.frac + bits > most_frac(b, op) and not against):
            return None
        left, right = (finer(b, t, bits - n) for t, n in found)
        return None if left is None or right is None else (b.emit(op.name, left, right), bits)
    if op.name == "neg" or op.name in MOVES:
        inner = untruncated(b, argument(b, x), deep - 1)
        if inner is None:
            return None
        rest = [argument(b, x, i) for i in range(1, len(op.args))]
        return b.again(op, inner[0], *rest), inner[1]
    return None
