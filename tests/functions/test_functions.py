"""Functions of jax on secret numbers: each as near to plain jax as its row says, or refused with its sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import function_page
from compiling import evaluated, traced
from function_table import Numbers, Row

from coordinator.frontend import CompileError
from coordinator.frontend.known import FAST
from coordinator.lower.passes import compile

ROWS = function_page.rows()
SUPPORTED = list({(r.call, *r[3:]): r for r in ROWS if r.call and not r.refused}.values())  # one of two names
BATCH = 24  # rows of one program: many at once are traced and computed sooner
BATCHES = [SUPPORTED[i : i + BATCH] for i in range(0, len(SUPPORTED), BATCH)]


def weighted(tree: Any) -> Any:
    """One number that every result has another part in."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return sum(((7 * jnp.arange(v.size) % 5 + 1) / 4.0 * v).sum() for v in leaves)


def program(rows: list[Row], inputs: list[tuple[int, Numbers]]) -> Callable[..., Any]:
    """Of every row, its results and what its gradient is asked for."""

    def run(*arrays: Any) -> list[Any]:
        found = []
        for row in rows:
            own = [arrays[inputs.index(key)] for key in enumerate(row.inputs)]
            floats = tuple(i for i, n in enumerate(row.inputs) if n.kind == "f")
            slopes = []
            if row.gradient is not None:
                slopes = jax.grad(lambda *a, row=row: weighted(row.call(*a)), floats)(*own)
            found.append((row.call(*own), slopes))
        return found

    return run


@pytest.mark.parametrize("batch", range(len(BATCHES)))
def test_as_plain_jax(batch: int) -> None:
    rows = BATCHES[batch]
    inputs = sorted({key for row in rows for key in enumerate(row.inputs)})
    run, arrays = program(rows, inputs), [numbers.array(i) for i, numbers in inputs]
    graph = compile(traced(run, *arrays).graph)["final"]
    want = jax.jit(run, compiler_options=FAST)(*arrays)
    for protocol in ("cleartext", "masked"):
        found = iter(evaluated(graph, *arrays, protocol=protocol).values())
        wrong = [line for row, both in zip(rows, want, strict=True) for line in far(row, both, found)]
        assert not wrong, f"{protocol}: {wrong}"
        assert next(found, None) is None


def far(row: Row, want: Any, found: Any) -> list[str]:
    """What is further from plain jax than the row says."""
    lines = []
    for what, leaves, most in (("", want[0], row.off), ("gradient of ", want[1], row.gradient)):
        errors = [error(next(found), leaf) for leaf in jax.tree.leaves(leaves)]
        if not np.max(errors, initial=0) <= (most or 0.0):
            lines.append(f"{what}{row.module}.{row.name} {row.mind} is off by {np.max(errors):.2g}, not {most}")
    return lines


def error(got: np.ndarray, want: Any) -> float:
    """The largest, of max(1, |what is wanted|)."""
    exact = np.asarray(want, np.float64)
    assert got.shape == exact.shape
    return float((np.abs(np.asarray(got, np.float64) - exact) / np.maximum(1, np.abs(exact))).max(initial=0))


@pytest.mark.parametrize("row", [r for r in ROWS if r.refused], ids=lambda r: f"{r.module}.{r.name}")
def test_refused_with_the_line(row: Row) -> None:
    arrays = [numbers.array(i) for i, numbers in enumerate(row.inputs)]
    with pytest.raises(Exception, match=re.escape(row.refused)) as caught:
        traced(program([row], list(enumerate(row.inputs))), *arrays)
    if isinstance(caught.value, CompileError):  # else jax refuses it for every user
        assert re.match(r"(test_functions|rows_\w+)\.py:\d+: ", str(caught.value))


@pytest.mark.parametrize("module", function_page.WHOLE, ids=lambda m: m.name)
def test_every_function_has_a_row(module: Any) -> None:
    assert {row.name for row in ROWS if row.module == module.name} == module.public_names()


def test_the_page_shows_the_table() -> None:
    told = "docs/functions.md is stale: run python tests/functions/function_page.py"
    assert function_page.shown(function_page.PAGE.read_text()) == function_page.table(), told
