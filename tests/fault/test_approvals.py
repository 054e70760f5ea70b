"""Datasets that only approved programs may read: every owner's own node decides, whatever the coordinator says."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import DATA, Clerk

from coordinator.lower.builder import Builder
from mpcnode.datasets import Datasets
from mpcnode.graph import Graph, Kind, Type
from mpcnode.service import Server

OWNERS = ("clinic_a", "clinic_b")
COLUMNS = ("u", "v", "w")


@pytest.fixture(autouse=True)
def visits(clerk: Clerk, tmp_path: Path) -> None:
    """Each owner's dataset: nobody may learn anything from it yet."""
    np.save(tmp_path / "x.npy", DATA)
    for owner in OWNERS:
        datasets(clerk, owner).add("visits", tmp_path / "x.npy", [], columns=COLUMNS, programs=[])


def datasets(clerk: Clerk, owner: str) -> Datasets:
    return Datasets(clerk.members[owner].folder)


def program(*to: str, by: float = 1.0) -> Graph:
    """The sum of both owners' rows, and for by = 0 the rows of one of them: what a recipient should not get."""
    b = Builder()
    kind = Type(Kind.ARITH, 18, (8, 3))
    x, y = (b.emit("input", type=kind, owner=owner, dataset="visits", columns=COLUMNS) for owner in OWNERS)
    b.emit("reveal", b.emit("add", x, y) if by else x, to=to or ("analyst",), name="sums")
    return b.graph()


def approve(clerk: Clerk, graph: Graph, *recipients: str) -> None:
    for owner in OWNERS:
        datasets(clerk, owner).allow("visits", recipients, [graph.digest().hex()])


def refusal(clerk: Clerk, name: str, graph: Graph, job: str) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        clerk.prepare(name, graph, job)
    error: grpc.Call = refused.value  # type: ignore[assignment]
    return str(error.details())


def test_a_program_that_nobody_approved_is_refused_by_every_owner(clerk: Clerk, servers: dict[str, Server]) -> None:
    """And by no one else: the helper has nothing to say in it."""
    clerk.prepare("helper", program(), "one")
    for owner in OWNERS:
        digest = program().digest().hex()
        assert refusal(clerk, owner, program(), "one") == (
            f"{owner} has not approved this program, and only those that it has may read {owner}/visits: to approve "
            f"it, `mpcnode data allow visits --program {digest}` at {owner}"
        )
    datasets(clerk, "clinic_a").allow("visits", programs=[program().digest().hex()])
    clerk.prepare("clinic_a", program(), "two")
    assert "clinic_b has not approved this program" in refusal(clerk, "clinic_b", program(), "two")


def test_an_approved_program_runs_while_others_do_not(clerk: Clerk, servers: dict[str, Server]) -> None:
    approve(clerk, program())
    clerk.begin(program(), "one")
    assert all(clerk.last(name, "one").HasField("finished") for name in clerk.nodes)
    np.testing.assert_allclose(clerk.open(program(), "one")["sums"], 2 * DATA, atol=1e-4)
    for other in (program("analyst", "clinic_b"), program(by=0.0)):
        for owner in OWNERS:
            assert f"{owner} has not approved this program" in refusal(clerk, owner, other, "two")
    for owner in OWNERS:
        datasets(clerk, owner).forbid("visits")
        assert f"{owner} has not approved this program" in refusal(clerk, owner, program(), "three")


def test_an_approval_for_other_recipients_does_not_count(clerk: Clerk, servers: dict[str, Server]) -> None:
    approve(clerk, program(), "clinic_b")
    sentence = "output sums is computed from clinic_a/visits and would go to analyst, whom clinic_a does not allow"
    assert sentence in refusal(clerk, "clinic_a", program(), "one")
    approve(clerk, program(), "analyst")
    clerk.begin(program(), "two")
    assert all(clerk.last(name, "two").HasField("finished") for name in clerk.nodes)


def test_a_coordinator_that_shows_owners_an_approved_program_and_runs_another_one(
    clerk: Clerk, servers: dict[str, Server]
) -> None:
    """clinic_a is shown what it approved, and the others, who approve of everything, what reveals its rows."""
    datasets(clerk, "clinic_a").allow("visits", programs=[program().digest().hex()])
    datasets(clerk, "clinic_b").allow("visits", ["anyone"])
    for name in clerk.nodes:
        clerk.prepare(name, program() if name == "clinic_a" else program(by=0.0))
    for name in clerk.nodes:
        clerk.start(name)
    for failed in clerk.failures().values():
        assert "it was given another program: do not trust the coordinator" in failed.cause
    for name in clerk.nodes:
        assert not any(event.HasField("sealed") for event in clerk.watch(name))
