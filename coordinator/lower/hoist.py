"""Work that is the same in every step of a loop, done once before it."""

from __future__ import annotations

from coordinator.lower.builder import Builder, Value
from mpcnode.graph import Attr, Graph, Kind, Op

WORTH = frozenset((
    "trunc", "rescale", "mul", "dot", "conv", "sign", "onehot", "select", "inject", "and", "or", "xor", "not", "add",
    "sub", "neg", "scale", "sum",
))  # fmt: skip


def hoist(graph: Graph, frac: int) -> Graph:
    """Ops of a loop's body that depend on its constants alone, moved in front of it; inner loops first."""
    b = Builder(frac)
    new: list[Value] = []
    for op in graph.ops:
        args = [new[a] for a in op.args]
        with b.at(op.where, op.most):
            if op.name == "loop":
                new.append(_hoisted(b, op._replace(attrs={**op.attrs, "body": hoist(op.body, frac)}), args))
            else:
                new.append(b.again(op, *args))
    return b.graph([new[o] for o in graph.outputs])


def _invariant(loop: Op) -> set[int]:
    """Ops of the body that are the same in every step."""
    found: set[int] = set()
    for i, op in enumerate(loop.body.ops):
        constant = op.integer("index") < loop.integer("consts") if op.name == "param" else op.name != "loop"
        if constant and all(a in found for a in op.args):
            found.add(i)
    return found


def _hoisted(b: Builder, loop: Op, args: list[Value]) -> Value:
    """The loop in `b`, with constants added for what was moved; args: its arguments there."""
    body, consts = loop.body, loop.integer("consts")
    fixed = _invariant(loop)
    readers = {a for i, op in enumerate(body.ops) if i not in fixed for a in op.args} | set(body.outputs)
    chosen = [i for i in sorted(fixed) if _worth(body.ops[i]) and _read_outside(body, i, fixed, readers)]
    if not chosen or loop.integer("length") == 1:
        return b.again(loop, *args)
    outer: dict[int, Value] = {}

    def above(i: int) -> Value:
        """An op of the body, written before the loop."""
        if i not in outer:
            op = body.ops[i]
            if op.name == "param":
                outer[i] = args[op.integer("index")]
            else:
                with b.at(op.where, op.most):
                    outer[i] = b.again(op, *(above(a) for a in op.args))
        return outer[i]

    more = [above(i) for i in chosen]
    attrs: dict[str, Attr] = {**loop.attrs, "consts": consts + len(more), "body": _body(body, chosen, consts)}
    return b.again(loop._replace(attrs=attrs), *args[:consts], *more, *args[consts:])


def _worth(op: Op) -> bool:
    return op.name in WORTH and op.type.kind is not Kind.PUBLIC


def _read_outside(body: Graph, i: int, fixed: set[int], readers: set[int]) -> bool:
    """Is the op read by one that changes from step to step, perhaps through reshapes and the like?"""
    waiting = [i]
    while waiting:
        j = waiting.pop()
        if j in readers:
            return True
        waiting += [k for k in fixed if j in body.ops[k].args and not _worth(body.ops[k])]
    return False


def _body(body: Graph, chosen: list[int], consts: int) -> Graph:
    """The body with parameters, after its constants, in the place of the chosen ops."""
    params = [i for i, op in enumerate(body.ops) if op.name == "param"]
    order: list[tuple[int, Op]] = [(i, body.ops[i]) for i in params[:consts]]
    order += [(i, Op("param", (), {"index": 0}, body.ops[i].type, body.ops[i].where)) for i in chosen]
    order += [(i, body.ops[i]) for i in params[consts:]]
    order = [(i, op._replace(attrs={"index": index})) for index, (i, op) in enumerate(order)]
    order += [(i, op) for i, op in enumerate(body.ops) if op.name != "param" and i not in set(chosen)]
    number = {i: n for n, (i, _) in enumerate(order)}
    ops = tuple(op._replace(args=tuple(number[a] for a in op.args)) for _, op in order)
    return Graph(ops, tuple(number[o] for o in body.outputs))
