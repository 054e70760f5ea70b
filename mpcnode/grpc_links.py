"""The link between two nodes: one bidirectional stream of peer.proto for each attempt.  The lower rank dials.

Frames come and go as bytes.  Two threads of a link's own: gRPC's, which asks the outbox for the next frame, and the
reader, which sorts what comes into the intake.  While too much that was dealt waits there the reader stops, so that
HTTP/2's flow control in turn stops the helper.

Each side's first frame is a Hello.  Whatever differs in them is a refusal, before anything is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Condition, Lock, Thread
from typing import cast

import grpc

from mpcnode import frames
from mpcnode.errors import LinkError
from mpcnode.frames import FrameError, Piece
from mpcnode.links import Cause, Channel, Intake, Late, Link, Misfit, as_bytes
from mpcnode.party import SEED_BYTES
from mpcnode.rounds import Array
from mpcnode.wire import peer_pb2

METHOD = "/mpc.Peer/Exchange"
POST_BYTES = 64 << 20  # written and not yet taken in by the peer: from there on `post` waits
BATCH_BYTES = 1 << 19  # of small arrays, before they leave without being told to
PIECE_BYTES = 64  # that a small array counts beyond its own
MAX_SMALL = 1 << 14  # bytes of a frame without arrays
MAX_CAUSE = 4096  # characters
CANCEL_S = 1.0  # for a stream that was cut to be gone


class Outbox:
    """Frames on their way out.  One thread puts them in, gRPC iterates.

    Small arrays go in as lists of pieces: those that wait together leave in one frame, since a frame costs far more
    than an array.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | list[Piece] | None] = SimpleQueue()
        self._bytes = 0
        self._sent = Condition()  # guards _bytes
        self._closed = False

    def put(self, item: bytes | list[Piece]) -> None:
        """Send a frame or small arrays, unless the outbox is closed."""
        if self._closed:
            return
        with self._sent:
            self._bytes += _size(item)
        self._queue.put(item)

    def room(self, patience_s: float) -> bool:
        """Wait until more may be put in; False if that takes longer."""
        with self._sent:
            return self._sent.wait_for(lambda: self._bytes < POST_BYTES or self._closed, patience_s)

    def drop(self) -> None:
        """Forget what has not left: it would only delay the last word."""
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass

    def close(self) -> None:
        """End the stream behind what is in already."""
        self._closed = True
        self._queue.put(None)
        with self._sent:
            self._sent.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        behind: deque[bytes | list[Piece] | None] = deque()  # what was found behind small arrays
        while (item := behind.popleft() if behind else self._queue.get()) is not None:
            if isinstance(item, list):
                item = self._gather(item, behind)
                yield frames.write(item)
            else:
                yield item
            with self._sent:  # gRPC asks for the next one once this one is within the peer's window
                self._bytes -= _size(item)
                self._sent.notify_all()

    def _gather(self, pieces: list[Piece], behind: deque[bytes | list[Piece] | None]) -> list[Piece]:
        """These small arrays and those that wait behind them, up to a frame full."""
        gathered, size = list(pieces), _size(pieces)
        while size < frames.MAX_DATA:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if not isinstance(item, list) or size + _size(item) > frames.MAX_DATA:
                behind.append(item)
                break
            gathered += item
            size += _size(item)
        return gathered


def _size(item: bytes | list[Piece]) -> int:
    return len(item) if isinstance(item, bytes) else sum(len(piece.data) + PIECE_BYTES for piece in item)


