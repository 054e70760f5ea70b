"""The compiler writes, stage by stage, what is kept beside this file: a change of it shows as a diff to be reviewed."""

from __future__ import annotations

import difflib

import jax
import pytest
from golden_programs import HERE, PROGRAMS, texts

AGAIN = "if it is meant so, run python tests/golden/golden_programs.py and read the diff"


def test_the_compiler_writes_what_it_wrote() -> None:
    differences: list[str] = []
    for path, text in texts():
        kept = path.read_text()
        if kept.splitlines()[0] != f"# jax {jax.__version__}":
            pytest.skip(f"the texts were written with {kept.splitlines()[0][2:]}, whose jaxprs differ")
        lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), path.name, "now", lineterm="", n=1)
        differences += list(lines)[:40]
    assert not differences, "\n".join([AGAIN, *differences])


def test_there_is_a_text_for_every_stage() -> None:
    assert {path.name for path, _ in texts()} == {path.name for path in HERE.glob("*.txt")}
    assert len(PROGRAMS) == 2
