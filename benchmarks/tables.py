"""Write the figures of benchmarks/results into the tables of docs/performance.md: `python benchmarks/tables.py`.

Each table stands between two comments, `<!-- NAME -->` and `<!-- end -->`; everything else of the page is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measure import BUSY, bounds
from sweep import SWEEPS, of_sweep, slope
from workloads import all_workloads

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
Record = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def time_(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def conditions(record: Record) -> str:
    """When and where, in one sentence; a machine that did other things as well is said to have."""
    machine, at = record["machine"], record.get("limits")
    busy = machine.get("load") or 0.0
    simd = ", ".join(machine["simd"])
    found = f"{record['at'][:10]}, {machine['cpu']}, {machine['cores']} cores ({simd}), {machine['kernels']} kernels"
    if at is not None:
        found += f"; kernel {at['gmac_per_s']:.1f} GMAC/s a thread, one TLS stream {at['stream_bytes_per_s'] / 1e6:.0f}"
        found += f" MB/s, a message {time_(at['message_s'])} one way"
    if busy > BUSY:
        found += f". **Preliminary: the machine had other work (load {busy:.0f} on {machine['cores']} cores)**"
    return found + "."


def megabytes(found: Record, dealt: bool) -> str:
    links = found["sent_bytes"].items()
    return f"{sum(n for link, n in links if link.startswith('helper->') == dealt) / 1e6:.3g}"


def loopback(record: Record) -> str:
    """W0 to W3, with their bounds and what others took."""
    elsewhere = {workload.name: workload.peers for workload in all_workloads()}
    head = ["", "seconds", "rounds", "MB between evaluators", "MB dealt", "MB of memory"]
    at = record.get("limits")
    names = ["products", "bytes", "rounds"] if at is not None else []
    head += [f"if it were its {name} alone" for name in names] + ["elsewhere"]
    rows = []
    for name, found in record["workloads"].items():
        cells = [f"**{name}** {found['what']}", time_(found["seconds"]), f"{found['rounds']:.0f}"]
        cells += [megabytes(found, dealt=False), megabytes(found, dealt=True)]
        cells.append(f"{max(found['peak_mib'].values()) * 1.048576:.0f}")
        if at is not None:
            cells += [time_(value) for value in bounds(found, at).values()]
        rows.append([*cells, ", ".join(f"{k} {time_(v)}" for k, v in elsewhere.get(name, {}).items())])
    return f"{conditions(record)}\n\n{table(head, rows)}"


def network(records: Sequence[Record]) -> str:
    """The same over a network, beside what the cost model says of it."""
    rows = []
    for record in records:
        line = f"{record['round_trip_s'] * 1e3:g} ms, {record['bytes_per_s'] * 8e-6:g} Mbit/s"
        for name, found in record["workloads"].items():
            took, said = found["seconds"], found["estimated_seconds"]
            rows.append([line, name, time_(took), time_(said), f"{took / said:.2f}", f"{found['rounds']:.0f}"])
    head = ["round trip, rate", "", "seconds", "cost model", "ratio", "rounds"]
    return "\n\n".join([*dict.fromkeys(map(conditions, records)), table(head, rows)])


def growth(record: Record) -> str:
    """The slopes of the sweeps."""
    rows = []
    for name in SWEEPS:
        points = of_sweep(record["points"], name)
        if len(points) < 2:
            continue
        first, last = points[0], points[-1]
        power, off = slope(points, name)
        at = bounds(last, record["limits"], last["threads"])
        largest = max(at, key=at.__getitem__)
        rows.append(
            [
                f"{name} {first[name]} to {last[name]}",
                f"{time_(first['seconds'])} to {time_(last['seconds'])}",
                f"{power:.2f} (x{off:.2f})",
                f"{first['rounds']:.0f} to {last['rounds']:.0f}",
                f"{sum(last['sent_bytes'].values()) / sum(first['sent_bytes'].values()):.2f}",
                f"{last['macs'] / first['macs']:.2f}",
                f"{largest}: {time_(at[largest])}",
            ]
        )
    head = [
        "",
        "seconds a step",
        "slope (worst point)",
        "rounds",
        "bytes grow",
        "products grow",
        "largest bound at the end",
    ]
    return f"{conditions(record)}\n\n{table(head, rows)}"


def write(page: str, name: str, text: str) -> str:
    """The page with what stands between a table's comments replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    found, count = re.subn(pattern, lambda match: f"{match[1]}{text}\n{match[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{PAGE} has {count} places for {name}, and wants one")
    return found


def main() -> None:
    """Bring docs/performance.md up to date with what is in benchmarks/results."""
    page = PAGE.read_text()
    parts: dict[str, tuple[Sequence[Path], Callable[[Any], str]]] = {
        "loopback": ([RESULTS / "latest.json"], lambda records: loopback(records[0])),
        "network": (sorted(RESULTS.glob("*ms.json")), network),
        "growth": ([RESULTS / "sweep.json"], lambda records: growth(records[0])),
    }
    for name, (files, render) in parts.items():
        records = [json.loads(file.read_text()) for file in files if file.exists()]
        if records:
            page = write(page, name, render(records))
    PAGE.write_text(page)
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
