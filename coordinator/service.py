"""The coordinator's server: mutual TLS, callers known by their exact certificates, and no share ever.

What passes through here are programs, names, counts and results sealed to their recipients.  The calls themselves are
in clerk.py; this file says who calls, and turns refusals into gRPC statuses.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore, Event
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from coordinator.calls import CallFailed
from coordinator.clerk import Clerk, Refused
from coordinator.programs import ProgramError
from coordinator.store import Store
from mpcnode import doctor, tls
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError, MpcError
from mpcnode.graph import GraphError
from mpcnode.identity import Identity
from mpcnode.wire import coordinator_pb2 as wire
from mpcnode.wire import coordinator_pb2_grpc, graph_pb2, node_pb2, node_pb2_grpc

CALLS = 32  # at a time; a stream counts as long as it lasts
STREAMS = 24  # of them, so that those who watch leave room for those who ask
JOBS_LISTED = 200
GRACE_S = 1.0

log = logging.getLogger("coordinator")


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServicer):
    """For those who submit jobs, watch them and receive results."""

    def __init__(self, clerk: Clerk, cluster: Cluster) -> None:
        self._clerk, self._cluster = clerk, cluster
        self._streams = BoundedSemaphore(STREAMS)

    def Schemas(self, request: wire.ClusterSchemasRequest, context: grpc.ServicerContext) -> wire.ClusterSchemasReply:
        """Names, types and row counts of all owners' datasets."""
        with _caller(context, self._cluster):
            return wire.ClusterSchemasReply(parties=self._clerk.schemas())

    def Kept(self, request: wire.ClusterKeptRequest, context: grpc.ServicerContext) -> wire.ClusterKeptReply:
        """Names and types of the values that the nodes keep shares of."""
        with _caller(context, self._cluster):
            return wire.ClusterKeptReply(values=self._clerk.kept())

    def Submit(self, request: wire.SubmitRequest, context: grpc.ServicerContext) -> wire.SubmitReply:
        """Queue a job in the caller's name."""
        with _caller(context, self._cluster) as caller:
            return wire.SubmitReply(job=self._clerk.submit(caller, request))

    def Watch(self, request: wire.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[wire.JobEvent]:
        """What has happened to a job, and what happens until it ends."""
        with _caller(context, self._cluster), self._stream():
            yield from self._clerk.watch(request.job, context.is_active)

    def Get(self, request: wire.GetRequest, context: grpc.ServicerContext) -> wire.Job:
        """A job with what its nodes reported."""
        with _caller(context, self._cluster):
            return self._clerk.get(request.job)

    def List(self, request: wire.ListRequest, context: grpc.ServicerContext) -> wire.ListReply:
        """The latest jobs."""
        with _caller(context, self._cluster):
            return wire.ListReply(jobs=self._clerk.store.jobs(JOBS_LISTED))

    def Cancel(self, request: wire.CancelRequest, context: grpc.ServicerContext) -> wire.CancelReply:
        """End a job that the caller submitted, or computes."""
        with _caller(context, self._cluster) as caller:
            self._clerk.cancel(request.job, caller)
            return wire.CancelReply()

    def Results(self, request: wire.ResultsRequest, context: grpc.ServicerContext) -> Iterator[node_pb2.Sealed]:
        """The pieces of a job's results that are sealed to the caller."""
        with _caller(context, self._cluster) as caller, self._stream():
            yield from self._clerk.results(request.job, caller)

    def Program(self, request: wire.ProgramRequest, context: grpc.ServicerContext) -> wire.ProgramReply:
        """The graph that a job runs."""
        with _caller(context, self._cluster):
            program = self._clerk.program(request.job)
            return wire.ProgramReply(graph=graph_pb2.Graph.FromString(program.graph), source=program.source)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if not self._streams.acquire(blocking=False):
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{STREAMS} streams are open already: try again later")
        try:
            yield
        finally:
            self._streams.release()


class AboutService(node_pb2_grpc.AboutServicer):
    """Who this is, and whether it has the same cluster.toml as the caller."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def Info(self, request: node_pb2.InfoRequest, context: grpc.ServicerContext) -> node_pb2.InfoReply:
        with _caller(context, self._cluster):
            return node_pb2.InfoReply(
                name=self._cluster.coordinator,
                version=doctor.version(),
                unix_time_ns=time.time_ns(),
                cluster_digest=self._cluster.digest(),
            )


@contextmanager
def _caller(context: grpc.ServicerContext, cluster: Cluster) -> Iterator[str]:
    """The name of who calls; what is refused inside ends the call with its sentence."""
    caller = tls.peer_card(context, cluster).name
    try:
        yield caller
    except Refused as error:
        _end(context, error.code, f"{error}")
    except CallFailed as error:  # a node that the caller needs is not there
        _end(context, grpc.StatusCode.FAILED_PRECONDITION, f"{error}")
    except (ProgramError, GraphError) as error:
        _end(context, grpc.StatusCode.INVALID_ARGUMENT, f"{error}")
    except MpcError as error:
        _end(context, grpc.StatusCode.FAILED_PRECONDITION, f"{error}")


def _end(context: grpc.ServicerContext, code: grpc.StatusCode, sentence: str) -> NoReturn:
    context.abort(code, sentence)
    raise AssertionError("abort returned")


class Server:
    """A coordinator that serves from `start` to `stop`.  Port 0 takes a free one, which `port` then says."""

    def __init__(
        self,
        identity: Identity,
        cluster: Cluster,
        store: Store,
        *,
        listen: str,
        deadline_s: float = 60.0,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
    ) -> None:
        """ConfigError if the identity does not coordinate this cluster or the address is not free."""
        if identity.name != cluster.coordinator:
            raise ConfigError(
                f"the coordinator of the cluster {cluster.name} is {cluster.coordinator}, not {identity.name}: "
                "serve with the identity that coordinates"
            )
        self.told_to_stop = Event()
        self._clerk = Clerk(identity, cluster, store, deadline_s=deadline_s, on_failure=self.told_to_stop.set)
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(CALLS + 4, thread_name_prefix="serve"),
            options=tls.SERVER_OPTIONS,
            maximum_concurrent_rpcs=CALLS,
            interceptors=list(interceptors),
        )
        coordinator_pb2_grpc.add_CoordinatorServicer_to_server(CoordinatorService(self._clerk, cluster), self._server)
        node_pb2_grpc.add_AboutServicer_to_server(AboutService(cluster), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = tls.listen(self._server, listen, tls.server_credentials(identity, cluster), "coordinator")

    def start(self) -> None:
        """Serve, and go on with the jobs of the last time."""
        self._clerk.start()
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Abort the running job and end all calls.  Raises DatabaseFailed if that is why it stops."""
        self._health.enter_graceful_shutdown()
        refused = self._server.stop(GRACE_S)
        self._clerk.close()
        refused.wait(2 * GRACE_S)
        if self._clerk.failure is not None:
            raise self._clerk.failure


def serve(identity: Identity, cluster: Cluster, store: Store, *, listen: str, deadline_s: float) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    server = Server(identity, cluster, store, listen=listen, deadline_s=deadline_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.told_to_stop.set())
    server.start()
    log.info("%s coordinates %s on %s", identity.name, cluster.name, listen)
    server.told_to_stop.wait()
    log.info("stopping")
    server.stop()
