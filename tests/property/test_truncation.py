"""Truncation gives one of the two neighbours of the quotient for every |z| < 2^62 and every mask, without bias."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from coordinator.lower.builder import Builder
from mpcnode import kernels
from mpcnode.engine import Hooks
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.protocols.fused import wrap_dtype
from mpcnode.simulate import simulate

LIMIT = 1 << 62
Array = Any


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([20, 19, seed])


def ring(random: np.random.Generator, *shape: int) -> Array:
    return random.integers(0, 1 << 64, shape, np.uint64)


def errors(got: Array, z: Array, by: int) -> Array:
    """got - z / 2^by in units of the last place; the whole parts are subtracted first, which is exact."""
    return (got - (z >> by)) - (z & ((1 << by) - 1)) / 2.0**by


def truncated(z: Array, r: Array, by: int, evaluators: int, random: np.random.Generator, times: int = 1) -> Array:
    """The kernels alone: z masked with r, dealt and truncated, and the result unmasked."""

    def shares(value: Array) -> list[Array]:
        parts = [ring(random, len(value)).astype(value.dtype) for _ in range(evaluators - 1)]
        return [value - sum(parts[1:], parts[0]), *parts]

    c = z.view(np.uint64) + r
    ts, bs = (shares(v) for v in kernels.trunc_deal(r, by, wrap_dtype(by), times))
    masks = shares(ring(random, len(z)).astype(wrap_dtype(by)))
    messages = [kernels.trunc_share(c, b, mask) for b, mask in zip(bs, masks, strict=True)]
    new_masks = [kernels.trunc_mask(t, mask, by) for t, mask in zip(ts, masks, strict=True)]
    m = kernels.trunc_open(c, sum(messages[1:], messages[0]), by, times)
    return (m - sum(new_masks[1:], new_masks[0])).view(np.int64)


def test_a_million_products_near_the_limit() -> None:
    """Every result is a neighbour, and their mean error is zero within 5 standard deviations of what the rounding of
    such fractions has (a false alarm is rarer than 1e-6)."""

    class Factors(Hooks):
        def read(self, op: Op) -> Array:
            return factors[op.text("dataset")].view(np.uint64)[:, None]

    random, n, by = rng(1), 1_000_000, 18
    x = random.integers(1 << 30, 1 << 32, n, np.int64) * (2 * random.integers(0, 2, n, np.int64) - 1)
    factors = {"x": x, "y": (LIMIT - 1) // np.abs(x)}
    z = factors["x"] * factors["y"]
    assert np.abs(z).min() > LIMIT - (1 << 32)
    found = simulate(product_graph(n, by), {}, "masked", hooks=lambda rank: Factors()).outputs["out"][:, 0]

    off = errors(found, z, by)
    fraction = (z & ((1 << by) - 1)) / 2.0**by
    assert np.abs(off).max() < 1
    assert abs(off.sum()) < 5 * np.sqrt((fraction * (1 - fraction)).sum())


def product_graph(n: int, by: int) -> Graph:
    b = Builder()
    x, y = (
        b.emit("input", type=Type(Kind.ARITH, 9, (n, 1)), owner="owner", dataset=name, columns=("v",)) for name in "xy"
    )
    b.emit("reveal", b.emit("trunc", b.emit("mul", x, y), by=by), to=("analyst",), name="out")
    return b.graph()


@pytest.mark.parametrize("evaluators", [2, 3])
def test_every_edge_meets_every_edge(evaluators: int) -> None:
    """Values and masks at their ends and around the bits where something carries over."""
    for by in range(1, 63):
        around = [0, 1 << (by - 1), 1 << by, 1 << 61, LIMIT - 1]
        values = {s * (v + d) for v, s, d in product(around, (1, -1), (-1, 0, 1)) if abs(v + d) < LIMIT}
        tops = [0, 1 << (by - 1), 1 << by, LIMIT, 3 * LIMIT, 1 << 63]
        masks = {(r + d) % (1 << 64) for r, d in product(tops, (-1, 0, 1))}
        wraps = {(-v - LIMIT + d) % (1 << 64) for v, d in product(values, (-1, 0, 1))}  # c' at 0
        pairs = list(product(sorted(values), sorted(masks | wraps)))
        z = np.array([v for v, _ in pairs], np.int64)
        r = np.array([r for _, r in pairs], np.uint64)
        off = truncated(z, r, by, evaluators, rng(by)) - (z >> by)
        assert np.all((off == 0) | ((off == 1) & (z & ((1 << by) - 1) != 0))), by


@pytest.mark.parametrize("evaluators", [2, 3])
def test_every_edge_of_a_factor(evaluators: int) -> None:
    """z·times / 2^by is one of its neighbours for every |z| < 2^62, though z·times does not fit; up exactly where its
    last bits are above those of c·times, c being the masked value, and so without bias.
    """
    for by in range(1, 63):
        for times in sorted({1, 2, 3, 12345, (1 << by) - 1, 1 << by, (1 << 31) - 1}):
            if times > min(1 << by, (1 << 31) - 1):
                continue
            random = rng(1000 * by + times % 997)
            edges = np.array([0, 1, -1, LIMIT - 1, 1 - LIMIT, 1 << 61, -(1 << 32), (1 << 32) - 1], np.int64)
            z = np.concatenate([edges, random.integers(1 - LIMIT, LIMIT, 200, np.int64) >> random.integers(0, 62, 200)])
            r = ring(random, len(z))
            last, pairs = (1 << by) - 1, zip(z.tolist(), r.tolist(), strict=True)
            up = [(v * times & last) > (((v + s) % (1 << 64)) * times & last) for v, s in pairs]
            want = [(v * times >> by) + u for v, u in zip(z.tolist(), up, strict=True)]
            assert truncated(z, r, by, evaluators, random, times).tolist() == want, (by, times)


@pytest.mark.parametrize("evaluators", [2, 3])
def test_rounding_is_at_a_threshold_that_evaluators_know(evaluators: int) -> None:
    """The functionality of docs/security.md: up exactly where z mod 2^by > c mod 2^by, c being the masked value."""
    for by in (1, 7, 18, 40, 62):
        random = rng(100 + by)
        z = random.integers(1 - LIMIT, LIMIT, 1000, np.int64) >> random.integers(0, 62, 1000)
        r, last = ring(random, 1000), (1 << by) - 1
        up = (z.view(np.uint64) & np.uint64(last)) > ((z.view(np.uint64) + r) & np.uint64(last))
        assert 0 < up.sum() < 1000
        np.testing.assert_array_equal(truncated(z, r, by, evaluators, random), (z >> by) + up)


def test_a_sign_without_its_last_bits_is_that_of_the_truncation() -> None:
    """The same threshold: so around zero, where it decides, both agree."""

    class Small(Hooks):
        def read(self, op: Op) -> Array:
            return z.view(np.uint64)[:, None]

    by = 18
    z = rng(6).integers(-(1 << by), 1 << by, 10_000, np.int64)
    b = Builder()
    x = b.emit("input", type=Type(Kind.ARITH, by, (len(z), 1)), owner="owner", dataset="x", columns=("v",))
    for name, value in (("sign", b.emit("sign", x, lo=by)), ("trunc", b.emit("trunc", x, by=by))):
        b.emit("reveal", value, to=("analyst",), name=name)
    found = simulate(b.graph(), {}, "masked", hooks=lambda rank: Small()).outputs
    np.testing.assert_array_equal(found["sign"].astype(bool), found["trunc"] < 0)
    assert 0 < (found["trunc"][z < 0] == 0).sum() < (z < 0).sum()  # the threshold decides, either way


def test_a_product_of_a_truncation_is_that_of_the_truncated_value() -> None:
    """The same threshold: so nobody can tell, and what a number is truncated to is one number wherever it goes."""

    class Column(Hooks):
        def read(self, op: Op) -> Array:
            return z.view(np.uint64)[:, None]

    by, n = 18, 10_000
    z = rng(7).integers(1 - LIMIT, LIMIT, n, np.int64) >> rng(8).integers(0, 62, n)
    b = Builder()
    x = b.emit("input", type=Type(Kind.ARITH, by, (n, 1)), owner="owner", dataset="x", columns=("v",))
    t, bit = b.emit("trunc", x, by=by), b.emit("sign", x, lo=0)
    products = {
        "mul": (b.emit("mul", t, x), b.emit("mul", x, x, by=by)),
        "square": (b.emit("mul", t, t), b.emit("square", x, by=by)),
        "select": (b.emit("select", bit, t, keep=1), b.emit("select", bit, x, keep=1, by=by)),
        "dropped": (b.emit("select", bit, t, keep=0), b.emit("select", bit, x, keep=0, by=by)),
    }
    for name, (apart, fused) in products.items():
        b.emit("reveal", b.shift(apart, apart.frac), to=("analyst",), name=name)
        b.emit("reveal", b.shift(fused, fused.frac), to=("analyst",), name=f"fused {name}")
    for evaluators in (2, 3):
        found = simulate(b.graph(), {}, "masked", evaluators=evaluators, hooks=lambda rank: Column()).outputs
        for name in products:
            np.testing.assert_array_equal(found[name], found[f"fused {name}"])


def test_beyond_the_limit_some_masks_wreck_the_result() -> None:
    """The range of the encoder and of the compiler is no whim."""
    z, r = np.full(1000, LIMIT + (1 << 60), np.int64), ring(rng(3), 1000)
    assert np.abs(errors(truncated(z, r, 18, 2, rng(4)), z, 18)).max() > 1


def test_local_truncation_would_be_caught() -> None:
    """Of what two parties do on their own, |z|/2^64 are wrecks: here a quarter.  The check above sees them."""
    n, by = 100_000, np.uint64(18)
    z, r = np.full(n, LIMIT - 1, np.int64), ring(rng(5), n)
    found = (((z.view(np.uint64) + r) >> by) - (r >> by)).view(np.int64)
    wrecks = int((np.abs(errors(found, z, 18)) >= 1).sum())
    assert abs(wrecks - n / 4) < 5 * (n * 3 / 16) ** 0.5
