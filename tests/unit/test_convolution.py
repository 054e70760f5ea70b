"""Convolutions and their gradients, with any dimension numbers, strides, padding, dilation and groups, are jax's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import agree, names, ops, stages
from jax import lax


def integers(r: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(int(n) for n in r.integers(low, high, count))


def laid_out(shape: tuple[int, ...], spec: tuple[int, ...]) -> tuple[int, ...]:
    """[images, channels, *space] in the order that a spec of dimension numbers says."""
    return tuple(shape[spec.index(axis)] for axis in range(len(shape)))


def configuration(r: np.random.Generator, groups: str, rank: int) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """A convolution of two flat arrays, and their shapes."""
    features = 2 + int(r.integers(2)) if groups == "features" else 1
    batches = 2 + int(r.integers(2)) if groups == "batches" else 1
    images, channels, outputs = integers(r, 1, 4, 3)
    specs = [tuple(int(a) for a in r.permutation(rank + 2)) for _ in range(3)]
    left = laid_out((images * batches, channels * features, *integers(r, 2, 6, rank)), specs[0])
    right = laid_out((outputs * features * batches, channels, *integers(r, 1, 4, rank)), specs[1])
    padding = list(zip(integers(r, -1, 3, rank), integers(r, -1, 3, rank), strict=True))
    strides, spread, dilation = (integers(r, 1, 4, rank) for _ in range(3))
    numbers = lax.ConvDimensionNumbers(*specs)

    def conv(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(
            x.reshape(left), w.reshape(right), strides, padding, spread, dilation, numbers, features, batches
        )

    return conv, left, right


def result(conv: Any, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the convolution's result; () if it has none, or no elements."""
    flat = (jax.ShapeDtypeStruct((int(np.prod(shape)),), np.float32) for shape in (left, right))
    try:
        shape: tuple[int, ...] = jax.eval_shape(conv, *flat).shape
    except ValueError:  # more is cut away than there is
        return ()
    return shape if 0 not in shape else ()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", ["", "features", "batches"])
def test_a_convolution_and_its_gradients_are_jaxs(groups: str, rank: int) -> None:
    r, wanted = np.random.default_rng([rank, len(groups)]), 3
    while wanted:
        conv, left, right = configuration(r, groups, rank)
        shape = result(conv, left, right)
        if not shape:
            continue
        weights = r.normal(size=shape).astype(np.float32)

        def everything(x: Any, w: Any, conv: Any = conv, weights: Any = weights) -> Any:
            y, pull = jax.vjp(conv, x, w)
            return y, *pull(weights)

        agree(everything, r.normal(size=np.prod(left)), r.normal(size=np.prod(right)), tolerance=2e-3)
        wanted -= 1


X = np.random.default_rng(1).normal(size=(2, 36)).astype(np.float32)
W = np.random.default_rng(2).normal(size=(9, 2)).astype(np.float32)


def layer(x: Any, w: Any) -> Any:
    return lax.conv_general_dilated(
        x.reshape(2, 6, 6, 1), w.reshape(3, 3, 1, 2), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_one_factor_may_be_known() -> None:
    agree(lambda x: layer(x, W), X)
    found = agree(lambda w: layer(X, w), W)
    assert names(found["final"]).count("conv") == 1


def test_integers_and_booleans_convolve() -> None:
    agree(layer, (3 * X).astype(np.int32), (3 * W).astype(np.int32))
    found = agree(lambda x: layer((x > 0).astype(jnp.float32), W), X)
    assert names(found["final"]).count("trunc") <= 1


def test_a_sign_reads_the_convolution_before_it_is_truncated() -> None:
    [sign] = ops(stages(lambda x, w: jax.nn.relu(layer(x, w)), X, W)["final"], "sign")
    assert sign.integer("lo") == 19  # of the product, which is doubled


def test_a_gradient_is_truncated_once_with_the_rate() -> None:
    """The truncation takes the rate with it, as for matrix products."""
    kernel = np.random.default_rng(3).normal(size=(36, 2)).astype(np.float32)

    def loss(x: Any, w: Any) -> Any:
        return jnp.sum(lax.conv(x.reshape(2, 1, 6, 6), w.reshape(2, 1, 6, 6), (1, 1), "VALID") ** 2)

    found = agree(lambda x, w: w - 0.01 * jax.grad(loss, 1)(x, w), X, kernel)
    assert [op.type.size for op in ops(found["final"], "rescale")] == [72]
    assert [op.type.size for op in ops(found["final"], "trunc")].count(72) == 0
