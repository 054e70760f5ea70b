"""Writing the secret part of a flat jaxpr as a graph: one rule per equation, loops as loops.

Known values come from `frontend.known`.  In a loop's body they are what the loop scans: a stack of constants, one slice
a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator.frontend import known
from coordinator.frontend.flat import Equation, Flat
from coordinator.frontend.visibility import known_outputs, known_variables, scan_carry
from coordinator.lower.builder import Builder, Value
from coordinator.lower.rules import INSTEAD, Operand, Public, Site, lower, refuse
from mpcnode.graph import Graph, Kind


class Argument(NamedTuple):
    """What a loop's body gets from outside.  role: const, carry or scan."""

    role: str
    outer: Value
    inner: Value


class Scope:
    """A graph under construction: the whole one, or the body of a loop in `parent`.  depth: loops around it."""

    def __init__(self, frac: int, parent: Scope | None = None) -> None:
        self.builder = Builder(frac)
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.notes: dict[Value, tuple[Any, ...]] = {}
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

    def argument(self, role: str, outer: Value) -> Value:
        """A value of the graph around as a parameter of this body."""
        shape = outer.shape[1:] if role == "scan" else outer.shape
        inner = self.builder.emit("param", index=len(self._arguments), type=outer.type._replace(shape=shape))
        self._arguments.append(Argument(role, outer, inner))
        return inner

    def loop(self, carried: Sequence[Value], stacked: Sequence[Value], length: int, reverse: bool) -> list[Value]:
        """Close this body with its results; the loop's results, in the parent."""
        assert self.parent is not None
        body = self.builder.graph([*carried, *stacked])
        order = [a for role in ("const", "carry", "scan") for a in self._arguments if a.role == role]
        consts = sum(a.role == "const" for a in order)
        b = self.parent.builder
        body = _parameters_first(body, [a.inner.number for a in order])
        b = self.parent.builder
        loop = b.emit(
            "loop", *(a.outer for a in order),
            length=length, reverse=int(reverse), consts=consts, carry=len(carried), body=body,
        )  # fmt: skip
        return [b.emit("get", loop, index=i) for i in range(len(body.outputs))]


def _parameters_first(body: Graph, order: Sequence[int]) -> Graph:
    """The same body with these parameters in front, in this order."""
    rest = [i for i in range(len(body.ops)) if i not in set(order)]
    number = {old: new for new, old in enumerate([*order, *rest])}
    ops = [body.ops[old]._replace(attrs={"index": i}) for i, old in enumerate(order)]
    ops += [body.ops[old]._replace(args=tuple(number[a] for a in body.ops[old].args)) for old in rest]
    return Graph(tuple(ops), tuple(number[o] for o in body.outputs))


def _producers(flat: Flat) -> dict[int, Equation]:
    """The known broadcasts: their results are not kept, since they follow from less."""
    return {e.outputs[0]: e for e in flat.equations if e.name == "broadcast_in_dim"}


def demanded(flat: Flat, known: set[int], outputs: Iterable[int]) -> list[int]:
    """The known variables that the secret equations and the outputs read, or what these are broadcasts of."""
    broadcasts = _producers(flat)
    found: dict[int, None] = {}
    secret = [e for e in flat.equations if not all(o in known for o in e.outputs) or not e.outputs]
    for v in (*(v for e in secret for v in e.inputs), *outputs):
        while v in broadcasts and v in known:
            v = broadcasts[v].inputs[0]  # noqa: PLW2901
        if v in known:
            found[v] = None
    return list(found)


def _broadcast(e: Equation, p: Public, shape: tuple[int, ...]) -> Public:
    """What a broadcast equation makes of known numbers; numpy repeats them without copying."""
    steps = len(p.over)
    inner = [1] * len(shape)
    for axis, d in enumerate(e.params["broadcast_dimensions"]):
        inner[int(d)] = p.array.shape[steps + axis]
    lead = p.array.shape[:steps]
    return p._replace(array=np.broadcast_to(np.asarray(p.array).reshape(*lead, *inner), (*lead, *shape)))


