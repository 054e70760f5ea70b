"""The engine runs ops in one order everywhere, shares rounds, frees values at their last use and tells of progress."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from coordinator.lower.builder import Builder, Value
from mpcnode import kernels, protocols
from mpcnode.engine import Hooks, Plan, execute
from mpcnode.graph import MAX_DEPTH, Graph, Kind, Op, Type
from mpcnode.party import Party, seeded_keys
from mpcnode.simulate import Message, run, simulate
from mpcnode.verify import verify

NAMES = ["helper", "alice", "bob"]
COLUMN = Type(Kind.ARITH, 0, (5, 1))


def data(b: Builder, owner: str = "alice") -> Value:
    return b.emit("input", type=COLUMN, owner=owner, dataset="d", columns=("v",))


def reveal(b: Builder, **values: Value) -> Graph:
    for name, v in values.items():
        b.emit("reveal", v, to=("analyst",), name=name)
    graph = b.graph()
    verify(graph)
    return graph


def loop(b: Builder, length: int, x: Value, write: Callable[[Builder, Value], Value]) -> Value:
    """x = write(x), `length` times."""
    body = Builder()
    inside = body.graph([write(body, body.emit("param", index=0, type=x.type))])
    return b.emit("get", b.emit("loop", x, length=length, reverse=0, consts=0, carry=1, body=inside), index=0)


def square(b: Builder, x: Value) -> Value:
    return b.emit("mul", x, x)


class Watch(Hooks):
    """Data of ones, and a note of all that the engine tells."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def read(self, op: Op) -> Any:
        return np.ones(op.type.shape, np.uint64)

    def step(self, done: int, total: int) -> None:
        self.told.append(("step", done, total))

    def enter(self, number: int, op: Op) -> None:
        self.told.append(("enter", number, op.name))

    def leave(self, number: int) -> None:
        self.told.append(("leave", number))


def watched(graph: Graph, make: Callable[[int], Hooks], seed: bytes = b"") -> tuple[list[Any], int]:
    """Every party's results under masked evaluation, and the number of rounds."""
    keys = seeded_keys(3, seed)
    results, traffic = run(
        [execute(Party(i, NAMES, keys[i]), protocols.get("masked"), graph, make(i)) for i in range(3)]
    )
    return results, traffic.rounds


def several() -> Graph:
    """Local and interactive ops, waiting for each other in several ways, and loops."""
    b = Builder()
    x, y = data(b), data(b, "bob")
    z = b.emit("mul", x, y)
    low, high = b.emit("sign", z, lo=0), b.emit("sign", b.emit("neg", x), lo=40)
    both = b.emit("inject", b.emit("and", low, high))
    power = loop(b, 3, x, lambda b, x: loop(b, 2, square(b, x), square))
    other = loop(b, 2, y, square)
    return reveal(b, sums=b.emit("add", both, power), other=other, z=z)


# ---- the schedule ----------------------------------------------------------------------------------------------------
def test_the_schedule_is_the_same_for_all_parties_and_runs() -> None:
    graph, told = several(), []
    for seed in (b"1", b"2"):
        hooks = [Watch() for _ in NAMES]
        watched(graph, hooks.__getitem__, seed)
        told += [h.told for h in hooks]
    assert told[0]
    assert all(t == told[0] for t in told)


def test_ops_that_can_start_do_so_in_the_order_of_the_graph() -> None:
    b = Builder()
    x, y = data(b), data(b, "bob")
    values = {f"v{i}": b.emit("mul", *pair) for i, pair in enumerate([(x, y), (x, x), (y, y)])}
    hooks = Watch()
    watched(reveal(b, **values), lambda rank: hooks if rank == 1 else Watch())
    muls = [number for what, number, *name in hooks.told if what == "enter" and name == ["mul"]]
    assert muls == sorted(set(muls)) * 2  # each starts, then each goes on after the round


