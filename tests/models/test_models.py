"""Small models, each written as its library's users do, trained on secret data and compared with plain JAX."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import document
from compiling import evaluated, traced
from model_table import Row

from coordinator.frontend.known import FAST
from coordinator.lower.passes import compile

for library in ("flax", "equinox"):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e '.[dev]' brings it")
ROWS = document.rows()


def expected(row: Row) -> list[np.ndarray]:
    """What plain JAX makes of it: losses, then what was trained.  Every run learns, by more than its tolerance."""
    found = jax.jit(row.program, compiler_options=FAST)(*row.data)
    losses = np.atleast_2d(found[0])
    assert np.all(losses[:, 0] - losses[:, -1] > 5 * row.tolerance * np.maximum(1, losses[:, 0]))
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]


def close(row: Row, found: dict[str, np.ndarray], want: list[np.ndarray]) -> None:
    for (name, got), w in zip(found.items(), want, strict=True):
        assert got.shape == w.shape
        error = np.abs(got - w) / np.maximum(1, np.abs(w))
        assert error.max(initial=0) <= row.tolerance, f"{name} is off by {error.max()}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.library}-{row.name}")
def test_training_is_that_of_plain_jax(row: Row) -> None:
    graph = compile(traced(row.program, *row.data, calibrated=row.calibrated).graph)["final"]
    want = expected(row)
    close(row, evaluated(graph, *row.data), want)
    if row.masked:
        close(row, evaluated(graph, *row.data, protocol="masked"), want)


def test_every_library_has_rows_under_the_masked_protocol() -> None:
    masked = {row.library for row in ROWS if row.masked}
    assert masked == set(document.LIBRARIES)


def test_names_are_unique() -> None:
    assert len({(row.library, row.name) for row in ROWS}) == len(ROWS)


def test_the_page_shows_the_table() -> None:
    told = "docs/models.md is stale: run python tests/models/document.py"
    assert document.shown(document.PAGE.read_text()) == document.table(), told
