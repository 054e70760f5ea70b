"""The coordinator between real servers with mutual TLS; the nodes follow scripts (fake_nodes.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_nodes import EVALUATORS, LIMIT_S, NAMES, VALUE, World, program, world

from coordinator import clerk as clerk_module
from coordinator import nodes as nodes_module
from coordinator import service as service_module
from coordinator.calls import CallFailed
from coordinator.client import Client
from coordinator.compiled import Compiled
from coordinator.jobfile import Plan
from coordinator.store import Store
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError, MpcError, SealError
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.graph_wire import type_to_wire
from mpcnode.wire import coordinator_pb2 as wire
from mpcnode.wire import graph_pb2, node_pb2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def compiled(graph: Graph, name: str = "study") -> Compiled:
    return Compiled(Plan(name, 18, {}, {}), {"final": graph}, "[job]\n")


def state(job: wire.Job) -> str:
    return wire.JobState.Name(job.state).removeprefix("JOB_STATE_")


def ended(client: Client, job: str) -> wire.Job:
    """The job once it has ended."""
    done = threading.Timer(LIMIT_S, client.close)
    done.start()
    for _ in client.watch(job):
        pass
    done.cancel()
    return client.get(job)


def until(client: Client, job: str, holds: Callable[[wire.JobEvent], bool]) -> wire.JobEvent:
    """The first event of the job for which `holds`."""
    return next(event for event in client.watch(job) if holds(event))


def held(world: World, client: Client) -> str:
    """A job that all nodes work on, until somebody sets their `hold`."""
    for node in world.nodes.values():
        node.hold.clear()
    job = client.submit(compiled(program()))
    until(client, job, lambda event: event.job.progress.done == 1)
    return job


# ---- the straight way -----------------------------------------------------------------------------------------------
def test_a_job_runs_and_its_recipient_reads_the_result(cluster: World, tmp_path: Path) -> None:
    client = cluster.client()
    job = client.submit(compiled(program(), "Breast cancer!"))
    assert job.startswith("breast-cancer-")
    found = ended(client, job)
    assert (state(found), found.submitter, found.protocol) == ("DONE", "analyst", "masked")
    assert found.threat_model and list(found.outputs) == ["result"]
    assert found.submitted_at <= found.started_at <= found.ended_at
    assert (found.progress.done, found.progress.total) == (1, 2)
    assert [report.party for report in found.reports] == sorted(NAMES)
    assert found.reports[0].finished.profile[0].where == "train.py:2"
    arrays = client.result(job, tmp_path / "out")
    np.testing.assert_array_equal(arrays["result"], VALUE)
    with np.load(tmp_path / "out" / "result.npz", allow_pickle=False) as files:
        np.testing.assert_array_equal(files["result"], VALUE)


def test_watchers_see_the_same_story_early_and_late(cluster: World) -> None:
    client = cluster.client()
    job = client.submit(compiled(program()))
    texts = [event.text for event in client.watch(job) if event.text]
    assert texts[0] == "queued" and texts[-1] == "done"
    assert [event.text for event in cluster.client("clinic_a").watch(job)] == texts


def test_jobs_run_one_after_the_other(cluster: World) -> None:
    client = cluster.client()
    first = held(cluster, client)
    second, third = client.submit(compiled(program())), client.submit(compiled(program()))
    assert [state(job) for job in client.list()] == ["RUNNING", "QUEUED", "QUEUED"]
    for node in cluster.nodes.values():
        node.hold.set()
    assert state(ended(client, third)) == "DONE"
    starts = [job for call, job in cluster.nodes["clinic_a"].calls if call == "start"]
    assert starts == [first, second, third]


def test_the_program_can_be_read_by_every_member(cluster: World) -> None:
    job = cluster.client().submit(compiled(program()))
    assert cluster.client("clinic_b").program(job).digest() == program().digest()


def test_the_schemas_of_all_owners(cluster: World) -> None:
    parties = cluster.client().schemas()
    assert [party.party for party in parties] == list(EVALUATORS)
    assert parties[0].schemas[0].rows == 3


# ---- who may what ---------------------------------------------------------------------------------------------------
def kept(job: str, counts: bool = True, name: str = "model") -> node_pb2.Kept:
    leaf = node_pb2.Leaf(path=[".w"], type=type_to_wire(Type(Kind.ARITH, 18, (2,))), dtype="float32")
    return node_pb2.Kept(name=name, job=job, attempt=1, program="ab" * 32, parties=NAMES, leaves=[leaf], counts=counts)


def test_kept_values_and_who_lacks_a_share(cluster: World) -> None:
    client = cluster.client()
    done = client.submit(compiled(program()))
    ended(client, done)
    cluster.nodes["helper"].kept = [kept("old"), kept(done, False, "new"), kept("failed", False, "ghost")]
    cluster.nodes["clinic_a"].kept = [kept("old"), kept(done, False, "new")]
    cluster.nodes["clinic_b"].kept = [kept(done, False, "new"), kept("failed", False, "ghost")]
    found = {value.kept.name: (value.kept.counts, list(value.missing)) for value in client.kept()}
    assert found == {"model": (True, ["clinic_b"]), "new": (True, [])}  # the job of "new" is done, whatever nodes heard
    cluster.nodes["clinic_b"].kept[0].program = "cd" * 32
    assert {value.kept.name: list(value.missing) for value in client.kept()}["new"] == ["clinic_b"]
    cluster.stop_node("clinic_a")
    assert {value.kept.name: list(value.missing) for value in client.kept()}["model"] == ["clinic_a", "clinic_b"]
    cluster.start_node("clinic_a")


def test_nodes_hear_that_what_they_keep_counts(cluster: World) -> None:
    client = cluster.client()
    graph = program()
    store = {"kept": "model", "path": (), "dtype": "float32", "to": (), "replace": 0}
    job = client.submit(compiled(Graph((*graph.ops, Op("store", (1,), store, graph.ops[1].type)))))
    assert state(ended(client, job)) == "DONE"
    finish = time.monotonic() + LIMIT_S
    while any(("keep", job) not in node.calls for node in cluster.nodes.values()):
        assert time.monotonic() < finish
        time.sleep(0.01)


def test_a_recipient_gets_nothing_that_is_sealed_to_another(cluster: World) -> None:
    job = cluster.client().submit(compiled(program(recipients=("analyst", "clinic_b"))))
    assert state(ended(cluster.client(), job)) == "DONE"
    np.testing.assert_array_equal(cluster.client("clinic_b").result(job)["result"], VALUE)
    with pytest.raises(ConfigError, match="no output for clinic_a"):
        cluster.client("clinic_a").result(job)


def test_a_stranger_does_not_get_through_the_handshake(cluster: World) -> None:
    cards = [identity.card for name, identity in cluster.identities.items() if name != "analyst"]
    header = {"evaluators": list(EVALUATORS), "coordinator": "coordinator", "helper": "helper"}
    theirs = Cluster.of("study", cards, **header)  # type: ignore[arg-type]
    with pytest.raises(CallFailed, match="coordinator"):
        cluster.client("stranger", theirs).list()


def test_a_member_with_another_cluster_file_is_told(cluster: World) -> None:
    other = Cluster.of(
        "other", list(cluster.cluster.cards), evaluators=list(EVALUATORS), coordinator="coordinator", helper="helper"
    )
    with pytest.raises(ConfigError, match=r"another cluster\.toml"):
        cluster.client("analyst", other).submit(compiled(program()))


def test_only_the_submitter_and_the_parties_cancel(cluster: World) -> None:
    by_clinic = cluster.client("clinic_a")
    job = held(cluster, by_clinic)
    with pytest.raises(CallFailed, match="analyst may not cancel"):
        cluster.client("analyst").cancel(job)
    cluster.client("helper").cancel(job)
    found = ended(by_clinic, job)
    assert (state(found), found.cause) == ("CANCELLED", "cancelled by helper")
    assert [node.aborted[job] for node in cluster.nodes.values()] == ["cancelled by helper"] * 3
    with pytest.raises(CallFailed, match="is cancelled already"):
        by_clinic.cancel(job)


def test_a_queued_job_is_cancelled_before_any_node_hears_of_it(cluster: World) -> None:
    client = cluster.client()
    first = held(cluster, client)
    second = client.submit(compiled(program()))
    client.cancel(second)
    assert state(client.get(second)) == "CANCELLED"
    client.cancel(first)
    ended(client, first)
    assert all(job != second for node in cluster.nodes.values() for _, job in node.calls)


@pytest.mark.parametrize("method", ["get", "cancel", "program", "result"])
def test_a_job_that_does_not_exist_is_one_sentence(cluster: World, method: str) -> None:
    with pytest.raises(CallFailed, match="there is no job nothing: see `coordinator jobs`"):
        getattr(cluster.client(), method)("nothing")
    with pytest.raises(CallFailed, match="there is no job nothing"):
        list(cluster.client().watch("nothing"))


# ---- programs that are refused --------------------------------------------------------------------------------------
COLUMN = Type(Kind.ARITH, 18, (3, 1))


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (program(owner="analyst"), "the job reads analyst/wdbc, and analyst brings no data"),
        (program(owner="helper"), "helper brings no data"),
        (program(recipients=("mallory",)), "output result is for mallory, who is not in the cluster study"),
        (Graph(program().ops[:2]), "the job reveals and keeps nothing"),
        (Graph((Op("fly", (), {}, COLUMN),)), "no valid graph: %0 = fly: is no op"),
        (Graph((*program().ops[:1], Op("neg", (0,), {}, COLUMN._replace(frac=3)))), "should be arith.18"),
    ],
)
def test_a_program_that_nobody_could_run_is_refused(cluster: World, graph: Graph, why: str) -> None:
    with pytest.raises(CallFailed, match=why) as caught:
        cluster.client().submit(compiled(graph))
    assert "\n" not in str(caught.value)
    assert cluster.client().list() == []


def test_the_queue_and_names_are_bounded(cluster: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerk_module, "MAX_QUEUE", 1)
    client = cluster.client()
    job = held(cluster, client)
    client.submit(compiled(program()))
    with pytest.raises(CallFailed, match="1 jobs are waiting already"):
        client.submit(compiled(program()))
    with pytest.raises(CallFailed, match="one line of at most 100 characters"):
        client.submit(compiled(program(), "x" * 101))
    client.cancel(job)


def test_those_who_watch_leave_room_for_those_who_ask(cluster: World) -> None:
    client = cluster.client()
    job = held(cluster, client)
    watchers: list[Iterator[wire.JobEvent]] = []
    with pytest.raises(CallFailed, match="24 streams are open already"):
        for _ in range(service_module.STREAMS + 1):
            watcher = client.watch(job)
            next(watcher)
            watchers.append(watcher)
    client.cancel(job)
    for watcher in watchers:
        assert state(list(watcher)[-1].job) == "CANCELLED"


# ---- nodes that fail ------------------------------------------------------------------------------------------------
def fails(world: World, cause: str) -> None:
    """A job ends for `cause`, every node that can be reached hears it, and the next job runs."""
    client = world.client()
    found = ended(client, client.submit(compiled(program())))
    assert (state(found), found.cause) == ("ABORTED", cause)
    with pytest.raises(CallFailed, match="has no results, it is aborted"):
        client.result(found.job)


def test_a_node_that_refuses_to_prepare(cluster: World) -> None:
    cluster.nodes["clinic_b"].prepare_fails = "output result would go to analyst, whom clinic_b does not allow"
    fails(cluster, "clinic_b: output result would go to analyst, whom clinic_b does not allow")
    causes = {cause for node in cluster.nodes.values() for cause in node.aborted.values()}
    assert len(causes) == 1


def test_a_node_that_prepares_another_program(cluster: World) -> None:
    cluster.nodes["clinic_a"].digest = bytes(32)
    digest = program().digest().hex()[:12]
    fails(cluster, f"clinic_a prepared another program (000000000000) than was submitted ({digest})")


def test_a_node_with_another_cluster_file(cluster: World) -> None:
    cluster.nodes["helper"].cluster_digest = bytes(32)
    fails(
        cluster,
        "helper: helper has another cluster.toml than the coordinator: give everybody the same file and restart",
    )


def test_a_node_that_does_not_start(cluster: World) -> None:
    cluster.nodes["clinic_a"].start_fails = "another job runs here"
    fails(cluster, "clinic_a: another job runs here")


def test_a_node_that_fails_names_op_and_peer(cluster: World) -> None:
    cluster.nodes["clinic_a"].failure = node_pb2.Failed(cause="late", peer="clinic_b", where="mul (train.py:2)")
    cluster.nodes["clinic_b"].hold.clear()
    cluster.nodes["helper"].hold.clear()
    fails(cluster, "clinic_a: late, at mul (train.py:2), because of clinic_b")


def test_a_node_cannot_write_into_terminals_and_logs(cluster: World) -> None:
    cluster.nodes["clinic_a"].failure = node_pb2.Failed(cause="\x1b[2Jlate\n\0" + "x" * 5000)
    client = cluster.client()
    found = ended(client, client.submit(compiled(program())))
    assert found.cause.startswith("clinic_a: [2Jlate  xxx") and found.cause.isprintable() and len(found.cause) < 2100


def test_a_node_that_finishes_without_its_results(cluster: World) -> None:
    cluster.nodes["clinic_b"].mute = True
    fails(cluster, "clinic_b finished without its part of result for analyst")


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        ({"recipient": "clinic_a"}, "delivered 'result' for 'clinic_a', which the job does not promise"),
        ({"output": "data"}, "delivered 'data' for 'analyst', which the job does not promise"),
        ({"sender": "clinic_b"}, "delivered a piece in the name of 'clinic_b'"),
        ({"type": graph_pb2.Type(kind=graph_pb2.KIND_BIT)}, "delivered result as another type than the program says"),
        ({"piece": 2}, "delivered piece 2 of 2 of result"),
        ({"pieces": 0}, "delivered piece 0 of 0 of result"),
        ({"pieces": 1000}, "delivered piece 0 of 1000 of result"),
        ({"data": bytes(10_000)}, "delivered more of result than there is"),
    ],
)
def test_a_node_that_delivers_what_is_not_its_own(cluster: World, forged: dict[str, object], why: str) -> None:
    cluster.nodes["clinic_a"].forge = forged
    fails(cluster, f"clinic_a {why}")


def test_a_node_that_is_away_is_waited_for(cluster: World) -> None:
    cluster.stop_node("clinic_b")
    client = cluster.client()
    job = client.submit(compiled(program()))
    event = until(client, job, lambda event: event.text.startswith("waiting"))
    assert event.text.startswith("waiting for clinic_b: clinic_b cannot be reached")
    cluster.start_node("clinic_b")
    assert state(ended(client, job)) == "DONE"


def test_a_node_that_stays_away_is_named(cluster: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "CONNECT_S", 1.0)
    monkeypatch.setattr(clerk_module, "STOP_S", 0.5)
    cluster.stop_node("clinic_b")
    fails(cluster, "clinic_b has not answered for 1 s")
    with pytest.raises(CallFailed, match="clinic_b cannot be reached"):
        cluster.client().schemas()
    cluster.stop_coordinator()  # while the short limits hold


def test_a_report_that_breaks_off_is_read_again(cluster: World) -> None:
    cluster.nodes["clinic_a"].breaks = 2
    client = cluster.client()
    job = client.submit(compiled(program()))
    assert state(ended(client, job)) == "DONE"
    np.testing.assert_array_equal(client.result(job)["result"], VALUE)
    assert [call for call, _ in cluster.nodes["clinic_a"].calls].count("watch") == 3


def test_cancelling_while_a_node_prepares(cluster: World) -> None:
    cluster.nodes["clinic_a"].hold_prepare.clear()
    client = cluster.client()
    job = client.submit(compiled(program()))
    until(client, job, lambda event: state(event.job) == "PREPARING")
    client.cancel(job)
    assert cluster.nodes["clinic_a"].let_go.wait(LIMIT_S)
    assert state(ended(client, job)) == "CANCELLED"


# ---- restarts -------------------------------------------------------------------------------------------------------
def test_after_a_stop_the_running_job_is_aborted_and_the_queue_goes_on(cluster: World) -> None:
    client = cluster.client()
    first = held(cluster, client)
    second = client.submit(compiled(program()))
    cluster.stop_coordinator()
    assert [node.aborted[first] for node in cluster.nodes.values()] == ["the coordinator was shut down"] * 3
    cluster.start_coordinator()
    client = cluster.client()
    assert state(ended(client, second)) == "DONE"
    assert client.get(first).cause == "the coordinator was shut down"
    assert [event.text for event in client.watch(first)][-1] == "aborted: the coordinator was shut down"
    np.testing.assert_array_equal(client.result(second)["result"], VALUE)


def test_after_a_crash_the_running_job_is_aborted_with_its_nodes(cluster: World) -> None:
    client = cluster.client()
    job = client.submit(compiled(program()))
    assert state(ended(client, job)) == "DONE"
    cluster.stop_coordinator()
    store = Store.in_folder(cluster.identities["coordinator"].folder)  # as a crash would leave it
    running = store.programs(clerk_module.JobState.DONE)[0].run
    store.enter(running, clerk_module.JobState.RUNNING, "", 1.0)
    store.close()
    cluster.start_coordinator()
    client = cluster.client()
    found = ended(client, job)
    cause = "the coordinator was restarted while the job ran"
    assert (state(found), found.cause) == ("ABORTED", cause)
    assert all(node.let_go.wait(LIMIT_S) and node.aborted[job] == cause for node in cluster.nodes.values())


def test_a_database_that_fails_stops_the_coordinator(cluster: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = cluster.client()
    job = held(cluster, client)
    assert cluster.server is not None

    def full(*_: object) -> None:
        raise clerk_module.DatabaseFailed("the database failed: disk is full")

    monkeypatch.setattr(Store, "record", full)
    with pytest.raises(MpcError):
        client.cancel(job)
    assert cluster.server.told_to_stop.wait(LIMIT_S)
    with pytest.raises(clerk_module.DatabaseFailed, match="disk is full"):
        cluster.stop_coordinator()
    cluster.server = None
    cluster.start_coordinator()


def test_a_second_coordinator_on_the_same_address_is_refused(cluster: World) -> None:
    with pytest.raises(ConfigError, match="is a coordinator running already"):
        cluster.start_coordinator()


def test_only_the_coordinator_of_the_cluster_coordinates(cluster: World) -> None:
    identity = cluster.identities["clinic_a"]
    with pytest.raises(ConfigError, match="is coordinator, not clinic_a"):
        service_module.Server(identity, cluster.cluster, Store.in_folder(identity.folder), listen="127.0.0.1:0")


# ---- results that were tampered with --------------------------------------------------------------------------------
def tampered(world: World, change: Callable[[node_pb2.Sealed], list[node_pb2.Sealed]]) -> Client:
    """A client of a coordinator that hands out every piece as `change` says."""
    client = world.client()
    fetch = client._stub.Results

    class Forged:
        """Looks like the call."""

        def __init__(self, request: wire.ResultsRequest) -> None:
            self._call = fetch(request)

        def __iter__(self) -> Iterator[node_pb2.Sealed]:
            for piece in self._call:
                yield from change(piece)

        def cancel(self) -> None:
            self._call.cancel()

    client._stub.Results = Forged  # type: ignore[assignment]
    return client


def changed(original: node_pb2.Sealed, **fields: object) -> list[node_pb2.Sealed]:
    other = node_pb2.Sealed()
    other.CopyFrom(original)
    for key, value in fields.items():
        setattr(other, key, value)
    return [other]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: [p] if p.piece else [], "1 of 2 pieces of result from clinic_a are missing"),
        (lambda p: [p] if p.sender == "clinic_a" else [], "1 of 1 pieces of result from clinic_b are missing"),
        (lambda p: [p, p], "came twice"),
        (lambda p: changed(p, data=p.data[:-1] + bytes([p.data[-1] ^ 1])), "does not open"),
        (lambda p: changed(p, piece=1 - p.piece), "does not open"),
        (lambda p: changed(p, sender="clinic_b" if p.sender == "clinic_a" else "clinic_a"), "does not open"),
        (lambda p: changed(p, pieces=1, piece=0) if not p.piece else [], "does not open"),
        (lambda p: changed(p, output="other"), "which study-[0-9a-f]+ does not promise to analyst"),
    ],
)
def test_a_result_that_was_tampered_with_is_refused(
    cluster: World, change: Callable[[node_pb2.Sealed], list[node_pb2.Sealed]], why: str
) -> None:
    job = cluster.client().submit(compiled(program()))
    ended(cluster.client(), job)
    with pytest.raises(SealError, match=why):
        tampered(cluster, change).result(job)