@pytest.mark.skipif(kernels.NAME != "native", reason="tapes call the compiled kernels")
def test_a_tape_tells_what_an_iteration_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a rest that the next op ends at once."""

    def told(turns: int) -> list[tuple[Any, ...]]:
        monkeypatch.setattr("mpcnode.engine.LEAST_TURNS", turns)
        b, hooks = Builder(), Watch()
        y = loop(b, 12, data(b), lambda b, x: b.emit("add", square(b, x), b.emit("inject", b.emit("sign", x, lo=0))))
        watched(reveal(b, y=y), lambda rank: hooks if rank == 1 else Watch())
        return hooks.told

    def without_rests(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [a for a, b in pairwise(events) if (a[0], b[0]) != ("leave", "enter")]

    played, as_ever = told(0), told(1 << 60)
    tail = len(as_ever) // 3  # of played iterations alone
    assert without_rests(played)[-tail:] == without_rests(as_ever)[-tail:]
    assert [e[0] for e in played[-tail:]].count("leave") < [e[0] for e in as_ever[-tail:]].count("leave")


def test_enter_and_leave_come_in_pairs() -> None:
    hooks = Watch()
    watched(several(), lambda rank: hooks if rank == 1 else Watch())
    told = [t for t in hooks.told if t[0] != "step"]
    assert all(a[0] == "enter" and b == ("leave", a[1]) for a, b in zip(told[::2], told[1::2], strict=True))


@pytest.mark.parametrize(
    ("write", "rounds"),
    [
        (lambda b, x, y: [b.emit("mul", x, y), b.emit("mul", x, x), b.emit("mul", y, y)], 1),
        (lambda b, x, y: [square(b, square(b, square(b, x)))], 3),
        (lambda b, x, y: [b.emit("sign", x, lo=18), square(b, square(b, square(b, y)))], 3),
        (lambda b, x, y: [loop(b, 5, x, square), loop(b, 2, y, square)], 5),
        (lambda b, x, y: [loop(b, 2, x, lambda b, x: loop(b, 3, x, square)), square(b, x)], 6),
        (lambda b, x, y: [loop(b, 4, x, lambda b, x: b.emit("neg", x))], 0),
        (lambda b, x, y: [b.emit("add", square(b, x), square(b, square(b, y)))], 2),
    ],
    ids=["side by side", "a chain", "the longest counts", "loops side by side", "nested", "local", "joined"],
)
def test_rounds_are_those_of_the_longest_chain(write: Any, rounds: int) -> None:
    b = Builder()
    outputs = write(b, data(b), data(b, "bob"))
    graph = reveal(b, **{f"out{i}": v for i, v in enumerate(outputs)})
    assert watched(graph, lambda rank: Watch())[1] == 1 + rounds  # the inputs' round


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_numbers_go_through_the_graph_in_order_bodies_included() -> None:
    graph = several()
    plan = Plan(graph)
    assert all(a is b for a, b in zip((plan.ops()[i] for i in range(plan.end)), graph.walk(), strict=True))
    assert sorted(plan.ops()) == list(range(plan.end))


def test_messages_are_labelled_with_numbers() -> None:
    graph, labels = several(), set()

    def tap(m: Message) -> list[Message]:
        labels.add(m.op)
        return [m]

    simulate(graph, {}, "masked", tap=tap, hooks=lambda rank: Watch())
    names = Plan(graph).ops()
    assert {names[i].name for i in labels} == {"input", "mul", "sign", "and", "inject"}
    assert len(labels) == 2 + 1 + 2 + 1 + 1 + 3


# ---- memory ----------------------------------------------------------------------------------------------------------
class Alive(Watch):
    """How many values are there at once, at most, beside inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, weakref.ref[Any]] = {}
        self.most = self.count = 0

    def value(self, number: int, op: Op, value: Any) -> None:
        if op.name in ("param", "get", "reveal"):
            return
        self.alive = {key: ref for key, ref in self.alive.items() if ref() is not None}
        self.count += 1
        self.alive[self.count] = weakref.ref(value)
        self.most = max(self.most, len(self.alive))


def most_alive(graph: Graph, protocol: str = "masked") -> tuple[int, int]:
    """The most values alive at once at any party, and how many there were in all."""
    hooks = [Alive() for _ in NAMES]
    simulate(graph, {}, protocol, hooks=hooks.__getitem__)
    return max(h.most for h in hooks), hooks[1].count


def chain(b: Builder, x: Value, op: str, length: int) -> Value:
    for _ in range(length):
        x = b.emit(op, x, x) if op in ("add", "mul") else b.emit(op, x)
    return x


@pytest.mark.parametrize("op", ["neg", "add", "mul"])
def test_a_value_is_freed_at_its_last_use(op: str) -> None:
    b = Builder()
    most, count = most_alive(reveal(b, out=chain(b, data(b), op, 20)))
    assert count == 21
    assert most <= 2


def test_a_value_is_kept_while_somebody_needs_it() -> None:
    b = Builder()
    x = data(b)
    first = b.emit("neg", x)
    graph = reveal(b, out=b.emit("add", chain(b, first, "mul", 10), first))
    found = simulate(graph, {}, "masked", hooks=lambda rank: Watch())
    assert found.outputs["out"].tolist() == [[0]] * 5
    assert most_alive(graph)[0] <= 3


