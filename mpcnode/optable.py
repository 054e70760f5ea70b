"""Every op that there is: its arguments, its attributes, and the type that follows from them.

A rule sees the ops of the arguments and the op itself, from a graph that there is no reason to trust; what it needs of
them it asks for with `need`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from mpcnode.graph import MAX_AND, MAX_CUTS, MAX_ELEMENTS, MAX_ONEHOT, TOP, Graph, GraphError, Kind, Op, Type
from mpcnode.kernels.reference import MOST_TIMES
from mpcnode.window import Window

PUBLIC, ARITH, BIT = Kind.PUBLIC, Kind.ARITH, Kind.BIT
Rule: TypeAlias = Callable[[Sequence[Op], Op], Type]


def need(holds: bool, why: str) -> None:
    """Raise GraphError unless it holds."""
    if not holds:
        raise GraphError(why)


def _join(*types: Type) -> Kind:
    """The kind of a linear combination: secret as soon as one term is."""
    kinds = {t.kind for t in types}
    need(not {ARITH, BIT} <= kinds, "an arith and a bit value do not mix: inject the bit first")
    return ARITH if ARITH in kinds else BIT if BIT in kinds else PUBLIC


def _same_shape(a: Type, b: Type) -> tuple[int, ...]:
    need(a.shape == b.shape, f"shapes {list(a.shape)} and {list(b.shape)} differ")
    return a.shape


def _ring(*types: Type) -> Kind:
    kind = _join(*types)
    need(kind is not BIT, "a bit is no ring element: inject it first")
    return kind


def _declared(args: Sequence[Op], op: Op) -> Type:
    need(op.type.kind in (PUBLIC, ARITH, BIT), "wants a declared type")
    return op.type


def _input(args: Sequence[Op], op: Op) -> Type:
    need(op.type.kind is ARITH, "an input is arith")
    need(len(op.type.shape) == 2 and op.type.shape[1] == len(op.texts("columns")), "an input is [rows, columns]")
    return op.type


def _joined(args: Sequence[Op], op: Op) -> Type:
    """Inputs side by side: their owners make sure that row i of each has the same key (matching.py)."""
    need(all(a.name == "input" for a in args), "joins inputs only")
    need(len({(a.type.frac, a.type.shape[0]) for a in args}) == 1, "joins inputs of different rows or binary points")
    sources = [(a.text("owner"), a.text("dataset")) for a in args]
    need(len(set(sources)) == len(sources) > 1, "joins two and more datasets, each once")
    return args[0].type._replace(shape=(args[0].type.shape[0], sum(a.type.shape[1] for a in args)))


def _const(args: Sequence[Op], op: Op) -> Type:
    need(op.value.dtype == np.int64, "a constant is int64")
    return Type(PUBLIC, op.type.frac, op.value.shape)


def _lift(args: Sequence[Op], op: Op) -> Type:
    """A public value as a shared one, so that it can be carried where secrets follow it: kind arith, or bit for zeros
    and ones.
    """
    t, kind = args[0].type, op.text("kind")
    need(t.kind is PUBLIC, "lifts public values only")
    need(kind == "arith" or (kind == "bit" and t.frac == 0), "kind must be arith, or bit for integers")
    return t._replace(kind=Kind(kind))


def _reveal(args: Sequence[Op], op: Op) -> Type:
    need(bool(op.texts("to")), "names no recipient")
    return args[0].type


def _store(args: Sequence[Op], op: Op) -> Type:
    """The shares are kept at the parties: as one array, at `path`, of the value `kept`.  `to`: who may learn what later
    jobs compute from it; `dtype`: what the array is to a program that loads it.
    """
    t = args[0].type
    need(t.kind in (ARITH, BIT), "keeps shared values only: lift a public one first")
    need(bool(op.text("kept")), "names no kept value")
    fits = {"float32": t.kind is ARITH, "int32": t.kind is ARITH and t.frac == 0, "bool": t.kind is BIT}
    need(fits.get(op.text("dtype"), False), f"keeps {t} as {op.text('dtype')!r}")
    need(op.integer("replace") in (0, 1), "replace must be 0 or 1")
    return t


def _load(args: Sequence[Op], op: Op) -> Type:
    """The kept shares of one array of a value, which `run` (JOB/ATTEMPT) made."""
    need(op.type.kind in (ARITH, BIT), "loads shared values only")
    need(bool(op.text("kept") and op.text("run")), "names no kept value and the run that made it")
    return op.type


def _reshape(args: Sequence[Op], op: Op) -> Type:
    t, shape = args[0].type, op.integers("shape")
    need(math.prod(shape) == t.size, f"{list(t.shape)} has not the elements of {list(shape)}")
    return t._replace(shape=shape)


def _transpose(args: Sequence[Op], op: Op) -> Type:
    t, perm = args[0].type, op.integers("perm")
    need(sorted(perm) == list(range(len(t.shape))), f"{list(perm)} permutes no {len(t.shape)} axes")
    return t._replace(shape=tuple(t.shape[p] for p in perm))


def _broadcast(args: Sequence[Op], op: Op) -> Type:
    """Axis i of the argument becomes axis dims[i] of `shape`; it has that length or 1."""
    t, shape, dims = args[0].type, op.integers("shape"), op.integers("dims")
    need(len(dims) == len(t.shape), "dims has not one entry an axis")
    need(
        list(dims) == sorted(set(dims)) and all(0 <= d < len(shape) for d in dims),
        f"dims {list(dims)} do not rise within the shape",
    )
    need(
        all(n in (1, shape[d]) for n, d in zip(t.shape, dims, strict=True)),
        f"{list(t.shape)} does not spread over {list(shape)}",
    )
    return t._replace(shape=shape)


def _slice(args: Sequence[Op], op: Op) -> Type:
    t, start, limit, stride = args[0].type, op.integers("start"), op.integers("limit"), op.integers("stride")
    need(len(start) == len(limit) == len(stride) == len(t.shape), "start, limit and stride have not one entry an axis")
    need(
        all(0 <= a <= b <= n and s > 0 for a, b, s, n in zip(start, limit, stride, t.shape, strict=True)),
        "slices outside the value",
    )
    return t._replace(shape=tuple(-(-(b - a) // s) for a, b, s in zip(start, limit, stride, strict=True)))


def _axes(t: Type, axes: tuple[int, ...]) -> tuple[int, ...]:
    need(
        list(axes) == sorted(set(axes)) and all(0 <= a < len(t.shape) for a in axes),
        f"axes {list(axes)} are not axes of {list(t.shape)}",
    )
    return axes


def _concat(args: Sequence[Op], op: Op) -> Type:
    t, axis = args[0].type, op.integer("axis")
    _axes(t, (axis,))
    for other in args[1:]:
        need((other.type.kind, other.type.frac) == (t.kind, t.frac), f"joins {t} and {other.type}")
        need(len(other.type.shape) == len(t.shape), f"joins {t} and {other.type}")
        need(
            all(a == b for i, (a, b) in enumerate(zip(t.shape, other.type.shape, strict=True)) if i != axis),
            f"joins {t} and {other.type}",
        )
    return t._replace(
        shape=tuple(sum(a.type.shape[i] for a in args) if i == axis else n for i, n in enumerate(t.shape))
    )


def _pad(args: Sequence[Op], op: Op) -> Type:
    """Zeros around the value."""
    t, low, high = args[0].type, op.integers("low"), op.integers("high")
    need(
        len(low) == len(high) == len(t.shape) and min((*low, *high), default=0) >= 0,
        "low and high have not one entry >= 0 an axis",
    )
    return t._replace(shape=tuple(a + n + b for a, n, b in zip(low, t.shape, high, strict=True)))


def _rev(args: Sequence[Op], op: Op) -> Type:
    _axes(args[0].type, op.integers("axes"))
    return args[0].type


def _index(t: Type, what: str) -> None:
    need(t.kind is PUBLIC and t.frac == 0, f"{what} must be public integers")


def _take(args: Sequence[Op], op: Op) -> Type:
    """Along `axis`, the entries whose numbers the second argument holds; numbers out of range are the engine's
    error.
    """
    t, index, axis = args[0].type, args[1].type, op.integer("axis")
    _axes(t, (axis,))
    _index(index, "indices")
    return t._replace(shape=t.shape[:axis] + index.shape + t.shape[axis + 1 :])


def _dynamic_slice(args: Sequence[Op], op: Op) -> Type:
    """The block of `sizes` whose corner the second argument holds, one number an axis, clamped so that the block
    fits.
    """
    t, corner, sizes = args[0].type, args[1].type, op.integers("sizes")
    _index(corner, "the corner")
    need(corner.shape == (len(t.shape),) and len(sizes) == len(t.shape), "wants one number an axis")
    need(all(0 <= s <= n for s, n in zip(sizes, t.shape, strict=True)), f"takes {list(sizes)} out of {list(t.shape)}")
    return t._replace(shape=sizes)


def _dynamic_update(args: Sequence[Op], op: Op) -> Type:
    """The first argument with a block replaced by the second, at the corner that the third holds, clamped so that it
    fits.
    """
    t, block, corner = args[0].type, args[1].type, args[2].type
    _index(corner, "the corner")
    need((t.kind, t.frac) == (block.kind, block.frac), f"puts {block} into {t}")
    need(corner.shape == (len(t.shape),) and len(block.shape) == len(t.shape), "wants one number an axis")
    need(all(s <= n for s, n in zip(block.shape, t.shape, strict=True)), f"puts {block} into {t}")
    return t


def _add(args: Sequence[Op], op: Op) -> Type:
    a, b = args[0].type, args[1].type
    need(a.frac == b.frac, f"binary points {a.frac} and {b.frac} differ: a truncation is missing")
    return Type(_ring(a, b), a.frac, _same_shape(a, b))


def _neg(args: Sequence[Op], op: Op) -> Type:
    _ring(args[0].type)
    return args[0].type


def _sum(args: Sequence[Op], op: Op) -> Type:
    t = args[0].type
    _ring(t)
    return _summed(t, op.integers("axes"))


def _summed(t: Type, axes: tuple[int, ...]) -> Type:
    _axes(t, axes)
    return t._replace(shape=tuple(n for i, n in enumerate(t.shape) if i not in axes))


def _scale(args: Sequence[Op], op: Op) -> Type:
    """The ring element times the integer `by`, read with `frac` more fraction bits: the number times by·2^-frac,
    exactly.
    """
    t = args[0].type
    _ring(t)
    return t._replace(frac=t.frac + op.integer("frac"))


def _mul(args: Sequence[Op], op: Op) -> Type:
    """The elementwise product; with `by`, of the first argument truncated by so many bits, and both are shared."""
    a, b = args[0].type, args[1].type
    if "by" in op.attrs:
        need(b.kind is ARITH, "truncates on the way to a product of arith values only")
        a = _trunc(args, op)
    return Type(_ring(a, b), a.frac + b.frac, _same_shape(a, b))


def _square(args: Sequence[Op], op: Op) -> Type:
    """The square of the argument truncated by `by` bits."""
    t = _trunc(args, op)
    return t._replace(frac=2 * t.frac)


def _dot(args: Sequence[Op], op: Op) -> Type:
    """[..., m, k] times [..., k, n], equal leading axes; with `twice`, 2·x·y read with one more fraction bit."""
    a, b = args[0].type, args[1].type
    need(
        len(a.shape) == len(b.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2],
        f"{a} and {b} do not multiply",
    )
    return Type(_ring(a, b), a.frac + b.frac + _twice(op), (*a.shape[:-1], b.shape[-1]))


def _twice(op: Op) -> int:
    """1 if the product is doubled, which leaves the number the same."""
    doubled = op.integer("twice", 0)
    need(doubled in (0, 1), "twice must be 0 or 1")
    return doubled


def window_of(op: Op) -> Window:
    """How a `conv`'s window moves."""
    return Window(*(op.integers(field) for field in Window._fields))


