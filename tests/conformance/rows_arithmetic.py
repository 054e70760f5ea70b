"""Ops that compute: linear, bilinear, truncation and bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from rows import (
    LIMIT,
    RAGGED,
    SHAPES,
    TILE,
    Case,
    Ints,
    Shape,
    bit,
    emit,
    named,
    public,
    ranged,
    ring,
    row,
    same,
    secret,
    zeros_and_ones,
)

MIXTURES = list(product((secret, public), repeat=2))


# ---- linear ----------------------------------------------------------------------------------------------------------
def elementwise(name: str, want: Callable[..., Any]) -> Iterator[Case]:
    """Every mixture of secret and public arguments, in both orders; views; the same argument twice."""
    for (first, second), shape in product(MIXTURES, SHAPES):
        args = first(ring(*shape, seed=1)), second(ring(*shape, seed=2))
        yield Case(f"{first.__name__}-{second.__name__}-{named(shape)}", args, emit(name), want)
    args = secret(ring(4, 3, seed=1)), secret(ring(3, 4, seed=2))
    yield Case("of-a-view", args, lambda b, x, y: b.emit(name, b.transpose(x, (1, 0)), y), lambda x, y: want(x.T, y))
    yield Case("twice", (secret(ring(7)),), lambda b, x: b.emit(name, x, x), lambda x: want(x, x))


@row
def add() -> Iterator[Case]:
    yield from elementwise("add", np.add)


@row
def sub() -> Iterator[Case]:
    yield from elementwise("sub", np.subtract)


@row
def neg() -> Iterator[Case]:
    for kind, shape in product((secret, public), SHAPES):
        yield Case(f"{kind.__name__}-{named(shape)}", (kind(ring(*shape)),), emit("neg"), np.negative)


@row
def sum() -> Iterator[Case]:
    cases: list[tuple[Shape, Shape]] = [
        ((), ()),
        ((7,), (0,)),
        ((7,), ()),
        ((3, 5), (0,)),
        ((3, 5), (0, 1)),
        ((2, 3, 4), (0, 2)),
        ((2, 0), (1,)),
        (RAGGED, (1,)),
    ]
    for kind, (shape, axes) in product((secret, public), cases):
        label = f"{kind.__name__}-{named(shape)}-on-{named(axes)}"
        want = lambda x, axes=axes: np.asarray(np.sum(x, axes))  # noqa: E731
        yield Case(label, (kind(ring(*shape)),), emit("sum", axes=axes), want)


@row
def scale() -> Iterator[Case]:
    for kind, by, shape in product((secret, public), (1, 0, -1, 12345, -(1 << 63), (1 << 63) - 1), ((), (3, 5))):
        label = f"{kind.__name__}-{named(shape)}-by-{by}"
        yield Case(label, (kind(ring(*shape)),), emit("scale", by=by, frac=7), partial(np.multiply, np.int64(by)))


# ---- bilinear --------------------------------------------------------------------------------------------------------
@row
def dot() -> Iterator[Case]:
    shapes: list[tuple[Shape, Shape]] = [
        ((1, 1), (1, 1)),
        ((3, 5), (5, 2)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 3, 2, 4), (2, 3, 4, 1)),
        ((0, 3), (3, 2)),
        ((3, 0), (0, 2)),
        ((3, 2), (2, 0)),
        ((0, 2, 3), (0, 3, 2)),
    ]
    for (first, second), (left, right) in product(MIXTURES, shapes):
        label = f"{first.__name__}-{second.__name__}-{named(left)}-{named(right)}"
        args = first(ring(*left, seed=1)), second(ring(*right, seed=2))
        yield Case(label, args, emit("dot"), np.matmul)
        yield Case(f"twice-{label}", args, emit("dot", twice=1), lambda x, y: 2 * (x @ y))
    for label, left, right in (
        ("tiles-of-rows", (301, 2), (2, 450)),
        ("tiles-of-one-row", (3, 2), (2, TILE + 3)),
        ("tiles-of-a-batch", (5, 7, 2), (5, 2, 5000)),
    ):
        args = secret(ring(*left, seed=1)), secret(ring(*right, seed=2))
        yield Case(label, args, emit("dot"), np.matmul)
        yield Case(f"twice-{label}", args, emit("dot", twice=1), lambda x, y: 2 * (x @ y))
    for label, perm in (("of-transposed", (0, 1, 3, 2)), ("of-moved-batches", (1, 0, 2, 3))):
        yield Case(
            label,
            (secret(ring(3, 3, 3, 3, seed=1)), secret(ring(3, 3, 3, 3, seed=2))),
            lambda b, x, y, perm=perm: b.emit("dot", b.transpose(x, perm), b.transpose(y, perm)),
            lambda x, y, perm=perm: x.transpose(perm) @ y.transpose(perm),
        )
    yield Case("gram", (secret(ring(4, 3)),), lambda b, x: b.emit("dot", b.transpose(x, (1, 0)), x), lambda x: x.T @ x)


# ---- truncation: one of the two neighbours, and exact where there is nothing to round --------------------------------
def neighbours(x: Ints, by: int) -> tuple[Ints, Ints]:
    floor = x >> by
    return floor, floor + ((x & ((1 << by) - 1)) != 0)


@row
def trunc() -> Iterator[Case]:
    for by, shape in [(18, s) for s in SHAPES] + [(by, (1000,)) for by in (1, 2, 15, 16, 17, 31, 32, 33, 36, 61, 62)]:
        args = (secret(ranged(*shape, seed=by), by),)
        yield Case(f"{named(shape)}-by-{by}", args, emit("trunc", by=by), partial(neighbours, by=by))
    by_20 = partial(neighbours, by=20)
    for label, edge in (("largest", LIMIT - 1), ("smallest", 1 - LIMIT), ("zero", 0), ("minus-one", -1)):
        yield Case(label, (secret(np.full(300, edge), 20),), emit("trunc", by=20), by_20)
    yield Case(
        "of-a-lifted-value",
        (public(ranged(50), 20),),
        lambda b, x: b.emit("trunc", b.emit("lift", x, kind="arith"), by=20),
        by_20,
    )
    args = secret(ranged(40, limit=1 << 30), 18), secret(ranged(40, limit=1 << 30, seed=1), 18)
    yield Case("of-a-product", args, lambda b, x, y: b.mul(x, y), lambda x, y: neighbours(x * y, 18))


# ---- products of what is truncated on the way ------------------------------------------------------------------------
SHIFTS = (1, 7, 16, 17, 31, 32, 33, 38, 61, 62)
EDGES = {"largest": LIMIT - 1, "smallest": 1 - LIMIT, "zero": 0, "minus-one": -1}


def products_of_truncations(x: Ints, y: Ints, by: int) -> tuple[Ints, Ints]:
    """Of one of the two neighbours each: they wrap alike, so what lies between them is told by the smaller factor."""
    one, other = (n * y for n in neighbours(x, by))
    return np.minimum(one, other), np.maximum(one, other)


def truncated_products() -> Iterator[Case]:
    for by, shape in [(18, s) for s in SHAPES] + [(by, (500,)) for by in SHIFTS]:
        limit = 1 << min(60, by - 1) if by > 1 else 1  # a product below 2^61
        args = secret(ranged(*shape, seed=by), by), secret(ranged(*shape, limit=max(2, limit), seed=by + 1))
        want = partial(products_of_truncations, by=by)
        yield Case(f"truncated-{named(shape)}-by-{by}", args, emit("mul", by=by), want)
    whole = ring(1000, seed=3) >> 22 << 20  # nothing to round, and the product wraps
    args = secret(whole, 20), secret(ring(1000, seed=4))
    yield Case("truncated-any-factor", args, emit("mul", by=20), lambda x, y: (x >> 20) * y)
    for label, edge in EDGES.items():
        args = secret(np.full(100, edge), 30), secret(ranged(100, limit=1 << 20))
        yield Case(f"truncated-{label}", args, emit("mul", by=30), partial(products_of_truncations, by=30))
    args = (secret(ranged(100, limit=1 << 40), 30),)
    yield Case(
        "truncated-by-itself",
        args,
        lambda b, x: b.emit("mul", x, x, by=30),
        lambda x: products_of_truncations(x, x, 30),
    )


@row
def mul() -> Iterator[Case]:
    yield from elementwise("mul", np.multiply)
    yield from truncated_products()


@row
def square() -> Iterator[Case]:
    def want(x: Ints, by: int) -> tuple[Ints, Ints]:
        one, other = (n * n for n in neighbours(x, by))
        return np.minimum(one, other), np.maximum(one, other)

    for by, shape in [(18, s) for s in SHAPES] + [(by, (500,)) for by in SHIFTS]:
        args = (secret(ranged(*shape, limit=1 << min(62, by + 30), seed=by), by),)
        yield Case(f"{named(shape)}-by-{by}", args, emit("square", by=by), partial(want, by=by))
    for label, edge in EDGES.items():
        args = (secret(np.full(100, edge), 40),)
        yield Case(label, args, emit("square", by=40), partial(want, by=40))
    args = (secret(ring(1000, seed=3) >> 22 << 20, 20),)
    yield Case("that-wraps", args, emit("square", by=20), lambda x: (x >> 20) * (x >> 20))


@row
def rescale() -> Iterator[Case]:
    """The nearest below and above z·times / 2^by, in Python's integers: the product does not fit into 64 bits."""

    def want(x: Ints, by: int, times: int) -> tuple[Ints, Ints]:
        below = np.array([int(v) * times >> by for v in x.reshape(-1)], np.int64).reshape(x.shape)
        exact = np.array([int(v) * times % (1 << by) == 0 for v in x.reshape(-1)], bool).reshape(x.shape)
        return below, below + ~exact

    for by, times, shape in [(18, 12345, s) for s in SHAPES] + [(by, min(3, 1 << by), (500,)) for by in SHIFTS]:
        args = (secret(ranged(*shape, limit=LIMIT, seed=by), by),)
        yield Case(
            f"{named(shape)}-{times}-by-{by}",
            args,
            emit("rescale", by=by, times=times, frac=by),
            partial(want, by=by, times=times),
        )
    for times in (1, 2, 1 << 30, (1 << 31) - 1):
        args = (secret(ranged(1000, limit=LIMIT, seed=times % 99), 40),)
        yield Case(
            f"{times}-times", args, emit("rescale", by=43, times=times, frac=22), partial(want, by=43, times=times)
        )


