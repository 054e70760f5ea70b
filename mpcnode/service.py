"""A node's server: mutual TLS, callers known by their exact certificates, one attempt at a time.

Who may call what stands in one place, `Members`; nothing is served that it does not know.  A refusal is a status
with one sentence that says what is wrong.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Event, Lock
from typing import Any, NoReturn, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mpcnode import doctor, kernels, tls
from mpcnode.admission import Holdings, Run, admit, run_of
from mpcnode.attempt import Attempt
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets, Schema
from mpcnode.errors import ConfigError, LinkError, MpcError
from mpcnode.graph import GraphError
from mpcnode.graph_wire import type_to_wire
from mpcnode.grpc_links import METHOD, GrpcLink
from mpcnode.identity import Identity
from mpcnode.kept import Kept, Making
from mpcnode.links import Cause
from mpcnode.streams import Listener, ServerStream
from mpcnode.wire import node_pb2, node_pb2_grpc

CALLS = 32  # at a time, beside the streams
STREAMS = 4  # of each party, at a time
WATCHERS = 8
RECORDS = 16  # of attempts that ended
HELLO_S = 10.0  # for a peer to say which attempt its stream is for
RELEASE_S = 20.0  # for an attempt to end once it was told to
GRACE_S = 1.0

log = logging.getLogger("mpcnode")


class Refused(Exception):
    """A call that gets no answer but a status and a sentence."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        self.code = code
        super().__init__(sentence)


class Attempts:
    """The attempts of a node: at most one under way, the records of the latest, and never the same one twice."""

    def __init__(self, identity: Identity, cluster: Cluster, deadline_s: float) -> None:
        self._identity, self._cluster, self._deadline_s = identity, cluster, deadline_s
        self.holdings = Holdings(Datasets(identity.folder), Kept(identity))
        self._lock = Lock()  # guards all below
        self._records: dict[Run, Attempt] = {}  # the oldest first; the last may be under way
        self._accepted: set[Run] = set()
        self._preparing = False
        self._closed = False

    def prepare(self, request: node_pb2.PrepareRequest, is_active: Callable[[], bool]) -> bytes:
        """Accept an attempt, and return its graph's digest.  Raises Refused, and what `admit` raises."""
        run = run_of(request.job, request.attempt)
        if not request.deadline_s:
            request.deadline_s = self._deadline_s
        self._reserve(run)
        try:
            task = admit(request, self._cluster, self.holdings, self._identity.name)
            attempt = Attempt(task, self._identity, self._cluster, self.holdings.kept)
        finally:
            with self._lock:
                self._preparing = False
        with self._lock:
            if self._closed or not is_active():  # nobody would ever start or abort it
                raise Refused(grpc.StatusCode.CANCELLED, "the call was cancelled")
            self._accepted.add(run)
            self._records[run] = attempt
            while len(self._records) > RECORDS:
                del self._records[next(iter(self._records))]
        log.info("%s: prepared, program %s", run, attempt.task.digest.hex()[:16])
        return attempt.task.digest

    def _reserve(self, run: Run) -> None:
        """See that nothing else is under way.  What was prepared and never started makes room."""
        me = self._identity.name
        with self._lock:
            last = next(reversed(self._records.values()), None)
            if run in self._accepted:
                raise Refused(
                    grpc.StatusCode.ALREADY_EXISTS, f"{me} has had {run} already: an attempt never runs twice"
                )
            if self._preparing or self._closed:
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"{me} is busy preparing another job")
            if last is not None and last.started and not last.ended.is_set():
                sentence = f"{me} is busy with {last.task.run}: it computes one job at a time"
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, sentence)
            self._preparing = True
        if last is not None and not last.ended.is_set():
            last.abort(f"{me} was given {run} instead")
            last.ended.wait(RELEASE_S)

    def get(self, job: str, number: int) -> Attempt:
        """The attempt of that name.  Raises Refused if there is none."""
        with self._lock:
            attempt = self._records.get(Run(job, number))
        if attempt is None:
            raise Refused(
                grpc.StatusCode.NOT_FOUND, f"{self._identity.name} knows nothing of attempt {number} at {job[:128]!r}"
            )
        return attempt

    def close(self) -> None:
        """Abort what is under way; nothing is accepted any more."""
        with self._lock:
            self._closed = True
            under_way = [attempt for attempt in self._records.values() if not attempt.ended.is_set()]
        for attempt in under_way:
            attempt.abort(f"{self._identity.name} was shut down")
            attempt.ended.wait(RELEASE_S)


