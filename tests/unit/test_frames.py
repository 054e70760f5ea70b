"""Functions of numbers whose sizes are known keep to their errors, at every size, with the roughest rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rough import OWNER, Rough, trace

from coordinator.lower.approx import frames
from coordinator.lower.points import Seen
from coordinator.lower.ranges import note
from mpcnode.engine import execute
from mpcnode.party import Party, seeded_keys
from mpcnode.simulate import SimulatedHooks, decode, run

Numbers = Any
UNIT = 2.0**-12


def applied(function: Any, *xs: Numbers, frac: int) -> Numbers:
    """The function of values with `frac` fraction bits, whatever it returns."""
    graph = trace(function, *(x.shape for x in xs), frac=frac)
    data = {(OWNER, f"d{i}"): x.reshape(-1, 1) for i, x in enumerate(xs)}
    party = Party(0, [OWNER], seeded_keys(1, b"frames")[0])
    [[parts], _] = run([execute(party, Rough(1), graph, SimulatedHooks(data))])
    return decode(parts["out"], graph.ops[-1].type)


def met(x: Numbers) -> Seen:
    a = np.abs(x[x != 0])
    return Seen(float(a.max()), float(np.exp(np.log(a).mean())), float(a.min()))


@pytest.fixture(params=[-30, -13, 0, 24], ids=lambda top: f"2^{top}")
def spread(request: pytest.FixtureRequest) -> tuple[Numbers, int]:
    """Numbers over 24 octaves below 2^top, and their binary point."""
    frac = met(np.array([2.0**request.param * 0.999, 2.0 ** (request.param - 24)])).point(18)
    x = 2.0**request.param * 0.999 * 2.0 ** -np.linspace(0, 24, 1500)
    return np.rint(x * 2.0**frac) / 2.0**frac, frac


def test_roots(spread: tuple[Numbers, int]) -> None:
    x, frac = spread
    seen = met(x)
    error = np.abs(applied(lambda b, v: frames.sqrt(b, note(b, v, 0), seen), x, frac=frac) - np.sqrt(x))
    assert np.all(error <= UNIT * np.maximum(np.sqrt(x), 2.0 ** (seen.top / 2 - 10)))


def test_inverse_roots(spread: tuple[Numbers, int]) -> None:
    x, frac = spread
    y = applied(lambda b, v: frames.rsqrt(b, note(b, v, 0), met(x)), x, frac=frac)
    assert np.abs(y * np.sqrt(x) - 1).max() <= UNIT


def test_quotients(spread: tuple[Numbers, int]) -> None:
    y, frac = spread
    x = np.rint(y * np.random.default_rng(0).normal(size=len(y)) * 2.0**frac) / 2.0**frac
    quotient = met(x / y)
    got = applied(lambda b, u, v: frames.divide(b, u, note(b, v, 0), met(y), quotient), x, y, frac=frac)
    assert np.all(np.abs(got - x / y) <= UNIT * np.abs(x / y) + 2.0 ** (quotient.top - 30))


def test_numbers_that_exceed_what_was_met_within_the_margin() -> None:
    x = 1e-9 * np.geomspace(1e-3, 15.9, 200)
    seen = met(x[x <= 1e-9])
    y = applied(lambda b, v: frames.sqrt(b, note(b, v, 0), seen), x, frac=seen.point(18))
    assert np.abs(y / np.sqrt(x) - 1).max() < 2 * UNIT


def test_the_least_root() -> None:
    """What is too small to have a root but 0, and the guard that follows."""
    seen = Seen(1e-5, 1e-9, 1e-12)
    assert math.log2(frames.grid(seen)) == -9 - (20 - seen.top) // 2
    assert frames.grid(seen) < 1e-8 < frames.grid(Seen(1e-3, 1e-9, 1e-12))
