"""docs/functions.md shows the table: `python tests/functions/function_page.py` writes it, and a test compares it."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path

import rows_lax
import rows_nn
import rows_numpy
import rows_optax_losses
import rows_shapes
import rows_special
from function_table import ROWS, Module, Row

WHOLE: list[Module] = [
    rows_nn.NN,
    rows_numpy.NP,
    rows_numpy.LA,
    rows_special.SP,
    rows_optax_losses.LOSSES,
]  # every name has a row
MODULES = {m.name: m for m in (*WHOLE, rows_shapes.NP, rows_lax.LAX)}
PAGE = Path(__file__).parents[2] / "docs" / "functions.md"
BEGIN, END = "<!-- written by tests/functions/function_page.py -->\n", "<!-- end -->\n"


def rows() -> list[Row]:
    """The whole table, module by module."""
    order = list(MODULES)
    return sorted(ROWS, key=lambda r: order.index(r.module))


def table() -> str:
    """Module by module: what is computed, what is refused, and what is neither."""
    parts = []
    for module, own in groupby(rows(), lambda r: r.module):
        listed = list(own)
        parts.append(f"### {module}\n" + _computed([r for r in listed if r.call and not r.refused]))
        parts.append(_refused([r for r in listed if r.refused]))
        parts.append(_aside([r for r in listed if r.aside]))
    return "\n".join(part for part in parts if part)


def _computed(own: list[Row]) -> str:
    lines = ["| function | numbers | off by at most | its gradient | mind |", "| --- | --- | --- | --- | --- |"]
    for (inputs, off, gradient, mind), alike in groupby(own, lambda r: (r.inputs, r.off, r.gradient, r.mind)):
        numbers = "; ".join(str(n) for n in inputs)
        told = mind.replace("|", "\\|")
        lines.append(f"| {_names(alike)} | {numbers} | {_bound(off)} | {_bound(gradient)} | {told} |")
    return "\n".join(lines) + "\n"


def _refused(own: list[Row]) -> str:
    if not own:
        return ""
    lines = ["| refused | numbers | because |", "| --- | --- | --- |"]
    for (inputs, why), alike in groupby(own, lambda r: (r.inputs, r.refused)):
        lines.append(f"| {_names(alike)} | {'; '.join(str(n) for n in inputs)} | {why} |")
    return "\n".join(lines) + "\n"


def _aside(own: list[Row]) -> str:
    return "\n".join(f"{_names(alike)}: {why}.\n" for why, alike in groupby(own, lambda r: r.aside))


def _names(alike: object) -> str:
    return " ".join(f"`{r.name}`" for r in alike)  # type: ignore[attr-defined]


def _bound(off: float | None) -> str:
    """A power of two, or a small multiple of one."""
    if off is None:
        return ""
    return f"2^{math.log2(off):.0f}" if off else "exact"


def shown(page: str) -> str:
    """The table as the page has it."""
    return page.split(BEGIN)[1].split(END, maxsplit=1)[0]


if __name__ == "__main__":
    head, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(head + BEGIN + table() + END + rest.split(END)[1])