def describe(schema: Schema) -> node_pb2.Schema:
    """A schema as a message."""
    return node_pb2.Schema(
        dataset=schema.name,
        rows=schema.rows,
        columns=[node_pb2.Column(name=column.name, dtype=column.dtype) for column in schema.columns],
        groups=[node_pb2.ColumnGroup(name=name, columns=members) for name, members in schema.groups.items()],
        key=schema.key or "",
    )


class NodeService(node_pb2_grpc.NodeServicer):
    """For the coordinator."""

    def __init__(self, identity: Identity, attempts: Attempts) -> None:
        self._holdings, self._attempts = attempts.holdings, attempts
        self._watchers = BoundedSemaphore(WATCHERS)

    def Schemas(self, request: node_pb2.SchemasRequest, context: grpc.ServicerContext) -> node_pb2.SchemasReply:
        """Names, types and row counts of this node's datasets."""
        return node_pb2.SchemasReply(schemas=map(describe, self._holdings.datasets.schemas()))

    def Prepare(self, request: node_pb2.PrepareRequest, context: grpc.ServicerContext) -> node_pb2.PrepareReply:
        """Check a program and read the data for it."""
        return node_pb2.PrepareReply(graph_digest=self._attempts.prepare(request, context.is_active))

    def Start(self, request: node_pb2.StartRequest, context: grpc.ServicerContext) -> node_pb2.StartReply:
        """Compute; `Watch` says what comes of it."""
        attempt = self._attempts.get(request.job, request.attempt)
        if not attempt.start():
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"{attempt.task.run} was started before, or has ended")
        return node_pb2.StartReply()

    def Watch(self, request: node_pb2.WatchRequest, context: grpc.ServicerContext) -> Iterator[node_pb2.NodeEvent]:
        """What an attempt reports, from its beginning to its end."""
        attempt = self._attempts.get(request.job, request.attempt)
        if not self._watchers.acquire(blocking=False):
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHERS} calls watch already")
        try:
            yield from attempt.events(context.is_active)
        finally:
            self._watchers.release()

    def Abort(self, request: node_pb2.AbortRequest, context: grpc.ServicerContext) -> node_pb2.AbortReply:
        """End an attempt, and answer when it has ended."""
        run = run_of(request.job, request.attempt)
        try:
            attempt = self._attempts.get(*run)
            attempt.abort(request.cause or "the coordinator ended it")
            if not attempt.ended.wait(RELEASE_S):
                raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, f"{run} has not ended for {RELEASE_S:g} s")
        finally:  # also what it held of an attempt that it has forgotten since
            self._holdings.kept.drop(*run)
        return node_pb2.AbortReply()

    def Kept(self, request: node_pb2.KeptRequest, context: grpc.ServicerContext) -> node_pb2.KeptReply:
        """Names and types of the values that this node has shares of."""
        return node_pb2.KeptReply(kept=[_to_wire(*found) for found in self._holdings.kept.makings()])

    def Keep(self, request: node_pb2.KeepRequest, context: grpc.ServicerContext) -> node_pb2.KeepReply:
        """Every node is done with an attempt: its shares count."""
        run = run_of(request.job, request.attempt)
        for name in self._holdings.kept.confirm(*run):
            log.info("%s: keeps %s", run, name)
        return node_pb2.KeepReply()


