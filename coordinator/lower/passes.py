"""The passes from the front end's graph to the one that the parties run; every stage is verified and can be printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from coordinator.lower import fixedpoint, simplify, thresholds, together
from coordinator.lower.fuse import fuse
from coordinator.lower.hoist import hoist
from coordinator.lower.rescale import rescale
from coordinator.lower.rewrite import plain, prune, rewrite, until_still
from coordinator.lower.twice import twice
from mpcnode.graph import Graph
from mpcnode.ring import FRAC
from mpcnode.verify import verify

Pass: TypeAlias = Callable[[Graph, int], Graph]


def legal(graph: Graph, frac: int) -> Graph:
    """What the front end wrote: a truncation behind every product."""
    return graph


def folded(graph: Graph, frac: int) -> Graph:
    """Constants folded, equal and dead ops dropped, constant work moved in front of loops."""
    return prune(hoist(until_still(prune(graph), simplify.RULES, frac), frac))


def late(graph: Graph, frac: int) -> Graph:
    """Truncations moved to where they are cheapest."""
    return fixedpoint.late(graph, frac)


def narrow(graph: Graph, frac: int) -> Graph:
    """Signs that pass over the bits above a range that is taken as certain."""
    return rewrite(graph, {"sign": fixedpoint.narrow_sign}, frac)[0]


def final(graph: Graph, frac: int) -> Graph:
    """Products doubled where that is cheaper, folded once more; comparisons joined, truncations fused with factors and
    products, and selects with their sums.
    """
    products = rescale(folded(twice(folded(graph, frac), frac), frac), frac)
    fused = fuse(prune(rewrite(products, thresholds.RULES, frac)[0]), frac)
    return prune(rewrite(fused, together.RULES, frac)[0])


PASSES: dict[str, Pass] = {"legal": legal, "folded": folded, "late": late, "final": final}


def compile(graph: Graph, frac: int = FRAC, *, assume: bool = False) -> dict[str, Graph]:
    """Every stage by name, in order; the last one is what the parties run.  `frac`: fraction bits of the job's numbers.
    `assume`: a last stage more, in which comparisons rely on the ranges that a calibration has met.

    Raises GraphError when a pass breaks a rule of the op table, which is a bug of the pass.
    """
    stages: dict[str, Graph] = {}
    for name, run in {**PASSES, **({"narrow": narrow} if assume else {})}.items():
        graph = run(graph, frac)
        verify(graph)
        stages[name] = graph
    return {name: plain(stage) for name, stage in stages.items()}
