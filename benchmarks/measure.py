"""Run workloads over real nodes, and take the difference of a long and a short run: for `run.py` and `sweep.py`."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from relay import Network, between
from workloads import RECIPIENT, Workload

from coordinator import cost
from coordinator.client import Client
from coordinator.local import LocalCluster, workdir
from mpcnode import kernels, protocols
from mpcnode.errors import MpcError

DEADLINE_S = 120.0


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


def run_job(client: Client, workload: Workload, repetitions: int) -> Measured:
    """Submit one run and wait for its end.  Raises MpcError when it does not end well."""
    job = client.submit(workload.compile(client, repetitions))
    for _ in client.watch(job):
        pass
    found = client.get(job)
    if not found.reports:
        raise MpcError(f"{workload.name} was aborted: {found.cause}")
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
    """Median seconds, and rounds and bytes, of one repetition; with a network also what the cost model says of it."""
    if warm:
        run_job(client, workload, workload.short)  # loads libraries and data
    seconds, last = [], None
    for _ in range(pairs):
        short = run_job(client, workload, workload.short)
        long = run_job(client, workload, workload.long)
        count = workload.long - workload.short
        seconds.append((long.seconds - short.seconds) / count)
        last = {
            "rounds": (long.rounds - short.rounds) / count,
            "sent_bytes": {
                link: (sent - short.sent_bytes.get(link, 0)) / count for link, sent in sorted(long.sent_bytes.items())
            },
            "peak_mib": long.peak_mib,
        }
    assert last is not None
    found = {"what": workload.what, "seconds": statistics.median(seconds), "all_seconds": seconds, **last}
    if network is not None:
        found["estimated_seconds"] = estimated_s(client, workload, network)
    return found


def estimated_s(client: Client, workload: Workload, network: Network) -> float:
    """What `coordinator estimate` says that the network takes of one repetition."""
    rules, size = protocols.get(client.cluster.protocol), len(client.cluster.parties)
    short, long = (
        cost.estimate(workload.compile(client, n).graph, rules, size).seconds(2 * network.delay_s, network.bytes_per_s)
        for n in (workload.short, workload.long)
    )
    return (long - short) / (workload.long - workload.short)


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
