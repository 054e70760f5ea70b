"""What tests of the kernels share: instruction sets and threads, numbers in any memory, and the comparison with
reference.py.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mpcnode import kernels
from mpcnode.kernels import U64, reference

SIZES = [0, 1, 7, 63, 64, 65, 511, 512, 513, 1000]
COMPILER = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])

if COMPILER is None and kernels.NAME == "reference":
    pytest.skip("no C compiler: the reference serves and has nothing to be compared with", allow_module_level=True)

from mpcnode.kernels import native  # noqa: E402  (with a compiler a missing extension is a failure, not a skip)


def available() -> list[str]:
    """The instruction sets of this processor, from the least."""
    best = native.isa()
    names = []
    for name in ("portable", "avx2", "avx512"):
        native.set_isa(name)
        names.append(native.isa())
    native.set_isa(best)
    return sorted(set(names), key=names.index)


@pytest.fixture(
    name="setting", params=[(isa, threads) for isa in available() for threads in (1, 2)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def each_setting(request: pytest.FixtureRequest) -> Iterator[None]:
    """One instruction set and number of threads."""
    isa, threads = request.param
    best = native.isa()
    native.set_isa(isa)
    native.set_threads(threads)
    yield
    native.set_isa(best)
    native.set_threads(1)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng([20240613, *seed])


def ring(r: np.random.Generator, *shape: int) -> U64:
    return r.integers(0, 1 << 64, shape, np.uint64)


def bits(r: np.random.Generator, *shape: int) -> Any:
    return r.integers(0, 2, shape, np.uint8)


def same(name: str, *args: Any, **options: Any) -> None:
    """Both implementations give the same arrays of the same types."""
    got = getattr(native, name)(*args, **options)
    want = getattr(reference, name)(*args, **options)
    for g, w in zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]:
        assert g.dtype == w.dtype
        assert g.flags.c_contiguous
        np.testing.assert_array_equal(g, w, strict=True)


def odd(x: Any) -> Any:
    """The same at an odd address."""
    place = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    place[...] = x
    assert x.size == 0 or not place.flags.aligned
    return place


def view(r: np.random.Generator, how: str, rows: int, cols: int) -> U64:
    """A matrix [rows, cols] whose memory is laid out in some way."""
    pair = np.dtype([("x", "<u8"), ("y", "u1")])
    layouts: dict[str, Callable[[], U64]] = {
        "plain": lambda: ring(r, rows, cols),
        "transposed": lambda: ring(r, cols, rows).T,
        "steps": lambda: ring(r, 2 * rows, 3 * cols)[::2, ::3],
        "reversed": lambda: ring(r, rows, cols)[::-1, ::-1],
        "slice": lambda: ring(r, rows + 3, cols + 5)[2 : 2 + rows, 1 : 1 + cols],
        "row": lambda: np.broadcast_to(ring(r, 1, cols), (rows, cols)),
        "column": lambda: np.broadcast_to(ring(r, rows, 1), (rows, cols)),
        "odd": lambda: odd(ring(r, rows, cols)),
        "packed": lambda: np.frombuffer(r.bytes(9 * rows * cols), pair)["x"].reshape(rows, cols),
    }
    return layouts[how]()


LAYOUTS = ["plain", "transposed", "steps", "reversed", "slice", "row", "column", "odd", "packed"]
