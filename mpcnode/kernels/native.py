"""The compiled kernels behind the signatures of reference.py.

The C code trusts what it is given, so every array is checked here: uint64 (or what the kernel says), the right shape,
C-contiguous and aligned (else copied).  A call costs about a microsecond, plus 0.4 for each array.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mpcnode.kernels import _native
from mpcnode.kernels.places import Zeros, entries, padded, products, unpadded, zeros
from mpcnode.kernels.reference import (
    CHUNK,
    MOST_TIMES,
    U8,
    U64,
    Unsigned,
    and_rows,
    chunks,
    gate_products,
    gate_sums,
    leaf_rows,
    words,
)
from mpcnode.window import Window

__all__ = [
    "CHUNK",
    "U8",
    "U64",
    "Unsigned",
    "and_deal",
    "and_rows",
    "and_share",
    "chunks",
    "conv",
    "conv_add",
    "gate_deal",
    "gate_products",
    "gate_share",
    "gate_sums",
    "inject_share",
    "isa",
    "leaf_deal",
    "leaf_rows",
    "leaf_share",
    "matmul",
    "matmul_add",
    "mul_share",
    "mul_trunc_deal",
    "mul_trunc_share",
    "pack_bits",
    "select_share",
    "select_trunc_deal",
    "select_trunc_share",
    "set_isa",
    "set_threads",
    "square_trunc_deal",
    "square_trunc_share",
    "threads",
    "to_planes",
    "trunc_deal",
    "trunc_mask",
    "trunc_open",
    "trunc_share",
    "unpack_bits",
    "words",
]

_ffi, _lib = _native.ffi, _native.lib
_from_buffer = _ffi.from_buffer
_WORDS = _ffi.typeof("uint64_t[]")
_BYTES = _ffi.typeof("uint8_t[]")
_INDICES = _ffi.typeof("int64_t[]")
_U64 = np.dtype(np.uint64)
_U8 = np.dtype(np.uint8)
FEW = 1 << 16  # entries of tables that are worth remembering; making longer ones is little beside their product
_ISAS = ("portable", "avx2", "avx512")


# ---- threads and instruction sets ------------------------------------------------------------------------------------
def set_threads(count: int) -> None:
    """Let one call use up to `count` threads (for the whole process; one without OpenMP)."""
    if count < 1:
        raise ValueError(f"at least one thread, not {count}")
    _lib.mpc_set_threads(count)


def threads() -> int:
    """Threads that one call may use."""
    return int(_lib.mpc_threads())


def isa() -> str:
    """The instruction set in use: portable, avx2 or avx512."""
    return _ISAS[_lib.mpc_isa()]


def set_isa(name: str) -> None:
    """Use at most this instruction set (of those the processor has): for tests and benchmarks."""
    _lib.mpc_set_isa(_ISAS.index(name))


# ---- arguments -------------------------------------------------------------------------------------------------------
def _buffer(x: npt.NDArray[Any], kind: Any) -> Any:
    """A pointer to the elements of x, in order; it keeps alive what it points to."""
    flags = x.flags
    return _from_buffer(kind, x if flags.c_contiguous and flags.aligned else x.copy())


def _words(x: U64, shape: tuple[int, ...], name: str) -> Any:
    """A pointer to x: uint64[shape]."""
    if x.shape != shape or x.dtype != _U64:
        raise ValueError(f"{name}: want uint64{list(shape)}, got {x.dtype}{list(x.shape)}")
    return _buffer(x, _WORDS)


def _bytes(x: U8, shape: tuple[int, ...], name: str) -> Any:
    """A pointer to x: uint8[shape]."""
    if x.shape != shape or x.dtype != _U8:
        raise ValueError(f"{name}: want uint8{list(shape)}, got {x.dtype}{list(x.shape)}")
    return _buffer(x, _BYTES)


def _made(shape: tuple[int, ...]) -> tuple[U64, Any]:
    """A new uint64 array and a pointer to it."""
    out = np.empty(shape, _U64)
    return out, _from_buffer(_WORDS, out)


# ---- ring products ---------------------------------------------------------------------------------------------------
def _strided(x: U64) -> tuple[U64, Any]:
    """x and a pointer to its first element; x is copied only if its elements do not stand at whole words."""
    flags = x.flags
    if not flags.aligned:
        x = x.copy()
        flags = x.flags
    if flags.c_contiguous:
        return x, _from_buffer(_WORDS, x)
    if flags.f_contiguous:
        return x, _from_buffer(_WORDS, x.T)
    return x, _ffi.cast("uint64_t *", x.__array_interface__["data"][0])


def _product(out: U64 | None, a: U64, b: U64, mode: int) -> U64:
    """out = a @ b into a new array (mode 0), or out += and -= a @ b (mode 1 and -1)."""
    left, right = a.shape, b.shape
    if len(left) < 2 or left[:-2] != right[:-2] or left[-1] != right[-2] or a.dtype != _U64 or b.dtype != _U64:
        raise ValueError(
            "matmul: want uint64[..., m, k] @ uint64[..., k, n] with equal leading axes, "
            f"got {a.dtype}{list(left)} @ {b.dtype}{list(right)}"
        )
    shape = (*left[:-1], right[-1])
    if out is None:
        out = np.empty(shape, _U64)
    elif out.shape != shape or out.dtype != _U64 or not out.flags.carray:
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
    if _lib.mpc_matmul(
        _from_buffer(_WORDS, out),
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
    return len(found), *(_from_buffer(_INDICES, c) for c in columns)


def _convolved(out: U64 | None, x: U64, w: U64, window: Window, mode: int) -> U64:
    """out = conv(x, w) into a new array (mode 0), or out += and -= it (mode 1 and -1)."""
    left, right, rank = x.shape, w.shape, len(window.stride)
    fits = len(left) == len(right) == rank + 3 and left[0] == right[0] and left[-1] == right[-2]
    if not fits or x.dtype != _U64 or w.dtype != _U64:
        raise ValueError(
            "conv: want uint64[groups, images, *space, channels] and uint64[groups, *window, channels, outputs] "
            f"with {rank} axes of space, got {x.dtype}{list(left)} and {w.dtype}{list(right)}"
        )
    space, sizes = left[2:-1], right[1:-2]
    shape = (*left[:2], *window.places(space, sizes), right[-1])
    if out is None:
        out = np.empty(shape, _U64)
    elif out.shape != shape or out.dtype != _U64 or not out.flags.carray:
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
        to = _from_buffer(_WORDS, out[group])
        if _lib.mpc_matmul_at(to, a_data, b_data, right[-1], b_strides[-1], count, *tables, mode):
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


def mul_share(mx: U64, lx: U64, my: U64, ly: U64, gamma: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for x·y, elementwise: gamma + mask - mx·ly - lx·my {+ mx·my}."""
    shape = mx.shape
    out, data = _made(shape)
    _lib.mpc_mul_share(
        data,
        _words(mx, shape, "mx"),
        _words(lx, shape, "lx"),
        _words(my, shape, "my"),
        _words(ly, shape, "ly"),
        _words(gamma, shape, "gamma"),
        _words(mask, shape, "mask"),
        out.size,
        first,
    )
    return out


