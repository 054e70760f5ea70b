"""What several kinds of tests need: a small cluster on this machine, and parties in threads."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest

from coordinator.local import free_ports
from coordinator.lower.builder import Builder, Value
from mpcnode import protocols, simulate, tls
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets
from mpcnode.drive import Links, Traffic, drive
from mpcnode.graph import Graph, Kind, Type
from mpcnode.graph_wire import to_wire
from mpcnode.identity import Card, Identity, create_identity
from mpcnode.links import DEAL_BYTES, Ended, MemoryLink, Tamper
from mpcnode.rounds import Kernel
from mpcnode.sealing import Purpose, open_result
from mpcnode.service import Server
from mpcnode.wire import node_pb2, node_pb2_grpc

Members: TypeAlias = tuple[dict[str, Identity], Cluster]


@pytest.fixture
def make_members(tmp_path: Path) -> Callable[..., Members]:
    """Make identities in tmp_path, and the cluster of a helper, evaluators, a coordinator and an analyst."""

    def make(evaluators: int = 2, protocol: str = "masked") -> Members:
        owners = [f"clinic_{letter}" for letter in "abcdef"[:evaluators]]
        names = ["helper", *owners, "coordinator"]
        ports = free_ports(len(names))
        made = {
            name: create_identity(tmp_path / name, name, f"127.0.0.1:{port}")
            for name, port in zip(names, ports, strict=True)
        }
        made["analyst"] = create_identity(tmp_path / "analyst", "analyst")
        cards: list[Card] = [identity.card for identity in made.values()]
        helper = "helper" if protocol == "masked" else None
        cluster = Cluster.of(
            "test", cards, evaluators=owners, coordinator="coordinator", helper=helper, protocol=protocol
        )
        cluster.save(tmp_path / "cluster.toml")
        return made, cluster

    return make


class Told(NamedTuple):
    """What became of one party."""

    result: Any
    ended: Ended | None
    traffic: Traffic


@pytest.fixture
def run_together() -> Callable[..., list[Told]]:
    """Run each party's coroutine in a thread of its own, all linked in memory; what became of each, by rank."""

    def run(
        kernels: Sequence[Kernel[Any]],
        *,
        names: Sequence[str] = ("a", "b", "c", "d"),
        deadline_s: float = 5.0,
        tamper: Mapping[tuple[int, int], Tamper] | None = None,
        deal_bytes: int = DEAL_BYTES,
    ) -> list[Told]:
        """tamper: by the ranks of sender and receiver."""
        parties = [Links(names[rank], lambda number: f"%{number}", deadline_s) for rank in range(len(kernels))]
        for low, high in itertools.combinations(range(len(kernels)), 2):
            ways = [(tamper or {}).get(way) for way in ((low, high), (high, low))]
            ends = MemoryLink.pair(names[low], names[high], ways[0], ways[1], deal_bytes)
            parties[low].add(high, ends[0])
            parties[high].add(low, ends[1])
        told: list[Told | None] = [None] * len(kernels)

        def party(rank: int) -> None:
            traffic = Traffic()
            try:
                with parties[rank] as links:
                    result = drive(kernels[rank], links, traffic)
                told[rank] = Told(result, None, traffic)
            except Ended as ended:
                told[rank] = Told(None, ended, traffic)

        threads = [Thread(target=party, args=(rank,), daemon=True) for rank in range(len(kernels))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4 * deadline_s + 5)
        assert None not in told, "a party hangs"
        return [one for one in told if one is not None]

    return run


