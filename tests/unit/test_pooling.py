"""Sums and extremes of windows, their gradients and tangents, are jax's; a gradient costs no comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import agree, ops, stages, traced
from jax import lax

from coordinator.frontend import CompileError
from coordinator.lower import pool
from coordinator.lower.rewrite import depth
from mpcnode.graph import Graph

R = np.random.default_rng(0)
X = R.normal(size=(2, 36)).astype(np.float32)
TIES = np.round(X)  # many equal entries, and zeros
W = R.normal(size=(9, 2)).astype(np.float32)

Window = dict[str, Any]
WINDOWS: dict[str, Window] = {
    "side by side": {"sizes": (1, 2, 2, 1), "strides": (1, 2, 2, 1)},
    "overlapping": {"sizes": (1, 3, 3, 1), "strides": (1, 1, 1, 1)},
    "padded": {"sizes": (1, 3, 3, 1), "strides": (1, 2, 2, 1), "padding": "SAME"},
    "uneven": {"sizes": (1, 3, 2, 1), "strides": (1, 1, 2, 1), "padding": ((0, 0), (1, 1), (0, 1), (0, 0))},
    "apart": {"sizes": (1, 2, 2, 1), "strides": (1, 3, 3, 1)},
    "with a rest": {"sizes": (1, 2, 2, 1), "strides": (1, 4, 4, 1)},
    "everything": {"sizes": (1, 6, 6, 1), "strides": (1, 1, 1, 1)},
    "over images": {"sizes": (2, 1, 5, 1), "strides": (1, 2, 1, 1)},
}


def largest(x: Any, sizes: Any, strides: Any, padding: Any = "VALID") -> Any:
    return lax.reduce_window(x.reshape(-1, 6, 6, 1), -jnp.inf, lax.max, sizes, strides, padding)


def smallest(x: Any, sizes: Any, strides: Any, padding: Any = "VALID") -> Any:
    return lax.reduce_window(x.reshape(2, 6, 6, 1), jnp.inf, lax.min, sizes, strides, padding)


def total(x: Any, sizes: Any, strides: Any, padding: Any = "VALID") -> Any:
    return lax.reduce_window(x.reshape(2, 6, 6, 1), 0.0, lax.add, sizes, strides, padding)


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of the squares of all results: every window has its own weight."""
    return jax.grad(lambda x: jnp.sum((function(x) + 1) ** 2))


