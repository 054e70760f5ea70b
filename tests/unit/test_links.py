"""Links: what is posted is taken, in order and whole, or all parties end for one cause that names who and where."""

import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread, current_thread
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from mpcnode import frames, grpc_links, outbox
from mpcnode.drive import Links, Traffic, drive
from mpcnode.errors import DataError, LinkError
from mpcnode.frames import FrameError, Piece
from mpcnode.grpc_links import GrpcLink, check_hello
from mpcnode.links import Cause, Channel, Ended, Intake, Late, MemoryLink, Misfit
from mpcnode.outbox import Outbox
from mpcnode.rounds import Array, Recv, Send, deal, exchange, post
from mpcnode.wire import peer_pb2

Run = Callable[..., list[Any]]
U8, U64 = np.dtype(np.uint8), np.dtype(np.uint64)


def due(op: int = 7, shape: tuple[int, ...] = (4,), dtype: np.dtype[Any] = U64, peer: int = 1) -> Recv:
    return Recv(peer, dtype, shape, op)


# ---- frames ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 200, frames.LARGE - 20, frames.LARGE, 70_000, frames.MAX_DATA])
@pytest.mark.parametrize("numbers", [(1, 0, 0), (2, 300, 1 << 40), (1, (1 << 32) - 1, 127)])
def test_a_frame_is_what_protobuf_writes(size: int, numbers: tuple[int, int, int]) -> None:
    channel, op, sequence = numbers
    data = np.random.default_rng(1).bytes(size)
    piece = Piece(channel, op, sequence, size + 5, data)
    part = peer_pb2.Part(channel=channel, op=op, sequence=sequence, nbytes=size + 5, data=data)  # type: ignore[arg-type]
    written = frames.write([piece])
    assert written == peer_pb2.Frame(parts=peer_pb2.Parts(parts=[part])).SerializeToString()
    read = frames.read(written)
    assert isinstance(read, list)
    assert [p._replace(data=bytes(p.data)) for p in read] == [piece]


@pytest.mark.parametrize("count", [5, 5000])  # read by protobuf, and by hand
def test_many_small_arrays_share_a_frame(count: int) -> None:
    pieces = [Piece(1, op, op, 3, b"abc") for op in range(count)]
    written = frames.write(pieces)
    parts = [peer_pb2.Part(channel=1, op=op, sequence=op, nbytes=3, data=b"abc") for op in range(count)]  # type: ignore[arg-type]
    assert written == peer_pb2.Frame(parts=peer_pb2.Parts(parts=parts)).SerializeToString()
    read = frames.read(written)
    assert isinstance(read, list)
    assert [p._replace(data=bytes(p.data)) for p in read] == pieces


def test_an_array_is_cut_into_pieces() -> None:
    data = bytes(2 * frames.MAX_DATA + 1)
    cut = list(frames.cut(1, 2, 3, data))
    assert [len(piece.data) for piece in cut] == [frames.MAX_DATA, frames.MAX_DATA, 1]
    assert {piece.nbytes for piece in cut} == {len(data)}
    assert [len(piece.data) for piece in frames.cut(1, 2, 3, b"")] == [0]


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(FrameError, match="are the most"):
        frames.read(bytes(frames.MAX_FRAME + 1))
    with pytest.raises(FrameError, match="this version does not know"):
        frames.read(b"")
    with pytest.raises(FrameError, match="no frame"):
        frames.read(b"\xff" * 40_000)


def test_a_large_frame_with_any_byte_changed_reads_as_protobuf_reads_it() -> None:
    whole = frames.write(
        [Piece(1, 7, 9, 20_000, bytes(range(250)) * 80), Piece(2, 300, 0, 0, b""), Piece(1, 7, 10, 3, b"abc")]
    )
    for at in (*range(24), *range(len(whole) - 22, len(whole))):
        for bit in range(8):
            spoilt = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            try:
                known: Any = peer_pb2.Frame.FromString(spoilt)
            except DecodeError:
                known = None
            try:
                read: Any = frames.read(spoilt)
            except FrameError:
                read = None
            if isinstance(read, list):
                assert known is not None
                parts = [(p.channel, p.op, p.sequence, p.nbytes, p.data) for p in known.parts.parts]
                assert [(*p[:4], bytes(p.data)) for p in read] == parts
            else:
                assert read == known or known.WhichOneof("body") is None


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


