"""One attempt at one job, on one node: connect, compute, seal, report.

A node keeps what an attempt reported, so that a coordinator that was away can read all of it again.  Whatever happens,
an attempt ends with exactly one Finished or Failed, and leaves no thread and no stream behind.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from threading import Condition, Event, Thread

import numpy as np

from mpcnode import process, protocols, tls
from mpcnode.admission import Task, key_of
from mpcnode.cluster import Cluster
from mpcnode.drive import Links, Traffic, drive
from mpcnode.engine import Hooks, execute
from mpcnode.errors import LinkError, MpcError
from mpcnode.graph import Op
from mpcnode.graph_wire import type_to_wire
from mpcnode.grpc_links import GrpcLink, check_hello, dial
from mpcnode.identity import Identity
from mpcnode.kept import Header, Kept
from mpcnode.links import Cause, Ended
from mpcnode.party import SEED_BYTES, Party, key_tag, pair_key
from mpcnode.rounds import Array
from mpcnode.sealing import Purpose, seal_result
from mpcnode.simulate import Slot, slot_of
from mpcnode.wire import node_pb2, peer_pb2

PIECE_BYTES = 1 << 20
PROGRESS_S = 0.1  # between two reports of progress
CONNECT_S = 20.0  # at most, to reach all peers

log = logging.getLogger("mpcnode")


class NodeHooks(Hooks):
    """This node's data for the engine; where the engine is, and how long each op takes it without waiting."""

    def __init__(self, task: Task, links: Links, progress: Callable[[int, int], None]) -> None:
        self._task, self._links, self._progress = task, links, progress
        self.seconds: dict[int, float] = defaultdict(float)
        self._busy: int | None = None  # the op that is being worked on ..
        self._began = 0.0  # .. and since when
        self.stored: dict[Slot, Array] = {}

    def read(self, op: Op) -> Array:
        return self._task.inputs[key_of(op)]

    def keys(self, op: Op) -> bytes:
        return self._task.keys[op.text("dataset")]

    def load(self, op: Op) -> Array:
        return self._task.kept[slot_of(op)]

    def store(self, op: Op, sharing: Array) -> None:
        self.stored[slot_of(op)] = sharing

    def step(self, done: int, total: int) -> None:
        self._progress(done, total)

    def enter(self, number: int, op: Op) -> None:
        self._links.busy, now = number, time.perf_counter() - self._links.all_waited_s
        if self._busy is not None:
            self.seconds[self._busy] += now - self._began
        self._busy, self._began = number, now

    def leave(self, number: int) -> None:
        self.seconds[number] += time.perf_counter() - self._links.all_waited_s - self._began
        self._busy = None


