"""Nodes that compute nothing: real servers with mutual TLS that answer as a script says.  And a cluster of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from coordinator.client import Client
from coordinator.local import free_ports
from coordinator.service import Server
from coordinator.store import Store
from mpcnode import doctor, sealing, tls
from mpcnode.cluster import Cluster
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.graph_wire import from_wire, to_wire, type_to_wire
from mpcnode.identity import Identity, create_identity
from mpcnode.wire import graph_pb2, node_pb2, node_pb2_grpc

NAMES = ("helper", "clinic_a", "clinic_b")
EVALUATORS = ("clinic_a", "clinic_b")
LIMIT_S = 20.0  # for anything that a test waits for

VALUE = np.array([0.5, -1.25, 3.0])
COLUMNS = ("x0", "x1", "y")


def program(recipients: tuple[str, ...] = ("analyst",), owner: str = "clinic_a") -> Graph:
    """Reads one column and reveals three of its numbers as `result`."""
    column, three = Type(Kind.ARITH, 18, (3, 1)), Type(Kind.ARITH, 18, (3,))
    return Graph(
        (
            Op("input", (), {"owner": owner, "dataset": "wdbc", "columns": ("x0",)}, column, "train.py:1"),
            Op("reshape", (0,), {"shape": (3,)}, three, "train.py:2"),
            Op("reveal", (1,), {"to": recipients, "name": "result"}, three, "train.py:3"),
        )
    )


def schemas() -> node_pb2.SchemasReply:
    columns = [node_pb2.Column(name=name, dtype="int64" if name == "y" else "float64") for name in COLUMNS]
    groups = [
        node_pb2.ColumnGroup(name="features", columns=COLUMNS[:2]),
        node_pb2.ColumnGroup(name="label", columns=COLUMNS[2:]),
    ]
    return node_pb2.SchemasReply(schemas=[node_pb2.Schema(dataset="wdbc", rows=3, columns=columns, groups=groups)])


class FakeNode(node_pb2_grpc.NodeServicer, node_pb2_grpc.AboutServicer):
    """One node.  Set its fields to make it misbehave."""

    def __init__(self, identity: Identity, cluster: Cluster) -> None:
        self.identity, self.cluster = identity, cluster
        self.prepare_fails = self.start_fails = ""
        self.digest = b""
        self.cluster_digest = cluster.digest()
        self.failure: node_pb2.Failed | None = None
        self.breaks = 0  # how often a report breaks off with UNAVAILABLE
        self.hold = Event()  # cleared: reports its progress, then waits
        self.hold.set()
        self.hold_prepare = Event()
        self.hold_prepare.set()
        self.mute = False  # finishes without results
        self.forge: dict[str, Any] = {}  # fields to change in what it delivers
        self.calls: list[tuple[str, str]] = []
        self.kept: list[node_pb2.Kept] = []
        self.aborted: dict[str, str] = {}
        self.let_go = Event()
        self._graphs: dict[str, Graph] = {}

    def Info(self, request: node_pb2.InfoRequest, context: grpc.ServicerContext) -> node_pb2.InfoReply:
        return node_pb2.InfoReply(name=self.identity.name, version=doctor.version(), cluster_digest=self.cluster_digest)

    def Schemas(self, request: node_pb2.SchemasRequest, context: grpc.ServicerContext) -> node_pb2.SchemasReply:
        assert tls.peer_card(context, self.cluster).name == self.cluster.coordinator
        return schemas()

    def Kept(self, request: node_pb2.KeptRequest, context: grpc.ServicerContext) -> node_pb2.KeptReply:
        return node_pb2.KeptReply(kept=self.kept)

    def Keep(self, request: node_pb2.KeepRequest, context: grpc.ServicerContext) -> node_pb2.KeepReply:
        self.calls.append(("keep", request.job))
        return node_pb2.KeepReply()

    def Prepare(self, request: node_pb2.PrepareRequest, context: grpc.ServicerContext) -> node_pb2.PrepareReply:
        self.calls.append(("prepare", request.job))
        assert request.deadline_s > 0 and request.protocol == self.cluster.protocol
        self.hold_prepare.wait(LIMIT_S)
        if self.prepare_fails:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.prepare_fails)
        graph = from_wire(request.graph)
        self._graphs[request.job] = graph
        return node_pb2.PrepareReply(graph_digest=self.digest or graph.digest())

    def Start(self, request: node_pb2.StartRequest, context: grpc.ServicerContext) -> node_pb2.StartReply:
        self.calls.append(("start", request.job))
        if self.start_fails:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.start_fails)
        return node_pb2.StartReply()

    def Abort(self, request: node_pb2.AbortRequest, context: grpc.ServicerContext) -> node_pb2.AbortReply:
        self.calls.append(("abort", request.job))
        self.aborted[request.job] = request.cause
        self.hold.set()
        self.let_go.set()
        return node_pb2.AbortReply()

    def Watch(self, request: node_pb2.WatchRequest, context: grpc.ServicerContext) -> Iterator[node_pb2.NodeEvent]:
        self.calls.append(("watch", request.job))
        progress = node_pb2.Progress(done=1, total=2)
        yield node_pb2.NodeEvent(progress=progress)
        self.hold.wait(LIMIT_S)
        if self.breaks:
            self.breaks -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the network blinked")
        if self.failure is not None:
            yield node_pb2.NodeEvent(failed=self.failure)
            return
        if not self.mute and self.identity.name in EVALUATORS:
            for sealed in self.pieces(request.job):
                yield node_pb2.NodeEvent(sealed=sealed)
        profile = [node_pb2.OpProfile(op=1, name="reshape", where="train.py:2", calls=1)]
        yield node_pb2.NodeEvent(finished=node_pb2.Finished(seconds=0.5, rounds=7, profile=profile))

    def pieces(self, job: str) -> Iterator[node_pb2.Sealed]:
        """This node's part of VALUE for every recipient, in two pieces; the parts of both evaluators add up to it."""
        for op in self._graphs[job].ops:
            if op.name == "reveal":
                for recipient in op.texts("to"):
                    raw = part(self.identity.name).astype("<u8").tobytes()
                    for i, data in enumerate((raw[:16], raw[16:])):
                        yield self.seal(job, op, recipient, i, data)

    def seal(self, job: str, op: Op, recipient: str, piece: int, data: bytes) -> node_pb2.Sealed:
        name, sender = op.text("name"), self.identity.name
        purpose = sealing.Purpose(job, 1, sender, recipient, name, str(op.type), piece, 2)
        sealed = sealing.seal_result(self.identity, self.cluster.card(recipient), purpose, data)
        fields: dict[str, Any] = {
            "output": name,
            "recipient": recipient,
            "sender": sender,
            "type": type_to_wire(op.type),
            "piece": piece,
            "pieces": 2,
            "data": sealed,
        }
        return node_pb2.Sealed(**{**fields, **self.forge})


