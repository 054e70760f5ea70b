"""Does what the job machine says: calls the nodes, keeps the records, tells those who watch.

One lock orders everything: an event is handled, recorded and turned into calls before the next one is looked at.
The calls run on threads, a few for each node; every one of them has a deadline and comes back as an event.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition, Event, Timer
from typing import TypeAlias

import grpc

from coordinator import jobs
from coordinator.calls import CallFailed
from coordinator.jobs import Job, JobState, Machine, Promise, Run
from coordinator.nodes import Node
from coordinator.programs import Output, check_program, guests, keeps, outputs, promises
from coordinator.store import WIRE_STATE, DatabaseFailed, NewJob, Program, Store
from mpcnode import protocols
from mpcnode.cluster import Cluster
from mpcnode.errors import MpcError
from mpcnode.graph import Graph, Kind
from mpcnode.graph_wire import from_wire, type_to_wire
from mpcnode.identity import Identity
from mpcnode.wire import coordinator_pb2 as wire
from mpcnode.wire import graph_pb2, node_pb2

MAX_QUEUE = 100
KEEP_JOBS = 300  # that have ended, with their results
MAX_SOURCE = 1 << 20
MAX_NAME = 100
MAX_CAUSE = 2000  # characters of what a node says
SEAL_BYTES = 256  # more than sealing adds to a piece
STOP_S = 5.0
PACE_S = 0.2  # between two messages to one watcher

Pieces: TypeAlias = dict[Promise, dict[int, int]]  # bytes by number, of what a node has delivered

log = logging.getLogger("coordinator")


class Refused(MpcError):
    """A caller asked for what the coordinator does not do; `code` is how gRPC says it."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        self.code = code
        super().__init__(sentence)


