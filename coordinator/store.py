"""What the coordinator remembers: jobs, what happened to them, what they cost, and results sealed to others' keys.

SQLite in the coordinator's folder, or any PostgreSQL.  Nothing in it is secret from the members of the cluster: of
the data there are only sealed bytes, which none but their recipients can open.  Times are unix seconds and given by
the caller: the store has no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    create_engine,
    delete,
    event,
    func,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from coordinator.jobs import JobState, Run
from mpcnode.errors import ConfigError, MpcError
from mpcnode.wire import coordinator_pb2 as wire
from mpcnode.wire import graph_pb2, node_pb2

VERSION = 1  # of the tables: a coordinator refuses a database of another version

WIRE_STATE = {state: wire.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - as SQLAlchemy wants it
        dict[str, Any]: JSON,
        bytes: LargeBinary,
        int: BigInteger().with_variant(Integer, "sqlite"),  # where Integer has 64 bits, and alone counts up
    }


class VersionRow(Base):
    __tablename__ = "version"
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class JobRow(Base):
    __tablename__ = "jobs"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)  # the order of submission
    job: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    submitter: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    attempt: Mapped[int]
    cause: Mapped[str] = mapped_column(default="")
    protocol: Mapped[str]
    threat_model: Mapped[str]
    digest: Mapped[bytes]
    graph: Mapped[bytes]  # the wire form
    source: Mapped[str]
    outputs: Mapped[dict[str, Any]]  # name -> recipients
    submitted_at: Mapped[float]
    started_at: Mapped[float] = mapped_column(default=0.0)
    ended_at: Mapped[float] = mapped_column(default=0.0)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)


class EventRow(Base):
    __tablename__ = "events"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.job", ondelete="CASCADE"), index=True)
    at: Mapped[float]
    text: Mapped[str]


class ReportRow(Base):
    __tablename__ = "reports"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.job", ondelete="CASCADE"), primary_key=True)
    party: Mapped[str] = mapped_column(primary_key=True)
    seconds: Mapped[float]
    rounds: Mapped[int]
    peak_mib: Mapped[float]
    traffic: Mapped[dict[str, Any]]  # peer -> [sent_bytes, waited_seconds]


class ProfileRow(Base):
    __tablename__ = "profiles"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.job", ondelete="CASCADE"), primary_key=True)
    party: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    op: Mapped[int]
    name: Mapped[str]
    source_line: Mapped[str]
    calls: Mapped[int]
    seconds: Mapped[float]
    rounds: Mapped[int]
    sent_bytes: Mapped[int]


class SealedRow(Base):
    __tablename__ = "sealed"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.job", ondelete="CASCADE"), primary_key=True)
    recipient: Mapped[str] = mapped_column(primary_key=True)
    output: Mapped[str] = mapped_column(primary_key=True)
    sender: Mapped[str] = mapped_column(primary_key=True)
    piece: Mapped[int] = mapped_column(primary_key=True)
    pieces: Mapped[int]
    type: Mapped[bytes]  # the wire form
    data: Mapped[bytes]


class NewJob(NamedTuple):
    """A job as it is submitted."""

    run: Run
    name: str
    submitter: str
    protocol: str
    threat_model: str
    digest: bytes
    graph: bytes
    source: str
    outputs: dict[str, list[str]]


class Program(NamedTuple):
    """What a job runs: the wire form of its graph, and the job file for the record."""

    run: Run
    digest: bytes
    graph: bytes
    source: str


class DatabaseFailed(MpcError):
    """The database cannot be read or written any more."""


class Store:
    """The database.  Every method is one transaction, and may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Open or create the database; ConfigError if that fails or it is of another version."""
        self._engine = _engine(url)
        self._session = sessionmaker(self._engine)
        try:
            Base.metadata.create_all(self._engine)
            with self._session.begin() as session:
                found = session.scalar(select(VersionRow.version))
                if found is None:
                    session.add(VersionRow(version=VERSION))
        except SQLAlchemyError as error:
            raise ConfigError(f"the database {self._engine.url!r} cannot be used: {_reason(error)}") from error
        if found not in (None, VERSION):
            raise ConfigError(
                f"the database {self._engine.url!r} has tables of version {found}, this program of version {VERSION}: "
                "use the program that made it, or another database"
            )

    @classmethod
    def in_folder(cls, folder: Path) -> Store:
        """The SQLite database of a coordinator's folder."""
        return cls(f"sqlite:///{folder / 'coordinator.sqlite'}")

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with self._session.begin() as session:
                yield session
        except SQLAlchemyError as error:
            # Only the database's own words: SQLAlchemy's would quote the statement with everything in it.
            raise DatabaseFailed(f"the coordinator's database failed: {_reason(error)}") from error

    # ---- jobs -------------------------------------------------------------------------------------------------------
    def add(self, new: NewJob, at: float) -> None:
        """A submitted job, QUEUED."""
        fields = new._asdict()
        run: Run = fields.pop("run")
        with self._transaction() as session:
            state = JobState.QUEUED.value
            session.add(JobRow(**fields, job=run.job, attempt=run.attempt, state=state, submitted_at=at))

    def enter(self, run: Run, state: JobState, cause: str, at: float) -> None:
        """The job's new state; results of a run that did not end well are thrown away with it."""
        change: dict[str, Any] = {"state": state.value, "cause": cause, "attempt": run.attempt}
        if state is JobState.RUNNING:
            change["started_at"] = at
        if state.ended:
            change["ended_at"] = at
        with self._transaction() as session:
            session.execute(update(JobRow).where(JobRow.job == run.job).values(change))
            if state.ended and state is not JobState.DONE:
                session.execute(delete(SealedRow).where(SealedRow.job == run.job))

    def advance(self, job: str, done: int, total: int) -> None:
        """How many of its steps are done."""
        with self._transaction() as session:
            session.execute(update(JobRow).where(JobRow.job == job).values(done=_fits(done), total=_fits(total)))

    def job(self, job: str, *, reports: bool = True) -> wire.Job | None:
        """The job, with its nodes' reports and profiles if asked for; None if there is none of that id."""
        with self._transaction() as session:
            row = session.scalar(select(JobRow).where(JobRow.job == job))
            return None if row is None else _to_wire(row, _reports(session, job) if reports else [])

    def jobs(self, limit: int) -> list[wire.Job]:
        """The latest `limit` jobs, without reports, oldest first."""
        with self._transaction() as session:
            rows = session.scalars(select(JobRow).order_by(JobRow.number.desc()).limit(limit)).all()
            return [_to_wire(row, []) for row in reversed(rows)]

    def programs(self, *states: JobState) -> list[Program]:
        """What the jobs in these states run, in the order of submission."""
        columns = (JobRow.job, JobRow.attempt, JobRow.digest, JobRow.graph, JobRow.source)
        wanted = JobRow.state.in_([state.value for state in states])
        with self._transaction() as session:
            rows = session.execute(select(*columns).where(wanted).order_by(JobRow.number)).all()
            return [Program(Run(row[0], row[1]), row[2], row[3], row[4]) for row in rows]

    def program(self, job: str) -> Program | None:
        """What one job runs; None if there is no such job."""
        columns = (JobRow.attempt, JobRow.digest, JobRow.graph, JobRow.source)
        with self._transaction() as session:
            row = session.execute(select(*columns).where(JobRow.job == job)).one_or_none()
            return None if row is None else Program(Run(job, row[0]), row[1], row[2], row[3])

    def prune(self, keep: int) -> None:
        """Forget all but the latest `keep` of the jobs that have ended, with everything that hangs on them."""
        ended = JobRow.state.in_([state.value for state in JobState if state.ended])
        with self._transaction() as session:
            latest = select(JobRow.number).where(ended).order_by(JobRow.number.desc()).limit(keep)
            oldest = session.scalar(select(func.min(latest.subquery().c.number)))
            if oldest is not None:
                session.execute(delete(JobRow).where(ended, JobRow.number < oldest))

    # ---- events -----------------------------------------------------------------------------------------------------
    def record(self, job: str, text: str, at: float) -> None:
        with self._transaction() as session:
            session.add(EventRow(job=job, at=at, text=text))

    def events(self, job: str, after: int = 0) -> list[wire.JobEvent]:
        """What was recorded of the job behind event number `after`, in order; without the job itself."""
        behind = select(EventRow).where(EventRow.job == job, EventRow.number > after).order_by(EventRow.number)
        with self._transaction() as session:
            return [wire.JobEvent(number=row.number, at=row.at, text=row.text) for row in session.scalars(behind)]

    # ---- reports ----------------------------------------------------------------------------------------------------
    def report(self, job: str, party: str, finished: node_pb2.Finished) -> None:
        """What a run cost one node, and its profile op by op."""
        row = ReportRow(
            job=job,
            party=party,
            seconds=finished.seconds,
            rounds=_fits(finished.rounds),
            peak_mib=finished.peak_mib,
            traffic={link.peer: [link.sent_bytes, link.waited_seconds] for link in finished.traffic},
        )
        profile = [
            ProfileRow(
                job=job,
                party=party,
                number=number,
                op=line.op,
                name=line.name,
                source_line=line.where,
                calls=_fits(line.calls),
                seconds=line.seconds,
                rounds=_fits(line.rounds),
                sent_bytes=_fits(line.sent_bytes),
            )
            for number, line in enumerate(finished.profile)
        ]
        with self._transaction() as session:
            session.execute(delete(ProfileRow).where(ProfileRow.job == job, ProfileRow.party == party))
            session.merge(row)
            session.add_all(profile)

    # ---- sealed results ---------------------------------------------------------------------------------------------
    def keep(self, job: str, sealed: node_pb2.Sealed) -> None:
        """A piece of a result; the same piece again replaces it."""
        with self._transaction() as session:
            session.merge(
                SealedRow(
                    job=job,
                    recipient=sealed.recipient,
                    output=sealed.output,
                    sender=sealed.sender,
                    piece=sealed.piece,
                    pieces=sealed.pieces,
                    type=sealed.type.SerializeToString(deterministic=True),
                    data=sealed.data,
                )
            )

    def sealed(self, job: str, recipient: str) -> Iterator[node_pb2.Sealed]:
        """The pieces that were sealed to `recipient`, read one at a time: together they may be larger than memory."""
        key = (SealedRow.output, SealedRow.sender, SealedRow.piece)
        mine = (SealedRow.job == job, SealedRow.recipient == recipient)
        with self._transaction() as session:
            keys = session.execute(select(*key).where(*mine).order_by(*key)).all()
        for output, sender, piece in keys:
            with self._transaction() as session:
                row = session.get(SealedRow, (job, recipient, output, sender, piece))
                if row is None:
                    return  # pruned meanwhile: the recipient sees that pieces are missing
                yield node_pb2.Sealed(
                    output=row.output,
                    recipient=row.recipient,
                    sender=row.sender,
                    type=graph_pb2.Type.FromString(row.type),
                    piece=row.piece,
                    pieces=row.pieces,
                    data=row.data,
                )


