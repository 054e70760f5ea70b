"""One kernel an op.  Local ops are functions on arrays; interactive ones are coroutines of the protocol.

What an op's attributes say is worked out once for a plan: each function here makes the kernel of one op, which is
called with where it runs and the values of the arguments, in every iteration.  A public value is a uint64 array of its
shape; a sharing has a leading axis of parts in front of it, and the same numpy line serves both with `lead` axes more
(0 or 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from mpcnode import kernels
from mpcnode.graph import TOP, Kind, Op
from mpcnode.kernels import memory
from mpcnode.optable import window_of
from mpcnode.party import Place
from mpcnode.protocols import Bilinear, Protocol
from mpcnode.rounds import Array, Kernel

Local: TypeAlias = Callable[..., Array]  # (protocol, place, *values of the arguments)
Interactive: TypeAlias = Callable[..., Kernel[Array]]  # the same; a coroutine
Ops: TypeAlias = Sequence[Op]  # those of the arguments, for their types


def _public(op: Op) -> bool:
    return op.type.kind is Kind.PUBLIC


def _lead(op: Op) -> int:
    return 0 if _public(op) else 1


# ---- structure -----------------------------------------------------------------------------------------------------
def constant(op: Op) -> Array:
    """The value of a `const`."""
    return np.asarray(op.value).view(np.uint64)


def _reshape(op: Op, defs: Ops) -> Local:
    shape = op.integers("shape")
    if _public(op):
        return lambda rules, p, x: x.reshape(shape)
    return lambda rules, p, x: x.reshape((len(x), *shape))


def _transpose(op: Op, defs: Ops) -> Local:
    lead = _lead(defs[0])
    axes = (*range(lead), *(a + lead for a in op.integers("perm")))
    return lambda rules, p, x: x.transpose(axes)


def _broadcast(op: Op, defs: Ops) -> Local:
    shape, public = op.integers("shape"), _public(op)
    inner = [1] * len(shape)
    for axis, d in enumerate(op.integers("dims")):
        inner[d] = defs[0].type.shape[axis]

    def kernel(rules: Protocol, p: Place, x: Array) -> Array:
        lead = () if public else x.shape[:1]
        return np.broadcast_to(x.reshape((*lead, *inner)), (*lead, *shape))

    return kernel


def _slice(op: Op, defs: Ops) -> Local:
    cuts = zip(op.integers("start"), op.integers("limit"), op.integers("stride"), strict=True)
    at = (slice(None),) * _lead(defs[0]) + tuple(slice(a, b, s) for a, b, s in cuts)
    return lambda rules, p, x: x[at]


def _concat(op: Op, defs: Ops) -> Local:
    axis = _lead(defs[0]) + op.integer("axis")
    return lambda rules, p, *parts: np.concatenate(parts, axis=axis)


def _joined(op: Op, defs: Ops) -> Local:
    axis = 1 + _lead(defs[0])
    return lambda rules, p, *parts: np.concatenate(parts, axis=axis)


def _pad(op: Op, defs: Ops) -> Local:
    ends = list(zip(op.integers("low"), op.integers("high"), strict=True))
    widths = [(0, 0)] * _lead(defs[0]) + ends
    return lambda rules, p, x: np.pad(x, widths) if widths else x


def _rev(op: Op, defs: Ops) -> Local:
    lead = _lead(defs[0])
    axes = tuple(a + lead for a in op.integers("axes"))
    return lambda rules, p, x: np.flip(x, axes)


def _take(op: Op, defs: Ops) -> Local:
    axis = _lead(defs[0]) + op.integer("axis")
    return lambda rules, p, x, indices: memory.take(x, indices.view(np.int64), axis)


def _corner(op: Op, block: Sequence[int]) -> Callable[[Array], tuple[slice, ...]]:
    """Of a value of `op`: the block that starts at given indices, moved inside of its edges."""
    lead, ends = (slice(None),) * _lead(op), [n - b for n, b in zip(op.type.shape, block, strict=True)]

    def at(starts: Array) -> tuple[slice, ...]:
        inside = [min(max(int(s), 0), end) for s, end in zip(starts.view(np.int64).reshape(-1), ends, strict=True)]
        return lead + tuple(slice(s, s + b) for s, b in zip(inside, block, strict=True))

    return at


def _dynamic_slice(op: Op, defs: Ops) -> Local:
    corner = _corner(defs[0], op.integers("sizes"))
    return lambda rules, p, x, starts: x[corner(starts)]


def _dynamic_update(op: Op, defs: Ops) -> Local:
    corner = _corner(defs[0], defs[1].type.shape)

    def kernel(rules: Protocol, p: Place, x: Array, block: Array, starts: Array) -> Array:
        out = memory.copy(x)
        out[corner(starts)] = block
        return out

    return kernel


def _lift(op: Op, defs: Ops) -> Local:
    kind = op.type.kind

    def kernel(rules: Protocol, p: Place, x: Array) -> Array:
        public = (x & np.uint64(1)).astype(np.uint8) if kind is Kind.BIT else x
        nothing = memory.zeros((rules.parts(p, kind), *public.shape), public.dtype)
        return rules.add_public(p, nothing, public)

    return kernel


# ---- linear --------------------------------------------------------------------------------------------------------
def _add(op: Op, defs: Ops) -> Local:
    if _public(defs[0]) == _public(defs[1]):
        return lambda rules, p, x, y: np.add(x, y)
    if _public(defs[1]):
        return lambda rules, p, x, y: rules.add_public(p, x, y)
    return lambda rules, p, x, y: rules.add_public(p, y, x)


def _sub(op: Op, defs: Ops) -> Local:
    if _public(defs[0]) == _public(defs[1]):
        return lambda rules, p, x, y: np.subtract(x, y)
    if _public(defs[1]):
        return lambda rules, p, x, y: rules.add_public(p, x, np.negative(y))
    return lambda rules, p, x, y: rules.add_public(p, np.negative(y), x)


def _neg(op: Op, defs: Ops) -> Local:
    return lambda rules, p, x: np.negative(x)


def _sum(op: Op, defs: Ops) -> Local:
    lead = _lead(defs[0])
    axes = tuple(a + lead for a in op.integers("axes"))
    return lambda rules, p, x: np.add.reduce(x, axis=axes, dtype=np.uint64)


def _scale(op: Op, defs: Ops) -> Local:
    by = np.uint64(op.integer("by") % (1 << 64))
    return (lambda rules, p, x: x) if by == 1 else lambda rules, p, x: np.multiply(x, by)


def _public_mul(op: Op, defs: Ops) -> Local:
    return lambda rules, p, x, y: np.multiply(x, y)


def _bilinear(op: Op) -> Bilinear:
    """The map of a `dot` or `conv`."""
    times = 1 + op.integer("twice", 0)
    if op.name == "dot":
        return Bilinear(op.type.shape, -2, 512, times, kernels.matmul, kernels.matmul_add)
    window = window_of(op)
    return Bilinear(
        op.type.shape,
        1 - len(op.type.shape),
        1,
        times,
        lambda x, y: kernels.conv(x, y, window),
        lambda out, x, y, *, negate: kernels.conv_add(out, x, y, window, negate=negate),
    )


def _public_product(op: Op, defs: Ops) -> Local:
    """Of each part with what is public."""
    f, public = _bilinear(op), (_public(defs[0]), _public(defs[1]))

    def kernel(rules: Protocol, p: Place, x: Array, y: Array) -> Array:
        if f.times > 1:
            x = np.multiply(x, np.uint64(f.times))
        if all(public):
            return f.product(x, y)
        return np.stack([f.product(part, y) for part in x] if public[1] else [f.product(x, part) for part in y])

    return kernel


# ---- bits ----------------------------------------------------------------------------------------------------------
def _with_bits(defs: Ops, f: Callable[[Protocol, Place, Array, Array], Array]) -> Local:
    """f of a sharing of bits and of public bits, of two arguments in any order; whatever a graph says there, it counts
    mod 2.
    """

    def public(x: Array) -> Array:
        return (x & np.uint64(1)).astype(np.uint8)

    if _public(defs[1]):
        return lambda rules, p, x, y: f(rules, p, x, public(y))
    return lambda rules, p, x, y: f(rules, p, y, public(x))


def _xor(op: Op, defs: Ops) -> Local:
    if not any(map(_public, defs)):
        return lambda rules, p, x, y: np.bitwise_xor(x, y)
    return _with_bits(defs, lambda rules, p, b, d: rules.add_public(p, b, d))


def _public_and(op: Op, defs: Ops) -> Local:
    return _with_bits(defs, lambda rules, p, b, d: np.bitwise_and(b, d))


def _public_or(op: Op, defs: Ops) -> Local:
    return _with_bits(defs, lambda rules, p, b, d: rules.add_public(p, b & (d ^ np.uint8(1)), d))


def _not(op: Op, defs: Ops) -> Local:
    one = np.asarray(np.uint8(1))
    return lambda rules, p, x: rules.add_public(p, x, one)


# ---- interactive ---------------------------------------------------------------------------------------------------
def _mul(op: Op, defs: Ops) -> Interactive:
    by = op.integer("by", 0)
    return lambda rules, p, x, y: rules.mul(p, x, y, by)


def _square(op: Op, defs: Ops) -> Interactive:
    by = op.integer("by")
    return lambda rules, p, x: rules.square(p, x, by)


def _product(op: Op, defs: Ops) -> Interactive:
    f = _bilinear(op)
    return lambda rules, p, x, y: rules.bilinear(p, f, x, y)


def _and(op: Op, defs: Ops) -> Interactive:
    return lambda rules, p, *bits: rules.and_(p, *bits)


def _or(op: Op, defs: Ops) -> Interactive:
    async def kernel(rules: Protocol, p: Place, x: Array, y: Array) -> Array:
        return np.bitwise_xor(x ^ y, await rules.and_(p, x, y))

    return kernel


def _trunc(op: Op, defs: Ops) -> Interactive:
    by = op.integer("by")
    return lambda rules, p, x: rules.trunc(p, x, by)


def _rescale(op: Op, defs: Ops) -> Interactive:
    by, times = op.integer("by"), op.integer("times")
    return lambda rules, p, x: rules.trunc(p, x, by, times)


def _sign(op: Op, defs: Ops) -> Interactive:
    lo, top, cuts = op.integer("lo"), op.integer("top", TOP), op.integers("cuts", ())
    return lambda rules, p, x: rules.sign(p, x, lo, top, cuts)


def _onehot(op: Op, defs: Ops) -> Interactive:
    size = op.integer("size")
    return lambda rules, p, x: rules.onehot(p, x, size)


def _select(op: Op, defs: Ops) -> Interactive:
    keep, by, axes = op.integer("keep"), op.integer("by", 0), op.integers("axes", ())
    return lambda rules, p, b, x: rules.select(p, b, x, keep, by, axes)


def _inject(op: Op, defs: Ops) -> Interactive:
    return lambda rules, p, b: rules.inject(p, b)


def _get(op: Op, defs: Ops) -> Local:
    index = op.integer("index")

    def kernel(rules: Protocol, p: Place, results: Sequence[Array]) -> Array:
        return results[index]

    return kernel


LOCAL: dict[str, Callable[[Op, Ops], Local]] = {
    "join": _joined,
    "lift": _lift,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _broadcast,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "rev": _rev,
    "take": _take,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update": _dynamic_update,
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "sum": _sum,
    "scale": _scale,
    "xor": _xor,
    "not": _not,
    "get": _get,
}
INTERACTIVE: dict[str, Callable[[Op, Ops], Interactive]] = {
    "mul": _mul,
    "square": _square,
    "dot": _product,
    "conv": _product,
    "and": _and,
    "or": _or,
    "trunc": _trunc,
    "rescale": _rescale,
    "sign": _sign,
    "onehot": _onehot,
    "select": _select,
    "inject": _inject,
}
PUBLIC_FACTOR: dict[str, Callable[[Op, Ops], Local]] = {
    "mul": _public_mul,
    "dot": _public_product,
    "conv": _public_product,
    "and": _public_and,
    "or": _public_or,
}


def local(op: Op, defs: Ops) -> Local | None:
    """The op's kernel if it needs no peer: a product with a public factor needs none."""
    bind = PUBLIC_FACTOR.get(op.name) if any(map(_public, defs)) else None
    bind = bind or LOCAL.get(op.name)
    return None if bind is None else bind(op, defs)


def interactive(op: Op, defs: Ops) -> Interactive | None:
    """The op's kernel if it does need peers."""
    bind = INTERACTIVE.get(op.name)
    return None if bind is None else bind(op, defs)
