"""Pooling operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coordinator.foreign import pooling
from coordinator.foreign.pooling import Windows
from coordinator.torch.aten.registry import rule


def _windows(
    count: int, size: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], ceil: bool
) -> Windows:
    def each(values: Sequence[int] | int) -> tuple[int, ...]:
        listed = (values,) if isinstance(values, int) else tuple(values)
        return listed * count if len(listed) == 1 else listed

    pads = tuple((p, p) for p in each(padding))
    return Windows(each(size), each(stride or size), pads, each(dilation), ceil)


def _max(count: int) -> Callable[..., Any]:
    def max_pool(
        x: Any, kernel_size: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,), ceil_mode: bool = False,
    ) -> Any:  # fmt: skip
        return pooling.max_pool(x, _windows(count, kernel_size, stride, padding, dilation, ceil_mode))

    return max_pool


def _average(count: int) -> Callable[..., Any]:
    def average_pool(
        x: Any, kernel_size: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,),
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        windows = _windows(count, kernel_size, stride, padding, (1,), ceil_mode)
        return pooling.average_pool(x, windows, count_include_pad, divisor_override)

    return average_pool


for _count in (1, 2, 3):
    rule(f"max_pool{_count}d")(_max(_count))
    rule(f"avg_pool{_count}d")(_average(_count))


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d")
def adaptive_avg_pool(x: Any, output_size: Sequence[int | None]) -> Any:
    return pooling.adaptive_average(x, output_size)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(x: Any, output_size: Sequence[int | None]) -> tuple[Any, ...]:
    """The maxima; where they were is not told."""
    return (pooling.adaptive_max(x, output_size),)
