"""The entries that windows meet along one axis, and back: reshapes where windows lie side by side, else `take`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator.lower.builder import Builder, Value
from mpcnode.window import Window

Table = npt.NDArray[np.int64]


class Line(NamedTuple):
    """Windows along one axis of `size` entries: element k of window p is entry table[k, p], or -1, which is none."""

    axis: int
    size: int
    table: Table

    @property
    def length(self) -> int:
        """Elements of a window."""
        return int(self.table.shape[0])

    @property
    def places(self) -> int:
        return int(self.table.shape[1])

    @property
    def side_by_side(self) -> bool:
        return bool(np.array_equal(self.table.T.reshape(-1), np.arange(self.table.size)))

    def filled(self) -> Line | None:
        """With the first entry that the window meets in the place of none; None if a window meets nothing."""
        met = self.table >= 0
        if not met.any(axis=0).all():
            return None
        first = np.take_along_axis(self.table, met.argmax(axis=0)[None], 0)
        return self._replace(table=np.where(met, self.table, first))


def line(axis: int, size: int, count: int, window: Window) -> Line:
    """Windows of `count` elements, by the one axis of `window`."""
    [places] = window.places((size,), (count,))
    [(stride, low, _, between, dilation)] = zip(*window, strict=True)
    at = np.arange(count)[:, None] * dilation + np.arange(places) * stride - low
    met = (at % between == 0) & (at >= 0) & (at <= (size - 1) * between)
    return Line(axis, size, np.where(met, at // between, -1).astype(np.int64))


def unfold(b: Builder, x: Value, windows: Line) -> Value:
    """[..., size, ...] -> [count, ..., places, ...]: zeros where a window meets nothing.  Costs nothing."""
    axis, (count, places) = windows.axis, windows.table.shape
    rank = len(x.shape)
    if windows.side_by_side:
        cut = b.slice_axis(x, axis, 0, count * places)
        pairs = b.reshape(cut, (*x.shape[:axis], places, count, *x.shape[axis + 1 :]))
        return b.transpose(pairs, (axis + 1, *(a for a in range(rank + 1) if a != axis + 1)))
    table = windows.table
    if (table < 0).any():
        x = _ended(b, x, axis)
        table = np.where(table < 0, windows.size, table)
    taken = b.emit("take", x, b.raw(np.ascontiguousarray(table), 0), axis=axis)
    return b.transpose(taken, (axis, *(a for a in range(rank + 1) if a != axis)))


def fold(b: Builder, parts: Sequence[Value], windows: Line) -> Value:
    """[..., places, ...] for each element of windows -> [..., size, ...]: for each entry, what falls on it, summed."""
    axis, (length, places) = windows.axis, windows.table.shape
    before, after = parts[0].shape[:axis], parts[0].shape[axis + 1 :]
    if windows.side_by_side:  # the elements of a window next to each other
        rows = [b.reshape(part, (*before, places, 1, *after)) for part in parts]
        row = rows[0] if length == 1 else b.emit("concat", *rows, axis=axis + 1)
        return _ended(b, b.reshape(row, (*before, places * length, *after)), axis, windows.size - places * length)
    row = parts[0] if length == 1 else b.emit("concat", *parts, axis=axis)
    fallen = b.emit("take", _ended(b, row, axis), b.raw(_targets(windows), 0), axis=axis)
    return b.emit("sum", fallen, axes=(axis,))


def _ended(b: Builder, x: Value, axis: int, zeros: int = 1) -> Value:
    """With zeros behind the last entry of the axis."""
    high = tuple(zeros if a == axis else 0 for a in range(len(x.shape)))
    return b.emit("pad", x, low=(0,) * len(high), high=high) if zeros else x


def _targets(windows: Line) -> Table:
    """[most, size]: which elements of windows, flattened, fall on each entry; their number stands for none."""
    entries, none = windows.table.reshape(-1), windows.table.size
    found: list[list[int]] = [[] for _ in range(windows.size)]
    for position, entry in enumerate(entries):
        if entry >= 0:
            found[entry].append(position)
    most = max(1, *map(len, found))
    return np.array([f + [none] * (most - len(f)) for f in found], np.int64).reshape(windows.size, most).T.copy()
