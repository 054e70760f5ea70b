"""A body that is played from a tape does what it does without one: every message, every draw, every output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_masks import work

from coordinator.lower.builder import Builder, Value
from mpcnode import engine, kernels, protocols, recorder, tape
from mpcnode.graph import Graph, Kind, Type
from mpcnode.protocols import dealing
from mpcnode.simulate import Message, simulate
from mpcnode.verify import verify

pytestmark = pytest.mark.skipif(kernels.NAME != "native", reason="tapes call the compiled kernels")

N = 64
COLUMN = Type(Kind.ARITH, 0, (N, 1))
DATA = {("alice", "d"): np.arange(float(N))[:, None] % 7 - 3}
Write = Callable[[Builder, Value, Value, Value], Value]  # (body, carry, constant, public number) -> the next carry


def loop(b: Builder, write: Write, carry: Value, const: Value, numbers: Value) -> Value:
    """carry = write(carry, const, number) for each of the numbers."""
    body = Builder()
    types = const.type, carry.type, Type(Kind.PUBLIC, 0, ())
    c, x, n = (body.emit("param", index=i, type=t) for i, t in enumerate(types))
    inside = body.graph([write(body, x, c, n)])
    length = numbers.shape[0]
    made = b.emit("loop", const, carry, numbers, length=length, reverse=0, consts=1, carry=1, body=inside)
    return b.emit("get", made, index=0)


def graph_of(write: Write, numbers: list[int], outer: int = 0) -> Graph:
    """A loop over the numbers, or, with `outer`, a loop of such loops, whose constant is another one each time."""
    b = Builder()
    x = b.reshape(b.emit("input", type=COLUMN, owner="alice", dataset="d", columns=("v",)), (N,))

    def again(b: Builder, x: Value, c: Value, _: Value) -> Value:
        return loop(b, write, x, b.emit("add", c, x), b.const(numbers, 0))

    x = loop(b, again if outer else write, x, x, b.const(range(outer) if outer else numbers, 0))
    b.emit("reveal", x, to=("analyst",), name="y")
    graph = b.graph()
    verify(graph)
    return graph


class Seen(NamedTuple):
    messages: list[tuple[Any, ...]]
    y: Any
    rounds: int


def seen(graph: Graph, protocol: str = "masked", evaluators: int = 2) -> Seen:
    """All that a run shows."""
    messages: list[tuple[Any, ...]] = []

    def note(m: Message) -> list[Message]:
        messages.append((m.source, m.target, m.dealt, m.op, m.sequence, m.array.shape, m.array.tobytes()))
        return [m]

    result = simulate(graph, DATA, protocol, evaluators=evaluators, tap=note)
    return Seen(sorted(messages), result.outputs["y"], result.traffic.rounds)


class Counted:
    """How many iterations were played, and why some bodies have no tape."""

    def __init__(self) -> None:
        self.played = 0
        self.why: list[str] = []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found, play, made = Counted(), tape.play, recorder.Recorder.tape

    def playing(*args: Any) -> Any:
        found.played += sys._getframe(1).f_code.co_name == "sweep"  # and not only tried
        return play(*args)

    def making(self: recorder.Recorder, *args: Any) -> Any:
        result = made(self, *args)
        found.why.append(self.why)
        return result

    monkeypatch.setattr(tape, "play", playing)
    monkeypatch.setattr(recorder.Recorder, "tape", making)
    monkeypatch.setattr(engine, "LEAST_TURNS", 0)
    yield found


def same_without(monkeypatch: pytest.MonkeyPatch, with_tapes: Seen, *args: Any) -> None:
    monkeypatch.setattr(engine, "LEAST_TURNS", 1 << 60)
    without = seen(*args)
    assert with_tapes.messages == without.messages
    assert with_tapes.rounds == without.rounds
    np.testing.assert_array_equal(with_tapes.y, without.y)


def every_op(b: Builder, x: Value, c: Value, n: Value) -> Value:
    """Every interactive op, and what is done with public numbers."""
    z = work(b, x, c)
    shifted = b.emit("add", z, b.spread(n, z.shape))
    rows = b.reshape(shifted, (8, 8))
    turned = b.emit("rev", b.emit("transpose", rows, perm=(1, 0)), axes=(0,))
    padded = b.emit("pad", turned, low=(1, 0), high=(0, 2))
    found = b.emit("sum", b.emit("concat", padded, padded, axis=1), axes=(1,))
    low = b.emit("sub", shifted, b.spread(b.emit("slice", found, start=(1,), limit=(2,), stride=(1,)), z.shape))
    place = b.emit("onehot", low, size=8)
    return b.emit("add", low, b.emit("inject", b.emit("not", b.reshape(b.slice_axis(place, 0, 3, 4), low.shape))))


@pytest.mark.parametrize(("protocol", "evaluators"), [("masked", 2), ("masked", 3), ("cleartext", 1), ("cleartext", 2)])
def test_every_op_from_a_tape(
    monkeypatch: pytest.MonkeyPatch, counted: Counted, protocol: str, evaluators: int
) -> None:
    graph = graph_of(every_op, list(range(12)))
    found = seen(graph, protocol, evaluators)
    parties = evaluators + protocols.get(protocol).helpers
    period = evaluators if protocol == "masked" else 1
    assert not any(counted.why)
    assert counted.played == (12 - 2 * period) * parties
    same_without(monkeypatch, found, graph, protocol, evaluators)


def test_a_loop_in_a_loop_keeps_its_tapes(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    graph = graph_of(every_op, [1, 2, 3], outer=4)
    found = seen(graph)
    assert counted.played == (12 - 4) * 3  # of the inner body, at 3 parties
    same_without(monkeypatch, found, graph)


def test_public_numbers_may_change_late(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    """Nothing that a tape takes for constant depends on them, though they were the same when it was made and tried."""

    def write(b: Builder, x: Value, c: Value, n: Value) -> Value:
        some = b.emit("take", c, b.spread(n, (N,)), axis=0)
        return b.emit("add", b.emit("mul", x, some), b.spread(b.emit("mul", n, n), (N,)))

    graph = graph_of(write, [5] * 8 + [6, 9, 63])
    found = seen(graph)
    assert counted.played
    same_without(monkeypatch, found, graph)


def test_what_depends_on_an_array_has_no_tape(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    def write(b: Builder, x: Value, c: Value, n: Value) -> Value:
        start = b.reshape(n, (1,))
        part = b.emit("dynamic_slice", c, start, sizes=(2,))
        return b.emit("mul", x, b.spread(b.emit("sum", part, axes=(0,)), (N,)))

    graph = graph_of(write, [5] * 8 + [6, 9, 62])
    found = seen(graph)
    assert set(counted.why) == {"what is done depends on what an array holds"}
    assert not counted.played
    same_without(monkeypatch, found, graph)


def test_what_needs_much_memory_has_no_tape(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    monkeypatch.setattr(recorder, "MOST_BYTES", 20_000)
    graph = graph_of(every_op, list(range(6)))
    found = seen(graph)
    assert set(counted.why) == {"an iteration needs too much memory"}
    assert not counted.played
    same_without(monkeypatch, found, graph)


def test_a_stale_array_does_not_pass_the_trial(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    """An operation behind the recorder's back: its result would stand for all iterations."""

    def hidden(s: Any, others: Any, xor: bool = False, out: Any = None) -> Any:
        bare = [x.view(np.ndarray) for x in others]
        return total(s.view(np.ndarray), bare, xor, None if out is None else out.view(np.ndarray))

    total = dealing.total
    monkeypatch.setattr(dealing, "total", hidden)
    graph = graph_of(lambda b, x, c, n: b.emit("mul", x, c), list(range(10)))
    found = seen(graph)
    assert not any(counted.why)
    assert counted.played == 10 - 4  # by the helper alone, who opens nothing
    same_without(monkeypatch, found, graph)


def test_a_tape_needs_the_memory_of_one_iteration(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of freed arrays serve again."""
    sizes = []
    made = recorder.Recorder.tape

    def making(self: recorder.Recorder, *args: Any) -> Any:
        sizes.append(self._bytes)
        return made(self, *args)

    monkeypatch.setattr(recorder.Recorder, "tape", making)

    def write(length: int) -> Write:
        def body(b: Builder, x: Value, c: Value, n: Value) -> Value:
            for _ in range(length):
                x = b.emit("mul", x, c)
            return x

        return body

    for length in (4, 40):
        seen(graph_of(write(length), list(range(6))))
    short, long = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    assert max(long) < 1.5 * max(short)
