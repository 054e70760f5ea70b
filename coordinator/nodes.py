"""One node as the coordinator sees it: every call has a deadline and fails with a sentence that names the node."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Protocol

import grpc

from coordinator.calls import CallFailed, ask, explain
from coordinator.jobs import Run
from mpcnode import tls
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.identity import Identity
from mpcnode.wire import graph_pb2, node_pb2
from mpcnode.wire.node_pb2_grpc import AboutStub, NodeStub

ASK_S = 10.0  # for what a node answers from memory
CONNECT_S = 30.0  # for a node that is restarting or behind a network that is
LOAD_S = 300.0  # for verifying a graph and reading the datasets
RECONNECTS = 10  # of one run's reports


class _Cancellable(Protocol):
    def cancel(self) -> object:
        """End the call."""


class Node:
    """The calls to one node.  Any thread may use it; `cancel` ends the call that waits for a run."""

    def __init__(self, identity: Identity, cluster: Cluster, name: str) -> None:
        self.name = name
        self._cluster_digest = cluster.digest()
        self._channel = tls.channel(identity, cluster, name)
        self._node, self._about = NodeStub(self._channel), AboutStub(self._channel)
        self._lock = Lock()
        self._waiting: dict[Run, _Cancellable] = {}
        self._cancelled: Run | None = None

    def close(self) -> None:
        """Cancel whatever is under way."""
        self._channel.close()

    def check(self, *, wait: bool = False) -> None:
        """See that the node is there and has the same cluster.toml; `wait` for one that is restarting.

        Raises CallFailed if it is not there, ConfigError if it is of another cluster.
        """
        timeout_s = CONNECT_S if wait else ASK_S
        info = ask(self._about.Info, node_pb2.InfoRequest(), self.name, timeout_s, wait_for_ready=wait)
        if info.cluster_digest != self._cluster_digest:
            raise ConfigError(
                f"{self.name} has another cluster.toml than the coordinator: give everybody the same file and restart"
            )

    def schemas(self) -> node_pb2.SchemasReply:
        """The datasets that the node offers."""
        return ask(self._node.Schemas, node_pb2.SchemasRequest(), self.name, ASK_S)

    def kept(self) -> node_pb2.KeptReply:
        """The values that the node has shares of."""
        return ask(self._node.Kept, node_pb2.KeptRequest(), self.name, ASK_S)

    def keep(self, run: Run) -> None:
        """Every node is done with the run: the node's shares count.  Waits for one that is restarting."""
        request = node_pb2.KeepRequest(job=run.job, attempt=run.attempt)
        ask(self._node.Keep, request, self.name, CONNECT_S, wait_for_ready=True)

    def prepare(self, run: Run, protocol: str, graph: graph_pb2.Graph, deadline_s: float) -> bytes:
        """Give the node the program; its digest, as the node computes it."""
        request = node_pb2.PrepareRequest(
            job=run.job, attempt=run.attempt, protocol=protocol, graph=graph, deadline_s=deadline_s
        )
        with self._lock:
            if run == self._cancelled:  # no node must get a program behind the message that drops it
                raise CallFailed(grpc.StatusCode.CANCELLED, self.name, f"{self.name} was told to stop")
            future = self._node.Prepare.future(request, timeout=LOAD_S)
            self._waiting[run] = future
        try:
            return future.result().graph_digest
        except grpc.FutureCancelledError:
            raise CallFailed(grpc.StatusCode.CANCELLED, self.name, f"{self.name} was told to stop") from None
        except grpc.RpcError as error:
            raise explain(error, self.name, LOAD_S) from None
        finally:
            self._forget(run)

    def start(self, run: Run) -> None:
        """Let the node compute."""
        ask(self._node.Start, node_pb2.StartRequest(job=run.job, attempt=run.attempt), self.name, ASK_S)

    def events(self, run: Run) -> Iterator[node_pb2.NodeEvent]:
        """What the node reports of the run, from its beginning; a broken connection is made again and the report read
        anew, so an event may come twice.  Raises CallFailed when the node stays away or knows nothing of the run."""
        request = node_pb2.WatchRequest(job=run.job, attempt=run.attempt)
        for _ in range(RECONNECTS):
            call = self._node.Watch(request)
            with self._lock:
                self._waiting[run] = call
            try:
                yield from call
            except grpc.RpcError as error:
                failed = explain(error, self.name, CONNECT_S)
                if failed.code is not grpc.StatusCode.UNAVAILABLE:
                    raise failed from None
            else:
                return
            finally:
                self._forget(run)
                call.cancel()  # if the reader went away
            self.check(wait=True)
        raise CallFailed(
            grpc.StatusCode.UNAVAILABLE, self.name, f"the connection to {self.name} broke {RECONNECTS} times"
        )

    def abort(self, run: Run, cause: str, timeout_s: float) -> None:
        """Tell the node to drop the run, as soon as it can be reached."""
        request = node_pb2.AbortRequest(job=run.job, attempt=run.attempt, cause=cause)
        ask(self._node.Abort, request, self.name, timeout_s, wait_for_ready=True)

    def cancel(self, run: Run) -> None:
        """End the call that waits for `run`, or is about to: it raises CallFailed with the code CANCELLED."""
        with self._lock:
            self._cancelled = run
            call = self._waiting.get(run)
        if call is not None:
            call.cancel()

    def _forget(self, run: Run) -> None:
        with self._lock:
            self._waiting.pop(run, None)
