"""Is a graph one: every op against the op table.

The compiler asks after every pass, and a node on receipt, of a graph that it has no reason to trust.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpcnode.graph import (
    MAX_AXES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_FRAC,
    MAX_OPS,
    MAX_STEPS,
    Attr,
    Graph,
    GraphError,
    Kind,
    Op,
    Type,
)
from mpcnode.optable import INTS, OPS, STRS, need


def _attr_fits(value: Attr, want: type) -> bool:
    if want is INTS:
        return isinstance(value, tuple) and not isinstance(value, Graph) and all(type(v) is int for v in value)
    if want is STRS:
        return isinstance(value, tuple) and not isinstance(value, Graph) and all(isinstance(v, str) for v in value)
    if want is int:
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    return isinstance(value, want)


def infer(op: Op, args: Sequence[Op]) -> Type:
    """The type that the table gives `op` for these arguments.  Raises GraphError (without the op's place; `verify`
    adds it).
    """
    row = OPS.get(op.name)
    if row is None:
        raise GraphError("is no op")
    need(
        len(args) == row.arity or (row.arity is None and bool(args)),
        f"has {len(args)} arguments, not {row.arity or '1 or more'}",
    )
    given = op.attrs.keys() - row.optional.keys()
    need(given == row.attrs.keys(), f"has attributes {sorted(given)}, not {sorted(row.attrs)}")
    for key, value in op.attrs.items():
        need(_attr_fits(value, row.attrs.get(key) or row.optional[key]), f"attribute {key} is ill-typed")
    loose = op.name != "get" and any(a.type.kind is Kind.TUPLE for a in args)
    need(not loose, "a loop's results must be picked with get")
    found = row.rule(args, op)
    need(0 <= found.frac <= MAX_FRAC, f"binary point {found.frac} is outside 0 to {MAX_FRAC}")
    need(
        all(type(n) is int and n >= 0 for n in found.shape)
        and len(found.shape) <= MAX_AXES
        and found.size <= MAX_ELEMENTS,
        f"shape {list(found.shape)} is out of bounds",
    )
    return found


def verify(graph: Graph) -> None:
    """Check every op against the table, loop bodies included.

    Raises GraphError naming the op: an unknown op, a later argument, wrong arity or attributes, a type that does not
    follow.
    """
    names = [op.text("name") for op in graph.ops if op.name == "reveal" and isinstance(op.attrs.get("name"), str)]
    need(len(names) == len(set(names)), "two outputs share a name")
    _verify(graph, "", 0)
    _check_stores([op for op in graph.ops if op.name == "store"])


def _check_stores(stores: Sequence[Op]) -> None:
    """What is kept under one name is one value: its arrays have places of their own, and the same terms."""
    places = [(op.text("kept"), op.texts("path")) for op in stores]
    need(len(places) == len(set(places)), "two kept arrays share a place")
    terms = {(op.text("kept"), op.texts("to"), op.integer("replace")) for op in stores}
    need(len(terms) == len({name for name, _ in places}), "the arrays of a kept value differ in who may use it")


def _verify(graph: Graph, path: str, depth: int) -> int:
    """Check a graph, or a loop's body at some depth; how often its busiest op runs."""
    most = 1
    need(depth <= MAX_DEPTH, f"{path}: loops nest deeper than {MAX_DEPTH}")
    need(len(graph.ops) <= MAX_OPS, f"{path}: more than {MAX_OPS} ops")
    for i, op in enumerate(graph.ops):
        place = f"{path}%{i} = {op.name}"
        need(all(type(a) is int and 0 <= a < i for a in op.args), f"{place}: an argument does not come earlier")
        need(op.name != "param" or depth > 0, f"{place}: a param stands in a loop's body only")
        inner = 1
        if op.name == "loop" and isinstance(op.attrs.get("body"), Graph):
            inner = _verify(op.body, f"{place} / ", depth + 1)
        try:
            want = infer(op, [graph.ops[a] for a in op.args])
        except GraphError as error:
            raise GraphError(f"{place}: {error}" + (f" ({op.where})" if op.where else "")) from None
        need(op.type == want, f"{place}: is {op.type}, should be {want}")
        if op.name == "loop":
            most = max(most, op.integer("length") * inner)
            need(most <= MAX_STEPS, f"{place}: runs an op more than {MAX_STEPS} times")
    need(all(type(o) is int and 0 <= o < len(graph.ops) for o in graph.outputs), f"{path}: an output is no op")
    return most
