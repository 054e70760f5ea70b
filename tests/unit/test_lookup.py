"""Secret indices: tables are read and written at them as jax does it, without comparisons where the range is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import agree, evaluated, names, stages, traced
from jax import lax

from coordinator.lower.rewrite import depth

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3)).astype(np.float32)
T = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
PLACES = np.array([0, 2, 1, 0], np.int32)
FROM_THE_END = np.array([-1, 2, -3, 0], np.int32)
EACH = jnp.arange(4)

CASES: dict[str, Callable[..., Any]] = {
    "one hot": lambda i, x: (jax.nn.one_hot(i, 3), jax.nn.one_hot(i, 2), i[:, None] == jnp.array([0, 2, 5])),
    "rows": lambda i, x: (jnp.take(x, i, axis=0), jnp.take(x.T, i, axis=1), jnp.take(T, i, axis=0), x[i], x[:, i]),
    "clipped": lambda i, x: jnp.take(x, i + 2, axis=0, mode="clip"),
    "one of each row": lambda i, x: (jnp.take_along_axis(x, i[:, None], 1), x[EACH, i], x[jnp.array([3, 1, 1, 0]), i]),
    "two indices": lambda i, x: x[i, i[::-1]],
    "one element": lambda i, x: (x[i[1]], x[i[1], i[2]], x[2, i[1]], jax.vmap(lambda r, j: r[j])(x, i)),
    "blocks": lambda i, x: (lax.dynamic_slice(x, (i[1], 0), (2, 2)), lax.dynamic_slice(x, (1, i[0] + 7), (2, 2))),
    "blocks written": lambda i, x: (
        lax.dynamic_update_slice(x, x[:2] * 2, (i[1], 0)),
        lax.dynamic_update_slice(x, x[:2, :2] * 2, (i[1], 1)),
    ),
    "set": lambda i, x: (x.at[i[1]].set(1.0), x.at[i[1], 1].set(9.0), x.at[EACH, i].set(1.0, unique_indices=True)),
    "added": lambda i, x: (x.at[i].add(x), jnp.zeros((5, 3)).at[i].add(x), x.at[EACH, i].add(1.0)),
    "gradient of rows": lambda i, x: jax.grad(lambda x: (jnp.take(x, i, axis=0) ** 2).sum())(x),
    "gradient of one of each row": lambda i, x: jax.grad(lambda x: (jnp.take_along_axis(x, i[:, None], 1) ** 2).sum())(
        x
    ),
    "gradient of pairs": lambda i, x: jax.grad(lambda x: (x[EACH, i] ** 2).sum())(x),
    "booleans": lambda i, x: ((x > 0)[i], jnp.take(x > 0, i, axis=0)),
    "found places": lambda i, x: (x[jnp.argmax(x[:, 0])], T[jnp.argmax(x, 1)], x[jnp.argsort(x[:, 0])]),
}


@pytest.mark.parametrize("name", CASES)
def test_as_jax(name: str) -> None:
    agree(CASES[name], PLACES, X)


def test_negative_indices_count_from_the_end() -> None:
    agree(lambda i, x: (jnp.take(x[:3], i, axis=0), x[i], jnp.take(x, i, axis=0, mode="clip")), FROM_THE_END, X)
    agree(lambda i: jax.nn.one_hot(i, 3), FROM_THE_END)


def test_out_of_range_there_is_nothing() -> None:
    far = np.array([3, 4, -4, 1 << 30], np.int32)
    rows = evaluated(traced(lambda i: jnp.take(T, i, axis=0), far).graph, far)["out"]
    assert not rows.any()
    bits = evaluated(traced(lambda i: jax.nn.one_hot(i, 3), far).graph, far)["out"]
    assert not bits.any()


def test_a_place_in_range_is_looked_up_in_three_rounds_without_a_comparison() -> None:
    found = stages(lambda i, x: x[i], PLACES, X)["final"]
    assert names(found).count("sign") == 0
    assert depth(found) == 1 + 3  # the input; the bits, the bits as numbers, the product


def test_one_hot_vectors_cost_two_comparisons_a_number() -> None:
    found = stages(lambda i: jax.nn.one_hot(i, 100), PLACES)["final"]
    assert sum(op.type.size for op in found.ops if op.name == "sign") == 2 * len(PLACES)


def test_under_masks() -> None:
    graph = stages(lambda i, x: (jnp.take(x, i, axis=0), jax.nn.one_hot(i, 3)), PLACES, X)["final"]
    rows, bits = evaluated(graph, PLACES, X, protocol="masked").values()
    assert np.abs(rows - X[PLACES]).max() < 1e-5
    assert np.array_equal(bits, np.eye(3)[PLACES])
