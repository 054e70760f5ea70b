"""The compiled share formulas and bit planes equal reference.py, for every instruction set of this processor and for
one and two threads; and leaves and gates compare numbers.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_settings import LAYOUTS, SIZES, bits, each_setting, native, odd, ring, rng, same, view  # noqa: F401

from mpcnode import kernels
from mpcnode.kernels import U64, reference


# ---- elementwise -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [False, True])
def test_share_formulas(setting: None, first: bool) -> None:
    for size in [*SIZES, 40_001]:
        r = rng(size)
        x = [ring(r, size) for _ in range(6)]
        same("mul_share", *x, first=first)
        for terms in (0, 1, 3):
            rows = [ring(r, terms, size) for _ in range(4)]
            same("select_share", bits(r, terms, size), *rows, x[0], first=first)
        same("inject_share", bits(r, size), *x[:2], first=first)
        for by, kind in [
            (1, np.uint8),
            (8, np.uint8),
            (16, np.uint16),
            (18, np.uint32),
            (32, np.uint32),
            (36, np.uint64),
            (62, np.uint64),
        ]:
            same("trunc_deal", x[0], by, kind)
            wrap, product = (v.astype(kind) for v in x[2:4])
            same("trunc_share", x[0], wrap, product)
            same("trunc_open", x[0], wrap, by)
            for times in (2, min((1 << 31) - 1, 1 << by)):
                same("trunc_deal", x[0], by, kind, times)
                same("trunc_open", x[0], wrap, by, times)
            same("trunc_mask", x[0], wrap, by)
            for kernel in (native, reference):
                opened, mask = ring(r, 2, size)[1], x[0].copy()
                assert kernel.trunc_open(x[0], wrap, by, out=opened) is opened
                assert kernel.trunc_mask(mask, wrap, by, mask) is mask
                np.testing.assert_array_equal(opened, reference.trunc_open(x[0], wrap, by))
                np.testing.assert_array_equal(mask, reference.trunc_mask(x[0], wrap, by))
            same("select_trunc_deal", bits(r, size), x[0], by, kind)
            for terms in (0, 1, 3):
                rows = [ring(r, terms, size) for _ in range(6)]
                narrow = [v.astype(kind) for v in rows[4:]]
                share = bits(r, terms, size), *rows[:2], narrow[0], *rows[2:4], narrow[1], x[0]
                same("select_trunc_share", *share, by, first=first)
            same("mul_trunc_deal", x[0], x[1], by, kind)
            same("mul_trunc_share", *x[:4], wrap, x[4], product, x[5], by, first=first)
            same("square_trunc_deal", x[0], by, kind)
            same("square_trunc_share", *x[:2], wrap, x[4], product, x[5], by, first=first)


def test_waxpby(setting: None) -> None:
    for size in [*SIZES, 40_001]:
        r = rng(size)
        x, y = ring(r, size), ring(r, size)
        for by in (1, -1, 2, int(ring(r))):
            for n in (1, 2, 3, 4, 5):
                same("waxpby", by, x, -n * by, y)


def test_waxpby_keeps_the_order_of_axes(setting: None) -> None:
    r = rng()
    for how in LAYOUTS:
        x, y = view(r, how, 30, 41), view(r, how, 30, 41)
        for left, right in [(x, y), (x, ring(r, 30, 41)), (ring(r, 30, 41), y)]:
            got, want = native.waxpby(3, left, -2, right), reference.waxpby(3, left, -2, right)
            np.testing.assert_array_equal(got, want, strict=True)
    for shape in [(0, 3), (1, 7, 1), (2, 3, 4, 5, 6)]:
        x, y = ring(r, *shape), ring(r, *shape)
        for axes in [range(len(shape)), range(len(shape))[::-1], np.roll(range(len(shape)), 2)]:
            moved = x.transpose(axes)
            for kernel in (native, reference):
                got = kernel.waxpby(1, moved, -2, y.transpose(axes))
                assert got.shape == moved.shape and got.transpose(np.argsort(axes)).flags.c_contiguous
                np.testing.assert_array_equal(got.transpose(np.argsort(axes)), x - 2 * y)


def test_share_formulas_take_any_shape(setting: None) -> None:
    r = rng()
    x = [ring(r, 3, 4, 5) for _ in range(4)] + [ring(r, 5, 4, 3).T, np.broadcast_to(ring(r, 5), (3, 4, 5))]
    same("mul_share", *x, first=True)
    same("select_share", bits(r, 6, 4, 5)[::2], *x[2:], ring(r, 4, 5), first=True)
    same("inject_share", bits(r, 3, 4, 5), x[4], x[5], first=True)
    same("trunc_deal", x[4], 18, np.uint32)
    same("trunc_share", x[4], x[4].astype(np.uint32), x[5].astype(np.uint32))
    same("trunc_open", x[4], x[5].astype(np.uint32), 18)
    same("trunc_mask", x[4], x[5].astype(np.uint32), 18)
    x = [odd(ring(r, 200)) for _ in range(6)]
    same("mul_share", *x, first=True)
    same("trunc_share", x[0], odd(x[1].astype(np.uint32)), odd(x[2].astype(np.uint32)))
    same("trunc_open", x[0], odd(x[1].astype(np.uint32)), 18)
    scalar = [ring(r) for _ in range(6)]
    assert native.mul_share(*scalar, first=True).shape == ()
    assert native.waxpby(1, scalar[0], -2, scalar[1]).shape == ()


def test_share_formulas_refuse() -> None:
    r = rng()
    x, y, bit = ring(r, 4), ring(r, 5), bits(r, 4)
    with pytest.raises(ValueError, match=r"ly: want uint64\[4\], got uint64\[5\]"):
        native.mul_share(x, x, x, y, x, x, first=True)
    with pytest.raises(ValueError, match=r"waxpby: want two arrays of one shape, got \[4\] and \[5\]"):
        native.waxpby(1, x, -2, y)
    with pytest.raises(ValueError, match=r"y: want uint64\[4\], got int64\[4\]"):
        native.waxpby(1, x, -2, x.astype(np.int64))
    with pytest.raises(ValueError, match=r"mask: want uint64\[4\], got int64\[4\]"):
        native.inject_share(bit, x, x.astype(np.int64), first=True)
    with pytest.raises(ValueError, match=r"bit: want uint8\[1, 4\], got bool\[1, 4\]"):
        native.select_share(bit.astype(bool)[None], *[x[None]] * 4, x, first=True)
    for by, kind in [(0, np.uint8), (63, np.uint64), (9, np.uint8), (8, np.int8)]:
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_deal(x, by, kind)
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_open(x, x.astype(kind), by)
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_mask(x, x.astype(kind), by)
        with pytest.raises(ValueError, match="truncation by"):
            native.square_trunc_deal(x, by, kind)
        with pytest.raises(ValueError, match="truncation by"):
            native.mul_trunc_share(x, x, x, x, x.astype(kind), x, x.astype(kind), x, by, first=True)
    for by, times in [(3, 9), (40, 1 << 31), (40, 0)]:
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_deal(x, by, np.uint64, times)
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_open(x, x, by, times)
    frozen = ring(r, 4)
    frozen.flags.writeable = False
    for out in (y, x.astype(np.int64), ring(r, 8)[::2], odd(ring(r, 4)), frozen):
        with pytest.raises(ValueError, match=r"out: want writable C-contiguous uint64\[4\], got u?int64\[[45]\]"):
            native.trunc_open(x, x, 18, out=out)
        with pytest.raises(ValueError, match=r"out: want"):
            native.trunc_mask(x, x, 18, out)
    with pytest.raises(ValueError, match=r"b: want \[4\], got \[5\]"):
        native.trunc_share(x, y, y)
    with pytest.raises(ValueError, match=r"mask: want uint64\[4\], got uint32\[4\]"):
        native.trunc_share(x, x, x.astype(np.uint32))
    with pytest.raises(ValueError, match=r"bt: want uint64\[4\], got uint32\[4\]"):
        native.square_trunc_share(x, x, x, x, x.astype(np.uint32), x, 18, first=True)


# ---- bit planes ------------------------------------------------------------------------------------------------------
def test_planes(setting: None) -> None:
    for size in [*SIZES, 300_001]:
        r = rng(size)
        x, b = ring(r, size), bits(r, size)
        same("pack_bits", b)
        same("unpack_bits", ring(r, reference.words(size)), size)
        np.testing.assert_array_equal(native.unpack_bits(native.pack_bits(b), size), b)
        for lo, hi in [(0, 64), (0, 63), (16, 63), (63, 64), (5, 5)] if size < 1001 else [(16, 63)]:
            same("to_planes", x, lo, hi)
    r = rng()
    same("pack_bits", bits(r, 200)[::2])
    for shape in [(3, 100), (2, 3, 64), (2, 0), (0, 5), (3, 2, 1)]:
        same("pack_bits", bits(r, *shape))
    same("unpack_bits", ring(r, 8)[::2], 250)
    same("to_planes", ring(r, 500)[::-3], 3, 60)


def test_planes_refuse() -> None:
    r = rng()
    with pytest.raises(ValueError, match=r"plane: want uint64\[2\], got uint64\[1\]"):
        native.unpack_bits(ring(r, 1), 65)
    with pytest.raises(ValueError, match=r"bits: want uint8\[2, 3\], got bool\[2, 3\]"):
        native.pack_bits(bits(r, 2, 3).astype(bool))
    for lo, hi in [(-1, 3), (3, 2), (0, 65)]:
        with pytest.raises(ValueError, match="of 64"):
            native.to_planes(ring(r, 4), lo, hi)


WORDS = [0, 1, 2, 3, 4, 5, 8, 13, 600, 4500]


@pytest.mark.parametrize("first", [False, True])
def test_leaves(setting: None, first: bool) -> None:
    for width in (0, 1, 2, 3, 4, 5, 6, 7, 8, 47, 63):
        for words in WORDS[:-1] if width < 47 else [9, *WORDS[-2:]]:
            r = rng(width, words)
            same("leaf_deal", ring(r, width, words))
            same("leaf_share", ring(r, width, words), ring(r, reference.leaf_rows(width), words), first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("chunk", [5, 6, 7, 8])
def test_wide_leaves(setting: None, chunk: int, first: bool) -> None:
    for width, words in [(chunk - 1, 3), (chunk, 8), (13, 0), (13, 1), (26, 13), (44, 90), (63, 5)]:
        r = rng(width, words)
        same("leaf_deal", ring(r, width, words), chunk)
        rows = ring(r, reference.leaf_rows(width, chunk), words)
        same("leaf_share", ring(r, width, words), rows, chunk, first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("chunk", range(4, 9))
def test_leaves_of_several_cuts(setting: None, chunk: int, first: bool) -> None:
    """Of one chunk and of more, on whole words and not."""
    for lo, top, size, cuts in [(0, 1, 1, 1), (2, 6, 70, 3), (18, 45, 64, 7), (0, 63, 129, 1), (10, 23, 40_001, 2)]:
        r = rng(top, size)
        dealt = ring(r, reference.leaf_rows(top - lo, chunk) + 1, reference.words(size))
        same("leaves", ring(r, size), ring(r, cuts), lo, top, dealt, chunk, first=first)
    dealt = ring(r, reference.leaf_rows(6, chunk) + 1, 1)
    same("leaves", ring(r, 40)[::-2], ring(r, 6)[::2], 3, 9, dealt, chunk, first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("fan", range(2, 9))
def test_wide_gates(setting: None, fan: int, first: bool) -> None:
    for words in [*WORDS[:9], 300]:
        r = rng(fan, words)
        m, masks = ring(r, 2 * fan - 1, words), ring(r, 2 * fan - 1, words)
        same("wide_gate_deal", masks)
        same("wide_gate_share", m, masks, ring(r, reference.wide_gate_rows(fan), words), first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("with_eq", [False, True])
@pytest.mark.parametrize("fan", [2, 3, 4])
def test_gates(setting: None, fan: int, with_eq: bool, first: bool) -> None:
    for words in WORDS:
        r = rng(fan, words)
        products = ring(r, len(reference.gate_products(fan, with_eq)), words)
        same("gate_deal", ring(r, 2 * fan, words), with_eq=with_eq)
        same("gate_share", ring(r, 2 * fan, words), ring(r, 2 * fan, words), products, with_eq=with_eq, first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("fan", range(2, 9))
def test_conjunctions(setting: None, fan: int, first: bool) -> None:
    for words in [*WORDS[:9], 300]:
        r = rng(fan, words)
        same("and_deal", ring(r, fan, words))
        products = ring(r, reference.and_rows(fan), words)
        same("and_share", ring(r, fan, words), ring(r, fan, words), products, first=first)


def test_conjunctions_refuse() -> None:
    r = rng()
    for fan in (1, 9):
        with pytest.raises(ValueError, match="2 to 8 bits"):
            native.and_deal(ring(r, fan, 2))
    with pytest.raises(ValueError, match=r"products: want uint64\[4, 2\], got uint64\[3, 2\]"):
        native.and_share(ring(r, 3, 2), ring(r, 3, 2), ring(r, 3, 2), first=True)


def test_leaves_and_gates_refuse() -> None:
    r = rng()
    with pytest.raises(ValueError, match=r"monomials: want uint64\[15, 2\], got uint64\[14, 2\]"):
        native.leaf_share(ring(r, 4, 2), ring(r, 14, 2), first=True)
    with pytest.raises(ValueError, match=r"masks: want uint64\[4, 2\], got uint64\[4, 3\]"):
        native.gate_share(ring(r, 4, 2), ring(r, 4, 3), ring(r, 1, 2), with_eq=False, first=True)
    with pytest.raises(ValueError, match="products: want"):
        native.gate_share(ring(r, 4, 2), ring(r, 4, 2), ring(r, 3, 2), with_eq=False, first=True)
    for chunk in (3, 9):
        with pytest.raises(ValueError, match="chunks of 4 to 8 bits"):
            native.leaf_deal(ring(r, 4, 2), chunk)
        with pytest.raises(ValueError, match="chunks of 4 to 8 bits"):
            native.leaves(ring(r, 64), ring(r, 1), 0, 4, ring(r, 16, 1), chunk, first=True)
    for lo, top in [(-1, 3), (4, 4), (0, 64)]:
        with pytest.raises(ValueError, match="of 63"):
            native.leaves(ring(r, 64), ring(r, 1), lo, top, ring(r, 16, 1), first=True)
    for elements, rows in [(64, 15), (65, 16)]:
        with pytest.raises(ValueError, match="dealt: want"):
            native.leaves(ring(r, elements), ring(r, 1), 0, 4, ring(r, rows, 1), first=True)
    with pytest.raises(ValueError, match="cuts: want"):
        native.leaves(ring(r, 64), ring(r, 1).view(np.int64), 0, 4, ring(r, 16, 1), first=True)
    for rows in (1, 2, 17):
        with pytest.raises(ValueError, match=r"2 to 8 bits|masks: want"):
            native.wide_gate_deal(ring(r, rows, 2))
    with pytest.raises(ValueError, match="products: want"):
        native.wide_gate_share(ring(r, 5, 2), ring(r, 5, 2), ring(r, 4, 2), first=True)
    for rows in (0, 2, 10):
        with pytest.raises(ValueError, match="2 to 4 pairs"):
            native.gate_deal(ring(r, rows, 2), with_eq=True)
    with pytest.raises(ValueError, match="masks: want"):
        native.gate_deal(ring(r, 5, 2), with_eq=True)


# ---- what the kernels are for: a comparison, from shares to the answer -----------------------------------------------
@given(st.data(), st.integers(1, 63), st.integers(1, 130))
@settings(max_examples=25, deadline=None)
def test_leaves_and_gates_compare(data: st.DataObject, width: int, size: int) -> None:
    """[C < rho] on `width` bits by leaves and level after level of gates; C and rho agree in many leading bits."""
    r = rng(data.draw(st.integers(0, 1 << 32)))
    rho = ring(r, size)
    c = rho ^ (ring(r, size) >> r.integers(0, 64, size).astype(np.uint64))
    top = np.uint64((1 << width) - 1)

    def shared(x: U64) -> list[U64]:
        share = ring(r, *x.shape)
        return [share, x ^ share]

    dealt = shared(kernels.leaf_deal(kernels.to_planes(rho, 0, width)))
    public = kernels.to_planes(c, 0, width)
    pairs = [kernels.leaf_share(public, part, first=i == 0) for i, part in enumerate(dealt)]
    lt, eq = (a ^ b for a, b in zip(*pairs, strict=True))
    while len(lt) > 1:
        outs = []
        for lo in range(0, len(lt), 4):
            fan = len(lt[lo : lo + 4])
            if fan == 1:
                outs.append((lt[lo], eq[lo]))
                continue
            inputs = np.concatenate([lt[lo : lo + 4], eq[lo : lo + 4]])
            masks = ring(r, *inputs.shape)
            products = shared(kernels.gate_deal(masks, with_eq=True))
            parts = zip(shared(masks), products, (True, False), strict=True)
            halves = [
                kernels.gate_share(inputs ^ masks, mask, product, with_eq=True, first=first)
                for mask, product, first in parts
            ]
            outs.append(tuple(halves[0] ^ halves[1]))
        lt, eq = (np.stack(rows) for rows in zip(*outs, strict=True))
    np.testing.assert_array_equal(kernels.unpack_bits(lt[0], size), (c & top) < (rho & top))
    np.testing.assert_array_equal(kernels.unpack_bits(eq[0], size), (c & top) == (rho & top))
