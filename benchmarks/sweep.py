"""How the cost of a training step grows: batch, width, depth, evaluators and threads, one at a time.

    make bench-plots                    the sweep, then the plots
    python benchmarks/sweep.py batch    some of it

The base is W2, the perceptron 784-128-128-10 with batch 128.  Beside every figure stand the limits that it works
against: the products that an evaluator cannot do without at the speed of the compiled kernel, the bytes of the busiest
node at the speed of one TLS stream, and the rounds at the time that a message takes; all measured in the same minutes.
Writes benchmarks/results/sweep.json, which plots.py draws.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import measure
import numpy as np
import typer
from rich.console import Console
from workloads import OWNER_X, OWNER_Y, Workload, perceptron, traced

from coordinator.client import Client
from coordinator.compiled import Compiled

RESULTS = Path(__file__).parent / "results" / "sweep.json"
SHORT, LONG = 20, 40  # steps: beyond those that are recorded
CLASSES = 10
OTHERS = ("third", "fourth", "fifth")  # evaluators that own nothing


class Setting(NamedTuple):
    batch: int = 128
    width: int = 128
    depth: int = 2  # hidden layers
    evaluators: int = 2
    threads: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        return (784, *[self.width] * self.depth, CLASSES)


BASE = Setting()
SWEEPS: dict[str, Sequence[int]] = {
    "batch": (32, 64, 128, 256, 512),
    "width": (32, 64, 128, 256, 512),
    "depth": (1, 2, 3, 4),
    "evaluators": (2, 3, 4, 5),
    "threads": (1, 2),
}


def with_steps(compiled: Compiled, steps: int) -> Compiled:
    """The same program with another number of steps: its one loop has no inputs of single steps."""
    graph = compiled.graph
    assert sum(op.name == "loop" for op in graph.ops) == 1
    ops = [op._replace(attrs={**op.attrs, "length": steps}) if op.name == "loop" else op for op in graph.ops]
    return compiled._replace(stages={"final": graph._replace(ops=tuple(ops))})


def workload(client: Client, setting: Setting) -> Workload:
    """The perceptron of a setting, on made-up numbers."""
    rng = np.random.default_rng(2)
    data = {
        (OWNER_X, "images"): rng.uniform(0, 1, (setting.batch, 784)),
        (OWNER_Y, "onehot"): np.eye(CLASSES)[rng.integers(0, CLASSES, setting.batch)],
    }
    found: list[Compiled] = []

    def compile(client: Client, steps: int) -> Compiled:
        if not found:
            program = perceptron(2, setting.batch, sizes=setting.sizes)
            datasets = {"x": (OWNER_X, "images", 784), "y": (OWNER_Y, "onehot", CLASSES)}
            found.append(traced(client, program, datasets, "W2"))
        return with_steps(found[0], steps)

    return Workload("W2", str(setting), data, compile, SHORT, LONG, {})


def point(client: Client, local: measure.LocalCluster, setting: Setting) -> dict[str, Any]:
    """One training step at a setting: seconds, rounds, bytes and multiply-adds."""
    made = workload(client, setting)
    measure.publish(local, made)
    took = measure.measure(client, made, pairs=3, warm=False)
    return {**setting._asdict(), **{key: took[key] for key in ("seconds", "rounds", "sent_bytes", "macs")}}


def settings(names: Sequence[str]) -> Iterator[Setting]:
    """Every setting of these sweeps, each once."""
    yield from dict.fromkeys(BASE._replace(**{name: value}) for name in names for value in SWEEPS[name])


def run(names: Sequence[str], folder: Path, console: Console) -> list[dict[str, Any]]:
    """Measure; a cluster for each number of evaluators and threads."""
    found = []
    groups: dict[tuple[int, int], list[Setting]] = {}
    for setting in settings(names):
        groups.setdefault((setting.evaluators, setting.threads), []).append(setting)
    for (evaluators, threads), members in groups.items():
        owners = (OWNER_X, OWNER_Y, *OTHERS)[:evaluators]
        with measure.cluster(folder, evaluators=owners, threads=threads) as (local, client):
            measure.measure(client, _first(client, local), pairs=1)  # loads libraries
            for setting in members:
                found.append(point(client, local, setting))
                console.print(f"{setting}: {found[-1]['seconds']:.3f} s, {found[-1]['rounds']:.0f} rounds")
    return found


def _first(client: Client, local: measure.LocalCluster) -> Workload:
    made = workload(client, Setting(batch=32, width=32, depth=1))
    measure.publish(local, made)
    return made


def slope(points: Sequence[dict[str, Any]], name: str, what: str = "seconds") -> tuple[float, float]:
    """The line through (value, what) in logarithms: its slope, and how far the worst point is from it, as a factor."""
    x, y = (np.log([float(p[key]) for p in points]) for key in (name, what))
    line = np.polyfit(x, y, 1)
    return float(line[0]), float(np.exp(np.abs(np.polyval(line, x) - y).max()))


def of_sweep(points: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The points that differ from the base in `name` only, in order."""
    others = [key for key in Setting._fields if key != name]
    chosen = [p for p in points if all(p[key] == getattr(BASE, key) for key in others)]
    return sorted(chosen, key=lambda p: float(p[name]))


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(SWEEPS)}; all, if none is named.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the clusters' folders go.")] = Path(".bench"),
) -> None:
    """Sweep and write benchmarks/results/sweep.json."""
    for name in names or ():
        if name not in SWEEPS:
            raise typer.BadParameter(f"there is no {name}; there is {', '.join(SWEEPS)}")
    console = Console()
    start = measure.machine()
    limits = measure.limits()
    points = run(names or list(SWEEPS), folder, console)
    record = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": start,
        "limits": limits,
        "points": points,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    for name in SWEEPS:
        found = of_sweep(points, name)
        if len(found) > 2:
            power, off = slope(found, name)
            console.print(f"seconds grow as {name}^{power:.2f}, within a factor of {off:.2f}")
    console.print(f"wrote {RESULTS}")


if __name__ == "__main__":
    typer.run(main)
