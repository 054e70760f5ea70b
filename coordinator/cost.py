"""What a program costs, from the costs that its protocol declares: rounds, bytes, and the network's seconds.

The engine starts every op as soon as its arguments are there, and the exchanges of all ops that wait share a round.
So the rounds of a graph are those of its longest chain of dependent ops, and those of a loop its length times its
body's.  The conformance suite holds the declared costs to what the simulator counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mpcnode.graph import Graph, Op
from mpcnode.matching import joins, sent_bytes
from mpcnode.protocols import Cost, Protocol


class Line(NamedTuple):
    """What the ops of one line of the user's program cost.  Rounds that lines share are counted for each of them."""

    where: str
    ops: int  # kinds of op, each counted once
    executions: int
    cost: Cost


class Leg(NamedTuple):
    """Ops of one line that follow one another on the longest chain: their names and the rounds that they take."""

    where: str
    ops: tuple[str, ...]
    rounds: int


class Chain(NamedTuple):
    """The chain of dependent ops that makes the rounds of one step of a loop, or of a program without loops (where is
    empty then, and steps 1).
    """

    where: str
    steps: int
    legs: tuple[Leg, ...]

    @property
    def rounds(self) -> int:
        """Of one step."""
        return sum(leg.rounds for leg in self.legs)

    def by_line(self) -> list[tuple[str, int]]:
        """Each line's rounds on the chain, the most first."""
        sums: dict[str, int] = {}
        for leg in self.legs:
            sums[leg.where] = sums.get(leg.where, 0) + leg.rounds
        return sorted(sums.items(), key=lambda item: item[1], reverse=True)


class Estimate(NamedTuple):
    """rounds: on the longest chain; total: of all executions (its rounds mean nothing); lines: dearest first;
    largest_input_bytes: what the owner that sends the most sends of its data.
    """

    rounds: int
    total: Cost
    evaluators: int
    lines: tuple[Line, ...]
    largest_input_bytes: int = 0

    @property
    def link_bytes(self) -> int:
        """That one evaluator sends to one other, owners' inputs aside."""
        return self.total.swap_bytes

    @property
    def bytes(self) -> int:
        """That all parties send together."""
        return self.evaluators * self._uplink_bytes + self.total.deal_bytes + self.total.owner_bytes

    @property
    def _uplink_bytes(self) -> int:
        return (self.evaluators - 1) * self.total.swap_bytes

    def seconds(self, rtt_s: float, bytes_per_s: float) -> float:
        """What the network takes when every party sends and receives at most `bytes_per_s` in all, on links of that
        round-trip time: half of it for each round, and the busiest party's bytes, of the inputs and then of the rest.
        The helper deals ahead of the computation, so only its bandwidth counts.  Computing comes on top, or overlaps.
        """
        inputs = max(self.total.owner_bytes / self.evaluators, self.largest_input_bytes)
        down = self._uplink_bytes + self.total.deal_bytes / self.evaluators + inputs
        chain = self.rounds * rtt_s / 2 + down / bytes_per_s
        return max(chain, self.total.deal_bytes / bytes_per_s)


def estimate(graph: Graph, protocol: Protocol, parties: Sequence[str]) -> Estimate:
    """The cost of a verified graph.  parties: who computes, by rank, helpers included; other owners are guests."""
    size = len(parties)
    lines: dict[str, tuple[int, int, Cost]] = {}
    owners: Counter[str] = Counter()
    for op, args, times in _executions(graph, 1):
        cost = protocol.cost(op, [arg.type for arg in args], size).times(times)
        if op.name == "input":
            cost += _beside_the_evaluators(op, protocol, parties)
            owners[op.text("owner")] += cost.owner_bytes
        ops, executions, sum_ = lines.get(op.where, (0, 0, Cost()))
        lines[op.where] = (ops + 1, executions + times, sum_ + cost)
    total = sum((cost for _, _, cost in lines.values()), Cost())
    table = [Line(where, *counts) for where, counts in lines.items()]
    table.sort(key=lambda line: (_bytes(line.cost), line.cost.rounds), reverse=True)
    rounds = _rounds(graph, protocol, size)
    if joins(graph, range(len(graph.ops))):  # before anything else, owners compare whom their rows are about
        rounds, total = rounds + 1, total + Cost(owner_bytes=sent_bytes(graph))
    return Estimate(rounds, total, size - protocol.helpers, tuple(table), max(owners.values(), default=0))


