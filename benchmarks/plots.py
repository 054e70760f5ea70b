"""Draw benchmarks/results/sweep.json: `python benchmarks/plots.py`, or `make bench-plots` to measure first.

One panel a sweep, seconds of a training step in black, on logarithmic scales, with the line fitted through them; in
colour the limits: what the products, the bytes and the rounds of the step would take at the speeds that were measured
in the same minutes.  A limit is of one node by itself: where nodes share the cores of one machine, what they compute
adds up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import typer
from measure import BUSY, bounds
from sweep import RESULTS, SWEEPS, of_sweep, slope

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "cost.png"
LABELS = {
    "batch": "rows in the batch",
    "width": "units of a hidden layer",
    "depth": "hidden layers",
    "evaluators": "evaluators",
    "threads": "threads of a node",
}
# dark enough on white, and told apart by who sees no red or no green; the markers differ as well
LIMITS = {"products": ("#0072b2", "s"), "bytes": ("#d55e00", "^"), "rounds": ("#009e73", "v")}
MEASURED = "#1a1a1a"


def panel(axes: Axes, name: str, points: list[dict[str, Any]], record: dict[str, Any]) -> None:
    x = [point[name] for point in points]
    seconds = [point["seconds"] for point in points]
    for limit, (colour, marker) in LIMITS.items():
        values = [bounds(point, record["limits"], point["threads"])[limit] for point in points]
        axes.plot(x, values, color=colour, marker=marker, markersize=4, linewidth=1, label=f"limit: {limit}")
    axes.plot(x, seconds, color=MEASURED, marker="o", markersize=6, linestyle="none", label="measured")
    title = name
    if len(points) > 2:
        power, _ = slope(points, name)
        middle = np.exp(np.mean(np.log(seconds)) - power * np.mean(np.log(x)))
        axes.plot(x, middle * np.array(x, float) ** power, color=MEASURED, linewidth=1, linestyle="--", label="fit")
        title = f"{name}: seconds grow as {name}$^{{{power:.2f}}}$"
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(LABELS[name])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(x)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(record: dict[str, Any], file: Path) -> None:
    """All sweeps of a record as one figure."""
    found = {name: of_sweep(record["points"], name) for name in SWEEPS}
    shown = {name: points for name, points in found.items() if len(points) > 1}
    figure, all_axes = plt.subplots(2, 3, figsize=(12, 7), sharey=True, layout="constrained")
    places = list(all_axes.flat)
    for axes, (name, points) in zip(places, shown.items(), strict=False):
        panel(axes, name, points, record)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("seconds a step")
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    handles, labels = places[0].get_legend_handles_labels()
    places[-1].legend(handles, labels, loc="upper left", frameon=False)
    at, machine = record["limits"], record["machine"]
    notes = "PRELIMINARY: the machine had other work\n" if (machine["load"] or 0.0) > BUSY else ""
    notes += (
        f"W2: 784-128-128-10, batch 128, all else as in the base\n{record['at'][:10]}, {machine['cpu']},\n"
        f"{machine['cores']} cores shared by all nodes, load {machine['load'] or 0:.0f} before\n"
        f"kernel {at['gmac_per_s']:.1f} GMAC/s a thread, stream {at['stream_bytes_per_s'] / 1e6:.0f} MB/s,\n"
        f"message {at['message_s'] * 1e6:.0f} µs"
    )
    places[-1].text(0.02, 0.5, notes, transform=places[-1].transAxes, fontsize=9, va="top")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(
    results: Annotated[Path, typer.Option(help="What sweep.py wrote.")] = RESULTS,
    file: Annotated[Path, typer.Option(help="Where the figure goes.")] = FIGURE,
) -> None:
    """Draw the sweeps."""
    if not results.exists():
        raise typer.BadParameter(f"there is no {results}: run benchmarks/sweep.py first")
    draw(json.loads(results.read_text()), file)
    print(f"wrote {file}")


if __name__ == "__main__":
    typer.run(main)
