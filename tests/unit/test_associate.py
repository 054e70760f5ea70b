"""Three factors: the late one last, where it is proved to be as good."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest
from compiling import agree, stages
from rough import apply, rounds, trace

from coordinator.lower import approx, associate
from coordinator.lower.builder import Builder, Value
from coordinator.lower.ranges import note
from coordinator.lower.rewrite import depth

RNG = np.random.default_rng(3)


def late(b: Builder, x: Value, low: float, high: float) -> Value:
    """x, some rounds later, with two more fraction bits, as a number that is known to lie between low and high."""
    for _ in range(3):
        x = b.mul(x, b.lift(b.fill(1.0, x)))
    return note(b, b.align(b.emit("mul", x, b.lift(b.fill(1.0, x))), 20), low, high)


def three(b: Builder, t: Value, a: Value, c: Value, *, ends: tuple[float, ...] = (0.1, 1.0, 1.0), again: bool) -> Value:
    """(t·a)·c as `divide` has the first product; ends: the range of t, and the largest |c|."""
    low, high, largest = ends
    t, a, c = late(b, t, low, high), b.align(a, 22), note(b, c, -largest, largest)
    inner = b.align(b.emit("mul", t, a), b.frac)
    return associate.mul(b, inner, c) if again else b.mul(inner, c)


SHAPES = [(64,)] * 3


@pytest.mark.parametrize(("low", "high", "largest"), [(0.1, 1.0, 1.0), (0.8, 8.0, 1.0), (0.2, 2.0, 7.0)])
def test_the_late_factor_is_multiplied_last(low: float, high: float, largest: float) -> None:
    """Two rounds less; the error is the same within a unit in the last place, also for large a."""
    ends = (low, high, largest)
    plain, other = (trace(three, *SHAPES, ends=ends, again=again) for again in (False, True))
    assert rounds(other) == rounds(plain) - 2
    t, c = RNG.uniform(low, high, 64), RNG.uniform(-largest, largest, 64)
    for size in (1.0, 2.0**16):
        a = RNG.uniform(-size, size, 64)
        errors = [np.abs(apply(three, t, a, c, ends=ends, again=again) - t * a * c).max() for again in (False, True)]
        assert errors[1] <= 1.05 * errors[0] + 2.0**-18


@pytest.mark.parametrize(
    "ends", [(0.0, 1.0, 1.0), (0.1, np.inf, 1.0), (0.1, 1.0, np.inf), (1e-3, 1.0, 1.0), (0.1, 1.0, 100.0)]
)
def test_not_where_ranges_prove_too_little(ends: tuple[float, ...]) -> None:
    plain, other = (trace(three, *SHAPES, ends=ends, again=again) for again in (False, True))
    assert rounds(other) == rounds(plain)


def test_not_where_another_factor_is_as_late() -> None:
    def f(b: Builder, t: Value, a: Value, c: Value) -> Value:
        t, c = late(b, t, 0.1, 1.0), note(b, late(b, c, 0, 1), 0, 1)
        return associate.mul(b, b.align(b.emit("mul", t, b.align(a, 22)), b.frac), b.align(c, 18))

    assert not [op for op in trace(f, *SHAPES).ops if op.name == "trunc" and op.type.frac > 20]


def test_the_gradient_of_a_softmax() -> None:
    def loss(logits: Any, labels: Any) -> Any:
        return optax.softmax_cross_entropy(logits, labels).mean()

    logits = RNG.normal(size=(16, 10)).astype(np.float32) * 3
    labels = np.eye(10, dtype=np.float32)[RNG.integers(0, 10, 16)]
    agree(jax.grad(loss), logits, labels, tolerance=2.0**-12)
    alone = stages(lambda x: jax.nn.logsumexp(x, axis=1), logits)["late"]
    assert depth(stages(jax.grad(loss), logits, labels)["late"]) <= depth(alone) + 6


def test_divisors_that_are_close_together_share_an_exponent() -> None:
    """The quotient's error is relative all the same."""

    def f(b: Builder, x: Value, y: Value) -> Value:
        return approx.divide(b, x, note(b, y, 1, 10))

    y = np.linspace(1, 10, 1000)
    for x in (np.full(1000, 1e-3), np.full(1000, 3.0), np.full(1000, 1e4)):
        error = np.abs(apply(f, x, y) - x / y)
        assert np.all(error <= 2.0**-12 * x / y + 2.0**-16)
    graph = trace(f, (1000,), (1000,))
    assert sum(op.name == "select" for op in graph.ops) == 1  # among pieces, and none among exponents
