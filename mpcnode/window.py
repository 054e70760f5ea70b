"""How a window moves over the spatial axes of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """One entry a spatial axis.  `base_dilation` - 1 zeros stand between neighbouring elements, then `low` and `high`
    zeros before and after them (negative: so many elements less); the window's elements lie `window_dilation` apart and
    it moves by `stride`.
    """

    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    base_dilation: tuple[int, ...]
    window_dilation: tuple[int, ...]

    def padded(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Lengths of the axes with the zeros."""
        ends = zip(sizes, self.base_dilation, self.low, self.high, strict=True)
        return tuple(max(0, a + b + ((n - 1) * d + 1 if n else 0)) for n, d, a, b in ends)

    def places(self, sizes: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
        """How many places a window of these lengths has on each axis."""
        spans = ((k - 1) * d + 1 for k, d in zip(window, self.window_dilation, strict=True))
        ends = zip(self.padded(sizes), spans, self.stride, strict=True)
        return tuple((n - span) // s + 1 if n >= span else 0 for n, span, s in ends)
