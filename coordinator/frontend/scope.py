"""A graph under construction, and the bodies of loops in it: how values get in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator.frontend.measured import Calibrated, Point
from coordinator.lower.builder import Builder, Value
from mpcnode.graph import Graph


class Argument(NamedTuple):
    """What a loop's body gets from outside.  role: const, carry or scan."""

    role: str
    outer: Value
    inner: Value


class Scope:
    """A graph under construction: the whole one, or the body of a loop in `parent`.  depth: loops around it."""

    def __init__(self, frac: int, parent: Scope | None = None, calibrated: Calibrated | None = None) -> None:
        self.builder = Builder(frac)
        self.parent = parent
        self.calibrated: Calibrated | None = parent.calibrated if parent else calibrated
        self.depth: int = parent.depth + 1 if parent else 0
        self.notes: dict[Value, tuple[Any, ...]] = {}
        self.doubts: dict[Value, Any] = {}
        self.absorbed: list[tuple[str, str]] = []
        self._arguments: list[Argument] = []
        self._captured: dict[tuple[Value, str], Value] = {}

    def place(self, ring: npt.NDArray[np.int64], frac: int, over: tuple[int, ...]) -> Value:
        """Known ring elements as a public value; the leading axes are the steps of the loops in `over`."""
        if not over:
            return self.builder.raw(ring, frac)
        assert self.parent is not None
        outer = self.parent.place(ring, frac, tuple(loop for loop in over if loop != self.depth))
        role = "scan" if self.depth in over else "const"
        if (outer, role) not in self._captured:
            self._captured[outer, role] = self.argument(role, outer)
        return self._captured[outer, role]

    def argument(self, role: str, outer: Value, point: Point | None = None) -> Value:
        """A value of the graph around as a parameter of this body.  point: of what is carried."""
        assert self.parent is not None
        shape = outer.shape[1:] if role == "scan" else outer.shape
        room = point.room if point else self.parent.builder.op(outer).most
        with self.builder.aiming(self.builder.frac, room):
            inner = self.builder.emit("param", index=len(self._arguments), type=outer.type._replace(shape=shape))
        self._arguments.append(Argument(role, outer, inner))
        return inner

    def loop(self, carried: Sequence[Value], stacked: Sequence[Value], length: int, reverse: bool) -> list[Value]:
        """Close this body with its results; the loop's results, in the parent."""
        assert self.parent is not None
        body = self.builder.graph([*carried, *stacked])
        order = [a for role in ("const", "carry", "scan") for a in self._arguments if a.role == role]
        consts = sum(a.role == "const" for a in order)
        body = _parameters_first(body, [a.inner.number for a in order])
        b = self.parent.builder
        loop = b.emit(
            "loop", *(a.outer for a in order),
            length=length, reverse=int(reverse), consts=consts, carry=len(carried), body=body,
        )  # fmt: skip
        results = []
        for i, o in enumerate(body.outputs):
            with b.aiming(b.frac, body.ops[o].most):
                results.append(b.emit("get", loop, index=i))
        return results


def _parameters_first(body: Graph, order: Sequence[int]) -> Graph:
    """The same body with these parameters in front, in this order."""
    rest = [i for i in range(len(body.ops)) if i not in set(order)]
    number = {old: new for new, old in enumerate([*order, *rest])}
    ops = [body.ops[old]._replace(attrs={"index": i}) for i, old in enumerate(order)]
    ops += [body.ops[old]._replace(args=tuple(number[a] for a in body.ops[old].args)) for old in rest]
    return Graph(tuple(ops), tuple(number[o] for o in body.outputs))