# ---- the link of gRPC, on streams of our own -------------------------------------------------------------------------
class Wire:
    """A stream whose other end is this test, and the link on it: `say` sends the link a frame."""

    def __init__(self) -> None:
        self._frames: SimpleQueue[bytes | str] = SimpleQueue()
        self.why: SimpleQueue[Cause | str] = SimpleQueue()
        self.cancelled = Event()
        self.written: list[bytes] = []
        self.finished = Event()
        self.outbox = Outbox(self.written.append, self.finished.set)
        self.link = GrpcLink("b", self)  # type: ignore[arg-type]  # what a link needs of a stream

    def run(self, receive: Callable[[bytes], bool], over: Callable[[str], None], room: Callable[[], None]) -> None:
        reading = True
        while isinstance(frame := self._frames.get(timeout=5), bytes):
            reading = reading and receive(frame)
        if reading:
            over(frame)

    def cancel(self) -> None:
        self.cancelled.set()
        self._frames.put("")

    def watch(self) -> None:
        self.link.watch(self.why.put, self.why.put, lambda may_run: None)

    def say(self, *said: bytes | peer_pb2.Frame) -> None:
        for frame in said:
            self._frames.put(frame if isinstance(frame, bytes) else frame.SerializeToString())

    def hang_up(self, why: str = "") -> None:
        self._frames.put(why)

    def leave(self) -> list[bytes]:
        """Let everything leave; all that has left."""
        while self.outbox._writing:
            self.outbox.sent()
        return self.written


def soon(intake: Intake, channel: Channel, due: Recv) -> Array:
    """Wait for an array."""
    until = time.monotonic() + 5
    while True:
        try:
            return intake.take(channel, due)
        except Late:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.hang_up()
    made.link.join(1.0)


HELLO = peer_pb2.Frame(hello=peer_pb2.Hello(job="j", attempt=1, party="b"))
PART = frames.write([Piece(1, 7, 0, 8, bytes(8))])
LATER = bytes([0x9A, 0x06, 1, 0])
BAD: dict[str, tuple[list[bytes | peer_pb2.Frame], str]] = {
    "no greeting": ([PART], "it sent something else than a greeting first"),
    "a long greeting": ([peer_pb2.Frame(hello=peer_pb2.Hello(job="j" * 20_000))], "bytes of hello"),
    "a second greeting": ([HELLO, HELLO], "it sent a second greeting"),
    "garbage": ([HELLO, b"\xff\xff\xff"], "it sent 3 bytes that are no frame"),
    "nothing": ([HELLO, b""], "it sent a frame of a kind"),
    "a later version": ([HELLO, LATER], "it sent a frame of a kind"),
    "too large": ([HELLO, bytes(frames.MAX_FRAME + 1)], "are the most"),
    "another channel": ([HELLO, frames.write([Piece(0, 7, 0, 8, bytes(8))])], "it sent an array for channel 0"),
}


