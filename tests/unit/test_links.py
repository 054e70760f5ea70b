"""Links: what is posted is taken, in order and whole, or all parties end for one cause that names who and where."""

from collections.abc import Callable, Iterable
from threading import Event
from typing import Any

import numpy as np
import pytest
from linking import due

from mpcnode.drive import Links
from mpcnode.errors import DataError
from mpcnode.frames import Piece
from mpcnode.links import Cause, Channel, Ended, Intake, Late, MemoryLink, Misfit
from mpcnode.rounds import Array, Send, deal, exchange, post

Run = Callable[..., list[Any]]


# ---- what one peer sent ----------------------------------------------------------------------------------------------
WRONG = {
    "a lost array": ([Piece(1, 7, 1, 32, bytes(32))], "array 1 of its round channel, array 0 was due"),
    "another op": ([Piece(1, 8, 0, 32, bytes(32))], "an array for op 8, one for op 7 was due"),
    "too short": ([Piece(1, 7, 0, 12, bytes(12))], "12 bytes, 32 were due"),
    "too long": ([Piece(1, 7, 0, 40, bytes(40))], "40 bytes, 32 were due"),
    "more than it says": ([Piece(1, 7, 0, 32, bytes(33))], "a piece of 33 bytes when 32 were missing"),
    "a last piece too long": (
        [Piece(1, 7, 0, 32, bytes(30)), Piece(1, 7, 0, 32, bytes(3))],
        "a piece of 3 bytes when 2",
    ),
    "another array within": ([Piece(1, 7, 0, 32, bytes(30)), Piece(1, 7, 1, 32, bytes(2))], "array 1 of its round"),
    "a piece of nothing": ([Piece(1, 7, 0, 32, b"")], "a piece of 0 bytes when 32 were missing"),
}


