"""The command `mpcnode`: make an identity, register data, serve, and find out why it does not work."""

import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpcnode import doctor as health
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets, Entry
from mpcnode.errors import ConfigError, MpcError
from mpcnode.identity import ANYONE, DEFAULT_DAYS, Card, create_identity, fingerprint, load_identity, split_address
from mpcnode.kept import Kept
from mpcnode.terms import Allowed

WITH_PARENT = "MPCNODE_WITH_PARENT"  # environment: end when standard input closes

app = typer.Typer(
    help="One organisation's node: it holds its own data, and computes with others on what none of them sees.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(help="The datasets that this node brings to computations.", no_args_is_help=True)
app.add_typer(data, name="data")
kept = typer.Typer(help="The values that this node has shares of, for later jobs.", no_args_is_help=True)
app.add_typer(kept, name="kept")

Dir = Annotated[
    Path, typer.Option("--dir", envvar="MPCNODE_DIR", help="The identity's folder.", show_default="the current folder")
]
ClusterFile = Annotated[
    Path, typer.Option("--cluster", envvar="MPCNODE_CLUSTER", help="The file with the cards and roles of all members.")
]

DataName = Annotated[str, typer.Argument(metavar="NAME", help="The dataset's name.")]
KeptName = Annotated[str, typer.Argument(metavar="NAME", help="The kept value's name.")]
Programs = Annotated[
    list[str] | None,
    typer.Option("--program", metavar="DIGEST", help="A program that may tell what it says; repeatable."),
]
Recipients = Annotated[
    list[str] | None,
    typer.Option(
        "--for",
        help="With --program: whom it may tell that, if not all whom it names.  Without: who may learn what any "
        "program computes from it, even all of it.  Repeatable.",
    ),
]


def run(command: typer.Typer, program: str) -> None:
    """Run a command line; an MpcError becomes one line on stderr and the exit code 1."""
    if os.environ.get(WITH_PARENT):
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        command(prog_name=program)
    except MpcError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(1)


def wide_console() -> Console:
    """stdout; where it is no terminal (a pipe, a log, CI) tables get room instead of rich's 80 columns."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=160)


def _end_with_parent() -> None:
    """Stop politely once standard input closes: whoever started this process has ended, however that came about."""
    while os.read(sys.stdin.fileno(), 1 << 10):
        pass
    # to the main thread: one that another thread takes does not wake it from its wait
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def main() -> None:
    """Run the command; `__main__.py` prepares the process for it."""
    run(app, "mpcnode")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(health.version())
        raise typer.Exit


@app.command()
def init(
    name: Annotated[str, typer.Option(help="The party's name: a-z, 0-9, _ and -, a letter first.")],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where others reach this node.  Leave it away for somebody who submits jobs or receives results.",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to put the identity.", show_default="./NAME")
    ] = None,
    days: Annotated[int, typer.Option(help="How long the certificate is valid.")] = DEFAULT_DAYS,
) -> None:
    """Make an identity: two private keys, and a card to give to the others."""
    identity = create_identity(folder or Path(name), name, address, days)
    print(f"wrote {identity.folder / 'card.toml'}: give it to the other members; everything else stays here")
    print(f"fingerprint {fingerprint(identity.card.x509)}")


@app.command("cluster")
def make_cluster(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="The card.toml of every member.")],
    *,
    name: Annotated[str, typer.Option(help="The cluster's name.")],
    evaluators: Annotated[
        list[str], typer.Option("--evaluator", help="A member that computes; name two or more, in order of rank.")
    ],
    coordinator: Annotated[str, typer.Option(help="The member that takes and schedules jobs.")],
    helper: Annotated[str | None, typer.Option(help="The member that deals common randomness.")] = None,
    protocol: Annotated[str, typer.Option(help="masked, or cleartext for experiments without secrets.")] = "masked",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("cluster.toml"),
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Collect the members' cards into cluster.toml, which every member then gets."""
    if out.exists() and not replace:
        raise ConfigError(f"{out} exists: give another name with --out, or --replace to overwrite it")
    collected = [Card.load(path) for path in cards]
    made = Cluster.of(name, collected, evaluators=evaluators, coordinator=coordinator, helper=helper, protocol=protocol)
    made.save(out)
    print(f"wrote {out}: give the same file to every member")
    for card in made.cards:
        print(f"{fingerprint(card.x509)}  {card.name}")


@app.command()
def serve(
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen.",
            show_default="the card's port, on all interfaces unless the card says this very machine",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for computing.", show_default="one for each core")
    ] = None,
    deadline: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait for a peer before a job is aborted.")
    ] = 60.0,
) -> None:
    """Run the node until it is told to stop (SIGTERM or Ctrl-C)."""
    identity, cluster = load_identity(folder), Cluster.load(cluster_file)
    card = cluster.check_member(identity)
    cluster.check_validity(names=[card.name])
    if listen is None:
        listen = listening_address(card)
    else:
        try:
            split_address(listen)
        except ValueError as error:
            raise ConfigError(f"--listen {listen}: {error}") from error
    from mpcnode import service  # takes a moment to import, which the other commands need not wait for

    service.serve(identity, cluster, listen=listen, threads=threads or os.cpu_count() or 1, deadline_s=deadline)


