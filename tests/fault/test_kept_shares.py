"""What nodes keep, when jobs fail, nodes go away in between, and shares of different makings meet."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import DATA, Clerk, looped

from coordinator.lower.builder import Builder
from mpcnode.datasets import Datasets
from mpcnode.graph import Graph, Kind, Type
from mpcnode.kept import Kept
from mpcnode.service import Server
from mpcnode.wire import node_pb2

Servers = dict[str, Server]
COLUMNS = ("u", "v", "w")


@pytest.fixture(autouse=True)
def visits(clerk: Clerk, tmp_path: Path) -> None:
    """clinic_a's dataset, of which things may be kept, and one of which they may not."""
    np.save(tmp_path / "x.npy", DATA)
    datasets = Datasets(clerk.members["clinic_a"].folder)
    for name, keep in (("visits", True), ("private", False)):
        datasets.add(name, tmp_path / "x.npy", ["analyst"], columns=COLUMNS, keep=keep)


def keeping(length: int = 0, dataset: str = "visits", to: tuple[str, ...] = ("analyst",), replace: int = 0) -> Graph:
    """Keeps x, after it was multiplied by one that often, and whether it is negative."""
    b = Builder()
    x = b.emit("input", type=Type(Kind.ARITH, 18, (8, 3)), owner="clinic_a", dataset=dataset, columns=COLUMNS)
    y = looped(b, x, length) if length else x
    b.emit("store", y, kept="model", path=(".x",), dtype="float32", to=to, replace=replace)
    b.emit("store", b.emit("sign", y, lo=0), kept="model", path=(".low",), dtype="bool", to=to, replace=replace)
    return b.graph()


def using(run: str = "job/1") -> Graph:
    """Reveals the square of what was kept, and what was negative of it."""
    b = Builder()
    x = b.emit("load", type=Type(Kind.ARITH, 18, (8, 3)), kept="model", run=run, path=(".x",))
    low = b.emit("load", type=Type(Kind.BIT, 0, (8, 3)), kept="model", run=run, path=(".low",))
    b.emit("reveal", b.emit("trunc", b.emit("mul", x, x), by=18), to=("analyst",), name="square")
    b.emit("reveal", b.emit("select", low, x, keep=1), to=("analyst",), name="low")
    return b.graph()


def finish(clerk: Clerk, graph: Graph, job: str = "job") -> None:
    clerk.begin(graph, job)
    for name in clerk.nodes:
        assert clerk.last(name, job).HasField("finished")


def keep(clerk: Clerk, *names: str, job: str = "job") -> None:
    for name in names or clerk.nodes:
        clerk.nodes[name].Keep(node_pb2.KeepRequest(job=job, attempt=1), timeout=10)


def abort(clerk: Clerk, name: str, job: str = "job") -> None:
    clerk.nodes[name].Abort(node_pb2.AbortRequest(job=job, attempt=1, cause="enough"), timeout=10)


def shares(clerk: Clerk) -> dict[str, list[Path]]:
    return {name: list((clerk.members[name].folder / "kept").glob("*.share")) for name in clerk.nodes}


def restart(clerk: Clerk, servers: Servers, name: str) -> None:
    servers[name].stop()
    servers[name] = Server(clerk.members[name], clerk.cluster, listen=f"{clerk.cluster.card(name).address}")
    servers[name].start()


def refusal(clerk: Clerk, name: str, graph: Graph, job: str) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        clerk.prepare(name, graph, job)
    error: grpc.Call = refused.value  # type: ignore[assignment]
    return error.details() or ""


def test_what_was_kept_is_used(clerk: Clerk, servers: Servers) -> None:
    finish(clerk, keeping(length=3))
    keep(clerk)
    finish(clerk, using(), "later")
    found = clerk.open(using(), "later")
    np.testing.assert_allclose(found["square"], DATA**2, atol=1e-3)
    np.testing.assert_allclose(found["low"], np.minimum(DATA, 0), atol=1e-3)