def _fits(count: int) -> int:
    """The wire's counts have a bit more than a database's."""
    return min(count, 2**63 - 1)


def _reason(error: SQLAlchemyError) -> str:
    words = str(getattr(error, "orig", None) or type(error).__name__).strip()
    return words.splitlines()[0] if words else type(error).__name__


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, pool_pre_ping=True)
    except ArgumentError as error:
        raise ConfigError("a database is given as a URL, such as postgresql://user@host/name") from error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the database needs {error.name}, which is not installed: pip install 'mpcnode[postgres]'"
        ) from error
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _sqlite_options)
    return engine


def _sqlite_options(connection: Any, record: object) -> None:
    """Readers beside one writer, a written row survives a power cut, and rows go with the job they belong to."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _to_wire(row: JobRow, reports: Sequence[wire.NodeReport]) -> wire.Job:
    return wire.Job(
        job=row.job,
        name=row.name,
        submitter=row.submitter,
        state=WIRE_STATE[JobState(row.state)],
        attempt=row.attempt,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=node_pb2.Progress(done=row.done, total=row.total),
        cause=row.cause,
        graph_digest=row.digest,
        protocol=row.protocol,
        threat_model=row.threat_model,
        reports=reports,
        outputs=sorted(row.outputs),
    )


def _reports(session: Session, job: str) -> list[wire.NodeReport]:
    """The report of every node that finished, with its profile."""
    found = {}
    for row in session.scalars(select(ReportRow).where(ReportRow.job == job).order_by(ReportRow.party)):
        traffic = [
            node_pb2.LinkTraffic(peer=peer, sent_bytes=sent, waited_seconds=waited)
            for peer, (sent, waited) in sorted(row.traffic.items())
        ]
        found[row.party] = node_pb2.Finished(
            seconds=row.seconds, rounds=row.rounds, traffic=traffic, peak_mib=row.peak_mib
        )
    profile = select(ProfileRow).where(ProfileRow.job == job).order_by(ProfileRow.party, ProfileRow.number)
    for line in session.scalars(profile):
        found[line.party].profile.add(
            op=line.op,
            name=line.name,
            where=line.source_line,
            calls=line.calls,
            seconds=line.seconds,
            rounds=line.rounds,
            sent_bytes=line.sent_bytes,
        )
    return [wire.NodeReport(party=party, finished=finished) for party, finished in found.items()]