def _conv(args: Sequence[Op], op: Op) -> Type:
    """[groups, images, *space, channels] with [groups, *window, channels, outputs]: at every place of the window the
    sum of products, [groups, images, *places, outputs].  Zeros around and between elements belong to the op, so that
    nobody has to multiply them.
    """
    a, b, window = args[0].type, args[1].type, window_of(op)
    rank = len(a.shape) - 3
    need(
        rank >= 1 and len(b.shape) == rank + 3 and a.shape[0] == b.shape[0] and a.shape[-1] == b.shape[-2],
        f"{a} and {b} are no images and window",
    )
    space, sizes = a.shape[2:-1], b.shape[1:-2]
    need(all(len(entries) == rank for entries in window), "its window has not one entry an axis")
    steps = (*window.stride, *window.base_dilation, *window.window_dilation, *sizes)
    need(min(steps) >= 1, "strides, dilations and lengths of the window are at least 1")
    wide = (*a.shape[:2], *window.padded(space), a.shape[-1])
    need(max(*window.low, *window.high) <= MAX_ELEMENTS and math.prod(wide) <= MAX_ELEMENTS, "pads out of bounds")
    return Type(_ring(a, b), a.frac + b.frac + _twice(op), (*a.shape[:2], *window.places(space, sizes), b.shape[-1]))