def test_what_nobody_uses_is_not_kept() -> None:
    b = Builder()
    x = data(b)
    for by in range(2, 30):
        b.emit("scale", x, by=by, frac=0)
    assert most_alive(reveal(b, out=x))[0] <= 2


def test_memory_does_not_grow_with_a_loop() -> None:
    def graph(length: int) -> Graph:
        b = Builder()
        return reveal(b, out=loop(b, length, data(b), lambda b, x: chain(b, x, "mul", 3)))

    (few, count), (many, more) = most_alive(graph(2)), most_alive(graph(20))
    assert many == few
    assert more > 5 * count


# ---- progress --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("outer", "inner", "steps"), [(7, 3, 7), (3, 3, 3), (3, 7, 21), (1, 4, 4)])
def test_progress_counts_the_loop_that_has_more_iterations(outer: int, inner: int, steps: int) -> None:
    """An epoch counts by its steps, a step not by its recurrent layer's."""
    b = Builder()
    x = loop(b, outer, data(b), lambda b, x: loop(b, inner, x, square))
    hooks = Watch()
    watched(reveal(b, out=loop(b, 2, x, square)), lambda rank: hooks if rank == 1 else Watch())
    assert [t[1:] for t in hooks.told if t[0] == "step"] == [(i + 1, steps + 2) for i in range(steps + 2)]


def test_without_a_loop_there_is_no_progress() -> None:
    b = Builder()
    hooks = Watch()
    watched(reveal(b, out=square(b, data(b))), lambda rank: hooks)
    assert not [t for t in hooks.told if t[0] == "step"]


def test_as_deep_as_the_verifier_allows() -> None:
    def nest(b: Builder, x: Value, depth: int) -> Value:
        return loop(b, 2, x, lambda b, x: nest(b, x, depth - 1) if depth > 1 else b.emit("add", x, x))

    b = Builder()
    graph = reveal(b, out=nest(b, data(b), MAX_DEPTH))
    found = simulate(graph, {}, "masked", hooks=lambda rank: Watch())
    assert found.outputs["out"].tolist() == [[0]] * 5  # doubled 256 times
    assert found.traffic.rounds == 1


# ---- results and failures --------------------------------------------------------------------------------------------
def test_every_evaluator_has_a_part_of_every_output_and_the_helper_none() -> None:
    b = Builder()
    x = data(b)
    graph = reveal(b, secret=x, public=b.raw(np.array([7, -8]), 0), bits=b.emit("sign", x, lo=0))
    (helper, *parts), _ = watched(graph, lambda rank: Watch())
    assert helper == {}
    assert all(part.keys() == {"secret", "public", "bits"} for part in parts)
    assert all(isinstance(v, np.ndarray) for part in parts for v in part.values())
    assert parts[0]["public"].view(np.int64).tolist() == [7, -8]
    assert parts[1]["public"].tolist() == [0, 0]
    assert (parts[0]["secret"] + parts[1]["secret"]).tolist() == [[1]] * 5
    assert (parts[0]["bits"] ^ parts[1]["bits"]).tolist() == [[0]] * 5


def test_an_empty_graph_is_no_work() -> None:
    assert watched(Graph(()), lambda rank: Watch()) == ([{}, {}, {}], 0)


def test_an_owner_without_data_fails() -> None:
    b = Builder()
    with pytest.raises(LookupError, match="no data for alice/d"):
        watched(reveal(b, out=data(b)), lambda rank: Hooks())


@pytest.mark.parametrize("wrong", [np.ones((4, 1), np.uint64), np.ones((5, 1))], ids=["shape", "dtype"])
def test_data_of_another_type_fails(wrong: Any) -> None:
    class Wrong(Hooks):
        def read(self, op: Op) -> Any:
            return wrong

    b = Builder()
    with pytest.raises(AssertionError, match="not of the input's type"):
        watched(reveal(b, out=data(b)), lambda rank: Wrong())


def test_only_the_owner_reads() -> None:
    class Nobody(Hooks):
        def read(self, op: Op) -> Any:
            raise AssertionError("not mine")

    b = Builder()
    watched(reveal(b, out=data(b, "bob")), lambda rank: Watch() if rank == 2 else Nobody())


def test_a_failure_in_the_middle_ends_everybody() -> None:
    """A public index out of range is found while other ops wait for their round."""
    b = Builder()
    x = data(b)
    waiting = square(b, x)
    taken = b.emit("take", square(b, square(b, x)), b.raw(np.array(99), 0), axis=0)
    with pytest.raises(IndexError):
        watched(reveal(b, out=waiting, taken=taken), lambda rank: Watch())