class GrpcLink(Link):
    """One end of a stream.  It reads from the start; `watch` says who is to know of what went wrong."""

    def __init__(self, peer: str, incoming: Iterable[bytes], outbox: Outbox, cancel: Callable[[], object]) -> None:
        super().__init__(Intake(peer))
        self.outbox, self._cancel = outbox, cancel
        self._incoming = incoming
        self._sent = dict.fromkeys(Channel, 0)
        self._batch: list[Piece] = []  # small arrays that wait for company
        self._batch_bytes = 0
        self._hello: SimpleQueue[peer_pb2.Hello | str] = SimpleQueue()
        self._lock = Lock()  # guards the three below
        self._ended: Callable[[Cause], None] | None = None
        self._broken: Callable[[str], None] | None = None
        self._missed: list[Cause | str] = []  # what happened before anybody watched
        self._closed = False
        self._reader = Thread(target=self._read, name=f"from {peer}", daemon=True)
        self._reader.start()

    # ---- sending ---------------------------------------------------------------------------------------------------
    def greet(self, hello: peer_pb2.Hello) -> None:
        """Send the first frame."""
        self.outbox.put(peer_pb2.Frame(hello=hello).SerializeToString())

    def post(self, channel: Channel, op: int, array: Array, patience_s: float) -> None:
        if not self.outbox.room(patience_s):
            raise Late
        data = as_bytes(array)
        number = self._sent[channel]
        self._sent[channel] += 1
        if len(data) >= frames.LARGE:
            self.flush()
            for piece in frames.cut(channel, op, number, data):
                self.outbox.put(frames.write([piece]))
            return
        self._batch.append(Piece(channel, op, number, len(data), bytes(data)))
        self._batch_bytes += len(data) + PIECE_BYTES
        if self._batch_bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._batch:
            self.outbox.put(self._batch)
            self._batch, self._batch_bytes = [], 0

    def say_waiting(self, whom: Cause) -> None:
        waiting = peer_pb2.Waiting(peer=whom.peer, where=whom.where[:MAX_CAUSE])
        self.outbox.put(peer_pb2.Frame(waiting=waiting).SerializeToString())

    def close(self, why: Cause | None) -> None:
        farewell = peer_pb2.Farewell()
        if why is not None:
            farewell = peer_pb2.Farewell(cause=why.text[:MAX_CAUSE], peer=why.peer, where=why.where[:MAX_CAUSE])
            self._closed = True
            self._hello.put(why.text)  # for who still waits for a greeting
            self.outbox.drop()
        self.outbox.put(peer_pb2.Frame(farewell=farewell).SerializeToString())
        if why is not None:  # else the stream stays up until the peer is done as well: a server's end would end both
            self.outbox.close()

    def join(self, timeout_s: float) -> None:
        self._closed = True
        self.outbox.close()
        self._reader.join(timeout_s)
        if self._reader.is_alive():  # the peer is stuck, or the last word cannot get through to it
            self._cancel()
            self._reader.join(CANCEL_S)

    # ---- receiving -------------------------------------------------------------------------------------------------
    def hello(self, timeout_s: float) -> peer_pb2.Hello:
        """The peer's first frame.  Raises LinkError if there is none in time."""
        try:
            first = self._hello.get(timeout=timeout_s)
        except Empty:
            raise LinkError(self.peer, "the start", f"it has not answered for {timeout_s:g} s") from None
        if isinstance(first, str):
            raise LinkError(self.peer, "the start", first)
        return first

    def watch(self, ended: Callable[[Cause], None], broken: Callable[[str], None]) -> None:
        with self._lock:
            self._ended, self._broken = ended, broken
            missed, self._missed = self._missed, []
        for event in missed:
            self._tell(event)

    def _tell(self, event: Cause | str) -> None:
        """Pass on an end of the attempt, or why the link broke."""
        with self._lock:
            if self._ended is None or self._broken is None:
                self._missed.append(event)
                return
        if isinstance(event, Cause):
            self._ended(event)
        else:
            self._broken(event)

    def _read(self) -> None:
        """Sort frames until the stream ends.  Runs in a thread of its own."""
        why = "it went away without a word"
        try:
            for number, frame in enumerate(self._incoming):
                if not self._sort(number, frames.read(frame)):
                    break
        except FrameError as error:
            why = f"it sent {error}"
        except Misfit as error:
            why = f"{error}"
        except grpc.RpcError as error:
            why = _explain(error)
        self._hello.put(why)
        if not self.intake.done.is_set() and not self._closed:
            self._tell(why)

    def _sort(self, number: int, frame: list[Piece] | peer_pb2.Frame) -> bool:
        """Handle one frame; False if the peer sends no more.  Raises FrameError and Misfit."""
        kind = "parts" if isinstance(frame, list) else frame.WhichOneof("body")
        if (number == 0) != (kind == "hello") and kind != "farewell":
            raise FrameError("a second greeting" if number else "something else than a greeting first")
        if isinstance(frame, list):
            for piece in frame:
                self._feed(piece)
        elif kind == "farewell":
            return self._farewell(frame.farewell)
        elif frame.ByteSize() > MAX_SMALL:
            raise FrameError(f"{frame.ByteSize()} bytes of {kind}")
        elif kind == "hello":
            self._hello.put(frame.hello)
        else:
            self.intake.excuse = Cause("", frame.waiting.peer, frame.waiting.where) if frame.waiting.peer else None
        return True

    def _feed(self, piece: Piece) -> None:
        while piece.channel == Channel.DEAL and not self.intake.room(1.0):
            if self._closed:
                return
        self.intake.feed(piece)

    def _farewell(self, farewell: peer_pb2.Farewell) -> bool:
        if farewell.cause:
            self._tell(Cause(farewell.cause[:MAX_CAUSE], farewell.peer, farewell.where[:MAX_CAUSE]))
            return False
        self.intake.finish()
        return True  # so that the stream is read to its end, and anything behind this is noticed


