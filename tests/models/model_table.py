"""The table of models: each row is a program as its users write it, and how near its training comes to plain JAX.

`test_models.py` runs the rows, `document.py` shows them in docs/models.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Program = Callable[..., tuple[Any, Any]]
Data = tuple[np.ndarray, ...]


class Row(NamedTuple):
    """program: from the secret arrays in `data`, the losses of its steps and what it has trained.

    tolerance: of every loss and parameter against plain JAX, times max(1, |it|).  mind: what a user should mind.
    masked: whether the row is run under the masked protocol besides.  calibrated: by its data.
    """

    name: str
    library: str
    of: str
    optimiser: str
    program: Program
    data: Data
    tolerance: float
    mind: str
    masked: bool
    calibrated: bool


ROWS: list[Row] = []


def row(
    of: str,
    optimiser: str,
    data: Data,
    tolerance: float,
    *,
    mind: str = "",
    masked: bool = False,
    calibrated: bool = False,
) -> Callable[[Program], Program]:
    """Enter a program in the table, under its own name and the library that its module is about."""

    def enter(program: Program) -> Program:
        library = program.__module__.removeprefix("rows_")
        ROWS.append(Row(program.__name__, library, of, optimiser, program, data, tolerance, mind, masked, calibrated))
        return program

    return enter


# ---- data: a few rows that can be learnt from ------------------------------------------------------------------------
def features(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def regression(rows: int, columns: int) -> Data:
    """Features, and a linear function of them."""
    x = features(rows, columns)
    return x, (x @ np.linspace(-1, 1, columns) + 0.5).astype(np.float32)


def classes(rows: int, columns: int, count: int) -> Data:
    """Features, and labels as integers."""
    x = features(rows, columns)
    return x, np.argmax(x @ features(columns, count, 1), axis=1).astype(np.int32)


def tokens(rows: int, length: int, count: int) -> Data:
    """Sequences of secret numbers below `count`, and how often 0 is among them."""
    x = np.random.default_rng(0).integers(0, count, (rows, length)).astype(np.int32)
    return x, (x == 0).sum(1).astype(np.float32)
