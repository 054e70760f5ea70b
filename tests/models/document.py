"""docs/models.md shows the table of models: `python tests/models/document.py` writes it, and a test compares it."""

from __future__ import annotations

import importlib
from pathlib import Path

from model_table import ROWS, Row

LIBRARIES = {
    "jax": "Plain JAX",
    "optax": "optax",
    "linen": "flax.linen",
    "nnx": "flax.nnx",
    "equinox": "equinox",
}
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- written by tests/models/document.py -->\n", "<!-- end -->\n"


def rows() -> list[Row]:
    """The whole table.  Raises ModuleNotFoundError where a library is not installed."""
    for library in LIBRARIES:
        importlib.import_module(f"rows_{library}")
    return ROWS


def table() -> str:
    """The rows, library by library."""
    found, parts = rows(), []
    for library, title in LIBRARIES.items():
        own = [r for r in found if r.library == library]
        parts.append(f"### {title}\n`tests/models/rows_{library}.py`\n\n" + _of(own))
    return "\n".join(parts)


def _of(own: list[Row]) -> str:
    lines = ["| trained | by | off by at most | mind |", "| --- | --- | --- | --- |"]
    for r in own:
        under = " (also under the masked protocol)" if r.masked else ""
        lines.append(f"| {r.of}{under} | {r.optimiser} | {r.tolerance:.0e} | {r.mind} |".replace("e-0", "e-"))
    return "\n".join(lines) + "\n"


def shown(page: str) -> str:
    """The table as the page has it."""
    return page.split(BEGIN)[1].split(END, maxsplit=1)[0]


if __name__ == "__main__":
    head, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(head + BEGIN + table() + END + rest.split(END)[1])
