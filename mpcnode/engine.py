"""The lock-step loop: run a verified graph as one party.

A sweep goes over the graph in op order and starts every op whose arguments are there; local ops finish at once,
interactive ones run to the end of their round, and what is large leaves at once.  Then one exchange ends the round
for all, unless a single op runs: it goes on until it is done.  The schedule is a function of the graph alone, so all
parties keep it without a word about it.
"""

from __future__ import annotations

import heapq
import types
import typing
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mpcnode import kernels
from mpcnode.graph import Graph, Kind, Op
from mpcnode.kernels.memory import WATCHER
from mpcnode.matching import joins, match_rows
from mpcnode.ops import Local, constant, interactive, local
from mpcnode.party import Party, Place
from mpcnode.protocols import Protocol
from mpcnode.rounds import Array, Exchange, Finished, Inbox, Kernel, Lockstep, When, going_on
from mpcnode.tape import Body, Tapes

LEAST_TURNS = 8  # iterations, for each turn of who is dealt, that are worth a tape: the first costs several times one
ONCE = ("input", "load", "store", "reveal")  # ops of which owners and recipients hear


class Hooks:
    """What the engine asks of, and tells, the node that runs it.  The base class has no input and listens to
    nothing.
    """

    def read(self, op: Op) -> Array:
        """This party's own data for an `input`: ring elements, uint64, of the op's shape."""
        raise LookupError(f"no data for {op.text('owner')}/{op.text('dataset')}")

    def keys(self, op: Op) -> bytes:
        """Of this party's own data for an `input` that is joined: a digest of whom its rows are about, in order."""
        raise LookupError(f"no keys for {op.text('owner')}/{op.text('dataset')}")

    def load(self, op: Op) -> Array:
        """This party's kept parts of a sharing, for a `load`: [parts, *shape], uint64, or uint8 for bits."""
        raise LookupError(f"no kept value {op.text('kept')}")

    def store(self, op: Op, sharing: Array) -> None:
        """Keep this party's parts of a sharing, for a `store`; they may be a view."""

    def step(self, done: int, total: int) -> None:
        """Steps that are done, out of all there are: iterations of the loops that `Plan.steps` counts."""

    def enter(self, number: int, op: Op) -> None:
        """Work on op `number` begins or goes on, and that on the one before is over ...  Who leaves both alone is not
        called.
        """

    def leave(self, number: int) -> None:
        """... and rests.  Right before the next `enter` it may be left out."""

    def value(self, number: int, op: Op, value: Array) -> None:
        """An op's value at this party is there.  For simulation: who leaves it alone is not called."""


class Plan:
    """What the engine derives from a graph once: who uses a value, which values end where, kernels, and ops' numbers.

    Numbers go through the graph in order, bodies included, so each op of a nest has its own; they address randomness
    and label messages.
    """

    end: int  # one more than the last number

    def __init__(self, graph: Graph, start: int = 0, often: int = 1) -> None:
        self.graph, self.often = graph, often  # how often it runs
        self.users: list[list[int]] = [[] for _ in graph.ops]
        self.uses = [0] * len(graph.ops)
        self.numbers: list[int] = []
        self.bodies: dict[int, Plan] = {}
        self.distinct = [tuple(dict.fromkeys(op.args)) for op in graph.ops]  # arguments
        defs = [tuple(graph.ops[a] for a in op.args) for op in graph.ops]
        self.local = [_wrapping(op, local(op, args)) for op, args in zip(graph.ops, defs, strict=True)]
        self.interactive = [interactive(op, args) for op, args in zip(graph.ops, defs, strict=True)]
        # Values before the first op.
        self.blank: list[Any] = [constant(op) if op.name == "const" else None for op in graph.ops]
        self.params = [(i, op.integer("index")) for i, op in enumerate(graph.ops) if op.name == "param"]
        given = {i for i, op in enumerate(graph.ops) if op.name in ("const", "param")}
        self.missing = [sum(a not in given for a in args) for args in self.distinct]
        self.first = [i for i, n in enumerate(self.missing) if n == 0 and i not in given]
        self.args = [op.args for op in graph.ops]
        self.freed = [tuple(a for a in args if graph.ops[a].name != "const") for args in self.distinct]
        for i, op in enumerate(graph.ops):
            self.numbers.append(start)
            start += 1
            if op.name == "loop":
                self.bodies[i] = Plan(op.body, start, often * op.integer("length"))
                start = self.bodies[i].end
            for a in self.distinct[i]:
                self.users[a].append(i)
                self.uses[a] += 1
        for o in graph.outputs:
            self.uses[o] += 1
        self.end = start
        self.single = not self.bodies and not any(op.name in ONCE for op in graph.ops)  # one tape can hold all of it
        self.counted: set[int] = set()  # loops of which an iteration is a step
        self.steps = sum(self._steps(i) for i in self.bodies)

    def _steps(self, i: int) -> int:
        """Of a loop: its iterations, or those of the loops in its body if one of its own has more of them: an epoch's
        steps are worth a report, those of a recurrent layer are not.
        """
        length, inner = self.graph.ops[i].integer("length"), self.bodies[i].steps
        if inner > length:
            return length * inner
        self.counted.add(i)
        return length

    def ops(self) -> dict[int, Op]:
        """All ops by number, bodies included."""
        found = dict(zip(self.numbers, self.graph.ops, strict=True))
        for body in self.bodies.values():
            found |= body.ops()
        return found

    def executions(self, times: int = 1) -> dict[int, int]:
        """How often each op runs, by number, when the graph does so many times."""
        found = dict.fromkeys(self.numbers, times)
        for i, body in self.bodies.items():
            found |= body.executions(times * self.graph.ops[i].integer("length"))
        return found


