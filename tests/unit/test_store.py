"""The database: what is written is there after a restart, and nothing else is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from coordinator.jobs import JobState, Run
from coordinator.store import WIRE_STATE, Base, DatabaseFailed, NewJob, Store
from mpcnode.errors import ConfigError
from mpcnode.wire import graph_pb2, node_pb2

POSTGRES = os.environ.get("MPCNODE_TEST_POSTGRES", "")  # the URL of a database that tests may empty


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    if not POSTGRES:
        pytest.skip("MPCNODE_TEST_POSTGRES names no database")
    engine = create_engine(make_url(POSTGRES).set(drivername="postgresql+psycopg"))
    Base.metadata.drop_all(engine)
    engine.dispose()
    return POSTGRES


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def rows(url: str, table: str) -> int:
    """How many rows a table has."""
    engine = create_engine(make_url(url.replace("postgresql:", "postgresql+psycopg:")))
    with engine.connect() as connection:
        found = connection.execute(text(f"select count(*) from {table}")).scalar_one()
    engine.dispose()
    return int(found)


def new_job(job: str) -> NewJob:
    return NewJob(
        run=Run(job),
        name=f"the {job}",
        submitter="analyst",
        protocol="masked",
        threat_model="passive",
        digest=b"digest",
        graph=b"graph",
        source="[job]",
        outputs={"weights": ["analyst"], "accuracy": ["a", "analyst"]},
    )


def sealed(
    output: str, sender: str, piece: int, recipient: str = "analyst", data: bytes = b"sealed"
) -> node_pb2.Sealed:
    kind = graph_pb2.Type(kind=graph_pb2.KIND_ARITH, frac=18, shape=[3])
    return node_pb2.Sealed(
        output=output, recipient=recipient, sender=sender, type=kind, piece=piece, pieces=2, data=data
    )


def test_a_job_is_found_again_in_every_state(store: Store) -> None:
    run = Run("one")
    store.add(new_job("one"), 1.0)
    for at, state in enumerate([JobState.QUEUED, JobState.PREPARING, JobState.RUNNING, JobState.DONE]):
        store.enter(run, state, "", at + 2.0)
        found = store.job("one")
        assert found is not None and found.state == WIRE_STATE[state]
    store.advance("one", 7, 9)
    found = store.job("one")
    assert found is not None
    assert (found.name, found.submitter, found.protocol, found.attempt) == ("the one", "analyst", "masked", 1)
    assert (found.submitted_at, found.started_at, found.ended_at) == (1.0, 4.0, 5.0)
    assert (found.progress.done, found.progress.total) == (7, 9)
    assert list(found.outputs) == ["accuracy", "weights"]


def test_there_is_no_job_that_was_not_added(store: Store) -> None:
    assert store.job("none") is None and store.program("none") is None and store.jobs(10) == []


def test_everything_is_there_after_a_restart(store: Store, url: str) -> None:
    store.add(new_job("one"), 1.0)
    store.enter(Run("one"), JobState.RUNNING, "", 2.0)
    store.record("one", "every node runs", 2.0)
    store.keep("one", sealed("weights", "a", 0))
    store.report("one", "a", node_pb2.Finished(seconds=1.5, rounds=4))
    store.close()
    again = Store(url)
    assert [p.run for p in again.programs(JobState.RUNNING)] == [Run("one")]
    assert [e.text for e in again.events("one")] == ["every node runs"]
    assert list(again.sealed("one", "analyst")) == [sealed("weights", "a", 0)]
    found = again.job("one")
    assert found is not None and found.reports[0].finished.seconds == 1.5
    again.close()


def test_programs_come_in_the_order_of_submission(store: Store) -> None:
    for i in (3, 1, 2):
        store.add(new_job(f"job{i}"), 10.0 - i)
    assert [p.run.job for p in store.programs(JobState.QUEUED)] == ["job3", "job1", "job2"]
    assert [j.job for j in store.jobs(2)] == ["job1", "job2"]
    program = store.program("job3")
    assert program is not None and (program.graph, program.source, program.digest) == (b"graph", "[job]", b"digest")


def test_a_job_id_is_given_once(store: Store) -> None:
    store.add(new_job("one"), 1.0)
    with pytest.raises(DatabaseFailed, match=r"(?i)unique") as caught:
        store.add(new_job("one"), 1.0)
    assert "analyst" not in str(caught.value)  # the database's words, without the row


def test_events_go_on_behind_a_number(store: Store) -> None:
    store.add(new_job("one"), 1.0)
    store.add(new_job("two"), 1.0)
    store.record("one", "a", 1.0)
    store.record("two", "b", 2.0)
    store.record("one", "c", 3.0)
    first, second = store.events("one")
    assert (first.text, second.text) == ("a", "c")
    assert list(store.events("one", first.number)) == [second]


def test_a_report_keeps_its_profile_in_order(store: Store) -> None:
    store.add(new_job("one"), 1.0)
    profile = [
        node_pb2.OpProfile(op=3, name="mul", where="t.py:1", calls=2, seconds=0.5, rounds=2, sent_bytes=16),
        node_pb2.OpProfile(op=1, name="dot", where="t.py:2", calls=1, seconds=0.1, rounds=1, sent_bytes=8),
    ]
    traffic = [
        node_pb2.LinkTraffic(peer="b", sent_bytes=24, waited_seconds=0.25),
        node_pb2.LinkTraffic(peer="c", sent_bytes=2**40),
    ]
    finished = node_pb2.Finished(seconds=2.0, rounds=3, traffic=traffic, profile=profile, peak_mib=12.5)
    store.report("one", "a", node_pb2.Finished(seconds=9.0, profile=profile * 2))
    store.report("one", "a", finished)  # a report that is read again replaces the first
    found = store.job("one")
    assert found is not None and [(r.party, r.finished) for r in found.reports] == [("a", finished)]
    without = store.job("one", reports=False)
    assert without is not None and not without.reports


def test_counts_may_be_as_large_as_the_wire_has_them(store: Store) -> None:
    store.add(new_job("one"), 1.0)
    profile = [node_pb2.OpProfile(op=2**32 - 1, calls=2**40, sent_bytes=2**64 - 1)]
    store.report("one", "a", node_pb2.Finished(rounds=2**40, profile=profile))
    store.advance("one", 2**40, 2**64 - 1)
    found = store.job("one")
    assert found is not None and found.progress.done == 2**40
    assert found.reports[0].finished.profile[0].sent_bytes == 2**63 - 1


def test_sealed_pieces_go_to_their_recipient_only(store: Store) -> None:
    store.add(new_job("one"), 1.0)
    for sender in ("b", "a"):
        for piece in (1, 0):
            store.keep("one", sealed("weights", sender, piece))
    store.keep("one", sealed("weights", "a", 0, data=b"again"))
    store.keep("one", sealed("accuracy", "a", 0, recipient="a"))
    mine = [(s.sender, s.piece, s.data) for s in store.sealed("one", "analyst")]
    assert mine == [("a", 0, b"again"), ("a", 1, b"sealed"), ("b", 0, b"sealed"), ("b", 1, b"sealed")]
    assert [s.output for s in store.sealed("one", "a")] == ["accuracy"]
    assert list(store.sealed("one", "b")) == [] and list(store.sealed("two", "analyst")) == []


@pytest.mark.parametrize("state", [JobState.ABORTED, JobState.CANCELLED])
def test_a_job_that_fails_leaves_no_results(store: Store, state: JobState) -> None:
    store.add(new_job("one"), 1.0)
    store.keep("one", sealed("weights", "a", 0))
    store.enter(Run("one"), state, "b was lost", 2.0)
    assert list(store.sealed("one", "analyst")) == []
    found = store.job("one")
    assert found is not None and found.cause == "b was lost"


def test_the_oldest_ended_jobs_are_forgotten_with_all_that_hangs_on_them(store: Store, url: str) -> None:
    for i in range(6):
        store.add(new_job(f"job{i}"), 1.0)
        store.record(f"job{i}", "x", 1.0)
        store.keep(f"job{i}", sealed("weights", "a", 0))
        store.report(f"job{i}", "a", node_pb2.Finished(profile=[node_pb2.OpProfile(op=1)]))
        if i != 1:
            store.enter(Run(f"job{i}"), JobState.DONE, "", 2.0)
    store.prune(2)
    assert [j.job for j in store.jobs(10)] == ["job1", "job4", "job5"]  # one that waits is never forgotten
    for table in ("events", "sealed", "reports", "profiles"):
        assert rows(url, table) == 3
    store.prune(10)
    assert len(store.jobs(10)) == 3


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    Store.in_folder(tmp_path).close()
    with sqlite3.connect(tmp_path / "coordinator.sqlite") as connection:
        connection.execute("update version set version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="tables of version 99"):
        Store.in_folder(tmp_path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "given as a URL"),
        ("oracle://x", "URL|not installed"),
        ("sqlite:////nonexistent/folder/x.sqlite", "cannot be used: unable to open"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_sentence(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Store(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "coordinator.sqlite").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        Store.in_folder(tmp_path)


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Store("postgresql://user:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(caught.value)
