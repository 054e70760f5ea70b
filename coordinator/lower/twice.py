"""Matrix products and convolutions that return 2·x·y, read with one more fraction bit.

The number is the same, but parties may compute it with half the multiplications (see protocols/masked.py).  It takes
one bit of the room above, so only where what follows is linear up to truncations and comparisons, which take the bit
away again, and where there is room.
"""

from __future__ import annotations

from coordinator.lower.builder import LONGEST, Builder, Value
from coordinator.lower.refine import BITS
from mpcnode.graph import TOP, Graph, Kind, Op

LEAST = 4  # terms of a sum of products: fewer are not worth a pass over the factors
FIRST, BOTH = (0,), (0, 1)
FLOW = dict.fromkeys(
    ("reshape", "transpose", "broadcast", "slice", "pad", "rev", "take", "dynamic_slice", "neg", "sum", "scale"), FIRST
) | {"add": BOTH, "sub": BOTH, "dynamic_update": BOTH, "select": (1,)}


def twice(graph: Graph, frac: int) -> Graph:
    """The graph, loop bodies included, with every product that can be doubled."""
    products, linear = _doubled(graph, frac)
    b, new = Builder(frac), list[Value]()
    grown = products | linear
    for i, op in enumerate(graph.ops):
        args = [new[a] for a in op.args]
        with b.at(op.where, op.most):
            if op.name == "loop":
                op = op._replace(attrs={**op.attrs, "body": twice(op.body, frac)})  # noqa: PLW2901
            elif i in products:
                op = op._replace(attrs={**op.attrs, "twice": 1})  # noqa: PLW2901
            elif i in linear:
                for k in flow(graph, op):
                    if op.args[k] not in grown:
                        args[k] = b.emit("scale", args[k], by=2, frac=1)
            elif op.args and op.args[0] in grown:
                op = _taking_off(op)  # noqa: PLW2901
            new.append(b.again(op, *args))
    return b.graph([new[o] for o in graph.outputs])


def flow(graph: Graph, op: Op) -> tuple[int, ...]:
    """The arguments whose binary point is that of the result, give or take a constant."""
    if op.name == "concat":
        return tuple(range(len(op.args)))
    if op.name in ("mul", "dot", "conv"):
        secret = tuple(k for k in BOTH if graph.ops[op.args[k]].type.kind is Kind.ARITH)
        return secret if len(secret) == 1 else ()
    return FLOW.get(op.name, ())


def _taking_off(op: Op) -> Op:
    """A truncation or comparison of a doubled value."""
    if op.name == "trunc":
        return op._replace(attrs={"by": op.integer("by") + 1})
    return op._replace(attrs={key: min(op.integer(key) + 1, TOP) for key in op.attrs})  # lo, and top if it is there


def _doubled(graph: Graph, frac: int) -> tuple[set[int], set[int]]:
    """The products to double, and the linear ops through which that is passed on."""
    readers: list[list[int]] = [[] for _ in graph.ops]
    for i, op in enumerate(graph.ops):
        for a in dict.fromkeys(op.args):
            readers[a].append(i)
    products, linear = set[int](), set[int]()
    for i, op in enumerate(graph.ops):
        if _worth(graph, op):
            reached = _reach(graph, readers, i, frac)
            if reached is not None:
                products.add(i)
                linear |= reached - {i}
    return products, linear


def _worth(graph: Graph, op: Op) -> bool:
    if op.name not in ("dot", "conv") or any(graph.ops[a].type.kind is Kind.PUBLIC for a in op.args):
        return False
    return op.name == "conv" or graph.ops[op.args[0]].type.shape[-1] >= LEAST


def _reach(graph: Graph, readers: list[list[int]], start: int, frac: int) -> set[int] | None:
    """The linear ops behind a product up to truncations and comparisons; None if something else reads one of them, or
    one has no room.
    """
    reached, waiting, outputs = {start}, [start], set(graph.outputs)
    while waiting:
        i = waiting.pop()
        op = graph.ops[i]
        if i in outputs or op.type.frac + 1 > (op.most or 2 * frac + BITS + 1):
            return None
        for reader in readers[i]:
            use = graph.ops[reader]
            if use.name in ("trunc", "sign"):
                if not _can_take_off(use):
                    return None
            elif reader not in reached:
                if any(use.args[k] == i for k in range(len(use.args)) if k not in flow(graph, use)):
                    return None
                reached.add(reader)
                waiting.append(reader)
    return reached


def _can_take_off(op: Op) -> bool:
    return all(op.integer(key) < LONGEST for key in ("by", "lo") if key in op.attrs)
