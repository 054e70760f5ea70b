"""What people read: summaries of programs, progress of jobs, tables of costs and ranges."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from coordinator import programs
from coordinator.client import Client
from coordinator.compiled import Compiled
from coordinator.cost import Chain, Estimate
from coordinator.lower.points import MARGIN, Seen
from coordinator.programs import outputs
from coordinator.sampling import Calibrated, Simulated
from mpcnode import policy
from mpcnode.errors import Aborted, MpcError
from mpcnode.protocols import Protocol
from mpcnode.wire import coordinator_pb2 as wire
from mpcnode.wire import node_pb2

LAN_RTT_S, LAN_BYTES_PER_S = 1e-3, 125e6


def amount(nbytes: float) -> str:
    """Bytes in the decimal unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def state_name(job: wire.Job) -> str:
    return wire.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


# ---- before a job ---------------------------------------------------------------------------------------------------
def summary(compiled: Compiled, found: Estimate, rules: Protocol) -> RenderableType:
    """What will run, what it costs, who learns what, and against whom it is safe."""
    table = Table.grid(padding=(0, 2))
    for name, argument in compiled.plan.inputs.items():
        blocks = ", ".join(f"{p.owner}/{p.dataset} ({p.rows:,} rows)" for p in argument.pieces)
        table.add_row(escape(name), f"{list(argument.shape)}", escape(blocks))
    for name, value in compiled.plan.kept.items():
        table.add_row(escape(name), f"{len(value.leaves)} arrays", escape(f"kept as {value.name} by {value.run}"))
    sources = policy.taints(compiled.graph)
    for name, output in outputs(compiled.graph).items():
        origin = ", ".join(map(policy.title, sorted(sources[name]))) or "public values only"
        told = f"to {', '.join(output.recipients)}, computed from {origin}"
        table.add_row(escape(name), f"{list(output.type.shape)}", escape(told))
    for name, keeping in policy.keeps(compiled.graph).items():
        origin = ", ".join(map(policy.title, sorted(keeping.sources))) or "public values only"
        whom = f"later jobs may use it for {', '.join(keeping.recipients)}" if keeping.recipients else "shown to nobody"
        table.add_row(escape(name), "kept", escape(f"at the nodes; {whom}; computed from {origin}"))
    ops = Counter(op.name for op in compiled.graph.walk())
    common = ", ".join(f"{count} {name}" for name, count in ops.most_common(6))
    lan = duration(found.seconds(LAN_RTT_S, LAN_BYTES_PER_S))
    return Group(
        Text(compiled.plan.name, style="bold"),
        table,
        Text(f"program {compiled.graph.digest().hex()}: {ops.total()} ops ({common})"),
        Text(f"{costs(found)}; the network takes {lan} of it at 1 ms and 1 Gbit/s"),
        *(Text(sentence, style="yellow") for sentence in assumptions(compiled)),
        Text(f"threat model of {rules.name}: {rules.threat_model}"),
    )


def costs(found: Estimate) -> str:
    return (
        f"{found.rounds:,} rounds, {amount(found.link_bytes)} from each evaluator to each other, "
        f"{amount(found.total.deal_bytes)} dealt by the helper, {amount(found.total.owner_bytes)} of inputs from their "
        f"owners, {amount(found.bytes)} in all"
    )


def cost_table(found: Estimate, most: int) -> Table:
    """Costs by source line, dearest first."""
    heads = ("executions", "rounds of its own", "bytes a link", "bytes dealt", "bytes of inputs")
    table = Table("line", *heads, title="by source line")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in found.lines[:most]:
        sent = map(amount, (line.cost.swap_bytes, line.cost.deal_bytes, line.cost.owner_bytes))
        table.add_row(escape(line.where or "(inputs)"), f"{line.executions:,}", f"{line.cost.rounds:,}", *sent)
    hidden = len(found.lines) - most
    if hidden > 0:
        table.caption = f"and {hidden} more lines"
    return table


def chain_table(chain: Chain, most: int) -> RenderableType:
    """What follows what in one step, with the rounds that have passed, and the sums by line."""
    step = f"one of {chain.steps:,} steps of the loop at {chain.where or '(unknown)'}" if chain.where else "the program"
    title = f"the longest chain of {step}: {chain.rounds} rounds"
    table = Table("line", "ops", "rounds", "so far", title=escape(title))
    table.columns[2].justify = table.columns[3].justify = "right"
    passed = 0
    for leg in chain.legs:
        passed += leg.rounds
        counts = ", ".join(f"{count} {name}" if count > 1 else name for name, count in Counter(leg.ops).items())
        table.add_row(escape(leg.where or "(inputs)"), counts, f"{leg.rounds}", f"{passed}")
    sums = Table("line", "rounds on the chain", title="by source line")
    sums.columns[1].justify = "right"
    for where, rounds in chain.by_line()[:most]:
        sums.add_row(escape(where or "(inputs)"), f"{rounds}")
    return Group(table, sums)


