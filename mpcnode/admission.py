"""May this node run this program?  Everything that can be known before the first message is checked here.

The graph comes from a coordinator that nobody needs to trust: it is verified, held against the owner's policy and
against the owner's data and kept shares, and later against the peers' digests of it.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from pydantic import ValidationError

from mpcnode import policy, protocols, ring, tomlfile
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets
from mpcnode.engine import Plan
from mpcnode.errors import ConfigError, DataError
from mpcnode.graph import Graph, Op
from mpcnode.graph_wire import from_wire
from mpcnode.kept import Kept, Making, Share, leaf_of
from mpcnode.matching import joins
from mpcnode.ring import U64
from mpcnode.rounds import Array
from mpcnode.simulate import Slot
from mpcnode.verify import verify
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
    parties: tuple[str, ...]  # by rank: who computes, then the other owners whose data is read
    inputs: Mapping[Key, U64]
    keys: Mapping[str, bytes]  # of datasets that are joined: the digest of whom their rows are about
    kept: Mapping[Slot, Array]  # this node's shares of what the program loads
    tags: Mapping[str, bytes]  # by peer: what both alone know if they hold shares of the same makings
    makings: tuple[Making, ...]  # what it keeps


class Holdings(NamedTuple):
    """What a node brings to a program: its data, and its shares of kept values."""

    datasets: Datasets
    kept: Kept


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


def participants(graph: Graph, cluster: Cluster) -> tuple[str, ...]:
    """Who takes part in a program, by rank: those who compute, then the other owners whose data it reads, who bring
    it, masked, and do no more.
    """
    owners = dict.fromkeys(op.text("owner") for op in graph.ops if op.name == "input")
    return (*cluster.parties, *(owner for owner in owners if owner not in cluster.parties))


def admit(request: node_pb2.PrepareRequest, cluster: Cluster, holdings: Holdings, me: str) -> Task:
    """Check a program, and read this node's data and kept shares for it.

    Raises GraphError for a program that no node may run, ConfigError for one that does not fit the cluster,
    PolicyError for one that this node does not allow, and DataError for one that does not fit this node's data or
    what it keeps.
    """
    run = run_of(request.job, request.attempt)
    if not (math.isfinite(request.deadline_s) and 0 < request.deadline_s <= MAX_DEADLINE_S):
        raise ConfigError(f"the deadline must be more than 0 and at most {MAX_DEADLINE_S:g} seconds")
    if request.protocol != cluster.protocol:
        raise ConfigError(f"{me} is in a cluster that runs the protocol {cluster.protocol}, and no other")
    graph = from_wire(request.graph)
    verify(graph)
    _check_members(graph, cluster, me)
    datasets, program = holdings.datasets, graph.digest().hex()
    terms = datasets.terms()
    policy.check_reading(graph, terms, me)
    policy.check(policy.taints(graph), policy.recipients(graph), terms, me, program)
    policy.check_keeping(policy.keeps(graph), terms, me, program)
    shares = _shares(graph, cluster, holdings.kept) if me in cluster.parties else {}
    if me in cluster.evaluators:  # a helper's masks alone are nothing: it does as those do who hold the values
        policy.check_kept(graph, {name: holdings.kept.terms(name) for name in shares}, me)
    inputs: dict[Key, U64] = {}
    for op in graph.ops:
        if op.name == "input" and op.text("owner") == me and key_of(op) not in inputs:
            inputs[key_of(op)] = _read(op, datasets, me)
    plan = Plan(graph)
    joined = {op.text("dataset") for join in joins(graph, plan.numbers) for op in join.owned_by(me)}
    return Task(
        run,
        plan,
        graph.digest(),
        request.deadline_s,
        participants(graph, cluster),
        inputs,
        {name: datasets.keys_sha256(name) for name in sorted(joined)},
        {(name, path): array for name, share in shares.items() for path, array in share.arrays.items()},
        {peer: _tag(shares, peer) for peer in cluster.parties if shares and peer != me},
        _makings(graph, run, cluster, holdings.kept) if me in cluster.parties else (),
    )


def _check_members(graph: Graph, cluster: Cluster, me: str) -> None:
    try:
        protocols.get(cluster.protocol).check_size(len(cluster.parties))
    except ValueError as error:
        raise ConfigError(f"{error}") from None
    for op in graph.ops:
        if op.name == "input" and op.text("owner") not in cluster.owners:
            raise ConfigError(
                f"the program reads data of {op.text('owner')}, who runs no node in {cluster.name}: data comes from "
                f"{', '.join(cluster.owners)}"
            )
        if op.name == "reveal":
            for recipient in op.texts("to"):
                cluster.card(recipient)


def _shares(graph: Graph, cluster: Cluster, kept: Kept) -> dict[str, Share]:
    """This node's shares of what a program loads, by name.  Raises DataError for one that is not there or not fit."""
    found: dict[str, Share] = {}
    for op in graph.ops:
        if op.name != "load":
            continue
        name, run = op.text("kept"), op.text("run")
        share = found[name] if name in found else found.setdefault(name, kept.load(name, run))
        made = share.header.making
        if (made.protocol, made.parties) != (cluster.protocol, cluster.parties):
            raise DataError(
                f"{name} was kept by {', '.join(made.parties)} under {made.protocol}, and {cluster.name} computes with "
                f"{', '.join(cluster.parties)} under {cluster.protocol}: only who kept it can use it"
            )
        types = {leaf.path: leaf.type for leaf in made.leaves}
        if made.run != run or types.get(op.texts("path")) != op.type:
            raise DataError(f"the program loads what {name} of {made.run} does not hold: compile it anew")
    return found


def _tag(shares: Mapping[str, Share], peer: str) -> bytes:
    """What this node and `peer` alone know of all makings that a program loads."""
    tags = [name + share.header.tags.get(peer, "") for name, share in sorted(shares.items())]
    return hashlib.sha256("\0".join(tags).encode()).digest()


def _makings(graph: Graph, run: Run, cluster: Cluster, kept: Kept) -> tuple[Making, ...]:
    """What a program keeps.  Raises ConfigError for a name that is taken, or can be none."""
    stores: dict[str, list[Op]] = {}
    for op in graph.ops:
        if op.name == "store":
            stores.setdefault(op.text("kept"), []).append(op)
    taken = {entry.name: entry for entry in kept.entries()}
    for name, ops in stores.items():
        if name in taken and not ops[0].integer("replace"):
            made = taken[name]
            raise ConfigError(
                f"{kept.me} keeps {name} already, made by {made.job}: keep it under another name, or say "
                "`replace = true` in the job file"
            )
    digest = graph.digest().hex()
    try:
        return tuple(
            Making(
                name=name,
                job=run.job,
                attempt=run.attempt,
                program=digest,
                protocol=cluster.protocol,
                parties=cluster.parties,
                leaves=tuple(leaf_of(op) for op in ops),
                recipients=ops[0].texts("to"),
                kept_at=time.time(),
            )
            for name, ops in stores.items()
        )
    except ValidationError as error:
        raise ConfigError(f"the program keeps what cannot be kept: {tomlfile.sentence(error)}") from error


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
