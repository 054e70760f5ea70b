"""The share formulas of masked evaluation, elementwise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mpcnode.kernels.memory import empty
from mpcnode.kernels.native.buffers import (
    WORD,
    bytes_of,
    check_shift,
    from_buffer,
    lib,
    made,
    narrow_of,
    result,
    several,
    words_of,
    wraps_of,
)
from mpcnode.kernels.reference import U8, U64, Unsigned


def mul_share(mx: U64, lx: U64, my: U64, ly: U64, gamma: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for x·y, elementwise: gamma + mask - mx·ly - lx·my {+ mx·my}."""
    shape = mx.shape
    out, data = made(shape)
    lib.mpc_mul_share(
        data,
        words_of(mx, shape, "mx"),
        words_of(lx, shape, "lx"),
        words_of(my, shape, "my"),
        words_of(ly, shape, "ly"),
        words_of(gamma, shape, "gamma"),
        words_of(mask, shape, "mask"),
        out.size,
        first,
    )
    return out


def waxpby(a: int, x: U64, b: int, y: U64) -> U64:
    """a·x + b·y, elementwise, as BLAS names it.  The result's axes stand in memory in the order of x's; what is dense
    there, transposed or not, is not copied.
    """
    if x.shape != y.shape:
        raise ValueError(f"waxpby: want two arrays of one shape, got {list(x.shape)} and {list(y.shape)}")
    order, back = _in_memory(x.strides)
    x, y = x.transpose(order), y.transpose(order)
    out, data = made(x.shape)
    lib.mpc_waxpby(data, a % (1 << 64), words_of(x, x.shape, "x"), b % (1 << 64), words_of(y, x.shape, "y"), out.size)
    return out.transpose(back)


@lru_cache(maxsize=256)
def _in_memory(strides: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """The axes in the order in which they stand in memory, and how to undo that order."""
    order = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
    return order, sorted(range(len(order)), key=order.__getitem__)


# ---- exact truncation ------------------------------------------------------------------------------------------------
def trunc_deal(r: U64, by: int, wrap: npt.DTypeLike, times: int = 1) -> tuple[U64, Unsigned]:
    """(r·times >> by, (r >> 63)·times): what the helper deals for a truncation with a factor, 1 <= times < 2^31 and
    times <= 2^by; the second in the unsigned dtype `wrap`, of at least `by` bits.
    """
    kind = np.dtype(wrap)
    check_shift(by, kind, times)
    (t, b), pointers = several(r.shape, WORD, kind)
    lib.mpc_trunc_deal(*pointers, words_of(r, r.shape, "r"), t.size, by, times, kind.itemsize)
    return t, b


def trunc_share(c: U64, b: Unsigned, mask: Unsigned) -> Unsigned:
    """One evaluator's message for a truncation of z with c = z + r, |z| < 2^62, b a share of (r >> 63)·times, mask of
    the same dtype: mask + (1 - (c' >> 63))·b with c' = c + 2^62.
    """
    shares, kind = wraps_of(b, c.shape, 1), b.dtype
    out = empty(c.shape, kind)
    operands = words_of(c, c.shape, "c"), shares, narrow_of(mask, b, "mask")
    lib.mpc_trunc_share(from_buffer(out), *operands, out.size, kind.itemsize)
    return out


def trunc_open(c: U64, v: Unsigned, by: int, times: int = 1, out: U64 | None = None) -> U64:
    """The truncation's new masked value, for v the sum of all messages and 1 <= by <= 62:
    (c'·times >> by) - times·2^(62-by) + 2^(64-by)·v with c' = c + 2^62.
    """
    opened = wraps_of(v, c.shape, by, times)
    out, data = result(out, c.shape)
    lib.mpc_trunc_open(data, words_of(c, c.shape, "c"), opened, out.size, by, times, v.itemsize)
    return out


def trunc_mask(t: U64, mask: Unsigned, by: int, out: U64 | None = None) -> U64:
    """A party's part of the truncation's new mask, for t its part of r·times >> by: t + 2^(64-by)·mask; may be t."""
    out, data = result(out, t.shape)
    lib.mpc_trunc_mask(data, words_of(t, t.shape, "t"), wraps_of(mask, t.shape, by), out.size, by, mask.itemsize)
    return out


# ---- a masked bit times a ring element -------------------------------------------------------------------------------
def select_share(bit: U8, mw: U64, lw: U64, beta: U64, beta_lw: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for Σ_k b_k·w_k, where bit = b ^ β is public, beta a share of β and beta_lw one of β·λ_w:
    mask + Σ_k (- bit·lw + (1 - 2·bit)·(beta·mw - beta_lw) {+ bit·mw}).  mask: of any shape, the others [terms, *shape].
    """
    shape = (len(bit), *mask.shape)
    out, data = made(mask.shape)
    lib.mpc_select_share(
        data,
        bytes_of(bit, shape, "bit"),
        words_of(mw, shape, "mw"),
        words_of(lw, shape, "lw"),
        words_of(beta, shape, "beta"),
        words_of(beta_lw, shape, "beta_lw"),
        words_of(mask, mask.shape, "mask"),
        len(bit),
        out.size,
        first,
    )
    return out


def inject_share(bit: U8, beta: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for b as a ring element: mask + (1 - 2·bit)·beta {+ bit}."""
    shape = bit.shape
    out, data = made(shape)
    lib.mpc_inject_share(
        data, bytes_of(bit, shape, "bit"), words_of(beta, shape, "beta"), words_of(mask, shape, "mask"), out.size, first
    )
    return out
