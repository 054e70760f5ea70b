"""Simulating a job on samples: joined inputs keep their columns apart and their rows together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator import sampling
from coordinator.jobfile import Input, Piece, Plan
from mpcnode.errors import DataError

LOANS, SCORES = Piece("bank", "loans", 100, ("a", "b")), Piece("bureau", "scores", 100, ("c",))
JOINED = Input((LOANS, SCORES), squeeze=False, integer=False, joined=True)
LABEL = Input((LOANS._replace(columns=("bad",)),), squeeze=True, integer=False)
PLAN = Plan("credit", 18, {"x": JOINED, "y": LABEL}, {"first": ("bank",), "sums": ("bank",)})


def program(x: Any, y: Any) -> dict[str, Any]:
    return {"first": x[0], "sums": x.sum(axis=1) + y}


@pytest.mark.parametrize("protocol", ["cleartext", "masked"])
def test_a_sample_of_joined_columns(tmp_path: Path, protocol: str) -> None:
    rows = np.arange(15.0).reshape(5, 3) / 8
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "y.npy", np.ones((5, 1)))
    samples = {"x": tmp_path / "x.npy", "y": tmp_path / "y.npy"}
    found = sampling.run(PLAN, program, samples, protocol=protocol)
    assert found.random == ()
    assert {error.output: error.shape for error in found.errors} == {"first": (3,), "sums": (5,)}
    assert max(error.error for error in found.errors) < 1e-4
    assert {error.output: error.largest for error in found.errors}["sums"] == rows[4].sum() + 1
    assert "join" in found.compiled.graph.text()


def test_made_up_numbers_for_joined_columns() -> None:
    found = sampling.run(PLAN, program, {})
    assert found.random == ("x", "y") and found.errors[1].shape == (100,)


def test_samples_whose_rows_differ(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.ones((5, 1)))
    with pytest.raises(DataError, match="input x joins blocks that other inputs' samples give different rows: sample"):
        sampling.run(PLAN, program, {"y": tmp_path / "y.npy"})