class Attempt:
    """From Prepare to the last event.  Any thread may call any method."""

    def __init__(self, task: Task, identity: Identity, cluster: Cluster, kept: Kept) -> None:
        self.task, self._identity, self._cluster, self._kept = task, identity, cluster, kept
        self._names = task.parties
        self._rank = self._names.index(identity.name)
        self._ops = task.plan.ops()
        self.links = Links(identity.name, self.describe, task.deadline_s)
        self._hellos = {name: self._hello(name) for name in self._names if name != identity.name}
        self._theirs: dict[int, peer_pb2.Hello] = {}  # by rank
        self._tags: dict[str, str] = {}  # by peer: what it and this node alone know of this attempt
        self._changed = Condition()  # guards all below, and _theirs
        self._events: list[node_pb2.NodeEvent] = []
        self._progress = node_pb2.Progress()  # the latest; no need to keep the others
        self._thread: Thread | None = None
        self._progressed_s = 0.0  # when it was last reported
        self.ended = Event()

    @property
    def started(self) -> bool:
        """True once it was told to compute, or was ended before."""
        with self._changed:
            return self._thread is not None or self.ended.is_set()

    def describe(self, number: int) -> str:
        """An op for a message: "%7 dot (train.py:12)"."""
        op = self._ops.get(number)
        if op is None:
            return f"op {number}"
        return f"%{number} {op.name}" + (f" ({op.where})" if op.where else "")

    # ---- for the coordinator ---------------------------------------------------------------------------------------
    def start(self) -> bool:
        """Compute, in a thread of its own; False if it was told before, or has ended."""
        with self._changed:
            if self._thread is not None or self.ended.is_set():
                return False
            self._thread = Thread(target=self._work, name=f"job {self.task.run}", daemon=True)
        self._thread.start()
        return True

    def abort(self, cause: str) -> None:
        """End it, here and at every peer."""
        self.links.end(Cause(cause))
        with self._changed:
            self._changed.notify_all()
            waiting = self._thread is None and not self.ended.is_set()
        if waiting:  # for a start that need not come any more
            self.start()

    def events(self, is_active: Callable[[], bool]) -> Iterator[node_pb2.NodeEvent]:
        """Everything reported, from the beginning until the end, as long as `is_active`; of progress the latest."""
        at, seen = 0, 0
        while True:
            with self._changed:
                while (
                    at == len(self._events) and seen == self._progress.done and not self.ended.is_set() and is_active()
                ):
                    self._changed.wait(1.0)
                news, progress = self._events[at:], node_pb2.Progress()
                progress.CopyFrom(self._progress)
            if progress.done != seen:
                yield node_pb2.NodeEvent(progress=progress)
            elif not news:
                return
            yield from news
            at, seen = at + len(news), progress.done

    def _emit(self, event: node_pb2.NodeEvent, *, last: bool = False) -> None:
        with self._changed:
            self._events.append(event)
            if last:
                self.ended.set()
            self._changed.notify_all()

    def _step(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now >= self._progressed_s + PROGRESS_S:
            self._progressed_s = now
            with self._changed:
                self._progress.done, self._progress.total = done, total
                self._changed.notify_all()

    # ---- for the peers ---------------------------------------------------------------------------------------------
    def _hello(self, peer: str) -> peer_pb2.Hello:
        return peer_pb2.Hello(
            job=self.task.run.job,
            attempt=self.task.run.attempt,
            party=self._identity.name,
            graph_digest=self.task.digest,
            protocol=self._cluster.protocol,
            cluster_digest=self._cluster.digest(),
            seed=os.urandom(SEED_BYTES),
            kept=self.task.tags.get(peer, b""),
        )

    def accept(self, peer: str, link: GrpcLink, theirs: peer_pb2.Hello) -> bool:
        """Take a stream that a peer of a lower rank has opened; False if it has one already, or is to be dialled."""
        rank = self._names.index(peer) if peer in self._names else self._rank
        if rank >= self._rank or not self.links.add(rank, link):
            return False
        link.greet(self._hellos[peer])  # whatever comes of it, so that both sides can say what differs
        self._meet(rank, theirs)
        return True

    def _meet(self, rank: int, theirs: peer_pb2.Hello) -> None:
        """Compare greetings; a difference ends the attempt."""
        mine, name = self._hellos[self._names[rank]], self._names[rank]
        try:
            check_hello(mine, theirs, name)
        except LinkError as error:
            self.links.blame(error.peer, error.why)
        if mine.kept != theirs.kept:
            self.links.blame(name, "its shares of a kept value are of another making: make the value anew")
        with self._changed:
            self._theirs[rank] = theirs
            self._changed.notify_all()

    # ---- the work --------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        process.forget_peak()
        self._run()
        process.give_back()  # what held it is gone

    def _run(self) -> None:
        started = time.perf_counter()
        traffic = Traffic()
        hooks = NodeHooks(self.task, self.links, self._step)
        last = node_pb2.NodeEvent()
        try:
            with ExitStack() as channels, self.links:
                party = self._connect(channels)
                log.info("%s: connected to %s", self.task.run, ", ".join(self._hellos))
                kernel = execute(party, protocols.get(self._cluster.protocol), self.task.plan, hooks)
                self._seal(drive(kernel, self.links, traffic))
            self._hold(hooks.stored)
            last.finished.CopyFrom(self._finished(time.perf_counter() - started, traffic, hooks))
            log.info("%s: finished in %.1f s", self.task.run, last.finished.seconds)
        except Ended as error:
            last.failed.CopyFrom(node_pb2.Failed(cause=error.why.text, peer=error.why.peer, where=error.why.where))
            log.warning("%s: aborted: %s", self.task.run, error.why.text)
            _log_bug(error.__cause__)
        finally:  # an attempt without a last event would be waited for
            if last.WhichOneof("event") is None:
                last.failed.cause = f"{self._identity.name} failed after the computation: see its log"
            self.task = self.task._replace(inputs={}, keys={}, kept={})  # the record is kept, the data not
            self._emit(last, last=True)

    def _connect(self, channels: ExitStack) -> Party:
        """Dial the peers of higher ranks, wait for the others, and agree on a key with each."""
        if self.links.why is not None:
            raise Ended(self.links.why)
        patience_s = min(CONNECT_S, self.task.deadline_s)
        until = time.monotonic() + patience_s
        dialled: dict[int, GrpcLink] = {}
        for rank in range(self._rank + 1, len(self._names)):
            name = self._names[rank]
            channel = channels.enter_context(closing(tls.channel(self._identity, self._cluster, name)))
            dialled[rank] = dial(channel, name, self._hellos[name])
            self.links.add(rank, dialled[rank])
        for rank, link in dialled.items():
            self._meet(rank, link.hello(max(0.0, until - time.monotonic())))
        with self._changed:
            self._changed.wait_for(self._complete, max(0.0, until - time.monotonic()))
            theirs = dict(self._theirs)
        if self.links.why is not None:
            raise Ended(self.links.why)
        for rank, name in enumerate(self._names):
            if rank != self._rank and rank not in theirs:
                raise LinkError(name, "the start", f"it has not connected within {patience_s:g} s")
        keys = {rank: self._key(rank, hello) for rank, hello in theirs.items()}
        self._tags = {self._names[rank]: key_tag(key).hex() for rank, key in keys.items()}
        return Party(self._rank, self._names, keys, guests=len(self._names) - len(self._cluster.parties))

    def _complete(self) -> bool:
        return len(self._theirs) == len(self._names) - 1 or self.links.why is not None

    def _key(self, rank: int, theirs: peer_pb2.Hello) -> bytes:
        """The key of this party and another one, from both their seeds."""
        ends = sorted([(self._rank, self._hellos[self._names[rank]]), (rank, theirs)], key=lambda end: end[0])
        (low, low_hello), (high, high_hello) = ends
        return pair_key(
            low_hello.seed,
            high_hello.seed,
            job=self.task.run.job,
            attempt=self.task.run.attempt,
            low=self._names[low],
            high=self._names[high],
        )

    def _hold(self, stored: Mapping[Slot, Array]) -> None:
        """Write this party's shares of what the job keeps: they count once every node has come so far."""
        run, computing = self.task.run, self._cluster.parties
        tags = {peer: tag for peer, tag in self._tags.items() if peer in computing}
        try:
            for making in self.task.makings:
                arrays = {leaf.path: stored[making.name, leaf.path] for leaf in making.leaves}
                parts = tuple(len(arrays[leaf.path]) for leaf in making.leaves)
                self._kept.hold(Header(making=making, party=self._identity.name, parts=parts, tags=tags), arrays)
        except MpcError as error:
            self._kept.drop(*run)
            raise Ended(Cause(f"{self._identity.name} cannot keep its shares: {error}")) from error

    def _seal(self, results: dict[str, Array]) -> None:
        """Report this party's part of each output, readable by its recipients only."""
        for op in self.task.plan.graph.ops:
            if op.name != "reveal" or op.text("name") not in results:
                continue
            part = np.ascontiguousarray(results[op.text("name")])
            data = part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes()
            cuts = [data[at : at + PIECE_BYTES] for at in range(0, max(len(data), 1), PIECE_BYTES)]
            for recipient in dict.fromkeys(op.texts("to")):
                for piece, cut in enumerate(cuts):
                    self._emit(node_pb2.NodeEvent(sealed=self._sealed(op, recipient, piece, len(cuts), cut)))

    def _sealed(self, op: Op, recipient: str, piece: int, pieces: int, data: bytes) -> node_pb2.Sealed:
        run, sender, output = self.task.run, self._identity.name, op.text("name")
        purpose = Purpose(run.job, run.attempt, sender, recipient, output, str(op.type), piece, pieces)
        return node_pb2.Sealed(
            output=output,
            recipient=recipient,
            sender=sender,
            type=type_to_wire(op.type),
            piece=piece,
            pieces=pieces,
            data=seal_result(self._identity, self._cluster.card(recipient), purpose, data),
        )

    def _finished(self, seconds: float, traffic: Traffic, hooks: NodeHooks) -> node_pb2.Finished:
        links = [
            node_pb2.LinkTraffic(
                peer=name, sent_bytes=traffic.sent_bytes[rank], waited_seconds=self.links.waited_s[rank]
            )
            for rank, name in enumerate(self._names)
            if rank != self._rank
        ]
        calls = self.task.plan.executions()
        profile = [
            node_pb2.OpProfile(
                op=number,
                name=op.name,
                where=op.where,
                calls=calls[number],
                seconds=hooks.seconds[number],
                rounds=traffic.op_rounds[number],
                sent_bytes=traffic.op_sent_bytes[number],
            )
            for number, op in self._ops.items()
        ]
        return node_pb2.Finished(
            seconds=seconds, rounds=traffic.rounds, traffic=links, profile=profile, peak_mib=process.peak_mib()
        )


def _log_bug(error: BaseException | None) -> None:
    """Where an unforeseen error happened; not its message, which might hold a value."""
    if error is not None and not isinstance(error, MpcError):
        log.error("%s at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
