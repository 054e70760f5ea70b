"""Products of what is truncated on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpcnode.kernels.native.buffers import (
    WORD,
    bytes_of,
    check_shift,
    lib,
    made,
    narrow_of,
    several,
    words_of,
    wraps_of,
)
from mpcnode.kernels.reference import U8, U64, Unsigned


def select_trunc_deal(bit: U8, r: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, U64, Unsigned]:
    """R = r >> by, S = r >> 63, β, β·R, β·S: what the helper deals for β·t; S and β·S in the unsigned dtype `wrap`, of
    at least `by` bits.
    """
    kind = np.dtype(wrap)
    check_shift(by, kind)
    shape = r.shape
    (t, b, beta, beta_t, beta_b), pointers = several(shape, WORD, kind, WORD, WORD, kind)
    masks = bytes_of(bit, shape, "bit"), words_of(r, shape, "r")
    lib.mpc_select_trunc_deal(*pointers, *masks, t.size, by, kind.itemsize)
    return t, b, beta, beta_t, beta_b


def select_trunc_share(
    bit: U8, c: U64, t: U64, b: Unsigned, beta: U64, beta_t: U64, beta_b: Unsigned, mask: U64, by: int, *, first: bool
) -> U64:
    """One evaluator's message for the sum over the first axis of truncations t by `by` times bits b = bit ^ β, with
    shares of what `select_trunc_deal` makes: mask + Σ_k (bit·({A} - t + W·b) + (1 - 2·bit)·(beta·A - beta_t +
    W·beta_b)).  mask: of any shape, the others [terms, *shape].
    """
    shape = (len(c), *mask.shape)
    out, data = made(mask.shape)
    lib.mpc_select_trunc_share(
        data,
        bytes_of(bit, shape, "bit"),
        words_of(c, shape, "c"),
        words_of(t, shape, "t"),
        wraps_of(b, shape, by),
        words_of(beta, shape, "beta"),
        words_of(beta_t, shape, "beta_t"),
        narrow_of(beta_b, b, "beta_b"),
        words_of(mask, mask.shape, "mask"),
        len(c),
        out.size,
        by,
        b.itemsize,
        first,
    )
    return out


def mul_trunc_deal(r: U64, ly: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, Unsigned]:
    """R = r >> by, S = r >> 63, R·λy, S·λy: what the helper deals for t·y; S and S·λy in the unsigned dtype `wrap`."""
    kind = np.dtype(wrap)
    check_shift(by, kind)
    (t, b, t_ly, b_ly), pointers = several(r.shape, WORD, kind, WORD, kind)
    masks = words_of(r, r.shape, "r"), words_of(ly, r.shape, "ly")
    lib.mpc_mul_trunc_deal(*pointers, *masks, t.size, by, kind.itemsize)
    return t, b, t_ly, b_ly


def mul_trunc_share(
    c: U64, my: U64, ly: U64, t: U64, b: Unsigned, t_ly: U64, b_ly: Unsigned, mask: U64, by: int, *, first: bool
) -> U64:
    """One evaluator's message for a truncation t by `by` times y, with shares of what `mul_trunc_deal` makes:
    mask + my·({A} - t + W·b) - A·ly + t_ly - W·b_ly.
    """
    shape = c.shape
    operands = (
        words_of(c, shape, "c"),
        words_of(my, shape, "my"),
        words_of(ly, shape, "ly"),
        words_of(t, shape, "t"),
        wraps_of(b, shape, by),
        words_of(t_ly, shape, "t_ly"),
        narrow_of(b_ly, b, "b_ly"),
        words_of(mask, shape, "mask"),
    )
    return _message(lib.mpc_mul_trunc_share, shape, operands, by, b.itemsize, first)


def square_trunc_deal(r: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, Unsigned]:
    """R = r >> by, S = r >> 63, R², S·R: what the helper deals for t²; S and S·R in the unsigned dtype `wrap`."""
    kind = np.dtype(wrap)
    check_shift(by, kind)
    (t, b, tt, bt), pointers = several(r.shape, WORD, kind, WORD, kind)
    lib.mpc_square_trunc_deal(*pointers, words_of(r, r.shape, "r"), t.size, by, kind.itemsize)
    return t, b, tt, bt


def square_trunc_share(c: U64, t: U64, b: Unsigned, tt: U64, bt: Unsigned, mask: U64, by: int, *, first: bool) -> U64:
    """One evaluator's message for the square of a truncation t by `by`, with shares of what `square_trunc_deal` makes:
    mask {+ A²} - 2·A·t + tt + (2·A·W + W²)·b - 2·W·bt, where b² = b.
    """
    shape = c.shape
    operands = (
        words_of(c, shape, "c"),
        words_of(t, shape, "t"),
        wraps_of(b, shape, by),
        words_of(tt, shape, "tt"),
        narrow_of(bt, b, "bt"),
        words_of(mask, shape, "mask"),
    )
    return _message(lib.mpc_square_trunc_share, shape, operands, by, b.itemsize, first)


def _message(function: Any, shape: tuple[int, ...], operands: tuple[Any, ...], by: int, width: int, first: bool) -> U64:
    out, data = made(shape)
    function(data, *operands, out.size, by, width, first)
    return out
