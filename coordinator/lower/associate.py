"""Products of three factors: the one that is there last is multiplied last.

(t·a)·c, where the quotient or product t·a was truncated, is written as t·(a·c) if t comes later than a and c: their
product is there by then.  In the gradient of a softmax t is 1 / Σ exp, a the sum of labels, c an exponential.

It is written so only where ranges prove that it is no worse than what was asked for.  Let a, t, c have A, T, C fraction
bits, |c| <= high(c), and low(t) <= t <= high(t).
- Rounding: a·c is truncated to P bits, which t multiplies: 2^-P·high(t) is no more than a unit in the last place (and
  SLACK), where t·a, truncated, brought in high(c) units.
- Overflow: t·a was below 2^(62 - A - T), so a is below that over low(t), and a·c below 2^(62 - A' - C) if
  high(c) / low(t) <= 2^(A + T - A' - C), where A' < A if a was only scaled up.
- And t·a·c is below 2^(62 - T - P) if high(c) <= 2^(A - P).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

from coordinator.lower.builder import Builder, Value
from coordinator.lower.order import ROUND_BYTES
from coordinator.lower.ranges import range_of
from coordinator.lower.rewrite import rounds
from mpcnode.graph import Op

SLACK = 1 + 2.0**-8  # ranges hold up to rounding and stated errors
EXTRA_BYTES = 36  # dealt and opened an element of a·c

_depths: WeakKeyDictionary[Builder, list[int]] = WeakKeyDictionary()


def mul(b: Builder, x: Value, y: Value) -> Value:
    """x·y, truncated to the Builder's fraction bits."""
    for product, c in ((x, y), (y, x)):
        found = _late_factor_last(b, product, c)
        if found is not None:
            return found
    return b.mul(x, y)


def _late_factor_last(b: Builder, x: Value, c: Value) -> Value | None:
    """x·c for a product x = t·a, as t·(a·c); None where that is no gain, or not proved to be as good."""
    if b.most or x.public or c.public:
        return None
    number, moves = x.number, list[Op]()
    while _only_moves(b, b.ops[number]):
        moves.append(b.ops[number])
        number = b.ops[number].args[0]
    trunc = b.ops[number]
    product = b.ops[trunc.args[0]] if trunc.name == "trunc" else trunc
    if trunc.name != "trunc" or product.name != "mul" or trunc.type.frac > b.frac:
        return None
    factors = [Value(i, b.ops[i].type) for i in product.args]
    if any(f.public for f in factors):
        return None

    def moved(v: Value) -> Value:
        for op in reversed(moves):
            v = b.again(op, v)
        return v

    for t, a in (factors, factors[::-1]):
        bits = _bits(b, t, a, c)
        if bits is not None and _pays(b, t, a, c):
            early = b.mul(moved(_unscaled(b, a)), c, bits)
            return b.mul(moved(t), early)
    return None


def _only_moves(b: Builder, op: Op) -> bool:
    if op.name == "sum":
        return all(b.ops[op.args[0]].type.shape[axis] == 1 for axis in op.integers("axes"))
    return op.name in ("reshape", "transpose", "broadcast")


def _unscaled(b: Builder, a: Value) -> Value:
    """a before it was given more fraction bits, exactly."""
    op = b.op(a)
    if op.name == "scale" and op.integer("frac") > 0 and op.integer("by") == 1 << op.integer("frac"):
        return Value(op.args[0], b.ops[op.args[0]].type)
    return a


def _bits(b: Builder, t: Value, a: Value, c: Value) -> int | None:
    """The fraction bits P of a·c; None where ranges prove too little."""
    low, high = range_of(b, t)
    most = max(map(abs, range_of(b, c))) * SLACK
    if low <= 0 or math.inf in (high, most):
        return None
    bits = b.frac + max(0, math.ceil(math.log2(high / SLACK)))
    plain = _unscaled(b, a).frac
    room = a.frac + t.frac - plain - c.frac
    if plain + c.frac < bits or most * SLACK / low > 2.0**room or most > 2.0 ** (a.frac - bits):
        return None
    return bits


def _pays(b: Builder, t: Value, a: Value, c: Value) -> bool:
    """Whether rounds are saved that are worth a product and a truncation of c's size; both take a round."""
    at: Callable[[Value], int] = lambda v: _depth(b, v)  # noqa: E731
    saved = max(max(at(t), at(a)) + 2, at(c)) - max(max(at(a), at(c)) + 2, at(t))
    return saved > 0 and EXTRA_BYTES * c.type.size <= saved * ROUND_BYTES


def _depth(b: Builder, value: Value) -> int:
    """Rounds on the longest chain to a value."""
    depths = _depths.setdefault(b, [])
    for op in b.ops[len(depths) :]:
        before = max((depths[a] for a in op.args), default=0)
        depths.append(before + rounds(op, [b.ops[a] for a in op.args]))
    return depths[value.number]
