"""Keys of distributed comparison functions: the compiled ones equal those of dcf.py, bit by bit, and both compare."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_settings import each_setting, native, ring, rng, same  # noqa: F401

from mpcnode import kernels
from mpcnode.kernels import U8, U64, dcf, reference

REACHES = [(0, 1), (0, 6), (3, 10), (0, 8), (5, 20), (18, 63), (0, 63)]  # bits lo .. top - 1


@pytest.mark.parametrize(("lo", "top"), REACHES)
def test_compiled_keys(setting: None, lo: int, top: int) -> None:
    for size in (0, 1, 2, 3, 4, 5, 9):
        r = rng(size, lo, top)
        x, roots, cuts = ring(r, size), ring(r, 2, size, 2), ring(r, 3)
        same("dcf_deal", x, roots, lo, top)
        key = r.integers(0, 256, (size, reference.dcf_bytes(top - lo)), np.uint8)  # any bytes are a key
        for first in (False, True):
            same("dcf_share", x, cuts, key, roots[0], lo, top, first=first)


def compared(x: U64, rho: U64, cuts: U64, lo: int, top: int, roots: U64) -> U8:
    """[C < rho] ^ rho's bit `top`, from both parties' shares."""
    key = kernels.dcf_deal(rho, roots, lo, top)
    parts = [kernels.dcf_share(x, cuts, key, roots[i], lo, top, first=i == 0) for i in range(2)]
    np.testing.assert_array_equal(parts[0][1], (x - cuts[:, None]) >> np.uint64(top) & np.uint64(1))
    np.testing.assert_array_equal(parts[0][1], parts[1][1])
    found: U8 = parts[0][0] ^ parts[1][0]
    return found


def wanted(x: U64, rho: U64, cuts: U64, lo: int, top: int) -> U8:
    kept = np.uint64((1 << (top - lo)) - 1)
    less = (x - cuts[:, None] >> np.uint64(lo) & kept) < (rho >> np.uint64(lo) & kept)
    return (less ^ (rho >> np.uint64(top) & np.uint64(1)).astype(bool)).astype(np.uint8)


@given(st.data(), st.integers(0, 62), st.integers(1, 63), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_keys_compare(data: st.DataObject, lo: int, width: int, size: int) -> None:
    top = min(63, lo + width)
    r = rng(data.draw(st.integers(0, 1 << 32)))
    rho = ring(r, size)
    x = rho ^ (ring(r, size) >> r.integers(0, 64, size).astype(np.uint64))  # they agree in many leading bits
    cuts = np.concatenate([np.array([0, 1, -1], np.int64).view(np.uint64), ring(r, 1)])
    found = compared(x, rho, cuts, lo, top, ring(r, 2, size, 2))
    np.testing.assert_array_equal(found, wanted(x, rho, cuts, lo, top))


@pytest.mark.parametrize("bits", [3, 7, 8, 9])
def test_keys_compare_all_numbers(bits: int) -> None:
    every = np.arange(1 << bits, dtype=np.uint64)
    x, rho = (v.reshape(-1) for v in np.meshgrid(every, np.arange(0, 2 << bits, 5, dtype=np.uint64)))
    none = np.zeros(1, np.uint64)
    found = compared(x, rho, none, 0, bits, ring(rng(bits), 2, x.size, 2))
    np.testing.assert_array_equal(found, wanted(x, rho, none, 0, bits))


def test_the_reference_compares() -> None:
    r = rng(3)
    x, roots, cuts = ring(r, 4), ring(r, 2, 4, 2), ring(r, 2)
    rho = x ^ np.array([0, 1, 1 << 20, 1 << 63], np.uint64)
    key = dcf.dcf_deal(rho, roots, 0, 63)
    one, other = (dcf.dcf_share(x, cuts, key, roots[i], 0, 63, first=i == 0)[0] for i in range(2))
    np.testing.assert_array_equal(one ^ other, wanted(x, rho, cuts, 0, 63))


def test_a_party_alone_sees_noise() -> None:
    """The same roots, two numbers that differ in one bit: of either party's share, half of all bits change with the
    number, and no more follow it than by chance.  (The statistics of whole runs: tests/property/test_secrecy.py.)
    """
    r, n = rng(4), 20_000
    x, roots, none = ring(r, n), ring(r, 2, n, 2), np.zeros(1, np.uint64)
    rho = r.integers(0, 2, n).astype(np.uint64) << np.uint64(62)  # so x < rho for a quarter of all, and bit 62 decides
    key = kernels.dcf_deal(rho, roots, 0, 63)
    truth = wanted(x, rho, none, 0, 63)[0]
    for i in range(2):
        share = kernels.dcf_share(x, none, key, roots[i], 0, 63, first=i == 0)[0][0]
        assert abs(share.mean() - 0.5) < 5 / (2 * n**0.5)
        assert abs((share ^ truth).mean() - 0.5) < 5 / (2 * n**0.5)
        assert abs((share ^ (rho >> np.uint64(62)).astype(np.uint8)).mean() - 0.5) < 5 / (2 * n**0.5)


@pytest.mark.parametrize("kernel", [native, reference], ids=["native", "reference"])
def test_what_is_no_key_is_refused(kernel: object) -> None:
    r = rng()
    x, roots, cuts = ring(r, 3), ring(r, 2, 3, 2), ring(r, 1)
    for lo, top in [(-1, 3), (4, 4), (0, 64)]:
        with pytest.raises(ValueError, match="of 63"):
            kernel.dcf_deal(x, roots, lo, top)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="of 63"):
            kernel.dcf_share(x, cuts, np.zeros((3, 16), np.uint8), roots[0], lo, top, first=True)  # type: ignore[attr-defined]
    for elements, width in [(3, 15), (2, 16), (3, 17)]:
        key = np.zeros((elements, width), np.uint8)
        with pytest.raises(ValueError, match=r"key: want uint8\[3, 16\]"):
            kernel.dcf_share(x, cuts, key, roots[0], 0, 5, first=True)  # type: ignore[attr-defined]


def test_arrays_that_do_not_fit_are_refused() -> None:
    r = rng()
    x, roots, cuts = ring(r, 3), ring(r, 2, 3, 2), ring(r, 1)
    with pytest.raises(ValueError, match="roots: want"):
        native.dcf_deal(x, roots[:, :2], 0, 5)
    with pytest.raises(ValueError, match="root: want"):
        native.dcf_share(x, cuts, np.zeros((3, 16), np.uint8), roots[0, :2], 0, 5, first=True)
