"""How fast the kernels are, compiled against reference: `python benchmarks/kernels.py --help`.

Products in 10^9 multiply-adds per second, everything else in GB/s read and written; small calls in µs.  The best of
many short runs.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mpcnode.kernels import native, reference
from mpcnode.kernels.prg import Prg
from mpcnode.window import Window

SHAPES = [
    (1024, 1024, 1024),
    (512, 512, 512),
    (128, 784, 128),
    (784, 128, 128),
    (128, 128, 10),
    (128, 10, 128),
    (8192, 25, 20),
    (8192, 500, 50),
    (25, 8192, 20),
    (1000, 1000, 1),
    (1, 1000, 1000),
]
# images [number, side, side, channels], window [side, side, channels, outputs], zeros around
CONVOLUTIONS = [
    ((128, 28, 28, 1), (5, 5, 1, 20), 0),
    ((128, 12, 12, 20), (5, 5, 20, 50), 0),
    ((128, 8, 8, 50), (5, 5, 50, 20), 4),  # the second layer's gradient by its input: most of its products are zeros
    ((32, 32, 32, 64), (3, 3, 64, 64), 1),
]
BITS = 47  # of a comparison of numbers with 18 bits behind the binary point that are truncated anyway
RNG = np.random.default_rng(1)


def ring(*shape: int) -> Any:
    return RNG.integers(0, 1 << 64, shape, np.uint64)


def best_s(call: Callable[[], Any], budget_s: float) -> float:
    """Seconds of the fastest of the calls that fit into the budget (at least two, the first for warming up)."""
    call()
    best, end = float("inf"), time.perf_counter() + budget_s
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def nbytes(value: Any) -> int:
    """Bytes of all arrays in a value."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(nbytes(part) for part in value) if isinstance(value, tuple) else 0


def calls(elements: int) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """(kernel, arguments, options) on that many elements."""
    x = [ring(elements) for _ in range(6)]
    bits = RNG.integers(0, 2, elements, np.uint8)
    words = reference.words(elements)
    rho, gates = ring(BITS, words), ring(8, words)
    products = ring(len(reference.gate_products(4, True)), words)
    some = min(64, elements)  # keys are for few elements
    few, roots = ring(some), ring(2, some, 2)
    key = RNG.integers(0, 256, (some, reference.dcf_bytes(BITS)), np.uint8)
    return [
        ("mul_share", tuple(x), {"first": True}),
        ("waxpby", (1, x[0], -2, x[1]), {}),
        ("trunc_deal", (x[0], 18, np.uint32), {}),
        ("trunc_share", (x[0], x[1].astype(np.uint32), x[2].astype(np.uint32)), {}),
        ("trunc_open", (x[0], x[1].astype(np.uint32), 18), {}),
        ("trunc_mask", (x[0], x[1].astype(np.uint32), 18), {}),
        ("select_share", (bits[None], *(v[None] for v in x[:4]), x[4]), {"first": True}),
        ("inject_share", (bits, x[0], x[1]), {"first": True}),
        ("pack_bits", (bits,), {}),
        ("unpack_bits", (ring(words), elements), {}),
        ("to_planes", (x[0], 63 - BITS, 63), {}),
        ("leaf_deal", (rho,), {}),
        ("leaf_share", (rho, ring(reference.leaf_rows(BITS), words)), {"first": True}),
        ("leaves", (x[0], ring(1), 63 - BITS, 63, ring(reference.leaf_rows(BITS) + 1, words)), {"first": True}),
        ("dcf_deal", (few, roots, 63 - BITS, 63), {}),
        ("dcf_share", (few, ring(1), key, roots[0], 63 - BITS, 63), {"first": True}),
        ("gate_deal", (gates,), {"with_eq": True}),
        ("gate_share", (gates, gates, products), {"with_eq": True, "first": True}),
    ]


