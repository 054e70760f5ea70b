"""May this node run this program?  Everything that can be known before the first message is checked here.

The graph comes from a coordinator that nobody needs to trust: it is verified, held against the owner's policy and
against the owner's data, and later against the peers' digests of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from mpcnode import policy, protocols, ring
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets
from mpcnode.engine import Plan
from mpcnode.errors import ConfigError, DataError
from mpcnode.graph import Graph, Op, verify
from mpcnode.graph_wire import from_wire
from mpcnode.matching import joins
from mpcnode.ring import U64
from mpcnode.wire import node_pb2

MAX_DEADLINE_S = 24 * 3600.0

_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)

Key: TypeAlias = tuple[str, tuple[str, ...], int]  # dataset, columns, fraction bits


class Run(NamedTuple):
    """One attempt at one job."""

    job: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.job}, attempt {self.attempt}"


class Task(NamedTuple):
    """What a node has agreed to run, with its own data."""

    run: Run
    plan: Plan
    digest: bytes  # of the graph
    deadline_s: float  # of every single wait for a peer
    inputs: Mapping[Key, U64]
    keys: Mapping[str, bytes]  # of datasets that are joined: the digest of whom their rows are about


def run_of(job: str, attempt: int) -> Run:
    """The attempt that a request names.  Raises ConfigError for what cannot be one."""
    if not _JOB.fullmatch(job) or attempt < 1:
        raise ConfigError(
            "a job has a name of at most 128 letters, digits, dots, dashes and underscores, and attempts from 1 on"
        )
    return Run(job, attempt)


def key_of(op: Op) -> Key:
    """Which data an `input` wants, and in which form."""
    return op.text("dataset"), op.texts("columns"), op.type.frac


def admit(request: node_pb2.PrepareRequest, cluster: Cluster, datasets: Datasets, me: str) -> Task:
    """Check a program and read this node's data for it.

    Raises GraphError for a program that no node may run, ConfigError for one that does not fit the cluster,
    PolicyError for one that this node does not allow, and DataError for one that does not fit this node's data.
    """
    run = run_of(request.job, request.attempt)
    if not (math.isfinite(request.deadline_s) and 0 < request.deadline_s <= MAX_DEADLINE_S):
        raise ConfigError(f"the deadline must be more than 0 and at most {MAX_DEADLINE_S:g} seconds")
    if request.protocol != cluster.protocol:
        raise ConfigError(f"{me} is in a cluster that runs the protocol {cluster.protocol}, and no other")
    graph = from_wire(request.graph)
    verify(graph)
    _check_members(graph, cluster, me)
    policy.check(policy.taints(graph), policy.recipients(graph), datasets.allowed(), me)
    inputs: dict[Key, U64] = {}
    for op in graph.ops:
        if op.name == "input" and op.text("owner") == me and key_of(op) not in inputs:
            inputs[key_of(op)] = _read(op, datasets, me)
    plan = Plan(graph)
    joined = {op.text("dataset") for join in joins(graph, plan.numbers) for op in join.owned_by(me)}
    keys = {name: datasets.keys_sha256(name) for name in sorted(joined)}
    return Task(run, plan, graph.digest(), request.deadline_s, inputs, keys)


def _check_members(graph: Graph, cluster: Cluster, me: str) -> None:
    try:
        protocols.get(cluster.protocol).check_size(len(cluster.parties))
    except ValueError as error:
        raise ConfigError(f"{error}") from None
    for op in graph.ops:
        if op.name == "input" and op.text("owner") not in cluster.parties:
            raise ConfigError(f"the program reads data of {op.text('owner')}, who does not compute in {cluster.name}")
        if op.name == "reveal":
            for recipient in op.texts("to"):
                cluster.card(recipient)


def _read(op: Op, datasets: Datasets, me: str) -> U64:
    """This node's data for an `input`, as ring elements."""
    name, columns, frac = key_of(op)
    rows = datasets.schema(name).rows
    if rows != op.type.shape[0]:
        raise DataError(f"the program wants {op.type.shape[0]} rows of {me}/{name}, which has {rows}: compile it anew")
    data = datasets.load(name, columns)
    if data.shape != op.type.shape:
        raise DataError(f"the program wants {len(columns)} columns of {me}/{name}, and names {data.shape[1]}")
    try:
        return ring.encode(data, frac)
    except ring.RangeError as error:
        raise DataError(f"{me}/{name} does not fit: {error}; scale the data, or use fewer fraction bits") from None