class Clerk:
    """Runs the jobs of one cluster.  Any thread may call it."""

    def __init__(
        self,
        identity: Identity,
        cluster: Cluster,
        store: Store,
        *,
        deadline_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """deadline_s: of every single wait of a node for a peer.  The nodes are called from `start` on.

        `on_failure` is called when the database fails: nothing more happens then, and `failure` says why.
        """
        self.cluster, self.store = cluster, store
        self._deadline_s, self._clock = deadline_s, clock
        self._rules = protocols.get(cluster.protocol)
        self._nodes = {name: Node(identity, cluster, name) for name in cluster.nodes}
        self._changed = Condition()
        self._events: deque[jobs.Event] = deque()
        self._version = 0  # counts changes, for those who watch
        self._closing = Event()
        self.failure: DatabaseFailed | None = None
        self._on_failure = on_failure
        self._timer: Timer | None = None
        self._running: tuple[Run, dict[str, Output], graph_pb2.Graph] | None = None
        self._progress: dict[str, node_pb2.Progress] = {}  # of the running job; the database gets it at the end
        self._pool = ThreadPoolExecutor(3 * len(self._nodes) + 1, thread_name_prefix="clerk")
        # who reveals parts is the protocol's to say: without helpers in it, every party does
        self._machine = Machine(cluster.parties, cluster.parties[self._rules.helpers :], self._queue())

    def start(self) -> None:
        """Go on where the last process stopped."""
        interrupted = self.store.programs(JobState.PREPARING, JobState.RUNNING)
        assert len(interrupted) <= 1, "one job at a time"
        if not interrupted:
            self._handle(jobs.Restarted())
            return
        graph = from_wire(_parse(interrupted[0].graph))
        self._handle(jobs.Restarted(interrupted[0].run, guests(graph, self.cluster)))

    def close(self) -> None:
        """Abort the running job, tell the nodes, and end every call; queued jobs stay queued."""
        self._handle(jobs.Stopped())
        with self._changed:
            self._changed.wait_for(lambda: self._machine.state.active is None or self.failure is not None, STOP_S)
            self._close_to_watchers()
            if self._timer is not None:
                self._timer.cancel()
        for node in self._nodes.values():
            node.close()
        self._pool.shutdown(cancel_futures=True)
        self.store.close()

    # ---- for callers ------------------------------------------------------------------------------------------------
    def submit(self, submitter: str, request: wire.SubmitRequest) -> str:
        """Queue a job and return its id.  Raises Refused, or ProgramError for what the cluster cannot run."""
        graph = from_wire(request.graph)
        check_program(graph, self.cluster)
        self.cluster.check_validity()
        if len(request.source) > MAX_SOURCE:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"the job file is longer than {MAX_SOURCE} bytes")
        if not request.name.isprintable() or len(request.name) > MAX_NAME:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"a job's name is one line of at most {MAX_NAME} characters"
            )
        slug = re.sub(r"[^a-z0-9]+", "-", request.name.lower()).strip("-")[:40] or "job"
        run = Run(f"{slug}-{secrets.token_hex(4)}")
        new = NewJob(
            run=run,
            name=request.name,
            submitter=submitter,
            protocol=self._rules.name,
            threat_model=self._rules.threat_model,
            digest=graph.digest(),
            graph=request.graph.SerializeToString(deterministic=True),
            source=request.source,
            outputs={name: list(output.recipients) for name, output in outputs(graph).items()},
        )
        with self._changed:
            if len(self._machine.state.queue) >= MAX_QUEUE:
                raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_QUEUE} jobs are waiting already: try later")
            self.store.add(new, self._clock())
            self.store.prune(KEEP_JOBS)
            self._handle(jobs.Submitted(self._job(run, new.digest, graph)))
        log.info("%s submitted %s, program %s", submitter, run.job, new.digest.hex()[:12])
        return run.job

    def cancel(self, job: str, by: str) -> None:
        """End a job that has not ended.  Raises Refused unless `by` submitted it or computes it."""
        found = self.get(job)
        if by != found.submitter and by not in self.cluster.parties:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{by} may not cancel {job}: only {found.submitter}, who submitted it, and those who compute it may",
            )
        with self._changed:
            found = self.get(job)
            if jobs_ended(found):
                state = wire.JobState.Name(found.state).removeprefix("JOB_STATE_").lower()
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"{job} is {state} already")
            self._handle(jobs.Cancelled(job, by))

    def get(self, job: str, *, reports: bool = True) -> wire.Job:
        """A job as it stands; Refused if there is none of that id."""
        found = self.store.job(job, reports=reports)
        if found is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no job {job}: see `coordinator jobs`")
        if job in self._progress:
            found.progress.CopyFrom(self._progress[job])
        return found

    def program(self, job: str) -> Program:
        """What a job runs; Refused if there is none of that id."""
        found = self.store.program(job)
        if found is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no job {job}: see `coordinator jobs`")
        return found

    def watch(self, job: str, listening: Callable[[], bool]) -> Iterator[wire.JobEvent]:
        """All that was recorded of a job, then what happens, until it has ended or nobody listens.

        Progress without anything to say comes as an event without text.  Raises Refused if there is no such job.
        """
        number, version, before = 0, -1, None
        while listening():
            with self._changed:
                self._wait_for_change(version, 1.0)
                closing, version = self._closing.is_set(), self._version
                now = self.get(job, reports=False)
                events = self.store.events(job, number)
            if not events and now != before:
                events = [wire.JobEvent(number=number, at=self._clock())]
            for event in events:
                event.job.CopyFrom(now)
                number = event.number
                yield event
            if jobs_ended(now) or closing:
                return
            before = now
            self._closing.wait(PACE_S)

    def results(self, job: str, recipient: str) -> Iterator[node_pb2.Sealed]:
        """The pieces sealed to `recipient`; Refused unless the job is done."""
        found = self.get(job, reports=False)
        if found.state != wire.JOB_STATE_DONE:
            state = wire.JobState.Name(found.state).removeprefix("JOB_STATE_").lower()
            why = f": {found.cause}" if found.cause else ""
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"{job} has no results, it is {state}{why}")
        yield from self.store.sealed(job, recipient)

    def schemas(self) -> Iterator[wire.PartySchemas]:
        """The datasets of all who bring data; CallFailed names the first of those who compute who does not answer.
        Other owners need be there for jobs on their data only.
        """
        asked = [(name, self._pool.submit(self._nodes[name].schemas)) for name in self.cluster.owners]
        for name, answer in asked:
            try:
                yield wire.PartySchemas(party=name, schemas=answer.result().schemas)
            except CallFailed:
                if name in self.cluster.parties:
                    raise

    def kept(self) -> list[wire.KeptValue]:
        """The values that nodes have shares of, and who lacks one; those of jobs that are not done do not count."""
        asked = {name: self._pool.submit(self._nodes[name].kept) for name in self.cluster.parties}
        found: dict[tuple[str, str, int], wire.KeptValue] = {}
        holders: dict[tuple[str, str, int], set[str]] = {}
        for party, answer in asked.items():
            try:
                values = answer.result().kept
            except CallFailed as error:
                log.warning("cannot ask what %s keeps: %s", party, error)
                continue
            for kept in values:
                key = (kept.name, kept.job, kept.attempt)
                first = found.setdefault(key, wire.KeptValue(kept=kept)).kept
                first.counts |= kept.counts
                if (kept.program, kept.leaves) == (first.program, first.leaves):
                    holders.setdefault(key, set()).add(party)
        for (name, job, attempt), value in found.items():
            value.kept.counts |= self._is_done(Run(job, attempt))
            value.missing.extend(p for p in value.kept.parties if p not in holders[name, job, attempt])
        # A node that was away while a value was made anew still has the old one: what the most nodes have is the value.
        by_worth = sorted(found.values(), key=lambda value: (-len(value.missing), value.kept.kept_at))
        best = {value.kept.name: value for value in by_worth if value.kept.counts}
        return [best[name] for name in sorted(best)]

    def _is_done(self, run: Run) -> bool:
        job = self.store.job(run.job, reports=False)
        return job is not None and (job.state, job.attempt) == (wire.JOB_STATE_DONE, run.attempt)

    def _wait_for_change(self, version: int, timeout_s: float) -> None:
        self._changed.wait_for(lambda: self._version != version or self._closing.is_set(), timeout_s)

    # ---- the machine ------------------------------------------------------------------------------------------------
    def _queue(self) -> tuple[Job, ...]:
        waiting = self.store.programs(JobState.QUEUED)
        return tuple(self._job(p.run, p.digest, from_wire(_parse(p.graph))) for p in waiting)

    def _job(self, run: Run, digest: bytes, graph: Graph) -> Job:
        return Job(run, digest, promises(graph), guests(graph, self.cluster), keeps=bool(keeps(graph)))

    def _close_to_watchers(self) -> None:
        with self._changed:
            self._closing.set()
            self._changed.notify_all()

    def _handle(self, event: jobs.Event) -> None:
        with self._changed:
            if self.failure is not None:
                return
            self._events.append(event)
            if len(self._events) > 1:
                return  # it came while another one is carried out on this very thread, which goes on with it
            try:
                while self._events:
                    for instruction in self._machine.handle(self._events[0]):
                        self._carry_out(instruction)
                    self._events.popleft()
            except DatabaseFailed as error:
                # What is not on record has not happened: stop, and let the next start abort what was under way.
                self.failure = error
                self._close_to_watchers()
                self._on_failure()
                raise
            self._version += 1
            self._changed.notify_all()

    def _carry_out(self, instruction: jobs.Instruction) -> None:
        match instruction:
            case jobs.Prepare(run, party):
                self._spawn(run, party, self._prepare)
            case jobs.Start(run, party):
                self._spawn(run, party, self._compute)
            case jobs.Keep(run, party):
                self._spawn(run, party, self._confirm)
            case jobs.Abort(run, party, cause):
                self._spawn(run, party, lambda run, party: self._abort(run, party, cause))
            case jobs.Arm(run, mark, after_s):
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = Timer(after_s, self._handle, [jobs.Overdue(run, mark)])
                self._timer.daemon = True
                self._timer.start()
            case jobs.Enter(run, state, cause):
                self._enter(run, state, cause)
            case jobs.Advance(run, done, total):
                self._progress[run.job] = node_pb2.Progress(done=done, total=total)
            case jobs.Record(job, text):
                log.info("%s: %s", job, text)
                self.store.record(job, text, self._clock())

    def _enter(self, run: Run, state: JobState, cause: str) -> None:
        if state is JobState.PREPARING:
            program = self.program(run.job)
            message = _parse(program.graph)
            self._running = (run, outputs(from_wire(message)), message)
        if state.ended:
            self._running = None
            last = self._progress.pop(run.job, None)
            if last is not None:
                self.store.advance(run.job, last.done, last.total)
        self.store.enter(run, state, cause, self._clock())

    def _spawn(self, run: Run, party: str, task: Callable[[Run, str], None]) -> None:
        """Run a task that ends in an event.  One that fails for an unforeseen reason must not hang the queue."""

        def ended(future: Future[None]) -> None:
            error = None if future.cancelled() else future.exception()
            if error is not None:
                log.error("a call to %s for %s ended in a bug of the coordinator", party, run.job, exc_info=error)
                self._handle(jobs.Lost(run, party, "could not be served: see the coordinator's log"))

        self._pool.submit(task, run, party).add_done_callback(ended)

    # ---- tasks: each ends in an event -------------------------------------------------------------------------------
    def _prepare(self, run: Run, party: str) -> None:
        running, node = self._running, self._nodes[party]
        if running is None or running[0] != run:
            return
        try:
            self._reach(run, node)
            digest = node.prepare(run, self._rules.name, running[2], self._deadline_s)
        except MpcError as error:
            self._fail(run, party, error)
        else:
            self._handle(jobs.Prepared(run, party, digest))

    def _reach(self, run: Run, node: Node) -> None:
        """See that the node is there.  One that is restarting gets the time for it, and those who watch are told."""
        try:
            node.check()
        except CallFailed as error:
            if error.answered:
                raise
            self._note(run.job, f"waiting for {node.name}: {error}")
            node.check(wait=True)

    def _compute(self, run: Run, party: str) -> None:
        node = self._nodes[party]
        pieces: Pieces = {}
        try:
            node.start(run)
            for event in node.events(run):
                if self._hear(run, party, event, pieces):
                    return
        except MpcError as error:
            self._fail(run, party, error)
        else:
            self._handle(jobs.Lost(run, party, "ended its report without a result"))

    def _hear(self, run: Run, party: str, event: node_pb2.NodeEvent, pieces: Pieces) -> bool:
        """Pass on what a node reports; True for the last event of a run."""
        match event.WhichOneof("event"):
            case "progress":
                self._handle(jobs.Progressed(run, party, event.progress.done, event.progress.total))
            case "sealed":
                self._keep(run, party, event.sealed, pieces)
            case "finished":
                with self._changed:
                    if self._is_running(run):
                        for line in event.finished.profile:
                            line.name, line.where = _line(line.name), _line(line.where)
                        self.store.report(run.job, party, event.finished)
                        self._note(run.job, f"{party} has finished: {event.finished.seconds:.1f} s")
                        self._handle(jobs.Finished(run, party))
                return True
            case "failed":
                told = (_line(text) for text in (event.failed.cause, event.failed.peer, event.failed.where))
                self._handle(jobs.Failed(run, party, *told))
                return True
        return False

    def _keep(self, run: Run, party: str, sealed: node_pb2.Sealed, pieces: Pieces) -> None:
        """Store a piece of a result, if it is one that the job promises."""
        promise = Promise(sealed.output, sealed.recipient)
        with self._changed:
            if not self._is_running(run):
                return
            assert self._running is not None
            got = pieces.setdefault(promise, {})
            got[sealed.piece] = len(sealed.data)
            wrong = _misfit(sealed, party, self._running[1], sum(got.values()))
            if wrong:
                self._handle(jobs.Lost(run, party, wrong))
                return
            self.store.keep(run.job, sealed)
            self._handle(jobs.Delivered(run, party, promise, complete=len(got) == sealed.pieces))

    def _confirm(self, run: Run, party: str) -> None:
        """The one task without an event: a node that does not hear it finds out when a job loads what it kept."""
        try:
            self._nodes[party].keep(run)
        except CallFailed as error:
            log.warning("%s does not hear that what %s keeps counts: %s", party, run.job, error)

    def _abort(self, run: Run, party: str, cause: str) -> None:
        node = self._nodes[party]
        node.cancel(run)
        try:
            node.abort(run, cause, jobs.RELEASE_S)
        except CallFailed as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:  # a node that knows nothing of the run has let go of it
                log.warning("%s does not hear that %s is over: %s", party, run.job, error)
                return
        self._handle(jobs.Released(run, party))

    def _fail(self, run: Run, party: str, error: MpcError) -> None:
        """A node that said no has failed; any other that does not do as it is asked is lost."""
        if isinstance(error, CallFailed) and not error.answered:
            self._handle(jobs.Lost(run, party, _line(f"{error}").removeprefix(f"{party} ")))
        else:
            self._handle(jobs.Failed(run, party, _line(f"{error}")))

    def _note(self, job: str, text: str) -> None:
        with self._changed:
            self._carry_out(jobs.Record(job, text))
            self._version += 1
            self._changed.notify_all()

    def _is_running(self, run: Run) -> bool:
        return self._running is not None and self._running[0] == run


