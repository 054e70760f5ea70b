"""One kernel an op.  Local ops are functions on arrays; interactive ones are coroutines of the protocol.

A public value is a uint64 array of its shape; a sharing has a leading axis of parts in front of it, and the same
numpy line serves both with `lead` axes more (0 or 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from mpcnode import kernels
from mpcnode.graph import TOP, Kind, Op
from mpcnode.optable import window_of
from mpcnode.party import Place
from mpcnode.protocols import Bilinear, Protocol
from mpcnode.rounds import Array, Kernel


class Call(NamedTuple):
    """One execution of an op: where it happens, its arguments' ops (for their types) and their values at this party."""

    protocol: Protocol
    p: Place
    op: Op
    defs: Sequence[Op]
    args: Sequence[Array]

    @property
    def lead(self) -> int:
        """Leading axes of the first argument."""
        return _lead(self.defs[0])

    def public(self, i: int) -> bool:
        return self.defs[i].type.kind is Kind.PUBLIC

    def numbers(self, i: int) -> list[int]:
        """A public argument as Python integers."""
        return [int(v) for v in self.args[i].view(np.int64).reshape(-1)]


def _lead(op: Op) -> int:
    return 0 if op.type.kind is Kind.PUBLIC else 1


Local: TypeAlias = Callable[[Call], Array]
Interactive: TypeAlias = Callable[[Call], Kernel[Array]]


# ---- structure -----------------------------------------------------------------------------------------------------
def constant(op: Op) -> Array:
    """The value of a `const`."""
    return np.asarray(op.value).view(np.uint64)


def _reshape(c: Call) -> Array:
    x = c.args[0]
    return x.reshape((*x.shape[: c.lead], *c.op.integers("shape")))


def _transpose(c: Call) -> Array:
    return c.args[0].transpose(*range(c.lead), *(a + c.lead for a in c.op.integers("perm")))


def _broadcast(c: Call) -> Array:
    x, shape, dims = c.args[0], c.op.integers("shape"), c.op.integers("dims")
    lead = x.shape[: c.lead]
    inner = [1] * len(shape)
    for axis, d in enumerate(dims):
        inner[d] = x.shape[c.lead + axis]
    return np.broadcast_to(x.reshape((*lead, *inner)), (*lead, *shape))


def _slice(c: Call) -> Array:
    cuts = zip(c.op.integers("start"), c.op.integers("limit"), c.op.integers("stride"), strict=True)
    return c.args[0][(slice(None),) * c.lead + tuple(slice(a, b, s) for a, b, s in cuts)]


def _concat(c: Call) -> Array:
    return np.concatenate(c.args, axis=c.lead + c.op.integer("axis"))


def _joined(c: Call) -> Array:
    return np.concatenate(c.args, axis=1 + c.lead)


def _pad(c: Call) -> Array:
    ends = list(zip(c.op.integers("low"), c.op.integers("high"), strict=True))
    widths = [(0, 0)] * c.lead + ends
    return np.pad(c.args[0], widths) if widths else c.args[0]


def _rev(c: Call) -> Array:
    return np.flip(c.args[0], tuple(a + c.lead for a in c.op.integers("axes")))


def _take(c: Call) -> Array:
    return np.take(c.args[0], c.args[1].view(np.int64), axis=c.lead + c.op.integer("axis"))


def _corner(c: Call, position: int, block: Sequence[int]) -> tuple[slice, ...]:
    starts = [min(max(s, 0), n - b) for s, n, b in zip(c.numbers(position), c.defs[0].type.shape, block, strict=True)]
    return (slice(None),) * c.lead + tuple(slice(s, s + b) for s, b in zip(starts, block, strict=True))


def _dynamic_slice(c: Call) -> Array:
    return c.args[0][_corner(c, 1, c.op.integers("sizes"))]


def _dynamic_update(c: Call) -> Array:
    out = np.array(c.args[0])
    out[_corner(c, 2, c.defs[1].type.shape)] = c.args[1]
    return out


def _lift(c: Call) -> Array:
    x = (c.args[0] & np.uint64(1)).astype(np.uint8) if c.op.type.kind is Kind.BIT else c.args[0]
    return c.protocol.add_public(c.p, np.zeros((c.protocol.parts(c.p, c.op.type.kind), *x.shape), x.dtype), x)


# ---- linear --------------------------------------------------------------------------------------------------------
def _add(c: Call) -> Array:
    x, y = c.args
    if c.public(0) == c.public(1):
        return np.add(x, y)
    return c.protocol.add_public(c.p, x, y) if c.public(1) else c.protocol.add_public(c.p, y, x)


