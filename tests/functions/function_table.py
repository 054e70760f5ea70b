"""The table of functions: each row says how a function is called on secret numbers, of which interval they may be, and
how near its result comes to plain jax; or with which sentence it is refused.

`test_functions.py` runs the rows, `function_page.py` shows them in docs/functions.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

# How far off a result may be, times max(1, |it|).
EXACT = 0.0  # moved, compared, chosen or added: nothing is rounded
UNITS = 2.0**-15  # products, each off by a unit in the last place (2^-18), and sums of a few
CURVE = 2.0**-12  # an approximation, by its bound (docs/numerics.md)
CURVES = 2.0**-10  # approximations of what was approximated, or times what is up to 4
STEEP = 2.0**-8  # ... or up to 16

SHAPE = (4, 6)
GRID = 2.0**-8  # inputs are multiples of it, so that plain jax and the ring see the same numbers


class Numbers(NamedTuple):
    """Secret numbers: evenly from low to high, both included.  kind: f(loat), i(nteger) or b(oolean)."""

    low: float
    high: float
    kind: str = "f"

    def __str__(self) -> str:
        if self.kind == "b":
            return "booleans"
        span = f"{self.low:g} .. {self.high:g}"
        return f"integers {span}" if self.kind == "i" else span

    def array(self, which: int) -> np.ndarray:
        """An array of them, another one for each argument of a function."""
        size, grid = int(np.prod(SHAPE)), GRID if self.kind == "f" else 1.0
        even = np.rint(np.linspace(self.low, self.high, size) / grid) * grid
        if self.low < 0 < self.high and self.kind == "f":
            even[np.abs(even).argmin()] = 0
        mixed = np.random.default_rng(which).permutation(even).reshape(SHAPE)
        return mixed.astype({"f": np.float32, "i": np.int32, "b": bool}[self.kind])


class Row(NamedTuple):
    """call: of one secret array for each of `inputs`.  off: the most that its results may be off by, times max(1,
    |it|); gradient: the same of its gradient by the floats among them, None where it is not asked for.  refused: what
    is said instead.  aside: why nothing is computed.
    """

    module: str
    name: str
    call: Callable[..., Any] | None
    inputs: tuple[Numbers, ...] = ()
    off: float = EXACT
    gradient: float | None = None
    mind: str = ""
    refused: str = ""
    aside: str = ""


ROWS: list[Row] = []


class Module:
    """Enters rows for the functions of one module."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module

    def row(
        self,
        names: str,
        *inputs: Numbers,
        off: float = EXACT,
        gradient: float | None = None,
        call: Callable[..., Any] | None = None,
        mind: str = "",
    ) -> None:
        """Functions that are called alike: by `call`, which gets the function and the inputs, or with these alone."""
        for name in names.split():
            function = getattr(self.module, name, None)
            called = function if call is None else partial(call, function)
            ROWS.append(Row(self.name, name, called, inputs, off, gradient, mind))

    def refused(self, names: str, says: str, *inputs: Numbers, call: Callable[..., Any] | None = None) -> None:
        """Functions that are refused with that sentence."""
        for name in names.split():
            function = getattr(self.module, name, None)
            called = function if call is None else partial(call, function)
            ROWS.append(Row(self.name, name, called, inputs, refused=says))

    def aside(self, why: str, names: str) -> None:
        """Names of which nothing is computed on secrets."""
        ROWS.extend(Row(self.name, name, None, aside=why) for name in names.split())

    def public_names(self) -> set[str]:
        """Functions that the module offers."""
        found = ((name, getattr(self.module, name)) for name in dir(self.module) if not name.startswith("_"))
        return {name for name, f in found if callable(f) and not inspect.isclass(f) and not inspect.ismodule(f)}


def reals(low: float, high: float) -> Numbers:
    return Numbers(low, high)


def integers(low: int, high: int) -> Numbers:
    return Numbers(low, high, "i")


ANY = reals(-8, 8)
NEAR = reals(-2, 2)
UNIT = reals(-1, 1)
INSIDE = reals(-0.95, 0.95)
ABOVE = reals(0.25, 8)
SHARE = reals(0.05, 0.95)
WHOLE = integers(-12, 11)
COUNT = integers(0, 5)
TRUTH = Numbers(0, 1, "b")