def _beside_the_evaluators(op: Op, protocol: Protocol, parties: Sequence[str]) -> Cost:
    """What an input costs more than that of an evaluator, for which protocols declare it: another owner sends its
    numbers to one evaluator more, and of a guest's the mask is dealt.
    """
    owner, nbytes = op.text("owner"), 8 * op.type.size
    if owner in parties[protocol.helpers :]:
        return Cost()
    return Cost(owner_bytes=nbytes, deal_bytes=0 if owner in parties else nbytes * protocol.helpers)


def critical_chain(graph: Graph, protocol: Protocol, size: int) -> Chain:
    """What makes the rounds of one step of the outermost loop that takes the most of them."""
    loops = [op for op in graph.ops if op.name == "loop"]
    if not loops:
        return Chain("", 1, _legs(_longest(graph, protocol, size)))
    most = max(loops, key=lambda op: op.integer("length") * _rounds(op.body, protocol, size))
    return Chain(most.where, most.integer("length"), _legs(_longest(most.body, protocol, size)))


def _legs(chain: Sequence[tuple[Op, int]]) -> tuple[Leg, ...]:
    legs: list[Leg] = []
    for op, rounds in chain:
        if legs and legs[-1].where == op.where:
            last = legs.pop()
            legs.append(Leg(op.where, (*last.ops, op.name), last.rounds + rounds))
        else:
            legs.append(Leg(op.where, (op.name,), rounds))
    return tuple(legs)


def _longest(graph: Graph, protocol: Protocol, size: int) -> list[tuple[Op, int]]:
    """The longest chain of dependent ops, in order: those that take rounds, an inner loop's for all of its steps."""
    ready = _ready(graph, protocol, size)
    chain: list[tuple[Op, int]] = []
    at = max(range(len(ready)), key=ready.__getitem__, default=-1)
    while at >= 0:
        op = graph.ops[at]
        before = max(op.args, key=ready.__getitem__, default=-1)
        own = ready[at] - (ready[before] if before >= 0 else 0)
        if own and op.name == "loop":
            inner = _longest(op.body, protocol, size)
            chain += [(inside, op.integer("length") * rounds) for inside, rounds in reversed(inner)]
        elif own:
            chain.append((op, own))
        at = before
    return chain[::-1]


def _rounds(graph: Graph, protocol: Protocol, size: int) -> int:
    """The longest chain of dependent ops, in rounds."""
    return max(_ready(graph, protocol, size), default=0)


def _ready(graph: Graph, protocol: Protocol, size: int) -> list[int]:
    """For each op the round after which its value is there."""
    ready: list[int] = []
    for op in graph.ops:
        start = max((ready[a] for a in op.args), default=0)
        if op.name == "loop":
            own = op.integer("length") * _rounds(op.body, protocol, size)
        else:
            own = protocol.cost(op, [graph.ops[a].type for a in op.args], size).rounds
        ready.append(start + own)
    return ready


def _executions(graph: Graph, times: int) -> Iterator[tuple[Op, list[Op], int]]:
    """Every op but loops, with its arguments and how often it is executed; loop bodies included."""
    for op in graph.ops:
        if op.name == "loop":
            yield from _executions(op.body, times * op.integer("length"))
        else:
            yield op, [graph.ops[a] for a in op.args], times


def _bytes(cost: Cost) -> int:
    return cost.swap_bytes + cost.deal_bytes + cost.owner_bytes


RATE_UNITS = {"bit/s": 1, "kbit/s": 10**3, "mbit/s": 10**6, "gbit/s": 10**9}
TIME_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def seconds(text: str) -> float:
    """A time such as 40ms, 200us or 1.5s; ValueError otherwise."""
    return _quantity(text, TIME_UNITS)


def bytes_per_s(text: str) -> float:
    """A rate such as 352Mbit/s or 10Gbit/s; ValueError otherwise."""
    return _quantity(text, {unit: factor / 8 for unit, factor in RATE_UNITS.items()})


def _quantity(text: str, units: dict[str, float]) -> float:
    lowered = text.strip().lower()
    for unit in sorted(units, key=len, reverse=True):
        if lowered.endswith(unit):
            try:
                value = float(lowered.removesuffix(unit))
            except ValueError:
                break
            if 0 <= value < float("inf") and (value > 0 or units is TIME_UNITS):
                return value * units[unit]
    raise ValueError(f"{text!r} is no number with one of the units {', '.join(units)}")
