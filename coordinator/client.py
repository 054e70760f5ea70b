"""Submit jobs and fetch results from Python, for notebooks and for the command line.

    with Client("analyst", "cluster.toml") as client:
        job = client.submit("job.toml")
        for event in client.watch(job):
            print(event.text)
        arrays = client.result(job)

The user's function is traced and compiled in this process: the coordinator and the nodes receive a graph that they
verify, and never run anybody's Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import grpc

from coordinator import jobfile, results
from coordinator.calls import CallFailed, ask, follow
from coordinator.compiled import Compiled, compile_job
from coordinator.jobs import Run
from coordinator.programs import outputs
from mpcnode import tls
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.graph import Graph
from mpcnode.graph_wire import from_wire, to_wire
from mpcnode.identity import Identity, load_identity
from mpcnode.wire import coordinator_pb2 as wire
from mpcnode.wire import node_pb2
from mpcnode.wire.coordinator_pb2_grpc import CoordinatorStub
from mpcnode.wire.node_pb2_grpc import AboutStub

ASK_S = 20.0
RECONNECT_S = 60.0
RECONNECTS = 100  # of one watch, over what may be a job of days
SUBMIT_S = 120.0  # a large program takes its time on a slow line

_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # what a server that goes away leaves behind


class Client:
    """One member's connection to the coordinator.  Every method raises MpcError with one sentence when it fails."""

    def __init__(self, identity: Identity | Path | str, cluster: Cluster | Path | str) -> None:
        """`identity` and `cluster` may be given as the identity's folder and the path of cluster.toml."""
        self.identity = identity if isinstance(identity, Identity) else load_identity(identity)
        self.cluster = cluster if isinstance(cluster, Cluster) else Cluster.load(cluster)
        self._who = self.cluster.coordinator
        self.cluster.check_dialogue(self.identity.name)
        self._channel = tls.channel(self.identity, self.cluster, self._who)
        self._stub, self._about = CoordinatorStub(self._channel), AboutStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        tls.let_go(self._channel)

    # ---- before a job -----------------------------------------------------------------------------------------------
    def schemas(self) -> list[wire.PartySchemas]:
        """The datasets that the owners offer: names, types and row counts."""
        return list(ask(self._stub.Schemas, wire.ClusterSchemasRequest(), self._who, ASK_S).parties)

    def kept(self) -> list[wire.KeptValue]:
        """The values that the nodes keep shares of."""
        return list(ask(self._stub.Kept, wire.ClusterKeptRequest(), self._who, ASK_S).values)

    def compile(self, path: Path | str) -> Compiled:
        """Compile the job file at `path` for the datasets that the owners offer now."""
        plan, function = self.plan(path)
        return compile_job(plan, function, Path(path).read_text("utf-8"))

    def plan(self, path: Path | str, *, calibrated: bool = True) -> tuple[jobfile.Plan, Callable[..., Any]]:
        """The job file at `path` with its names looked up in what the owners offer now, and its function; without its
        calibration, if there is none yet.
        """
        path = Path(path)
        job = jobfile.read(path)
        if not calibrated:
            job = job.model_copy(update={"job": job.job.model_copy(update={"calibration": "", "assume_ranges": False})})
        plan = jobfile.resolve(job, str(path), self.cluster, self.schemas(), self.kept())
        return plan, jobfile.load_function(path, job)

    def trace(
        self,
        function: Callable[..., Any],
        inputs: Mapping[str, Mapping[str, Any]],
        outputs: Mapping[str, Sequence[str] | Mapping[str, Any]],
        *,
        name: str | None = None,
        **options: Any,
    ) -> Compiled:
        """Compile a function as `compile` does a job file; arguments and options are as the job file's sections.

        client.trace(train, {"x": {"rows": ["a/wdbc", "b/wdbc"], "columns": "features"}}, {"weights": ["analyst"]})
        """
        job = jobfile.of_function(function, inputs, outputs, name=name, **options)
        plan = jobfile.resolve(job, "the job", self.cluster, self.schemas(), self.kept())
        return compile_job(plan, function, jobfile.text(job))

    # ---- jobs -------------------------------------------------------------------------------------------------------
    def submit(self, job: Compiled | Path | str) -> str:
        """Submit a compiled job, or compile and submit a job file; the job's id."""
        compiled = job if isinstance(job, Compiled) else self.compile(job)
        self.check_cluster()
        request = wire.SubmitRequest(name=compiled.plan.name, graph=to_wire(compiled.graph), source=compiled.source)
        if request.ByteSize() > tls.MAX_MESSAGE_BYTES:
            raise ConfigError(
                f"the program is {request.ByteSize() / 2**20:.0f} MiB and may be {tls.MAX_MESSAGE_BYTES >> 20}: "
                "it holds large constants; make them inputs, or compute them in the function"
            )
        return ask(self._stub.Submit, request, self._who, SUBMIT_S).job

    def check_cluster(self) -> None:
        """ConfigError if the coordinator has another cluster.toml: roles or keys differ then."""
        info = ask(self._about.Info, node_pb2.InfoRequest(), self._who, ASK_S)
        if info.cluster_digest != self.cluster.digest():
            raise ConfigError(f"{self._who} has another cluster.toml than this one: take the current file")

    def watch(self, job: str) -> Iterator[wire.JobEvent]:
        """What has happened to a job, and what happens until it ends; an event without text brings progress only.

        A coordinator that restarts, or a network that breaks, in between is waited for.
        """
        number, ended = 0, False
        for attempt in range(RECONNECTS):
            if attempt:
                ask(self._about.Info, node_pb2.InfoRequest(), self._who, RECONNECT_S, wait_for_ready=True)
            try:
                for event in follow(lambda: self._stub.Watch(wire.WatchJobRequest(job=job)), self._who):
                    ended = event.job.ended_at > 0
                    if event.number > number or not event.text:
                        number = event.number
                        yield event
            except CallFailed as error:
                if error.code not in _BROKEN or not number:
                    raise
            if ended:
                return

    def get(self, job: str) -> wire.Job:
        """A job with the reports of its nodes."""
        return ask(self._stub.Get, wire.GetRequest(job=job), self._who, ASK_S)

    def list(self) -> list[wire.Job]:
        """The latest jobs, without reports."""
        return [*ask(self._stub.List, wire.ListRequest(), self._who, ASK_S).jobs]

    def cancel(self, job: str) -> None:
        """End a job that has not ended."""
        ask(self._stub.Cancel, wire.CancelRequest(job=job), self._who, ASK_S)

    def program(self, job: str) -> Graph:
        """The graph that a job runs."""
        return from_wire(ask(self._stub.Program, wire.ProgramRequest(job=job), self._who, SUBMIT_S).graph)

    def result(self, job: str, folder: Path | str | None = None) -> results.Arrays:
        """The outputs of a job that are for this member, as arrays; written to `folder` too, if one is given."""
        found = self.get(job)
        run = Run(found.job, found.attempt)
        sealed = follow(lambda: self._stub.Results(wire.ResultsRequest(job=job)), self._who)
        arrays = results.collect(self.identity, self.cluster, run, outputs(self.program(job)), sealed)
        if not arrays:
            raise ConfigError(f"{job} has no output for {self.identity.name}")
        if folder is not None:
            results.write(arrays, Path(folder))
        return arrays
