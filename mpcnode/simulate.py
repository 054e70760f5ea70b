"""All parties in one thread: what tests, `coordinator simulate` and curious people run.

The simulator delivers messages in order, counts rounds and bytes, holds the parties to the same number of rounds, and
lets a hook see, change or drop every message.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mpcnode import protocols, ring
from mpcnode.engine import Hooks, Plan, execute
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.party import Party, seeded_keys
from mpcnode.rounds import Array, Exchange, Kernel, Send, When

T = TypeVar("T")


class OutOfStep(RuntimeError):
    """Parties do not send what their peers expect, or stop for a different number of rounds: a bug of a kernel, or a
    tampered run.
    """


class Message(NamedTuple):
    """One array on its way."""

    source: int
    target: int
    dealt: bool
    op: int
    sequence: int  # number of the array among those of its channel: a lost, repeated or overtaken one shows
    array: Array


Tap = Callable[[Message], Sequence[Message]]  # what is delivered in its place: nothing, itself, others as well


class Traffic(NamedTuple):
    """Counters of a run.  rounds: exchanges that each party stopped for; sent_bytes: by (source, target)."""

    rounds: int
    sent_bytes: dict[tuple[int, int], int]
    messages: int


class _Wires:
    """The channels between the parties of a simulation."""

    def __init__(self, tap: Tap | None) -> None:
        self._queues: dict[tuple[int, int, bool], deque[Message]] = defaultdict(deque)
        self._posted: dict[tuple[int, int, bool], int] = defaultdict(int)
        self._taken: dict[tuple[int, int, bool], int] = defaultdict(int)
        self._tap = tap
        self.sent_bytes: dict[tuple[int, int], int] = defaultdict(int)
        self.messages = 0

    def post(self, source: int, what: Exchange) -> None:
        for send in what.send:
            # a copy, since a kernel may go on to use its buffer; views must not couple the parties
            channel = source, send.peer, what.when is When.DEAL
            message = Message(*channel, send.op, self._posted[channel], np.array(send.array))
            self._posted[channel] += 1
            self.messages += 1
            self.sent_bytes[source, send.peer] += message.array.nbytes
            self._queues[channel].extend(self._tap(message) if self._tap else (message,))

    def take(self, rank: int, what: Exchange) -> list[Array] | None:
        """What `rank` waits for, or None while something is missing.  Raises OutOfStep for an array that it does not
        expect.
        """
        dealt = what.when is When.DEAL
        need: dict[int, int] = defaultdict(int)
        for due in what.recv:
            need[due.peer] += 1
        if any(len(self._queues[peer, rank, dealt]) < n for peer, n in need.items()):
            return None
        arrays = []
        for due in what.recv:
            channel = due.peer, rank, dealt
            got, number = self._queues[channel].popleft(), self._taken[channel]
            if (got.sequence, got.op, got.array.dtype, got.array.shape) != (number, due.op, due.dtype, due.shape):
                sent = f"{got.array.dtype}{list(got.array.shape)} for op {got.op}, number {got.sequence}"
                wanted = f"{due.dtype}{list(due.shape)} for op {due.op}, number {number}"
                raise OutOfStep(f"party {due.peer} sent {rank} {sent}; due was {wanted}")
            self._taken[channel] += 1
            arrays.append(got.array)
        return arrays

    def leftover(self) -> list[tuple[int, int, bool]]:
        """Channels (source, target, dealt) on which something came that nobody took."""
        return sorted(channel for channel, queue in self._queues.items() if queue)


def run(kernels: Sequence[Kernel[T]], tap: Tap | None = None, guests: int = 0) -> tuple[list[T], Traffic]:
    """Step the parties' coroutines until all have returned.  Raises OutOfStep when they cannot go on or were not in
    step; the last `guests` of them keep no step.
    """
    wires = _Wires(tap)
    results: dict[int, T] = {}
    waiting: dict[int, Exchange] = {}
    rounds = [0] * len(kernels)

    def step(rank: int, got: list[Array] | None) -> None:
        try:
            what = kernels[rank].send(got)
        except StopIteration as stop:
            results[rank] = stop.value
            waiting.pop(rank, None)
            return
        wires.post(rank, what)
        rounds[rank] += what.when is When.ROUND
        waiting[rank] = what

    try:
        for rank in range(len(kernels)):
            step(rank, None)
        while waiting:
            moved = False
            for rank in list(waiting):
                while rank in waiting and (got := wires.take(rank, waiting[rank])) is not None:
                    step(rank, got)
                    moved = True
            if not moved:
                stuck = {rank: sorted({(due.peer, due.op) for due in what.recv}) for rank, what in waiting.items()}
                raise OutOfStep(f"nobody can go on; waiting for (party, op): {stuck}")
    finally:
        for kernel in kernels:
            kernel.close()
    if len(set(rounds[: len(rounds) - guests])) != 1:
        raise OutOfStep(f"the parties stopped for {rounds} rounds")
    if left := wires.leftover():
        raise OutOfStep(f"nobody took what came by (source, target, dealt): {left}")
    return [results[i] for i in range(len(kernels))], Traffic(rounds[0], dict(wires.sent_bytes), wires.messages)


Numbers = npt.NDArray[Any]


Slot: TypeAlias = tuple[str, tuple[str, ...]]  # of a kept array: the value's name and the array's path in it


class Result(NamedTuple):
    """outputs: by name; kept: what a recipient would have learned of what was kept instead."""

    outputs: dict[str, Numbers]
    traffic: Traffic
    kept: dict[Slot, Numbers]


class SimulatedHooks(Hooks):
    """Reads inputs from `data`: (owner, dataset) -> {column: numbers}, or numbers [rows, columns of the input]; and
    kept arrays from `kept`, by name and path, which `share` makes a sharing of (the default: cleartext's).
    """

    def __init__(
        self,
        data: Mapping[tuple[str, str], Numbers | Mapping[str, Numbers]],
        kept: Mapping[Slot, Numbers] | None = None,
        share: Callable[[Array], Array] = lambda value: value[None],
    ) -> None:
        self._data, self._kept, self._share = data, kept or {}, share
        self.stored: dict[Slot, tuple[Type, Array]] = {}

    def read(self, op: Op) -> Array:
        found = self._data[op.text("owner"), op.text("dataset")]
        if isinstance(found, Mapping):
            found = np.stack([found[c] for c in op.texts("columns")], axis=1)
        rows = np.asarray(found)
        return ring.encode(rows if rows.ndim > 1 else rows[:, None], op.type.frac)

    def keys(self, op: Op) -> bytes:
        return b"the rows of a simulation are in order"

    def load(self, op: Op) -> Array:
        found = np.asarray(self._kept[slot_of(op)])
        return self._share(found.astype(np.uint8) if op.type.kind is Kind.BIT else ring.encode(found, op.type.frac))

    def store(self, op: Op, sharing: Array) -> None:
        self.stored[slot_of(op)] = op.type, sharing


def slot_of(op: Op) -> Slot:
    """Which kept array a `store` or `load` is about."""
    return op.text("kept"), op.texts("path")


def decode(raw: Array, type: Type) -> Numbers:
    """A combined output as numbers: bool for bits, int64 for binary point 0, else float64."""
    if type.kind is Kind.BIT:
        return raw.astype(bool)
    return ring.decode(raw, type.frac) if type.frac else raw.view(np.int64)


def parties(graph: Graph, protocol: protocols.Protocol, evaluators: int, guests: Collection[str] = ()) -> list[str]:
    """Names by rank: helpers, the owners that the graph names, and made-up evaluators up to the number asked for;
    without `guests`.
    """
    names = [f"helper_{i}" if protocol.helpers > 1 else "helper" for i in range(protocol.helpers)]
    for op in graph.ops:
        if op.name == "input" and op.text("owner") not in (*names, *guests):
            names.append(op.text("owner"))
    while len(names) < protocol.helpers + evaluators:
        names.append(f"evaluator_{len(names)}")
    return names


def simulate(
    graph: Graph,
    data: Mapping[tuple[str, str], Numbers | Mapping[str, Numbers]],
    protocol: str = "cleartext",
    *,
    evaluators: int = 2,
    seed: bytes = b"simulation",
    tap: Tap | None = None,
    hooks: Callable[[int], Hooks] | None = None,
    kept: Mapping[Slot, Numbers] | None = None,
    guests: Sequence[str] = (),
) -> Result:
    """Run a verified graph with all parties in this thread and return its outputs as numbers.

    `hooks(rank)` replaces a party's hooks (default: SimulatedHooks on `data` and `kept`).  Masks follow from `seed`.
    `guests` are owners who compute nothing.
    """
    rules = protocols.get(protocol)
    computing = parties(graph, rules, evaluators if rules.helpers else max(1, evaluators), guests)
    rules.check_size(len(computing))
    plan, names = Plan(graph), [*computing, *guests]
    keys = seeded_keys(len(names), seed)
    members = [Party(i, names, keys[i], len(guests)) for i in range(len(names))]

    def standard(rank: int) -> Hooks:
        """A kept array stands there as if it had been shared with masks of zero, as `lift` does."""
        at = members[rank].at(0)

        def lifted(value: Array) -> Array:
            kind = Kind.BIT if value.dtype == np.uint8 else Kind.ARITH
            return rules.add_public(at, np.zeros((rules.parts(at, kind), *value.shape), value.dtype), value)

        return SimulatedHooks(data, kept, lifted)

    made = [(hooks or standard)(rank) for rank in range(len(names))]
    kernels = [execute(member, rules, plan, made[i]) for i, member in enumerate(members)]
    parts, traffic = run(kernels, tap, len(guests))
    parts, made = parts[: len(computing)], made[: len(computing)]
    outputs = {}
    for op in graph.ops:
        if op.name == "reveal":
            name = op.text("name")
            raw = rules.combine([part[name] for i, part in enumerate(parts) if not rules.is_helper(i)])
            outputs[name] = decode(raw, op.type)
    return Result(outputs, traffic, _opened(rules, members, made))


def _opened(rules: protocols.Protocol, members: Sequence[Party], made: Sequence[Hooks]) -> dict[Slot, Numbers]:
    """What the parties kept, as numbers, if their hooks are of the kind that remembers it."""
    keeping = {i: hooks for i, hooks in enumerate(made) if isinstance(hooks, SimulatedHooks) and not rules.is_helper(i)}
    found = {}
    for number, (place, (type_, _)) in enumerate(next(iter(keeping.values())).stored.items() if keeping else ()):
        parts = [rules.reveal(members[i].at(number), hooks.stored[place][1]) for i, hooks in keeping.items()]
        found[place] = decode(rules.combine([np.asarray(part) for part in parts]), type_)
    return found


__all__ = [
    "Message",
    "OutOfStep",
    "Result",
    "Send",
    "SimulatedHooks",
    "Tap",
    "Traffic",
    "decode",
    "parties",
    "run",
    "simulate",
    "slot_of",
]
