"""One party's run over its links: step the coroutine, meet deadlines, find who is to blame, fail as one.

Who waits for a peer for long says so to all others.  So when A waits for B, and B for C, A's error names C.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from threading import Event, Lock
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from mpcnode.errors import LinkError, MpcError
from mpcnode.links import Cause, Channel, Ended, Late, Link, Misfit
from mpcnode.rounds import Array, Exchange, Kernel, Recv, Send, When

T = TypeVar("T")

AHEAD_S = 0.002  # that a party which waits for nobody keeps small arrays back, to send them together
MOMENT_S = 0.02  # that a thread waits for a link before it looks around


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
        send, recv, when = what
        ops = self._ops
        for peer, array, op in send:
            nbytes = array.nbytes
            self.sent_bytes[peer] += nbytes
            self.op_sent_bytes[op] += nbytes
            if when is not When.DEAL:
                ops.add(op)
        if when is When.ROUND:
            for due in recv:
                ops.add(due.op)
            for op in ops:
                self.op_rounds[op] += 1
            ops.clear()
            self.rounds += 1


def drive(coroutine: Kernel[T], links: Links, traffic: Traffic) -> T:
    """Run a party's coroutine (see rounds.py) to its result, over links that are entered.  Raises what it raises,
    LinkError and Ended.
    """
    return Drive(coroutine, links, traffic).finish()


class Drive(Generic[T]):
    """A coroutine on its way.  When something is missing, the thread that steps it waits for that itself, if any thread
    can wait on that link, for a hand-over between threads costs more than many an op; else the link's own thread, which
    brings it, goes on, if it has the time.  The thread that called `finish` also watches the deadline.
    """

    def __init__(self, coroutine: Kernel[T], links: Links, traffic: Traffic) -> None:
        self._coroutine, self._links, self._traffic = coroutine, links, traffic
        self._running = Lock()  # held by who steps the coroutine, which guards the five below
        self._what = Exchange((), (), When.POST)  # the stop
        self._sent = 0  # of its arrays
        self._got: list[Array] | None = None
        self._flushed = 0.0  # when everything left last, of time.monotonic()
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._news = False
        self._wake = Event()
        self._over = False

    def finish(self) -> T:
        """The result."""
        try:
            self._links.listen(self._hear)
            waited = self._go_on(stay=True)
            while not self._over:
                patience_s = self._links.patience_s()
                if not waited:
                    self._wake.wait(patience_s)
                    self._wake.clear()
                waited = self._go_on(stay=True)
        finally:
            self._links.listen(None)
            with self._running:
                self._over = True
                self._coroutine.close()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _hear(self, may_run: bool) -> None:
        """Something came, or can be posted again, or all is over."""
        if may_run:
            self._go_on(stay=False)
        else:
            self._news = True
            self._wake.set()

    def _go_on(self, *, stay: bool) -> bool:
        """Step the coroutine as far as it goes, unless somebody does already: they look again.  True if this thread
        waited in vain for what is missing: then who stays is to come again, and others leave it to them.
        """
        waited = False
        self._news = True
        while self._news and self._running.acquire(blocking=False):
            try:
                self._news = False
                waited = not self._over and self._advance()
            except BaseException as error:  # noqa: BLE001  for who called `finish`
                self._error, self._over = error, True
            finally:
                self._running.release()
        if self._over or (waited and not stay):
            self._wake.set()
        return waited

    def _advance(self) -> bool:
        """Step the coroutine until something is missing; True if any thread can wait for that, and so this one did, for
        a moment.  Raises what the coroutine and the links raise.
        """
        try:
            self._step()
        except Late:
            if self._links.attendable:
                if self._links.attend():
                    self._news = True
                return True
        return False

    def _step(self) -> None:
        """Raises Late when something is missing, and what the coroutine and the links raise."""
        links = self._links
        while True:
            send, recv, when = self._what
            channel = Channel.DEAL if when is When.DEAL else Channel.ROUND
            still = when is When.ROUND and bool(recv)  # all of it leaves before the coroutine goes on
            while self._sent < len(send):
                links.post(channel, send[self._sent], still)
                self._sent += 1
            if when is When.ROUND and (recv or time.monotonic() >= self._flushed + AHEAD_S):
                links.flush()
                self._flushed = time.monotonic()
            if recv:
                got = self._got
                assert got is not None
                while len(got) < len(recv):
                    got.append(links.take(channel, recv[len(got)]))
            try:
                self._what = what = self._coroutine.send(self._got)
            except StopIteration as stop:
                self._result, self._over = [stop.value], True
                return
            self._sent, self._got = 0, []
            self._traffic.count(what)


class _Wait(NamedTuple):
    """What a party cannot go on without."""

    rank: int
    complaint: str
    since: float  # of time.perf_counter()
    taken: int  # pieces from there, until then: every one renews patience


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
        self._lock = Lock()  # guards the two above
        self._listener: Callable[[bool], None] | None = None
        self._wait: _Wait | None = None
        self._told = False  # the others, that this party waits
        self._waiting = Lock()  # guards the two above

    def add(self, rank: int, link: Link) -> bool:
        """Make a link one of these; False if there is one to that rank.  Any thread may call this."""
        with self._lock:
            if rank in self._links:
                return False
            self._links = {**self._links, rank: link}  # never changed, as others may be going over it
            why = self._why
        link.watch(self.end, partial(self.blame, link.peer), self._news)
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
        if self._why is not None:
            for link in self._links.values():  # as another thread, which ends all this too, may not have come so far
                link.close(self._why)
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
        self._news(False)

    def listen(self, listener: Callable[[bool], None] | None) -> None:
        """Have `listener` called for all news (see Link.watch) of any link, and when all is over.  It sees to it that
        those are attended to that can be.
        """
        self._listener = listener
        for link in self._links.values():
            link.be_attended(listener is not None)

    def _news(self, may_run: bool) -> None:
        listener = self._listener
        if listener is not None:
            listener(may_run)

    def blame(self, peer: str, why: str) -> None:
        """End the attempt because `peer` went away or broke the rules."""
        self.end(self._cause(LinkError(peer, self.where, why)))

    def post(self, channel: Channel, send: Send, still: bool = False) -> None:
        """Send an array; it is `still` if nobody writes to it until `flush`.  Raises Late while the peer takes in too
        little, LinkError and Ended.
        """
        self.busy = send.op
        if self._why is not None:
            raise Ended(self._why)
        try:
            self._links[send.peer].post(channel, send.op, send.array, still)
        except Late:
            self.flush()  # the one that is slow may wait for another one, and that one for what is still here
            self._missing(send.peer, "it takes in nothing")
            raise
        if self._wait is not None:
            self._found()

    def flush(self) -> None:
        """Let everything leave that was posted."""
        for link in self._links.values():
            link.flush()

    def take(self, channel: Channel, recv: Recv) -> Array:
        """The array that is due.  Raises Late while it is not here, LinkError when another came, Ended."""
        self.busy, self._in_step = recv.op, True
        intake = self._links[recv.peer].intake
        try:
            array = intake.take(channel, recv)
        except Late:
            self.flush()  # who waits has sent all that others may wait for
            self._missing(recv.peer, "nothing came")
            raise
        except Misfit as error:
            raise LinkError(intake.peer, self.where, f"{error}") from None
        if self._wait is not None:
            self._found()
        return array

    @property
    def attendable(self) -> bool:
        """Any thread can wait for whom this party cannot go on without, not only that link's own."""
        wait = self._wait
        return wait is not None and self._links[wait.rank].attendable

    def attend(self) -> bool:
        """Wait for them for a moment, in this thread; True if something came."""
        wait = self._wait
        return wait is not None and self._links[wait.rank].attend(MOMENT_S)

    def _missing(self, rank: int, complaint: str) -> None:
        """This party cannot go on without `rank`."""
        taken = self._links[rank].intake.taken
        with self._waiting:
            if self._wait is None or (self._wait.rank, self._wait.taken) != (rank, taken):
                self._account()
                self._wait = _Wait(rank, complaint, time.perf_counter(), taken)

    def _found(self) -> None:
        """What was missing is here."""
        with self._waiting:
            self._account()
            self._wait = None
            if self._told:
                self._told = False
                self._say(Cause(""))

    def _account(self) -> None:
        if self._wait is not None:
            waited_s = time.perf_counter() - self._wait.since
            self.waited_s[self._wait.rank] += waited_s
            self.all_waited_s += waited_s

    def patience_s(self) -> float:
        """How long to go on waiting before the next look at this.  Half of the time is over: the others are told for
        whom; all of it: the attempt ends, for whose fault it is.
        """
        with self._waiting:
            wait = self._wait
            if wait is None:
                return self.deadline_s / 2
            left_s = wait.since + self.deadline_s - time.perf_counter()
            if left_s > self.deadline_s / 2:
                return left_s - self.deadline_s / 2
            if not self._told:
                self._told = True
                self._say(Cause("", self._links[wait.rank].peer, self.where))
        if left_s <= 0:
            self.end(self._cause(self._culprit(self._links[wait.rank].peer, wait.complaint)))
            return self.deadline_s / 2
        return left_s

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