def _trunc(args: Sequence[Op], op: Op) -> Type:
    """Divided by 2^by, rounded up or down at random without bias; the argument must be below 2^62 in absolute value."""
    t = args[0].type
    need(t.kind is ARITH, "truncates arith values only")
    need(1 <= op.integer("by") <= 62, "by must be 1 to 62")
    return t._replace(frac=t.frac - op.integer("by"))


def _rescale(args: Sequence[Op], op: Op) -> Type:
    """Times times/2^by, at most 1, with `frac` fraction bits of its own, and rounded as by a truncation."""
    t, by, times = args[0].type, op.integer("by"), op.integer("times")
    need(t.kind is ARITH, "rescales arith values only")
    need(1 <= by <= 62, "by must be 1 to 62")
    need(1 <= times <= min(MOST_TIMES, 1 << by), "times must be 1 to 2^by, and below 2^31")
    return t._replace(frac=t.frac + op.integer("frac") - by)


def _xor(args: Sequence[Op], op: Op) -> Type:
    a, b = args[0].type, args[1].type
    need(_join(a, b) is BIT and a.frac == b.frac == 0, "wants a bit, and a bit or public zeros and ones")
    return Type(BIT, 0, _same_shape(a, b))


def _and(args: Sequence[Op], op: Op) -> Type:
    """Of two bits, of which one may be public zeros and ones, or of three to MAX_AND shared ones."""
    need(2 <= len(args) <= MAX_AND, f"joins 2 to {MAX_AND} bits")
    if len(args) == 2:
        return _xor(args, op)
    need(all(a.type.kind is BIT for a in args), "joins more than two bits only if all are shared")
    for a in args:
        _same_shape(args[0].type, a.type)
    return args[0].type


