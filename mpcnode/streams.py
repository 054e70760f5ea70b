"""A bidirectional gRPC stream of frames, each end driven by one thread.

grpcio's public API hands every message through three or four threads; under one interpreter lock that costs several
times what gRPC itself does.  So a stream is driven here on the layer that the public API is built on, `cygrpc`: one
thread waits in gRPC's completion queue, without the lock, and whoever sends begins the write on the spot.  What is
used of that layer is what grpcio's own `_channel.py` and `_server.py` use of it, and all of it stands in this file;
pyproject.toml admits the versions of grpcio that it was tested with.

    Stream         either end
    ClientStream   the end that dialled
    ServerStream   the end that was dialled, as a `Listener` accepts it
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Lock, RLock
from typing import Any, ClassVar, cast

import grpc
from grpc import _common
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from mpcnode.outbox import Outbox

POLL_S = 1.0  # events come at once all the same
REASON_S = 0.2  # for the reason of an end to follow it
IDLE_S = 0.1  # that a server's thread waits before it looks whether there are streams
REST_S = 0.03  # between two looks of a thread that lets another one wait
GLANCE_S = 0.001  # for what is on its way to a thread that nobody waits for
FLAGS = 0
OK = 0  # GRPC_CALL_OK
WAIT_FOR_READY = 1 << 5  # GRPC_INITIAL_METADATA_WAIT_FOR_READY


# One entry for each thread of this process that waits in gRPC for a stream.  A list, since putting an entry in and
# taking one out need no lock.
_waiting: list[None] = []


class _Attended:
    """How many streams are attended to.  Any thread may call anything."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._streams = 0
        self.none = Event()
        self.none.set()

    def add(self, streams: int) -> None:
        with self._lock:
            self._streams += streams
            (self.none.clear if self._streams else self.none.set)()


_attended = _Attended()


class Stream(ABC):
    """One end.  `run` is the work of its thread; any thread may write to `outbox`, `attend` and `cancel`.

    Operations of gRPC that are under way have tags: "frame" receives one, "sent" sends one, "end" waits for the other
    end's, "hello" and "bye" begin and end this one.
    """

    attendable: ClassVar[bool]

    def __init__(self) -> None:
        self.outbox = Outbox(self._write, self._finish)
        self._unattended = Event()
        self._unattended.set()
        self._lock = Lock()  # guards _under_way
        self._under_way = 0  # operations
        self._turning = RLock()  # held by who waits for an event and handles it; guards all below
        self._over = self._told = False  # the peer sends nothing more; and who runs this knows
        self._why: str | None = None  # there is nothing more to learn about that
        self._told_by = 0.0  # without a reason, if there is none by then; of time.monotonic()
        self._reading = True
        self._receive: Callable[[bytes], bool]
        self._tell: Callable[[str], None]
        self._room: Callable[[], None]

    def run(self, receive: Callable[[bytes], bool], over: Callable[[str], None], room: Callable[[], None]) -> None:
        """Hand every frame to `receive`, as long as that returns True, and call `over` once when no more come, with the
        reason, or "" if the peer just ended.  Goes on until all has left that is put into the outbox, and that is
        closed.  `room` is called when the outbox, which was full, has room again.

        All three are called in whichever thread is here or in `attend`, one at a time.
        """
        self._receive, self._tell, self._room = receive, over, room
        while self._under_way:
            self._watch()
        self.outbox.fail()

    @property
    def attended(self) -> bool:
        """Somebody attends to this whenever there is nothing else to do: let them wait."""
        return not self._unattended.is_set()

    @attended.setter
    def attended(self, attended: bool) -> None:
        if attended != self.attended:
            _attended.add(1 if attended else -1)
            (self._unattended.clear if attended else self._unattended.set)()

    @abstractmethod
    def _watch(self) -> None:
        """Handle what comes, for a while."""

    @abstractmethod
    def attend(self, patience_s: float) -> bool:
        """Wait for something to come, or to have left, and handle it in this thread; False if nothing did.  Of an end
        that is `attendable`.
        """

    def _turn(self, patience_s: float) -> bool:
        """Wait for the end of one operation and handle it; False if that takes longer."""
        _waiting.append(None)
        try:
            event = self._next(min(patience_s, REASON_S) if self._over and not self._told else patience_s)
        finally:
            _waiting.pop()
        if event is not None:
            with self._lock:
                self._under_way -= 1
            self._handle(event)
        late = event is None and time.monotonic() >= self._told_by
        if self._over and not self._told and (late or self._why is not None):
            self._told = True
            if self._reading:
                self._tell(self._why or "")
        return event is not None

    def _handle(self, event: Any) -> None:
        if event.tag == "frame":
            frame = event.batch_operations[0].message() if event.success else None
            if frame is None:
                self._over, self._told_by = True, time.monotonic() + REASON_S
            else:
                self._begin("frame", cygrpc.ReceiveMessageOperation(FLAGS))
                self._reading = self._reading and self._receive(frame)
        elif event.tag == "sent":
            if not event.success:
                self.outbox.fail()
            elif self.outbox.sent():
                self._room()
        elif event.tag == "end":
            self._over, self._why = True, self._reason(event)

    def _begin(self, tag: str, operation: Any) -> None:
        """Start an operation.  It counts once it has begun: whoever waited for one that the call, being over, refuses
        would ask gRPC for an event that never comes.
        """
        with self._lock:
            if self._operate(tag, operation):
                self._under_way += 1

    def _write(self, frame: bytes) -> None:
        self._begin("sent", cygrpc.SendMessageOperation(frame, FLAGS))

    @abstractmethod
    def cancel(self) -> None:
        """Cut the stream, whatever is under way."""

    @abstractmethod
    def _finish(self) -> None:
        """Say that this end sends nothing more."""

    @abstractmethod
    def _operate(self, tag: str, operation: Any) -> bool:
        """Start an operation; False if the call is over."""

    @abstractmethod
    def _next(self, patience_s: float) -> Any:
        """Wait for the end of an operation; None if that takes longer."""

    @abstractmethod
    def _reason(self, event: Any) -> str:
        """Why the other end is over; empty if it just ended."""