def _to_wire(making: Making, counts: bool) -> node_pb2.Kept:
    leaves = [node_pb2.Leaf(path=leaf.path, type=type_to_wire(leaf.type), dtype=leaf.dtype) for leaf in making.leaves]
    return node_pb2.Kept(
        name=making.name,
        job=making.job,
        attempt=making.attempt,
        program=making.program,
        protocol=making.protocol,
        parties=making.parties,
        leaves=leaves,
        recipients=making.recipients,
        kept_at=making.kept_at,
        counts=counts,
    )


class PeerService:
    """For the peers: their ends of streams, which are accepted beside grpcio's own calls (see streams.py)."""

    def __init__(self, identity: Identity, cluster: Cluster, attempts: Attempts) -> None:
        self._identity, self._cluster, self._attempts = identity, cluster, attempts
        self._lock = Lock()  # guards _links
        self._links: list[GrpcLink] = []

    def serve(self, stream: ServerStream) -> None:
        """Connect a peer's stream with the attempt that it is for, or refuse it."""
        try:
            link = self._admit(stream)
        except (tls.Stranger, Refused) as error:
            stream.refuse(error.code if isinstance(error, Refused) else grpc.StatusCode.UNAUTHENTICATED, f"{error}")
            stream.outbox.close()
            stream.run(lambda frame: False, lambda why: None, lambda: None)
            return
        try:
            self._connect(link.peer, link)
        except (LinkError, Refused) as error:
            log.warning("refused: %s", error)
            code = error.code if isinstance(error, Refused) else grpc.StatusCode.FAILED_PRECONDITION
            stream.refuse(code, f"{error}")
            link.close(Cause(f"{error}"))

    def _admit(self, stream: ServerStream) -> GrpcLink:
        peer = tls.member(stream.auth(), self._cluster).name
        if peer not in self._cluster.nodes:
            log.warning("refused a stream of %s", peer)
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"{peer} has no part in this call")
        with self._lock:
            self._links = [link for link in self._links if link.alive]
            if len(self._links) >= STREAMS * len(self._cluster.nodes):
                raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open")
            link = GrpcLink(peer, stream)
            self._links.append(link)
        return link

    def _connect(self, peer: str, link: GrpcLink) -> None:
        hello = link.hello(HELLO_S)
        if not self._attempts.get(hello.job, hello.attempt).accept(peer, link, hello):
            sentence = f"{self._identity.name} needs no stream from {peer} for {Run(hello.job, hello.attempt)}"
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, sentence)


class AboutService(node_pb2_grpc.AboutServicer):
    """Who this is, and whether it has the same cluster.toml as the caller."""

    def __init__(self, identity: Identity, cluster: Cluster) -> None:
        self._name, self._digest = identity.name, cluster.digest()

    def Info(self, request: node_pb2.InfoRequest, context: grpc.ServicerContext) -> node_pb2.InfoReply:
        """For `mpcnode doctor`."""
        return node_pb2.InfoReply(
            name=self._name,
            version=doctor.version(),
            unix_time_ns=time.time_ns(),
            cluster_digest=self._digest,
            kernels=kernels.NAME,
        )


