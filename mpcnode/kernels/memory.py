"""Where new arrays come from: numpy, or the recorder that watches what is computed here (see mpcnode/tape.py).

Code that computes on shares makes its arrays with these functions, so that they can be told apart from others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpcnode.kernels.prg import Prg

Array = npt.NDArray[Any]


class Watcher(Protocol):
    """What is told of the work on arrays, as it is done."""

    def empty(self, shape: Sequence[int] | int, dtype: npt.DTypeLike) -> Array:
        """A new array, whose contents are anything."""

    def holds(self, address: int) -> bool:
        """Is there memory of an array of the watcher's?"""

    def called(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """A compiled function is about to be called."""

    def drawn(self, prg: Prg, address: bytes, out: Array) -> None:
        """`out` is about to be filled with the randomness of an address, which begins with the iteration's number."""

    def made(self, function: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
        """The result of a function of arrays."""

    def done(self, function: Callable[..., Any], *args: Any) -> None:
        """Call this now, and whenever the same is done again."""

    def strike(self, function: Callable[..., Any]) -> None:
        """If the last thing done was a call of this, what follows makes it needless."""

    def give_up(self, why: str) -> None:
        """What is done here cannot be told."""


WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def empty(shape: Sequence[int] | int, dtype: npt.DTypeLike) -> Array:
    """As np.empty."""
    watcher = WATCHER.get()
    return np.empty(shape, dtype) if watcher is None else watcher.empty(shape, dtype)


def zeros(shape: Sequence[int] | int, dtype: npt.DTypeLike) -> Array:
    """As np.zeros."""
    if WATCHER.get() is None:
        return np.zeros(shape, dtype)
    out = empty(shape, dtype)
    out[...] = 0
    return out


def copy(x: Array) -> Array:
    """A C-contiguous copy, of which the caller may write every element."""
    out = empty(x.shape, x.dtype)
    out[...] = x
    return out


def contiguous(x: Array) -> Array:
    """x, C-contiguous; a copy only if it is not."""
    return x if x.flags.c_contiguous else copy(x)


def take(x: Array, indices: Array, axis: int) -> Array:
    """As np.take, which says nothing of its indices to a watcher."""
    watcher = WATCHER.get()
    found: Array = np.take(x, indices, axis) if watcher is None else watcher.made(np.take, (x, indices, axis), {})
    return found
