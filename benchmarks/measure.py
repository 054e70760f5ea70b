"""Run workloads over real nodes, and take the difference of a long and a short run: for `run.py` and `sweep.py`."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import streams
from relay import Network, between
from workloads import RECIPIENT, Workload

from coordinator import cost
from coordinator.client import Client
from coordinator.compiled import Compiled
from coordinator.local import LocalCluster, workdir
from mpcnode import kernels, protocols
from mpcnode.errors import MpcError
from mpcnode.graph import Graph, Kind

DEADLINE_S = 120.0
BUSY = 1.0  # load before a measurement from which on its figures are preliminary; behind it, it is its own
PRODUCTS = 1  # that a party of masked evaluation computes for each of the program's, with two evaluators


@contextlib.contextmanager
def cluster(
    folder: Path,
    *,
    evaluators: Sequence[str] = ("clinic_a", "clinic_b"),
    threads: int = 1,
    network: Network | None = None,
) -> Iterator[tuple[LocalCluster, Client]]:
    """Nodes on this machine, one process each, with a network between them; the coordinator is near to all."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(workdir(folder))
        local = LocalCluster(place, evaluators=evaluators, deadline_s=DEADLINE_S, threads=threads)
        if network is not None:
            apart(stack, local, network)
        stack.enter_context(local)
        yield local, stack.enter_context(Client(local.identities[RECIPIENT], local.cluster))


def apart(stack: contextlib.ExitStack, local: LocalCluster, network: Network) -> None:
    """Put a relay between every two nodes: the one of the lower rank dials."""
    parties = local.cluster.parties
    addresses = {name: str(local.cluster.card(name).address) for name in parties}
    pairs = [(a, b) for i, a in enumerate(parties) for b in parties[i + 1 :]]
    fronts = stack.enter_context(between(addresses, pairs, network))
    for name in parties:
        local.reach(name, {target: front for (source, target), front in fronts.items() if source == name})


class Measured(NamedTuple):
    """One run of a job over the nodes."""

    seconds: float
    rounds: int
    sent_bytes: dict[str, int]
    peak_mib: dict[str, float]


def run_job(client: Client, compiled: Compiled) -> Measured:
    """Submit one run and wait for its end.  Raises MpcError when it does not end well."""
    job = client.submit(compiled)
    for _ in client.watch(job):
        pass
    found = client.get(job)
    if not found.reports:
        raise MpcError(f"{compiled.plan.name} was aborted: {found.cause}")
    reports = {r.party: r.finished for r in found.reports}
    return Measured(
        max(f.seconds for f in reports.values()),
        max(f.rounds for f in reports.values()),
        {f"{party}->{t.peer}": t.sent_bytes for party, f in reports.items() for t in f.traffic},
        {party: f.peak_mib for party, f in reports.items()},
    )


def measure(
    client: Client, workload: Workload, pairs: int, network: Network | None = None, warm: bool = True
) -> dict[str, Any]:
    """Median seconds, rounds, bytes and multiply-adds of one repetition; with a network also what the model says."""
    few, many = workload.compile(client, workload.short), workload.compile(client, workload.long)
    count = workload.long - workload.short
    if warm:
        run_job(client, few)  # loads libraries and data
    seconds, last = [], None
    for _ in range(pairs):
        short, long = run_job(client, few), run_job(client, many)
        seconds.append((long.seconds - short.seconds) / count)
        last = {
            "rounds": (long.rounds - short.rounds) / count,
            "sent_bytes": {
                link: (sent - short.sent_bytes.get(link, 0)) / count for link, sent in sorted(long.sent_bytes.items())
            },
            "macs": (macs(many.graph) - macs(few.graph)) / count,
            "peak_mib": long.peak_mib,
        }
    assert last is not None
    found = {"what": workload.what, "seconds": statistics.median(seconds), "all_seconds": seconds, **last}
    if network is not None:
        estimates = [estimated_s(client, compiled.graph, network) for compiled in (few, many)]
        found["estimated_seconds"] = (estimates[1] - estimates[0]) / count
    return found


def estimated_s(client: Client, graph: Graph, network: Network) -> float:
    """What `coordinator estimate` says that the network takes."""
    rules, parties = protocols.get(client.cluster.protocol), client.cluster.parties
    return cost.estimate(graph, rules, parties).seconds(2 * network.delay_s, network.bytes_per_s)


# ---- what no implementation on this machine could be faster than -----------------------------------------------------
def macs(graph: Graph, times: int = 1) -> float:
    """Multiply-adds of the program's products of secrets."""
    total = 0.0
    for op in graph.ops:
        if op.name == "loop":
            total += macs(op.body, times * op.integer("length"))
        types = [graph.ops[a].type for a in op.args]
        if any(t.kind is Kind.PUBLIC for t in types):
            continue
        if op.name == "dot":
            total += times * op.type.size * types[0].shape[-1]
        elif op.name == "conv":  # zeros between the elements are not multiplied
            window = types[1].shape[1:-1]
            total += times * op.type.size * math.prod(window) / math.prod(op.integers("base_dilation"))
    return total


def limits() -> dict[str, float]:
    """The kernel's speed (10^9 multiply-adds a second of one thread at W2's first layer), that of a TLS stream in
    large messages, and what a message of one byte takes one way.
    """
    stream = streams.measure()
    rng = np.random.default_rng(3)
    x, y = (rng.integers(0, 1 << 64, shape, np.uint64) for shape in ((128, 784), (784, 128)))
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        kernels.matmul(x, y)
        best = min(best, time.perf_counter() - began)
    speed = x.size * y.shape[1] / best / 1e9
    return {"gmac_per_s": speed, "stream_bytes_per_s": stream.bytes_per_s, "message_s": stream.one_way_s}


def bounds(found: Mapping[str, Any], at: Mapping[str, float], threads: int = 1) -> dict[str, float]:
    """Seconds that a repetition would take if it were nothing but the products that an evaluator cannot do without, the
    bytes of the busiest node over one stream, or its rounds.
    """
    sent: dict[str, float] = {}
    for link, nbytes in found["sent_bytes"].items():
        node = link.partition("->")[0]
        sent[node] = sent.get(node, 0.0) + nbytes
    return {
        "products": PRODUCTS * found["macs"] / (at["gmac_per_s"] * 1e9 * threads),
        "bytes": max(sent.values()) / at["stream_bytes_per_s"],
        "rounds": found["rounds"] * at["message_s"],
    }


def machine() -> dict[str, Any]:
    """What ran it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "simd": [f for f in ("avx2", "avx512f", "avx512dq", "vaes") if f in flags],
        "kernels": kernels.NAME,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(),
    }


def publish(cluster: LocalCluster, workload: Workload) -> None:
    """Register a workload's arrays with their owners."""
    for (owner, dataset), array in workload.data.items():
        file = cluster.folder / owner / f"{dataset}.npy"
        np.save(file, array)
        columns = [f"c{i}" for i in range(array.shape[1])]
        cluster.datasets(owner).add(dataset, file, [RECIPIENT], columns=columns, replace=True)