class Block:
    """One flat jaxpr on its operands, in a scope.

    operands: secret ones are values; known ones may be missing where `given` holds the known variables that are read.
    """

    def __init__(
        self,
        scope: Scope,
        flat: Flat,
        operands: Sequence[Operand | None],
        given: Mapping[int, Public] | None = None,
    ) -> None:
        self.scope, self.flat = scope, flat
        self.known = known_variables(flat, [not isinstance(o, Value) for o in operands])
        self.values: dict[int, Operand] = {
            v: o for v, o in zip(flat.inputs, operands, strict=True) if isinstance(o, Value)
        }
        self.broadcasts = _producers(flat)
        if given is None:
            publics = {v: o for v, o in zip(flat.inputs, operands, strict=True) if isinstance(o, Public)}
            publics |= constants(flat)
            given = known.evaluate(flat, publics, demanded(flat, self.known, flat.outputs))
        self.given = given

    def run(self) -> list[Operand | None]:
        """Write the graph; the outputs, None for those that are known and not given."""
        for e in self.flat.equations:
            if e.outputs and all(o in self.known for o in e.outputs):
                continue
            operands = [self.read(v) for v in e.inputs]
            with self.scope.builder.at(e.where):
                results = self.equation(e, operands)
            self.values.update(
                (v, result)
                for v, result in zip(e.outputs, results, strict=True)
                if result is not None and v not in self.known
            )
        return [self.read(v) if v not in self.known or v in self.given else None for v in self.flat.outputs]

    def read(self, v: int) -> Operand:
        if v in self.values:
            return self.values[v]
        if v in self.given:
            return self.given[v]
        e = self.broadcasts[v]
        found = self.read(e.inputs[0])
        assert isinstance(found, Public)
        return _broadcast(e, found, self.flat.variables[v].shape)

    def site(self, e: Equation) -> Site:
        outputs = [self.flat.variables[v] for v in e.outputs]

        def positions(index: Public) -> Public:
            shapes = [self.flat.variables[v].shape for v in (e.inputs[0], e.inputs[-1])]
            return known.positions(e, shapes, index)

        shapes, kinds = [v.shape for v in outputs], [v.kind for v in outputs]
        return Site(e.name, e.params, shapes, kinds, e.where, self.scope, positions)

    def equation(self, e: Equation, operands: list[Operand]) -> Sequence[Operand | None]:
        if not any(isinstance(o, Value) for o in operands):  # a rule found out that its result is known
            return self.late(e, operands, e.outputs)
        if e.name == "scan":
            results = self.scan(e, operands)
            missing = [v for v, r in zip(e.outputs, results, strict=True) if r is None and v not in self.known]
            found = iter(self.late(e, operands, missing))
            return [
                r if r is not None or v in self.known else next(found) for v, r in zip(e.outputs, results, strict=True)
            ]
        if e.name == "while":
            return self.repeat(e, operands)
        if e.name == "cond":
            return self.branch(e, operands)
        return lower(self.site(e), operands)

    def late(self, e: Equation, operands: Sequence[Operand], wanted: Sequence[int]) -> list[Operand]:
        """Outputs that turned out to be known while the graph was written."""
        publics = {v: o for v, o in zip(e.inputs, operands, strict=True) if isinstance(o, Public)}
        lone = self.flat._replace(inputs=(), constants={}, equations=(e,), outputs=e.outputs)
        found = known.evaluate(lone, publics, wanted)
        return [found[v] for v in wanted]

    # ---- control ---------------------------------------------------------------------------------------------------
    def scan(self, e: Equation, operands: Sequence[Operand]) -> list[Operand | None]:
        """A loop that carries and stacks what is secret.  The results that are known are left to `given`."""
        consts, carry, body = e.params["num_consts"], e.params["num_carry"], e.bodies[0]
        length = int(e.params["length"])
        if length == 0:
            refuse(e.where, "scan", "takes no step")
        flags = [isinstance(o, Public) for o in operands]
        carried = scan_carry(e, flags)
        still = [body.outputs[i] == body.inputs[consts + i] for i in range(carry)]
        roles = [
            *["const"] * consts,
            *("const" if s else "carry" for s in still),
            *["scan"] * (len(flags) - consts - carry),
        ]
        inner = Scope(self.scope.builder.frac, self.scope)
        known_inputs = [*flags[:consts], *carried, *flags[consts + carry :]]
        given = self.scan_values(e, operands, roles, known_inputs, inner.depth)
        site = self.site(e)
        inputs: list[Operand | None] = []
        for v, role, operand, seen in zip(body.inputs, roles, operands, known_inputs, strict=True):
            if seen:
                inputs.append(given.get(v))
                continue
            kind = Kind.BIT if body.variables[v].kind == "b" else Kind.ARITH
            inputs.append(inner.argument(role, self.scope.builder.lift(site.value(operand), kind)))
        results = Block(inner, body, inputs, given).run()
        secret = [v not in known_variables(body, known_inputs) for v in body.outputs]
        shared = [self._shared(inner, site, r, body.variables[v].kind) if s else None
                  for r, v, s in zip(results, body.outputs, secret, strict=True)]  # fmt: skip
        moving = [s and not (i < carry and still[i]) for i, s in enumerate(secret)]
        after = [v for i, v in enumerate(shared) if v is not None and moving[i] and i < carry]
        stacked = [v for i, v in enumerate(shared) if v is not None and i >= carry]
        found = iter(inner.loop(after, stacked, length, e.params["reverse"]) if after or stacked else ())
        return [
            next(found) if moving[i] else operands[consts + i] if i < carry and still[i] else None
            for i in range(len(secret))
        ]

    def _shared(self, inner: Scope, site: Site, result: Operand | None, kind: str) -> Value:
        """A result of a loop's body as a shared value."""
        assert result is not None
        value = site._replace(scope=inner).value(result)
        return inner.builder.lift(value, Kind.BIT if kind == "b" else Kind.ARITH)

    def scan_values(
        self, e: Equation, operands: Sequence[Operand], roles: Sequence[str], known_inputs: Sequence[bool], depth: int
    ) -> dict[int, Public]:
        """The known variables that a scan's body reads: stacks over its steps, but for those that no step changes."""
        body = e.bodies[0]
        known_body = known_variables(body, known_inputs)
        given = constants(body)
        for v, role, operand in zip(body.inputs, roles, operands, strict=True):
            if isinstance(operand, Public) and v in known_body and role != "carry":
                loops = (*operand.over, depth) if role == "scan" else operand.over
                given[v] = operand._replace(over=loops)
        fixed = [v in known_body and role == "const" for v, role in zip(body.inputs, roles, strict=True)]
        invariant = known_variables(body, fixed)
        wanted = demanded(body, known_body, ())
        given |= known.evaluate(body, given, [v for v in wanted if v in invariant])
        varying = [v for v in wanted if v not in given]
        if varying:
            publics = [o if isinstance(o, Public) else None for o in operands]
            for v, p in zip(varying, known.evaluate_scan(e, publics, varying), strict=True):
                given[v] = p._replace(over=(*p.over, depth))
        return given

    def repeat(self, e: Equation, operands: Sequence[Operand]) -> Sequence[Operand | None]:
        """A while loop that turns a known number of times, as a scan over nothing."""
        a, b = e.params["cond_nconsts"], e.params["body_nconsts"]
        publics = [o if isinstance(o, Public) else None for o in operands]
        turns = known.count_turns(e, publics)
        if turns is None:
            refuse(e.where, "while", "the number of turns depends on secret data", INSTEAD["while"])
        number = turns.scalar
        if number is None:
            refuse(e.where, "while", "turns another number of times in each step of the loop around", INSTEAD["while"])
        if number == 0:
            return list(operands[a + b :])
        params = {"num_consts": b, "num_carry": len(operands) - a - b, "length": int(number), "reverse": False}
        scan = e._replace(name="scan", inputs=e.inputs[a:], params=params, bodies=e.bodies[1:])
        return self.scan(scan, operands[a:])

    def branch(self, e: Equation, operands: Sequence[Operand]) -> Sequence[Operand | None]:
        """A cond: the branch that is known to be taken; all, and a known choice, if it changes from step to step."""
        index = operands[0]
        if not isinstance(index, Public):
            refuse(e.where, "cond", "the choice of a branch depends on secret data", INSTEAD["cond"])
        number = index.scalar
        if number is not None:
            taken = e.bodies[int(np.clip(number, 0, len(e.bodies) - 1))]
            return Block(self.scope, taken, operands[1:]).run()
        results = [Block(self.scope, branch, operands[1:]).run() for branch in e.bodies]
        chosen: list[Operand | None] = []
        for i, v in enumerate(e.outputs):
            if v in self.known:
                chosen.append(None)
                continue
            site = self.site(e._replace(name="select_n", outputs=(v,)))
            shape = (*index.array.shape, *(1,) * len(site.shape))
            wide = np.clip(np.asarray(index.array), 0, len(e.bodies) - 1).reshape(shape)
            cases = [r[i] for r in results]
            which = index._replace(array=np.broadcast_to(wide, (*index.array.shape, *site.shape)), kind="i")
            chosen += lower(site, [which, *(c for c in cases if c is not None)])
        return chosen


def constants(flat: Flat) -> dict[int, Public]:
    return {v: Public(value, (), flat.variables[v].kind) for v, value in flat.constants.items()}


__all__ = ["Block", "Scope", "demanded", "known_outputs"]