class Clerk:
    """The coordinator's calls to the nodes of a cluster."""

    def __init__(self, members: dict[str, Identity], cluster: Cluster) -> None:
        self.members, self.cluster = members, cluster
        self._channels = {name: tls.channel(members["coordinator"], cluster, name) for name in cluster.parties}
        self.nodes = {name: node_pb2_grpc.NodeStub(channel) for name, channel in self._channels.items()}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def prepare(self, name: str, graph: Graph, job: str = "job", attempt: int = 1, deadline_s: float = 10.0) -> bytes:
        """Give a node a program; its digest."""
        request = node_pb2.PrepareRequest(
            job=job, attempt=attempt, protocol=self.cluster.protocol, graph=to_wire(graph), deadline_s=deadline_s
        )
        return self.nodes[name].Prepare(request, timeout=30, wait_for_ready=True).graph_digest

    def start(self, name: str, job: str = "job", attempt: int = 1) -> None:
        self.nodes[name].Start(node_pb2.StartRequest(job=job, attempt=attempt), timeout=10)

    def begin(self, graph: Graph, job: str = "job", attempt: int = 1, deadline_s: float = 10.0) -> None:
        """Prepare and start all nodes."""
        for name in self.nodes:
            self.prepare(name, graph, job, attempt, deadline_s)
        for name in self.nodes:
            self.start(name, job, attempt)

    def watch(self, name: str, job: str = "job", attempt: int = 1) -> Iterator[node_pb2.NodeEvent]:
        """What a node reports, with a deadline."""
        yield from self.nodes[name].Watch(node_pb2.WatchRequest(job=job, attempt=attempt), timeout=60)

    def last(self, name: str, job: str = "job", attempt: int = 1) -> node_pb2.NodeEvent:
        """How an attempt ended."""
        return list(self.watch(name, job, attempt))[-1]

    def failures(self, job: str = "job", attempt: int = 1, but: str = "") -> dict[str, node_pb2.Failed]:
        """How an attempt failed, by node."""
        ends = {name: self.last(name, job, attempt) for name in self.nodes if name != but}
        assert all(end.HasField("failed") for end in ends.values()), ends
        return {name: end.failed for name, end in ends.items()}

    def open(self, graph: Graph, job: str = "job", attempt: int = 1, recipient: str = "analyst") -> dict[str, Any]:
        """What a recipient learns from the sealed parts."""
        parts: dict[str, list[Any]] = defaultdict(list)
        types = {op.text("name"): op.type for op in graph.ops if op.name == "reveal"}
        for sender in self.cluster.evaluators:
            pieces: dict[str, dict[int, bytes]] = defaultdict(dict)
            for event in self.watch(sender, job, attempt):
                sealed = event.sealed
                if event.HasField("sealed") and sealed.recipient == recipient:
                    named = (sealed.output, str(types[sealed.output]), sealed.piece, sealed.pieces)
                    purpose = Purpose(job, attempt, sender, recipient, *named)
                    opened = open_result(self.members[recipient], self.cluster.card(sender), purpose, sealed.data)
                    pieces[sealed.output][sealed.piece] = opened
            for output, found in pieces.items():
                type_ = types[output]
                raw = b"".join(found[i] for i in range(len(found)))
                dtype = np.uint8 if type_.kind is Kind.BIT else np.uint64
                parts[output].append(np.frombuffer(raw, dtype).reshape(type_.shape))
        combine = protocols.get(self.cluster.protocol).combine
        return {output: simulate.decode(combine(found), types[output]) for output, found in parts.items()}


@pytest.fixture
def clerk(make_members: Callable[..., Members]) -> Iterator[Clerk]:
    """The coordinator of a fresh cluster, whose nodes are yet to be started."""
    made = Clerk(*make_members())
    yield made
    made.close()


@pytest.fixture
def servers(clerk: Clerk) -> Iterator[dict[str, Server]]:
    """All nodes of the clerk's cluster, in this process."""
    made = {
        name: Server(clerk.members[name], clerk.cluster, listen=f"{clerk.cluster.card(name).address}")
        for name in clerk.cluster.parties
    }
    for server in made.values():
        server.start()
    yield made
    for server in made.values():
        server.stop()


def layer(length: int = 0, by: float = 1.0) -> Graph:
    """relu(x @ w) of clinic_a's x and a public w; or, in a loop of that length, x halved and doubled that often."""
    b = Builder()
    with b.at("train.py:12"):
        x = b.emit(
            "input", type=Type(Kind.ARITH, 18, (8, 3)), owner="clinic_a", dataset="wdbc", columns=("u", "v", "w")
        )
        z = b.emit("trunc", b.emit("dot", x, b.const(by * WEIGHTS)), by=18)
        y = b.emit("select", b.emit("sign", z, lo=0), z, keep=0)
        if length:
            y = looped(b, y, length)
        b.emit("reveal", y, to=("analyst", "clinic_b"), name="activations")
    return b.graph()


def looped(b: Builder, y: Value, length: int) -> Value:
    """The value times one, that often."""
    body = Builder()
    carried = body.emit("param", type=y.type, index=0)
    one = body.const(np.ones(y.shape), 18)
    next_ = body.emit("trunc", body.emit("mul", carried, one), by=18)
    loop = b.emit("loop", y, length=length, reverse=0, consts=0, carry=1, body=body.graph([next_]))
    return b.emit("get", loop, index=0)


WEIGHTS = np.arange(15.0).reshape(3, 5) / 7 - 1
DATA = np.linspace(-2, 3, 24).reshape(8, 3)


@pytest.fixture
def wdbc(clerk: Clerk, tmp_path: Path) -> None:
    """clinic_a's dataset."""
    np.savetxt(tmp_path / "x.csv", DATA, delimiter=",", header="u,v,w", comments="")
    Datasets(clerk.members["clinic_a"].folder).add("wdbc", tmp_path / "x.csv", ["analyst", "clinic_b"])