# ---- bits ------------------------------------------------------------------------------------------------------------
def bitwise(name: str, want: Callable[..., Any]) -> Iterator[Case]:
    for (first, second), shape in product(((bit, bit), (bit, public), (public, bit)), [*SHAPES, (64,), (65,)]):
        args = first(zeros_and_ones(*shape, seed=1)), second(zeros_and_ones(*shape, seed=2))
        yield Case(f"{first.__name__}-{second.__name__}-{named(shape)}", args, emit(name), want)
    yield Case("twice", (bit(zeros_and_ones(70)),), lambda b, x: b.emit(name, x, x), lambda x: want(x, x))


@row
def xor() -> Iterator[Case]:
    yield from bitwise("xor", np.bitwise_xor)


@row
def and_() -> Iterator[Case]:
    yield from bitwise("and", np.bitwise_and)
    for count, shape in [(n, (500,)) for n in range(3, 9)] + [(4, s) for s in SHAPES]:
        args = tuple(bit(np.maximum(zeros_and_ones(*shape, seed=i), np.arange(count)[i] % 2)) for i in range(count))
        want = lambda *xs: np.bitwise_and.reduce(xs)  # noqa: E731
        yield Case(f"{count}-of-{named(shape)}", args, emit("and"), want)
        ones = tuple(bit(np.ones(shape, np.int64)) for _ in range(count))
        yield Case(f"{count}-ones-of-{named(shape)}", ones, emit("and"), want)


