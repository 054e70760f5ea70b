"""The compiled kernels equal reference.py, for every instruction set of this processor and for one and two threads."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcnode import kernels
from mpcnode.kernels import U64, places, reference
from mpcnode.window import Window

ROOT = Path(__file__).parents[2]
KERNELS = [name for name in kernels.__all__ if inspect.isfunction(getattr(reference, name, None))]
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


@pytest.fixture(params=[(isa, threads) for isa in available() for threads in (1, 2)], ids=lambda p: f"{p[0]}-{p[1]}")
def setting(request: pytest.FixtureRequest) -> Iterator[None]:
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


# ---- the choice ------------------------------------------------------------------------------------------------------
def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "MPCNODE_KERNELS"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_every_kernel_is_exported_with_the_signature_of_the_reference() -> None:
    assert set(KERNELS) >= {
        "matmul",
        "matmul_add",
        "conv",
        "conv_add",
        "mul_share",
        "trunc_share",
        "leaf_share",
        "gate_share",
        "to_planes",
    }
    for module in (native, kernels):
        for name in KERNELS:
            assert inspect.signature(getattr(module, name)) == inspect.signature(getattr(reference, name)), name


def test_native_serves_where_it_was_built() -> None:
    if "MPCNODE_KERNELS" not in os.environ:
        assert kernels.NAME == "native"
        assert kernels.matmul is native.matmul


def test_the_environment_forces_the_reference() -> None:
    done = run(
        "import mpcnode.kernels as k; print(k.NAME, k.matmul is k.reference.matmul, k.threads())",
        MPCNODE_KERNELS="reference",
    )
    assert done.stdout.split() == ["reference", "True", "1"], done.stderr
    assert done.stderr == ""


HIDE = "import sys; sys.modules['mpcnode.kernels._native'] = None; "


def test_without_the_extension_the_reference_serves_with_a_warning() -> None:
    use = (
        "import numpy as np, mpcnode.kernels as k; a = np.eye(3, dtype='u8'); print(k.NAME, int(k.matmul(a, a).sum()))"
    )
    done = run(HIDE + use)
    assert done.stdout.split() == ["reference", "3"]
    assert done.stderr.count("KernelsWarning") == 1


def test_native_can_be_demanded() -> None:
    assert run("import mpcnode.kernels as k; assert k.NAME == 'native'", MPCNODE_KERNELS="native").returncode == 0
    done = run(HIDE + "import mpcnode.kernels", MPCNODE_KERNELS="native")
    assert done.returncode != 0
    assert "install with a C compiler" in done.stderr
    assert "want native or reference" in run("import mpcnode.kernels", MPCNODE_KERNELS="numba").stderr


def test_the_build_succeeds_without_a_compiler(tmp_path: Path) -> None:
    """setup.py warns and goes on; the wheel then holds Python only."""
    command = [sys.executable, "setup.py", "build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path / 'temp'}"]
    env = os.environ | {"CC": "no-such-compiler"}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("_native*.so"))


def test_threads() -> None:
    for module in (native, reference):
        with pytest.raises(ValueError, match="at least one thread"):
            module.set_threads(0)
    assert native.threads() == 1
    reference.set_threads(3)
    assert reference.threads() == 1


# ---- ring products ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("m", [0, 1, 2, 3, 5, 8, 33])
@pytest.mark.parametrize("k", [0, 1, 5, 64])
def test_matmul_on_small_shapes(setting: None, m: int, k: int) -> None:
    r = rng(m, k)
    for n in (0, 1, 2, 3, 4, 7, 8, 10, 16, 25, 31):
        same("matmul", ring(r, m, k), ring(r, k, n))


@pytest.mark.parametrize(
    "shape",
    [(128, 784, 128), (257, 513, 259), (1, 1000, 1), (300, 1000, 1), (1, 1000, 300), (100, 700, 10), (9, 3, 4100)],
)
def test_matmul_across_the_blocks(setting: None, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    r = rng(*shape)
    same("matmul", ring(r, m, k), ring(r, k, n))
    same("matmul", ring(r, k, m).T, ring(r, n, k).T)


@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_matmul_on_any_layout(setting: None, left: str, right: str) -> None:
    r = rng()
    for m, k, n in [(17, 31, 23), (1, 40, 9), (9, 40, 1), (40, 20, 2)]:
        same("matmul", view(r, left, m, k), view(r, right, k, n))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 25, 255, 256, 257, 258, 511])
def test_matmul_packs_any_depth(setting: None, k: int) -> None:
    r = rng(k)
    for m, n in [(5, 4), (16, 8), (25, 20), (27, 13)]:
        a, b = ring(r, m, k), ring(r, k, n)
        for left in (a, a.T.copy().T, np.repeat(a, 2, axis=1)[:, ::2]):
            for right in (b, b.T.copy().T, np.repeat(b, 2, axis=1)[:, ::2]):
                same("matmul", left, right)


LARGE = [(512, 512, 512), (513, 515, 517), (1030, 514, 1025)]


@cache
def large(shape: tuple[int, int, int]) -> tuple[U64, U64, U64]:
    """Factors and their product, big enough for seven products instead of eight; the last one at two threads too."""
    m, k, n = shape
    a, b = ring(rng(m), m, k), ring(rng(n), k, n)
    return a, b, reference.matmul(a, b)


@pytest.mark.parametrize("shape", LARGE)
def test_matmul_of_large_matrices(setting: None, shape: tuple[int, int, int]) -> None:
    a, b, want = large(shape)
    np.testing.assert_array_equal(native.matmul(a, b), want)
    np.testing.assert_array_equal(native.matmul(np.asfortranarray(a), np.asfortranarray(b)), want)
    out = ring(rng(), *want.shape)
    for negate in (False, True):
        before = out.copy()
        native.matmul_add(out, a, b, negate=negate)
        np.testing.assert_array_equal(out, before - want if negate else before + want)


def test_matmul_takes_batches(setting: None) -> None:
    r = rng()
    same("matmul", ring(r, 5, 7, 9), ring(r, 5, 9, 11))
    same("matmul", ring(r, 9, 7, 5).T, ring(r, 5, 11, 9).swapaxes(1, 2))
    same("matmul", ring(r, 2, 3, 70, 9), ring(r, 3, 2, 9, 110).swapaxes(0, 1))
    same("matmul", ring(r, 0, 7, 9), ring(r, 0, 9, 11))
    same("matmul", ring(r, 2, 0, 7, 9), ring(r, 2, 0, 9, 3))
    same("matmul", ring(r, 2, 3, 7, 0), ring(r, 2, 3, 0, 3))
    same("matmul", ring(r, 40, 30, 20), ring(r, 40, 20, 30))
    same("matmul", np.broadcast_to(ring(r, 7, 9), (5, 7, 9)), ring(r, 5, 9, 11))


@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 3), (3, 17, 31, 23), (0, 4, 5), (4, 0, 5), (5, 300, 4), (2, 30, 600, 30), (200, 9, 1), (1, 9, 200)]
)
def test_matmul_add(setting: None, shape: tuple[int, ...], negate: bool) -> None:
    r = rng(*shape)
    *batch, m, k, n = shape if len(shape) > 2 else (*shape, 4)
    a, b, out = ring(r, *batch, m, k), ring(r, *batch, k, n), ring(r, *batch, m, n)
    want = out.copy()
    reference.matmul_add(want, a, b, negate=negate)
    native.matmul_add(out, a, b, negate=negate)
    np.testing.assert_array_equal(out, want)


def test_matmul_refuses() -> None:
    r = rng()
    a, b = ring(r, 3, 4), ring(r, 4, 5)
    for left, right in [(a, a), (a[0], b), (a[None], b), (np.stack([a] * 2), np.stack([b] * 3))]:
        with pytest.raises(ValueError, match="matmul: want"):
            native.matmul(left, right)
    with pytest.raises(ValueError, match=r"int64\[3, 4\] @ uint64\[4, 5\]"):
        native.matmul(a.astype(np.int64), b)
    frozen = ring(r, 3, 5)
    frozen.flags.writeable = False
    for out in (ring(r, 3, 4), ring(r, 5, 3).T, np.zeros((3, 5), np.int64), odd(ring(r, 3, 5)), frozen):
        with pytest.raises(ValueError, match="matmul_add: want"):
            native.matmul_add(out, a, b)  # type: ignore[arg-type]


# ---- convolutions ----------------------------------------------------------------------------------------------------
def moved(r: np.random.Generator, *shape: int) -> U64:
    """An array of that shape whose axes lie in memory in another order, some of them reversed."""
    order = r.permutation(len(shape))
    x = ring(r, *(shape[a] for a in order)).transpose(np.argsort(order))
    return x[tuple(slice(None, None, int(s)) for s in r.choice([1, -1], len(shape)))]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_on_random_windows(setting: None, rank: int) -> None:
    r = rng(rank)
    for _ in range(60):
        groups, images, channels, outputs = (int(n) for n in r.integers(1, 4, 4))
        space, sizes = (tuple(int(n) for n in r.integers(1, most, rank)) for most in (8, 4))
        ends = ((1, 3), (-2, 4), (-2, 4), (1, 4), (1, 3))
        window = Window(*(tuple(int(n) for n in r.integers(low, high, rank)) for low, high in ends))
        x, w = moved(r, groups, images, *space, channels), moved(r, groups, *sizes, channels, outputs)
        same("conv", x, w, window)
        got = ring(r, *native.conv(x, w, window).shape)
        want, negate = got.copy(), bool(r.integers(2))
        native.conv_add(got, x, w, window, negate=negate)
        reference.conv_add(want, x, w, window, negate=negate)
        np.testing.assert_array_equal(got, want)


PLAIN = Window((1, 1), (0, 0), (0, 0), (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("left", "right", "window"),
    [
        ((1, 9, 12, 12, 20), (1, 5, 5, 20, 50), PLAIN),
        ((1, 9, 8, 8, 50), (1, 5, 5, 50, 20), PLAIN._replace(low=(4, 4), high=(4, 4))),
        ((1, 3, 40, 40, 16), (1, 3, 3, 16, 7), PLAIN._replace(low=(1, 1), high=(1, 1))),
        ((1, 3, 9, 9, 33), (1, 3, 3, 33, 7), PLAIN._replace(low=(1, 1), high=(2, 2), base_dilation=(2, 2))),
        ((5, 1, 30, 30, 3), (5, 26, 26, 3, 4), PLAIN),
    ],
)
def test_conv_across_the_blocks(setting: None, left: tuple[int, ...], right: tuple[int, ...], window: Window) -> None:
    r = rng(*left)
    same("conv", ring(r, *left), ring(r, *right), window)
    same("conv", moved(r, *left), moved(r, *right), window)


def test_conv_of_long_windows_writes_its_zeros_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place at the ends of a line meets other elements; a product for each would need long tables."""
    r, ends = rng(), (60,)
    x, w, window = ring(r, 1, 2, 61, 2), ring(r, 1, 61, 2, 3), Window((1,), ends, ends, (1,), (1,))
    assert places.zeros((61,), (61,), window) is places.Zeros.SKIP
    monkeypatch.setattr(places, "COLUMNS", 60 * 61)
    assert places.zeros((61,), (61,), window) is places.Zeros.WRITE
    same("conv", x, w, window)


