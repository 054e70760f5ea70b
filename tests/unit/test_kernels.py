"""Which kernels serve; and the compiled products equal reference.py, for every instruction set of this processor and
for one and two threads.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_settings import COMPILER, LAYOUTS, each_setting, native, odd, ring, rng, same, view  # noqa: F401

from mpcnode import kernels
from mpcnode.kernels import U64, places, reference
from mpcnode.kernels.native import products
from mpcnode.window import Window

ROOT = Path(__file__).parents[2]
KERNELS = [name for name in kernels.__all__ if inspect.isfunction(getattr(reference, name, None))]


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
        products._laid_out.cache_clear()
        monkeypatch.setattr(products, "FEW", most)
        same("conv", x, w, PLAIN)
        assert products._laid_out.cache_info().currsize == (most > 0)


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