def _not(args: Sequence[Op], op: Op) -> Type:
    need(args[0].type.kind is BIT, "wants a bit")
    return args[0].type


def _sign(args: Sequence[Op], op: Op) -> Type:
    """The bit x < 0, where the lowest `lo` bits of x may be passed over (right but within 2^lo of zero), and so may
    those above bit `top` (right for |x| < 2^top - 2^lo only: who writes it knows that range).  With `cuts`, which are
    ring elements, in front of the argument's axes a new one, whose entry k is the sign of x - cuts[k].
    """
    need(args[0].type.kind is ARITH, "wants an arith value")
    need(0 <= op.integer("lo") < op.integer("top", TOP) <= TOP, "wants 0 <= lo < top <= 63")
    if "cuts" not in op.attrs:
        return Type(BIT, 0, args[0].type.shape)
    cuts = op.integers("cuts")
    need(1 <= len(cuts) <= MAX_CUTS, f"compares with 1 to {MAX_CUTS} numbers")
    need(all(-(1 << 63) <= cut < 1 << 63 for cut in cuts), "compares with ring elements of 64 bits")
    return Type(BIT, 0, (len(cuts), *args[0].type.shape))


def _inject(args: Sequence[Op], op: Op) -> Type:
    """The bit as the ring element 0 or 1."""
    need(args[0].type.kind is BIT, "wants a bit")
    return Type(ARITH, 0, args[0].type.shape)


def _onehot(args: Sequence[Op], op: Op) -> Type:
    """In front of the argument's axes a new one of length `size`, whose entry j is the bit x = j mod 2^w, where 2^w is
    the least power of two that is not below `size`.
    """
    t, size = args[0].type, op.integer("size")
    need(t.kind is ARITH and t.frac == 0, "wants arith integers")
    need(1 <= size <= MAX_ONEHOT, f"size must be 1 to {MAX_ONEHOT}")
    return Type(BIT, 0, (size, *t.shape))


def _select(args: Sequence[Op], op: Op) -> Type:
    """The second argument where the bit equals `keep`, else 0; with `by`, truncated by so many bits; with `axes`,
    summed up over them.
    """
    bit, x = args[0].type, args[1].type
    need(bit.kind is BIT and x.kind is ARITH, "wants a bit and an arith value")
    need(op.integer("keep") in (0, 1), "keep must be 0 or 1")
    _same_shape(bit, x)
    kept = _trunc(args[1:], op) if "by" in op.attrs else x
    axes = op.integers("axes", ())
    need("axes" not in op.attrs or bool(axes), "sums up over no axis")
    return _summed(kept, axes)


