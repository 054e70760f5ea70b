"""A convolution as matrix products whose factors are read in place: where each of their elements stands.

The product has a row for each place of the window in each image, and a column of the left factor for each element of
the window and channel.  Element (i, l) of the left factor stands at `row[i] + column[l]`, so nothing is copied out
before it is packed.  Where the window hangs over the edge, or meets the zeros between dilated elements, the places
are sorted into classes whose windows meet the same elements, one product each: what is known to be zero is not
multiplied.  (The gradient of a convolution by its input is mostly such places.)
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mpcnode.kernels import memory
from mpcnode.window import Window

Offsets: TypeAlias = npt.NDArray[np.int64]
Strides: TypeAlias = tuple[int, ...]

WORTH = 0.8  # of the elements of all windows: if as many are no zeros, zeros are multiplied too
COLUMNS = 1 << 20  # of the products of all classes: with more, their tables cost more than the zeros


class Axis(NamedTuple):
    """Places on one spatial axis whose windows meet the same elements.  Element 0 of place p's window would stand at
    first[p], counted from the first input, with zeros between.
    """

    places: Offsets
    elements: Offsets
    first: Offsets
    dilation: int
    between: int

    @property
    def start(self) -> Offsets:
        """The number, in the input, of the first element that each place meets ..."""
        return (self.first + self._least * self.dilation) // self.between

    @property
    def step(self) -> Offsets:
        """... and what each element adds to it."""
        return (self.elements - self._least) * self.dilation // self.between

    @property
    def _least(self) -> int:
        return int(self.elements[0]) if len(self.elements) else 0


class Product(NamedTuple):
    """out[to[i]] (+)= Σ_l x[row[i] + column[l]] · w[weight[l]], rows of w and of the result at once; offsets in
    elements.
    """

    to: Offsets
    row: Offsets
    column: Offsets
    weight: Offsets


def padded(x: npt.NDArray[np.uint64], window: Window) -> npt.NDArray[np.uint64]:
    """x [groups, images, *space, channels] with the zeros that the window prescribes around and between."""
    space = x.shape[2:-1]
    out = memory.zeros((*x.shape[:2], *window.padded(space), x.shape[-1]), x.dtype)
    whole = slice(None)
    source, target = [whole, whole], [whole, whole]
    for n, length, low, between in zip(space, out.shape[2:-1], window.low, window.base_dilation, strict=True):
        first = max(0, -(low // between))  # the first element that is not cut away
        last = min(n, (length - 1 - low) // between + 1)
        source.append(slice(first, max(first, last)))
        target.append(slice(first * between + low, max(0, (last - 1) * between + low + 1), between))
    if out.size and all(s.stop > s.start for s in source[2:]):
        out[tuple(target)] = x[tuple(source)]
    return out


def unpadded(window: Window) -> Window:
    """The window for what `padded` returns."""
    rank = len(window.stride)
    return window._replace(low=(0,) * rank, high=(0,) * rank, base_dilation=(1,) * rank)


class Zeros(enum.Enum):
    """What is to be done about elements of windows that are known to be zero."""

    NONE = 0  # there are none
    WRITE = 1  # they are few: written out and multiplied, they cost less than many small products
    SKIP = 2


def zeros(space: tuple[int, ...], sizes: tuple[int, ...], window: Window) -> Zeros:
    """For windows of these sizes over this space."""
    met, everything, columns = 1, math.prod(window.places(space, sizes)) * math.prod(sizes), 1
    for axis in _axes(space, sizes, window):
        met *= sum(len(kind.places) * len(kind.elements) for kind in axis)
        columns *= sum(len(kind.elements) for kind in axis)
    if met == everything:
        return Zeros.NONE
    return Zeros.WRITE if met >= WORTH * everything or columns > COLUMNS else Zeros.SKIP


def entries(images: int, space: tuple[int, ...], sizes: tuple[int, ...], channels: int, window: Window) -> int:
    """How long the tables of `products` are."""
    rows, columns = images, channels
    for axis in _axes(space, sizes, window):
        rows *= sum(len(kind.places) for kind in axis)
        columns *= sum(len(kind.elements) for kind in axis)
    return rows + columns


@lru_cache(maxsize=64)
def _axes(space: tuple[int, ...], sizes: tuple[int, ...], window: Window) -> tuple[tuple[Axis, ...], ...]:
    axes = zip(space, sizes, window.places(space, sizes), *window, strict=True)
    return tuple(tuple(_classes(*axis)) for axis in axes)


def _classes(
    n: int, size: int, count: int, stride: int, low: int, high: int, between: int, dilation: int
) -> Iterator[Axis]:
    """The places on one axis by what their windows meet: a range of the elements that do not fall between inputs."""
    first = np.arange(count, dtype=np.int64) * stride - low  # where a place's element 0 stands
    element = np.arange(size, dtype=np.int64)
    for phase in np.unique(first % between):
        fitting = element[(phase + element * dilation) % between == 0]
        places = np.flatnonzero(first % between == phase)
        below = np.searchsorted(fitting * dilation, -first[places], "left")
        above = np.searchsorted(fitting * dilation, (n - 1) * between - first[places], "right")
        ranges, which = np.unique(np.stack([below, np.maximum(below, above)]), axis=1, return_inverse=True)
        by_range = np.argsort(which.reshape(-1), kind="stable")
        ends = np.searchsorted(which.reshape(-1)[by_range], np.arange(ranges.shape[1] + 1))
        for i, (low_end, high_end) in enumerate(ranges.T):
            here = places[by_range[ends[i] : ends[i + 1]]]
            yield Axis(here, fitting[low_end:high_end], first[here], dilation, between)


def _paired(terms: list[tuple[Offsets, int, Offsets, int]]) -> tuple[Offsets, Offsets]:
    """All sums of one entry times its stride out of each term, in x and in what goes with it, in the order of x."""
    here = there = np.zeros(1, np.int64)
    for entries, stride, partners, partner_stride in sorted(terms, key=lambda term: -abs(term[1])):
        here = np.add.outer(here, entries * stride).reshape(-1)
        there = np.add.outer(there, partners * partner_stride).reshape(-1)
    return here, there


def products(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    window: Window,
    x_strides: Strides,
    w_strides: Strides,
) -> tuple[Product, ...]:
    """The products of one group; shapes [images, *space, channels] and [*window, channels, outputs], strides in
    elements.  Within a row of the left factor, and among its rows, what lies close together comes close together.
    """
    images, *space, channels = x_shape
    *sizes, _, outputs = w_shape
    counts = window.places(space, sizes)
    out_strides = [outputs] * (len(counts) + 1)
    for axis in reversed(range(len(counts))):
        out_strides[axis] = out_strides[axis + 1] * counts[axis]
    found = []
    for axes in itertools.product(*_axes(tuple(space), tuple(sizes), window)):
        every = np.arange(images, dtype=np.int64), np.arange(channels, dtype=np.int64)
        rows = [(every[0], x_strides[0], every[0], out_strides[0])]
        rows += [(a.start, s, a.places, t) for a, s, t in zip(axes, x_strides[1:-1], out_strides[1:], strict=True)]
        columns = [(a.step, s, a.elements, t) for a, s, t in zip(axes, x_strides[1:-1], w_strides[:-2], strict=True)]
        columns.append((every[1], x_strides[-1], every[1], w_strides[-2]))
        (row, to), (column, weight) = _paired(rows), _paired(columns)
        found.append(Product(to, row, column, weight))
    return tuple(found)
