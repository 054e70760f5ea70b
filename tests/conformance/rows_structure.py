"""Ops at the boundary, and those that move elements."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from rows import (
    SHAPES,
    Case,
    Ints,
    Shape,
    bit,
    emit,
    every_kind,
    named,
    public,
    ring,
    row,
    same,
    secret,
    zeros_and_ones,
)

from coordinator.lower.builder import Builder, Value

SMALL = SHAPES[:-1]


# ---- boundary --------------------------------------------------------------------------------------------------------
@row
def input() -> Iterator[Case]:
    for shape in SHAPES:
        yield Case(named(shape), (secret(ring(*shape)),), lambda b, x: x, same)
    yield Case("fixed-point", (secret(ring(4, 3), 18),), lambda b, x: x, same)


@row
def const() -> Iterator[Case]:
    for shape in SMALL:
        yield Case(named(shape), (public(ring(*shape)),), lambda b, x: x, same)


@row
def lift() -> Iterator[Case]:
    for shape in SMALL:
        yield Case(f"arith-{named(shape)}", (public(ring(*shape)),), emit("lift", kind="arith"), same)
        yield Case(f"bit-{named(shape)}", (public(zeros_and_ones(*shape)),), emit("lift", kind="bit"), same)
    args = public(ring(3)), secret(ring(3, seed=1))
    yield Case("then-mul", args, lambda b, x, y: b.emit("mul", b.emit("lift", x, kind="arith"), y), np.multiply)
    args = public(zeros_and_ones(9)), bit(zeros_and_ones(9, seed=1))
    yield Case("then-and", args, lambda b, x, y: b.emit("and", b.emit("lift", x, kind="bit"), y), np.bitwise_and)


@row
def store() -> Iterator[Case]:
    attrs: dict[str, Any] = {"kept": "value", "path": (), "to": (), "replace": 0}
    for (kind, make, dtype), shape in product(((secret, ring, "int32"), (bit, zeros_and_ones, "bool")), SMALL):
        case = f"{kind.__name__}-{named(shape)}"
        yield Case(case, (kind(make(*shape)),), emit("store", dtype=dtype, **attrs), same)


@row
def load() -> Iterator[Case]:
    """What is kept is an array that the case also has as an argument: see Owners."""

    def loaded(b: Builder, x: Value) -> Value:
        return b.emit("load", kept="0", run="job/1", path=(), type=x.type)

    for (kind, make), shape in product(((secret, ring), (bit, zeros_and_ones)), SMALL):
        yield Case(f"{kind.__name__}-{named(shape)}", (kind(make(*shape)),), loaded, same)
    args = (secret(ring(5)),)
    yield Case("then-mul", args, lambda b, x: b.emit("mul", loaded(b, x), x), lambda x: x * x)
    args = (bit(zeros_and_ones(70)),)
    yield Case("then-and", args, lambda b, x: b.emit("and", loaded(b, x), x), same)


@row
def reveal() -> Iterator[Case]:
    for (kind, make), shape in product(((secret, ring), (bit, zeros_and_ones), (public, ring)), SMALL):
        yield Case(f"{kind.__name__}-{named(shape)}", (kind(make(*shape)),), lambda b, x: x, same)


# ---- structure -------------------------------------------------------------------------------------------------------
@row
def reshape() -> Iterator[Case]:
    shapes: list[tuple[Shape, Shape]] = [
        ((), (1, 1)),
        ((1,), ()),
        ((6,), (2, 3)),
        ((2, 3, 4), (4, 6)),
        ((0, 3), (5, 0)),
    ]
    for old, new in shapes:
        label = f"{named(old)}-to-{named(new)}"
        yield from every_kind(label, [old], emit("reshape", shape=new), partial(np.reshape, shape=new))
    yield from every_kind(
        "of-a-view",
        [(2, 3, 4)],
        lambda b, x: b.reshape(b.transpose(x, (2, 0, 1)), (24,)),
        lambda x: x.transpose(2, 0, 1).reshape(24),
    )


@row
def transpose() -> Iterator[Case]:
    for shape, perm in (((), ()), ((3,), (0,)), ((2, 5), (1, 0)), ((2, 3, 4), (1, 2, 0)), ((2, 0, 4), (2, 1, 0))):
        label = f"{named(shape)}-by-{named(perm)}"
        yield from every_kind(label, [shape], emit("transpose", perm=perm), partial(np.transpose, axes=perm))


def spread(x: Ints, shape: Shape, dims: Shape) -> Ints:
    inner = [1] * len(shape)
    for n, d in zip(x.shape, dims, strict=True):
        inner[d] = n
    return np.broadcast_to(x.reshape(inner), shape)


@row
def broadcast() -> Iterator[Case]:
    cases: list[tuple[Shape, Shape, Shape]] = [
        ((), (), ()),
        ((), (2, 3), ()),
        ((3,), (2, 3), (1,)),
        ((2,), (2, 3), (0,)),
        ((2, 1, 4), (2, 5, 3, 4), (0, 1, 3)),
        ((1,), (0,), (0,)),
    ]
    for old, new, dims in cases:
        build, want = emit("broadcast", shape=new, dims=dims), partial(spread, shape=new, dims=dims)
        yield from every_kind(f"{named(old)}-to-{named(new)}", [old], build, want)
    args = secret(ring(3)), secret(ring(2, 3))
    yield Case("then-mul", args, lambda b, x, y: b.emit("mul", b.spread(x, (2, 3)), y), np.multiply)
    yield Case(
        "then-dot",
        args,
        lambda b, x, y: b.emit("dot", b.spread(x, (2, 3)), b.transpose(y, (1, 0))),
        lambda x, y: np.stack([x, x]) @ y.T,
    )


def cut(x: Ints, start: Shape, limit: Shape, stride: Shape) -> Ints:
    return x[tuple(np.s_[a:b:s] for a, b, s in zip(start, limit, stride, strict=True))]


@row
def slice() -> Iterator[Case]:
    cases: list[tuple[Shape, Shape, Shape, Shape]] = [
        ((), (), (), ()),
        ((7,), (1,), (6,), (2,)),
        ((3, 5), (0, 2), (3, 5), (2, 3)),
        ((4,), (2,), (2,), (1,)),
    ]
    for shape, start, limit, stride in cases:
        attrs = {"start": start, "limit": limit, "stride": stride}
        yield from every_kind(
            f"{named(shape)}-from-{named(start)}", [shape], emit("slice", **attrs), partial(cut, **attrs)
        )


@row
def concat() -> Iterator[Case]:
    cases: list[tuple[list[Shape], int]] = [
        ([(3,)], 0),
        ([(3,), (1,), (0,)], 0),
        ([(2, 3), (2, 1), (2, 3)], 1),
        ([(1, 2), (4, 2)], 0),
    ]
    for shapes, axis in cases:
        build, want = emit("concat", axis=axis), lambda *xs, axis=axis: np.concatenate(xs, axis)
        yield from every_kind(f"{len(shapes)}-on-{axis}-of-{named(shapes[0])}", shapes, build, want)


@row
def join() -> Iterator[Case]:
    for count in (2, 3):  # one owner may bring several datasets
        args = tuple(secret(ring(5, 1, seed=i)) for i in range(count))
        yield Case(f"{count}-inputs", args, emit("join"), lambda *xs: np.concatenate(xs, axis=1))


def framed(x: Ints, low: Shape, high: Shape) -> Ints:
    out = np.zeros([a + n + b for a, n, b in zip(low, x.shape, high, strict=True)], np.int64)
    out[tuple(np.s_[a : a + n] for a, n in zip(low, x.shape, strict=True))] = x
    return out


@row
def pad() -> Iterator[Case]:
    for shape, low, high in (((), (), ()), ((3,), (2,), (0,)), ((2, 3), (1, 0), (0, 4)), ((0,), (1,), (1,))):
        build, want = emit("pad", low=low, high=high), partial(framed, low=low, high=high)
        yield from every_kind(f"{named(shape)}-by-{named(low)}", [shape], build, want)
    args = secret(ring(2)), secret(ring(4))
    yield Case(
        "then-mul",
        args,
        lambda b, x, y: b.emit("mul", b.emit("pad", x, low=(1,), high=(1,)), y),
        lambda x, y: np.pad(x, 1) * y,
    )


@row
def rev() -> Iterator[Case]:
    for shape, axes in (((), ()), ((5,), (0,)), ((2, 3, 4), (0, 2)), ((2, 0), (1,))):
        label = f"{named(shape)}-on-{named(axes)}"
        yield from every_kind(label, [shape], emit("rev", axes=axes), partial(np.flip, axis=axes))


@row
def take() -> Iterator[Case]:
    cases: list[tuple[Shape, Any, int]] = [
        ((5,), 3, 0),
        ((5,), [4, 0, 4], 0),
        ((2, 5, 3), [[1, 0], [4, 4]], 1),
        ((3, 2), [], 0),
    ]
    for shape, numbers, axis in cases:
        index = np.array(numbers, np.int64)
        build = lambda b, x, index=index, axis=axis: b.emit("take", x, b.raw(index, 0), axis=axis)  # noqa: E731
        want = partial(np.take, indices=index, axis=axis)
        yield from every_kind(f"{named(shape)}-at-{named(index.shape)}", [shape], build, want)


CORNERS: list[tuple[Shape, Shape]] = [((), ()), ((2,), (1,)), ((9,), (3,)), ((-4, 1), (2, 2)), ((1, 1), (0, 3))]


def block(shape: Shape, corner: Shape, sizes: Shape) -> Any:
    """Where a block stands, moved so that it fits."""
    starts = [max(0, min(c, n - s)) for c, n, s in zip(corner, shape, sizes, strict=True)]
    return tuple(np.s_[a : a + s] for a, s in zip(starts, sizes, strict=True))


@row
def dynamic_slice() -> Iterator[Case]:
    for corner, sizes in CORNERS:
        at = np.array(corner, np.int64)
        build = lambda b, x, at=at, sizes=sizes: b.emit("dynamic_slice", x, b.raw(at, 0), sizes=sizes)  # noqa: E731
        want = lambda x, corner=corner, sizes=sizes: x[block(x.shape, corner, sizes)]  # noqa: E731
        yield from every_kind(f"{named(sizes)}-at-{named(corner)}", [(5, 4)[: len(corner)]], build, want)


def updated(x: Ints, y: Ints, corner: Shape) -> Ints:
    out = x.copy()
    out[block(x.shape, corner, y.shape)] = y
    return out


@row
def dynamic_update() -> Iterator[Case]:
    for corner, sizes in CORNERS:
        at = np.array(corner, np.int64)
        build = lambda b, x, y, at=at: b.emit("dynamic_update", x, y, b.raw(at, 0))  # noqa: E731
        want = partial(updated, corner=corner)
        yield from every_kind(f"{named(sizes)}-at-{named(corner)}", [(5, 4)[: len(corner)], sizes], build, want)
