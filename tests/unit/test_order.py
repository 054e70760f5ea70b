"""Maxima, where they stand, and signs: exact, with ties, for any number of entrants, in the rounds that are stated."""

from __future__ import annotations

import numpy as np
import pytest
from rough import apply, count, evaluate, rounds, trace

from coordinator.lower import order, passes
from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import range_of
from coordinator.lower.rewrite import depth
from mpcnode.protocols.comparison import sign_cost

ULP = 2.0**-18


def tied(entrants: int, size: int, seed: int = 0) -> np.ndarray:
    """Numbers of which many are equal."""
    rng = np.random.default_rng([entrants, size, seed])
    return rng.integers(-2, 3, (size, entrants)) * rng.choice([ULP, 1.0, 2.0**30])


@pytest.mark.parametrize("entrants", [1, 2, 3, 4, 5, 7, 9, 10, 16, 17, 33, 100, 1000])
@pytest.mark.parametrize("size", [1, 6])
def test_maximum_over_an_axis(entrants: int, size: int) -> None:
    x = tied(entrants, size)
    assert np.array_equal(apply(order.reduce_max, x, axis=1), x.max(1))
    assert np.array_equal(apply(order.reduce_min, x, axis=-1), x.min(1))
    assert np.array_equal(apply(order.argmax, x, axis=1), x.argmax(1))
    assert np.array_equal(apply(order.argmin, x, axis=-1), x.argmin(1))


