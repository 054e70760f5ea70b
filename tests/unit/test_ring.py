"""Numbers go into the ring and come back, and what does not fit is refused without being shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpcnode.ring import FRAC, LIMIT_BITS, RangeError, decode, encode, signed

LIMIT = 1 << LIMIT_BITS


@pytest.mark.parametrize("frac", [0, 1, FRAC, 40])
def test_numbers_come_back_to_half_a_unit(frac: int) -> None:
    bound = min(2.0**30, 2.0 ** (LIMIT_BITS - frac - 1))
    x = np.random.default_rng(frac).uniform(-bound, bound, 1000)
    assert np.abs(decode(encode(x, frac), frac) - x).max() <= 0.5 / 2**frac


def test_negative_numbers_are_twos_complement() -> None:
    assert encode([-1, -0.5, 0.5], 1).tolist() == [2**64 - 2, 2**64 - 1, 1]
    assert signed(encode([-1.0], FRAC)).tolist() == [-(1 << FRAC)]


def test_encoding_rounds_to_the_nearest_and_halves_to_even() -> None:
    assert signed(encode([0.24, 0.25, 0.26, 0.75, -0.26], 1)).tolist() == [0, 0, 1, 2, -1]


def test_whole_numbers_are_exact_beyond_the_53_bits_of_a_float() -> None:
    x = np.array([LIMIT - 1, 1 - LIMIT, (1 << 53) + 1])
    assert signed(encode(x, 0)).tolist() == x.tolist()
    assert encode([True, False], 0).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    for frac in (0, FRAC):
        assert encode(np.ones(shape), frac).shape == decode(encode(np.ones(shape), frac), frac).shape == shape


@pytest.mark.parametrize(
    ("x", "frac"),
    [
        (2.0**44, FRAC),
        (-(2.0**44), FRAC),
        (float("nan"), FRAC),
        (float("inf"), 0),
        (1e308, FRAC),
        (LIMIT, 0),
        (-LIMIT, 0),
        (np.uint64(1 << 63), 0),
        (np.int64(-(1 << 63)), 0),
        (1 << 70, 0),
        ([1.0, 2.0**50, 3.0], FRAC),
        ([1.0, float("nan")], FRAC),
    ],
)
def test_what_does_not_fit_is_refused(x: Any, frac: int) -> None:
    with pytest.raises(RangeError):
        encode(x, frac)


def test_the_largest_that_fits() -> None:
    below = np.nextafter(2.0**44, 0)
    assert decode(encode([below, -below], FRAC)).tolist() == [below, -below]


def test_a_refusal_shows_no_value() -> None:
    secret = 987654321987654321.0
    with pytest.raises(RangeError) as caught:
        encode([1.0, secret], FRAC)
    assert str(caught.value) == "a value is not below 2^44 in absolute value, the range of 18 fraction bits"
    assert "98765" not in repr(caught.value)


def test_views_of_any_layout_are_read() -> None:
    x = encode(np.arange(-6.0, 6.0).reshape(3, 4))
    assert np.array_equal(decode(x.T), np.arange(-6.0, 6.0).reshape(3, 4).T)
    assert np.array_equal(signed(x[::2, ::-1]), signed(x)[::2, ::-1])
