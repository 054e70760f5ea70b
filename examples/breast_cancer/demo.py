"""Two clinics, a helper and a coordinator on this machine train one model together: `make demo`.

Everything is what separate machines would run, over loopback: four processes that talk mutual TLS.  Each clinic
registers a CSV with half of the Wisconsin breast cancer data, an analyst submits job.toml and receives the model, and
the summary compares it with the same JAX function run on the pooled plain data.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import jax
import numpy as np
import pyarrow as pa
import typer
from pyarrow import csv
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer

from coordinator import jobfile
from coordinator.cli import watch_job
from coordinator.client import Client
from coordinator.local import LocalCluster, workdir
from mpcnode import protocols
from mpcnode.errors import MpcError

HERE = Path(__file__).parent
JOB = HERE / "job.toml"
console = Console()


def write_halves(cluster: LocalCluster) -> None:
    """Every second patient goes to each clinic; registering states who may learn from it."""
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    for first, clinic in enumerate(("clinic_a", "clinic_b")):
        columns = {name: data.data[first::2, i] for i, name in enumerate(names)}
        columns["malignant"] = 1 - data.target[first::2]  # scikit-learn calls benign 1
        file = cluster.folder / clinic / "wdbc.csv"
        csv.write_csv(pa.table(columns), file)
        schema = cluster.datasets(clinic).add("wdbc", file, ["analyst", "clinic_a", "clinic_b"], label="malignant")
        console.print(
            f"{clinic} registered wdbc: {schema.rows} rows, {len(schema.columns)} columns; only this leaves it"
        )


def plain(cluster: LocalCluster) -> dict[str, np.ndarray]:
    """The same function on the pooled data, in JAX alone."""
    job = jobfile.read(JOB)
    train = jobfile.load_function(JOB, job)
    blocks = [cluster.datasets(owner) for owner in ("clinic_a", "clinic_b")]
    arguments = [
        np.concatenate([block.load("wdbc", section.columns) for block in blocks]).astype(np.float32)
        for section in job.inputs.values()
    ]
    found = jax.jit(train)(*[a[:, 0] if s.squeeze else a for a, s in zip(arguments, job.inputs.values(), strict=True)])
    flat, _ = jax.tree_util.tree_flatten_with_path(found)
    return {"/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): np.asarray(a) for path, a in flat}


def compare(secure: dict[str, np.ndarray], clear: dict[str, np.ndarray]) -> dict[str, Any]:
    """Accuracies of both models, and the largest difference between their weights."""
    if secure.keys() != clear.keys():
        raise MpcError(f"the job returned {sorted(secure)}, the plain function {sorted(clear)}")
    accuracy = {name: float(value) for name, value in secure.items() if name.startswith("accuracy")}
    weights = {name: value for name, value in secure.items() if name.startswith("weights")}
    return {
        "accuracy": accuracy,
        "plain_accuracy": {name: float(clear[name]) for name in accuracy},
        "largest_weight_difference": float(max(np.abs(value - clear[name]).max() for name, value in weights.items())),
    }


def run(folder: Path, cluster: LocalCluster) -> dict[str, Any]:
    """Submit, watch, fetch, compare; the summary."""
    with Client(cluster.identities["analyst"], cluster.cluster) as client:
        begun = time.perf_counter()
        compiled = client.compile(JOB)
        compile_s = time.perf_counter() - begun
        job = client.submit(compiled)
        console.print(f"submitted {JOB.name} as {job}, compiled in {compile_s:.1f} s")
        watch_job(client, job)
        found = client.get(job)
        secure = client.result(job, folder / "result")
    reports = {r.party: r.finished for r in found.reports}
    return {
        **compare(secure, plain(cluster)),
        "seconds": max(f.seconds for f in reports.values()),
        "compile_seconds": compile_s,
        "rounds": max(f.rounds for f in reports.values()),
        "sent_bytes": {f"{party}->{t.peer}": t.sent_bytes for party, f in reports.items() for t in f.traffic},
        "peak_mib": {party: f.peak_mib for party, f in reports.items()},
        "threat_model": protocols.get(cluster.cluster.protocol).threat_model,
        "result": str(folder / "result" / "weights.npz"),
    }


def show(summary: dict[str, Any]) -> None:
    table = Table(title="two clinics, one model", title_justify="left", show_header=False)
    for name, value in summary["accuracy"].items():
        table.add_row(name, f"{value:.2%}, in plain JAX on pooled data {summary['plain_accuracy'][name]:.2%}")
    table.add_row("largest weight difference", f"{summary['largest_weight_difference']:.2e}")
    table.add_row("seconds", f"{summary['seconds']:.1f} on shares, {summary['compile_seconds']:.1f} to compile")
    table.add_row("rounds", f"{summary['rounds']:,}")
    for link, sent in sorted(summary["sent_bytes"].items()):
        table.add_row(f"bytes {link}", f"{sent:,}")
    table.add_row("threat model", summary["threat_model"])
    table.add_row("result", f"np.load('{summary['result']}')")
    console.print(table)


def interrupt(number: int, _: FrameType | None) -> None:
    """A polite kill ends as Ctrl-C does: with every process of the cluster stopped."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(folder: Annotated[Path, typer.Option(help="Where the members' folders go.")] = Path(".demo")) -> None:
    """Run the demo and write summary.json into the folder."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        with workdir(folder) as place:
            cluster = LocalCluster(place)
            write_halves(cluster)
            console.print("starting helper, clinic_a, clinic_b and coordinator ...")
            with cluster:
                for card in cluster.cluster.servers:
                    console.print(f"  {card.name} serves at {card.address}, process {cluster.process(card.name).pid}")
                summary = run(place, cluster)
            (place / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            show(summary)
            console.print(f"wrote {place / 'summary.json'}")
    except MpcError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("demo: interrupted; all processes are stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    typer.run(main)