@pytest.mark.parametrize("entrants", [4, 10, 50])
def test_many_maxima(entrants: int) -> None:
    x = tied(entrants, 5000)
    assert np.array_equal(apply(order.reduce_max, x, axis=1), x.max(1))
    assert np.array_equal(apply(order.argmax, x, axis=1), x.argmax(1))
    assert np.array_equal(apply(order.reduce_max, x, axis=0), x.max(0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis(axis: int) -> None:
    x = np.random.default_rng(1).integers(-9, 9, (3, 4, 5)) / 2
    assert np.array_equal(apply(order.reduce_max, x, axis=axis), x.max(axis))
    assert np.array_equal(apply(order.argmax, x, axis=axis), x.argmax(axis))


def test_a_vector_has_a_scalar_maximum() -> None:
    x = np.array([3.0, 7.5, -1.0])
    assert apply(order.reduce_max, x, axis=0).shape == ()
    assert apply(order.argmax, x, axis=0) == 1


def test_no_values_have_no_maximum() -> None:
    with pytest.raises(ValueError, match="no values"):
        trace(order.reduce_max, (3, 0), axis=1)


def test_an_index_has_no_fraction_bits() -> None:
    assert trace(order.argmax, (2, 5), axis=1).ops[-1].type.frac == 0


@pytest.mark.parametrize(
    ("entrants", "most"), [(1, 0), (2, 4), (4, 5), (8, 5), (10, 5), (16, 6), (32, 6), (100, 10), (1000, 12)]
)
def test_rounds_of_few_maxima(entrants: int, most: int) -> None:
    for f in (order.reduce_max, order.argmax):
        graph = trace(f, (2, entrants), axis=1)
        assert rounds(graph) == order.rounds_of(entrants, 2) <= most


@pytest.mark.parametrize("size", [1, 100, 10_000, 1_000_000])
def test_comparisons_fall_as_maxima_become_many(size: int) -> None:
    graph = trace(order.reduce_max, (size, 10), axis=1)
    assert rounds(graph) == order.rounds_of(10, size)
    assert count(graph, "sign") <= size * (45 if size < 1000 else 15 if size < 100_000 else 10)


def test_elementwise() -> None:
    x = np.array([-(2.0**40), -3.5, -ULP, 0, ULP, 2.25, 2.0**40])
    y = x[::-1].copy()
    assert np.array_equal(apply(order.relu, x), np.maximum(x, 0))
    assert np.array_equal(apply(order.abs_, x), np.abs(x))
    assert np.array_equal(apply(order.sign_, x), np.sign(x))
    assert np.array_equal(apply(order.maximum, x, y), np.maximum(x, y))
    assert np.array_equal(apply(order.minimum, x, y), np.minimum(x, y))
    assert np.array_equal(apply(lambda b, x: order.maximum(b, x, b.fill(1.5, x)), x), np.maximum(x, 1.5))
    for f in (order.relu, order.abs_, order.sign_):
        assert rounds(trace(f, (3,))) == 4
    assert rounds(trace(order.maximum, (3,), (3,))) == 4


@pytest.mark.parametrize(
    ("size", "two", "more"), [(1, 1, 2), (70, 1, 2), (100, 2, 2), (500, 2, 2), (5000, 3, 3), (200_000, 3, 3)]
)
def test_few_comparisons_take_fewer_rounds(size: int, two: int, more: int) -> None:
    graph = trace(order.negative, (size,))
    assert depth(graph) == 1 + two  # the input's
    assert sign_cost(0, 63, size)[0] == two
    assert sign_cost(0, 63, size, evaluators=3)[0] == more


@pytest.mark.parametrize("cuts", [2, 7, 45])
@pytest.mark.parametrize("size", [0, 1, 20, 64, 100, 1000, 5000, 200_000])
def test_comparisons_of_one_number_with_several_are_no_dearer_than_each_by_itself(size: int, cuts: int) -> None:
    for lo, top in ((0, 63), (18, 63), (10, 36), (0, 20), (0, 9), (0, 3)):
        joined, apart = sign_cost(lo, top, size, cuts), sign_cost(lo, top, cuts * size)
        assert joined[0] <= apart[0]
        assert joined[0] < apart[0] or joined[2] <= apart[2]


def test_ranges_follow() -> None:
    seen = {}

    def f(b: Builder, x: Value) -> Value:
        seen["relu"] = range_of(b, order.relu(b, x))
        seen["abs"] = range_of(b, order.abs_(b, x))
        seen["sign"] = range_of(b, order.sign_(b, x))
        seen["square"] = range_of(b, b.mul(x, x))
        seen["clipped"] = range_of(b, order.minimum(b, order.maximum(b, x, b.fill(-1.0, x)), b.fill(2.0, x)))
        seen["sum"] = range_of(b, b.emit("sum", order.sign_(b, x), axes=(0,)))
        return x

    trace(f, (3,))
    infinite = float("inf")
    assert seen["relu"] == seen["abs"] == seen["square"] == (0, infinite)
    assert (seen["sign"], seen["clipped"], seen["sum"]) == ((-1, 1), (-1, 2), (-3, 3))


def test_under_masks() -> None:
    x = tied(10, 7)
    assert np.array_equal(apply(order.reduce_max, x, axis=1, protocol="masked"), x.max(1))
    assert np.array_equal(apply(order.argmax, x, axis=1, protocol="masked"), x.argmax(1))
    assert np.array_equal(apply(order.reduce_min, x, axis=0, protocol="masked"), x.min(0))


@pytest.mark.parametrize("stage", ["late", "final", "narrow"])
def test_of_values_closer_than_a_unit_one_wins(stage: str) -> None:
    """Comparisons before truncation see more than its result has; passing over that, they may go round in circles."""
    x = np.full((5, 64), 0.0625)
    y = 100 * 16 + np.random.default_rng(3).integers(-3, 4, x.shape) * 2.0**-18  # products within a unit of each other

    def largest(b: Builder, x: Value, y: Value) -> Value:
        return order.reduce_max(b, b.mul(x, y), 0)

    graph = passes.compile(trace(largest, x.shape, y.shape), assume=True)[stage]
    for seed in range(5):
        found = evaluate(graph, x, y, seed=seed)
        assert np.abs(found - 100).max() < 2.0**-16
