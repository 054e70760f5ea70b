"""Late truncation: products are summed before they are truncated, and what only a sign is asked of is not truncated.

A truncation costs a round and 16 bytes an element, so it moves down, towards the results, where
- two of them become one (sums of products, a truncation of a truncation),
- it meets fewer elements (below a sum or a slice),
- nobody needs it (a sign takes the untruncated value and passes over its lowest bits).

No value gets more than 2·frac + 8 fraction bits on the way, or as many as a calibration has found room for, so that
numbers stay below 2^62.  A sum is taken before the truncation only if the other term is there by then: no chain of
rounds becomes longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.lower import simplify
from coordinator.lower.builder import LONGEST, Value
from coordinator.lower.refine import refine
from coordinator.lower.rewrite import Rewriter, Rule, until_still
from coordinator.lower.untruncated import MOVES, finer, most_frac, untruncated
from mpcnode.graph import TOP, Graph, Op
from mpcnode.ring import LIMIT_BITS


def late(graph: Graph, frac: int) -> Graph:
    """The graph with truncations as late as they are cheapest."""
    for step in (RULES, simplify.RULES):
        graph = until_still(graph, step, frac)
    graph = refine(graph, frac)
    for step in (simplify.RULES, RULES):
        graph = until_still(graph, step, frac)
    return graph


# ---- helpers -------------------------------------------------------------------------------------------------------
def truncated(r: Rewriter, x: Value) -> int:
    """How many bits the op that makes x truncates; 0 if it is no truncation."""
    op = r.op(x)
    return op.integer("by") if op.name == "trunc" else 0


def asked(r: Rewriter, through: tuple[str, ...] = ("add", "sub", "neg", "concat", *MOVES)) -> bool:
    """Is this op's value, perhaps after ops of these names, asked for its sign, truncated, or summed up with
    truncations?  Then it is better truncated later.
    """
    if through not in r.facts:
        r.facts[through] = _asked(r.old, through)
    found: list[bool] = r.facts[through]
    return found[r.here]


def _asked(graph: Graph, through: tuple[str, ...]) -> list[bool]:
    found = [False] * len(graph.ops)
    for i in reversed(range(len(graph.ops))):
        op = graph.ops[i]
        names = [graph.ops[a].name for a in op.args]
        for position, a in enumerate(op.args):
            joined = op.name in ("add", "sub") and names[1 - position] == "trunc"
            passed = found[i] and op.name in through
            found[a] = found[a] or op.name in ("sign", "trunc", "sum") or joined or passed
    return found


# ---- sums ----------------------------------------------------------------------------------------------------------
def sums(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """trunc(x) + trunc(y) -> trunc(x + y); trunc(x) + y -> trunc(x + y·2^by), if the truncation then goes on."""
    by = [truncated(r, a) if r.alone(i) else 0 for i, a in enumerate(args)]
    bits = max(by)
    if not bits or op.type.frac + bits > most_frac(r.b, op):
        return None
    inner = [r.arg(a) if b else a for a, b in zip(args, by, strict=True)]
    if not all(by):
        [ready] = (r.depth(x) for x, b in zip(inner, by, strict=True) if b)
        if not asked(r) or any(r.depth(x) > ready for x, b in zip(inner, by, strict=True) if not b):
            return None
    terms = [finer(r.b, x, bits - b) for x, b in zip(inner, by, strict=True)]
    if terms[0] is None or terms[1] is None:
        return None
    return r.b.emit("trunc", r.b.emit(op.name, terms[0], terms[1]), by=bits)


def sum_(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """sum(trunc(x)) -> trunc(sum(x)): fewer elements.  A sum of 2^k terms may be k bits longer, and needs room too."""
    by = truncated(r, args[0])
    grown = 0 if op.most else (args[0].type.size // max(1, op.type.size) - 1).bit_length()
    if not by or not r.alone() or op.type.frac + by + grown > most_frac(r.b, op):
        return None
    return r.b.emit("trunc", r.b.again(op, r.arg(args[0])), by=by)


# ---- moves ---------------------------------------------------------------------------------------------------------
def moves(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """move(trunc(x)) -> trunc(move(x)), where that leaves fewer elements, or as many to somebody who wants them so."""
    by = truncated(r, args[0])
    if not by or not r.alone() or op.type.size > args[0].type.size:
        return None
    if op.type.size == args[0].type.size and not (asked(r) or asked(r, ("scale", *MOVES))):
        return None
    return r.b.emit("trunc", r.b.again(op, r.arg(args[0]), *args[1:]), by=by)


def concat(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    by = {truncated(r, a) if r.alone(i) else 0 for i, a in enumerate(args)}
    if len(by) > 1 or 0 in by or not asked(r) or len({r.arg(a).frac for a in args}) > 1:
        return None
    return r.b.emit("trunc", r.b.again(op, *(r.arg(a) for a in args)), by=by.pop())


# ---- factors -------------------------------------------------------------------------------------------------------
def scale(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """trunc(x)·c: the powers of two in c are bits that need not be truncated."""
    by, frac, bits = op.integer("by"), op.integer("frac"), truncated(r, args[0])
    twos = (by & -by).bit_length() - 1
    if not bits or twos < 1 or not (r.alone() or twos >= bits):
        return None
    x, spared = r.arg(args[0]), min(twos, bits)
    if spared < bits:
        x = r.b.emit("trunc", x, by=bits - spared)
    by, frac = by >> spared, frac - spared
    return x if (by, frac) == (1, 0) else r.b.emit("scale", x, by=by, frac=frac)


def trunc(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """trunc(trunc(x)) -> trunc(x), also with a factor between the two that leaves room."""
    [x], by = args, op.integer("by")
    inner = r.op(x)
    factor: Op | None = None
    if inner.name == "scale":
        factor, x = inner, r.arg(x)
    bits = truncated(r, x)
    if not bits or by + bits > LONGEST:
        return None
    y = r.arg(x)
    if factor is None:
        return r.b.emit("trunc", y, by=by + bits)
    if y.frac + factor.integer("frac") > (op.most or LONGEST) or not (op.most or _has_room(r, y, factor)):
        return None
    y = r.b.emit("scale", y, by=factor.integer("by"), frac=factor.integer("frac"))
    return r.b.emit("trunc", y, by=by + bits)


def _has_room(r: Rewriter, y: Value, factor: Op) -> bool:
    """Does y times the factor stay as small as a product with MARGIN bits more?  What counts is the fraction bits of y
    as it was computed: dividing by a power of two only reads it differently.
    """
    op = r.op(y)
    while op.name == "reshape" or (op.name == "scale" and abs(op.integer("by")) == 1):
        y = Value(op.args[0], r.b.ops[op.args[0]].type)
        op = r.op(y)
    grown = (abs(factor.integer("by")) - 1).bit_length()
    return not grown or y.frac + grown <= most_frac(r.b, op)


# ---- signs ---------------------------------------------------------------------------------------------------------
def sign(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """The sign of the untruncated value, passing over the bits that the truncation would have taken off; but over none
    where `top` says that all bits count.
    """
    found = untruncated(r.b, args[0], 8)
    if found is None:
        return None
    x, bits = found
    if op.integer("top", 0) == TOP:
        return r.b.again(op, x)
    lo = op.integer("lo") + bits  # x may be up to 3/2·2^62
    return r.b.emit("sign", x, lo=lo) if lo < LONGEST else None


def narrow_sign(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """Where x has room for `room` fraction bits, |x| < 2^(62 - room): bits above need not be compared.  One is, so
    that the lowest may be passed over.
    """
    room, lo = op.most if "cuts" in op.attrs else r.op(args[0]).most, op.integer("lo")
    top = LIMIT_BITS - room + args[0].frac + 1
    if not room or not lo < top < TOP:
        return None
    return r.b.again(op._replace(attrs={**op.attrs, "top": top}), args[0])


def neg(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    by = truncated(r, args[0])
    if not by or not r.alone() or not asked(r):
        return None
    return r.b.emit("trunc", r.b.emit("neg", r.arg(args[0])), by=by)


RULES: dict[str, Rule] = {
    "add": sums, "sub": sums, "neg": neg, "sum": sum_, "concat": concat, "scale": scale, "trunc": trunc, "sign": sign,
    **dict.fromkeys(("reshape", "transpose", "slice", "rev", "take", "dynamic_slice"), moves),
}  # fmt: skip
