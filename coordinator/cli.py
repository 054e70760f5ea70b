"""The command `coordinator`: set up and serve, and for its users: compile, estimate, simulate, submit, watch, fetch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from coordinator import calibration, cost, programs, report, results, sampling
from coordinator.client import Client
from coordinator.compiled import Compiled
from coordinator.report import watch_job
from mpcnode import protocols
from mpcnode.cli import listening_address, run
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError, MpcError
from mpcnode.graph import Graph
from mpcnode.identity import Card, Identity, create_identity, fingerprint, load_identity, split_address

app = typer.Typer(
    help="Compiles jobs, schedules them over the nodes of a cluster, and passes on results that it cannot read.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Dir = Annotated[
    Path,
    typer.Option(
        "--dir", "--identity", envvar="MPCNODE_DIR", help="Your identity's folder.", show_default="the current folder"
    ),
]
ClusterFile = Annotated[
    Path, typer.Option("--cluster", envvar="MPCNODE_CLUSTER", help="The file with the cards and roles of all members.")
]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `submit` and `jobs` print it.")]
Output = Annotated[Path | None, typer.Option(help="Where to write OUTPUT.npz files.", show_default="./JOB")]

console = Console()


def main() -> None:
    """Entry point of `coordinator`."""
    run(app, "coordinator")


# ---- for who runs the coordinator -----------------------------------------------------------------------------------
@app.command()
def init(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="The card.toml of every other member.")],
    *,
    helper: Annotated[
        str | None, typer.Option(help="The member that deals randomness.", show_default="the one named helper")
    ] = None,
    evaluators: Annotated[
        list[str] | None,
        typer.Option("--evaluator", help="A member that computes.", show_default="all with an address but the helper"),
    ] = None,
    protocol: Annotated[str, typer.Option(help="masked, or cleartext for experiments without secrets.")] = "masked",
    name: Annotated[str, typer.Option(help="The coordinator's own name.")] = "coordinator",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where others reach the coordinator; needed the first time.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="The coordinator's identity.", show_default="./NAME")
    ] = None,
    cluster_name: Annotated[str, typer.Option(help="The cluster's name.")] = "cluster",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("cluster.toml"),
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Make the coordinator's identity if there is none, and collect all cards into cluster.toml."""
    if out.exists() and not replace:
        raise ConfigError(f"{out} exists: give another name with --out, or --replace to overwrite it")
    others = [Card.load(path) for path in cards]
    if helper is None and protocol == "masked" and any(card.name == "helper" for card in others):
        helper = "helper"
    identity = _own_identity(folder or Path(name), name, address)
    if not evaluators:
        evaluators = [c.name for c in others if c.address is not None and c.name not in (helper, identity.name)]
    collected = [card for card in others if card.name != identity.name] + [identity.card]
    made = Cluster.of(
        cluster_name, collected, evaluators=evaluators, coordinator=identity.name, helper=helper, protocol=protocol
    )
    made.save(out)
    print(f"wrote {out}: give the same file to every member")
    for card in made.cards:
        print(f"{fingerprint(card.x509)}  {card.name}")


def _own_identity(folder: Path, name: str, address: str | None) -> Identity:
    if (folder / "card.toml").exists():
        identity = load_identity(folder)
        if address not in (None, identity.card.address):
            raise ConfigError(
                f"{folder} holds the identity of {identity.name} at {identity.card.address}: leave --address away, or "
                "make another one with --dir"
            )
        return identity
    if address is None:
        raise ConfigError(f"{folder} holds no identity yet: say with --address where others reach the coordinator")
    return create_identity(folder, name, address)


@app.command()
def serve(
    folder: Annotated[
        Path, typer.Option("--dir", envvar="MPCNODE_DIR", help="The coordinator's identity and database.")
    ] = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
    database: Annotated[
        str | None,
        typer.Option(
            envvar="MPCNODE_DATABASE", metavar="URL", help="Such as postgresql://...", show_default="SQLite in --dir"
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where to listen.", show_default="the card's port"),
    ] = None,
    deadline: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="How long a node waits for a peer before a job is aborted."),
    ] = 60.0,
) -> None:
    """Take jobs and schedule them, until told to stop (SIGTERM or Ctrl-C)."""
    identity, cluster = load_identity(folder), Cluster.load(cluster_file)
    card = cluster.check_member(identity)
    cluster.check_validity()
    if listen is not None:
        try:
            split_address(listen)
        except ValueError as error:
            raise ConfigError(f"--listen {listen}: {error}") from error
    from coordinator import service, store  # take a moment to import, which the other commands need not wait for

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    opened = store.Store(database) if database else store.Store.in_folder(folder)
    service.serve(identity, cluster, opened, listen=listen or listening_address(card), deadline_s=deadline)