def test_conv_remembers_short_tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = ring(rng(), 2, 3, 6, 6, 2), ring(rng(), 2, 3, 3, 2, 5)
    for most in (0, 1 << 16):
        native._laid_out.cache_clear()
        monkeypatch.setattr(native, "FEW", most)
        same("conv", x, w, PLAIN)
        assert native._laid_out.cache_info().currsize == (most > 0)


def test_conv_takes_any_memory(setting: None) -> None:
    r = rng()
    x, w = ring(r, 2, 3, 6, 6, 2), ring(r, 2, 3, 3, 2, 5)
    for left, right in [
        (odd(x), odd(w)),
        (np.broadcast_to(x[:, :1], x.shape), w),
        (x, np.broadcast_to(w[:1], w.shape)),
    ]:
        same("conv", left, right, PLAIN)


@pytest.mark.parametrize("axis", range(5))
def test_conv_of_nothing(setting: None, axis: int) -> None:
    left, right = [1, 3, 6, 5, 2], [1, 3, 3, 2, 4]
    left[axis] = 0
    if axis in (0, 4):
        right[{0: 0, 4: 3}[axis]] = 0
    same("conv", ring(rng(), *left), ring(rng(), *right), PLAIN)


def test_conv_refuses() -> None:
    x, w = ring(rng(), 1, 3, 6, 6, 2), ring(rng(), 1, 3, 3, 2, 5)
    for left, right in [(x, w[0]), (x[..., :1], w), (np.concatenate([x, x]), w), (x.astype(np.int64), w)]:
        with pytest.raises(ValueError, match="conv: want"):
            native.conv(left, right, PLAIN)
    frozen = ring(rng(), 1, 3, 4, 4, 5)
    frozen.flags.writeable = False
    for out in (ring(rng(), 1, 3, 4, 4, 4), ring(rng(), 5, 4, 4, 3, 1).T, frozen):
        with pytest.raises(ValueError, match="conv_add: want"):
            native.conv_add(out, x, w, PLAIN)


