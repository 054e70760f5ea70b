"""Joined rows: a run begins only where all owners hold the same keys, and what they say of them tells nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import Clerk

from coordinator import cost
from coordinator.lower.builder import Builder
from mpcnode import protocols
from mpcnode.datasets import Datasets
from mpcnode.errors import DataError
from mpcnode.graph import Graph, GraphError, Kind, Op, Type
from mpcnode.matching import TAG_BYTES
from mpcnode.service import Server
from mpcnode.simulate import Message, SimulatedHooks, parties, simulate
from mpcnode.verify import verify

OWNERS = ("clinic_a", "clinic_b", "clinic_c")
DATA = {(owner, "d"): np.arange(6.0).reshape(3, 2) + 10 * i for i, owner in enumerate(OWNERS)}
WIDE = np.concatenate(list(DATA.values()), axis=1)
Tags = list[Message]


def joined(*owners: str) -> Graph:
    """The sum over the rows of what these owners hold, and of one column alone."""
    b = Builder()
    kind = Type(Kind.ARITH, 18, (3, 2))
    inputs = [b.emit("input", owner=owner, dataset="d", columns=("u", "v"), type=kind) for owner in owners]
    b.emit("reveal", b.emit("sum", b.emit("join", *inputs), axes=(0,)), to=("analyst",), name="sums")
    graph = b.graph()
    verify(graph)
    return graph


class Keys(SimulatedHooks):
    def __init__(self, keys: dict[str, bytes]) -> None:
        super().__init__(DATA)
        self._keys = keys

    def keys(self, op: Op) -> bytes:
        return self._keys.get(op.text("owner"), b"same")


def run(
    graph: Graph, protocol: str = "masked", tap: Callable[[Message], list[Message]] | None = None, **keys: bytes
) -> list[float]:
    """Simulate with the keys that some owners have instead of the common ones."""
    seed = keys.pop("seed", b"simulation")
    return simulate(graph, {}, protocol, hooks=lambda _: Keys(keys), tap=tap, seed=seed).outputs["sums"].tolist()


def tags(graph: Graph, **keys: bytes) -> Tags:
    """What owners say of their keys."""
    found: Tags = []

    def listen(message: Message) -> list[Message]:
        if message.op == len(graph.ops[: [op.name for op in graph.ops].index("join")]):
            found.append(message)
        return [message]

    run(graph, tap=listen, **keys)
    return found


@pytest.mark.parametrize("protocol", ["masked", "cleartext"])
@pytest.mark.parametrize("count", [2, 3])
def test_rows_of_the_same_keys_are_joined(count: int, protocol: str) -> None:
    assert run(joined(*OWNERS[:count]), protocol) == WIDE[:, : 2 * count].sum(axis=0).tolist()


@pytest.mark.parametrize("owner", OWNERS)
def test_other_keys_end_the_run_before_anything_is_shared(owner: str) -> None:
    seen: list[Message] = []

    def listen(message: Message) -> list[Message]:
        seen.append(message)
        return [message]

    with pytest.raises(
        DataError, match=f"the rows of .*{owner}/d.* are not of the same keys, so they cannot be joined"
    ):
        run(joined(*OWNERS), tap=listen, **{owner: b"another"})
    assert {message.array.nbytes for message in seen} == {TAG_BYTES}


def test_datasets_of_one_owner_are_compared_at_home() -> None:
    b = Builder()
    kind = Type(Kind.ARITH, 18, (3, 2))
    inputs = [b.emit("input", owner="clinic_a", dataset=name, columns=("u", "v"), type=kind) for name in ("d", "e")]
    b.emit("reveal", b.emit("join", *inputs), to=("analyst",), name="sums")

    class Two(Keys):
        def keys(self, op: Op) -> bytes:
            return op.text("dataset").encode()

    with pytest.raises(DataError, match="the rows of clinic_a/d and clinic_a/e are not of the same keys"):
        simulate(b.graph(), {}, "masked", hooks=lambda _: Two({}))


def test_a_tag_is_new_for_each_direction_and_each_attempt() -> None:
    graph = joined(*OWNERS)
    first, again = tags(graph, seed=b"one"), tags(graph, seed=b"two")
    assert len(first) == 6 and all(message.array.nbytes == TAG_BYTES for message in first)
    assert len({message.array.tobytes() for message in first + again}) == 12
    other = tags(graph, seed=b"one", clinic_a=b"x", clinic_b=b"x", clinic_c=b"x")
    assert not {message.array.tobytes() for message in first} & {message.array.tobytes() for message in other}


def test_an_owner_that_hands_the_others_tag_back_does_not_pass() -> None:
    graph = joined(*OWNERS[:2])
    [said] = [message.array for message in tags(graph) if message.source == 1]

    def reflect(message: Message) -> list[Message]:
        return [message._replace(array=said) if message.source == 2 and message.array.nbytes == TAG_BYTES else message]

    with pytest.raises(DataError, match="not of the same keys"):
        run(graph, tap=reflect)


@pytest.mark.parametrize("byte", [0, TAG_BYTES - 1])
def test_every_byte_of_a_tag_counts(byte: int) -> None:
    def flip(message: Message) -> list[Message]:
        array = message.array.copy()
        if array.nbytes == TAG_BYTES:
            array[byte] ^= 1
        return [message._replace(array=array)]

    with pytest.raises(DataError, match="not of the same keys"):
        run(joined(*OWNERS[:2]), tap=flip)


@pytest.mark.parametrize("guests", [0, 1])
@pytest.mark.parametrize("count", [2, 3])
def test_its_cost_is_in_the_estimate(count: int, guests: int) -> None:
    """Also where one of the owners does not compute."""
    graph, masked, away = joined(*OWNERS[:count]), protocols.get("masked"), OWNERS[:guests]
    found = cost.estimate(graph, masked, parties(graph, masked, count, away))
    traffic = simulate(graph, DATA, "masked", evaluators=count, guests=away).traffic
    assert (found.rounds, found.bytes) == (traffic.rounds, sum(traffic.sent_bytes.values()))


def test_only_datasets_are_joined_and_each_once() -> None:
    with pytest.raises(GraphError, match="joins two and more datasets, each once"):
        joined("clinic_a", "clinic_a")
    with pytest.raises(GraphError, match="joins two and more datasets, each once"):
        joined("clinic_a")


# ---- over nodes ------------------------------------------------------------------------------------------------------
@pytest.fixture
def register(clerk: Clerk, tmp_path: Path) -> Iterator[Callable[..., None]]:
    def add(owner: str, ids: list[str], key: str | None = "id") -> None:
        file = tmp_path / f"{owner}.csv"
        file.write_text("id,u,v\n" + "".join(f"{i},{n},{n + 1}\n" for n, i in enumerate(ids)))
        Datasets(clerk.members[owner].folder).add("d", file, ["analyst"], key=key, replace=True)

    yield add


def test_nodes_join_rows_by_their_keys(clerk: Clerk, servers: dict[str, Server], register: Callable[..., None]) -> None:
    graph = joined("clinic_a", "clinic_b")
    b = Builder()
    kind = Type(Kind.ARITH, 18, (3, 2))
    inputs = [b.emit("input", owner=owner, dataset="d", columns=("u", "v"), type=kind) for owner in OWNERS[:2]]
    b.emit("reveal", b.emit("join", *inputs), to=("analyst",), name="rows")
    register("clinic_a", ["x", "y", "z"])
    register("clinic_b", ["z", "x", "y"])
    clerk.begin(b.graph())
    assert clerk.open(b.graph())["rows"].tolist() == [[0, 1, 1, 2], [1, 2, 2, 3], [2, 3, 0, 1]]
    register("clinic_b", ["z", "x", "w"])
    clerk.begin(graph, attempt=2)
    for failed in clerk.failures(attempt=2).values():
        assert "the rows of clinic_a/d and clinic_b/d are not of the same keys" in failed.cause
        assert "%2 join" in failed.where
    for name in clerk.nodes:
        assert not any(event.HasField("sealed") for event in clerk.watch(name, attempt=2))


def test_a_node_joins_no_rows_without_keys(
    clerk: Clerk, servers: dict[str, Server], register: Callable[..., None]
) -> None:
    register("clinic_a", ["1", "2", "3"], key=None)
    with pytest.raises(grpc.RpcError, match=r"dataset d has no key, and the program joins it"):
        clerk.prepare("clinic_a", joined("clinic_a", "clinic_b"))