def part(name: str) -> npt.NDArray[np.uint64]:
    """One evaluator's additive part of VALUE."""
    mask = np.array([2**63 + 5, 17, 2**40], np.uint64)
    ring = np.rint(VALUE * 2**18).astype(np.int64).astype(np.uint64)
    return mask if name == "clinic_a" else ring - mask


def make_cluster(folder: Path, protocol: str = "masked") -> tuple[dict[str, Identity], Cluster]:
    serving = (*NAMES, "coordinator")
    identities = {
        name: create_identity(folder / name, name, f"127.0.0.1:{port}")
        for name, port in zip(serving, free_ports(len(serving)), strict=True)
    }
    for name in ("analyst", "stranger"):
        identities[name] = create_identity(folder / name, name)
    cluster = Cluster.of(
        "study",
        [identity.card for name, identity in identities.items() if name != "stranger"],
        evaluators=list(EVALUATORS),
        coordinator="coordinator",
        helper="helper",
        protocol=protocol,
    )
    return identities, cluster


class World:
    """Fake nodes, a real coordinator, and clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identities, self.cluster = make_cluster(folder)
        self.nodes = {name: FakeNode(self.identities[name], self.cluster) for name in NAMES}
        self._servers: dict[str, grpc.Server] = {}
        self._stack = ExitStack()
        self.server: Server | None = None
        self.interceptors: tuple[grpc.ServerInterceptor, ...] = ()

    def __enter__(self) -> Self:
        for name in NAMES:
            self.start_node(name)
        self.start_coordinator()
        return self

    def __exit__(self, *args: object) -> None:
        for node in self.nodes.values():
            node.hold.set()
            node.hold_prepare.set()
        self._stack.close()
        if self.server is not None:
            self.stop_coordinator()
        for name in list(self._servers):
            self.stop_node(name)

    def start_node(self, name: str) -> None:
        node = self.nodes[name]
        server = grpc.server(ThreadPoolExecutor(8), options=tls.SERVER_OPTIONS)
        node_pb2_grpc.add_NodeServicer_to_server(node, server)
        node_pb2_grpc.add_AboutServicer_to_server(node, server)
        address = node.identity.card.address
        assert address is not None
        server.add_secure_port(address, tls.server_credentials(node.identity, self.cluster))
        server.start()
        self._servers[name] = server

    def stop_node(self, name: str) -> None:
        self._servers.pop(name).stop(None).wait(LIMIT_S)

    def start_coordinator(self) -> None:
        identity = self.identities["coordinator"]
        assert identity.card.address is not None
        store = Store.in_folder(identity.folder)
        self.server = Server(
            identity, self.cluster, store, listen=identity.card.address, interceptors=self.interceptors
        )
        self.server.start()

    def stop_coordinator(self) -> None:
        assert self.server is not None
        self.server.stop()
        self.server = None

    def client(self, name: str = "analyst", cluster: Cluster | None = None) -> Client:
        return self._stack.enter_context(Client(self.identities[name], cluster or self.cluster))


@contextmanager
def world(folder: Path) -> Iterator[World]:
    with World(folder) as made:
        yield made


def message(graph: Graph) -> graph_pb2.Graph:
    return to_wire(graph)
