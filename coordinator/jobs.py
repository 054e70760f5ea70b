"""The life of a job as a pure machine: what has happened goes in, what is to be done comes out.

    QUEUED -> PREPARING -> RUNNING -> DONE
       \\          \\           \\---> ABORTED or CANCELLED; the next job starts when every node has let go of this one

One job holds the cluster at a time and the others wait in the order in which they came.  A job fails as one: the
first failure of any node becomes the cause of all, every node is told it, and no result of that attempt is given out.
No clock, thread or socket is here: a deadline is an instruction (`Arm`) and, when it comes back, an event (`Overdue`).
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

PREPARE_S = 120.0  # without an answer from any node that has yet to verify the graph and load its data
FINISH_S = 120.0  # without a sign of life from an evaluator while another one is done
RELEASE_S = 30.0  # without an answer from any node that was told to let go


class JobState(enum.Enum):
    """Where a job is; the names are those of the wire."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    DONE = "done"
    ABORTED = "aborted"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True if nothing will happen to the job any more."""
        return self in (JobState.DONE, JobState.ABORTED, JobState.CANCELLED)


class Run(NamedTuple):
    """One attempt at one job: an answer to another attempt is a late one, and is ignored."""

    job: str
    attempt: int = 1


class Promise(NamedTuple):
    """One output for one recipient: every evaluator owes its sealed part of it."""

    output: str
    recipient: str


class Job(NamedTuple):
    """What the machine must know of a job to schedule it."""

    run: Run
    digest: bytes  # of the graph that was submitted
    promises: frozenset[Promise]
    guests: tuple[str, ...] = ()  # owners of its data beside those who compute
    keeps: bool = False  # nodes keep shares of it


# ---- events ---------------------------------------------------------------------------------------------------------
class Submitted(NamedTuple):
    job: Job


class Prepared(NamedTuple):
    """A node has verified the graph with this digest and is ready to start."""

    run: Run
    party: str
    digest: bytes


class Progressed(NamedTuple):
    run: Run
    party: str
    done: int
    total: int


class Delivered(NamedTuple):
    """A piece of what a node promised is stored; `complete` with the last piece."""

    run: Run
    party: str
    promise: Promise
    complete: bool = True


class Finished(NamedTuple):
    run: Run
    party: str


class Failed(NamedTuple):
    """A node gave up, in any phase; `peer` is who it blames and `where` the op, each empty if unknown."""

    run: Run
    party: str
    cause: str
    peer: str = ""
    where: str = ""


class Lost(NamedTuple):
    """A node does not answer, or speaks out of turn; `why` completes the sentence."""

    run: Run
    party: str
    why: str


class Released(NamedTuple):
    """A node no longer works on the run."""

    run: Run
    party: str


class Cancelled(NamedTuple):
    job: str
    by: str


class Restarted(NamedTuple):
    """The coordinator has started; `interrupted` was under way when it last ended, and nobody has watched it since."""

    interrupted: Run | None = None
    guests: tuple[str, ...] = ()  # of the interrupted job


class Stopped(NamedTuple):
    """The coordinator is shutting down; queued jobs stay queued for its next start."""


class Overdue(NamedTuple):
    """The deadline that was armed when the machine's mark was `mark` has passed."""

    run: Run
    mark: int


Event: TypeAlias = (
    Submitted
    | Prepared
    | Progressed
    | Delivered
    | Finished
    | Failed
    | Lost
    | Released
    | Cancelled
    | Restarted
    | Stopped
    | Overdue
)


# ---- instructions ---------------------------------------------------------------------------------------------------
class Prepare(NamedTuple):
    """Send the graph to a node; it answers with Prepared, Failed or Lost."""

    run: Run
    party: str


class Start(NamedTuple):
    """Let a node compute, and pass on what it reports until it answers with Finished, Failed or Lost."""

    run: Run
    party: str


class Keep(NamedTuple):
    """Tell a node that every node is done with the run: its shares of what the job keeps count.  Nobody waits for an
    answer: a node that does not hear it finds out when a job asks for the shares.
    """

    run: Run
    party: str


class Abort(NamedTuple):
    """Tell a node to drop the run; it answers with Released."""

    run: Run
    party: str
    cause: str


class Arm(NamedTuple):
    """Answer with Overdue(run, mark) in `after_s` seconds."""

    run: Run
    mark: int
    after_s: float


class Enter(NamedTuple):
    """The job is now in this state; a state that ends it without DONE throws away the results of the run."""

    run: Run
    state: JobState
    cause: str = ""


class Advance(NamedTuple):
    """The job has come this far: the slowest evaluator's steps."""

    run: Run
    done: int
    total: int


class Record(NamedTuple):
    """A line for the people who watch the job."""

    job: str
    text: str


Instruction: TypeAlias = Prepare | Start | Keep | Abort | Arm | Enter | Advance | Record


# ---- state ----------------------------------------------------------------------------------------------------------
class Phase(enum.Enum):
    PREPARING = "to prepare"
    RUNNING = "to finish"
    RELEASING = "to let go"


