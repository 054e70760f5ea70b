"""Finer binary points for what loops average: the moments of Adam and momentum are carried with more fraction bits.

An exponential average, carried = trunc(0.999·carried + 0.001·new), rounds in every step what is small to begin with,
and 1 / (1 - 0.999^t) then blows the rounding up.  Truncating a few bits less costs nothing, as long as all that read
the carried value multiply it with something known: they have the room, and truncate afterwards anyway.
"""

from __future__ import annotations

from coordinator.lower.builder import Builder, Value
from mpcnode.graph import Attr, Graph, Kind, Op

BITS = 8  # more fraction bits


def refine(graph: Graph, frac: int) -> Graph:
    """Averages that loops carry, outer and inner, with up to BITS more fraction bits than `frac`."""
    b = Builder(frac)
    new: list[Value] = []
    refined: dict[int, dict[int, int]] = {}  # of each loop, bits by carried value
    for i, op in enumerate(graph.ops):
        args = [new[a] for a in op.args]
        with b.at(op.where, op.most):
            if op.name == "loop":
                inner = op._replace(attrs={**op.attrs, "body": refine(op.body, frac)})
                refined[i] = averages(inner, frac)
                new.append(_refined(b, inner, args, refined[i]))
            else:
                value = b.again(op, *args)
                bits = refined[op.args[0]].get(op.integer("index"), 0) if op.name == "get" else 0
                new.append(b.emit("trunc", value, by=bits) if bits else value)
    return b.graph([new[o] for o in graph.outputs])


def averages(loop: Op, frac: int) -> dict[int, int]:
    """The carried values that can be finer, and by how many bits."""
    body, consts, found = loop.body, loop.integer("consts"), {}
    params = {op.integer("index"): i for i, op in enumerate(body.ops) if op.name == "param"}
    for n in range(loop.integer("carry")):
        param, result = params[consts + n], body.outputs[n]
        op = body.ops[result]
        lone = body.outputs.count(result) == 1 and param not in body.outputs
        if op.name != "trunc" or op.type.frac != frac or not lone:
            continue
        readers = [reader for reader in body.ops if param in reader.args or result in reader.args]
        fits = [
            m for m in range(1, min(BITS, op.integer("by") - 1) + 1) if all(_fits(body, r, m, frac) for r in readers)
        ]
        if fits:
            found[n] = fits[-1]
    return found


def _fits(body: Graph, reader: Op, more: int, frac: int) -> bool:
    """Is it a product with something known that has room for more bits, or takes as many off itself?"""
    if reader.name == "scale" and reader.integer("by") % (1 << more) == 0:
        return True
    known = reader.name == "scale" or (
        reader.name == "mul" and any(body.ops[a].type.kind is Kind.PUBLIC for a in reader.args)
    )
    return known and reader.type.frac + more <= 2 * frac + BITS


def _refined(b: Builder, loop: Op, args: list[Value], bits: dict[int, int]) -> Value:
    consts = loop.integer("consts")
    for n, more in bits.items():
        args[consts + n] = b.align(args[consts + n], args[consts + n].frac + more)
    attrs: dict[str, Attr] = {**loop.attrs, "body": _body(loop, bits, b.frac)}
    return b.again(loop._replace(attrs=attrs), *args)


def _body(loop: Op, bits: dict[int, int], frac: int) -> Graph:
    """The body with finer carried values.  Parameters stand first."""
    body, consts = loop.body, loop.integer("consts")
    results = {body.outputs[n]: more for n, more in bits.items()}
    b = Builder(frac)
    new: list[Value] = []
    fine: dict[int, int] = {}  # old numbers of finer values
    for i, op in enumerate(body.ops):
        args = [new[a] for a in op.args]
        more = [fine.get(a, 0) for a in op.args]
        with b.at(op.where, op.most):
            if op.name == "param" and op.integer("index") - consts in bits:
                fine[i] = bits[op.integer("index") - consts]
                new.append(b.again(op._replace(type=op.type._replace(frac=op.type.frac + fine[i]))))
            elif i in results:
                fine[i] = results[i]
                new.append(b.emit("trunc", args[0], by=op.integer("by") - fine[i]))
            elif any(more):
                new.append(_product(b, op, args, max(more)))
            else:
                new.append(b.again(op, *args))
    return b.graph([new[o] for o in body.outputs])


def _product(b: Builder, op: Op, args: list[Value], more: int) -> Value:
    """The product of a value that has `more` fraction bits now, with as many as it had before."""
    by = op.integer("by") if op.name == "scale" else 1
    if op.name == "scale" and by % (1 << more) == 0:
        return b.emit("scale", *args, by=by >> more, frac=op.integer("frac") - more)
    return b.emit("trunc", b.again(op, *args), by=more)
