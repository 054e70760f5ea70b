"""Whole numbers: exactly what jax says, at halves, at whole numbers and one unit beside them; and integers' own ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from compiling import agree
from jax import lax
from rough import apply

from coordinator.lower import rounding
from coordinator.lower.builder import Builder, Value

ULP = 2.0**-18
RNG = np.random.default_rng(2)
EDGES = np.array([k / 2 + u for k in range(-9, 10) for u in (-ULP, 0, ULP)])
SPREAD = np.concatenate([EDGES, RNG.normal(size=3000) * 2.0 ** RNG.integers(-10, 25, 3000), [2.0**43 - 1, 1 - 2.0**43]])
WHOLE = np.concatenate([np.arange(-20, 21), RNG.integers(-(2**31) + 1, 2**31, 500), [2**31 - 1, 1 - 2**31]]).astype(
    np.int32
)


def raw(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function of ring elements, of numbers with 18 fraction bits."""
    return lambda b, x: function(b, b.shift(x, 18), 18)


ROUNDINGS = {
    "floor": (rounding.floor_shift, np.floor),
    "to zero": (rounding.to_zero_shift, np.trunc),
    "to even": (rounding.to_even_shift, np.rint),
    "away": (rounding.away_shift, lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5)),
}


@pytest.mark.parametrize("protocol", ["cleartext", "rough", "masked"])
@pytest.mark.parametrize("name", ROUNDINGS)
def test_exact_whichever_way_a_truncation_goes(name: str, protocol: str) -> None:
    function, want = ROUNDINGS[name]
    x = np.rint(SPREAD[: 200 if protocol == "masked" else None] / ULP) * ULP
    assert np.array_equal(apply(raw(function), x, protocol=protocol), want(x))


@pytest.mark.parametrize("c", [2, 3, 7, 8, 1000, 1_000_003, 2**30, 2**31 - 1])
def test_quotients_of_all_32_bits(c: int) -> None:
    def quotient(b: Builder, x: Value) -> Value:
        return rounding.to_zero_quotient(b, b.shift(x, 18), c)

    x = np.concatenate([WHOLE, [c, c - 1, c + 1, -c, 1 - c, -c - 1, 0]]).astype(np.float64)
    x = x[np.abs(x) < 2**31]
    got = apply(quotient, x * ULP)
    assert np.array_equal(got, np.trunc(x.astype(np.int64) / c))


def test_floats_as_jax() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, -3, 3, 1.25, -1.75, 1000.5], np.float32)
    agree(lambda x: (jnp.floor(x), jnp.ceil(x), jnp.round(x), jnp.trunc(x), lax.round(x), jnp.rint(x * 2)), x)
    agree(lambda x: (x.astype(jnp.int32), x.astype(jnp.int32) + 1, (x > 0).astype(jnp.int32)), x)
    agree(lambda x: (x // 0.5, x % 0.5, lax.rem(x, 2.0), x % 4), x)


def test_integers_as_jax() -> None:
    def program(i: Any) -> Any:
        divided = (i // 4, i % 4, i // 3, i % 3, i // -3, lax.div(i, 5), lax.rem(i, 5), jnp.mod(i, 2) == 0)
        return divided, (i >> 1, i & 3, ~i)

    agree(program, WHOLE)
    small = WHOLE[:41].reshape(-1, 1)
    agree(lambda i: (i << 2, i**3, jnp.minimum(i, 2), jnp.clip(i, -2, 3), jnp.where(i > 2, i, 0), i == 3), small)
    agree(
        lambda i: (i.min(0), i.max(), jnp.argmin(i, 0), jnp.sign(i), jnp.abs(i), i != i[::-1], i.any(), i.all()), small
    )
