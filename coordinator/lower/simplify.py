"""Fewer and smaller ops that compute the same: constants folded, identities dropped, work done before it is spread.

Equal ops are merged by the Builder that writes the graph anew.  Nothing here changes a bit of a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.rewrite import Rewriter, Rule
from mpcnode.graph import Kind, Op

RULES: dict[str, Rule] = {}
ROOM_BITS = 40  # integer factors are joined below 2^40


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Add a rule for these ops; of several the first that has something to say is heard."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = _first(RULES[name], function) if name in RULES else function
        return function

    return register


def _first(one: Rule, other: Rule) -> Rule:
    def both(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
        found = one(r, op, args)
        return other(r, op, args) if found is None else found

    return both


# ---- constants -----------------------------------------------------------------------------------------------------
def _slices(op: Op) -> tuple[slice, ...]:
    cuts = zip(op.integers("start"), op.integers("limit"), op.integers("stride"), strict=True)
    return tuple(slice(a, b, s) for a, b, s in cuts)


FOLD: dict[str, Callable[..., Any]] = {
    "reshape": lambda op, x: x.reshape(op.integers("shape")),
    "transpose": lambda op, x: x.transpose(op.integers("perm")),
    "slice": lambda op, x: x[_slices(op)],
    "concat": lambda op, *xs: np.concatenate(xs, op.integer("axis")),
    "pad": lambda op, x: np.pad(x, list(zip(op.integers("low"), op.integers("high"), strict=True))),
    "rev": lambda op, x: np.flip(x, op.integers("axes")),
    "take": lambda op, x, i: np.take(x, i, op.integer("axis")),
    "add": lambda op, x, y: x + y,
    "sub": lambda op, x, y: x - y,
    "neg": lambda op, x: -x,
    "sum": lambda op, x: x.sum(op.integers("axes"), dtype=np.int64),
    "scale": lambda op, x: x * np.int64(op.integer("by")),
    "mul": lambda op, x, y: x * y,
}


@rule(*FOLD)
def fold(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """An op on constants is a constant (modulo 2^64, as the machine computes)."""
    if any(r.op(a).name != "const" for a in args):
        return None
    with np.errstate(over="ignore"):
        found = FOLD[op.name](op, *(r.op(a).value for a in args))
    return r.b.raw(np.asarray(found, np.int64, order="C"), op.type.frac)


# ---- what is spread is computed before -----------------------------------------------------------------------------
@rule("neg", "scale", "trunc", "sign", "inject", "not", "lift")
def before_broadcast(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """op(broadcast(x)) -> broadcast(op(x)): as many elements less."""
    spread = r.op(args[0])
    if spread.name != "broadcast":
        return None
    return r.b.again(spread, r.b.again(op, r.arg(args[0])))


@rule("add", "sub", "mul", "xor", "and", "or", "select")
def both_before_broadcast(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """op(broadcast(x), broadcast(y)) -> broadcast(op(x, y)) for x and y along the same axes, or a scalar y."""
    spreads = [r.op(a) for a in args]
    if len(args) != 2 or any(s.name != "broadcast" for s in spreads):
        return None
    inner = [r.arg(a) for a in args]
    wide = spreads[0] if inner[0].type.size >= inner[1].type.size else spreads[1]
    shape = inner[spreads.index(wide)].shape
    parts = []
    for x, spread in zip(inner, spreads, strict=True):
        if x.shape == shape and spread.integers("dims") == wide.integers("dims"):
            parts.append(x)
        elif x.shape == ():
            parts.append(r.b.spread(x, shape))
        else:
            return None
    return r.b.again(wide, r.b.again(op, *parts))


@rule("sum")
def sum_of_smaller(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """neg and scale after the sum; axes of length 1 by reshape; a sum of a sum at once."""
    [x], axes = args, op.integers("axes")
    inner = r.op(x)
    real = tuple(a for a in axes if x.shape[a] != 1)
    if real != axes:
        kept = tuple(n for a, n in enumerate(x.shape) if a in real or a not in axes)
        moved = tuple(
            i for i, a in enumerate(a for a in range(len(x.shape)) if a in real or a not in axes) if a in real
        )
        flat = r.b.reshape(x, kept)
        return r.b.emit("sum", flat, axes=moved) if moved else flat
    if inner.name in ("neg", "scale") and r.alone():
        return r.b.again(inner, r.b.emit("sum", r.arg(x), axes=axes))
    if inner.name == "sum":
        before = [a for a in range(len(r.arg(x).shape)) if a not in inner.integers("axes")]
        joined = tuple(sorted({*inner.integers("axes"), *(before[a] for a in axes)}))
        return r.b.emit("sum", r.arg(x), axes=joined)
    return None


# ---- identities ----------------------------------------------------------------------------------------------------
@rule("add", "sub")
def sums(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    x, y = args
    if r.b.zero(y):
        return x if x.type == op.type else r.b.lift(x)
    if r.b.zero(x):
        signed = y if op.name == "add" else r.b.emit("neg", y)
        return signed if y.type == op.type else r.b.lift(signed)
    if r.op(y).name == "neg":
        return r.b.emit("sub" if op.name == "add" else "add", x, r.arg(y))
    if op.name == "add" and r.op(x).name == "neg":
        return r.b.emit("sub", y, r.arg(x))
    return None


@rule("neg")
def negations(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    [x] = args
    inner = r.op(x)
    if inner.name == "neg":
        return r.arg(x)
    if inner.name == "sub" and r.alone():
        return r.b.emit("sub", r.arg(x, 1), r.arg(x, 0))
    if inner.name == "scale":
        return r.b.emit("scale", r.arg(x), by=-inner.integer("by"), frac=inner.integer("frac"))
    return None


@rule("scale")
def scales(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """By 1 nothing happens, by several factors their product; a negative number is a factor too."""
    [x], by, frac = args, op.integer("by"), op.integer("frac")
    inner = r.op(x)
    if (by, frac) == (1, 0):
        return x
    if (by, frac) == (-1, 0):
        return r.b.emit("neg", x)
    if inner.name == "neg":
        return r.b.emit("scale", r.arg(x), by=-by, frac=frac)
    if inner.name == "scale":
        joined, point = by * inner.integer("by"), frac + inner.integer("frac")
        if abs(joined) < 1 << ROOM_BITS:
            return r.b.emit("scale", r.arg(x), by=joined, frac=point)
    return None


@rule("mul", "dot", "conv", "select")
def nothing(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """A product with zeros is zeros."""
    if op.type.kind is not Kind.ARITH or not any(r.b.zero(a) for a in args if a.type.kind is not Kind.BIT):
        return None
    zero = r.b.raw(np.zeros((), np.int64), op.type.frac)
    return r.b.spread(r.b.lift(zero), op.type.shape)


@rule("mul")
def products(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """A product with the same constant everywhere is a scale."""
    for x, c in (args, args[::-1]):
        few = r.op(c)
        while few.name in ("broadcast", "reshape"):
            few = r.b.ops[few.args[0]]
        if few.name == "const" and few.value.size == 1 and not x.public:
            return r.b.emit("scale", x, by=int(few.value.reshape(-1)[0]), frac=few.type.frac)
    return None


@rule("not")
def double_negation(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    return r.arg(args[0]) if r.op(args[0]).name == "not" else None


@rule("select")
def selects(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """A negated bit selects what the bit does not; a bit of a bit as a number is a bit."""
    bit, x = args
    if r.op(bit).name == "not":
        return r.b.again(op._replace(attrs={**op.attrs, "keep": 1 - op.integer("keep")}), r.arg(bit), x)
    return None


# ---- structure -----------------------------------------------------------------------------------------------------
@rule("reshape")
def reshapes(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    [x] = args
    if x.shape == op.type.shape:
        return x
    inner = r.op(x)
    if inner.name == "reshape":
        return r.b.reshape(r.arg(x), op.type.shape)
    if inner.name == "broadcast":
        return _reshaped_broadcast(r, inner, r.arg(x), op.type.shape)
    return None


def _reshaped_broadcast(r: Rewriter, spread: Op, x: Value, shape: tuple[int, ...]) -> Value | None:
    """Axes of length 1 that come or go beside a broadcast are the broadcast's own."""
    old = spread.integers("shape")
    if [n for n in old if n != 1] != [n for n in shape if n != 1]:
        return None
    long = [d for d, n in enumerate(shape) if n != 1]
    place = dict(zip((d for d, n in enumerate(old) if n != 1), long, strict=True))
    kept = [(n, place[d]) for n, d in zip(x.shape, spread.integers("dims"), strict=True) if d in place]
    dims = tuple(d for _, d in kept)
    return r.b.emit("broadcast", r.b.reshape(x, tuple(n for n, _ in kept)), shape=shape, dims=dims)


