"""What a program promises, and to whom: read off its graph by coordinator, submitter and recipients alike."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.jobs import Promise
from mpcnode.admission import participants
from mpcnode.cluster import Cluster
from mpcnode.errors import MpcError
from mpcnode.graph import TOP, Graph, GraphError, Type
from mpcnode.verify import verify


class ProgramError(MpcError):
    """A graph that this cluster cannot run."""


class Output(NamedTuple):
    """One output of a program."""

    type: Type
    recipients: tuple[str, ...]


def outputs(graph: Graph) -> dict[str, Output]:
    """What a verified graph reveals, by name."""
    return {op.text("name"): Output(op.type, op.texts("to")) for op in graph.ops if op.name == "reveal"}


def reduced_signs(graph: Graph) -> str:
    """What a graph assumes that compares fewer bits than there are, as a sentence; nothing if it does not."""
    signs = [op for op in graph.walk() if op.name == "sign"]
    few = sum(op.integer("top", TOP) < TOP for op in signs)
    if not few:
        return ""
    return (
        f"assumes ranges: {few} of {len(signs)} comparisons rely on those that a calibration met, and are wrong for "
        "data that exceeds them 16 times"
    )


def keeps(graph: Graph) -> tuple[str, ...]:
    """The names of what a verified graph keeps."""
    return tuple(dict.fromkeys(op.text("kept") for op in graph.ops if op.name == "store"))


def guests(graph: Graph, cluster: Cluster) -> tuple[str, ...]:
    """Who brings data to a program and computes nothing."""
    return participants(graph, cluster)[len(cluster.parties) :]


def promises(graph: Graph) -> frozenset[Promise]:
    """What every evaluator owes to whom."""
    found = outputs(graph).items()
    return frozenset(Promise(name, recipient) for name, output in found for recipient in output.recipients)


def check_program(graph: Graph, cluster: Cluster) -> None:
    """Raise ProgramError for a graph that breaks the rules of graphs, reads from or reveals to somebody who cannot, or
    neither reveals nor keeps anything.

    The nodes check all this for themselves, and what their owners allow besides: here, it is to fail early.
    """
    try:
        verify(graph)
    except GraphError as error:
        raise ProgramError(f"the program is no valid graph: {error}") from error
    members = {card.name for card in cluster.cards}
    for op in graph.ops:
        if op.name == "input" and op.text("owner") not in cluster.owners:
            raise ProgramError(
                f"the job reads {op.text('owner')}/{op.text('dataset')}, and {op.text('owner')} brings no data: "
                f"that comes from {', '.join(cluster.owners)}"
            )
        strangers = [name for name in op.texts("to") if name not in members] if op.name == "reveal" else []
        if strangers:
            raise ProgramError(
                f"output {op.text('name')} is for {strangers[0]}, who is not in the cluster {cluster.name}"
            )
    if not promises(graph) and not keeps(graph):
        raise ProgramError("the job reveals and keeps nothing: name its outputs under [outputs]")
