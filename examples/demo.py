"""An example, whole: its owners' nodes, a helper and a coordinator on this machine train one model together.

    python examples/demo.py breast_cancer       (`make demo`)
    python examples/demo.py credit

Everything is what separate machines would run, over loopback: processes that talk mutual TLS.  The example's owners.py
writes each owner's file and registers it, an analyst submits job.toml and receives the results, and the summary
compares them with the same JAX function run on the pooled plain data.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli import watch_job
from coordinator.client import Client
from coordinator.frontend.plain import run_plain
from coordinator.jobfile import Plan
from coordinator.local import INTERRUPTED, LocalCluster, end_on_signals, workdir
from mpcnode import protocols
from mpcnode.errors import MpcError

EXAMPLES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/owners.py"))
console = Console()


def load_owners(example: str) -> ModuleType:
    """The example's owners.py: EVALUATORS, the owners by name, and `register`, which gives a cluster their data.

    MpcError if there is no such example.
    """
    if example not in EXAMPLES:
        raise MpcError(f"there is no example {example!r}: there is {', '.join(EXAMPLES)}")
    path = Path(__file__).parent / example / "owners.py"
    spec = importlib.util.spec_from_file_location(f"{example}_owners", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pooled(cluster: LocalCluster, plan: Plan) -> dict[str, np.ndarray]:
    """The job's inputs as nobody but this comparison has them: all owners' blocks in one array."""
    return {
        name: np.concatenate(
            [cluster.datasets(piece.owner).load(piece.dataset, piece.columns) for piece in item.pieces],
            axis=int(item.joined),
        )
        for name, item in plan.inputs.items()
    }


def compare(secure: dict[str, np.ndarray], clear: dict[str, np.ndarray]) -> dict[str, Any]:
    """Single numbers of both, and the largest difference between their arrays."""
    if secure.keys() != clear.keys():
        raise MpcError(f"the job returned {sorted(secure)}, the plain function {sorted(clear)}")
    numbers = {name: float(value) for name, value in secure.items() if value.size == 1 and value.ndim == 0}
    arrays = [name for name in secure if name not in numbers]
    return {
        "measures": numbers,
        "plain_measures": {name: float(clear[name]) for name in numbers},
        "largest_weight_difference": float(max(np.abs(secure[name] - clear[name]).max() for name in arrays)),
    }


def run(folder: Path, job: Path, cluster: LocalCluster) -> dict[str, Any]:
    """Submit, watch, fetch, compare; the summary."""
    with Client(cluster.identities["analyst"], cluster.cluster) as client:
        begun = time.perf_counter()
        compiled = client.compile(job)
        compile_s = time.perf_counter() - begun
        number = client.submit(compiled)
        console.print(f"submitted {job.name} as {number}, compiled in {compile_s:.1f} s")
        watch_job(client, number)
        found = client.get(number)
        secure = client.result(number, folder / "result")
        plan, train = client.plan(job)
    reports = {r.party: r.finished for r in found.reports}
    return {
        **compare(secure, run_plain(train, plan.inputs, plan.outputs, pooled(cluster, plan))),
        "seconds": max(f.seconds for f in reports.values()),
        "compile_seconds": compile_s,
        "rounds": max(f.rounds for f in reports.values()),
        "sent_bytes": {f"{party}->{t.peer}": t.sent_bytes for party, f in reports.items() for t in f.traffic},
        "peak_mib": {party: f.peak_mib for party, f in reports.items()},
        "threat_model": protocols.get(cluster.cluster.protocol).threat_model,
        "result": str(folder / "result" / "weights.npz"),
    }


def show(title: str, summary: dict[str, Any]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in summary["measures"].items():
        table.add_row(name, f"{value:.4f}, in plain JAX on pooled data {summary['plain_measures'][name]:.4f}")
    table.add_row("largest weight difference", f"{summary['largest_weight_difference']:.2e}")
    table.add_row("seconds", f"{summary['seconds']:.1f} on shares, {summary['compile_seconds']:.1f} to compile")
    table.add_row("rounds", f"{summary['rounds']:,}")
    for link, sent in sorted(summary["sent_bytes"].items()):
        table.add_row(f"bytes {link}", f"{sent:,}")
    table.add_row("threat model", summary["threat_model"])
    table.add_row("result", f"np.load('{summary['result']}')")
    console.print(table)


def whole(example: str, folder: Path) -> None:
    """Make a cluster in `folder`, run the example on it, and write summary.json."""
    owners = load_owners(example)
    with workdir(folder) as place:
        cluster = LocalCluster(place, evaluators=owners.EVALUATORS)
        end_on_signals(cluster, "demo")
        for line in owners.register(cluster):
            console.print(line)
        console.print(f"starting helper, {', '.join(owners.EVALUATORS)} and coordinator ...")
        with cluster:
            for card in cluster.cluster.servers:
                console.print(f"  {card.name} serves at {card.address}, process {cluster.process(card.name).pid}")
            summary = run(place, Path(__file__).parent / example / "job.toml", cluster)
        (place / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        show(f"{' and '.join(owners.EVALUATORS)}: one model", summary)
        console.print(f"wrote {place / 'summary.json'}")


def main(
    example: Annotated[str, typer.Argument(help=f"One of {', '.join(EXAMPLES)}.")],
    folder: Annotated[Path, typer.Option(help="Where the members' folders go.")] = Path(".demo"),
) -> None:
    """Run an example on this machine and write summary.json into the folder."""
    try:
        whole(example, folder)
    except MpcError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    typer.run(main)
