"""Arrays as pointers, and what the compiled code is asked to trust of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpcnode.kernels import _native
from mpcnode.kernels.memory import WATCHER, Watcher, empty
from mpcnode.kernels.reference import MOST_TIMES, U8, U64, Unsigned

ffi = _native.ffi


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function of which watchers hear; a pointer into their memory is passed on as one that owns nothing."""

    def must(*args: Any) -> None:
        if function(*args):
            raise MemoryError("no memory to pack a product")

    told = function if ffi.typeof(function).result.kind == "void" else must

    def call(*args: Any) -> Any:
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.called(told, [_pointed(watcher, x) for x in args])
        return function(*args)

    return call


def _pointed(watcher: Watcher, x: Any) -> Any:
    """An argument as a watcher may keep it."""
    if not isinstance(x, ffi.CData):
        return x
    kind, address = ffi.typeof(x), int(ffi.cast("uintptr_t", x))
    if watcher.holds(address):
        return ffi.cast(ffi.getctype(kind.item, "*"), address)
    if kind.kind != "array":  # it keeps nothing alive
        watcher.give_up("a pointer into memory that is not the watcher's")
    return x


lib = SimpleNamespace(**{name: _told(getattr(_native.lib, name)) for name in dir(_native.lib)})
from_buffer = ffi.from_buffer
WORDS = ffi.typeof("uint64_t[]")
BYTES = ffi.typeof("uint8_t[]")
INDICES = ffi.typeof("int64_t[]")
WORD = np.dtype(np.uint64)
BYTE = np.dtype(np.uint8)


# ---- any -------------------------------------------------------------------------------------------------------------
def buffer(x: npt.NDArray[Any], kind: Any) -> Any:
    """A pointer to the elements of x, in order; it keeps alive what it points to."""
    flags = x.flags
    return from_buffer(kind, x if flags.c_contiguous and flags.aligned else x.copy())


def words_of(x: U64, shape: tuple[int, ...], name: str) -> Any:
    """A pointer to x: uint64[shape]."""
    if x.shape != shape or x.dtype != WORD:
        raise ValueError(f"{name}: want uint64{list(shape)}, got {x.dtype}{list(x.shape)}")
    flags = x.flags
    return from_buffer(WORDS, x if flags.c_contiguous and flags.aligned else x.copy())


def bytes_of(x: U8, shape: tuple[int, ...], name: str) -> Any:
    """A pointer to x: uint8[shape]."""
    if x.shape != shape or x.dtype != BYTE:
        raise ValueError(f"{name}: want uint8{list(shape)}, got {x.dtype}{list(x.shape)}")
    return from_buffer(BYTES, x if x.flags.c_contiguous else x.copy())


def made(shape: tuple[int, ...]) -> tuple[U64, Any]:
    """A new uint64 array and a pointer to it."""
    out = empty(shape, WORD)
    return out, from_buffer(WORDS, out)


def result(out: U64 | None, shape: tuple[int, ...]) -> tuple[U64, Any]:
    """What a kernel is to write, new if it is not given, and a pointer to it."""
    if out is None:
        return made(shape)
    if out.shape != shape or out.dtype != WORD or not out.flags.carray:
        raise ValueError(f"out: want writable C-contiguous uint64{list(shape)}, got {out.dtype}{list(out.shape)}")
    return out, from_buffer(WORDS, out)


def several(shape: tuple[int, ...], *kinds: npt.DTypeLike) -> tuple[list[npt.NDArray[Any]], list[Any]]:
    """New arrays of these unsigned dtypes, and pointers to them."""
    arrays = [empty(shape, kind) for kind in kinds]
    return arrays, [from_buffer(WORDS, x) if x.dtype == WORD else from_buffer(x) for x in arrays]


# ---- of truncations --------------------------------------------------------------------------------------------------
@lru_cache(maxsize=256)
def check_shift(by: int, wrap: np.dtype[Any], times: int = 1) -> None:
    """Raise ValueError for what the kernels do not compute.  Cached: what passed once passes again."""
    if not 1 <= by <= 62 or wrap.kind != "u" or by > 8 * wrap.itemsize or not wrap.isnative:
        raise ValueError(f"truncation by {by} bits with the wrap bit in {wrap}")
    if not 1 <= times <= min(MOST_TIMES, 1 << by):
        raise ValueError(f"truncation by {by} bits of {times} times a value")


def wraps_of(b: Unsigned, shape: tuple[int, ...], by: int, times: int = 1) -> Any:
    """A pointer to shares of the wrap bit."""
    check_shift(by, b.dtype, times)
    if b.shape != shape:
        raise ValueError(f"b: want {list(shape)}, got {list(b.shape)}")
    return buffer(b, BYTES)


def narrow_of(x: Unsigned, like: Unsigned, name: str) -> Any:
    """A pointer to x, which has the dtype and shape of `like`."""
    if x.dtype != like.dtype or x.shape != like.shape:
        raise ValueError(f"{name}: want {like.dtype}{list(like.shape)}, got {x.dtype}{list(x.shape)}")
    return buffer(x, BYTES)
