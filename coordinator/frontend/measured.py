"""Binary points for what is written, from what a calibration has met.

A value is known by where it stands in the flat program: `12` is what equation 12 makes (`12.1` its second result),
`7/3` stands in the body of the loop 7, `7/in2` is that body's third input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coordinator.frontend.flat import Equation, Flat
from coordinator.lower.builder import Builder, Value
from coordinator.lower.points import FINEST, MOST, Seen
from coordinator.lower.ranges import note, range_of
from coordinator.lower.rules import Operand, Public, Site, lower
from coordinator.lower.rules.registry import ENDLESS, FAR
from mpcnode.graph import Kind

# Rules that take each operand at its own binary point, and those that add, where a wrap on the way does no harm.
PRODUCTS = ("mul", "square", "dot_general", "conv_general_dilated", "div", "sqrt", "rsqrt", "neg")
SUMS = ("add", "add_any", "sub", "reduce_sum", "cumsum")
PICKS = ("select_and_scatter_add", "select_and_gather_add")  # one operand where another one is largest
UNSEEN_ROOM = 50  # of a value that was 0 throughout: below 2^8, with the margin
COARSEST = 4  # fraction bits of a float: without any it would pass for an integer


class Point(NamedTuple):
    """frac: fraction bits; room: the most that the number has room for."""

    frac: int
    room: int


class Calibrated(NamedTuple):
    """seen: what was met, by place; assume: whether it is taken as certain where that saves bits."""

    seen: Mapping[str, Seen]
    assume: bool


def places(flat: Flat, place: str) -> Iterator[tuple[str, int]]:
    """Every variable of a flat program that stands at `place`, by its own place."""
    for k, v in enumerate(flat.inputs):
        yield f"{place}in{k}", v
    for i, e in enumerate(flat.equations):
        for j, v in enumerate(e.outputs):
            yield f"{place}{i}" + (f".{j}" if j else ""), v


class Points:
    """The binary points of one flat program."""

    def __init__(self, calibrated: Calibrated, flat: Flat, place: str) -> None:
        self.calibrated, self.flat = calibrated, flat
        found = ((v, calibrated.seen.get(name)) for name, v in places(flat, place) if flat.variables[v].kind == "f")
        self.seen: dict[int, Seen] = {v: seen for v, seen in found if seen is not None}

    def told(self, site: Site, e: Equation) -> Site:
        """The site with what was met of its operands and its result."""
        return site._replace(seen=[self.seen.get(v) for v in e.inputs], made=self.seen.get(e.outputs[0]))

    def lower(self, site: Site, e: Equation, operands: Sequence[Operand]) -> Sequence[Operand]:
        """The equation's results, each with a binary point at which it has room."""
        b = site.b
        frac, room = self.point(e.outputs[0], b.frac)
        if not (e.name in PRODUCTS or (e.name == "integer_pow" and e.params["y"] == 2)):
            rooms = [self._room_of(v, o) for v, o in zip(e.inputs, operands, strict=True)]
            if e.name not in SUMS:  # what is compared is a difference
                room = min([*([room] if site.kind == "f" else []), *rooms]) - 1
            if e.name not in PICKS:
                known = (r for r, o in zip(rooms, operands, strict=True) if isinstance(o, Public))
                frac = _common(operands, frac, min([room, *known]))
                operands = [b.align(o, frac) if isinstance(o, Value) and _is_float(o) else o for o in operands]
        with b.aiming(frac, room):
            results = lower(site, operands)
            return [self._settled(b, v, r) for v, r in zip(e.outputs, results, strict=True)]

    def point(self, v: int, frac: int) -> Point:
        """Of a variable, in a job of numbers with `frac` fraction bits."""
        seen = self.seen.get(v)
        return Point(seen.point(frac), seen.room) if seen else Point(frac, UNSEEN_ROOM)

    def _room_of(self, v: int, o: Operand) -> int:
        """The most fraction bits that an operand can have."""
        if isinstance(o, Value):
            return self.point(v, 0).room if _is_float(o) else MOST
        largest = float(np.abs(np.asarray(o.array, np.float64)).max(initial=0.0)) if o.kind == "f" else 0.0
        largest = FAR if largest >= ENDLESS else largest
        return Seen(largest, largest, largest).room if largest > 0 else MOST

    def _settled(self, b: Builder, v: int, result: Operand) -> Operand:
        """A float with no more fraction bits than it has room for, and some."""
        if not isinstance(result, Value) or self.flat.variables[v].kind != "f" or result.type.kind is not Kind.ARITH:
            return result
        seen = self.seen.get(v)
        room = min(seen.room if seen else UNSEEN_ROOM, FINEST)
        result = b.align(result, min(max(result.frac, min(COARSEST, room)), room))
        return self.assumed(b, v, result)

    def assumed(self, b: Builder, v: int, value: Value) -> Value:
        """The value, with its range noted if it may be taken as certain."""
        seen = self.seen.get(v)
        if seen is None or not self.calibrated.assume:
            return value
        low, high = range_of(b, value)
        return note(b, value, max(low, -seen.bound), min(high, seen.bound))


def _is_float(value: Value) -> bool:
    return value.type.kind is Kind.ARITH and value.frac > 0


def _common(operands: Sequence[Operand], frac: int, most: int) -> int:
    """The secret operands' binary point, if they agree on one that has room, else the result's."""
    own = {o.frac for o in operands if isinstance(o, Value) and _is_float(o)}
    return own.pop() if len(own) == 1 and max(own) <= most else max(1, min(frac, most))