# ---- exact truncation ------------------------------------------------------------------------------------------------
def _check_shift(by: int, wrap: np.dtype[Any], times: int = 1) -> None:
    if not 1 <= by <= 62 or wrap.kind != "u" or by > 8 * wrap.itemsize or not wrap.isnative:
        raise ValueError(f"truncation by {by} bits with the wrap bit in {wrap}")
    if not 1 <= times <= min(MOST_TIMES, 1 << by):
        raise ValueError(f"truncation by {by} bits of {times} times a value")


def _wraps(b: Unsigned, shape: tuple[int, ...], by: int) -> Any:
    """A pointer to shares of the wrap bit."""
    _check_shift(by, b.dtype)
    if b.shape != shape:
        raise ValueError(f"b: want {list(shape)}, got {list(b.shape)}")
    return _buffer(b, _BYTES)


def trunc_deal(r: U64, by: int, wrap: npt.DTypeLike, times: int = 1) -> tuple[U64, Unsigned]:
    """(r·times >> by, (r >> 63)·times): what the helper deals for a truncation with a factor, 1 <= times < 2^31 and
    times <= 2^by; the second in the unsigned dtype `wrap`, of at least `by` bits.
    """
    kind = np.dtype(wrap)
    _check_shift(by, kind, times)
    t, data = _made(r.shape)
    b = np.empty(r.shape, kind)
    _lib.mpc_trunc_deal(data, _from_buffer(b), _words(r, r.shape, "r"), t.size, by, times, kind.itemsize)
    return t, b


def trunc_share(c: U64, b: Unsigned, mask: Unsigned) -> Unsigned:
    """One evaluator's message for a truncation of z with c = z + r, |z| < 2^62, b a share of (r >> 63)·times, mask of
    the same dtype: mask + (1 - (c' >> 63))·b with c' = c + 2^62.
    """
    kind = b.dtype
    _check_shift(1, kind)
    out = np.empty(c.shape, kind)
    _lib.mpc_trunc_share(
        _from_buffer(out),
        _words(c, c.shape, "c"),
        _wraps(b, c.shape, 1),
        _narrow(mask, b, "mask"),
        out.size,
        kind.itemsize,
    )
    return out


