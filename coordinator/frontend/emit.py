"""Writing the secret part of a flat jaxpr as a graph: one rule per equation, loops as loops.

Known values come from `frontend.known`.  In a loop's body they are what the loop scans: a stack of constants, one slice
a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coordinator.frontend import known
from coordinator.frontend.flat import Equation, Flat
from coordinator.frontend.measured import Point, Points
from coordinator.frontend.scope import Scope
from coordinator.frontend.visibility import known_variables, scan_carry
from coordinator.lower.builder import Value
from coordinator.lower.rules import INSTEAD, Operand, Public, Site, doubts, lower, refuse
from mpcnode.graph import Kind


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
        place: str = "",
    ) -> None:
        self.scope, self.flat, self.place = scope, flat, place
        self.points = Points(scope.calibrated, flat, place) if scope.calibrated else None
        self.here = 0  # the number of the equation that is being written
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
        for here, e in enumerate(self.flat.equations):
            self.here = here
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
        missing = {v for v in self.flat.outputs if v in self.known and self.origin(v) not in self.given}
        results = [None if v in missing else self.read(v) for v in self.flat.outputs]
        doubts.check(self.scope, results)
        return results

    def origin(self, v: int) -> int:
        """What a known variable is given as: itself, or what it is a broadcast of."""
        while v not in self.given and v in self.broadcasts:
            v = self.broadcasts[v].inputs[0]
        return v

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
        site = Site(e.name, e.params, shapes, kinds, e.where, self.scope, positions)
        return self.points.told(site, e) if self.points else site

    def equation(self, e: Equation, operands: list[Operand]) -> Sequence[Operand | None]:
        """The results; None for those that were known from the start."""
        if not any(isinstance(o, Value) for o in operands):  # a rule has found its result known
            return self.late(e, operands, e.outputs)
        control = {"scan": self.scan, "while": self.repeat, "cond": self.branch}
        if e.name not in control:
            return self.lower(self.site(e), e, operands)
        doubts.check(self.scope, operands)
        results = control[e.name](e, operands)
        missing = [v for v, r in zip(e.outputs, results, strict=True) if r is None and v not in self.known]
        found = dict(zip(missing, self.late(e, operands, missing), strict=True)) if missing else {}
        return [found.get(v, r) for v, r in zip(e.outputs, results, strict=True)]

    def lower(self, site: Site, e: Equation, operands: Sequence[Operand]) -> Sequence[Operand]:
        """The results of the equation's rule."""
        return self.points.lower(site, e, operands) if self.points else lower(site, operands)

    def late(self, e: Equation, operands: Sequence[Operand], wanted: Sequence[int]) -> list[Operand]:
        """Outputs that turned out to be known while the graph was written."""
        publics = {v: o for v, o in zip(e.inputs, operands, strict=True) if isinstance(o, Public)}
        lone = self.flat._replace(inputs=(), constants={}, equations=(e,), outputs=e.outputs)
        found = known.evaluate(lone, publics, wanted)
        return [found[v] for v in wanted]

    # ---- control ---------------------------------------------------------------------------------------------------
    def scan(self, e: Equation, operands: Sequence[Operand]) -> list[Operand | None]:
        """A loop that carries and stacks what is secret."""
        plan, body = Plan.of(e, operands), e.bodies[0]
        if not e.params["length"]:
            refuse(e.where, "scan", "takes no step")
        inner, place = Scope(self.scope.builder.frac, self.scope), f"{self.place}{self.here}/"
        given = self.scan_values(e, operands, plan, inner.depth)
        inputs: list[Operand | None] = []
        carries = Points(self.scope.calibrated, body, place) if self.scope.calibrated else None
        for v, role, operand, seen in zip(body.inputs, plan.roles, operands, plan.known, strict=True):
            if seen:
                inputs.append(given.get(v))
            else:
                point = carries.point(v, self.scope.builder.frac) if carries and role == "carry" else None
                value = inner.argument(role, self.shared(self.scope, e, operand, body.variables[v].kind, point), point)
                inputs.append(carries.assumed(inner.builder, v, value) if carries else value)
        results = Block(inner, body, inputs, given, place).run()
        points = [
            carries.point(body.inputs[plan.consts + i], inner.builder.frac) if carries and i < plan.carry else None
            for i in range(len(results))
        ]
        shared = [
            self.shared(inner, e, r, body.variables[v].kind, point) if r is not None and moves else None
            for v, r, moves, point in zip(body.outputs, results, plan.moving, points, strict=True)
        ]
        carried, stacked = ([v for v in part if v is not None] for part in (shared[: plan.carry], shared[plan.carry :]))
        found = iter(
            inner.loop(carried, stacked, e.params["length"], e.params["reverse"]) if carried or stacked else ()
        )
        unmoved = [operands[plan.consts + i] if s else None for i, s in enumerate(plan.still)]
        unmoved += [None] * (len(shared) - plan.carry)
        return [next(found) if moves else other for moves, other in zip(plan.moving, unmoved, strict=True)]

    def shared(self, scope: Scope, e: Equation, operand: Operand, kind: str, point: Point | None = None) -> Value:
        """The operand as a shared value in that scope, as a loop carries and stacks it."""
        frac, room = point or (scope.builder.frac, 0)
        with scope.builder.aiming(frac, room):
            value = self.site(e)._replace(scope=scope).value(operand)
            value = scope.builder.lift(value, Kind.BIT if kind == "b" else Kind.ARITH)
            return scope.builder.align(value, frac) if point and kind == "f" else value

    def scan_values(self, e: Equation, operands: Sequence[Operand], plan: Plan, depth: int) -> dict[int, Public]:
        """The known variables that a scan's body reads: stacks over its steps, but for those that no step changes."""
        body = e.bodies[0]
        given = constants(body)
        for v, role, operand, seen in zip(body.inputs, plan.roles, operands, plan.known, strict=True):
            if isinstance(operand, Public) and seen and role != "carry":
                given[v] = operand._replace(over=(*operand.over, depth) if role == "scan" else operand.over)
        fixed = [seen and role == "const" for role, seen in zip(plan.roles, plan.known, strict=True)]
        invariant = known_variables(body, fixed)
        wanted = demanded(body, known_variables(body, plan.known), ())
        given |= known.evaluate(body, given, [v for v in wanted if v in invariant])
        varying = [v for v in wanted if v not in given]
        if varying:
            publics = [o if isinstance(o, Public) else None for o in operands]
            for v, p in zip(varying, known.evaluate_scan(e, publics, varying), strict=True):
                given[v] = p._replace(over=(*p.over, depth))
        return given

    def repeat(self, e: Equation, operands: Sequence[Operand]) -> list[Operand | None]:
        """A while loop that turns a known number of times, as a scan over nothing."""
        a, b = e.params["cond_nconsts"], e.params["body_nconsts"]
        turns = known.count_turns(e, [o if isinstance(o, Public) else None for o in operands])
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

    def branch(self, e: Equation, operands: Sequence[Operand]) -> list[Operand | None]:
        """A cond: the branch that is known to be taken; all, and a known choice, if it changes from step to step."""
        index = operands[0]
        if not isinstance(index, Public):
            refuse(e.where, "cond", "the choice of a branch depends on secret data", INSTEAD["cond"])
        number, last, place = index.scalar, len(e.bodies) - 1, f"{self.place}{self.here}/"
        if number is not None:
            taken = min(max(int(number), 0), last)
            return Block(self.scope, e.bodies[taken], operands[1:], place=f"{place}{taken}/").run()
        results = [
            Block(self.scope, branch, operands[1:], place=f"{place}{i}/").run() for i, branch in enumerate(e.bodies)
        ]
        steps = np.clip(np.asarray(index.array), 0, last)
        chosen: list[Operand | None] = []
        for v, cases in zip(e.outputs, zip(*results, strict=True), strict=True):
            site = self.site(e._replace(name="select_n", outputs=(v,)))
            wide = np.broadcast_to(steps.reshape(*steps.shape, *(1,) * len(site.shape)), (*steps.shape, *site.shape))
            which = Public(wide, index.over, "i")
            given = [which, *(c for c in cases if c is not None)]
            choice = e._replace(name="select_n", inputs=(-1,) * len(given), outputs=(v,))  # none of this program
            chosen += [None] if v in self.known else self.lower(site, choice, given)
        return chosen


class Plan(NamedTuple):
    """How a scan's inputs enter the body (const, carry or scan; a carried value that no step changes is a const), which
    of them are known, which carried values no step changes, and which outputs the loop makes.
    """

    consts: int
    carry: int
    roles: list[str]
    known: list[bool]
    still: list[bool]
    moving: list[bool]

    @classmethod
    def of(cls, e: Equation, operands: Sequence[Operand]) -> Plan:
        consts, carry, body = e.params["num_consts"], e.params["num_carry"], e.bodies[0]
        flags = [isinstance(o, Public) for o in operands]
        scanned = flags[consts + carry :]
        known = [*flags[:consts], *scan_carry(e, flags), *scanned]
        still = [body.outputs[i] == body.inputs[consts + i] for i in range(carry)]
        roles = [*["const"] * consts, *("const" if s else "carry" for s in still), *["scan"] * len(scanned)]
        seen = known_variables(body, known)
        moving = [v not in seen and not (i < carry and still[i]) for i, v in enumerate(body.outputs)]
        return cls(consts, carry, roles, known, still, moving)


def constants(flat: Flat) -> dict[int, Public]:
    return {v: Public(value, (), flat.variables[v].kind) for v, value in flat.constants.items()}