class Members(grpc.ServerInterceptor):
    """Lets each caller in to the services that it has a part in, and turns what they raise into statuses."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        everybody = frozenset(card.name for card in cluster.cards)
        self._allowed = {
            "mpc.Node": frozenset({cluster.coordinator}),
            "mpc.About": everybody,
            "grpc.health.v1.Health": everybody,
        }

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call, if there is one."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        allowed = self._allowed.get(str(handler_call_details.method).split("/")[1], frozenset())
        kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        kind = next(kind for kind in kinds if getattr(handler, kind))
        guard = self._stream if handler.response_streaming else self._unary
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        guarded = make(
            guard(getattr(handler, kind), allowed), handler.request_deserializer, handler.response_serializer
        )
        return cast("grpc.RpcMethodHandler[Any, Any]", guarded)

    def _unary(self, behaviour: Callable[[Any, Any], Any], allowed: frozenset[str]) -> Callable[[Any, Any], Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            self._admit(context, allowed)
            try:
                return behaviour(request, context)
            except (Refused, MpcError, GraphError) as error:
                _refuse(context, error)

        return guarded

    def _stream(self, behaviour: Callable[[Any, Any], Any], allowed: frozenset[str]) -> Callable[[Any, Any], Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._admit(context, allowed)
            try:
                yield from behaviour(request, context)
            except (Refused, MpcError, GraphError) as error:
                _refuse(context, error)

        return guarded

    def _admit(self, context: grpc.ServicerContext, allowed: frozenset[str]) -> None:
        caller = tls.peer_card(context, self._cluster).name
        if caller not in allowed:
            log.warning("refused a call of %s", caller)
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{caller} has no part in this call")


def _refuse(context: grpc.ServicerContext, error: Refused | MpcError | GraphError) -> NoReturn:
    code = grpc.StatusCode.FAILED_PRECONDITION
    if isinstance(error, Refused):
        code = error.code
    elif isinstance(error, GraphError):
        code = grpc.StatusCode.INVALID_ARGUMENT
    sentence = f"the program is no valid graph: {error}" if isinstance(error, GraphError) else f"{error}"
    log.warning("refused: %s", sentence)
    context.abort(code, sentence)
    raise AssertionError("abort returned")


class Server:
    """A node that serves from `start` to `stop`.  Port 0 takes a free one, which `port` then says."""

    def __init__(self, identity: Identity, cluster: Cluster, *, listen: str, deadline_s: float = 60.0) -> None:
        """ConfigError if the identity can have no part in a job of this cluster, or the address is not free."""
        if identity.name not in cluster.nodes:
            raise ConfigError(
                f"{identity.name} has no part in the jobs of {cluster.name}: it coordinates, or its card has no address"
            )
        self._attempts = Attempts(identity, cluster, deadline_s)
        self._health = health.HealthServicer()
        self._pool = ThreadPoolExecutor(CALLS + STREAMS * len(cluster.nodes), thread_name_prefix="serve")
        self._server = grpc.server(
            self._pool,
            options=tls.SERVER_OPTIONS,
            maximum_concurrent_rpcs=CALLS,
            interceptors=[Members(cluster)],
        )
        node_pb2_grpc.add_NodeServicer_to_server(NodeService(identity, self._attempts), self._server)
        node_pb2_grpc.add_AboutServicer_to_server(AboutService(identity, cluster), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        peers = PeerService(identity, cluster, self._attempts)
        self._listener = Listener(self._server, METHOD, lambda stream: self._pool.submit(peers.serve, stream))
        self.port = tls.listen(self._server, listen, tls.server_credentials(identity, cluster), "node")

    def start(self) -> None:
        """Serve."""
        self._server.start()
        self._listener.listen()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Abort what is under way, tell the peers why, and end all calls."""
        self._health.enter_graceful_shutdown()
        self._attempts.close()
        self._server.stop(GRACE_S).wait(2 * GRACE_S)
        self._pool.shutdown(wait=False)


def serve(identity: Identity, cluster: Cluster, *, listen: str, threads: int, deadline_s: float) -> None:
    """Serve until SIGTERM or Ctrl-C.

    listen: HOST:PORT; threads: for computing; deadline_s: of every single wait for a peer, for a job that names none.
    ConfigError if the identity can have no part in a job of this cluster, or the address is not free.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    kernels.set_threads(threads)
    server = Server(identity, cluster, listen=listen, deadline_s=deadline_s)
    told_to_stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told_to_stop.set())
    server.start()
    log.info(
        "%s serves %s on %s, with %s kernels in %d threads", identity.name, cluster.name, listen, kernels.NAME, threads
    )
    told_to_stop.wait()
    log.info("stopping")
    server.stop()
