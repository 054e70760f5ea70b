"""A calibration: what the values of a program came to on sample data, as a file that a job can name.

program = "5b1c..."     a digest of the program: what it does to what, without shapes, lines and numbers
numbers = "90aa..."     and of its known numbers, such as learning rates
margin_bits = 4         a value may come to 2^4 times the largest that was met
[rows]
x = 569
[[values]]
at = "7/12"             the 13th equation in the loop that is the 8th
line = "train.py:31"
what = "square"
largest = 0.0031
typical = 2.2e-9        the geometric mean, where it is least
least = 1.1e-21
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from coordinator.lower.points import MARGIN, Seen
from mpcnode import tomlfile
from mpcnode.errors import ConfigError

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
HEAD = "# What values came to on sample data: written by `coordinator simulate --calibrate`, for [job] calibration\n"


class Met(NamedTuple):
    """One value: the user's line, the primitive that made it (nothing for an input), and what it came to."""

    line: str
    what: str
    seen: Seen


class Problem(NamedTuple):
    """A value that the calibration met and that fixed point does not compute rightly; settled: it does with the
    calibration's binary points.
    """

    line: str
    what: str
    sentence: str
    settled: bool


class Calibration(NamedTuple):
    """program, numbers: digests; rows: of each input; values: by place (see `frontend.measured`)."""

    program: str
    numbers: str
    rows: dict[str, int]
    values: dict[str, Met]

    @property
    def seen(self) -> dict[str, Seen]:
        return {place: met.seen for place, met in self.values.items()}


class _Value(BaseModel):
    model_config = STRICT

    at: str
    line: str
    what: str
    largest: float = Field(gt=0)
    typical: float = Field(gt=0)
    least: float = Field(gt=0)


class _File(BaseModel):
    model_config = STRICT

    program: str
    numbers: str
    margin_bits: int
    rows: dict[str, int]
    values: tuple[_Value, ...]


def read(path: Path) -> Calibration:
    """ConfigError names the file and the field that is wrong."""
    file = tomlfile.read(path, _File)
    if file.margin_bits != MARGIN:
        raise ConfigError(f"{path} was made for a margin of {file.margin_bits} bits, not {MARGIN}: make it again")
    values = {v.at: Met(v.line, v.what, Seen(v.largest, v.typical, v.least)) for v in file.values}
    return Calibration(file.program, file.numbers, dict(file.rows), values)


def write(calibration: Calibration, path: Path) -> None:
    """Raises ConfigError where the file cannot be written."""
    values = [
        _Value(at=at, line=met.line, what=met.what, **{k: float(f"{v:.4g}") for k, v in met.seen._asdict().items()})
        for at, met in calibration.values.items()
    ]
    file = _File(
        program=calibration.program, numbers=calibration.numbers, margin_bits=MARGIN, rows=calibration.rows,
        values=tuple(values),
    )  # fmt: skip
    tomlfile.write_bytes(path, (HEAD + tomli_w.dumps(file.model_dump(mode="json"))).encode())
