"""Known numbers that are NaN, and are not chosen in the end: optax.radam computes a root of a negative number in its
first steps, and takes another value there.

Fixed-point numbers have no NaN.  What is NaN everywhere makes NaN of all that is computed with it, which is known
without computing.  What is NaN in some steps of a loop is 0 in these, and every result carries a note of the steps in
which it is no number, until a known choice (`select_n`) leaves them out; it is refused where they reach a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.rules.registry import Numbers, Operand, Place, Public, Site, refuse

ABSORBING = ("add", "add_any", "sub", "mul", "div", "pow", "max", "min", "rem", "atan2", "dot_general")


class Doubt(NamedTuple):
    """Steps in which a value is no number: booleans, one for each step of the loops in `over`.  where: NaN came in."""

    steps: Numbers
    over: tuple[int, ...]
    where: str
    name: str


def absorbed(site: Site, operands: Sequence[Operand]) -> Public | None:
    """NaN in every place, if an operand is that and the equation passes it on."""
    if site.name not in ABSORBING or not any(_nowhere_a_number(o) for o in operands):
        return None
    site.scope.absorbed.append((site.where, site.name))
    return Public(np.broadcast_to(np.float32(np.nan), site.shape), (), "f")


def _nowhere_a_number(x: Operand) -> bool:
    return isinstance(x, Public) and x.kind == "f" and x.scalar is not None and bool(np.isnan(x.scalar))


def settled(site: Site, operands: Sequence[Operand]) -> tuple[list[Operand], Doubt | None]:
    """The operands with 0 for what is NaN in whole steps, and the doubt that the results are under."""
    found, doubts = list(operands), []
    for i, x in enumerate(operands):
        doubt = _of(site, x)
        if doubt is not None:
            if isinstance(x, Public):
                found[i] = x._replace(array=np.nan_to_num(np.asarray(x.array), posinf=np.inf, neginf=-np.inf))
            doubts.append(_left_in(site, operands[0], i, doubt))
    return found, _joined([d for d in doubts if d.steps.any()])


def _of(site: Site, x: Operand) -> Doubt | None:
    if isinstance(x, Value):
        return site.scope.doubts.get(x)
    if x.kind != "f" or not x.over or not np.isnan(x.array).any():
        return None
    lone = np.isnan(np.asarray(x.array)).reshape(*x.array.shape[: len(x.over)], -1)
    whole: Numbers = lone.all(-1)
    return Doubt(whole, x.over, site.where, site.name) if np.array_equal(whole, lone.any(-1)) else None


def _left_in(site: Site, which: Operand, i: int, doubt: Doubt) -> Doubt:
    """What is left of the doubt of operand i where a known choice between whole cases is made."""
    if site.name != "select_n" or not isinstance(which, Public) or i == 0:
        return doubt
    few = which.compact()
    if any(n != 1 for n in few.shape):
        return doubt
    chosen = Doubt(few.array.reshape(few.array.shape[: len(few.over)]).astype(int) == i - 1, few.over, "", "")
    loops = tuple(sorted({*doubt.over, *few.over}))
    return doubt._replace(steps=_spread(doubt, loops) & _spread(chosen, loops), over=loops)


def _joined(doubts: Sequence[Doubt]) -> Doubt | None:
    if not doubts:
        return None
    loops = tuple(sorted({loop for d in doubts for loop in d.over}))
    steps = reduce(np.logical_or, (_spread(d, loops) for d in doubts))
    return doubts[0]._replace(steps=steps, over=loops)


def _spread(doubt: Doubt, loops: tuple[int, ...]) -> Numbers:
    """The steps with an axis for each of the loops."""
    sizes = dict(zip(doubt.over, doubt.steps.shape, strict=True))
    return doubt.steps.reshape([sizes.get(loop, 1) for loop in loops])


def mark(site: Site, results: Sequence[Operand], doubt: Doubt | None) -> None:
    """Remember that the results are under the doubt."""
    if doubt is not None:
        site.scope.doubts.update((r, doubt) for r in results if isinstance(r, Value))


def check(scope: Place, results: Sequence[Operand | None]) -> None:
    """Refuse what is no number in some step."""
    for r in results:
        if isinstance(r, Public) and scope.absorbed and _nowhere_a_number(r):
            refuse(*scope.absorbed[0], "a constant is infinite or NaN", "leave it out with jnp.where")
        doubt = scope.doubts.get(r) if isinstance(r, Value) else None
        if doubt is not None:
            refuse(doubt.where, doubt.name, "a known number is NaN in some steps", "choose another with jnp.where")
