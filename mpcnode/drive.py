"""One party's run over its links: step the coroutine, meet deadlines, find who is to blame, fail as one.

Who waits for a peer for long says so to all others.  So when A waits for B, and B for C, A's error names C.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from mpcnode.errors import LinkError, MpcError
from mpcnode.links import Cause, Channel, Ended, Late, Link, Misfit
from mpcnode.rounds import Array, Exchange, Kernel, Recv, Send, When

T = TypeVar("T")


class Traffic:
    """Counters of a run.  rounds: stops for ROUND; sent_bytes: of arrays, by rank; and both by the number of the op."""

    def __init__(self) -> None:
        self.rounds = 0
        self.sent_bytes: dict[int, int] = defaultdict(int)
        self.op_rounds: dict[int, int] = defaultdict(int)
        self.op_sent_bytes: dict[int, int] = defaultdict(int)
        self._ops: set[int] = set()  # of the round that is not over

    def count(self, what: Exchange) -> None:
        """Take note of a stop."""
        for send in what.send:
            self.sent_bytes[send.peer] += send.array.nbytes
            self.op_sent_bytes[send.op] += send.array.nbytes
        if what.when is When.DEAL:
            return
        self._ops.update(send.op for send in what.send)
        if what.when is When.ROUND:
            self._ops.update(recv.op for recv in what.recv)
            for op in self._ops:
                self.op_rounds[op] += 1
            self._ops.clear()
            self.rounds += 1


def drive(coroutine: Kernel[T], links: Links, traffic: Traffic) -> T:
    """Run a party's coroutine (see rounds.py) to its result, over links that are entered.  Raises what it raises,
    LinkError and Ended.
    """
    got: list[Array] | None = None
    try:
        while True:
            try:
                what = coroutine.send(got)
            except StopIteration as stop:
                result: T = stop.value
                return result
            traffic.count(what)
            channel = Channel.DEAL if what.when is When.DEAL else Channel.ROUND
            for send in what.send:
                links.post(channel, send)
            if what.when is When.ROUND:
                links.flush()
            got = [links.take(channel, recv) for recv in what.recv]
    finally:
        coroutine.close()


class Links:
    """All links of a party.  Leaving the `with` block ends them all: with the cause if there was an error, which then
    leaves the block as Ended, else when every peer is done as well."""

    def __init__(self, me: str, describe: Callable[[int], str], deadline_s: float, grace_s: float = 1.0) -> None:
        """describe: an op's number -> its text with the source line; deadline_s: of every single wait;
        grace_s: how long the links may take to close by themselves."""
        self.me, self._describe = me, describe
        self.deadline_s, self._grace_s = deadline_s, grace_s
        self.waited_s: dict[int, float] = defaultdict(float)  # by rank
        self.all_waited_s = 0.0
        self.busy: int | str = "the start"  # the op, or the phase without one
        self._in_step = False  # this party has taken something, so it goes no faster than who sent it
        self._links: dict[int, Link] = {}
        self._why: Cause | None = None
        self._lock = Lock()

    def add(self, rank: int, link: Link) -> bool:
        """Make a link one of these; False if there is one to that rank.  Any thread may call this."""
        with self._lock:
            if rank in self._links:
                return False
            self._links = {**self._links, rank: link}  # never changed, as others may be going over it
            why = self._why
        link.watch(self.end, partial(self.blame, link.peer))
        if why is not None:
            link.intake.end(why)
            link.close(why)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self._part()
        except MpcError as late:
            error = late
        if error is not None:
            self.end(self._cause(error))
        until = time.monotonic() + self._grace_s  # of all together: many may be stuck at once
        for link in self._links.values():
            link.join(max(0.0, until - time.monotonic()))
        if isinstance(error, Exception):
            assert self._why is not None
            raise Ended(self._why) from error

    @property
    def where(self) -> str:
        """What this party is busy with, for messages."""
        return self.busy if isinstance(self.busy, str) else self._describe(self.busy)

    @property
    def why(self) -> Cause | None:
        """Why all is over, if it is."""
        return self._why

    def end(self, why: Cause) -> None:
        """End the attempt, here and at every peer.  The first cause counts.  Any thread may call this."""
        with self._lock:
            if self._why is not None:
                return
            self._why, links = why, self._links
        for link in links.values():
            link.intake.end(why)
            link.close(why)

    def blame(self, peer: str, why: str) -> None:
        """End the attempt because `peer` went away or broke the rules."""
        self.end(self._cause(LinkError(peer, self.where, why)))

    def post(self, channel: Channel, send: Send) -> None:
        """Send an array.  Raises LinkError when the peer takes in nothing until the deadline, Ended."""
        self.busy = send.op
        if self._why is not None:
            raise Ended(self._why)
        link = self._links[send.peer]
        try:
            link.post(channel, send.op, send.array, 0.0)
        except Late:
            self.flush()  # the one that is slow may wait for another one, and that one for what is still here
            self._patiently(send.peer, lambda s: link.post(channel, send.op, send.array, s), "it takes in nothing")

    def flush(self) -> None:
        """Let everything leave that was posted."""
        for link in self._links.values():
            link.flush()

    def take(self, channel: Channel, recv: Recv) -> Array:
        """The array that is due.  Raises LinkError when it is late or another came, Ended."""
        self.busy, self._in_step = recv.op, True
        intake = self._links[recv.peer].intake
        try:
            return self._patiently(recv.peer, lambda s: intake.take(channel, recv, s), "nothing came")
        except Misfit as error:
            raise LinkError(intake.peer, self.where, f"{error}") from None

    def _patiently(self, rank: int, attempt: Callable[[float], T], complaint: str) -> T:
        """Try for half of the time; then tell the others and try for the other half."""
        started = time.perf_counter()
        try:
            return attempt(self.deadline_s / 2)
        except Late:
            self._say(Cause("", self._links[rank].peer, self.where))
            try:
                done = attempt(self.deadline_s / 2)
            except Late:
                raise self._culprit(self._links[rank].peer, complaint) from None
            self._say(Cause(""))
            return done
        finally:
            waited_s = time.perf_counter() - started
            self.waited_s[rank] += waited_s
            self.all_waited_s += waited_s

    def _say(self, whom: Cause) -> None:
        for link in self._links.values():
            link.say_waiting(whom)

    def _culprit(self, peer: str, complaint: str) -> LinkError:
        """Follow who waits for whom to the one that waits for nobody."""
        excuses = {link.peer: link.intake.excuse for link in self._links.values()}
        culprit, where, seen, time_ = peer, self.where, {self.me}, f"for {self.deadline_s:g} s"
        while culprit not in seen and (excuse := excuses.get(culprit)) is not None:
            seen.add(culprit)
            culprit, where = excuse.peer, excuse.where
        if culprit in seen:
            return LinkError(peer, self.where, f"{complaint} {time_}, and it waits itself: a message was lost")
        if culprit == peer:
            return LinkError(peer, self.where, f"{complaint} {time_}")
        return LinkError(culprit, where, f"it keeps {peer} waiting, and so everybody, {time_}")

    def _part(self) -> None:
        """Say goodbye, and wait until every peer has: only then nobody needs this side any more.

        Who was in step with others has them done within the deadline too.  A helper, which takes nothing and is done
        long before them, waits as long as its links live: gRPC's keepalive ends those of a peer that is gone or frozen.
        """
        self.busy = "the end"
        for link in self._links.values():
            link.flush()
            link.close(None)
        for link in self._links.values():
            if not link.intake.done.wait(self.deadline_s if self._in_step else None):
                raise LinkError(link.peer, self.where, f"it has not said that it is done for {self.deadline_s:g} s")
        if self._why is not None:
            raise Ended(self._why)
        for link in self._links.values():
            if link.intake.leftover():
                raise LinkError(link.peer, self.where, "it sent more than was due")

    def _cause(self, error: BaseException) -> Cause:
        """What to tell the peers.  Of a foreign error only its kind: its message might hold a value."""
        match error:
            case Ended():
                return error.why
            case LinkError():
                return Cause(f"{self.me}: {error}", error.peer, error.op)
            case MpcError():
                return Cause(f"{self.me}: {error}", "", self.where)
            case _:
                return Cause(f"{self.me} failed at {self.where}: {type(error).__name__}", "", self.where)
