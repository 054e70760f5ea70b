"""The link between nodes, on streams whose other end is the test: frames, greetings, and who goes on with the run."""

import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread, current_thread
from typing import Any

import numpy as np
import pytest
from linking import due

from mpcnode import frames, grpc_links, outbox
from mpcnode.drive import Links, Traffic, drive
from mpcnode.errors import DataError, LinkError
from mpcnode.frames import Piece
from mpcnode.grpc_links import GrpcLink, check_hello
from mpcnode.links import Cause, Channel, Ended, Intake, Late
from mpcnode.outbox import Outbox
from mpcnode.rounds import Array, Recv, Send, deal, exchange
from mpcnode.wire import peer_pb2


class Wire:
    """A stream whose other end is this test, and the link on it: `say` sends the link a frame."""

    attendable = attended = False

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


class OpenWire(Wire):
    """Of a stream that any thread can wait for: its own does so only as long as nobody attends."""

    attendable = True

    def run(self, receive: Callable[[bytes], bool], over: Callable[[str], None], room: Callable[[], None]) -> None:
        self._receive = receive
        while True:
            if self.attended:
                time.sleep(0.001)
                continue
            try:
                frame = self._frames.get(timeout=0.01)
            except Empty:
                continue
            if isinstance(frame, str):
                return over(frame)
            receive(frame)

    def attend(self, patience_s: float) -> bool:
        try:
            frame = self._frames.get(timeout=patience_s)
        except Empty:
            return False
        assert isinstance(frame, bytes)
        self._receive(frame)
        return True


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


def test_a_still_array_may_change_once_it_is_flushed(wire: Wire) -> None:
    array = np.zeros(4, np.uint64)
    for turn in range(3):  # the first leaves at once, the others wait until it has left
        array[:] = turn
        wire.link.post(Channel.ROUND, turn, array, still=True)
        wire.link.flush()
        array[:] = 99
    sent = [frames.read(frame) for frame in wire.leave()]
    data = [bytes(piece.data) for frame in sent if isinstance(frame, list) for piece in frame]
    assert data == [np.full(4, turn, np.uint64).tobytes() for turn in range(3)]


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


def test_every_peer_hears_the_cause_though_another_thread_is_still_telling_them(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the stream ends before its last word, and the peer blames this side."""
    other, began, left = Wire(), Event(), Event()
    close = wire.link.close

    def slowly(why: Cause | None) -> None:
        if current_thread() is ender:
            began.set()
            assert left.wait(5)
        close(why)

    monkeypatch.setattr(wire.link, "close", slowly)
    with pytest.raises(Ended, match="over"), Links("a", str, 5.0) as links:
        links.add(1, wire.link)
        links.add(2, other.link)
        ender = Thread(target=links.end, args=[Cause("over", "c")])
        ender.start()
        assert began.wait(5)
        for each in (wire, other):
            each.hang_up()
        assert links.why is not None
        raise Ended(links.why)
    left.set()
    ender.join(5)
    for each in (wire, other):
        (last,) = map(frames.read, each.leave())
        assert not isinstance(last, list)
        assert (last.farewell.cause, last.farewell.peer) == ("over", "c")
        assert each.finished.is_set()


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
def run_on(wire: Wire, kernel: Any, deadline_s: float = 5.0) -> SimpleQueue[Any]:
    """Run a kernel over the wire's link, in a thread of its own; where its result, or the error's cause, will be."""
    outcome: SimpleQueue[Any] = SimpleQueue()

    def party() -> None:
        try:
            with Links("a", lambda number: f"%{number}", deadline_s) as links:
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


def test_who_computes_waits_where_any_thread_can() -> None:
    wire = OpenWire()
    outcome = run_on(wire, names())
    wire.say(HELLO)
    with pytest.raises(Empty):
        outcome.get(timeout=0.05)
    assert wire.attended
    wire.say(PART, peer_pb2.Frame(farewell=peer_pb2.Farewell()))
    assert outcome.get(timeout=5) == ["the attempt", "the attempt"]
    assert not wire.attended
    wire.hang_up()


def test_an_attended_link_keeps_the_deadline() -> None:
    wire = OpenWire()
    outcome = run_on(wire, names(), deadline_s=0.1)
    wire.say(HELLO)
    assert "nothing came for 0.1 s" in outcome.get(timeout=5).text
    wire.hang_up()


def test_who_waits_has_sent_everything(wire: Wire) -> None:
    """Also what it sent in a round in which nothing was due."""

    async def gives() -> None:
        await exchange([Send(1, np.zeros(4, np.uint64), 7)])
        await exchange([Send(1, np.zeros(4, np.uint64), 8)])
        await deal((), [due(9)])

    outcome = run_on(wire, gives(), deadline_s=2.0)
    wire.say(HELLO)
    until, sent = time.monotonic() + 1, set[int]()
    while sent != {7, 8}:
        assert time.monotonic() < until
        time.sleep(0.01)
        found = [frames.read(frame) for frame in wire.leave()]
        sent = {piece.op for frame in found if isinstance(frame, list) for piece in frame}
    wire.say(peer_pb2.Frame(farewell=peer_pb2.Farewell(cause="enough")))
    assert outcome.get(timeout=5) == Cause("enough")


def test_a_peer_that_deals_too_much_does_not_stop_the_clock() -> None:
    """The thread that attends would be the one to make room."""
    wire = OpenWire()
    wire.link.intake._most[Channel.DEAL] = 30
    outcome = run_on(wire, names(), deadline_s=0.2)
    wire.say(HELLO, *(frames.write([Piece(2, 7, number, 32, bytes(32))]) for number in range(3)))
    assert "nothing came for 0.2 s" in outcome.get(timeout=5).text
    wire.hang_up()


def test_an_error_on_the_way_reaches_who_started_it(wire: Wire) -> None:
    async def fails_later() -> None:
        await exchange((), [due(shape=(1,))])
        raise DataError("x.csv has changed")

    outcome = run_on(wire, fails_later())
    wire.say(HELLO, PART)
    assert outcome.get(timeout=5) == Cause("a: x.csv has changed", "", "%7")
