"""Kernels side by side share rounds, post in order, and are closed when something fails."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mpcnode.rounds import LEAVE_BYTES, Exchange, Inbox, Kernel, Lockstep, Recv, Send, When, deal, exchange, par, post

Log = list[str]


def send(label: int) -> Send:
    return Send(1, np.array([label]), label)


def recv(label: int) -> Recv:
    return Recv(1, np.dtype(np.int64), (1,), label)


def drive(kernel: Kernel[Any], answer: Callable[[Recv], Any] = lambda due: due.op) -> tuple[Any, list[Exchange]]:
    """Step a kernel to its end, answering with the number of the op; its result and all that it stopped for."""
    stops: list[Exchange] = []
    got: Inbox | None = None
    while True:
        try:
            stops.append(kernel.send(got))
        except StopIteration as stop:
            return stop.value, stops
        got = [answer(due) for due in stops[-1].recv]


def labels(what: Exchange) -> list[int]:
    return [s.op for s in what.send]


def shown(stops: list[Exchange]) -> list[tuple[str, list[int], list[int]]]:
    return [(what.when.name, labels(what), [due.op for due in what.recv]) for what in stops]


async def rounds(first: int, count: int) -> list[Any]:
    """`count` rounds, which send and expect the numbers first, first + 1, ..."""
    return [(await exchange([send(first + i)], [recv(first + i)]))[0] for i in range(count)]


@pytest.fixture(autouse=True)
def no_coroutine_is_forgotten() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(w.message) for w in caught] == []


# ---- one kernel ------------------------------------------------------------------------------------------------------
def test_one_awaitable_three_reasons_to_stop() -> None:
    async def kernel() -> list[Any]:
        await post([send(1)])
        dealt = await deal((), [recv(2)])
        await deal([send(3)])
        return [*dealt, *await exchange([send(4)], [recv(5)])]

    result, stops = drive(kernel())
    assert result == [2, 5]
    assert shown(stops) == [("POST", [1], []), ("DEAL", [], [2]), ("DEAL", [3], []), ("ROUND", [4], [5])]


def test_nothing_to_post_or_deal_is_no_stop_but_an_empty_round_is() -> None:
    async def kernel() -> None:
        await post([])
        assert await deal() == []
        assert await exchange() == []

    _, stops = drive(kernel())
    assert shown(stops) == [("ROUND", [], [])]


# ---- side by side ----------------------------------------------------------------------------------------------------
def test_par_shares_rounds_and_keeps_the_order() -> None:
    result, stops = drive(par(rounds(10, 1), rounds(20, 3), rounds(30, 2)))
    assert result == [[10], [20, 21, 22], [30, 31]]
    assert shown(stops) == [(what, n, n) for what, n in [("ROUND", [10, 20, 30]), ("ROUND", [21, 31]), ("ROUND", [22])]]


def test_what_is_large_leaves_before_the_round_ends() -> None:
    async def large(label: int, nbytes: int) -> None:
        await exchange([Send(1, np.zeros(nbytes, np.uint8), label)])

    _, stops = drive(par(rounds(10, 1), large(20, LEAVE_BYTES - 9), large(30, 1), large(40, 1), large(50, LEAVE_BYTES)))
    assert shown(stops) == [("POST", [10, 20, 30], []), ("POST", [40, 50], []), ("ROUND", [], [10])]


def test_par_of_par_is_one_round_too() -> None:
    async def nested(first: int) -> Any:
        return await par(rounds(first, 1), rounds(first + 1, 2))

    result, stops = drive(par(nested(10), rounds(20, 2), nested(30)))
    assert result == [[[10], [11, 12]], [20, 21], [[30], [31, 32]]]
    assert [labels(what) for what in stops] == [[10, 11, 20, 30, 31], [12, 21, 32]]
    assert [[due.op for due in what.recv] for what in stops if what.when is When.ROUND] == [
        [10, 11, 20, 30, 31],
        [12, 21, 32],
    ]


def test_par_of_nothing_and_of_the_finished() -> None:
    async def at_once(x: int) -> int:
        return x

    assert drive(par()) == ([], [])
    assert drive(par(at_once(1), at_once(2))) == ([1, 2], [])


def test_deals_take_no_round_and_do_not_wait_for_others() -> None:
    async def dealt(n: int) -> Any:
        return await deal((), [recv(n)])

    result, stops = drive(par(rounds(10, 1), dealt(1), dealt(2)))
    assert result == [[10], [1], [2]]
    assert [what.when.name for what in stops] == ["DEAL", "DEAL", "ROUND"]


def test_each_kernel_gets_what_it_waits_for() -> None:
    async def wants(*numbers: int) -> Any:
        return await exchange((), [recv(n) for n in numbers])

    result, _ = drive(par(wants(1, 2), wants(), wants(3)))
    assert result == [[1, 2], [], [3]]


def test_lockstep_gives_back_keys_in_order() -> None:
    async def kernel() -> list[int]:
        lockstep = Lockstep()
        assert len(lockstep) == 0
        for key in (7, 3, 5):
            assert await lockstep.add(key, rounds(key, 1)) is None
        assert len(lockstep) == 3
        found = []
        for key, resumed, got in await lockstep.turn():
            done = await lockstep.add(key, resumed, got)
            assert done is not None
            assert done.result == [key]
            found.append(key)
        return found

    assert drive(kernel())[0] == [7, 3, 5]


# ---- failures --------------------------------------------------------------------------------------------------------
async def watched(log: Log, name: str, first: int, count: int) -> Any:
    """`rounds` that say how they ended."""
    try:
        result = await rounds(first, count)
    except BaseException as error:
        log.append(f"{name} {type(error).__name__}")
        raise
    log.append(f"{name} done")
    return result


async def failing(after: int) -> None:
    for _ in range(after):
        await exchange()
    raise ValueError("broken")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_failure_closes_the_others(after: int) -> None:
    log: Log = []
    kernels = [watched(log, "first", 10, 3), failing(after), watched(log, "last", 20, 3)]
    with pytest.raises(ValueError, match="broken"):
        drive(par(*kernels))
    assert sorted(log) == ["first GeneratorExit"] + (["last GeneratorExit"] if after else [])


def test_what_the_driver_throws_closes_all() -> None:
    for stops in (1, 2):
        log: Log = []
        kernel = par(watched(log, "first", 10, 2), watched(log, "last", 20, 2))
        got: Inbox | None = None
        for _ in range(stops):
            what = kernel.send(got)
            got = [due.op for due in what.recv]
        with pytest.raises(ConnectionError):
            kernel.throw(ConnectionError())
        assert len(log) == 2


def test_closing_closes_all() -> None:
    log: Log = []
    kernel = par(watched(log, "first", 10, 2), watched(log, "last", 20, 2))
    kernel.send(None)
    kernel.close()
    assert sorted(log) == ["first GeneratorExit", "last GeneratorExit"]


def test_a_lockstep_whose_round_fails_still_closes_who_waits() -> None:
    log: Log = []

    async def kernel() -> None:
        lockstep = Lockstep()
        await lockstep.add(0, watched(log, "waiting", 10, 1))
        try:
            await lockstep.turn()
        finally:
            lockstep.close()
            log.append("closed")

    running = kernel()
    running.send(None)
    with pytest.raises(ConnectionError):
        running.throw(ConnectionError())
    assert log == ["waiting GeneratorExit", "closed"]
