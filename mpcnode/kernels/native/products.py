"""Matrix products and convolutions in the ring."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from mpcnode.kernels.memory import empty
from mpcnode.kernels.native.buffers import INDICES, WORD, WORDS, ffi, from_buffer, lib
from mpcnode.kernels.places import Zeros, entries, padded, products, unpadded, zeros
from mpcnode.kernels.reference import U64
from mpcnode.window import Window

FEW = 1 << 16  # entries of tables that are worth remembering; making longer ones is little beside their product


def _strided(x: U64) -> tuple[U64, Any]:
    """x and a pointer to its first element; x is copied only if its elements do not stand at whole words."""
    flags = x.flags
    if not flags.aligned:
        x = x.copy()
        flags = x.flags
    if flags.c_contiguous:
        return x, from_buffer(WORDS, x)
    if flags.f_contiguous:
        return x, from_buffer(WORDS, x.T)
    return x, ffi.cast("uint64_t *", x.__array_interface__["data"][0])


def _product(out: U64 | None, a: U64, b: U64, mode: int) -> U64:
    """out = a @ b into a new array (mode 0), or out += and -= a @ b (mode 1 and -1)."""
    left, right = a.shape, b.shape
    if len(left) < 2 or left[:-2] != right[:-2] or left[-1] != right[-2] or a.dtype != WORD or b.dtype != WORD:
        raise ValueError(
            "matmul: want uint64[..., m, k] @ uint64[..., k, n] with equal leading axes, "
            f"got {a.dtype}{list(left)} @ {b.dtype}{list(right)}"
        )
    shape = (*left[:-1], right[-1])
    if out is None:
        out = empty(shape, WORD)
    elif out.shape != shape or out.dtype != WORD or not out.flags.carray:
        raise ValueError(
            f"matmul_add: want writable C-contiguous uint64{list(shape)}, got {out.dtype}{list(out.shape)}"
        )
    if len(left) > 3:
        batch = math.prod(left[:-2])
        a, b = a.reshape(batch, *left[-2:]), b.reshape(batch, *right[-2:])
    a, a_data = _strided(a)
    b, b_data = _strided(b)
    if len(left) == 2:
        batch, a_batch, b_batch = 1, 0, 0
        a_row, a_col = a.strides
        b_row, b_col = b.strides
    else:
        batch = len(a)
        a_batch, a_row, a_col = a.strides
        b_batch, b_row, b_col = b.strides
    if lib.mpc_matmul(
        from_buffer(WORDS, out),
        a_data,
        b_data,
        batch,
        left[-2],
        left[-1],
        right[-1],
        a_batch,
        a_row,
        a_col,
        b_batch,
        b_row,
        b_col,
        mode,
    ):
        raise MemoryError(f"matmul: no memory to pack {list(left)} @ {list(right)}")
    return out


def matmul(a: U64, b: U64) -> U64:
    """a @ b mod 2^64.  a: [..., m, k], b: [..., k, n] with equal leading axes, any strides; result C-contiguous."""
    return _product(None, a, b, 0)


def matmul_add(out: U64, a: U64, b: U64, *, negate: bool = False) -> None:
    """out += a @ b (or -= with `negate`) mod 2^64.  out: [..., m, n], C-contiguous, apart from a and b."""
    _product(out, a, b, -1 if negate else 1)


@lru_cache(maxsize=64)
def _laid_out(x_shape: tuple[int, ...], w_shape: tuple[int, ...], window: Window, *strides: tuple[int, ...]) -> Any:
    """The arguments of mpc_matmul_at that describe the products of one group."""
    found = products(x_shape, w_shape, window, *strides)
    columns = [np.array([len(getattr(p, side)) for p in found], np.int64) for side in ("row", "column")]
    columns += [np.concatenate([getattr(p, side) for p in found]) for side in ("to", "row", "column", "weight")]
    return len(found), *(from_buffer(INDICES, c) for c in columns)


def _convolved(out: U64 | None, x: U64, w: U64, window: Window, mode: int) -> U64:
    """out = conv(x, w) into a new array (mode 0), or out += and -= it (mode 1 and -1)."""
    left, right, rank = x.shape, w.shape, len(window.stride)
    fits = len(left) == len(right) == rank + 3 and left[0] == right[0] and left[-1] == right[-2]
    if not fits or x.dtype != WORD or w.dtype != WORD:
        raise ValueError(
            "conv: want uint64[groups, images, *space, channels] and uint64[groups, *window, channels, outputs] "
            f"with {rank} axes of space, got {x.dtype}{list(left)} and {w.dtype}{list(right)}"
        )
    space, sizes = left[2:-1], right[1:-2]
    shape = (*left[:2], *window.places(space, sizes), right[-1])
    if out is None:
        out = empty(shape, WORD)
    elif out.shape != shape or out.dtype != WORD or not out.flags.carray:
        raise ValueError(f"conv_add: want writable C-contiguous uint64{list(shape)}, got {out.dtype}{list(out.shape)}")
    if zeros(space, sizes, window) is Zeros.WRITE:
        x, window = padded(x, window), unpadded(window)
    few = entries(left[1], x.shape[2:-1], sizes, left[-1], window) <= FEW
    laid_out = _laid_out if few else _laid_out.__wrapped__
    for group in range(left[0] if out.size else 0):
        a, a_data = _strided(x[group])
        b, b_data = _strided(w[group])
        a_strides, b_strides = (tuple(s // 8 for s in v.strides) for v in (a, b))
        count, *tables = laid_out(a.shape, b.shape, window, a_strides, b_strides)
        to = from_buffer(WORDS, out[group])
        if lib.mpc_matmul_at(to, a_data, b_data, right[-1], b_strides[-1], count, *tables, mode):
            raise MemoryError(f"conv: no memory to gather {list(left)} and {list(right)}")
    return out


def conv(x: U64, w: U64, window: Window) -> U64:
    """The convolution (without turning the window around) of x [groups, images, *space, channels] with
    w [groups, *window, channels, outputs] mod 2^64: [groups, images, *places, outputs].  Any strides; result
    C-contiguous.
    """
    return _convolved(None, x, w, window, 0)


def conv_add(out: U64, x: U64, w: U64, window: Window, *, negate: bool = False) -> None:
    """out += conv(x, w, window) (or -= with `negate`) mod 2^64.  out: C-contiguous, apart from x and w."""
    _convolved(out, x, w, window, -1 if negate else 1)
