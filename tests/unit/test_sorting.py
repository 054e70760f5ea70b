"""Sorts: exact, stable and by several keys, by rank and by network; and what is running along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import agree, stages
from jax import lax
from rough import apply, trace

from coordinator.lower import sorting
from coordinator.lower.builder import Builder, Value
from coordinator.lower.rewrite import depth

RNG = np.random.default_rng(1)
X = RNG.normal(size=(4, 3)).astype(np.float32)
TIED = RNG.integers(-2, 3, size=(5, 3)).astype(np.int32)

CASES: dict[str, Callable[..., Any]] = {
    "sort": lambda x, i: (jnp.sort(x), jnp.sort(x, 0), jnp.sort(x, descending=True), jnp.sort(i, 0)),
    "argsort": lambda x, i: (jnp.argsort(x), jnp.argsort(x, 0, descending=True)),
    "ties": lambda x, i: (jnp.argsort(i.ravel()), jnp.argsort(-i, 0, stable=True), lax.top_k(i.ravel(), 4)),
    "several": lambda x, i: lax.sort((i, i > 0, (i > 1).astype(float)), dimension=0, num_keys=1),
    "keys": lambda x, i: lax.sort((i // 1, i[::-1], i * 2), dimension=0, num_keys=2),
    "largest": lambda x, i: (lax.top_k(x, 2), lax.top_k(x, 3)),
    "quantiles": lambda x, i: (jnp.median(x, 0), jnp.quantile(x, 0.3, axis=0), jnp.percentile(x, 90)),
    "of one": lambda x, i: (jnp.sort(x[:1], 0), jnp.argsort(x[:1], 0), lax.top_k(x[:, :1], 1)),
    "sums": lambda x, i: (jnp.cumsum(x, 1), jnp.cumsum(i, 0), lax.cumsum(x, 0, reverse=True)),
    "products": lambda x, i: (
        jnp.cumprod(x, 1),
        jnp.cumprod(i, 0),
        lax.cumprod(x, 0, reverse=True),
        x.prod(),
        i.prod(0),
    ),
    "extremes": lambda x, i: (lax.cummax(x, 0), lax.cummin(i, 1), lax.cummax(x, 0, reverse=True)),
    "logarithms": lambda x, i: lax.cumlogsumexp(x, 0),
    "gradients": lambda x, i: jax.grad(lambda x: (jnp.cumsum(x, 1) ** 2).sum())(x),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("by_rank", [True, False])
def test_as_jax(name: str, by_rank: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "by_rank", lambda *args: by_rank)
    agree(CASES[name], X, TIED)


@pytest.mark.parametrize("n", range(1, 18))
def test_the_network_sorts_every_row_of_zeros_and_ones(n: int) -> None:
    """So it sorts everything (Knuth, volume 3, section 5.3.4, theorem Z); in t(t + 1)/2 layers of disjoint pairs."""
    rows = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 if n < 13 else np.tri(n + 1, n, -1)[:, RNG.permutation(n)]
    x, found = np.array(rows), list(sorting.layers(n))
    t = max(0, math.ceil(math.log2(n)))
    assert len(found) == t * (t + 1) // 2
    for layer in found:
        assert len({place for pair in layer for place in pair}) == 2 * len(layer)
        for i, j in layer:
            x[:, i], x[:, j] = np.minimum(x[:, i], x[:, j]), np.maximum(x[:, i], x[:, j])
    assert np.array_equal(x, np.sort(rows, 1))


@pytest.mark.parametrize("by_rank", [True, False])
@pytest.mark.parametrize("n", [2, 7, 33])
def test_any_number_of_entries(n: int, by_rank: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "by_rank", lambda *args: by_rank)
    x = np.concatenate([RNG.integers(-3, 4, (n, 4)) / 2, RNG.integers(-3, 4, (n, 1)) * 2.0**40], 1)
    got = apply(lambda b, x: sorting.sort(b, [x], 1)[0], x)
    assert np.array_equal(got, np.sort(x, 0))


def test_by_rank_takes_seven_rounds_and_few_comparisons_decide_for_the_network() -> None:
    for rows, rounds in ((20, sorting.RANK_ROUNDS - 1), (60, sorting.RANK_ROUNDS)):  # the fewer comparisons take two
        assert depth(stages(lambda x: jnp.sort(x, 0), RNG.normal(size=(rows, 3)))["final"]) == 1 + rounds
    assert sorting.by_rank(100, 1, 1, 100)
    assert not sorting.by_rank(1 << 14, 1, 1, 1 << 14)
    assert not sorting.by_rank(100, 10_000, 1, 100)


def test_places_stay_a_permutation_where_numbers_differ_by_what_is_cut_off() -> None:
    """Products that differ below the last bit: comparisons of the untruncated ones need not agree with each other."""

    def places(b: Builder, x: Value) -> Value:
        return b.emit("scale", sorting.ranks(b, [b.mul(x, x)]), by=1, frac=0)

    x = 2.0**-9 + np.arange(12).reshape(12, 1) * np.ones((1, 50)) * 2.0**-18
    for seed in range(3):
        assert np.array_equal(np.sort(apply(places, x, seed=seed), 0), np.tile(np.arange(12)[:, None], 50))


def test_under_masks() -> None:
    x = RNG.integers(-3, 4, (9, 4)) / 2
    assert np.array_equal(apply(lambda b, x: sorting.sort(b, [x], 1)[0], x, protocol="masked"), np.sort(x, 0))
    assert trace(lambda b, x: sorting.sort(b, [x], 1)[0], (9, 4)).digest()