def _loop(args: Sequence[Op], op: Op) -> Type:
    consts, carry, length = op.integer("consts"), op.integer("carry"), op.integer("length")
    need(length >= 1 and op.integer("reverse") in (0, 1), "wants a length >= 1 and reverse 0 or 1")
    need(
        consts >= 0 and carry >= 0 and consts + carry <= len(args), "has fewer arguments than consts and carried values"
    )
    types = [a.type for a in args]
    for t in types[consts + carry :]:
        need(t.shape[:1] == (length,), f"scans {t} in {length} steps")
    params = types[: consts + carry] + [t._replace(shape=t.shape[1:]) for t in types[consts + carry :]]
    body = op.body
    need(len(body.outputs) >= carry, "returns fewer values than it carries")
    for name in ("input", "reveal", "store", "load"):
        need(all(o.name != name for o in body.ops), f"{name} stands outside of loops only")
    found = [o for o in body.ops if o.name == "param"]
    need(
        [o.integer("index") for o in found] == list(range(len(params))),
        "the body has not one param an argument, in order",
    )
    for param, t in zip(found, params, strict=True):
        need(param.type == t, f"param {param.integer('index')} is {param.type}, its argument {t}")
    out = [body.ops[o].type for o in body.outputs]
    for o, t in zip(out, types[consts : consts + carry], strict=False):
        need(o == t, f"carries {t} in and {o} out")
    for t in out[carry:]:
        need(t.kind is not Kind.TUPLE, "a loop's results must be picked with get")
        need(length * t.size <= MAX_ELEMENTS, f"stacks {t} in {length} steps, which is out of bounds")
    return Type(Kind.TUPLE, 0, ())


def _get(args: Sequence[Op], op: Op) -> Type:
    loop, index = args[0], op.integer("index")
    need(loop.name == "loop", "picks a result of a loop")
    need(0 <= index < len(loop.body.outputs), f"picks result {index} of {len(loop.body.outputs)}")
    t = loop.body.ops[loop.body.outputs[index]].type
    return t if index < loop.integer("carry") else t._replace(shape=(loop.integer("length"), *t.shape))


class Row(NamedTuple):
    """What the op table knows of an op: how many arguments (None: one and more), its attributes, how its type
    follows, and attributes that may be left out.
    """

    arity: int | None
    attrs: Mapping[str, type]
    rule: Rule
    optional: Mapping[str, type] = {}


INTS, STRS = tuple, list  # markers of the table: a tuple of integers, a tuple of strings
OPS: dict[str, Row] = {
    # boundary
    "input": Row(0, {"owner": str, "dataset": str, "columns": STRS}, _input),
    "join": Row(None, {}, _joined),
    "const": Row(0, {"value": np.ndarray}, _const),
    "param": Row(0, {"index": int}, _declared),
    "lift": Row(1, {"kind": str}, _lift),
    "reveal": Row(1, {"to": STRS, "name": str}, _reveal),
    "store": Row(1, {"kept": str, "path": STRS, "dtype": str, "to": STRS, "replace": int}, _store),
    "load": Row(0, {"kept": str, "run": str, "path": STRS}, _load),
    # structure
    "reshape": Row(1, {"shape": INTS}, _reshape),
    "transpose": Row(1, {"perm": INTS}, _transpose),
    "broadcast": Row(1, {"shape": INTS, "dims": INTS}, _broadcast),
    "slice": Row(1, {"start": INTS, "limit": INTS, "stride": INTS}, _slice),
    "concat": Row(None, {"axis": int}, _concat),
    "pad": Row(1, {"low": INTS, "high": INTS}, _pad),
    "rev": Row(1, {"axes": INTS}, _rev),
    "take": Row(2, {"axis": int}, _take),
    "dynamic_slice": Row(2, {"sizes": INTS}, _dynamic_slice),
    "dynamic_update": Row(3, {}, _dynamic_update),
    # linear
    "add": Row(2, {}, _add),
    "sub": Row(2, {}, _add),
    "neg": Row(1, {}, _neg),
    "sum": Row(1, {"axes": INTS}, _sum),
    "scale": Row(1, {"by": int, "frac": int}, _scale),
    # bilinear
    "mul": Row(2, {}, _mul, {"by": int}),
    "square": Row(1, {"by": int}, _square),
    "dot": Row(2, {}, _dot, {"twice": int}),
    "conv": Row(2, dict.fromkeys(Window._fields, INTS), _conv, {"twice": int}),
    "trunc": Row(1, {"by": int}, _trunc),
    "rescale": Row(1, {"by": int, "times": int, "frac": int}, _rescale),
    # bits
    "xor": Row(2, {}, _xor),
    "and": Row(None, {}, _and),
    "or": Row(2, {}, _xor),
    "not": Row(1, {}, _not),
    "sign": Row(1, {"lo": int}, _sign, {"top": int, "cuts": INTS}),
    "onehot": Row(1, {"size": int}, _onehot),
    "inject": Row(1, {}, _inject),
    "select": Row(2, {"keep": int}, _select, {"by": int, "axes": INTS}),
    # control
    "loop": Row(None, {"length": int, "reverse": int, "consts": int, "carry": int, "body": Graph}, _loop),
    "get": Row(1, {"index": int}, _get),
}