@row
def or_() -> Iterator[Case]:
    yield from bitwise("or", np.bitwise_or)


@row
def not_() -> Iterator[Case]:
    for shape in SHAPES:
        yield Case(named(shape), (bit(zeros_and_ones(*shape)),), emit("not"), lambda x: 1 - x)


def negative(x: Ints) -> Ints:
    return np.asarray(x < 0)


def signs_with_cuts() -> Iterator[Case]:
    def want(x: Ints, cuts: tuple[int, ...]) -> Ints:
        return np.stack([negative(x - np.int64(cut)) for cut in cuts])

    few, many, ends = (5,), tuple(range(-3000, 3000, 131)), (-(1 << 63), 0, (1 << 63) - 1)
    odd = (-7, 0, 1 << 40, -(1 << 61), 3, 64, -64)
    shapes = [*SHAPES, (64,), (128,), (2, 9999)]
    for cuts, shape in [(odd, s) for s in shapes] + [(c, s) for c in (few, many, ends) for s in ((), (7,), (3, 5))]:
        label = f"{len(cuts)}-cuts-of-{named(shape)}"
        yield Case(label, (secret(ring(*shape)),), emit("sign", lo=0, cuts=cuts), partial(want, cuts=cuts))
    for (lo, top), shape in product(((0, 4), (1, 4), (2, 8), (3, 22), (9, 36), (15, 62)), ((60,), (9999,))):
        cuts = tuple(c << lo for c in (-1, 0, 1))
        x = ranged(*shape, limit=1 << (top - lo - 1), gap=0, seed=top) << lo  # whole multiples of what is passed over
        label = f"cuts-lo-{lo}-top-{top}-of-{named(shape)}"
        yield Case(label, (secret(x),), emit("sign", lo=lo, top=top, cuts=cuts), partial(want, cuts=cuts))