# ---- elementwise -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [False, True])
def test_share_formulas(setting: None, first: bool) -> None:
    for size in [*SIZES, 40_001]:
        r = rng(size)
        x = [ring(r, size) for _ in range(6)]
        same("mul_share", *x, first=first)
        for terms in (0, 1, 3):
            rows = [ring(r, terms, size) for _ in range(4)]
            same("select_share", bits(r, terms, size), *rows, x[0], first=first)
        same("inject_share", bits(r, size), *x[:2], first=first)
        for by, kind in [
            (1, np.uint8),
            (8, np.uint8),
            (16, np.uint16),
            (18, np.uint32),
            (32, np.uint32),
            (36, np.uint64),
            (62, np.uint64),
        ]:
            same("trunc_deal", x[0], by, kind)
            wrap, product = (v.astype(kind) for v in x[2:4])
            same("trunc_share", x[0], wrap, product)
            same("trunc_open", x[0], wrap, by)
            for times in (2, min((1 << 31) - 1, 1 << by)):
                same("trunc_deal", x[0], by, kind, times)
                same("trunc_open", x[0], wrap, by, times)
            same("trunc_mask", x[0], wrap, by)
            same("select_trunc_deal", bits(r, size), x[0], by, kind)
            for terms in (0, 1, 3):
                rows = [ring(r, terms, size) for _ in range(6)]
                narrow = [v.astype(kind) for v in rows[4:]]
                share = bits(r, terms, size), *rows[:2], narrow[0], *rows[2:4], narrow[1], x[0]
                same("select_trunc_share", *share, by, first=first)
            same("mul_trunc_deal", x[0], x[1], by, kind)
            same("mul_trunc_share", *x[:4], wrap, x[4], product, x[5], by, first=first)
            same("square_trunc_deal", x[0], by, kind)
            same("square_trunc_share", *x[:2], wrap, x[4], product, x[5], by, first=first)