def _wrapping(op: Op, kernel: Local | None) -> Local | None:
    """A kernel of public values: numpy warns of wraps in scalars only, and here they are meant."""
    if kernel is None or op.type.kind is not Kind.PUBLIC or op.type.shape:
        return kernel

    def quiet(rules: Protocol, p: Place, *args: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asanyarray(kernel(rules, p, *args))

    return quiet


class Run(NamedTuple):
    """One party's execution of a graph."""

    party: Party
    protocol: Protocol
    hooks: Hooks
    results: dict[str, Array]
    progress: list[int]  # steps done, steps in all
    observed: bool  # the hooks want to see values ..
    watched: bool  # .. and to hear of ops
    tapes: dict[int, Tapes]  # of loops in loops, by the body's first op


async def execute(party: Party, protocol: Protocol, graph: Graph | Plan, hooks: Hooks) -> dict[str, Array]:
    """Run a graph that `verify` has passed; this party's part of every revealed output, by name ({} at a helper and at
    a guest, who shares its inputs and is done).

    Stops for exchanges only (see rounds.py).  Raises what the hooks and the driver raise, and DataError where joined
    inputs have other rows.
    """
    plan = graph if isinstance(graph, Plan) else Plan(graph)
    await match_rows(party, joins(plan.graph, plan.numbers), hooks.keys)
    of = type(hooks)
    watched = of.enter is not Hooks.enter or of.leave is not Hooks.leave
    run = Run(party, protocol, hooks, {}, [0, plan.steps], of.value is not Hooks.value, watched, {})
    if party.rank < party.computing:
        await _sweep(run, plan, (), 0)
    else:
        await _contribute(run, plan)
    return run.results


async def _contribute(run: Run, plan: Plan) -> None:
    """A guest's part: its inputs, in the order in which everybody's sweep starts them."""
    for number, op in zip(plan.numbers, plan.graph.ops, strict=True):
        if op.name == "input" and run.party.names.index(op.text("owner")) == run.party.rank:
            run.hooks.enter(number, op)
            await _input(run, run.party.at(number), op)
            run.hooks.leave(number)


@types.coroutine
def _sweep(
    run: Run, plan: Plan, params: Sequence[Array], step: int, counting: bool = True
) -> Generator[Exchange, Inbox, list[Array]]:
    """Run one graph, or a loop's body once, and return its outputs; `counting`: its loops' iterations may be steps."""
    frame = _Frame(run, plan, params, step)
    del params
    ops, numbers, local, args = plan.graph.ops, plan.numbers, plan.local, plan.args
    rules, watched, known = run.protocol, run.watched, frame.values.__getitem__
    enter, leave = run.hooks.enter, run.hooks.leave
    here = run.party.at(0, step)  # of local ops, which draw nothing there
    finish, lockstep, queue = frame.finish, Lockstep(), frame.queue
    resumed: dict[int, tuple[Kernel[Any], Inbox]] = {}
    try:
        while queue:
            while queue:
                i = heapq.heappop(queue)
                if (kernel := local[i]) is not None:
                    if watched:
                        enter(numbers[i], ops[i])
                    value = kernel(rules, here, *map(known, args[i]))
                    if watched:
                        leave(numbers[i])
                    finish(i, value)
                    del value  # it is freed with its last use
                    continue
                begun, got = resumed.pop(i) if i in resumed else (frame.begin(i, counting), None)
                if queue or len(lockstep):
                    done = yield from lockstep.add(i, begun, got)
                else:  # alone, it can go on to its end
                    done = Finished((yield from going_on(begun, got)))
                if done is not None:
                    finish(i, done.result)
                del begun, got, done
            if len(lockstep):
                resumed = {i: (waiting, got) for i, waiting, got in (yield from lockstep.turn())}
                queue += resumed  # in order: they were added so
    finally:
        lockstep.close()
        for waiting, _ in resumed.values():
            waiting.close()
    return [frame.values[o] for o in plan.graph.outputs]


class _Frame:
    """The values of one graph while it runs."""

    __slots__ = ("missing", "plan", "queue", "run", "step", "uses", "values")

    def __init__(self, run: Run, plan: Plan, params: Sequence[Array], step: int) -> None:
        self.run, self.plan, self.step = run, plan, step
        self.values: list[Any] = list(plan.blank)
        self.missing, self.uses = list(plan.missing), list(plan.uses)
        self.queue = list(plan.first)  # a heap of ops that can start
        for i, index in plan.params:
            if self.uses[i]:
                self.values[i] = params[index]
        if run.observed:
            for i, op in enumerate(plan.graph.ops):
                if op.name in ("const", "param"):
                    value = params[op.integer("index")] if op.name == "param" else self.values[i]
                    run.hooks.value(plan.numbers[i], op, value)

    def begin(self, i: int, counting: bool) -> Kernel[Any]:
        """Start an op that is not local."""
        run, plan, step = self.run, self.plan, self.step
        op, number, args = plan.graph.ops[i], plan.numbers[i], [self.values[a] for a in plan.args[i]]
        if op.name == "loop":  # its inner ops report for themselves
            return _loop(run, plan, i, args, step, counting)
        p, kernel = run.party.at(number, step), plan.interactive[i]
        begun = _once(run, p, plan, op, args) if kernel is None else kernel(run.protocol, p, *args)
        if run.watched:
            begun = typing.cast(Kernel[Any], _watched(run.hooks, number, op, begun))
        return begun

    def finish(self, i: int, value: Any) -> None:
        """Keep a value, free those that it was the last to use, and queue the ops that can start now."""
        plan, values, uses, missing = self.plan, self.values, self.uses, self.missing
        if self.run.observed and plan.graph.ops[i].name != "loop":
            self.run.hooks.value(plan.numbers[i], plan.graph.ops[i], value)
        if uses[i]:
            values[i] = value
        for a in plan.freed[i]:
            uses[a] -= 1
            if not uses[a]:
                values[a] = None
        for user in plan.users[i]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(self.queue, user)


@types.coroutine
def _watched(hooks: Hooks, number: int, op: Op, kernel: Kernel[Any]) -> Generator[Exchange, Inbox, Any]:
    """A kernel whose hooks hear when it works, and when it rests until a round is over."""
    got: Inbox | None = None
    hooks.enter(number, op)
    try:
        while True:
            what = kernel.send(got)
            if what.when is When.ROUND:
                hooks.leave(number)
                got = yield what
                hooks.enter(number, op)
            else:
                got = yield what
            del what  # what was sent is not held while the kernel goes on
    except StopIteration as stop:
        hooks.leave(number)
        return stop.value
    finally:
        kernel.close()


class _Told(Hooks):
    """Hooks of a body, to which a tape of it goes on to tell what it does."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def enter(self, number: int, op: Op) -> None:
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.strike(self._hooks.leave)
        self._tell(self._hooks.enter, number, op)

    def leave(self, number: int) -> None:
        self._tell(self._hooks.leave, number)

    def _tell(self, hook: Callable[..., None], *args: Any) -> None:
        watcher = WATCHER.get()
        if watcher is None:
            hook(*args)
        else:
            watcher.done(hook, *args)


async def _once(run: Run, p: Place, plan: Plan, op: Op, args: Sequence[Any]) -> Array:
    """An op that runs once: what the owners and the recipients see of it."""
    match op.name:
        case "input":
            return await _input(run, p, op)
        case "load":
            return _loaded(run, p, op)
        case "store":
            run.hooks.store(op, args[0])
        case _:
            assert op.name == "reveal", f"no kernel for {op.name}"
            _reveal(run, p, op, plan.graph.ops[op.args[0]], args[0])
    value: Array = args[0]
    return value


def _input(run: Run, p: Place, op: Op) -> Kernel[Array]:
    owner = run.party.names.index(op.text("owner"))
    value = run.hooks.read(op) if owner == run.party.rank else None
    assert value is None or (value.shape == op.type.shape and value.dtype == np.uint64), (
        "the data is not of the input's type"
    )
    return run.protocol.share(p, owner, op.type.shape, value)


def _loaded(run: Run, p: Place, op: Op) -> Array:
    sharing = run.hooks.load(op)
    dtype = np.uint8 if op.type.kind is Kind.BIT else np.uint64
    assert sharing.shape == (run.protocol.parts(p, op.type.kind), *op.type.shape) and sharing.dtype == dtype, (
        "what was kept is not of the type that is loaded"
    )
    return sharing


def _reveal(run: Run, p: Place, op: Op, source: Op, x: Array) -> None:
    if run.protocol.is_helper(run.party.rank):
        return
    if source.type.kind is Kind.PUBLIC:  # everyone knows it: the first evaluator's part is the value
        part: Array | None = x if run.party.rank == run.protocol.helpers else np.zeros_like(x)
    else:
        part = run.protocol.reveal(p, x)
    assert part is not None
    run.results[op.text("name")] = np.asarray(part)


async def _loop(run: Run, plan: Plan, i: int, args: Sequence[Array], step: int, counting: bool) -> list[Array]:
    """Carry values through the body; each iteration has its own number, so no address of randomness comes twice."""
    op, body, ops = plan.graph.ops[i], plan.bodies[i], plan.graph.ops
    consts, carried, length = op.integer("consts"), op.integer("carry"), op.integer("length")
    reverse, every = op.integer("reverse"), slice(None)
    lead = [() if ops[a].type.kind is Kind.PUBLIC else (every,) for a in op.args[consts + carried :]]
    out_lead = [0 if body.graph.ops[o].type.kind is Kind.PUBLIC else 1 for o in body.graph.outputs[carried:]]
    fixed, carry, scanned = args[:consts], args[consts : consts + carried], args[consts + carried :]
    del args
    stacks: list[Any] = [None] * len(out_lead)
    counted = counting and i in plan.counted
    inside = counting and not counted
    tapes = _tapes(run, plan, i, length)
    told = run if tapes is None or not run.watched else run._replace(hooks=_Told(run.hooks))
    for turn in range(length):
        at = length - 1 - turn if reverse else turn
        slices = [x[(*front, at, ...)] for x, front in zip(scanned, lead, strict=True)]
        number, params = step * length + turn, [*fixed, *carry, *slices]
        sweep: Body = partial(_sweep, told, body, step=number, counting=inside)  # type: ignore[assignment]  # awaitable
        outputs = await (sweep(params) if tapes is None else tapes.sweep(sweep, params, number))
        carry = outputs[:carried]
        for k, (y, n) in enumerate(zip(outputs[carried:], out_lead, strict=True)):
            if stacks[k] is None:
                stacks[k] = np.empty((*y.shape[:n], length, *y.shape[n:]), y.dtype)
            stacks[k][(every,) * n + (at,)] = y
        if counted:
            run.progress[0] += 1
            run.hooks.step(run.progress[0], run.progress[1])
    if tapes is not None:
        carry = [np.array(y) for y in carry]  # no tape's any more
    return [*carry, *stacks]


def _tapes(run: Run, plan: Plan, i: int, length: int) -> Tapes | None:
    """The tapes of a loop's body, if it is to have any; of a loop in a loop always the same."""
    body, period = plan.bodies[i], run.protocol.period(run.party.computing)
    if run.observed or not body.single or kernels.NAME != "native" or length * plan.often < LEAST_TURNS * period:
        return None
    if plan.often == 1:
        return Tapes(period, plan.graph.ops[i].integer("consts"))
    return run.tapes.setdefault(body.numbers[0], Tapes(period, plan.graph.ops[i].integer("consts")))
