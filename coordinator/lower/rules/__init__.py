"""Legalization: one rule per jax primitive, from an equation on secret operands to ops of the machine.

To add a primitive, write one function under `@rule` in the file where its relatives are.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.lower.rules import (
    arithmetic,
    contraction,
    convolution,
    doubts,
    elementwise,
    indexing,
    logic,
    lookup,
    pooling,
    rounding,
    scans,
    sorting,
    structure,
)
from coordinator.lower.rules.registry import RULES, CompileError, Operand, Public, Site, refuse
from mpcnode.graph import GraphError

INSTEAD = {
    "while": "run a fixed number of turns with lax.fori_loop or lax.scan, and freeze the result with jnp.where",
    "cond": "compute both branches and choose with jnp.where",
    "debug_callback": "return the value as an output to see it",
    "debug_print": "return the value as an output to see it",
    "reduce": "use jnp.sum, jnp.max, jnp.min, jnp.any or jnp.all",
    "reduce_window": "use lax.max from -jnp.inf, lax.min from jnp.inf or lax.add from 0",
    "pure_callback": "compute it inside of the program, or let the owner of the data do so",
    "bitcast_convert_type": "fixed-point numbers have no such bits; for a sign, ask x < 0",
    "nextafter": "fixed-point numbers are all 2^-18 apart",
    "shift_right_logical": "secret integers have no highest bit; shift with >> instead",
    "approx_top_k": "use lax.top_k, which is exact",
    "scaled_matmul_wrapper": "multiply with x @ y",
    "ragged_dot_general": "multiply each group by itself",
    "lu": "for a positive definite matrix use jnp.linalg.cholesky",
    "svd": "let the owner of the data compute it, or iterate a fixed number of times",
    "eigh": "let the owner of the data compute it, or iterate a fixed number of times",
    "eig": "let the owner of the data compute it, or iterate a fixed number of times",
    "qr": "let the owner of the data compute it, or orthogonalise with sums of products",
}
OTHERWISE = "docs/functions.md lists what is; or let the owner of the data compute it"


def lower(site: Site, operands: Sequence[Operand]) -> Sequence[Operand]:
    """The equation's results.  Raises CompileError when there is no rule for it, or its rule refuses it."""
    found = RULES.get(site.name)
    if found is None:
        site.refuse("is not supported on secret values", INSTEAD.get(site.name, OTHERWISE))
    nothing = doubts.absorbed(site, operands)
    if nothing is not None:
        return [nothing]
    operands, doubt = doubts.settled(site, operands)
    try:
        with site.b.at(site.where, site.b.most):
            results = found(site, *operands)
    except GraphError as error:
        site.refuse(str(error))
    listed = [results] if isinstance(results, Operand) else list(results)
    doubts.mark(site, listed, doubt)
    return listed


__all__ = [
    "INSTEAD",
    "RULES",
    "CompileError",
    "Operand",
    "Public",
    "Site",
    "arithmetic",
    "contraction",
    "convolution",
    "doubts",
    "elementwise",
    "indexing",
    "logic",
    "lookup",
    "lower",
    "pooling",
    "refuse",
    "rounding",
    "scans",
    "sorting",
    "structure",
]