def test_share_formulas_take_any_shape(setting: None) -> None:
    r = rng()
    x = [ring(r, 3, 4, 5) for _ in range(4)] + [ring(r, 5, 4, 3).T, np.broadcast_to(ring(r, 5), (3, 4, 5))]
    same("mul_share", *x, first=True)
    same("select_share", bits(r, 6, 4, 5)[::2], *x[2:], ring(r, 4, 5), first=True)
    same("inject_share", bits(r, 3, 4, 5), x[4], x[5], first=True)
    same("trunc_deal", x[4], 18, np.uint32)
    same("trunc_share", x[4], x[4].astype(np.uint32), x[5].astype(np.uint32))
    same("trunc_open", x[4], x[5].astype(np.uint32), 18)
    same("trunc_mask", x[4], x[5].astype(np.uint32), 18)
    x = [odd(ring(r, 200)) for _ in range(6)]
    same("mul_share", *x, first=True)
    same("trunc_share", x[0], odd(x[1].astype(np.uint32)), odd(x[2].astype(np.uint32)))
    same("trunc_open", x[0], odd(x[1].astype(np.uint32)), 18)
    scalar = [ring(r) for _ in range(6)]
    assert native.mul_share(*scalar, first=True).shape == ()


def test_share_formulas_refuse() -> None:
    r = rng()
    x, y, bit = ring(r, 4), ring(r, 5), bits(r, 4)
    with pytest.raises(ValueError, match=r"ly: want uint64\[4\], got uint64\[5\]"):
        native.mul_share(x, x, x, y, x, x, first=True)
    with pytest.raises(ValueError, match=r"mask: want uint64\[4\], got int64\[4\]"):
        native.inject_share(bit, x, x.astype(np.int64), first=True)
    with pytest.raises(ValueError, match=r"bit: want uint8\[1, 4\], got bool\[1, 4\]"):
        native.select_share(bit.astype(bool)[None], *[x[None]] * 4, x, first=True)
    for by, kind in [(0, np.uint8), (63, np.uint64), (9, np.uint8), (8, np.int8)]:
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_deal(x, by, kind)
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_open(x, x.astype(kind), by)
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_mask(x, x.astype(kind), by)
        with pytest.raises(ValueError, match="truncation by"):
            native.square_trunc_deal(x, by, kind)
        with pytest.raises(ValueError, match="truncation by"):
            native.mul_trunc_share(x, x, x, x, x.astype(kind), x, x.astype(kind), x, by, first=True)
    for by, times in [(3, 9), (40, 1 << 31), (40, 0)]:
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_deal(x, by, np.uint64, times)
        with pytest.raises(ValueError, match="truncation by"):
            native.trunc_open(x, x, by, times)
    with pytest.raises(ValueError, match=r"b: want \[4\], got \[5\]"):
        native.trunc_share(x, y, y)
    with pytest.raises(ValueError, match=r"mask: want uint64\[4\], got uint32\[4\]"):
        native.trunc_share(x, x, x.astype(np.uint32))
    with pytest.raises(ValueError, match=r"bt: want uint64\[4\], got uint32\[4\]"):
        native.square_trunc_share(x, x, x, x, x.astype(np.uint32), x, 18, first=True)


