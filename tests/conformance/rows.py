"""The conformance table: for every op of the machine, small graphs and what numpy says of them.

A case applies `build` to arguments of given kinds and expects `want` of the same arguments as int64 arrays (mod 2^64),
exactly; or, where `want` returns a pair of arrays, a value between the two.  The cases of an op stand in one generator
of its name, in rows_structure.py, rows_arithmetic.py and rows_control.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from coordinator.lower.builder import Builder, Value
from mpcnode.engine import Hooks
from mpcnode.graph import Attr, Graph, Kind, Op, Type
from mpcnode.protocols import Protocol
from mpcnode.protocols.dealing import TILE

Ints = Any  # an array of int64
Shape = tuple[int, ...]
NAMES = ["alice", "bob", "carol"]  # owners
LIMIT = 1 << 62  # of what may be truncated


class Arg(NamedTuple):
    kind: Kind
    value: Ints
    frac: int = 0


class Case(NamedTuple):
    label: str
    args: tuple[Arg, ...]
    build: Callable[..., Value]  # (builder, *args) -> the value to be revealed
    want: Callable[..., Any]


ROWS: dict[str, list[Case]] = {}


def row(cases: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
    """Enter the cases of the op that the function is named after (with an underscore behind a Python keyword)."""
    ROWS[cases.__name__.rstrip("_")] = list(cases())
    return cases


# ---- arguments -------------------------------------------------------------------------------------------------------
RAGGED = (3, TILE // 3 + 7)  # more than one tile, and the last one no multiple of 64
SHAPES: list[Shape] = [(), (1,), (7,), (3, 5), (2, 0, 3), RAGGED]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng([6, 28, *seed])


def ring(*shape: int, seed: int = 0) -> Ints:
    """Any ring elements."""
    return np.asarray(rng(seed, *shape).integers(-(1 << 63), 1 << 63, shape, np.int64))


def zeros_and_ones(*shape: int, seed: int = 0) -> Ints:
    return np.asarray(rng(seed, *shape).integers(0, 2, shape, np.int64))


def ranged(*shape: int, limit: int = LIMIT, gap: int = 0, seed: int = 0) -> Ints:
    """Numbers of every size with gap <= |x| < limit, both ends included, and 0."""
    random = rng(seed, *shape)
    down = random.integers(0, 63, shape)
    size = np.minimum(np.int64(gap) + (random.integers(0, 1 << 62, shape, np.int64) >> down), np.int64(limit - 1))
    x = np.asarray(size * (2 * random.integers(0, 2, shape, np.int64) - 1))
    ends = [limit - 1, 1 - limit, 0, gap, -gap, gap + 1, -gap - 1]
    x.reshape(-1)[: len(ends)] = ends[: x.size]
    return x


def secret(value: Ints, frac: int = 0) -> Arg:
    return Arg(Kind.ARITH, np.asarray(value), frac)


def bit(value: Ints) -> Arg:
    return Arg(Kind.BIT, np.asarray(value))


def public(value: Ints, frac: int = 0) -> Arg:
    return Arg(Kind.PUBLIC, np.asarray(value), frac)


# ---- cases -----------------------------------------------------------------------------------------------------------
def named(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def emit(name: str, **attrs: Attr) -> Callable[..., Value]:
    """A `build` that is this op alone."""
    return lambda b, *args: b.emit(name, *args, **attrs)


def same(x: Ints) -> Ints:
    return x


def every_kind(
    label: str, shapes: Sequence[Shape], build: Callable[..., Value], want: Callable[..., Any]
) -> Iterator[Case]:
    """The same for secrets, bits and public values."""
    for kind, make in ((secret, ring), (bit, zeros_and_ones), (public, ring)):
        yield Case(f"{kind.__name__}-{label}", tuple(kind(make(*s, seed=i)) for i, s in enumerate(shapes)), build, want)


# ---- graphs ----------------------------------------------------------------------------------------------------------
class Owners(Hooks):
    """Hands out ring elements: dataset -> int64 array; and the same as if they had been kept, to party `rank` of
    `size`.
    """

    def __init__(self, data: dict[str, Ints], rules: Protocol, rank: int, size: int) -> None:
        self._data, self._rules, self._rank, self._size = data, rules, rank, size

    def read(self, op: Op) -> Any:
        return self._data[op.text("dataset")].reshape(op.type.shape).view(np.uint64)

    def keys(self, op: Op) -> bytes:
        return b"all rows are in order"

    def load(self, op: Op) -> Any:
        value = self._data[op.text("kept")].reshape(op.type.shape).view(np.uint64)
        if op.type.kind is Kind.BIT:
            value = value.astype(np.uint8)
        return sharings(value, self._rules, self._size)[self._rank]


def sharings(value: Any, rules: Protocol, size: int) -> list[Any]:
    """Each party's parts of a sharing of `value`, by rank: as masked evaluation has them, or cleartext."""
    if not rules.helpers:
        return [value[None]] * size
    bits = value.dtype == np.uint8
    masks = [rng(i).integers(0, 2 if bits else 1 << 63, value.shape, value.dtype) for i in range(1, size)]
    whole = np.bitwise_xor.reduce(masks) if bits else np.add.reduce(masks, dtype=np.uint64)
    masked = value ^ whole if bits else value + whole
    known = [whole] if bits or size % 4 == 1 else [whole, *masks[:-1]]  # to the helper
    return [np.stack(known), *(np.stack([masked, mask]) for mask in masks)]


def enter(b: Builder, i: int, arg: Arg, owners: Sequence[str]) -> Value:
    """Argument i of a case as a value: a secret is an owner's input, a secret bit the sign of one."""
    if arg.kind is Kind.PUBLIC:
        return b.raw(arg.value, arg.frac)
    kind = Type(Kind.ARITH, arg.frac, (arg.value.size, 1))
    column = b.emit("input", type=kind, owner=owners[i % len(owners)], dataset=str(i), columns=("x",))
    value = b.reshape(column, arg.value.shape)
    return value if arg.kind is Kind.ARITH else b.emit("sign", b.emit("neg", value), lo=0)


def written(case: Case, owners: Sequence[str]) -> tuple[Graph, dict[str, Ints]]:
    """A graph that reveals a case's result as ring elements, under the name "result"; and the owners' data."""
    b = Builder()
    result = case.build(b, *(enter(b, i, arg, owners) for i, arg in enumerate(case.args)))
    b.emit("reveal", b.shift(result, result.frac) if result.frac else result, to=("analyst",), name="result")
    return b.graph(), {str(i): arg.value for i, arg in enumerate(case.args)}