class Active(NamedTuple):
    """The job that holds the cluster."""

    job: Job
    phase: Phase
    waiting: frozenset[str]  # parties that have not yet answered in this phase
    mark: int = 0  # signs of life so far: a deadline counts from the last one
    delivered: frozenset[tuple[str, Promise]] = frozenset()
    progress: tuple[tuple[str, int], ...] = ()  # iterations done, by evaluator
    armed: int = -1  # the mark of the latest deadline; an earlier one that comes back means nothing


class State(NamedTuple):
    queue: tuple[Job, ...] = ()
    active: Active | None = None
    stopping: bool = False


class Machine:
    """Decides for one cluster: `parties` are all who compute, `evaluators` those of them who deliver results.  The
    guests of a job are parties of it too, who bring their data and are done.
    """

    def __init__(self, parties: tuple[str, ...], evaluators: tuple[str, ...], queue: tuple[Job, ...] = ()) -> None:
        assert set(evaluators) <= set(parties)
        self.parties, self.evaluators = parties, evaluators
        self.state = State(queue)

    def handle(self, event: Event) -> list[Instruction]:
        """Take note of `event` and return what is to be done about it, in order."""
        match event:
            case Submitted(job):
                self.state = self.state._replace(queue=(*self.state.queue, job))
                return [Record(job.run.job, "queued"), *self._next()]
            case Restarted(run, guests):
                return self._next() if run is None else self._interrupted(run, guests)
            case Cancelled(job_id, by):
                return self._cancelled(job_id, by)
            case Stopped():
                self.state = self.state._replace(stopping=True)
                active = self.state.active
                if active is None or active.phase is Phase.RELEASING:
                    return []
                return self._end(active, JobState.ABORTED, "the coordinator was shut down")
            case _:
                active = self.state.active
                if active is None or active.job.run != event.run:
                    return []  # a late answer to a run that is over
                return self._answer(active, event)

    def _answer(
        self, active: Active, event: Prepared | Progressed | Delivered | Finished | Failed | Lost | Released | Overdue
    ) -> list[Instruction]:
        """What a node of the active run said."""
        if isinstance(event, Overdue):
            return self._overdue(active, event.mark)
        assert event.party in self._parties(active)
        match event:
            case Released():
                return self._released(active, event.party)
            case _ if active.phase is Phase.RELEASING:
                return []  # the run has its cause already; only the letting go counts
            case Prepared():
                return self._prepared(active, event)
            case Progressed():
                return self._progressed(active, event)
            case Delivered():
                return self._delivered(active, event)
            case Finished():
                return self._finished(active, event.party)
            case Failed():
                return self._end(active, JobState.ABORTED, self._failure(event))
            case Lost():
                return self._end(active, JobState.ABORTED, f"{event.party} {event.why}")

    def _parties(self, active: Active) -> tuple[str, ...]:
        """All who take part in the active job."""
        return (*self.parties, *active.job.guests)

    # ---- forward ----------------------------------------------------------------------------------------------------
    def _next(self) -> list[Instruction]:
        """Give the cluster to the first of the queue, if it is free."""
        queue, active, stopping = self.state
        if active is not None or not queue or stopping:
            return []
        job = queue[0]
        parties = (*self.parties, *job.guests)
        active = Active(job, Phase.PREPARING, frozenset(parties))
        self.state = self.state._replace(queue=queue[1:])
        return [
            Enter(job.run, JobState.PREPARING),
            *(Prepare(job.run, party) for party in parties),
            self._arm(active, PREPARE_S),
        ]

    def _prepared(self, active: Active, event: Prepared) -> list[Instruction]:
        job = active.job
        if active.phase is not Phase.PREPARING:
            return []
        if event.digest != job.digest:
            # Nodes compare digests with each other too: this is for the coordinator's own bugs and for a clear message.
            cause = (
                f"{event.party} prepared another program ({event.digest.hex()[:12]}) "
                f"than was submitted ({job.digest.hex()[:12]})"
            )
            return self._end(active, JobState.ABORTED, cause)
        waiting = active.waiting - {event.party}
        if waiting:
            self._set(active._replace(waiting=waiting, mark=active.mark + 1))
            return []
        everybody = frozenset(self._parties(active))
        self._set(active._replace(phase=Phase.RUNNING, waiting=everybody, mark=active.mark + 1, armed=-1))
        return [
            Enter(job.run, JobState.RUNNING),
            Record(job.run.job, f"every node runs program {job.digest.hex()[:12]}"),
            *(Start(job.run, party) for party in self._parties(active)),
        ]

    def _progressed(self, active: Active, event: Progressed) -> list[Instruction]:
        if event.party not in self.evaluators or active.phase is not Phase.RUNNING:
            return []  # a helper runs ahead: how far says nothing about the result
        before = dict(active.progress)
        after = {**before, event.party: event.done}
        self._set(active._replace(mark=active.mark + 1, progress=tuple(sorted(after.items()))))
        slowest = self._slowest(after)
        return [Advance(active.job.run, slowest, event.total)] if slowest > self._slowest(before) else []

    def _slowest(self, progress: dict[str, int]) -> int:
        return min(progress.get(party, 0) for party in self.evaluators)

    def _delivered(self, active: Active, event: Delivered) -> list[Instruction]:
        if event.promise not in active.job.promises or event.party not in self.evaluators:
            output, recipient = event.promise
            cause = f"{event.party} delivered {output} for {recipient}, which the job does not promise"
            return self._end(active, JobState.ABORTED, cause)
        more = {(event.party, event.promise)} if event.complete else set()
        self._set(active._replace(mark=active.mark + 1, delivered=active.delivered | more))
        return []

    def _finished(self, active: Active, party: str) -> list[Instruction]:
        if active.phase is not Phase.RUNNING:
            return self._end(active, JobState.ABORTED, f"{party} finished before it was started")
        if party in self.evaluators:
            for promise in sorted(active.job.promises):
                if (party, promise) not in active.delivered:
                    cause = f"{party} finished without its part of {promise.output} for {promise.recipient}"
                    return self._end(active, JobState.ABORTED, cause)
        active = active._replace(waiting=active.waiting - {party}, mark=active.mark + 1)
        self._set(active)
        if not active.waiting:
            self.state = self.state._replace(active=None)
            run = active.job.run
            keep = [Keep(run, party) for party in self.parties] if active.job.keeps else []
            return [Enter(run, JobState.DONE), Record(run.job, "done"), *keep, *self._next()]
        # A helper is done long before the evaluators; but they are in lock step, and end together.
        return [self._arm(active, FINISH_S)] if party in self.evaluators and active.armed < 0 else []

    # ---- the ends ---------------------------------------------------------------------------------------------------
    def _cancelled(self, job_id: str, by: str) -> list[Instruction]:
        cause = f"cancelled by {by}"
        active = self.state.active
        if active is not None and active.job.run.job == job_id and active.phase is not Phase.RELEASING:
            return self._end(active, JobState.CANCELLED, cause)
        for job in self.state.queue:
            if job.run.job == job_id:
                self.state = self.state._replace(queue=tuple(j for j in self.state.queue if j is not job))
                return [Enter(job.run, JobState.CANCELLED, cause), Record(job_id, cause)]
        return []  # it has ended already

    def _interrupted(self, run: Run, guests: tuple[str, ...]) -> list[Instruction]:
        assert self.state.active is None, "only one job holds the cluster"
        active = Active(Job(run, b"", frozenset(), guests), Phase.RUNNING, frozenset(self.parties))
        return self._end(active, JobState.ABORTED, "the coordinator was restarted while the job ran")

    def _end(self, active: Active, state: JobState, cause: str) -> list[Instruction]:
        run = active.job.run
        parties = self._parties(active)
        active = active._replace(phase=Phase.RELEASING, waiting=frozenset(parties), mark=active.mark + 1)
        verb = "" if state is JobState.CANCELLED else f"{state.value}: "
        return [
            Enter(run, state, cause),
            Record(run.job, verb + cause),
            *(Abort(run, party, cause) for party in parties),
            self._arm(active, RELEASE_S),
        ]

    def _released(self, active: Active, party: str) -> list[Instruction]:
        if active.phase is not Phase.RELEASING:
            return []
        waiting = active.waiting - {party}
        if waiting:
            self._set(active._replace(waiting=waiting, mark=active.mark + 1))
            return []
        self.state = self.state._replace(active=None)
        return self._next()

    def _overdue(self, active: Active, mark: int) -> list[Instruction]:
        late = [party for party in self._parties(active) if party in active.waiting]
        limit_s = {Phase.PREPARING: PREPARE_S, Phase.RUNNING: FINISH_S, Phase.RELEASING: RELEASE_S}[active.phase]
        if mark != active.armed:
            return []  # a deadline of an earlier phase
        if mark != active.mark:
            return [self._arm(active, limit_s)]  # somebody has answered since
        what = f"{_names(late)} {'has' if len(late) == 1 else 'have'} not answered for {limit_s:.0f} s"
        if active.phase is not Phase.RELEASING:
            return self._end(active, JobState.ABORTED, f"{what}, asked {active.phase.value}")
        # They will find out: whoever computes with them is gone, and every wait of theirs has a deadline.
        self.state = self.state._replace(active=None)
        return [Record(active.job.run.job, f"{what}, asked {active.phase.value}: going on without"), *self._next()]

    # ---- small things -----------------------------------------------------------------------------------------------
    def _failure(self, event: Failed) -> str:
        """The cause of an abort: who found it, what happened, at which op, who is blamed; each said once."""
        found_by = event.cause.partition(":")[0]  # a node passes on the cause of another one as it is
        text = event.cause if found_by in self.parties else f"{event.party}: {event.cause}"
        if event.where and event.where not in event.cause:
            text += f", at {event.where}"
        if event.peer and event.peer not in event.cause:
            text += f", because of {event.peer}"
        return text

    def _set(self, active: Active) -> None:
        self.state = self.state._replace(active=active)

    def _arm(self, active: Active, after_s: float) -> Arm:
        self._set(active._replace(armed=active.mark))
        return Arm(active.job.run, active.mark, after_s)


def _names(parties: list[str]) -> str:
    return " and ".join([", ".join(parties[:-1]), parties[-1]] if len(parties) > 1 else parties)