# ---- bit planes ------------------------------------------------------------------------------------------------------
def test_planes(setting: None) -> None:
    for size in [*SIZES, 300_001]:
        r = rng(size)
        x, b = ring(r, size), bits(r, size)
        same("pack_bits", b)
        same("unpack_bits", ring(r, reference.words(size)), size)
        np.testing.assert_array_equal(native.unpack_bits(native.pack_bits(b), size), b)
        for lo, hi in [(0, 64), (0, 63), (16, 63), (63, 64), (5, 5)] if size < 1001 else [(16, 63)]:
            same("to_planes", x, lo, hi)
    r = rng()
    same("pack_bits", bits(r, 200)[::2])
    same("unpack_bits", ring(r, 8)[::2], 250)
    same("to_planes", ring(r, 500)[::-3], 3, 60)


def test_planes_refuse() -> None:
    r = rng()
    with pytest.raises(ValueError, match=r"plane: want uint64\[2\], got uint64\[1\]"):
        native.unpack_bits(ring(r, 1), 65)
    with pytest.raises(ValueError, match=r"bits: want uint8\[6\], got uint8\[2, 3\]"):
        native.pack_bits(bits(r, 2, 3))
    for lo, hi in [(-1, 3), (3, 2), (0, 65)]:
        with pytest.raises(ValueError, match="of 64"):
            native.to_planes(ring(r, 4), lo, hi)


WORDS = [0, 1, 2, 3, 4, 5, 8, 13, 600, 4500]