@row
def sign() -> Iterator[Case]:
    for lo, shape in [(0, s) for s in SHAPES] + [(18, s) for s in SHAPES] + [(lo, (500,)) for lo in range(63)]:
        # 2^lo away from zero, and from 2^63
        x = ranged(*shape, limit=(1 << 63) - (1 << lo if lo else 0), gap=1 << lo, seed=lo)
        yield Case(f"{named(shape)}-lo-{lo}", (secret(x),), emit("sign", lo=lo), negative)
    for top in (3, 4, 5, 8, 16, 17, 22, 36, 41, 62):
        for lo in {0, top // 2}:
            shape = RAGGED if top == 22 else (500,)
            x = ranged(*shape, limit=(1 << top) - (1 << lo if lo else 0), gap=1 << lo, seed=top)
            yield Case(f"lo-{lo}-top-{top}", (secret(x),), emit("sign", lo=lo, top=top), negative)
    yield Case("top-63", (secret(ring(500)),), emit("sign", lo=0, top=63), negative)
    yield from signs_with_cuts()
    yield Case("beyond-top", (secret(ring(500)),), emit("sign", lo=0, top=9), lambda x: x >> 9 & 1)
    edges = {"largest": (1 << 63) - 1, "smallest": -(1 << 63), "zero": 0, "minus-one": -1, "one": 1}
    for label, edge in edges.items():
        yield Case(label, (secret(np.full(200, edge)),), emit("sign", lo=0), negative)
    yield Case(  # one-sided: never for x >= 0
        "close-to-zero",
        (secret(np.arange(-255, 256)),),
        emit("sign", lo=8),
        lambda x: (np.zeros_like(x), negative(x).astype(np.int64)),
    )


def onehots(size: int, x: Ints) -> Ints:
    places = np.arange(size).reshape(size, *(1 for _ in x.shape))
    return (x & ((1 << (size - 1).bit_length()) - 1) == places).astype(np.int64)


@row
def onehot() -> Iterator[Case]:
    for size, shape in product((1, 2, 5, 8, 100), SHAPES[:-1]):
        yield Case(
            f"{size}-of-{named(shape)}", (secret(ring(*shape)),), emit("onehot", size=size), partial(onehots, size)
        )
    for size, n in ((3, TILE // 2 + 9), (1000, 150), (1 << 16, 2)):  # tiles
        yield Case(f"{size}-of-{n}", (secret(ring(n)),), emit("onehot", size=size), partial(onehots, size))


@row
def inject() -> Iterator[Case]:
    for shape in SHAPES:
        yield Case(named(shape), (bit(zeros_and_ones(*shape)),), emit("inject"), same)


def sums_of_selects() -> Iterator[Case]:
    shapes: list[tuple[Shape, Shape]] = [
        ((7,), (0,)),
        ((3, 5), (0,)),
        ((3, 5), (1,)),
        ((3, 5), (0, 1)),
        ((2, 3, 4), (0, 2)),
        ((0, 3), (0,)),
        ((3, 0), (0,)),
        (RAGGED, (0,)),
        (RAGGED, (1,)),
    ]
    for keep, by, (shape, axes) in product((0, 1), (0, 18), shapes):
        args = bit(zeros_and_ones(*shape)), secret(ranged(*shape, seed=1) if by else ring(*shape, seed=1), by)

        def want(d: Ints, x: Ints, keep: int = keep, by: int = by, axes: Shape = axes) -> tuple[Ints, ...]:
            kept = [np.where(d == keep, n, 0) for n in (neighbours(x, by) if by else (x, x))]
            return tuple(np.asarray(np.sum(n, axes)) for n in kept)

        attrs = {"keep": keep, "axes": axes} | ({"by": by} if by else {})
        yield Case(f"summed-{named(shape)}-on-{named(axes)}-by-{by}-keep-{keep}", args, emit("select", **attrs), want)


@row
def select() -> Iterator[Case]:
    for keep, shape in product((0, 1), SHAPES):
        args = bit(zeros_and_ones(*shape)), secret(ring(*shape, seed=1))
        want = lambda d, x, keep=keep: np.where(d == keep, x, 0)  # noqa: E731
        yield Case(f"{named(shape)}-keep-{keep}", args, emit("select", keep=keep), want)
    yield Case(
        "relu",
        (secret(ranged(100, limit=1 << 63)),),
        lambda b, x: b.emit("select", b.emit("sign", x, lo=0), x, keep=0),
        lambda x: np.maximum(x, 0),
    )
    for keep, (by, shape) in product((0, 1), [(19, s) for s in SHAPES] + [(by, (500,)) for by in SHIFTS]):
        args = bit(zeros_and_ones(*shape)), secret(ranged(*shape, seed=by), by)

        def truncated(d: Ints, x: Ints, keep: int = keep, by: int = by) -> tuple[Ints, ...]:
            return tuple(np.where(d == keep, n, 0) for n in neighbours(x, by))

        yield Case(f"truncated-{named(shape)}-by-{by}-keep-{keep}", args, emit("select", keep=keep, by=by), truncated)
    yield from sums_of_selects()