def dial(channel: grpc.Channel, peer: str, hello: peer_pb2.Hello) -> GrpcLink:
    """A link to `peer`, whose certificate the channel checks; it is not yet connected."""
    outbox = Outbox()
    # Bytes in and out: frames.py knows the layout.
    exchange: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
    call = exchange(iter(outbox), wait_for_ready=True)
    link = GrpcLink(peer, call, outbox, call.cancel)
    link.greet(hello)
    return link


def check_hello(mine: peer_pb2.Hello, theirs: peer_pb2.Hello, peer: str) -> None:
    """Raise LinkError if the two sides are not about to run the same attempt of the same program.

    peer: the name that the other side's certificate proves.
    """
    wrong = ""
    if theirs.party != peer:
        wrong = f"it calls itself {theirs.party[:64]!r}"
    elif (theirs.job, theirs.attempt) != (mine.job, mine.attempt):
        wrong = "it is at another job or attempt"
    elif theirs.cluster_digest != mine.cluster_digest:
        wrong = "it has another cluster.toml: give everybody the same file"
    elif theirs.protocol != mine.protocol:
        wrong = f"it was told to run another protocol than {mine.protocol}"
    elif theirs.graph_digest != mine.graph_digest:
        wrong = "it was given another program: do not trust the coordinator until it is clear why"
    elif len(theirs.seed) != SEED_BYTES:
        wrong = f"its seed has {len(theirs.seed)} bytes, not {SEED_BYTES}"
    elif theirs.seed == mine.seed:
        wrong = "it sent this side's own seed back"
    if wrong:
        raise LinkError(peer, "the start", wrong)


def _explain(error: grpc.RpcError) -> str:
    """Why a stream broke, without addresses of sockets."""
    call = cast(object, error)  # what a stub raises is a call as well, but the stubs' types have no word for that
    if not isinstance(call, grpc.Call):  # at the server's end there is no more to know
        return "the connection broke"
    code, details = call.code(), call.details() or ""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return "the connection broke"
        case grpc.StatusCode.CANCELLED:
            return "it cut the connection"
        case grpc.StatusCode.UNIMPLEMENTED:
            return "it does not know this call: it runs another version"
        case _:
            return f"it refused: {details[:MAX_CAUSE] or code.name}"