class ClientStream(Stream):
    """The end that dialled; it waits for the other end to be there."""

    attendable = False  # gRPC's wait for a client's events knows no deadline

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        super().__init__()
        begin = (
            ((cygrpc.SendInitialMetadataOperation(None, WAIT_FOR_READY),), "hello"),
            ((cygrpc.ReceiveStatusOnClientOperation(FLAGS),), "end"),
            ((cygrpc.ReceiveInitialMetadataOperation(FLAGS),), "metadata"),
            ((cygrpc.ReceiveMessageOperation(FLAGS),), "frame"),
        )
        self._under_way = len(begin)
        defaults = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
        inner = cast(Any, channel)._channel
        self._call = inner.segregated_call(defaults, method.encode(), None, None, None, None, begin, None)

    def cancel(self) -> None:
        self._call.cancel(_common.STATUS_CODE_TO_CYGRPC_STATUS_CODE[grpc.StatusCode.CANCELLED], "cut")

    def _finish(self) -> None:
        self._begin("bye", cygrpc.SendCloseFromClientOperation(FLAGS))

    def _operate(self, tag: str, operation: Any) -> bool:
        return self._why is None and bool(self._call.operate((operation,), tag))

    def _watch(self) -> None:
        with self._turning:
            self._turn(POLL_S)

    def attend(self, patience_s: float) -> bool:
        return False

    def _next(self, patience_s: float) -> Any:
        return self._call.next_event()  # "end" comes in any case

    def _reason(self, event: Any) -> str:
        status = event.batch_operations[0]
        code = _common.CYGRPC_STATUS_CODE_TO_STATUS_CODE.get(status.code(), grpc.StatusCode.UNKNOWN)
        match code:
            case grpc.StatusCode.OK:
                return ""
            case grpc.StatusCode.UNAVAILABLE:
                return "the connection broke"
            case grpc.StatusCode.CANCELLED:
                return "it cut the connection"
            case grpc.StatusCode.UNIMPLEMENTED:
                return "it does not know this call: it runs another version"
            case _:
                return f"it refused: {_common.decode(status.details()) or code.name}"


