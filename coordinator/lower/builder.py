"""Writing a graph: values with types, equal ops written once.

Every op goes through `Builder.emit`, which infers its type from the op table and returns the earlier value when the
same op on the same arguments was emitted before; so the backward pass finds the comparisons and products of the
forward pass without a search.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpcnode.graph import Attr, Graph, Kind, Op, Type
from mpcnode.ring import FRAC
from mpcnode.verify import infer

LONGEST = 62  # the most that one truncation takes off
UNIQUE = ("input", "param", "reveal", "store", "loop")  # never merged with an equal one
OWN = -1  # "the fraction bits that this Builder was made for"


class Value(NamedTuple):
    """A value of the graph that a Builder writes: its position and its type."""

    number: int
    type: Type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def frac(self) -> int:
        return self.type.frac

    @property
    def public(self) -> bool:
        return self.type.kind is Kind.PUBLIC


class Builder:
    """One graph being written, for numbers with `frac` fraction bits.

    Shapes are explicit: two values meet in an op only when their shapes are equal (see `spread`).
    """

    def __init__(self, frac: int = FRAC) -> None:
        self.frac = frac
        self.ops: list[Op] = []
        self._known: dict[object, Value] = {}
        self.most = 0
        self._where = ""

    @contextmanager
    def at(self, where: str, most: int = 0) -> Iterator[None]:
        """Ops emitted inside stem from this file:line of the user's program, and have room for `most` fraction bits."""
        before = self._where, self.most
        self._where, self.most = where, most
        try:
            yield
        finally:
            self._where, self.most = before

    @contextmanager
    def aiming(self, frac: int, most: int = 0) -> Iterator[None]:
        """Ops emitted inside make numbers with `frac` fraction bits, and room for `most`."""
        before = self.frac, self.most
        self.frac, self.most = frac, most
        try:
            yield
        finally:
            self.frac, self.most = before

    def graph(self, outputs: Sequence[Value] = ()) -> Graph:
        return Graph(tuple(self.ops), tuple(v.number for v in outputs))

    def op(self, value: Value) -> Op:
        return self.ops[value.number]

    def emit(self, name: str, /, *args: Value, type: Type | None = None, **attrs: Attr) -> Value:
        """Append an op (or find its equal).  `type` is wanted for input, param and const only.  Raises GraphError."""
        return self.again(Op(name, (), attrs, type or Type(Kind.PUBLIC, 0, ()), most=self.most), *args)

    def again(self, op: Op, *args: Value) -> Value:
        """The same op on these arguments, in this graph."""
        op = op._replace(args=tuple(a.number for a in args), where=self._where)
        return self._written(op, infer(op, [self.ops[a.number] for a in args]))

    def copy(self, op: Op, *args: Value) -> Value:
        """The same op on arguments of the same types: it keeps its own."""
        return self._written(op._replace(args=tuple(a.number for a in args), where=self._where), op.type)

    def _written(self, op: Op, found: Type) -> Value:
        value = Value(len(self.ops), found)
        if op.name not in UNIQUE:
            key = (op.name, op.args, tuple(sorted((k, _hashable(v)) for k, v in op.attrs.items())), found)
            if self._known.setdefault(key, value) != value:
                return self._known[key]
        self.ops.append(op._replace(type=found))
        return value

    # ---- values ----------------------------------------------------------------------------------------------------
    def const(self, x: npt.ArrayLike, frac: int = OWN) -> Value:
        """A public constant, rounded to `frac` fraction bits (0: integers, and bits as 0 and 1)."""
        frac = self.frac if frac == OWN else frac
        raw = np.asarray(np.rint(np.asarray(x, np.float64) * 2.0**frac) if frac else x).astype(np.int64)
        return self.raw(raw, frac)

    def raw(self, ring: npt.NDArray[np.int64], frac: int) -> Value:
        """A public constant, given as ring elements."""
        return self.emit("const", value=ring, type=Type(Kind.PUBLIC, frac, ring.shape))

    def fill(self, x: float, like: Value, frac: int = OWN) -> Value:
        """The public constant x in every place of a value of `like`'s shape."""
        return self.spread(self.const(x, frac), like.shape)

    def lift(self, x: Value, kind: Kind = Kind.ARITH) -> Value:
        """A public value as a shared one (where a loop carries secrets on, it must start with a shared value)."""
        return self.emit("lift", x, kind=kind.value) if x.public else x

    # ---- structure -------------------------------------------------------------------------------------------------
    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        return x if x.shape == shape else self.emit("reshape", x, shape=shape)

    def spread(self, x: Value, shape: tuple[int, ...]) -> Value:
        """x broadcast to `shape` by numpy's rule: its axes are the last ones."""
        if x.shape == shape:
            return x
        lead = len(shape) - len(x.shape)
        return self.emit("broadcast", x, shape=shape, dims=tuple(range(lead, len(shape))))

    def transpose(self, x: Value, perm: tuple[int, ...]) -> Value:
        return x if perm == tuple(range(len(perm))) else self.emit("transpose", x, perm=perm)

    def slice_axis(self, x: Value, axis: int, start: int, limit: int, stride: int = 1) -> Value:
        """x[..., start:limit:stride, ...] along one axis."""
        if (start, limit, stride) == (0, x.shape[axis], 1):
            return x
        lo = tuple(start if i == axis else 0 for i in range(len(x.shape)))
        hi = tuple(limit if i == axis else n for i, n in enumerate(x.shape))
        step = tuple(stride if i == axis else 1 for i in range(len(x.shape)))
        return self.emit("slice", x, start=lo, limit=hi, stride=step)

    # ---- fixed-point arithmetic: a product is truncated where it is made; a pass moves truncations -----------------
    def align(self, x: Value, frac: int) -> Value:
        """x with `frac` fraction bits: truncated if it has more, scaled up if it has fewer."""
        if x.frac == frac:
            return x
        if x.frac < frac:
            return self.emit("scale", x, by=1 << (frac - x.frac), frac=frac - x.frac)
        if x.public:
            raise AssertionError("a public value is encoded with the fraction bits that it needs")
        while x.frac - frac > LONGEST:
            x = self.emit("trunc", x, by=LONGEST)
        return self.emit("trunc", x, by=x.frac - frac)

    def fitted(self, x: Value, y: Value) -> tuple[Value, Value]:
        """Two factors with so many fraction bits that their product has room: what is too much is taken off the secret
        one, or off both.
        """
        over = x.frac + y.frac - self.most if self.most else 0
        if over <= 0:
            return x, y
        if x.public or y.public:
            return (x, self.align(y, y.frac - over)) if x.public else (self.align(x, x.frac - over), y)
        half = min((over + 1) // 2, x.frac, y.frac)
        return self.align(x, x.frac - half), self.align(y, y.frac - half)

    def add(self, x: Value, y: Value) -> Value:
        """x + y, at the finer binary point of the two; where room is known, at the Builder's own if they differ."""
        return self.emit("add", *self._alike(x, y))

    def sub(self, x: Value, y: Value) -> Value:
        return self.emit("sub", *self._alike(x, y))

    def _alike(self, x: Value, y: Value) -> tuple[Value, Value]:
        frac = x.frac if x.frac == y.frac else self.frac if self.most else max(x.frac, y.frac)
        return self.align(x, frac), self.align(y, frac)

    def mul(self, x: Value, y: Value, frac: int | None = OWN) -> Value:
        """x·y truncated to `frac` fraction bits (None: left with the sum of both)."""
        return self.settle(self.emit("mul", *self.fitted(x, y)), frac)

    def dot(self, x: Value, y: Value, frac: int | None = OWN) -> Value:
        """x @ y on the last two axes, truncated to `frac` fraction bits (None: left)."""
        return self.settle(self.emit("dot", *self.fitted(x, y)), frac)

    def settle(self, product: Value, frac: int | None = OWN) -> Value:
        """A product truncated to `frac` fraction bits, if it has more (None: left)."""
        frac = self.frac if frac == OWN else frac
        return product if frac is None or product.frac <= frac or product.public else self.align(product, frac)

    def shift(self, x: Value, bits: int) -> Value:
        """x·2^bits, exactly: the same ring element read at another binary point (or scaled up without room)."""
        if bits == 0:
            return x
        if x.frac >= bits:
            return self.emit("scale", x, by=1, frac=-bits)
        return self.emit("scale", x, by=1 << (bits - x.frac), frac=-x.frac)

    def settled(self, x: Value) -> Value:
        """x, behind a padding that is cut off again, where no pass looks for what x was before its truncation.  Passes
        may move a truncation, or save it, as long as nobody can tell but by the last bit; who asks twice for the same
        rounding, or for comparisons that agree with each other, can.
        """
        wide = self.emit("pad", self.reshape(x, (x.type.size,)), low=(0,), high=(1,))
        return self.reshape(self.slice_axis(wide, 0, 0, x.type.size), x.shape)

    # ---- bits ------------------------------------------------------------------------------------------------------
    def less(self, x: Value, y: Value, lo: int = 0) -> Value:
        """The bit x < y."""
        return self.emit("sign", self.sub(x, y), lo=lo)

    def where(self, bit: Value, x: Value, y: Value) -> Value:
        """x where the bit is 1, else y."""
        frac = max(x.frac, y.frac)
        x, y = self.align(x, frac), self.align(y, frac)
        if self.zero(y):
            return self.keep(bit, x, 1)
        if self.zero(x):
            return self.keep(bit, y, 0)
        return self.emit("add", y, self.keep(bit, self.emit("sub", x, y), 1))

    def keep(self, bit: Value, x: Value, keep: int) -> Value:
        """x where the bit equals `keep`, else 0."""
        if not x.public:
            return self.emit("select", bit, x, keep=keep)
        return self.emit("mul", self.emit("inject", bit if keep else self.emit("not", bit)), x)

    def zero(self, x: Value) -> bool:
        """Is x the constant 0 in every place?"""
        op = self.op(x)
        while op.name in ("broadcast", "reshape", "lift"):
            op = self.ops[op.args[0]]
        return op.name == "const" and not op.value.any()

    def elements(self, x: Value) -> int:
        return math.prod(x.shape)


def _hashable(value: Attr) -> object:
    if isinstance(value, np.ndarray):
        return value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()
    return value.digest() if isinstance(value, Graph) else value
