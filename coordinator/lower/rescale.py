"""A truncation, a factor and a truncation in one: trunc(c·trunc(x)) becomes x·c / 2^by.

Between the two there is room for the factor, and x·c alone has none; but a truncation can multiply what it is dealt
and what it knows by c before it shifts them (see Masked.trunc), so nothing ever holds x·c.  That is one round less, and
one rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.lower.builder import LONGEST, Value
from coordinator.lower.rewrite import Rewriter, prune, rewrite
from mpcnode.graph import Graph, Op
from mpcnode.kernels.reference import MOST_TIMES


def rescale(graph: Graph, frac: int) -> Graph:
    """The graph, loop bodies included, with such pairs of truncations as one op."""
    return prune(rewrite(graph, {"trunc": _rescaled}, frac)[0])


def _rescaled(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    factor = r.op(args[0])
    if factor.name != "scale":
        return None
    inner = r.arg(args[0])
    if r.op(inner).name != "trunc":
        return None
    by, times = r.op(inner).integer("by") + op.integer("by"), factor.integer("by")
    if by > LONGEST or not 1 <= abs(times) <= min(MOST_TIMES, 1 << by):
        return None
    found = r.b.emit("rescale", r.arg(inner), by=by, times=abs(times), frac=factor.integer("frac"))
    return found if times > 0 else r.b.emit("neg", found)