# ---- before a job ---------------------------------------------------------------------------------------------------
@app.command()
def schemas(folder: Dir = Path(), cluster_file: ClusterFile = Path("cluster.toml")) -> None:
    """List the datasets that owners offer."""
    with Client(folder, cluster_file) as client:
        console.print(report.schema_table(client.schemas()))


@app.command("kept")
def list_kept(folder: Dir = Path(), cluster_file: ClusterFile = Path("cluster.toml")) -> None:
    """List the values that the nodes keep shares of, for jobs to use."""
    with Client(folder, cluster_file) as client:
        console.print(report.kept_table(client.kept()))


@app.command()
def show(
    job: Annotated[str, typer.Argument(metavar="JOB.toml|JOB", help="A job file, or the id of a submitted job.")],
    stage: Annotated[
        str | None, typer.Option(help="Of a job file: which stage of compiling.", show_default="the last")
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Only list the stages.")] = False,
    digest: Annotated[
        bool, typer.Option("--digest", help="Only print the digest, by which owners approve a program.")
    ] = False,
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
) -> None:
    """Print the program that the parties run, as text, or an earlier stage of it."""
    with Client(folder, cluster_file) as client:
        if job.endswith(".toml"):
            compiled = client.compile(Path(job))
        elif stage is not None or stages:
            raise ConfigError(
                "a submitted job has no stages, only the program that the parties run: leave --stage away"
            )
        else:
            program = client.program(job)
            print(program.digest().hex() + "\n" if digest else program.text(), end="")
            return
    if digest:
        print(compiled.graph.digest().hex())
        return
    if stages:
        for name, graph in compiled.stages.items():
            print(f"{name}: {sum(1 for _ in graph.walk())} ops")
    else:
        print((compiled.stage(stage) if stage else compiled.graph).text(), end="")


@app.command()
def estimate(
    job: JobFile,
    rtt: Annotated[
        float, typer.Option(parser=cost.seconds, metavar="TIME", help="Round-trip time between nodes, such as 40ms.")
    ] = "1ms",  # type: ignore[assignment]  # the parser's argument
    rate: Annotated[
        float, typer.Option(parser=cost.bytes_per_s, metavar="RATE", help="What a node can send, such as 352Mbit/s.")
    ] = "1Gbit/s",  # type: ignore[assignment]
    rounds: Annotated[
        bool, typer.Option("--rounds", help="Show what makes the rounds: the longest chain of ops, by source line.")
    ] = False,
    lines: Annotated[int, typer.Option(min=1, help="How many source lines to list.")] = 20,
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
) -> None:
    """Say what a job costs before it runs: rounds, bytes and the network's seconds, by source line."""
    with Client(folder, cluster_file) as client:
        compiled = client.compile(job)
    found, rules = _estimate(compiled.graph, client.cluster)
    print(f"program {compiled.graph.digest().hex()}")
    console.print(report.costs(found))
    console.print(f"the network takes {report.duration(found.seconds(rtt, rate))}; computing comes on top, or overlaps")
    console.print(report.cost_table(found, lines))
    if rounds:
        chain = cost.critical_chain(compiled.graph, rules, len(client.cluster.parties))
        console.print(report.chain_table(chain, lines))


@app.command("simulate")
def simulate_job(
    job: JobFile,
    protocol: Annotated[str, typer.Option(help="cleartext, or masked to run the real protocol too.")] = "cleartext",
    samples: Annotated[
        list[str] | None,
        typer.Option(
            "--sample", metavar="INPUT=FILE", help="Numbers for an input: CSV, Parquet or NPY, NPZ for a kept one."
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Record what values come to, for the job's binary points.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the calibration.", show_default="calibration.toml beside JOB.toml"),
    ] = None,
    kept: Annotated[
        Path | None,
        typer.Option(help="A folder for what the job would keep, from plain JAX: samples for jobs that use it."),
    ] = None,
    lines: Annotated[int, typer.Option(min=1, help="How many source lines to list.")] = 20,
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
) -> None:
    """Run a job in this process on sample data: value ranges by source line, and errors against plain JAX."""
    if out is not None and not calibrate:
        raise ConfigError("--out is for the calibration: give --calibrate too, or leave it away")
    if protocol not in ("cleartext", "masked"):
        raise ConfigError(f"--protocol {protocol}: there is cleartext and masked")
    files = dict(_sample(text) for text in samples or [])
    with Client(folder, cluster_file) as client:
        plan, function = client.plan(job, calibrated=not calibrate)
    if kept is not None and not plan.keeps:
        raise ConfigError(f"--kept is for what a job keeps, and {job} keeps nothing: leave it away")
    cluster = client.cluster
    guests = [owner for owner in cluster.owners if owner not in cluster.parties]
    run = partial(sampling.calibrate if calibrate else sampling.run, plan, function, files)
    with console.status("calibrating" if calibrate else "simulating"):
        found = run(protocol=protocol, evaluators=len(cluster.evaluators), guests=guests)
    if isinstance(found, sampling.Calibrated):
        file = out or job.parent / "calibration.toml"
        calibration.write(found.calibration, file)
        console.print(report.calibration(found, plan.frac, lines))
        print(f"wrote {file}: name it in {job} under [job] as calibration")
        found = found.simulated
    else:
        console.print(report.simulation(found, lines))
    for path in results.write(found.kept, kept) if kept is not None else ():
        print(f"wrote {path}: give it to `simulate` of a job that uses the value, as --sample INPUT={path}")


def _sample(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ConfigError(f"--sample {text}: write INPUT=FILE, such as x=sample.csv")
    return name, Path(file)


# ---- jobs -----------------------------------------------------------------------------------------------------------
@app.command()
def submit(
    job: JobFile,
    watch: Annotated[bool, typer.Option(help="Show its progress until it ends.")] = True,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the results that are for you, once it is done.")
    ] = None,
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
) -> None:
    """Compile a job here, say what it will do, and submit it."""
    if output is not None and not watch:
        raise ConfigError("--output waits for the job, and --no-watch does not: leave one of them away")
    with Client(folder, cluster_file) as client:
        with console.status("compiling"):
            compiled = client.compile(job)
        console.print(report.summary(compiled, *_estimate(compiled.graph, client.cluster)))
        number = client.submit(compiled)
        print(f"submitted as {number}")
        if watch:
            _watch(client, number)
            if output is not None:
                _fetch(client, number, output)


@app.command()
def watch(job: JobId, folder: Dir = Path(), cluster_file: ClusterFile = Path("cluster.toml")) -> None:
    """Show a job's history and progress until it ends.  Ctrl-C ends the watching, not the job."""
    with Client(folder, cluster_file) as client:
        _watch(client, job)


@app.command("jobs")
def list_jobs(folder: Dir = Path(), cluster_file: ClusterFile = Path("cluster.toml")) -> None:
    """List the latest jobs."""
    with Client(folder, cluster_file) as client:
        console.print(report.job_table(client.list()))


@app.command()
def result(
    job: JobId, output: Output = None, folder: Dir = Path(), cluster_file: ClusterFile = Path("cluster.toml")
) -> None:
    """Fetch the results of a job that are for you, open them, and write arrays that numpy loads."""
    with Client(folder, cluster_file) as client:
        _fetch(client, job, output or Path(job))


@app.command()
def profile(
    job: JobId,
    lines: Annotated[int, typer.Option(min=1, help="How many source lines to list.")] = 20,
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
) -> None:
    """Say what each line of a finished job's program cost its nodes."""
    with Client(folder, cluster_file) as client:
        found = client.get(job)
    if not found.reports:
        raise ConfigError(f"no node has finished {job}: it is {report.state_name(found)}")
    console.print(report.report_table(found))
    console.print(report.profile_table(found, lines))


@app.command()
def cancel(job: JobId, folder: Dir = Path(), cluster_file: ClusterFile = Path("cluster.toml")) -> None:
    """End a job that you submitted, or that your node computes."""
    with Client(folder, cluster_file) as client:
        client.cancel(job)
    print(f"cancelled {job}")


def _estimate(graph: Graph, cluster: Cluster) -> tuple[cost.Estimate, protocols.Protocol]:
    rules = protocols.get(cluster.protocol)
    return cost.estimate(graph, rules, cluster.parties), rules


def _watch(client: Client, job: str) -> None:
    with _leaving_it_running(job):
        console.print(report.report_table(watch_job(client, job, console)))


@contextmanager
def _leaving_it_running(job: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{job} goes on: `coordinator watch {job}` shows it again, `coordinator cancel {job}` ends it")
        raise typer.Exit(130) from None


def _fetch(client: Client, job: str, folder: Path) -> None:
    if assumed := programs.reduced_signs(client.program(job)):
        print(assumed)
    arrays = client.result(job, folder)
    for name in dict.fromkeys(name.partition("/")[0] for name in arrays):
        print(f"wrote {folder / name}.npz")


__all__ = ["Compiled", "MpcError", "app", "main", "watch_job"]