@pytest.mark.parametrize("first", [False, True])
def test_leaves(setting: None, first: bool) -> None:
    for width in (0, 1, 2, 3, 4, 5, 6, 7, 8, 47, 63):
        for words in WORDS[:-1] if width < 47 else [9, *WORDS[-2:]]:
            r = rng(width, words)
            same("leaf_deal", ring(r, width, words))
            same("leaf_share", ring(r, width, words), ring(r, reference.leaf_rows(width), words), first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("chunk", [5, 6, 7, 8])
def test_wide_leaves(setting: None, chunk: int, first: bool) -> None:
    for width, words in [(chunk - 1, 3), (chunk, 8), (13, 0), (13, 1), (26, 13), (44, 90), (63, 5)]:
        r = rng(width, words)
        same("leaf_deal", ring(r, width, words), chunk)
        rows = ring(r, reference.leaf_rows(width, chunk), words)
        same("leaf_share", ring(r, width, words), rows, chunk, first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("with_eq", [False, True])
@pytest.mark.parametrize("fan", [2, 3, 4])
def test_gates(setting: None, fan: int, with_eq: bool, first: bool) -> None:
    for words in WORDS:
        r = rng(fan, words)
        products = ring(r, len(reference.gate_products(fan, with_eq)), words)
        same("gate_deal", ring(r, 2 * fan, words), with_eq=with_eq)
        same("gate_share", ring(r, 2 * fan, words), ring(r, 2 * fan, words), products, with_eq=with_eq, first=first)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("fan", range(2, 9))
def test_conjunctions(setting: None, fan: int, first: bool) -> None:
    for words in [*WORDS[:9], 300]:
        r = rng(fan, words)
        same("and_deal", ring(r, fan, words))
        products = ring(r, reference.and_rows(fan), words)
        same("and_share", ring(r, fan, words), ring(r, fan, words), products, first=first)


def test_conjunctions_refuse() -> None:
    r = rng()
    for fan in (1, 9):
        with pytest.raises(ValueError, match="2 to 8 bits"):
            native.and_deal(ring(r, fan, 2))
    with pytest.raises(ValueError, match=r"products: want uint64\[4, 2\], got uint64\[3, 2\]"):
        native.and_share(ring(r, 3, 2), ring(r, 3, 2), ring(r, 3, 2), first=True)


def test_leaves_and_gates_refuse() -> None:
    r = rng()
    with pytest.raises(ValueError, match=r"monomials: want uint64\[15, 2\], got uint64\[14, 2\]"):
        native.leaf_share(ring(r, 4, 2), ring(r, 14, 2), first=True)
    with pytest.raises(ValueError, match=r"masks: want uint64\[4, 2\], got uint64\[4, 3\]"):
        native.gate_share(ring(r, 4, 2), ring(r, 4, 3), ring(r, 1, 2), with_eq=False, first=True)
    with pytest.raises(ValueError, match="products: want"):
        native.gate_share(ring(r, 4, 2), ring(r, 4, 2), ring(r, 3, 2), with_eq=False, first=True)
    for chunk in (3, 9):
        with pytest.raises(ValueError, match="chunks of 4 to 8 bits"):
            native.leaf_deal(ring(r, 4, 2), chunk)
    for rows in (0, 2, 10):
        with pytest.raises(ValueError, match="2 to 4 pairs"):
            native.gate_deal(ring(r, rows, 2), with_eq=True)
    with pytest.raises(ValueError, match="masks: want"):
        native.gate_deal(ring(r, 5, 2), with_eq=True)


# ---- what the kernels are for: a comparison, from shares to the answer -----------------------------------------------
@given(st.data(), st.integers(1, 63), st.integers(1, 130))
@settings(max_examples=25, deadline=None)
def test_leaves_and_gates_compare(data: st.DataObject, width: int, size: int) -> None:
    """[C < rho] on `width` bits by leaves and level after level of gates; C and rho agree in many leading bits."""
    r = rng(data.draw(st.integers(0, 1 << 32)))
    rho = ring(r, size)
    c = rho ^ (ring(r, size) >> r.integers(0, 64, size).astype(np.uint64))
    top = np.uint64((1 << width) - 1)

    def shared(x: U64) -> list[U64]:
        share = ring(r, *x.shape)
        return [share, x ^ share]

    dealt = shared(kernels.leaf_deal(kernels.to_planes(rho, 0, width)))
    public = kernels.to_planes(c, 0, width)
    pairs = [kernels.leaf_share(public, part, first=i == 0) for i, part in enumerate(dealt)]
    lt, eq = (a ^ b for a, b in zip(*pairs, strict=True))
    while len(lt) > 1:
        outs = []
        for lo in range(0, len(lt), 4):
            fan = len(lt[lo : lo + 4])
            if fan == 1:
                outs.append((lt[lo], eq[lo]))
                continue
            inputs = np.concatenate([lt[lo : lo + 4], eq[lo : lo + 4]])
            masks = ring(r, *inputs.shape)
            products = shared(kernels.gate_deal(masks, with_eq=True))
            parts = zip(shared(masks), products, (True, False), strict=True)
            halves = [
                kernels.gate_share(inputs ^ masks, mask, product, with_eq=True, first=first)
                for mask, product, first in parts
            ]
            outs.append(tuple(halves[0] ^ halves[1]))
        lt, eq = (np.stack(rows) for rows in zip(*outs, strict=True))
    np.testing.assert_array_equal(kernels.unpack_bits(lt[0], size), (c & top) < (rho & top))
    np.testing.assert_array_equal(kernels.unpack_bits(eq[0], size), (c & top) == (rho & top))


@given(
    st.integers(1, 40),
    st.integers(0, 300),
    st.integers(1, 40),
    st.sampled_from(LAYOUTS),
    st.sampled_from(LAYOUTS),
    st.integers(0, 1 << 32),
)
@settings(max_examples=100, deadline=None)
def test_matmul_on_random_shapes(m: int, k: int, n: int, left: str, right: str, seed: int) -> None:
    r = rng(seed)
    same("matmul", view(r, left, m, k), view(r, right, k, n))
