"""Loops: forwards, in reverse, in each other and side by side, over secret and public scans, with stacked results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from rows import TILE, Case, Ints, Shape, bit, named, public, ring, row, secret, zeros_and_ones

from coordinator.lower.builder import Builder, Value
from mpcnode.graph import Graph, Type

Write = Callable[..., list[Value]]  # (builder, *params) -> outputs


def body(types: list[Type], write: Write) -> Graph:
    b = Builder()
    return b.graph(write(b, *(b.emit("param", index=i, type=t) for i, t in enumerate(types))))


def looped(
    b: Builder, length: int, consts: list[Value], carry: list[Value], scans: list[Value], write: Write, reverse: int = 0
) -> list[Value]:
    """All results of a loop: carried values, then stacked ones."""
    types = [v.type for v in (*consts, *carry)] + [v.type._replace(shape=v.shape[1:]) for v in scans]
    inside = body(types, write)
    attrs = {"length": length, "reverse": reverse, "consts": len(consts), "carry": len(carry), "body": inside}
    loop = b.emit("loop", *consts, *carry, *scans, **attrs)
    return [b.emit("get", loop, index=i) for i in range(len(inside.outputs))]


def joined(b: Builder, *values: Value) -> Value:
    """Values of any shapes in one vector."""
    return b.emit("concat", *(b.reshape(v, (v.type.size,)) for v in values), axis=0)


def flat(*values: Any) -> Ints:
    return np.concatenate([np.asarray(v, np.int64).reshape(-1) for v in values])


def power(b: Builder, x: Value, y: Value, length: int) -> Value:
    """x·y^length."""
    return looped(b, length, [y], [x], [], lambda b, y, x: [b.emit("mul", x, y)])[0]


# ---- one loop with every kind of argument and result -----------------------------------------------------------------
def scan(b: Builder, c: Value, start: Value, xs: Value, ps: Value, reverse: int) -> Value:
    """carry' = carry·c + x_t·p_t; stacked: carry (secret), x_t (secret), p_t + p_t (public)."""

    def write(b: Builder, c: Value, carry: Value, x: Value, p: Value) -> list[Value]:
        step = b.emit("add", b.emit("mul", carry, c), b.emit("mul", x, p))
        return [step, carry, x, b.emit("add", p, p)]

    end, carries, seen, doubled = looped(b, xs.shape[0], [c], [start], [xs, ps], write, reverse)
    return joined(b, end, carries, seen, b.emit("lift", doubled, kind="arith"))


def scan_in_numpy(c: Ints, start: Ints, xs: Ints, ps: Ints, reverse: int) -> Ints:
    carry, carries = start, np.empty_like(xs)
    for t in range(len(xs))[:: -1 if reverse else 1]:
        carries[t] = carry
        carry = carry * c + xs[t] * ps[t]
    return flat(carry, carries, xs, ps + ps)


# ---- a loop in a loop ------------------------------------------------------------------------------------------------
def nest(b: Builder, x: Value, xs: Value, ps: Value) -> Value:
    """For each s of xs, and in it for each p of ps from the last: x = x·s + p.  Revealed: x, the parity of how often it
    was negative, and for each s the sum of the inner x."""

    def inner(b: Builder, s: Value, x: Value, parity: Value, p: Value) -> list[Value]:
        x = b.emit("add", b.emit("mul", x, s), b.spread(p, x.shape))
        return [x, b.emit("xor", parity, b.emit("sign", x, lo=0)), x]

    def outer(b: Builder, ps: Value, x: Value, parity: Value, s: Value) -> list[Value]:
        x, parity, trail = looped(b, ps.shape[0], [s], [x, parity], [ps], inner, reverse=1)
        return [x, parity, b.emit("sum", trail, axes=(0,))]

    zeros = b.emit("lift", b.raw(np.zeros(x.shape, np.int64), 0), kind="bit")
    x, parity, sums = looped(b, xs.shape[0], [ps], [x, zeros], [xs], outer)
    return joined(b, x, b.emit("inject", parity), sums)


def nest_in_numpy(x: Ints, xs: Ints, ps: Ints) -> Ints:
    parity, sums = np.zeros_like(x), []
    for s in xs:
        trail = []
        for p in ps[::-1]:
            x = x * s + p
            parity = parity ^ (x < 0)
            trail.append(x)
        sums.append(np.sum(trail, axis=0))
    return flat(x, parity, *sums)


@row
def loop() -> Iterator[Case]:
    shapes: list[Shape] = [(), (1,), (2, 3)]
    for reverse, length, shape in product((0, 1), (1, 4), shapes):
        label = f"scan-{length}-of-{named(shape)}{'-reverse' * reverse}"
        args = (
            secret(ring(*shape, seed=1)),
            secret(ring(*shape, seed=2)),
            secret(ring(length, *shape, seed=3)),
            public(ring(length, *shape, seed=4)),
        )
        yield Case(label, args, partial(scan, reverse=reverse), partial(scan_in_numpy, reverse=reverse))
    for shape in shapes:
        args = (secret(ring(*shape, seed=1)), secret(ring(3, *shape, seed=2)), public(ring(2, seed=3)))
        yield Case(f"nest-{named(shape)}", args, nest, nest_in_numpy)
    yield Case(
        "carries-nothing",
        (secret(ring(3)),),
        lambda b, x: looped(b, 3, [], [], [x], lambda b, x: [b.emit("neg", x)])[0],
        np.negative,
    )
    yield Case("tiles", (secret(ring(TILE + 5)),), lambda b, x: power(b, x, x, 3), lambda x: x**4)
    yield Case(
        "side-by-side",
        (secret(ring(5, seed=1)), secret(ring(5, seed=2))),
        lambda b, x, y: b.emit("add", power(b, x, y, 2), power(b, x, y, 5)),
        lambda x, y: x * y**2 + x * y**5,
    )


# ---- what goes in, and what comes out --------------------------------------------------------------------------------
ROLES = ("const", "carry", "scan")


def passed(b: Builder, x: Value, role: str) -> Value:
    """x through a loop of three steps: as a const that is stacked, carried, or scanned and stacked."""
    consts, carry, scans = ([x] if role == r else [] for r in ROLES)
    return looped(b, 3, consts, carry, scans, lambda b, x: [x])[0]


@row
def param() -> Iterator[Case]:
    kinds = (("secret", secret, ring), ("bit", bit, zeros_and_ones), ("public", public, ring))
    for (name, kind, make), role, shape in product(kinds, ROLES, ((3,), (3, 2))):
        want = (lambda x: np.stack([x] * 3)) if role == "const" else lambda x: x
        yield Case(f"{name}-as-{role}-{named(shape)}", (kind(make(*shape)),), partial(passed, role=role), want)


def picked(b: Builder, x: Value, y: Value, index: int) -> Value:
    return looped(b, 3, [], [x, y], [], lambda b, x, y: [y, x, b.emit("add", x, y), y])[index]


def picked_in_numpy(x: Ints, y: Ints, index: int) -> Ints:
    return [y, x, np.stack([x + y] * 3), np.stack([y, x, y])][index]


@row
def get() -> Iterator[Case]:
    for index in range(4):
        args = secret(ring(2, seed=1)), secret(ring(2, seed=2))
        yield Case(str(index), args, partial(picked, index=index), partial(picked_in_numpy, index=index))