class ServerStream(Stream):
    """The end that was dialled."""

    attendable = True

    def __init__(self, call: Any, queue: Any) -> None:
        super().__init__()
        self._call, self._queue = call, queue
        self._status = cygrpc.StatusCode.ok, b""
        self._last = 0.0  # when a thread attended last, of time.monotonic()
        self._begin("hello", cygrpc.SendInitialMetadataOperation(None, FLAGS))
        self._begin("end", cygrpc.ReceiveCloseOnServerOperation(FLAGS))
        self._begin("frame", cygrpc.ReceiveMessageOperation(FLAGS))

    def auth(self) -> Mapping[str, Sequence[bytes]]:
        """What is known of the other end, as of grpc.ServicerContext.auth_context."""
        known = cygrpc.auth_context(self._call) or {}
        return {_common.decode(key): value for key, value in known.items()}

    def refuse(self, code: grpc.StatusCode, sentence: str) -> None:
        """The status with which the stream ends, once the outbox is closed."""
        self._status = _common.STATUS_CODE_TO_CYGRPC_STATUS_CODE[code], sentence.encode()

    def cancel(self) -> None:
        self._call.cancel()

    def _finish(self) -> None:
        self._begin("bye", cygrpc.SendStatusFromServerOperation(None, *self._status, FLAGS))

    def _watch(self) -> None:
        if not self.attended:
            with self._turning:
                self._turn(POLL_S)
            return
        if time.monotonic() > self._last + REST_S and self._turning.acquire(blocking=False):
            try:
                while self._under_way and self._turn(0.0 if _waiting else GLANCE_S):
                    pass
            finally:
                self._turning.release()
        self._unattended.wait(REST_S)

    def attend(self, patience_s: float) -> bool:
        if not self._turning.acquire(timeout=patience_s):
            return False
        try:
            return self._under_way > 0 and self._turn(patience_s)
        finally:
            self._last = time.monotonic()
            self._turning.release()

    def _operate(self, tag: str, operation: Any) -> bool:
        return bool(self._call.start_server_batch((operation,), tag) == OK)

    def _next(self, patience_s: float) -> Any:
        event = self._queue.poll(time.time() + patience_s)
        return None if event.completion_type == cygrpc.CompletionType.queue_timeout else event

    def _reason(self, event: Any) -> str:
        return "the connection broke" if event.batch_operations[0].cancelled() else ""


class _Queue(cygrpc.CompletionQueue):  # type: ignore[misc]
    """The queue of a server's own thread, which lets those of streams wait: of several threads that wait in gRPC, one
    reads what comes for all and wakes the others, and a message that is read by the wrong one costs twice as much.
    """

    def poll(self, deadline: float | None = None) -> Any:
        """As of cygrpc.CompletionQueue; the deadline is of time.time()."""
        while True:
            until = min(deadline or math.inf, time.time() + (IDLE_S if _attended.none.is_set() else 0.0))
            event = super().poll(until)
            if event.completion_type != cygrpc.CompletionType.queue_timeout:
                return event
            if deadline is not None and time.time() >= deadline:
                return event
            _attended.none.wait(REST_S)


class Listener:
    """Accepts streams of one method at a server of grpcio's, beside what that serves itself."""

    def __init__(self, server: grpc.Server, method: str, accept: Callable[[ServerStream], object]) -> None:
        """accept: is called in the server's own thread, so it must not wait.  Before the server starts."""
        inner = cast(Any, server)
        self._server, self._queue = inner._state.server, _Queue()
        self._server.register_completion_queue(self._queue)
        inner._state.completion_queue = self._queue
        self._method, self._accept = method, accept
        self._server.register_method(method)

    def listen(self) -> None:
        """Accept the next one, and so on.  Once the server has started."""
        queue = cygrpc.CompletionQueue()  # of the call's own operations
        arrived = partial(self._arrived, queue)
        self._server.request_registered_call(queue, self._queue, self._method, arrived)

    def _arrived(self, queue: Any, event: Any) -> tuple[None, tuple[()]]:
        """A call is here, or the server stops; the answer is what the server's thread wants to hear."""
        if event.success:
            self.listen()
            self._accept(ServerStream(event.call, queue))
        return None, ()