@app.command()
def doctor(
    members: Annotated[list[str] | None, typer.Argument(metavar="[MEMBER]...", help="Whom to try, if not all.")] = None,
    *,
    folder: Dir = Path(),
    cluster_file: ClusterFile = Path("cluster.toml"),
) -> None:
    """Reach every member, compare certificates, clocks, versions and cluster files, and say what is wrong."""
    identity, cluster = load_identity(folder), Cluster.load(cluster_file)
    cluster.check_member(identity)
    table = Table("member", "role", "address", "version", "kernels", "clock", "round trip", "state")
    problems = cluster.validity()
    for card, answer, found in health.examine(identity, cluster, names=members or ()):
        measured = ("", "", "", "")
        if answer is not None:
            clock, trip = f"{answer.clock_offset_s * 1e3:+.1f} ms", f"{answer.round_trip_s * 1e3:.2f} ms"
            measured = (answer.info.version, answer.info.kernels, clock, trip)
        state = "[red]see below[/red]" if found else "[green]well[/green]"
        table.add_row(card.name, _role(cluster, card.name), card.address, *map(escape, measured), state)
        problems += found
    console = wide_console()
    console.print(table)
    for problem in problems:
        console.print(f"- {problem}", markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@data.command("add")
def data_add(
    name: Annotated[str, typer.Argument(help="The dataset's name in jobs.")],
    file: Annotated[Path, typer.Argument(help="A CSV, Parquet or NPY file of numbers; it stays where it is.")],
    *,
    recipients: Annotated[
        list[str] | None,
        typer.Option("--for", help=f"Who may learn results computed from it; repeatable; '{ANYONE}': every member."),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Let no program read it that you have not approved: `mpcnode data allow`.")
    ] = False,
    groups: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME=COL,COL", help="Name a set of columns; * and ? match; repeatable."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Make the group 'label' of this column, and 'features' of all others."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Jobs may keep what they compute from it, as shares, for later jobs.")
    ] = False,
    columns: Annotated[
        str | None, typer.Option(metavar="COL,COL", help="Names for a file without: NPY, or CSV without header.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="COL", help="The column that says whom a row is about: to join with others' rows."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Register an existing name anew.")] = False,
    folder: Dir = Path(),
) -> None:
    """Check every value of a file and register it.  Others learn names, types and the number of rows."""
    identity = load_identity(folder)
    if not recipients and not ask:
        raise ConfigError(
            f"say with --for who may learn results that are computed from {name}, such as models trained on it: "
            f"--for NAME, repeated for several, or --for {ANYONE} for every member of the cluster; or --ask, to "
            "approve each program before it reads the data"
        )
    if recipients and ask:
        raise ConfigError(
            "--for lets every program tell what it computes, and --ask none that you have not approved: leave one away"
        )
    schema = Datasets(identity.folder).add(
        name,
        file,
        recipients or (),
        columns=columns.split(",") if columns is not None else None,
        groups=dict(_group(text) for text in groups or []),
        label=label,
        key=key,
        replace=replace,
        keep=keep,
        programs=() if ask else None,
    )
    keyed = f" in the order of {key}, which stays here" if key is not None else ""
    print(f"added {identity.name}/{name}: {schema.rows} rows, {len(schema.columns)} columns{keyed}")
    print(_consequence(name, recipients or ()))


def _consequence(name: str, recipients: Sequence[str]) -> str:
    """What follows for whoever adds a dataset, and the way to something else."""
    approve = f"`mpcnode data allow {name} --program DIGEST`"
    if not recipients:
        return f"no program may read it until you approve it by its digest, which the refusal names: {approve}"
    whom = "every member" if ANYONE in recipients else " and ".join(recipients)
    return (
        f"{whom} may learn whatever any program computes from it, even the data itself; to approve programs one by "
        f"one: `mpcnode data forbid {name}`, then {approve}"
    )


@data.command("list")
def data_list(
    name: Annotated[str | None, typer.Argument(help="Show the columns of this dataset.")] = None,
    folder: Dir = Path(),
) -> None:
    """List the datasets, or the columns of one."""
    datasets = Datasets(load_identity(folder).folder)
    if name is None:
        table = Table("dataset", "rows", "columns", "groups", "key", "for", "programs", "kept", "file")
        for entry in datasets.entries():
            counts = ", ".join(f"{group} ({len(members)})" for group, members in entry.groups.items())
            may = "may be" if entry.keep else ""
            sizes = (f"{entry.rows}", f"{len(entry.columns)}", counts)
            cells = (entry.name, *sizes, entry.key or "", *_allowed(entry), may, entry.path)
            table.add_row(*map(escape, cells))
    else:
        table = _columns_table(datasets.entry(name))
    wide_console().print(table)


@data.command("allow")
def data_allow(
    name: DataName, *, programs: Programs = None, recipients: Recipients = None, folder: Dir = Path()
) -> None:
    """Approve a program that reads a dataset, for all whom it names or for some; or allow all that is for somebody.

    The program's digest is what `coordinator submit` and `coordinator show JOB --digest` print, and what the node says
    when it refuses; read it first, with `coordinator show JOB`.
    """
    _say_what(programs, recipients)
    print(_now(name, Datasets(load_identity(folder).folder).allow(name, recipients or (), programs or ())))


@data.command("forbid")
def data_forbid(name: DataName, folder: Dir = Path()) -> None:
    """Take back all that was allowed: no program may read the dataset until it is approved."""
    Datasets(load_identity(folder).folder).forbid(name)
    print(f"no program may read {name} any more until you approve it: `mpcnode data allow {name} --program DIGEST`")


@data.command("remove")
def data_remove(name: DataName, folder: Dir = Path()) -> None:
    """Forget a dataset; its file stays."""
    identity = load_identity(folder)
    Datasets(identity.folder).remove(name)
    print(f"removed {identity.name}/{name}; its file is untouched")


@kept.command("list")
def kept_list(folder: Dir = Path()) -> None:
    """List the values that this node has shares of, and what it allows to be learned from them."""
    values = Kept(load_identity(folder))
    terms = {entry.name: entry for entry in values.entries()}
    table = Table("value", "made by", "at", "arrays", "numbers", "for", "programs", "state")
    for making, counts in values.makings():
        entry = terms.get(making.name) if counts else None
        cells = (
            making.name,
            making.run,
            f"{datetime.fromtimestamp(making.kept_at).astimezone():%Y-%m-%d %H:%M}",
            f"{len(making.leaves)}",
            f"{sum(leaf.type.size for leaf in making.leaves):,}",
            *(_allowed(entry) if entry else ("", "")),
            "kept" if counts else "not confirmed",
        )
        table.add_row(*map(escape, cells))
    wide_console().print(table)


@kept.command("allow")
def kept_allow(
    name: KeptName, *, programs: Programs = None, recipients: Recipients = None, folder: Dir = Path()
) -> None:
    """Allow jobs to reveal what they compute from a kept value: one program, or all that is for somebody."""
    _say_what(programs, recipients)
    print(_now(name, Kept(load_identity(folder)).allow(name, recipients or (), programs or ())))


def _say_what(programs: list[str] | None, recipients: list[str] | None) -> None:
    if not programs and not recipients:
        raise ConfigError("say what to allow: --program DIGEST, or --for NAME")


def _allowed(entry: Allowed) -> tuple[str, str]:
    """For whom every program's results are, and which programs are approved."""
    approvals = entry.approvals().items()
    named = (program[:12] + ("" if ANYONE in whom else f" for {', '.join(whom)}") for program, whom in approvals)
    return ", ".join(entry.recipients), "; ".join(named)


def _now(name: str, entry: Allowed) -> str:
    whom, programs = _allowed(entry)
    return f"{name}: what any program computes is for {whom or 'nobody'}; approved programs: {programs or 'none'}"


@kept.command("forbid")
def kept_forbid(name: KeptName, folder: Dir = Path()) -> None:
    """Take back all that was allowed: no job may reveal anything computed from a kept value."""
    Kept(load_identity(folder)).forbid(name)
    print(f"nothing computed from {name} may be revealed any more")


@kept.command("remove")
def kept_remove(name: KeptName, folder: Dir = Path()) -> None:
    """Delete this node's shares of a kept value: no job can use it any more."""
    identity = load_identity(folder)
    Kept(identity).remove(name)
    print(f"removed {identity.name}'s shares of {name}")


def listening_address(card: Card) -> str:
    """Where a node listens unless told: on all interfaces, as the card's host may be that of a firewall in front.

    A card with a loopback address keeps to this machine.  ConfigError for a card without address.
    """
    if card.address is None:
        raise ConfigError(f"the card of {card.name} has no address, so it serves nothing: make a card with --address")
    host, port = split_address(card.address)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return card.address if local else f"[::]:{port}"


def _role(cluster: Cluster, name: str) -> str:
    if name in cluster.evaluators:
        return f"evaluator {cluster.evaluators.index(name) + 1}"
    return {cluster.helper: "helper", cluster.coordinator: "coordinator"}.get(name, "owner")


def _group(text: str) -> tuple[str, list[str]]:
    name, equals, columns = text.partition("=")
    if not (name and equals and columns):
        raise ConfigError(f"--group {text}: write NAME=COL,COL, such as features=age,bmi or pixels=c*")
    return name, columns.split(",")


def _columns_table(entry: Entry) -> Table:
    table = Table("column", "type", "groups")
    for column, dtype in entry.columns:
        groups = ", ".join(group for group, members in entry.groups.items() if column in members)
        table.add_row(escape(column), dtype, escape(groups))
    return table
