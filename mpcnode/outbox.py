"""Frames on their way out of one end of a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

from mpcnode import frames
from mpcnode.frames import Piece

POST_BYTES = 64 << 20  # put in and not yet within the peer's window: from there on there is no room
PIECE_BYTES = 64  # that a small array counts beyond its own

Item: TypeAlias = bytes | list[Piece]


class Outbox:
    """What is to be written, in order.  Any thread may call anything; `start` begins to write a frame, and `sent` is to
    be called when the next may follow.

    Small arrays go in as lists of pieces: those that wait together leave in one frame, since a frame costs far more
    than an array.
    """

    def __init__(self, start: Callable[[bytes], None], finish: Callable[[], None]) -> None:
        self._start, self._finish = start, finish
        self._lock = Lock()  # guards all below
        self._queue: deque[tuple[Item, int]] = deque()  # and what each of them counts
        self._bytes = 0  # in the queue and being written
        self._writing = 0  # bytes of the frame being written
        self._closed = self._finished = False

    def put(self, item: Item) -> None:
        """Write a frame or small arrays, unless the outbox is closed.  Arrays may change once this is back."""
        size = len(item) if isinstance(item, bytes) else sum([len(piece.data) + PIECE_BYTES for piece in item])
        with self._lock:
            if not self._closed:
                if self._writing and not isinstance(item, bytes):
                    item = [piece._replace(data=bytes(piece.data)) for piece in item]  # bytes are not copied
                self._bytes += size
                self._queue.append((item, size))
                self._go_on()

    def sent(self) -> bool:
        """The frame has been written.  True if that made room again."""
        with self._lock:
            was_full = self._bytes >= POST_BYTES
            self._bytes -= self._writing
            self._writing = 0
            self._go_on()
            return was_full and self._bytes < POST_BYTES

    def room(self) -> bool:
        """May more be put in?"""
        return self._bytes < POST_BYTES or self._closed

    @property
    def waiting(self) -> bool:
        """Something waits for a frame that is being written."""
        return bool(self._queue)

    def fail(self) -> None:
        """Nothing can be written any more."""
        with self._lock:
            self._queue.clear()
            self._bytes = self._writing = 0
            self._closed = self._finished = True

    def end(self, last: bytes) -> None:
        """Write a last frame in place of all that has not left, which would only delay it, and end the stream behind
        that; unless the outbox is closed."""
        with self._lock:
            if not self._closed:
                self._queue.clear()
                self._queue.append((last, len(last)))
                self._bytes = self._writing + len(last)
                self._closed = True
                self._go_on()

    def close(self) -> None:
        """End the stream behind what is in already."""
        with self._lock:
            self._closed = True
            self._go_on()

    def _go_on(self) -> None:
        if self._writing or self._finished:
            return
        if self._queue:
            self._start(self._next())
        elif self._closed:
            self._finished = True
            self._finish()

    def _next(self) -> bytes:
        """The next frame: one that was put in, or the small arrays in front, up to a frame full."""
        item, size = self._queue.popleft()
        self._writing = size or 1
        if not isinstance(item, list):
            return item
        while self._queue:
            more, size = self._queue[0]
            if not isinstance(more, list) or self._writing + size > frames.MAX_DATA:
                break
            item = item + more
            self._writing += size
            self._queue.popleft()
        return frames.write(item)
