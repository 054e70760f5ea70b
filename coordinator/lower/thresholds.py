"""One number compared with several public ones: a `sign` with cuts, for which leaves are dealt once a number.

x < c_k for K thresholds is written as the signs of x, spread over a new axis, less a public array.  All of these have
the mask of x, so one op that knows the thresholds is dealt less (see mpcnode/protocols/comparison.py), and takes no
more rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coordinator.lower.builder import Value
from coordinator.lower.rewrite import Rewriter, Rule
from mpcnode.graph import MAX_CUTS, Op

Ints = npt.NDArray[np.int64]


def sign(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """sign(spread(x) - c) -> the signs of x with cuts, where c is the same along x's axes; likewise c - spread(x), as
    -x with the cuts -c.  What room the difference has is noted at the sign (`Op.most`).
    """
    gap = r.op(args[0])
    if gap.name not in ("add", "sub") or "cuts" in op.attrs:
        return None
    for side in (0, 1):
        spread, public = (r.b.op(r.arg(args[0], k)) for k in (side, 1 - side))
        new = _new_axes(r, spread)
        cuts = _along(r, public, new) if new else None
        if cuts is None or not 1 < cuts.size <= MAX_CUTS:
            continue
        x = Value(spread.args[0], r.b.ops[spread.args[0]].type)
        negated = gap.name == "sub" and side == 1
        if gap.name == "add" or negated:
            cuts = np.negative(cuts)
        joined = op._replace(attrs={**op.attrs, "cuts": tuple(cuts.reshape(-1).tolist())}, most=gap.most)
        bits = r.b.again(joined, r.b.emit("neg", x) if negated else x)
        return _placed(r, bits, op.type.shape, new)
    return None


def _new_axes(r: Rewriter, spread: Op) -> tuple[int, ...]:
    """The axes that a broadcast adds; none where it is no broadcast, or makes axes longer too."""
    if spread.name != "broadcast":
        return ()
    dims, shape = spread.integers("dims"), spread.type.shape
    if any(n != shape[d] for n, d in zip(r.b.ops[spread.args[0]].type.shape, dims, strict=True)):
        return ()
    return tuple(axis for axis in range(len(shape)) if axis not in dims)


def _along(r: Rewriter, public: Op, axes: tuple[int, ...]) -> Ints | None:
    """A public constant that depends on these axes alone, on them; else None."""
    value = _constant(r, public)
    if value is None:
        return None
    others = [axis for axis in range(value.ndim) if axis not in axes]
    if any(value.strides[axis] and value.shape[axis] != 1 for axis in others) or not value.size:
        return None
    found: Ints = value[tuple(slice(None) if axis in axes else 0 for axis in range(value.ndim))]
    return found


def _constant(r: Rewriter, op: Op) -> Ints | None:
    """The value of a constant, perhaps spread and reshaped: a view, which says by its strides where it was spread."""
    if op.name == "const":
        return op.value
    inner = _constant(r, r.b.ops[op.args[0]]) if op.name in ("broadcast", "reshape") else None
    if inner is None or op.name == "reshape":
        return None if inner is None else inner.reshape(op.type.shape)
    shape = [1] * len(op.type.shape)
    for n, d in zip(inner.shape, op.integers("dims"), strict=True):
        shape[d] = n
    return np.broadcast_to(inner.reshape(shape), op.type.shape)


def _placed(r: Rewriter, bits: Value, shape: tuple[int, ...], new: tuple[int, ...]) -> Value:
    """[cuts, *axes of x] as the shape in which the cuts are the new axes."""
    old = tuple(axis for axis in range(len(shape)) if axis not in new)
    assert bits.type.size == math.prod(shape)
    front = r.b.reshape(bits, tuple(shape[axis] for axis in (*new, *old)))
    return r.b.transpose(front, tuple((*new, *old).index(axis) for axis in range(len(shape))))


RULES: dict[str, Rule] = {"sign": sign}