@pytest.mark.parametrize(("pieces", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_is_not_due_is_refused(pieces: list[Piece], why: str) -> None:
    intake = Intake("b")
    for piece in pieces:
        intake.feed(piece)
    with pytest.raises(Misfit, match=f"it sent {why}"):
        intake.take(Channel.ROUND, due())


def test_a_channel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Misfit, match="channel 3"):
        Intake("b").feed(Piece(3, 7, 0, 1, b"x"))


def test_too_much_ahead_of_time_is_refused() -> None:
    intake = Intake("b", round_bytes=100)
    intake.feed(Piece(1, 7, 0, 60, bytes(60)))
    with pytest.raises(Misfit, match="120 bytes ahead of time"):
        intake.feed(Piece(1, 7, 1, 60, bytes(60)))


def test_an_array_in_pieces_is_put_together_across_impatience() -> None:
    intake, wanted = Intake("b"), np.arange(4, dtype=np.uint64)
    data = wanted.tobytes()
    intake.feed(Piece(1, 7, 0, 32, data[:5]))
    for _ in range(2):
        with pytest.raises(Late):
            intake.take(Channel.ROUND, due())
    intake.feed(Piece(1, 7, 0, 32, data[5:]))
    np.testing.assert_array_equal(intake.take(Channel.ROUND, due()), wanted)
    assert not intake.leftover()


def test_what_was_dealt_is_bounded() -> None:
    intake = Intake("helper", deal_bytes=100)
    for number in range(2):
        assert intake.room(0.0)
        intake.feed(Piece(2, 7, number, 64, bytes(64)))
    assert not intake.room(0.01)
    intake.take(Channel.DEAL, due(shape=(8,)))
    assert intake.room(0.0)


def test_the_end_comes_before_what_has_come() -> None:
    intake = Intake("b")
    intake.feed(Piece(1, 7, 0, 32, bytes(32)))
    intake.end(Cause("over"))
    with pytest.raises(Ended, match="over"):
        intake.take(Channel.ROUND, due())


def test_a_peer_that_is_done_has_its_last_words_heard() -> None:
    intake = Intake("b")
    intake.feed(Piece(1, 7, 0, 32, bytes(32)))
    intake.finish()
    intake.take(Channel.ROUND, due())
    for _ in range(2):
        with pytest.raises(Misfit, match="it finished without sending 32 bytes"):
            intake.take(Channel.ROUND, due())


# ---- a party's run ---------------------------------------------------------------------------------------------------
async def swap(peer: int, arrays: Iterable[Array], op: int = 7) -> list[Array]:
    """Exchange arrays with a peer, one a round."""
    return [(await exchange([Send(peer, a, op)], [due(op, a.shape, a.dtype, peer)]))[0] for a in arrays]


def test_arrays_of_every_form_arrive_as_they_were(run_together: Run) -> None:
    arrays: list[Array] = [
        np.arange(6, dtype=np.uint64).reshape(2, 3),
        np.arange(6, dtype=np.uint64).reshape(2, 3).T,
        np.arange(10, dtype=np.uint8)[::3],
        np.array(5, np.uint64),
        np.zeros((3, 0), np.uint64),
        np.broadcast_to(np.uint64(3), (4, 4)),
    ]
    told = run_together([swap(1, arrays), swap(0, arrays)])
    for got, sent in zip(told[0].result, arrays, strict=True):
        np.testing.assert_array_equal(got, sent)
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert got.flags.writeable and got.flags.owndata and got.flags.c_contiguous


async def reuse(peer: int) -> list[Array]:
    mine = np.ones(4, np.uint64)
    await post([Send(peer, mine, 7)])
    mine += 1  # the sender may go on to use what it has sent
    got = await exchange([Send(peer, mine, 8)], [due(7, peer=peer), due(8, peer=peer)])
    got[0] += 10  # and the receiver owns what it got
    return got


def test_nobody_shares_memory(run_together: Run) -> None:
    for told in run_together([reuse(1), reuse(0)]):
        np.testing.assert_array_equal(told.result, [[11] * 4, [2] * 4])


async def counted(peer: int) -> None:
    a = np.zeros(4, np.uint64)
    await post([Send(peer, a, 1)])
    await exchange([Send(peer, a, 2)], [due(1, peer=peer), due(2, peer=peer)])
    await exchange([Send(peer, a, 2)], [due(2, peer=peer)])
    await exchange()


def test_rounds_and_bytes_are_counted_by_op(run_together: Run) -> None:
    for rank, told in enumerate(run_together([counted(1), counted(0)])):
        assert told.ended is None
        assert told.traffic.rounds == 3
        assert told.traffic.sent_bytes == {1 - rank: 96}
        assert told.traffic.op_rounds == {1: 1, 2: 2}
        assert told.traffic.op_sent_bytes == {1: 32, 2: 64}


async def silent(*ranks: int) -> None:
    """Wait for whom nobody ever hears from."""
    await exchange([], [due(9, peer=rank) for rank in ranks])


def test_a_deadline_names_peer_and_op(run_together: Run) -> None:
    told = run_together([swap(1, [np.zeros(4)]), silent()], deadline_s=0.2)
    # b has returned, and waits for a to be done as well
    assert told[0].ended.why == told[1].ended.why
    assert told[0].ended.why == Cause(
        "a: the link to b failed at %7: it finished without sending 32 bytes that were due", "b", "%7"
    )


def stuck(until: Event) -> Any:
    """A party that computes for long, so that its peers see nothing of it."""

    async def kernel() -> None:
        until.wait(10)

    return kernel()


def test_the_one_who_keeps_all_waiting_is_blamed(run_together: Run) -> None:
    free = Event()

    async def b() -> None:
        try:
            await silent(2)
        finally:
            free.set()

    # a waits for b, b for c, and c for nobody
    told = run_together([silent(1), b(), stuck(free)], deadline_s=0.4)
    for one in told:
        assert one.ended.why.peer == "c"
        assert one.ended.why == told[0].ended.why
        assert "for 0.4 s" in one.ended.why.text


def test_who_waits_for_each_other_lost_a_message(run_together: Run) -> None:
    told = run_together([silent(1), silent(0)], deadline_s=0.2)
    assert told[0].ended.why == told[1].ended.why
    assert "it waits itself: a message was lost" in told[0].ended.why.text


def test_a_slow_peer_within_the_deadline_is_no_failure(run_together: Run) -> None:
    never = Event()

    async def slow() -> list[Array]:
        never.wait(0.3)
        return await swap(0, [np.ones(4, np.uint64)])

    told = run_together([swap(1, [np.ones(4, np.uint64)]), slow()], deadline_s=0.5)
    assert [one.ended for one in told] == [None, None]


def test_the_helper_stops_when_too_much_waits_and_goes_on_when_it_is_taken(run_together: Run) -> None:
    begin, array, most = Event(), np.arange(8, dtype=np.uint64), []

    async def helper() -> None:
        for number in range(50):
            if number == 4:  # four are more than 200 bytes, so this one has to wait
                begin.set()
            await deal([Send(1, array + np.uint64(number), number)])
            most.append(number)

    async def evaluator() -> list[Array]:
        begin.wait(5)
        ahead = len(most)
        assert ahead == 4
        return [(await deal([], [due(number, (8,), peer=0)]))[0] for number in range(50)]

    told = run_together([helper(), evaluator()], deal_bytes=200)
    np.testing.assert_array_equal(told[1].result, array + np.arange(50, dtype=np.uint64)[:, None])


def test_a_helper_whose_evaluator_takes_nothing_gives_up_in_time(run_together: Run) -> None:
    done = Event()

    async def helper() -> None:
        try:
            for number in range(50):
                await deal([Send(1, np.zeros(8, np.uint64), number)])
        finally:
            done.set()

    told = run_together([helper(), stuck(done)], deal_bytes=200, deadline_s=0.2)
    assert told[0].ended.why.text == "a: the link to b failed at %4: it takes in nothing for 0.2 s"
    assert told[1].ended.why == told[0].ended.why


async def fails(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("x.csv has changed"), "b: x.csv has changed"),
        (ValueError("secret 42"), "b failed at the start: ValueError"),
    ],
)
def test_a_failure_is_everybodys_and_tells_no_value(run_together: Run, error: Exception, text: str) -> None:
    told = run_together([silent(1), fails(error), silent(0, 1)], deadline_s=5.0)
    assert [one.ended.why.text for one in told] == [text] * 3
    assert told[1].ended.__cause__ is error


