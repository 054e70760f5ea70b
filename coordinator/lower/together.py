"""Sums of selects, opened once: what a sum adds up, every evaluator adds up before it masks and sends it.

select(b, w) is opened as Σ o_i, and a sum over K of them is linear in what each evaluator has: so it sends 1/K of the
elements, with 1/K of the fresh masks (`Masked.select`).  What is dealt stays the same, and so do the rounds.  It is
done where nobody else reads the summands.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.lower.builder import Value
from coordinator.lower.rewrite import Rewriter, Rule
from mpcnode.graph import Op


def sum_(r: Rewriter, op: Op, args: Sequence[Value]) -> Value | None:
    """sum(select(b, w)) -> a select that sums up, also of what is truncated on the way."""
    select = r.op(args[0])
    if select.name != "select" or "axes" in select.attrs or not op.integers("axes") or not r.alone():
        return None
    summing = select._replace(attrs={**select.attrs, "axes": op.integers("axes")})
    return r.b.again(summing, r.arg(args[0], 0), r.arg(args[0], 1))


RULES: dict[str, Rule] = {"sum": sum_}