def _sub(c: Call) -> Array:
    x, y = c.args
    if c.public(0) == c.public(1):
        return np.subtract(x, y)
    return (
        c.protocol.add_public(c.p, x, np.negative(y)) if c.public(1) else c.protocol.add_public(c.p, np.negative(y), x)
    )


def _neg(c: Call) -> Array:
    return np.negative(c.args[0])


def _sum(c: Call) -> Array:
    total: Array = c.args[0].sum(axis=tuple(a + c.lead for a in c.op.integers("axes")), dtype=np.uint64)
    return total


def _scale(c: Call) -> Array:
    by = c.op.integer("by")
    return c.args[0] if by == 1 else np.multiply(c.args[0], np.uint64(by % (1 << 64)))


def _public_mul(c: Call) -> Array:
    return np.multiply(*c.args)


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


def _public_product(c: Call) -> Array:
    """Of each part with what is public."""
    f, (x, y) = _bilinear(c.op), c.args
    if f.times > 1:
        x = np.multiply(x, np.uint64(f.times))
    if c.public(0) and c.public(1):
        return f.product(x, y)
    return np.stack([f.product(part, y) for part in x] if c.public(1) else [f.product(x, part) for part in y])


# ---- bits ----------------------------------------------------------------------------------------------------------
def _bits(c: Call) -> tuple[Array, Array]:
    """A sharing of bits and public bits, in this order, of two arguments in any order."""
    x, y = c.args
    bits, public = (x, y) if c.public(1) else (y, x)
    return bits, (public & np.uint64(1)).astype(np.uint8)  # whatever a graph says there, it counts mod 2


def _xor(c: Call) -> Array:
    if not (c.public(0) or c.public(1)):
        return np.bitwise_xor(*c.args)
    b, d = _bits(c)
    return c.protocol.add_public(c.p, b, d)


def _public_and(c: Call) -> Array:
    return np.bitwise_and(*_bits(c))


def _public_or(c: Call) -> Array:
    b, d = _bits(c)
    return c.protocol.add_public(c.p, b & (d ^ np.uint8(1)), d)


def _not(c: Call) -> Array:
    return c.protocol.add_public(c.p, c.args[0], np.uint8(1))  # type: ignore[arg-type]


# ---- interactive ---------------------------------------------------------------------------------------------------
async def _mul(c: Call) -> Array:
    return await c.protocol.mul(c.p, c.args[0], c.args[1], c.op.integer("by", 0))


async def _square(c: Call) -> Array:
    return await c.protocol.square(c.p, c.args[0], c.op.integer("by"))


async def _product(c: Call) -> Array:
    return await c.protocol.bilinear(c.p, _bilinear(c.op), *c.args)


async def _and(c: Call) -> Array:
    return await c.protocol.and_(c.p, *c.args)


async def _or(c: Call) -> Array:
    x, y = c.args
    return np.bitwise_xor(x ^ y, await c.protocol.and_(c.p, x, y))


async def _trunc(c: Call) -> Array:
    return await c.protocol.trunc(c.p, c.args[0], c.op.integer("by"))


async def _sign(c: Call) -> Array:
    return await c.protocol.sign(c.p, c.args[0], c.op.integer("lo"), c.op.integer("top", TOP))


async def _onehot(c: Call) -> Array:
    return await c.protocol.onehot(c.p, c.args[0], c.op.integer("size"))


async def _select(c: Call) -> Array:
    return await c.protocol.select(c.p, c.args[0], c.args[1], c.op.integer("keep"), c.op.integer("by", 0))


async def _inject(c: Call) -> Array:
    return await c.protocol.inject(c.p, c.args[0])


LOCAL: dict[str, Local] = {
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
}
INTERACTIVE: dict[str, Interactive] = {
    "mul": _mul,
    "square": _square,
    "dot": _product,
    "conv": _product,
    "and": _and,
    "or": _or,
    "trunc": _trunc,
    "sign": _sign,
    "onehot": _onehot,
    "select": _select,
    "inject": _inject,
}
PUBLIC_FACTOR: dict[str, Local] = {
    "mul": _public_mul,
    "dot": _public_product,
    "conv": _public_product,
    "and": _public_and,
    "or": _public_or,
}


def local(op: Op, defs: Sequence[Op]) -> Local | None:
    """The op's kernel if it needs no peer: a product with a public factor needs none."""
    if op.name in PUBLIC_FACTOR and any(d.type.kind is Kind.PUBLIC for d in defs):
        return PUBLIC_FACTOR[op.name]
    return LOCAL.get(op.name)
