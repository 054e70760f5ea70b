"""Finer binary points for what loops average: the moments of Adam and momentum are carried with more fraction bits.

An exponential average, carried = trunc(0.999·carried + 0.001·new), rounds in every step what is small to begin with, and
1 / (1 - 0.999^t) then blows the rounding up.  Truncating a few bits less costs nothing, as long as all that read the
carried value multiply it with something known: they have the room, and truncate afterwards anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        with b.at(op.where):
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
        bits = min(BITS, op.integer("by") - 1) if op.name == "trunc" else 0
        if (
            bits > 0
            and op.type.frac == frac
            and body.outputs.count(result) == 1
            and _only_scaled(body, (param, result))
        ):
            found[n] = bits
    return found


def _only_scaled(body: Graph, values: Sequence[int]) -> bool:
    """Is all that reads these values a product with something known?"""
    readers = [op for op in body.ops if any(v in op.args for v in values)]
    read_once = all(o not in body.outputs for o in values[:1])
    return read_once and all(
        op.name == "scale" or (op.name == "mul" and any(body.ops[a].type.kind is Kind.PUBLIC for a in op.args))
        for op in readers
    )


def _refined(b: Builder, loop: Op, args: list[Value], bits: dict[int, int]) -> Value:
    consts = loop.integer("consts")
    for n, more in bits.items():
        args[consts + n] = b.align(args[consts + n], args[consts + n].frac + more)
    attrs: dict[str, Attr] = {**loop.attrs, "body": _body(loop, bits, b.frac)}
    return b.again(loop._replace(attrs=attrs), *args)


def _body(loop: Op, bits: dict[int, int], frac: int) -> Graph:
    """The body with finer carried values, truncated to what they were wherever they are read."""
    body, consts = loop.body, loop.integer("consts")
    b = Builder(frac)
    fine = {consts + n: more for n, more in bits.items()}
    results = {body.outputs[n]: (n, more) for n, more in bits.items()}
    params: dict[int, Value] = {}
    for i, op in enumerate(body.ops):  # parameters stand first
        if op.name == "param":
            more = fine.get(op.integer("index"), 0)
            params[i] = b.emit("param", index=op.integer("index"), type=op.type._replace(frac=op.type.frac + more))
    new: list[Value] = []
    outputs: dict[int, Value] = {}
    for i, op in enumerate(body.ops):
        with b.at(op.where):
            if i in params:
                more = fine.get(op.integer("index"), 0)
                new.append(b.emit("trunc", params[i], by=more) if more else params[i])
            elif i in results:
                n, more = results[i]
                outputs[n] = b.emit("trunc", new[op.args[0]], by=op.integer("by") - more)
                new.append(b.emit("trunc", outputs[n], by=more))
            else:
                new.append(b.again(op, *(new[a] for a in op.args)))
    return b.graph([outputs.get(n, new[o]) for n, o in enumerate(body.outputs)])
