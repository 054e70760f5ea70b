"""The simulator delivers, counts, and notices when parties are out of step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coordinator.lower.builder import Builder
from mpcnode import protocols
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.ring import RangeError
from mpcnode.rounds import Kernel, Recv, Send, deal, exchange, post
from mpcnode.simulate import Message, OutOfStep, SimulatedHooks, Traffic, decode, parties, run, simulate


def send(peer: int, *numbers: int, op: int = 0) -> Send:
    return Send(peer, np.array(numbers), op)


def recv(peer: int, count: int = 1, op: int = 0, dtype: Any = np.int64) -> Recv:
    return Recv(peer, np.dtype(dtype), (count,), op)


async def swap(peer: int, number: int, rounds: int = 1) -> list[Any]:
    return [(await exchange([send(peer, number)], [recv(peer)]))[0].tolist() for _ in range(rounds)]


# ---- delivery and counters -------------------------------------------------------------------------------------------
def test_two_parties_swap() -> None:
    results, traffic = run([swap(1, 10, 3), swap(0, 20, 3)])
    assert results == [[[20]] * 3, [[10]] * 3]
    assert traffic == Traffic(3, {(0, 1): 24, (1, 0): 24}, 6)


def test_bytes_are_counted_by_source_and_target() -> None:
    async def first() -> None:
        await post([send(1, 1, 2), send(2, 3)])
        await exchange([send(1, 4)])

    async def takes(*counts: int) -> Any:
        return [a.tolist() for a in await exchange((), [recv(0, count) for count in counts])]

    results, traffic = run([first(), takes(2, 1), takes(1)])
    assert results == [None, [[1, 2], [4]], [[3]]]
    assert traffic == Traffic(1, {(0, 1): 24, (0, 2): 8}, 3)


def test_dealing_is_a_channel_of_its_own_and_no_round() -> None:
    async def dealer() -> None:
        await exchange([send(1, 1)])
        await deal([send(1, 2)])

    async def taker() -> Any:
        dealt = await deal((), [recv(0)])
        return [*dealt, *await exchange((), [recv(0)])]

    results, traffic = run([dealer(), taker()])
    assert [a.tolist() for a in results[1]] == [[2], [1]]
    assert traffic.rounds == 1


def test_a_dealer_may_run_ahead() -> None:
    async def dealer() -> str:
        for i in range(100):
            await deal([send(1, i)])
        return "done"

    async def taker() -> int:
        return sum([(await deal((), [recv(0)]))[0].item() for _ in range(100)])

    assert run([dealer(), taker()])[0] == ["done", 4950]


def test_what_is_sent_is_a_copy() -> None:
    async def changes() -> None:
        mine = np.array([1, 2])
        await post([Send(1, mine, 0)])
        mine[:] = 9
        await exchange()

    async def keeps() -> Any:
        [got] = await exchange((), [recv(0, 2)])
        assert got.flags.writeable
        return got.tolist()

    assert run([changes(), keeps()])[0][1] == [1, 2]


def test_the_tap_sees_and_changes_messages() -> None:
    seen: list[Message] = []

    def tap(m: Message) -> list[Message]:
        seen.append(m)
        return [m._replace(array=m.array + 1)]

    results, _ = run([swap(1, 10, 2), swap(0, 20, 2)], tap)
    assert results == [[[21], [21]], [[11], [11]]]
    assert [m[:5] for m in seen] == [(0, 1, False, 0, 0), (1, 0, False, 0, 0), (0, 1, False, 0, 1), (1, 0, False, 0, 1)]


# ---- out of step -----------------------------------------------------------------------------------------------------
async def nothing(rounds: int = 1) -> None:
    for _ in range(rounds):
        await exchange()


async def one_way(*sends: Send) -> None:
    await exchange(sends)


async def takes(*recvs: Recv) -> None:
    await exchange((), recvs)


OUT_OF_STEP: dict[str, tuple[Callable[[], list[Kernel[Any]]], str]] = {
    "fewer rounds": (lambda: [nothing(2), nothing(1)], r"the parties stopped for \[2, 1\] rounds"),
    "nothing comes": (lambda: [nothing(), takes(recv(0, op=5))], r"nobody can go on; .*\{1: \[\(0, 5\)\]\}"),
    "each waits": (lambda: [takes(recv(1)), takes(recv(0))], "nobody can go on"),
    "another op": (
        lambda: [one_way(send(1, 3, op=4)), takes(recv(0, op=5))],
        r"party 0 sent 1 int64\[1\] for op 4, number 0; due was int64\[1\] for op 5, number 0",
    ),
    "another length": (lambda: [one_way(send(1, 3, 4)), takes(recv(0))], r"int64\[2\] .* int64\[1\]"),
    "another type": (lambda: [one_way(send(1, 3)), takes(recv(0, dtype=np.uint64))], r"int64\[1\] .* uint64\[1\]"),
    "one too many": (lambda: [one_way(send(1, 3), send(1, 4)), takes(recv(0))], r"nobody took .* \[\(0, 1, False\)\]"),
    "not asked for": (lambda: [one_way(send(1, 3)), nothing()], r"nobody took .* \[\(0, 1, False\)\]"),
}


@pytest.mark.parametrize("how", OUT_OF_STEP)
def test_out_of_step(how: str) -> None:
    make, why = OUT_OF_STEP[how]
    with pytest.raises(OutOfStep, match=why):
        run(make())


def test_a_failure_closes_the_others() -> None:
    closed: list[int] = []

    async def waits(rank: int) -> None:
        try:
            await exchange((), [recv(0)])
        finally:
            closed.append(rank)

    async def fails() -> None:
        await exchange()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run([fails(), waits(1), waits(2)])
    assert closed == [1, 2]


def test_a_failure_at_once_closes_those_that_have_not_begun() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run([fails(), nothing(), nothing()])


# ---- graphs ----------------------------------------------------------------------------------------------------------
def table(frac: int = 18, owner: str = "alice", columns: tuple[str, ...] = ("u", "v")) -> Graph:
    b = Builder()
    kind = Type(Kind.ARITH, frac, (3, len(columns)))
    x = b.emit("input", type=kind, owner=owner, dataset="d", columns=columns)
    b.emit("reveal", b.emit("sign", x, lo=0), to=("analyst",), name="negative")
    b.emit("reveal", x, to=("analyst",), name="x")
    return b.graph()


X = np.array([[1.5, -2.0], [0.0, 4.25], [-0.5, 1e6]])


@pytest.mark.parametrize("protocol", ["cleartext", "masked"])
@pytest.mark.parametrize(
    "data", [X, X.tolist(), {"v": X[:, 1], "u": X[:, 0], "w": [7, 7, 7]}], ids=["array", "lists", "by column"]
)
def test_data_goes_in_and_outputs_come_out_as_numbers(protocol: str, data: Any) -> None:
    found = simulate(table(), {("alice", "d"): data}, protocol).outputs
    assert found["x"].tolist() == X.tolist()
    assert found["negative"].dtype == bool
    assert found["negative"].tolist() == (X < 0).tolist()


def test_one_column_may_be_a_vector() -> None:
    found = simulate(table(0, columns=("u",)), {("alice", "d"): np.array([1, -2, 3])}).outputs["x"]
    assert found.dtype == np.int64
    assert found.tolist() == [[1], [-2], [3]]


@pytest.mark.parametrize("wrong", [X.T, X[:2], X.reshape(-1)], ids=["turned", "short", "flat"])
def test_data_of_another_shape_is_refused(wrong: Any) -> None:
    with pytest.raises(AssertionError, match="not of the input's type"):
        simulate(table(), {("alice", "d"): wrong})


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(RangeError):
        simulate(table(), {("alice", "d"): X * 1e12})


def test_missing_data_is_missed() -> None:
    with pytest.raises(KeyError):
        simulate(table(), {})
    op = Op("input", (), {"owner": "alice", "dataset": "d", "columns": ("u",)}, Type(Kind.ARITH, 0, (1, 1)))
    assert SimulatedHooks({("alice", "d"): {"u": np.array([5])}}).read(op).tolist() == [[5]]


def test_masks_follow_from_the_seed() -> None:
    def messages(seed: bytes) -> list[bytes]:
        seen: list[bytes] = []

        def tap(m: Message) -> list[Message]:
            seen.append(m.array.tobytes())
            return [m]

        simulate(table(), {("alice", "d"): X}, "masked", seed=seed, tap=tap)
        return seen

    one, same, other = messages(b"1"), messages(b"1"), messages(b"2")
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_parties_are_helpers_then_owners_then_others() -> None:
    masked, cleartext = protocols.get("masked"), protocols.get("cleartext")
    assert parties(table(), masked, 2) == ["helper", "alice", "evaluator_2"]
    assert parties(table(owner="helper"), masked, 2) == ["helper", "evaluator_1", "evaluator_2"]
    assert parties(table(), cleartext, 1) == ["alice"]


def test_too_few_parties_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 evaluators"):
        simulate(table(), {("alice", "d"): X}, "masked", evaluators=1)
    with pytest.raises(ValueError, match="there is no protocol 'psychic'; there are cleartext, masked"):
        simulate(table(), {("alice", "d"): X}, "psychic")


def test_decoding_follows_the_type() -> None:
    raw = np.array([2**64 - 2, 3], np.uint64)
    assert decode(raw, Type(Kind.ARITH, 0, (2,))).tolist() == [-2, 3]
    assert decode(raw, Type(Kind.PUBLIC, 1, (2,))).tolist() == [-1.0, 1.5]
    assert decode(np.array([0, 1], np.uint8), Type(Kind.BIT, 0, (2,))).tolist() == [False, True]
