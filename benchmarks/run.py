"""Measure W0 to W3 over real nodes with TLS, one process each, on this machine.

    make bench                                           everything
    python benchmarks/run.py W2 relu                     some
    python benchmarks/run.py W3 --mnist FOLDER           W3 on the first rows of MNIST (gzipped IDX files)
    python benchmarks/run.py W2 --network wan            nodes 40 ms apart, on lines of 352 Mbit/s: see relay.py

A figure is the difference between a long and a short run of the same operation, divided by the repetitions: what one
costs in the steady state.  Each pair is run `--pairs` times and the median taken.  Peer figures are from another
machine (benchmarks/README.md): compare ratios, not seconds.
"""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Annotated, Any

import measure
import numpy as np
import typer
from relay import Network
from rich.console import Console
from rich.table import Table
from workloads import all_workloads

from coordinator import cost

RESULTS = Path(__file__).parent / "results"
NETWORKS = {"lan": "0.5ms/1Gbit", "wan": "40ms/352Mbit"}  # round trip and rate
FAR_S = 0.01  # round trips from here on make repetitions dear: a quarter of them serves


def read_mnist(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first training images (0 to 1, [rows, 784]) and one-hot labels ([rows, 10]) of MNIST's gzipped IDX files."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * rows), np.uint8, offset=16).reshape(rows, 784) / 255.0
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + rows), np.uint8, offset=8)
    return images, np.eye(10)[labels]


def parse_network(text: str) -> Network:
    """A name, or a round trip and a rate such as 40ms/352Mbit; ValueError otherwise."""
    trip, slash, rate = NETWORKS.get(text, text).partition("/")
    if not slash:
        raise ValueError(f"{text!r} is neither of {', '.join(NETWORKS)}, nor a round trip and a rate like 40ms/352Mbit")
    return Network(cost.seconds(trip) / 2, cost.bytes_per_s(rate if rate.endswith("/s") else f"{rate}/s"))


def show(results: dict[str, dict[str, Any]], peers: dict[str, dict[str, float]]) -> None:
    table = Table(title="seconds, rounds and bytes of one repetition", title_justify="left")
    for column in (
        "workload",
        "what",
        "seconds",
        "of the model",
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
            f"{r['estimated_seconds']:.4g}" if "estimated_seconds" in r else "",
            f"{r['rounds']:.0f}",
            f"{swapped / 1e6:.3g}",
            f"{dealt / 1e6:.3g}",
            f"{max(r['peak_mib'].values()):.0f}",
            ", ".join(f"{k} {v:g}" for k, v in peers[name].items()),
        )
    Console(width=160).print(table)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Workloads; all, if none is named.")] = None,
    mnist: Annotated[Path | None, typer.Option(help="A folder with MNIST's gzipped IDX files, for W2 and W3.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of a short and a long run.")] = 3,
    network: Annotated[
        Network | None,
        typer.Option(
            parser=parse_network,
            metavar="lan|wan|RTT/RATE",
            help="Between the nodes: lan is 0.5ms/1Gbit, wan 40ms/352Mbit.",
            show_default="loopback as it is",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the cluster's folders go.")] = Path(".bench"),
) -> None:
    """Measure workloads, print a table and write benchmarks/results/latest.json (with a network: RTT.json)."""
    workloads = all_workloads(read_mnist(mnist, 128) if mnist else None)
    unknown = set(names or ()) - {w.name for w in workloads}
    if unknown:
        raise typer.BadParameter(
            f"there is no {', '.join(sorted(unknown))}; there is {', '.join(w.name for w in workloads)}"
        )
    chosen = [w for w in workloads if not names or w.name in names]
    if network is not None and network.delay_s * 2 >= FAR_S:
        chosen = [w._replace(long=w.short + max(1, (w.long - w.short) // 4)) for w in chosen]
    results: dict[str, dict[str, Any]] = {}
    start, limits = measure.machine(), measure.limits()
    console = Console(stderr=True)
    with measure.cluster(folder, network=network) as (cluster, client):
        for workload in chosen:
            measure.publish(cluster, workload)
            with console.status(f"{workload.name}: {workload.what}"):
                results[workload.name] = measure.measure(client, workload, pairs, network)
    show(results, {w.name: w.peers for w in workloads})
    RESULTS.mkdir(exist_ok=True)
    record = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": start,
        "limits": limits,
        **({} if network is None else {"round_trip_s": 2 * network.delay_s, "bytes_per_s": network.bytes_per_s}),
        "workloads": results,
    }
    file = RESULTS / ("latest.json" if network is None else f"{2e3 * network.delay_s:g}ms.json")
    file.write_text(json.dumps(record, indent=2) + "\n")
    Console().print(f"wrote {file}")


if __name__ == "__main__":
    typer.run(main)