def test_a_job_that_is_aborted_leaves_nothing(clerk: Clerk, servers: Servers) -> None:
    finish(clerk, keeping())
    assert all(len(found) == 1 for found in shares(clerk).values())
    restart(clerk, servers, "clinic_b")  # it has forgotten the attempt, and not what it holds of it
    for name in ("helper", "clinic_a"):
        abort(clerk, name)
    with pytest.raises(grpc.RpcError, match="knows nothing of attempt 1"):
        abort(clerk, "clinic_b")
    assert not any(shares(clerk).values())
    assert "does not hold its share of model as job/1 made it" in refusal(clerk, "clinic_a", using(), "later")


def test_a_node_that_goes_away_leaves_the_others_with_nothing(clerk: Clerk, servers: Servers) -> None:
    clerk.begin(keeping(length=1_000_000))
    next(clerk.watch("clinic_a"))
    servers["clinic_b"].stop()
    clerk.failures(but="clinic_b")
    assert not any(shares(clerk).values())


def test_a_node_that_was_away_when_it_was_done_finds_out_later(clerk: Clerk, servers: Servers) -> None:
    finish(clerk, keeping())
    restart(clerk, servers, "clinic_b")
    keep(clerk, "helper", "clinic_a")
    [kept] = clerk.nodes["clinic_b"].Kept(node_pb2.KeptRequest(), timeout=10).kept
    assert not kept.counts
    finish(clerk, using(), "later")
    [kept] = clerk.nodes["clinic_b"].Kept(node_pb2.KeptRequest(), timeout=10).kept
    assert kept.counts
    abort(clerk, "helper")  # too late
    assert all(shares(clerk).values())


def test_shares_of_different_makings_do_not_meet(clerk: Clerk, servers: Servers) -> None:
    """A coordinator that runs a job twice under one name after the nodes have restarted; and old backups."""
    finish(clerk, keeping())
    keep(clerk)
    [old] = shares(clerk)["clinic_b"]
    backup = old.read_bytes()
    for name in clerk.nodes:
        restart(clerk, servers, name)
        Kept(clerk.members[name]).remove("model")
    finish(clerk, keeping())
    keep(clerk)
    old.write_bytes(backup)
    clerk.begin(using(), "later")
    for failed in clerk.failures("later").values():
        assert "its shares of a kept value are of another making" in failed.cause


@pytest.mark.parametrize("name", ["helper", "clinic_b"])
def test_a_node_without_its_share_says_so(clerk: Clerk, servers: Servers, name: str) -> None:
    finish(clerk, keeping())
    keep(clerk)
    Kept(clerk.members[name]).remove("model")
    assert f"{name} does not hold its share of model" in refusal(clerk, name, using(), "later")


def test_a_name_is_kept_once_unless_it_is_replaced(clerk: Clerk, servers: Servers) -> None:
    finish(clerk, keeping())
    keep(clerk)
    assert "clinic_a keeps model already, made by job" in refusal(clerk, "clinic_a", keeping(), "second")
    finish(clerk, keeping(replace=1), "third")
    finish(clerk, using(), "before")  # until the new one counts, the old one does
    keep(clerk, job="third")
    assert all([path.name for path in found] == ["model@third@1.share"] for found in shares(clerk).values())
    finish(clerk, using("third/1"), "after")
    assert "but the one of third/1: compile the job anew" in refusal(clerk, "clinic_b", using(), "late")


def test_owners_and_evaluators_are_asked(clerk: Clerk, servers: Servers) -> None:
    assert "clinic_a does not allow that" in refusal(clerk, "clinic_a", keeping(dataset="private"), "one")
    assert "which is not for clinic_b" in refusal(clerk, "clinic_a", keeping(to=("clinic_b",)), "two")
    finish(clerk, keeping(to=()), "job")
    keep(clerk)
    for name in clerk.cluster.evaluators:
        assert "square is computed from the kept model" in refusal(clerk, name, using(), "three")
        Kept(clerk.members[name]).allow("model", programs=[using().digest().hex()])
    finish(clerk, using(), "four")