@rule("broadcast")
def broadcasts(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """To the same shape nothing happens; two are one; axes of length 1 need not be there before."""
    [x], shape, dims = args, op.integers("shape"), op.integers("dims")
    if x.shape == shape:
        return x
    if x.type.size == math.prod(shape):
        return r.b.reshape(x, shape)
    inner = r.op(x)
    if inner.name == "broadcast":
        through = tuple(dims[d] for d in inner.integers("dims"))
        return r.b.emit("broadcast", r.arg(x), shape=shape, dims=through)
    long = [(n, d) for n, d in zip(x.shape, dims, strict=True) if n != 1]
    if len(long) < len(dims):
        flat = r.b.reshape(x, tuple(n for n, _ in long))
        return r.b.emit("broadcast", flat, shape=shape, dims=tuple(d for _, d in long))
    return None


@rule("transpose")
def transposes(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    [x], perm = args, op.integers("perm")
    if list(perm) == list(range(len(perm))):
        return x
    inner = r.op(x)
    if inner.name == "transpose":
        before = inner.integers("perm")
        return r.b.transpose(r.arg(x), tuple(before[p] for p in perm))
    long = [p for p in perm if x.shape[p] != 1]
    return r.b.reshape(x, op.type.shape) if long == sorted(long) else None


@rule("slice")
def slices(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """Of everything: nothing happens; of a slice: one slice."""
    [x] = args
    if x.shape == op.type.shape and all(s == 1 for s in op.integers("stride")):
        return x
    inner = r.op(x)
    if inner.name != "slice":
        return None
    start, limit, stride = [], [], []
    for cut, before in zip(_slices(op), _slices(inner), strict=True):
        start.append(before.start + cut.start * before.step)
        limit.append(
            min(before.stop, before.start + (cut.stop - 1) * before.step + 1) if cut.stop > cut.start else start[-1]
        )
        stride.append(before.step * cut.step)
    return r.b.emit("slice", r.arg(x), start=tuple(start), limit=tuple(limit), stride=tuple(stride))


@rule("concat", "pad")
def lone(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """One value joined, or padded with nothing."""
    return args[0] if args[0].shape == op.type.shape and args[0].type == op.type else None