@pytest.mark.parametrize(("said", "why"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("watched", ["before", "after"])
def test_a_frame_against_the_rules_breaks_the_link(
    wire: Wire, said: list[bytes | peer_pb2.Frame], why: str, watched: str
) -> None:
    if watched == "before":
        wire.watch()
    wire.say(*said)
    if watched == "after":
        wire.hang_up()
        wire.link._reader.join(5)
        wire.watch()
    assert why in str(wire.why.get(timeout=5))


def test_a_farewell_with_a_cause_ends_the_attempt(wire: Wire) -> None:
    wire.watch()
    wire.say(HELLO, peer_pb2.Frame(farewell=peer_pb2.Farewell(cause="over", peer="c", where="%7")))
    assert wire.why.get(timeout=5) == Cause("over", "c", "%7")


def test_a_peer_that_is_done_may_hang_up_and_others_may_not(wire: Wire) -> None:
    wire.watch()
    wire.say(HELLO, peer_pb2.Frame(farewell=peer_pb2.Farewell()))
    wire.hang_up()
    wire.link._reader.join(5)
    assert wire.link.intake.done.is_set()
    assert wire.why.empty()
    other = Wire()
    other.watch()
    other.say(HELLO)
    other.hang_up()
    assert other.why.get(timeout=5) == "it went away without a word"


def test_who_waits_says_so(wire: Wire) -> None:
    wire.say(HELLO, peer_pb2.Frame(waiting=peer_pb2.Waiting(peer="c", where="%7")), PART)
    soon(wire.link.intake, Channel.ROUND, due(shape=(1,)))
    assert wire.link.intake.excuse == Cause("", "c", "%7")
    wire.say(peer_pb2.Frame(waiting=peer_pb2.Waiting()), frames.write([Piece(1, 7, 1, 8, bytes(8))]))
    soon(wire.link.intake, Channel.ROUND, due(shape=(1,)))
    assert wire.link.intake.excuse is None


def test_small_arrays_leave_together_and_large_ones_in_pieces(wire: Wire) -> None:
    for op in range(3):
        wire.link.post(Channel.ROUND, op, np.zeros(4, np.uint64))
    big = np.arange(3 * frames.MAX_DATA // 16, dtype=np.uint64)
    wire.link.post(Channel.DEAL, 3, big)
    wire.link.post(Channel.ROUND, 4, np.zeros(0, np.uint64))
    first = frames.read(wire.written[0])
    assert isinstance(first, list) and [piece.op for piece in first] == [0, 1, 2]
    wire.link.close(Cause("over"))  # drops what has not left
    sent = [frames.read(frame) for frame in wire.leave()[1:]]
    assert [frame.farewell.cause for frame in sent if not isinstance(frame, list)] == ["over"]
    assert len(sent) == 1
    assert wire.finished.is_set()


def test_what_is_posted_can_be_taken_at_the_other_end() -> None:
    here, there = Wire(), Wire()
    big = np.arange(3 * frames.MAX_DATA // 16, dtype=np.uint64)
    arrays: list[Array] = [np.zeros(4, np.uint64), big, np.zeros(0, np.uint8), np.ones((2, 3), np.uint8)]
    there.say(HELLO)
    for op, array in enumerate(arrays):
        here.link.post(Channel.DEAL, op, array)
    here.link.flush()
    there.say(*here.leave())
    for op, array in enumerate(arrays):
        got = soon(there.link.intake, Channel.DEAL, due(op, array.shape, array.dtype))
        np.testing.assert_array_equal(got, array)
    here.hang_up()
    there.hang_up()


def test_small_arrays_that_wait_together_leave_together(wire: Wire) -> None:
    for op in range(4):
        wire.link.post(Channel.ROUND, op, np.zeros(4, np.uint64))
        wire.link.flush()  # the first one leaves at once, the others wait for it
    sent = [frames.read(frame) for frame in wire.leave()]
    assert [[piece.op for piece in frame] for frame in sent if isinstance(frame, list)] == [[0], [1, 2, 3]]


def test_posting_waits_for_a_peer_that_takes_in_nothing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "POST_BYTES", 50_000)
    large = np.zeros(grpc_links.ALONE_BYTES, np.uint8)
    wire.link.post(Channel.ROUND, 1, large)
    for _ in range(2):
        with pytest.raises(Late):
            wire.link.post(Channel.ROUND, 2, large)
    assert wire.outbox.sent()  # makes room
    wire.link.post(Channel.ROUND, 2, large)


def test_a_stream_that_broke_writes_nothing_more(wire: Wire) -> None:
    wire.link.post(Channel.ROUND, 1, np.zeros(4, np.uint64))
    wire.link.flush()
    wire.outbox.fail()
    wire.link.post(Channel.ROUND, 1, np.zeros(4, np.uint64))
    wire.link.flush()
    wire.outbox.close()
    assert len(wire.written) == 1
    assert not wire.finished.is_set()


def test_the_reader_stops_while_too_much_was_dealt(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.link.intake._most[Channel.DEAL] = 30
    wire.say(HELLO, *(frames.write([Piece(2, 7, number, 32, bytes(32))]) for number in range(3)))
    for _ in range(3):
        soon(wire.link.intake, Channel.DEAL, due())


def test_a_stream_that_does_not_end_is_cut(wire: Wire) -> None:
    started = time.monotonic()
    wire.link.close(Cause("over"))
    wire.link.join(0.05)
    assert wire.cancelled.is_set()
    assert not wire.link._reader.is_alive()
    assert time.monotonic() - started < 2


def test_a_peer_that_never_greets_is_named(wire: Wire) -> None:
    with pytest.raises(LinkError, match=r"the link to b failed at the start: it has not answered for 0\.01 s"):
        wire.link.hello(0.01)


MINE = peer_pb2.Hello(
    job="j", attempt=1, party="a", graph_digest=b"g", protocol="masked", cluster_digest=b"c", seed=b"0" * 32
)
THEIRS = peer_pb2.Hello(
    job="j", attempt=1, party="b", graph_digest=b"g", protocol="masked", cluster_digest=b"c", seed=b"1" * 32
)
DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"party": "c"}, "it calls itself 'c'"),
    "job": ({"job": "k"}, "another job or attempt"),
    "attempt": ({"attempt": 2}, "another job or attempt"),
    "program": ({"graph_digest": b"h"}, "it was given another program"),
    "protocol": ({"protocol": "cleartext"}, "another protocol"),
    "cluster": ({"cluster_digest": b"d"}, "another cluster.toml"),
    "short seed": ({"seed": b"1"}, "its seed has 1 bytes"),
    "reflected seed": ({"seed": b"0" * 32}, "own seed back"),
}


@pytest.mark.parametrize(("change", "why"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_greetings_that_differ_are_refused(change: dict[str, Any], why: str) -> None:
    check_hello(MINE, THEIRS, "b")
    theirs = peer_pb2.Hello()
    theirs.CopyFrom(THEIRS)
    for field, value in change.items():
        setattr(theirs, field, value)
    with pytest.raises(LinkError, match=why):
        check_hello(MINE, theirs, "b")


# ---- who goes on with the computation --------------------------------------------------------------------------------
def run_on(wire: Wire, kernel: Any) -> SimpleQueue[Any]:
    """Run a kernel over the wire's link, in a thread of its own; where its result, or the error's cause, will be."""
    outcome: SimpleQueue[Any] = SimpleQueue()

    def party() -> None:
        try:
            with Links("a", lambda number: f"%{number}", 5.0) as links:
                links.add(1, wire.link)
                outcome.put(drive(kernel, links, Traffic()))
        except Ended as ended:
            outcome.put(ended.why)

    Thread(target=party, name="the attempt", daemon=True).start()
    return outcome


async def names() -> list[str]:
    """The threads that run a kernel before and after it waited."""
    before = current_thread().name
    await exchange((), [due(shape=(1,))])
    return [before, current_thread().name]


def test_the_thread_that_brings_what_is_missing_goes_on(wire: Wire) -> None:
    outcome = run_on(wire, names())
    wire.say(HELLO)
    with pytest.raises(Empty):
        outcome.get(timeout=0.05)
    wire.say(PART, peer_pb2.Frame(farewell=peer_pb2.Farewell()))
    assert outcome.get(timeout=5) == ["the attempt", "from b"]


def test_an_error_on_the_way_reaches_who_started_it(wire: Wire) -> None:
    async def fails_later() -> None:
        await exchange((), [due(shape=(1,))])
        raise DataError("x.csv has changed")

    outcome = run_on(wire, fails_later())
    wire.say(HELLO, PART)
    assert outcome.get(timeout=5) == Cause("a: x.csv has changed", "", "%7")
