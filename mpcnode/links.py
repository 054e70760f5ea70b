"""A link to one peer: what is posted at one end is taken at the other, in order, or the attempt is over.

A link has two channels: ROUND for what parties exchange in lock step, DEAL for what a helper deals ahead.  Arrays of
a channel are numbered; the receiver knows which op, dtype and shape is due, and anything else ends the attempt.

    Intake       what came from one peer and is not taken yet; bounded
    Link         one peer, for one attempt at one job
    MemoryLink   between threads of a process; grpc_links.py has the one between nodes
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from threading import Condition, Event
from typing import NamedTuple, TypeAlias

import numpy as np

from mpcnode.errors import Aborted
from mpcnode.frames import Piece
from mpcnode.rounds import Array, Recv, as_bytes

DEAL_BYTES = 64 << 20  # dealt and not taken: from there on nothing more is read from the helper
ROUND_BYTES = 2 << 30  # a peer in lock step is never more than a round ahead: more than any round is an attack


News: TypeAlias = Callable[[bool], None]


class Channel(enum.IntEnum):
    """The numbers are those of peer.proto."""

    ROUND = 1
    DEAL = 2


_ROUND, _DEAL = map(int, Channel)


class Cause(NamedTuple):
    """Why an attempt ended: the sentence that every party reports, and who and which op it is about, if any."""

    text: str
    peer: str = ""
    where: str = ""


class Ended(Aborted):
    """The attempt ended early; `why` is the same at every party."""

    def __init__(self, why: Cause) -> None:
        self.why = why
        super().__init__(why.text)


class Late(Exception):
    """Not yet.  Asking again goes on where this left off."""


class Misfit(Exception):
    """A peer sent what was not due; the message completes a sentence about it."""


class _Unfinished(NamedTuple):
    """An array that has come in part."""

    array: Array
    filled: int  # bytes


class Intake:
    """What came from one peer.  One thread feeds it, and one at a time takes; any may be told that it is over.

    Each counter has one writer, so nothing here needs a lock but waiting for room.
    """

    def __init__(self, peer: str, deal_bytes: int = DEAL_BYTES, round_bytes: int = ROUND_BYTES) -> None:
        self.peer = peer
        self.excuse: Cause | None = None  # whom the peer says that it waits for itself
        self.done = Event()  # the peer has sent its last, or all is over
        self.drained: Callable[[], None] = lambda: None  # called when who waits for room may feed again
        self.taken = 0  # pieces
        self._most = {_DEAL: deal_bytes, _ROUND: round_bytes}
        self._queues: dict[int, deque[Piece]] = {channel: deque() for channel in Channel}
        self._fed_bytes = dict.fromkeys(map(int, Channel), 0)
        self._taken_bytes = dict.fromkeys(map(int, Channel), 0)
        self._room = Condition()
        self._wanted = False  # somebody waits for room, until half of it is free
        self._number = dict.fromkeys(Channel, 0)  # of the array that is due
        self._unfinished: dict[Channel, _Unfinished] = {}
        self._why: Cause | None = None

    # ---- the feeding side ------------------------------------------------------------------------------------------
    def feed(self, piece: Piece) -> None:
        """Keep a piece for who takes it.  Raises Misfit for one that cannot be due."""
        channel, fed = piece.channel, self._fed_bytes
        if channel not in fed:
            raise Misfit(f"it sent an array for channel {channel}")
        fed[channel] += len(piece.data)
        if channel == _ROUND and self._held(_ROUND) > self._most[_ROUND]:
            raise Misfit(f"it sent {self._held(_ROUND)} bytes ahead of time")
        self._queues[channel].append(piece)

    def room(self, patience_s: float) -> bool:
        """Wait until more may be dealt (or all is over); False if that takes longer."""
        if self._held(_DEAL) < self._most[_DEAL] or self._why is not None:
            return True
        self._wanted = True  # before the next look, so that who takes in between sees it
        with self._room:
            return self._room.wait_for(self._has_room, patience_s)

    def _held(self, channel: int) -> int:
        return self._fed_bytes[channel] - self._taken_bytes[channel]

    def _has_room(self) -> bool:
        return self._held(_DEAL) <= self._most[_DEAL] // 2 or self._why is not None

    def finish(self) -> None:
        """The peer sends nothing more."""
        self.done.set()

    def end(self, why: Cause) -> None:
        """All is over: whoever takes, now or later, gets `why`."""
        self._why = self._why or why
        self.finish()
        with self._room:
            self._room.notify_all()

    # ---- the taking side -------------------------------------------------------------------------------------------
    def take(self, channel: Channel, due: Recv) -> Array:
        """The next array of a channel, which the taker owns.

        Raises Late while it is not here, or in part only, Misfit when something else than `due` came or nothing will
        come any more, Ended when all is over.
        """
        if self._why is not None:  # before what has come, which is of no use any more
            raise Ended(self._why)
        queue, into = self._queues[channel], due.into
        if queue and channel not in self._unfinished:
            piece, number, nbytes = queue[0], self._number[channel], due.nbytes
            if piece[1:4] == (due.op, number, nbytes) and 0 < nbytes == len(piece.data):  # as nearly always
                queue.popleft()
                self._took(channel, nbytes)
                self._number[channel] = number + 1
                if into is None:
                    return np.frombuffer(piece.data, due.dtype).reshape(due.shape).copy()
                into.bytes[:] = piece.data
                return into.array
        begun = self._unfinished.pop(channel, None)
        if begun is None and not queue and not self.done.is_set():
            raise Late
        array, filled = begun or _Unfinished(np.empty(due.shape, due.dtype) if into is None else into.array, 0)
        nbytes, target = array.nbytes, as_bytes(array)
        while True:
            over = self.done.is_set()  # before the look at the queue: what came before is there
            if not queue:
                if over:
                    raise Misfit(f"it finished without sending {_sized(nbytes)} that were due")
                self._unfinished[channel] = _Unfinished(array, filled)
                raise Late
            piece = queue.popleft()
            self._took(channel, len(piece.data))
            wrong = self._misfit(piece, channel, due.op, nbytes, filled)
            if wrong:
                raise Misfit(f"it sent {wrong}")
            target[filled : filled + len(piece.data)] = piece.data
            filled += len(piece.data)
            if filled == nbytes:
                self._number[channel] += 1
                return array

    def _took(self, channel: Channel, nbytes: int) -> None:
        """A piece was taken."""
        self.taken += 1
        self._taken_bytes[channel] += nbytes
        if self._wanted and self._has_room():
            self._wanted = False
            with self._room:
                self._room.notify_all()
            self.drained()

    def _misfit(self, piece: Piece, channel: Channel, op: int, nbytes: int, filled: int) -> str:
        """What is wrong with a piece, completing "it sent ..."; empty if it is due."""
        if piece.sequence != self._number[channel]:
            return (
                f"array {piece.sequence} of its {channel.name.lower()} channel, array {self._number[channel]} was due"
            )
        if piece.op != op:
            return f"an array for op {piece.op}, one for op {op} was due"
        if piece.nbytes != nbytes:
            return f"{_sized(piece.nbytes)}, {nbytes} were due"
        if filled + len(piece.data) > nbytes or (not piece.data and nbytes):
            return f"a piece of {_sized(len(piece.data))} when {nbytes - filled} were missing"
        return ""

    def leftover(self) -> bool:
        """True if something came that nobody took."""
        return any(self._queues.values()) or any(part.filled for part in self._unfinished.values())


class Link(ABC):
    """The way to one peer.  `intake` holds what came from there."""

    def __init__(self, intake: Intake) -> None:
        self.peer, self.intake = intake.peer, intake

    @abstractmethod
    def post(self, channel: Channel, op: int, array: Array, still: bool = False) -> None:
        """Send a copy of an array; it may wait for company until `flush`, and, if nobody writes to the array until then
        (`still`), be copied only there.  Raises Late, having sent nothing, while the peer takes in too little."""

    @abstractmethod
    def flush(self) -> None:
        """Let everything leave that was posted."""

    attendable = False  # any thread can wait for what comes, not only the link's own

    def be_attended(self, attended: bool) -> None:
        """From now on somebody waits here whenever there is nothing else to do; or does no longer."""
        return

    def attend(self, patience_s: float) -> bool:
        """Wait in this thread for something to come or to have left; False if nothing did."""
        return False

    @abstractmethod
    def say_waiting(self, whom: Cause) -> None:
        """Tell the peer whom this side waits for and where; an empty name: for nobody any more."""

    @abstractmethod
    def close(self, why: Cause | None) -> None:
        """Send the peer a last word: None if this side is done, else why all is over, of which the first counts.  Never
        waits."""

    @abstractmethod
    def join(self, timeout_s: float) -> None:
        """After `close` at both sides, or at this one with a cause: let go of everything, by force if need be."""

    @abstractmethod
    def watch(self, ended: Callable[[Cause], None], broken: Callable[[str], None], news: News) -> None:
        """Have `ended` called when the peer ends the attempt, `broken` when it goes away or breaks the rules, and
        `news` when something came or can be posted again; True if the calling thread has the time to do something
        about it.  They are called from another thread; `ended` and `broken` at once if it has happened already."""


Tamper = Callable[[Piece], Iterable[Piece]]  # what is delivered in place of a piece


class MemoryLink(Link):
    """A link between two threads of a process."""

    def __init__(self, intake: Intake, tamper: Tamper | None = None) -> None:
        super().__init__(intake)
        self._other: MemoryLink
        self._tamper = tamper
        self._sent = dict.fromkeys(Channel, 0)
        self._ended: Callable[[Cause], None] = intake.end  # until somebody watches
        self._broken: Callable[[str], None] = lambda why: None
        self._news: News = lambda may_run: None

    @staticmethod
    def pair(
        low: str, high: str, up: Tamper | None = None, down: Tamper | None = None, deal_bytes: int = DEAL_BYTES
    ) -> tuple[MemoryLink, MemoryLink]:
        """The link of the party `low` to `high`, and the link of `high` to `low`; `up` tampers with what `low` sends,
        `down` with what `high` sends.
        """
        ends = MemoryLink(Intake(high, deal_bytes), up), MemoryLink(Intake(low, deal_bytes), down)
        ends[0]._other, ends[1]._other = ends[1], ends[0]
        for end in ends:
            end.intake.drained = partial(end._tell_other, False)
        return ends

    def post(self, channel: Channel, op: int, array: Array, still: bool = False) -> None:
        if channel is Channel.DEAL and not self._other.intake.room(0.0):
            raise Late
        data = bytes(as_bytes(array))
        piece = Piece(channel, op, self._sent[channel], len(data), data)
        self._sent[channel] += 1
        for delivered in self._tamper(piece) if self._tamper else (piece,):
            try:
                self._other.intake.feed(delivered)
            except Misfit as error:
                self._other._broken(f"{error}")
        self._other._news(False)

    def _tell_other(self, may_run: bool) -> None:
        self._other._news(may_run)

    def flush(self) -> None:
        """Everything has left."""

    def say_waiting(self, whom: Cause) -> None:
        self._other.intake.excuse = whom if whom.peer else None

    def close(self, why: Cause | None) -> None:
        if why is None:
            self._other.intake.finish()
            self._other._news(False)
        else:
            self._other._ended(why)

    def join(self, timeout_s: float) -> None:
        """There is nothing to let go of."""

    def watch(self, ended: Callable[[Cause], None], broken: Callable[[str], None], news: News) -> None:
        self._ended, self._broken, self._news = ended, broken, news


def _sized(nbytes: int) -> str:
    return f"{nbytes} byte" if nbytes == 1 else f"{nbytes} bytes"