def simulation(found: Simulated, most: int) -> RenderableType:
    """Ranges by source line, the least headroom first, and errors by output."""
    parts: list[RenderableType] = []
    kept = [name for name in found.random if name in found.compiled.plan.kept]
    if read := [name for name in found.random if name not in kept]:
        made_up = f"made-up numbers for {', '.join(read)} (standard normal; whole ones 0 or 1)"
        parts.append(Text(f"{made_up}: give real samples with --sample"))
    if kept:
        made_up = f"made-up numbers for {', '.join(kept)}, which is kept (normal, a tenth in size; whole ones 0 or 1)"
        parts.append(Text(f"{made_up}: give what it may be like with --sample {kept[0]}=FILE.npz"))
    ranges = Table("line", "largest value", "headroom", "at", title="values by source line")
    for line in found.ranges[:most]:
        bits = f"{line.headroom_bits:.1f} bits"
        tight = f"[red]{bits}: too large, or wrapped[/red]" if line.headroom_bits < 1 else bits
        ranges.add_row(escape(line.where or "(inputs)"), f"{line.largest:.4g}", tight, line.op)
    if len(found.ranges) > most:
        ranges.caption = f"and {len(found.ranges) - most} more lines"
    errors = Table("output", "shape", "largest value", "largest error", "in last bits", title="against plain JAX")
    for output in found.errors:
        cells = (f"{output.largest:.4g}", f"{output.error:.2e}", f"{output.ulps:.1f}")
        errors.add_row(escape(output.output), f"{list(output.shape)}", *cells)
    parts += [ranges, errors]
    if found.traffic is not None:
        sent = sum(found.traffic.sent_bytes.values())
        parts.append(Text(f"under the protocol: {found.traffic.rounds:,} rounds, {amount(sent)} from all parties"))
    return Group(*parts)


def calibration(found: Calibrated, frac: int, most: int) -> RenderableType:
    """What values come to and the binary points that follow, by source line; what no binary point mends; and how exact
    the job is with them.
    """
    lines: dict[str, list[Seen]] = defaultdict(list)
    for met in found.calibration.values.values():
        lines[met.line].append(met.seen)
    settled = {problem.line: problem.sentence for problem in found.problems if problem.settled}
    table = Table("line", "largest", "typical at least", "fraction bits", f"with {frac} fraction bits everywhere")
    shown = sorted(lines, key=lambda line: (line not in settled, line))
    for line in shown[:most]:
        points = [seen.point(frac) for seen in lines[line]]
        span = f"{min(points)}" if min(points) == max(points) else f"{min(points)} to {max(points)}"
        sizes = (f"{max(s.largest for s in lines[line]):.3g}", f"{min(s.typical for s in lines[line]):.2g}")
        table.add_row(escape(line or "(inputs)"), *sizes, span, escape(settled.get(line, "")))
    if len(shown) > most:
        table.caption = f"and {len(shown) - most} more lines"
    table.title = "values and their binary points by source line"
    lasting = dict.fromkeys(f"{p.line}: {p.what} {p.sentence}" for p in found.problems if not p.settled)
    if found.simulated.random:
        random = " and ".join(found.simulated.random)
        lasting[f"the binary points follow from made-up numbers for {random}: they are worth what these are"] = None
    return Group(table, *(Text(sentence, style="red") for sentence in lasting), simulation(found.simulated, most))


def assumptions(compiled: Compiled) -> Iterator[str]:
    """What a job takes for granted of its owners' data."""
    if compiled.plan.calibration is not None:
        yield (
            f"calibrated: no value may come to more than {2**MARGIN} times the largest that the calibration met, or it "
            "wraps around"
        )
    if reduced := programs.reduced_signs(compiled.graph):
        yield reduced


def schema_table(parties: Iterable[wire.PartySchemas]) -> Table:
    table = Table("dataset", "rows", "columns", "groups", "key")
    for party in parties:
        for schema in party.schemas:
            groups = ", ".join(f"{group.name} ({len(group.columns)})" for group in schema.groups)
            cells = (f"{party.party}/{schema.dataset}", f"{schema.rows:,}", _columns(schema), groups, schema.key)
            table.add_row(*map(escape, cells))
    return table