def jobs_ended(job: wire.Job) -> bool:
    """True if nothing will happen to the job any more."""
    return any(WIRE_STATE[state] == job.state for state in JobState if state.ended)


def _misfit(sealed: node_pb2.Sealed, party: str, promised: dict[str, Output], nbytes: int) -> str:
    """What is wrong with a piece, to follow the name of the node that delivered it; empty if nothing is.

    nbytes: of what it has delivered of this output, with this piece.
    """
    output = promised.get(sealed.output)
    if output is None or sealed.recipient not in output.recipients:
        return f"delivered {sealed.output!r} for {sealed.recipient!r}, which the job does not promise"
    if sealed.sender != party:
        return f"delivered a piece in the name of {sealed.sender!r}"
    if sealed.type != type_to_wire(output.type):
        return f"delivered {sealed.output} as another type than the program says"
    plain = output.type.size * (1 if output.type.kind is Kind.BIT else 8)
    if not sealed.piece < sealed.pieces <= max(1, plain):
        return f"delivered piece {sealed.piece} of {sealed.pieces} of {sealed.output}"
    if nbytes > plain + sealed.pieces * SEAL_BYTES:
        return f"delivered more of {sealed.output} than there is"
    return ""


def _line(text: str) -> str:
    """A node's words as they may stand in logs, terminals and databases: one line of things that print."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_CAUSE]).strip()


def _parse(graph: bytes) -> graph_pb2.Graph:
    return graph_pb2.Graph.FromString(graph)