def test_what_nobody_took_is_noticed_at_the_end(run_together: Run) -> None:
    async def more() -> None:
        await exchange([Send(0, np.zeros(4, np.uint64), 7)])

    told = run_together([exchange(), more()])
    assert told[0].ended.why.text == "a: the link to b failed at the end: it sent more than was due"


def test_a_peer_in_step_that_never_says_goodbye_is_named(run_together: Run) -> None:
    done = Event()

    async def taker() -> None:
        try:
            await exchange((), [due()])
        finally:
            done.set()

    async def lingers() -> None:
        await exchange([Send(0, np.zeros(4, np.uint64), 7)])
        done.wait(5)  # the taker has all that it wants; this side is busy for longer than anybody waits
        assert not Event().wait(0.6)

    told = run_together([taker(), lingers()], deadline_s=0.2)
    assert told[0].ended.why.text == "a: the link to b failed at the end: it has not said that it is done for 0.2 s"
    assert told[1].ended.why == told[0].ended.why


def test_a_link_that_comes_after_the_end_is_told() -> None:
    links = Links("a", str, 1.0)
    links.end(Cause("over"))
    ends = MemoryLink.pair("a", "b")
    assert links.add(1, ends[0])
    assert not links.add(1, ends[0])
    with pytest.raises(Ended, match="over"):
        ends[1].intake.take(Channel.ROUND, due())
