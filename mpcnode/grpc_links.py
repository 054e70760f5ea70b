"""The link between two nodes: one bidirectional stream of peer.proto for each attempt.  The lower rank dials.

Frames come and go as bytes.  A thread of the link's own drives the stream and sorts what comes into the intake; when
that was what the computation waits for, it goes on with the computation itself (see drive.py).  While too much that
was dealt waits in the intake the thread stops, so that HTTP/2's flow control in turn stops the helper.

Each side's first frame is a Hello.  Whatever differs in them is a refusal, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import grpc

from mpcnode import frames
from mpcnode.errors import LinkError
from mpcnode.frames import FrameError, Piece
from mpcnode.links import Cause, Channel, Intake, Late, Link, Misfit, News
from mpcnode.outbox import PIECE_BYTES
from mpcnode.party import SEED_BYTES
from mpcnode.rounds import Array, as_bytes
from mpcnode.streams import ClientStream, Stream
from mpcnode.wire import peer_pb2

METHOD = "/mpc.Peer/Exchange"
ALONE_BYTES = 1 << 18  # an array of this size leaves at once, in frames of its own
BATCH_BYTES = 1 << 19  # of small arrays, before they leave without being told to
MAX_SMALL = 1 << 14  # bytes of a frame without arrays
MAX_CAUSE = 4096  # characters
CANCEL_S = 1.0  # for a stream that was cut to be gone
_DEAL = int(Channel.DEAL)


class GrpcLink(Link):
    """One end of a stream.  It reads from the start; `watch` says who is to know of what came and what went wrong."""

    def __init__(self, peer: str, stream: Stream) -> None:
        super().__init__(Intake(peer))
        self.outbox, self._stream, self.attendable = stream.outbox, stream, stream.attendable
        self._sent = dict.fromkeys(Channel, 0)
        self._batch: list[Piece] = []  # small arrays that wait for company
        self._batch_bytes = 0
        self._hello: SimpleQueue[peer_pb2.Hello | str] = SimpleQueue()
        self._lock = Lock()  # guards the three below
        self._ended: Callable[[Cause], None] | None = None
        self._broken: Callable[[str], None] | None = None
        self._news: News = lambda may_run: None
        self._frames = 0  # that came
        self._missed: list[Cause | str] = []  # what happened before anybody watched
        self._closed = False
        self._attending = False  # some thread is in `attend`
        self._reader = Thread(target=self._read, name=f"from {peer}", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """The stream is still open."""
        return self._reader.is_alive()

    # ---- sending ---------------------------------------------------------------------------------------------------
    def greet(self, hello: peer_pb2.Hello) -> None:
        """Send the first frame."""
        self.outbox.put(peer_pb2.Frame(hello=hello).SerializeToString())

    def post(self, channel: Channel, op: int, array: Array, still: bool = False) -> None:
        if not self.outbox.room():
            raise Late
        number, nbytes = self._sent[channel], array.nbytes
        self._sent[channel] += 1
        if nbytes >= ALONE_BYTES:
            self.flush()
            for piece in frames.cut(channel, op, number, as_bytes(array)):
                self.outbox.put(frames.write([piece]))
            if self.attendable:
                self._stream.attend(0.0)
            return
        data = as_bytes(array) if still else array.tobytes()
        self._batch.append(Piece(channel, op, number, nbytes, data))
        self._batch_bytes += nbytes + PIECE_BYTES
        if self._batch_bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._batch:
            self.outbox.put(self._batch)
            self._batch, self._batch_bytes = [], 0
            if self.attendable and self.outbox.waiting:
                self._stream.attend(0.0)  # what is under way may have left, and with this the next one does

    def be_attended(self, attended: bool) -> None:
        self._stream.attended = attended

    def attend(self, patience_s: float) -> bool:
        """Never waits longer for room than that: the thread that attends may be the one that makes it."""
        if not self.intake.room(patience_s):
            return False
        self._attending = True
        try:
            return self._stream.attend(patience_s)
        finally:
            self._attending = False

    def say_waiting(self, whom: Cause) -> None:
        waiting = peer_pb2.Waiting(peer=whom.peer, where=whom.where[:MAX_CAUSE])
        self.outbox.put(peer_pb2.Frame(waiting=waiting).SerializeToString())

    def close(self, why: Cause | None) -> None:
        if why is None:  # the stream stays up until the peer is done as well: a server's end would end both
            self.outbox.put(peer_pb2.Frame(farewell=peer_pb2.Farewell()).SerializeToString())
            return
        self._closed = True
        self._hello.put(why.text)  # for who still waits for a greeting
        farewell = peer_pb2.Farewell(cause=why.text[:MAX_CAUSE], peer=why.peer, where=why.where[:MAX_CAUSE])
        self.outbox.end(peer_pb2.Frame(farewell=farewell).SerializeToString())

    def join(self, timeout_s: float) -> None:
        self._closed = True
        self.outbox.close()
        self._reader.join(timeout_s)
        if self._reader.is_alive():  # the peer is stuck, or the last word cannot get through to it
            self._stream.cancel()
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

    def watch(self, ended: Callable[[Cause], None], broken: Callable[[str], None], news: News) -> None:
        with self._lock:
            self._ended, self._broken, self._news = ended, broken, news
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
        """Drive the stream to its end.  Runs in a thread of its own."""
        self._stream.run(self._receive, self._over, lambda: self._news(True))

    def _receive(self, frame: bytes) -> bool:
        """Handle a frame; False if no more are wanted."""
        number, self._frames = self._frames, self._frames + 1
        try:
            wanted = self._sort(number, frames.read(frame))
        except FrameError as error:
            self._over(f"it sent {error}")
            return False
        except Misfit as error:
            self._over(f"{error}")
            return False
        self._news(True)
        return wanted

    def _over(self, why: str) -> None:
        """Nothing more is read."""
        why = why[:MAX_CAUSE] or "it went away without a word"
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
        while piece.channel == _DEAL and not self._attending and not self.intake.room(1.0):
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
    link = GrpcLink(peer, ClientStream(channel, METHOD))
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