@pytest.fixture(params=["few windows", "many windows"])
def cost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are many windows, rounds are cheap beside comparisons."""
    if request.param == "many windows":
        monkeypatch.setattr(pool, "ROUND_BYTES", 1)


@pytest.mark.parametrize("name", WINDOWS)
def test_largest_entries(cost: None, name: str) -> None:
    function = lambda x: largest(x, **WINDOWS[name])  # noqa: E731
    agree(lambda x: (function(x), gradient(function)(x), jax.jvp(function, (x,), (x**2,))[1]), X)
    agree(gradient(function), TIES)


@pytest.mark.parametrize("name", ["padded", "with a rest"])
def test_smallest_entries(cost: None, name: str) -> None:
    function = lambda x: smallest(x, **WINDOWS[name])  # noqa: E731
    agree(lambda x: (function(x), gradient(function)(x)), X)


@pytest.mark.parametrize("name", WINDOWS)
def test_sums(name: str) -> None:
    function = lambda x: total(x, **WINDOWS[name])  # noqa: E731
    found = agree(lambda x: (function(x), gradient(function)(x)), X)
    assert not ops(found["final"], "mul", "sign")


@pytest.mark.parametrize("name", ["side by side", "padded"])
@pytest.mark.parametrize("x", [X, TIES], ids=["", "ties"])
def test_rectified_entries(cost: None, name: str, x: np.ndarray) -> None:
    function = lambda x: largest(jax.nn.relu(x), **WINDOWS[name])  # noqa: E731
    agree(lambda x: (function(x), gradient(function)(x), jax.jvp(function, (x,), (x**2,))[1]), x)
    agree(lambda x: jnp.sum(jax.nn.relu(x)) * gradient(function)(x), x)


def test_windows_are_dilated() -> None:
    def dilated(x: Any, add: bool = False) -> Any:
        one = (1, 1, 1, 1)
        start, reducer = (0.0, lax.add) if add else (-jnp.inf, lax.max)
        ends = ((0, 0), (1, 2), (0, 3), (0, 0))
        return lax.reduce_window(
            x.reshape(2, 6, 6, 1), start, reducer, (1, 3, 2, 1), (1, 2, 1, 1), ends, one, (1, 2, 3, 1)
        )

    agree(lambda x: (dilated(x), dilated(x, add=True)), X)


def test_what_is_the_same_in_a_window_may_be_all_that_is_secret() -> None:
    function = lambda x: largest(x[0, 0] + TIES, **WINDOWS["padded"])  # noqa: E731
    agree(lambda x: (function(x), gradient(function)(x)), X)
    agree(lambda x: largest(x + x[0, 0], **WINDOWS["padded"]), X)


def test_integers() -> None:
    agree(lambda x: largest(x.astype(jnp.float32), **WINDOWS["padded"]), (5 * X).astype(np.int32))
    windows = {"window_dimensions": (1, 2), "window_strides": (1, 2), "padding": "VALID"}
    agree(lambda x: lax.reduce_window(x, jnp.iinfo(jnp.int32).min, lax.max, **windows), (5 * X).astype(np.int32))


# ---- costs -----------------------------------------------------------------------------------------------------------
def compared(graph: Graph) -> int:
    return sum(op.type.size for op in ops(graph, "sign"))


def layer(x: Any, w: Any) -> Any:
    """[2, 2, 2, 2] of 64 entries of a convolution, with a bias."""
    same = lax.conv_general_dilated(
        x.reshape(2, 6, 6, 1), w.reshape(3, 3, 1, 2), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return lax.reduce_window(jax.nn.relu(same + w[0]), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def test_maxima_are_compared_rectified_and_truncated_once(cost: None) -> None:
    """The gradient of a rectified, pooled convolution takes the bits of its value; 16 windows of 4 are 64 entries."""
    once = pool.ROUND_BYTES > 1
    found = agree(lambda x, w: jax.value_and_grad(lambda w: jnp.sum(layer(x, w) ** 2))(w), X, W)["final"]
    assert compared(found) == 16 * (6 if once else 3) + 16
    assert {op.integer("lo") for op in ops(found, "sign")} == ({1, 19} if once else {19})  # all pairs: all bits count
    final = ops(stages(layer, X, W)["final"], "trunc", "select")
    truncated = [op.type.size for op in final if "by" in op.attrs]
    assert truncated == [16]


def test_few_windows_take_fewer_rounds(cost: None) -> None:
    once = pool.ROUND_BYTES > 1
    final = stages(lambda x: largest(x, **WINDOWS["side by side"]), np.concatenate(8 * [X]))["final"]
    assert depth(final) == 1 + (4 if once else 6)  # of some hundred elements: 2 rounds a comparison


def test_overlapping_windows_share_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of three first, then three of these: 2 of 24 rows' places and 2 of 16, not 8 of 16 for each image."""
    monkeypatch.setattr(pool, "ROUND_BYTES", 1)
    final = stages(lambda x: largest(x, **WINDOWS["overlapping"]), X)["final"]
    assert compared(final) == 2 * (2 * 24 + 2 * 16)


# ---- refusals --------------------------------------------------------------------------------------------------------
def refused(function: Callable[..., Any]) -> str:
    with pytest.raises(CompileError) as caught:
        traced(function, X)
    return str(caught.value)


def test_refusals_name_the_line_and_the_way_around() -> None:
    alone = refused(lambda x: largest(x, (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), (2, 0), (0, 0), (0, 0))))
    assert "test_pooling.py:" in alone
    assert "a window lies in the padding alone" in alone
    start = refused(lambda x: lax.reduce_window(x, 0.0, lax.max, (1, 2), (1, 2), "VALID"))
    assert "use lax.max from -jnp.inf" in start
    known = refused(lambda x: jax.jvp(lambda y: largest(y, **WINDOWS["padded"]), (jnp.asarray(TIES),), (x,))[1])
    assert "extremes of known values" in known