def trunc_open(c: U64, v: Unsigned, by: int, times: int = 1) -> U64:
    """The truncation's new masked value, for v the sum of all messages and 1 <= by <= 62:
    (c'·times >> by) - times·2^(62-by) + 2^(64-by)·v with c' = c + 2^62.
    """
    out, data = _made(c.shape)
    _check_shift(by, v.dtype, times)
    _lib.mpc_trunc_open(data, _words(c, c.shape, "c"), _wraps(v, c.shape, by), out.size, by, times, v.itemsize)
    return out


def trunc_mask(t: U64, mask: Unsigned, by: int) -> U64:
    """A party's part of the truncation's new mask, for t its part of r·times >> by: t + 2^(64-by)·mask."""
    out, data = _made(t.shape)
    _lib.mpc_trunc_mask(data, _words(t, t.shape, "t"), _wraps(mask, t.shape, by), out.size, by, mask.itemsize)
    return out


# ---- a masked bit times a ring element -------------------------------------------------------------------------------
def select_share(bit: U8, mw: U64, lw: U64, beta: U64, beta_lw: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for Σ_k b_k·w_k, where bit = b ^ β is public, beta a share of β and beta_lw one of β·λ_w:
    mask + Σ_k (- bit·lw + (1 - 2·bit)·(beta·mw - beta_lw) {+ bit·mw}).  mask: of any shape, the others [terms, *shape].
    """
    shape = (len(bit), *mask.shape)
    out, data = _made(mask.shape)
    _lib.mpc_select_share(
        data,
        _bytes(bit, shape, "bit"),
        _words(mw, shape, "mw"),
        _words(lw, shape, "lw"),
        _words(beta, shape, "beta"),
        _words(beta_lw, shape, "beta_lw"),
        _words(mask, mask.shape, "mask"),
        len(bit),
        out.size,
        first,
    )
    return out


def inject_share(bit: U8, beta: U64, mask: U64, *, first: bool) -> U64:
    """One evaluator's message for b as a ring element: mask + (1 - 2·bit)·beta {+ bit}."""
    shape = bit.shape
    out, data = _made(shape)
    _lib.mpc_inject_share(
        data, _bytes(bit, shape, "bit"), _words(beta, shape, "beta"), _words(mask, shape, "mask"), out.size, first
    )
    return out


# ---- products of what is truncated on the way ------------------------------------------------------------------------
def _narrow(x: Unsigned, like: Unsigned, name: str) -> Any:
    """A pointer to x, which has the dtype and shape of `like`."""
    if x.dtype != like.dtype or x.shape != like.shape:
        raise ValueError(f"{name}: want {like.dtype}{list(like.shape)}, got {x.dtype}{list(x.shape)}")
    return _buffer(x, _BYTES)


def select_trunc_deal(bit: U8, r: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, U64, Unsigned]:
    """R = r >> by, S = r >> 63, β, β·R, β·S: what the helper deals for β·t; S and β·S in the unsigned dtype `wrap`, of
    at least `by` bits.
    """
    kind = np.dtype(wrap)
    _check_shift(by, kind)
    shape = r.shape
    (t, t_data), (beta, beta_data), (beta_t, beta_t_data) = _made(shape), _made(shape), _made(shape)
    b, beta_b = np.empty(shape, kind), np.empty(shape, kind)
    _lib.mpc_select_trunc_deal(
        t_data,
        _from_buffer(b),
        beta_data,
        beta_t_data,
        _from_buffer(beta_b),
        _bytes(bit, shape, "bit"),
        _words(r, shape, "r"),
        t.size,
        by,
        kind.itemsize,
    )
    return t, b, beta, beta_t, beta_b


def select_trunc_share(
    bit: U8, c: U64, t: U64, b: Unsigned, beta: U64, beta_t: U64, beta_b: Unsigned, mask: U64, by: int, *, first: bool
) -> U64:
    """One evaluator's message for the sum over the first axis of truncations t by `by` times bits b = bit ^ β, with
    shares of what `select_trunc_deal` makes: mask + Σ_k (bit·({A} - t + W·b) + (1 - 2·bit)·(beta·A - beta_t +
    W·beta_b)).  mask: of any shape, the others [terms, *shape].
    """
    shape = (len(c), *mask.shape)
    out, data = _made(mask.shape)
    _lib.mpc_select_trunc_share(
        data,
        _bytes(bit, shape, "bit"),
        _words(c, shape, "c"),
        _words(t, shape, "t"),
        _wraps(b, shape, by),
        _words(beta, shape, "beta"),
        _words(beta_t, shape, "beta_t"),
        _narrow(beta_b, b, "beta_b"),
        _words(mask, mask.shape, "mask"),
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
    _check_shift(by, kind)
    shape = r.shape
    (t, t_data), (t_ly, t_ly_data) = _made(shape), _made(shape)
    b, b_ly = np.empty(shape, kind), np.empty(shape, kind)
    _lib.mpc_mul_trunc_deal(
        t_data,
        _from_buffer(b),
        t_ly_data,
        _from_buffer(b_ly),
        _words(r, shape, "r"),
        _words(ly, shape, "ly"),
        t.size,
        by,
        kind.itemsize,
    )
    return t, b, t_ly, b_ly


def mul_trunc_share(
    c: U64, my: U64, ly: U64, t: U64, b: Unsigned, t_ly: U64, b_ly: Unsigned, mask: U64, by: int, *, first: bool
) -> U64:
    """One evaluator's message for a truncation t by `by` times y, with shares of what `mul_trunc_deal` makes:
    mask + my·({A} - t + W·b) - A·ly + t_ly - W·b_ly.
    """
    shape = c.shape
    out, data = _made(shape)
    _lib.mpc_mul_trunc_share(
        data,
        _words(c, shape, "c"),
        _words(my, shape, "my"),
        _words(ly, shape, "ly"),
        _words(t, shape, "t"),
        _wraps(b, shape, by),
        _words(t_ly, shape, "t_ly"),
        _narrow(b_ly, b, "b_ly"),
        _words(mask, shape, "mask"),
        out.size,
        by,
        b.itemsize,
        first,
    )
    return out


def square_trunc_deal(r: U64, by: int, wrap: npt.DTypeLike) -> tuple[U64, Unsigned, U64, Unsigned]:
    """R = r >> by, S = r >> 63, R², S·R: what the helper deals for t²; S and S·R in the unsigned dtype `wrap`."""
    kind = np.dtype(wrap)
    _check_shift(by, kind)
    shape = r.shape
    (t, t_data), (tt, tt_data) = _made(shape), _made(shape)
    b, bt = np.empty(shape, kind), np.empty(shape, kind)
    pointer = _words(r, shape, "r")
    _lib.mpc_square_trunc_deal(t_data, _from_buffer(b), tt_data, _from_buffer(bt), pointer, t.size, by, kind.itemsize)
    return t, b, tt, bt


def square_trunc_share(c: U64, t: U64, b: Unsigned, tt: U64, bt: Unsigned, mask: U64, by: int, *, first: bool) -> U64:
    """One evaluator's message for the square of a truncation t by `by`, with shares of what `square_trunc_deal` makes:
    mask {+ A²} - 2·A·t + tt + (2·A·W + W²)·b - 2·W·bt, where b² = b.
    """
    shape = c.shape
    out, data = _made(shape)
    _lib.mpc_square_trunc_share(
        data,
        _words(c, shape, "c"),
        _words(t, shape, "t"),
        _wraps(b, shape, by),
        _words(tt, shape, "tt"),
        _narrow(bt, b, "bt"),
        _words(mask, shape, "mask"),
        out.size,
        by,
        b.itemsize,
        first,
    )
    return out


# ---- bit planes ------------------------------------------------------------------------------------------------------
def pack_bits(bits: U8) -> U64:
    """uint8[elements] of 0 and 1 -> one plane, uint64[words]."""
    plane, data = _made((words(bits.size),))
    _lib.mpc_pack_bits(data, _bytes(bits, (bits.size,), "bits"), bits.size)
    return plane


def unpack_bits(plane: U64, elements: int) -> U8:
    """One plane, uint64[words] -> uint8[elements] of 0 and 1."""
    bits = np.empty(elements, _U8)
    _lib.mpc_unpack_bits(_from_buffer(_BYTES, bits), _words(plane, (words(elements),), "plane"), elements)
    return bits


def to_planes(x: U64, lo: int, hi: int) -> U64:
    """Bits lo .. hi-1 of x, uint64[elements] -> uint64[hi-lo, words]."""
    if not 0 <= lo <= hi <= 64:
        raise ValueError(f"bits {lo} to {hi} of 64")
    planes, data = _made((hi - lo, words(x.size)))
    _lib.mpc_to_planes(data, _words(x, (x.size,), "x"), x.size, lo, hi)
    return planes


# ---- conjunctions of 2 to 8 bits -------------------------------------------------------------------------------------
def _check_fan(fan: int) -> None:
    if not 2 <= fan <= 8:
        raise ValueError(f"a conjunction of 2 to 8 bits, not {fan}")


def and_deal(masks: U64) -> U64:
    """masks: uint64[fan, words] -> the products over all sets of two and more of them, uint64[and_rows(fan), words], in
    the order of the sets as numbers (bit i: mask i).
    """
    fan, count = masks.shape
    _check_fan(fan)
    products, data = _made((and_rows(fan), count))
    _lib.mpc_and_deal(data, _words(masks, masks.shape, "masks"), count, fan)
    return products


def and_share(m: U64, masks: U64, products: U64, *, first: bool) -> U64:
    """Xor shares of prod_i (m_i ^ mask_i), uint64[words].  m: uint64[fan, words], public; masks: this evaluator's xor
    shares of the masks; products: its xor shares of `and_deal`.
    """
    fan, count = m.shape
    _check_fan(fan)
    out, data = _made((count,))
    rows = _words(products, (and_rows(fan), count), "products")
    _lib.mpc_and_share(data, _words(m, m.shape, "m"), _words(masks, m.shape, "masks"), rows, count, fan, first)
    return out


# ---- comparison leaves: [C < rho] and [C = rho] on chunks of 4 to 8 bits ---------------------------------------------
def _check_chunk(chunk: int) -> None:
    if not CHUNK <= chunk <= 8:
        raise ValueError(f"chunks of {CHUNK} to 8 bits, not {chunk}")


def leaf_deal(rho: U64, chunk: int = CHUNK) -> U64:
    """The monomials of each chunk's bits.  rho: uint64[bits, words] -> uint64[leaf_rows(bits, chunk), words]; in a
    chunk's block, row s - 1 is the product of the bits in the set s (bit i of s stands for bit i of the chunk).
    """
    bits, count = rho.shape
    _check_chunk(chunk)
    rows, data = _made((leaf_rows(bits, chunk), count))
    _lib.mpc_leaf_deal(data, _words(rho, rho.shape, "rho"), count, bits, chunk)
    return rows


def leaf_share(c: U64, monomials: U64, chunk: int = CHUNK, *, first: bool) -> tuple[U64, U64]:
    """Xor shares of [C < rho] and [C = rho] for every chunk.  c: uint64[bits, words], public; monomials: xor shares of
    `leaf_deal(rho, chunk)`.  Returns lt, eq: uint64[chunks, words].
    """
    bits, count = c.shape
    _check_chunk(chunk)
    lt, lt_data = _made((-(-bits // chunk), count))
    eq, eq_data = _made(lt.shape)
    rows = _words(monomials, (leaf_rows(bits, chunk), count), "monomials")
    _lib.mpc_leaf_share(lt_data, eq_data, _words(c, c.shape, "c"), rows, count, bits, chunk, first)
    return lt, eq


# ---- comparison gates: 2 to 4 neighbouring (lt, eq) pairs into one ---------------------------------------------------
@cache
def _gate_sets(fan: int, with_eq: bool) -> bytes:
    """gate_products as sets of inputs, one byte each."""
    if not 2 <= fan <= 4:
        raise ValueError(f"a gate has 2 to 4 pairs of inputs, not {fan}")
    return bytes(sum(1 << i for i in part) for part in gate_products(fan, with_eq))


def gate_deal(masks: U64, *, with_eq: bool) -> U64:
    """masks: uint64[2·fan, words], the inputs' masks (lt rows, then eq rows; row fan = eq_0 is read only `with_eq`).
    Returns uint64[len(gate_products(fan, with_eq)), words].
    """
    rows, count = masks.shape
    sets = _gate_sets(rows // 2, with_eq)
    products, data = _made((len(sets), count))
    _lib.mpc_gate_deal(data, _words(masks, (rows & ~1, count), "masks"), sets, len(sets), count)
    return products


def gate_share(m: U64, masks: U64, products: U64, *, with_eq: bool, first: bool) -> U64:
    """Xor shares of a gate's outputs.  m: uint64[2·fan, words], the masked inputs; masks: this evaluator's xor shares
    of their masks; products: its xor shares of `gate_deal`.  Returns uint64[1 or 2, words]: lt and, `with_eq`, eq.
    """
    rows, count = m.shape
    sets = _gate_sets(rows // 2, with_eq)
    out, data = _made((1 + with_eq, count))
    shape = (rows & ~1, count)
    _lib.mpc_gate_share(
        data,
        _words(m, shape, "m"),
        _words(masks, shape, "masks"),
        _words(products, (len(sets), count), "products"),
        sets,
        len(sets),
        count,
        rows // 2,
        with_eq,
        first,
    )
    return out
