"""Powers of known and secret bases, by integers and floats, in loops and outside; bias corrections of optimisers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import agree, evaluated, traced
from jax import lax

from coordinator.frontend import CompileError
from coordinator.lower.passes import compile

FINE = 2.0**-16  # of a known base to a secret integer
CURVE = 2.0**-11  # of exp(y·log x), for small y
COUNTS = np.array([1, 5, 20, 0, 3, 1000], np.int32)
FLOATS = np.array([1, 5.25, 20, 0, -3, 0.5], np.float32)
BASES = np.array([0.5, 1.5, 2, 0.875, 0.25, 1], np.float32)
FEW = np.array([1, 5, 2, 0, 3, 4], np.int32)


@pytest.mark.parametrize("base", [0.9, 0.999, 0.9999, 0.5, 1.0, 1.01, 0.1])
def test_a_known_base_to_secret_integers(base: float) -> None:
    agree(lambda n: (base**n, base**-n, jnp.power(jnp.float32(base), n)), FEW[:5], tolerance=FINE)
    agree(lambda n: (base**n, 1 - jnp.asarray(base) ** n), COUNTS if base <= 1 else FEW, tolerance=FINE)


def test_known_bases_to_secret_integers_and_floats() -> None:
    bases = jnp.array([0.9, 1.1, 0.999, 0.5, 2, 0.1])
    agree(lambda n: (bases**n, bases[:, None] ** n), FEW, tolerance=FINE)
    agree(lambda y: (0.9**y, 2.0**-y, jnp.array([0.9, 1.1, 0.999, 0.5, 2, 0.1]) ** y), FLOATS, tolerance=CURVE)


def test_a_secret_base() -> None:
    agree(lambda x, n, y: (x**n, x ** (y / 4), x**3, x**-2, x ** jnp.arange(6)), BASES, FEW, FLOATS, tolerance=CURVE)
    agree(lambda n: (n**3, n.astype(float) ** -0.5), FEW + 1)


def test_powers_in_loops() -> None:
    bases, steps = jnp.array([0.5, 0.9, 0.999]), jnp.arange(3)
    agree(lambda n: lax.scan(lambda n, b: (n + 1, b**n), n, bases)[1], COUNTS, tolerance=FINE)
    agree(lambda n: lax.scan(lambda n, _: (n + 1, 0.9**n), n, None, length=3)[1], COUNTS, tolerance=FINE)
    agree(lambda y: lax.scan(lambda y, b: (y / 2, b**y), y, bases)[1], FLOATS, tolerance=CURVE)
    agree(lambda x: lax.scan(lambda x, k: (x / 2 + 0.25, (x**k, x[:, None] ** k)), x, steps)[1], BASES)
    agree(lambda x, n: lax.scan(lambda x, _: (x / 2 + 0.5, x**n), x, steps)[1], BASES, FEW, tolerance=2 * CURVE)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("protocol", ["cleartext", "masked"])
def test_bias_is_corrected_for_a_secret_count(protocol: str, calibrated: bool) -> None:
    """Adam's 1 - b^count where the count is kept among the secrets, from the first step on."""
    adam = optax.scale_by_adam(b2=0.999)
    slopes = np.array([1, -0.5, 0.25, 2], np.float32)

    def steps(count: Any, slopes: Any) -> Any:
        zeros = jnp.zeros_like(slopes)
        state = optax.ScaleByAdamState(count[0], zeros, zeros)
        return lax.scan(lambda state, k: adam.update(slopes * k, state)[::-1], state, jnp.array([1.0, 2, 0.5]))[1]

    count = np.zeros(1, np.int32)
    graph = compile(traced(steps, count, slopes, calibrated=calibrated).graph)["final"]
    [got] = evaluated(graph, count, slopes, protocol=protocol).values()
    assert np.abs(got - steps(count, slopes)).max() < 0.05


def test_a_negative_base_is_refused() -> None:
    with pytest.raises(CompileError, match=r"test_powers.py:\d+: primitive 'pow': wants a positive number as its base"):
        traced(lambda n: (-0.5) ** n, COUNTS)


def test_division_by_what_is_zero_for_certain() -> None:
    """As by any zero: what is near 0 passes for 2^-12."""
    x, y = np.array([1.0, -2], np.float32), np.array([3.0, 0.5], np.float32)
    graph = compile(traced(lambda x, y: (1 / (x * 0.0), y / (x * 0.0), 1 / (x * 0.0).sum()), x, y).graph)["final"]
    inverse, quotient, one = evaluated(graph, x, y).values()
    assert np.allclose(inverse, 4096, rtol=1e-3)
    assert np.allclose(quotient, 4096 * y, rtol=1e-3)
    assert np.allclose(one, 4096, rtol=1e-3)


def test_negative_numbers_are_divided_by() -> None:
    agree(lambda x, y: (1 / -jnp.abs(x), y / -jnp.exp(x), y / -jnp.square(x)), BASES, FLOATS)


def test_the_gradient_by_a_secret_base() -> None:
    agree(jax.grad(lambda x: (x ** jnp.array([1, 2, 3, 4, 2, 1])).sum()), BASES)