def _columns(schema: node_pb2.Schema) -> str:
    """A line for each type of number: "float64: radius, texture, ... (30)"."""
    lines = []
    for dtype in dict.fromkeys(column.dtype for column in schema.columns):
        names = [column.name for column in schema.columns if column.dtype == dtype]
        lines.append(f"{dtype}: {', '.join(names[:8])}" + (f", ... ({len(names)})" if len(names) > 8 else ""))
    return "\n".join(lines)


def kept_table(values: Iterable[wire.KeptValue]) -> Table:
    table = Table("kept", "made by", "at", "arrays", "numbers", "by", "state")
    for value in values:
        kept = value.kept
        arrays = ", ".join("/".join(part[1:] for part in leaf.path) or leaf.dtype for leaf in kept.leaves[:6])
        more = f", ... ({len(kept.leaves)})" if len(kept.leaves) > 6 else ""
        at = f"{datetime.fromtimestamp(kept.kept_at).astimezone():%Y-%m-%d %H:%M}"
        numbers = f"{sum(math.prod(leaf.type.shape) for leaf in kept.leaves):,}"
        state = f"no share at {', '.join(value.missing)}" if value.missing else "complete"
        cells = (kept.name, f"{kept.job}/{kept.attempt}", at, arrays + more, numbers, ", ".join(kept.parties), state)
        table.add_row(*map(escape, cells))
    return table


# ---- jobs -----------------------------------------------------------------------------------------------------------
def job_table(jobs: Sequence[wire.Job]) -> Table:
    table = Table("job", "submitted", "by", "state", "steps", "took")
    for job in jobs:
        submitted = f"{datetime.fromtimestamp(job.submitted_at).astimezone():%Y-%m-%d %H:%M}"
        steps = f"{job.progress.done}/{job.progress.total}" if job.progress.total else ""
        took = duration(job.ended_at - job.started_at) if job.ended_at and job.started_at else ""
        table.add_row(escape(job.job), submitted, escape(job.submitter), state_name(job), steps, took)
    return table


def report_table(job: wire.Job) -> Table:
    """What a finished job cost each node."""
    table = Table("node", "seconds", "rounds", "sent", "waited", "peak memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for report in job.reports:
        done = report.finished
        sent = sum(link.sent_bytes for link in done.traffic)
        waited = sum(link.waited_seconds for link in done.traffic)
        numbers = (
            f"{done.seconds:.1f}",
            f"{done.rounds:,}",
            amount(sent),
            duration(waited),
            f"{done.peak_mib:.0f} MiB",
        )
        table.add_row(escape(report.party), *numbers)
    return table


def profile_table(job: wire.Job, most: int) -> Table:
    """What each source line took, where it took longest, and sent, at all nodes; the slowest first."""
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    rounds: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    sent: dict[str, int] = defaultdict(int)
    for report in job.reports:
        for line in report.finished.profile:
            seconds[line.where][report.party] += line.seconds
            rounds[line.where][report.party] += line.rounds
            sent[line.where] += line.sent_bytes
    slowest = sorted(seconds, key=lambda where: max(seconds[where].values()), reverse=True)
    table = Table("line", "computing", "at", "rounds of its own", "sent by all")
    for column in (table.columns[1], *table.columns[3:]):
        column.justify = "right"
    for where in slowest[:most]:
        party = max(seconds[where], key=seconds[where].__getitem__)
        numbers = (f"{max(rounds[where].values()):,}", amount(sent[where]))
        table.add_row(escape(where or "(inputs)"), duration(seconds[where][party]), escape(party), *numbers)
    if len(slowest) > most:
        table.caption = f"and {len(slowest) - most} more lines"
    return table


class _Rate(ProgressColumn):
    """Steps a second, or seconds a step."""

    def render(self, task: Task) -> Text:
        speed = task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / speed:.1f} s/step")


def watch_job(client: Client, job: str, console: Console | None = None) -> wire.Job:
    """Show a job's events and progress until it ends, and return it.  Raises Aborted if it does not end well."""
    console = console or Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    now = wire.Job()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("queued", total=None)
        for event in client.watch(job):
            now = event.job
            if event.text:
                at = datetime.fromtimestamp(event.at).astimezone()
                console.print(f"{at:%H:%M:%S} {event.text}", markup=False, highlight=False, soft_wrap=True)
            total = now.progress.total or None
            progress.update(task, description=state_name(now), completed=now.progress.done, total=total)
    if now.state == wire.JOB_STATE_DONE:
        return client.get(job)
    if now.state in (wire.JOB_STATE_ABORTED, wire.JOB_STATE_CANCELLED):
        raise Aborted(now.cause)
    raise MpcError(f"the coordinator no longer reports on {job}: see `coordinator jobs`")
