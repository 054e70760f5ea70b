"""Measure W0, W1 and W2 over real nodes with TLS, one process each, on this machine.

    make bench                          everything python benchmarks/run.py W2 relu    some python benchmarks/run.py
    --mnist FOLDER W2    W2 on the first rows of MNIST (gzipped IDX files) instead of made-up numbers

A figure is the difference between a long and a short run of the same operation, divided by the repetitions: what one
costs in the steady state.  Each pair is run `--pairs` times and the median taken.  Peer figures are from another
machine (benchmarks/README.md): compare ratios, not seconds.
"""

from __future__ import annotations

import datetime
import gzip
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from workloads import RECIPIENT, Workload, all_workloads

from coordinator.client import Client
from coordinator.local import LocalCluster, workdir
from mpcnode import kernels
from mpcnode.errors import MpcError

RESULTS = Path(__file__).parent / "results" / "latest.json"
DEADLINE_S = 120.0


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


def measure(client: Client, workload: Workload, pairs: int) -> dict[str, Any]:
    """Median seconds, and rounds and bytes, of one repetition."""
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
    return {"what": workload.what, "seconds": statistics.median(seconds), "all_seconds": seconds, **last}


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


def read_mnist(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first training images (0 to 1, [rows, 784]) and one-hot labels ([rows, 10]) of MNIST's gzipped IDX files."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * rows), np.uint8, offset=16).reshape(rows, 784) / 255.0
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + rows), np.uint8, offset=8)
    return images, np.eye(10)[labels]


def publish(cluster: LocalCluster, workload: Workload) -> None:
    """Register a workload's arrays with their owners."""
    for (owner, dataset), array in workload.data.items():
        file = cluster.folder / owner / f"{dataset}.npy"
        np.save(file, array)
        columns = [f"c{i}" for i in range(array.shape[1])]
        cluster.datasets(owner).add(dataset, file, [RECIPIENT], columns=columns, replace=True)


def show(results: dict[str, dict[str, Any]], peers: dict[str, dict[str, float]]) -> None:
    table = Table(title="seconds, rounds and bytes of one repetition", title_justify="left")
    for column in (
        "workload",
        "what",
        "seconds",
        "rounds",
        "MB between evaluators",
        "MB dealt",
        "peak MiB",
        "elsewhere",
    ):
        table.add_column(column, justify="left" if column in ("workload", "what", "elsewhere") else "right")
    for name, r in results.items():
        dealt = sum(sent for link, sent in r["sent_bytes"].items() if link.startswith("helper->"))
        swapped = sum(r["sent_bytes"].values()) - dealt
        table.add_row(
            name,
            r["what"],
            f"{r['seconds']:.4g}",
            f"{r['rounds']:.0f}",
            f"{swapped / 1e6:.3g}",
            f"{dealt / 1e6:.3g}",
            f"{max(r['peak_mib'].values()):.0f}",
            ", ".join(f"{k} {v:g}" for k, v in peers[name].items()),
        )
    Console(width=160).print(table)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Workloads; all, if none is named.")] = None,
    mnist: Annotated[Path | None, typer.Option(help="A folder with MNIST's gzipped IDX files, for W2.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of a short and a long run.")] = 3,
    folder: Annotated[Path, typer.Option(help="Where the cluster's folders go.")] = Path(".bench"),
) -> None:
    """Measure workloads, print a table and write benchmarks/results/latest.json."""
    workloads = all_workloads(read_mnist(mnist, 128) if mnist else None)
    unknown = set(names or ()) - {w.name for w in workloads}
    if unknown:
        raise typer.BadParameter(
            f"there is no {', '.join(sorted(unknown))}; there is {', '.join(w.name for w in workloads)}"
        )
    chosen = [w for w in workloads if not names or w.name in names]
    results: dict[str, dict[str, Any]] = {}
    start = machine()
    console = Console(stderr=True)
    with (
        workdir(folder) as place,
        LocalCluster(place, deadline_s=DEADLINE_S) as cluster,
        Client(cluster.identities[RECIPIENT], cluster.cluster) as client,
    ):
        for workload in chosen:
            publish(cluster, workload)
            with console.status(f"{workload.name}: {workload.what}"):
                results[workload.name] = measure(client, workload, pairs)
    show(results, {w.name: w.peers for w in workloads})
    RESULTS.parent.mkdir(exist_ok=True)
    record = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": start,
        "workloads": results,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    Console().print(f"wrote {RESULTS}")


if __name__ == "__main__":
    typer.run(main)