def convolution(images: tuple[int, ...], sizes: tuple[int, ...], zeros: int) -> tuple[tuple[Any, ...], int]:
    """Arguments of `conv`, and how many of its multiply-adds meet no zero."""
    ends, ones = (zeros, zeros), (1, 1)
    window = Window(ones, ends, ends, ones, ones)
    side, length = images[1], sizes[0]
    met = sum(0 <= place + i - zeros < side for place in range(side + 2 * zeros - length + 1) for i in range(length))
    return (ring(1, *images), ring(1, *sizes), window), images[0] * met**2 * sizes[2] * sizes[3]


class Report:
    """One table; a row holds the rate of each implementation and their ratio."""

    def __init__(self, title: str, unit: str, modules: list[ModuleType], budget_s: float) -> None:
        self.table = Table(title=title)
        self.modules, self.budget_s, self.unit = modules, budget_s, unit
        self.table.add_column("kernel")
        for module in modules:
            self.table.add_column(f"{module.__name__.rsplit('.', 1)[-1]} {unit}", justify="right")
        if len(modules) > 1:
            self.table.add_column("ratio", justify="right")

    def row(self, name: str, kernel: str, args: tuple[Any, ...], options: dict[str, Any], work: float) -> None:
        """Add the rate `work` / time, or the time in µs if there is no work."""
        times = [best_s(partial(getattr(module, kernel), *args, **options), self.budget_s) for module in self.modules]
        cells = [f"{work / t / 1e9:.2f}" if work else f"{t * 1e6:.1f}" for t in times]
        ratio = [f"{times[-1] / times[0]:.0f}"] if len(times) > 1 else []
        self.table.add_row(name, *cells, *ratio)


def run(
    elements: Annotated[int, typer.Option(help="Elements of the elementwise kernels.")] = 1 << 16,
    threads: Annotated[int, typer.Option(help="Threads of one call.")] = 1,
    isa: Annotated[str, typer.Option(help="Instruction set at most: portable, avx2 or avx512.")] = "avx512",
    budget_s: Annotated[float, typer.Option(help="Seconds for each measurement.")] = 0.2,
    compare: Annotated[bool, typer.Option(help="Measure the reference too.")] = True,
) -> None:
    """Measure every kernel and print four tables."""
    native.set_threads(threads)
    native.set_isa(isa)
    modules: list[ModuleType] = [native, reference] if compare else [native]
    console = Console()
    console.print(f"{platform.machine()}, {native.isa()}, {native.threads()} thread(s)")

    report = Report("matrix products mod 2^64", "GMAC/s", modules, budget_s)
    for m, k, n in SHAPES:
        report.row(f"{m} x {k} x {n}", "matmul", (ring(m, k), ring(k, n)), {}, m * k * n)
    console.print(report.table)

    report = Report("convolutions mod 2^64, by the products that are not zeros", "GMAC/s", modules, budget_s)
    for images, sizes, zeros in CONVOLUTIONS:
        args, work = convolution(images, sizes, zeros)
        report.row(f"{images} by {sizes}, {zeros} zeros around", "conv", args, {}, work)
    console.print(report.table)

    report = Report(f"{elements} elements", "GB/s", modules, budget_s)
    for kernel, args, options in calls(elements):
        moved = nbytes(args) + nbytes(getattr(native, kernel)(*args, **options))
        report.row(kernel, kernel, args, options, moved)
    out = np.empty(elements, np.uint64)
    prg_s = best_s(partial(Prg(bytes(16)).fill, bytes(12), out), budget_s)
    report.table.add_row("prg", f"{out.nbytes / prg_s / 1e9:.2f}")
    console.print(report.table)

    report = Report("small calls", "µs", modules, budget_s)
    report.row("matmul 4 x 4 x 4", "matmul", (ring(4, 4), ring(4, 4)), {}, 0)
    report.row("matmul 64 x 30 x 1", "matmul", (ring(64, 30), ring(30, 1)), {}, 0)
    for kernel, args, options in calls(10):
        report.row(f"{kernel} of 10", kernel, args, options, 0)
    prg_s = best_s(partial(Prg(bytes(16)).fill, bytes(12), np.empty(10, np.uint64)), budget_s)
    report.table.add_row("prg of 80 bytes", f"{prg_s * 1e6:.1f}")
    console.print(report.table)


if __name__ == "__main__":
    typer.run(run)
