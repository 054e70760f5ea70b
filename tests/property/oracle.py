"""What a graph computes, in whole numbers of any size, written for clarity and apart from the machine.

A value is known as middle and error, arrays of Python integers: it lies between middle - error and middle + error.
Only truncation adds to the error.  `Unfit` is raised where a value would leave the range, or a sign is not certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpcnode.graph import TOP, Graph, Kind, Op

RANGE = 1 << 61
Ints = Any  # an array of Python integers


class Unfit(Exception):
    """The graph has no certain result on these inputs."""


class Known(NamedTuple):
    middle: Ints
    error: Ints


def ints(x: Any) -> Ints:
    return np.array(x, object)


def exact(x: Any) -> Known:
    return Known(ints(x), ints(np.zeros(np.shape(x), int)))


# ---- ops -------------------------------------------------------------------------------------------------------------
def structural(move: Callable[[Op, list[Ints]], Ints]) -> Callable[[Op, list[Known]], Known]:
    """An op that moves elements, and their errors with them."""
    return lambda op, args: Known(move(op, [a.middle for a in args]), move(op, [a.error for a in args]))


def indexed(move: Callable[[Op, list[Ints], Ints], Ints]) -> Callable[[Op, list[Known]], Known]:
    """One whose last argument is an index."""

    def known(op: Op, args: list[Known]) -> Known:
        *moved, index = args
        at = index.middle.astype(np.int64)
        return Known(move(op, [a.middle for a in moved], at), move(op, [a.error for a in moved], at))

    return known


def broadcast(op: Op, args: list[Ints]) -> Ints:
    shape = [1] * len(op.integers("shape"))
    for n, d in zip(args[0].shape, op.integers("dims"), strict=True):
        shape[d] = n
    return np.broadcast_to(args[0].reshape(shape), op.integers("shape"))


def sliced(op: Op, args: list[Ints]) -> Ints:
    cuts = zip(op.integers("start"), op.integers("limit"), op.integers("stride"), strict=True)
    return args[0][tuple(np.s_[a:b:s] for a, b, s in cuts)]


def padded(op: Op, args: list[Ints]) -> Ints:
    x, low, high = args[0], op.integers("low"), op.integers("high")
    out = ints(np.zeros([a + n + b for a, n, b in zip(low, x.shape, high, strict=True)], np.int64))
    out[tuple(np.s_[a : a + n] for a, n in zip(low, x.shape, strict=True))] = x
    return out


def block(x: Ints, corner: Ints, sizes: Sequence[int]) -> Any:
    starts = [max(0, min(int(c), n - s)) for c, n, s in zip(corner, x.shape, sizes, strict=True)]
    return tuple(np.s_[a : a + s] for a, s in zip(starts, sizes, strict=True))


def updated(op: Op, args: list[Ints], corner: Ints) -> Ints:
    out = args[0].copy()
    out[block(out, corner, args[1].shape)] = args[1]
    return out


def linear(combine: Callable[..., Ints]) -> Callable[[Op, list[Known]], Known]:
    """Middles combine; errors add up."""
    return lambda op, args: Known(combine(*(a.middle for a in args)), sum(a.error for a in args))


def summed(op: Op, args: list[Known]) -> Known:
    axes = op.integers("axes")
    return Known(*(ints(np.sum(part, axes)) if axes else part for part in args[0]))


def convolved(op: Op, x: Ints, y: Ints) -> Ints:
    """Of one image axis, nothing padded."""
    places, stride = op.type.shape[2], op.integers("stride")[0]
    return ints(sum(x[:, :, e : e + (places - 1) * stride + 1 : stride] @ y[:, e] for e in range(y.shape[1])))


def bilinear(product: Callable[[Op, Ints, Ints], Ints]) -> Callable[[Op, list[Known]], Known]:
    def known(op: Op, args: list[Known]) -> Known:
        (x, ex), (y, ey) = args
        return Known(product(op, x, y), product(op, abs(x), ey) + product(op, ex, abs(y)) + product(op, ex, ey))

    return known


def trunc(op: Op, args: list[Known]) -> Known:
    by = op.integer("by")
    return Known(args[0].middle >> by, (args[0].error >> by) + 2)


def rescale(op: Op, args: list[Known]) -> Known:
    by, times = op.integer("by"), op.integer("times")
    return Known(args[0].middle * times >> by, (args[0].error * times >> by) + 2)


def sign(op: Op, args: list[Known]) -> Known:
    (x, error), gap = args[0], 1 << op.integer("lo")
    if "cuts" in op.attrs:
        x, error = np.stack([x - cut for cut in op.integers("cuts")]), np.stack([error] * len(op.integers("cuts")))
    if np.any(abs(x) + error >= (1 << op.integer("top", TOP)) - gap):
        raise Unfit
    below = x + error <= -gap
    if not np.all(below | (x - error >= 0)):
        raise Unfit
    return exact(np.asarray(below).astype(int))


def onehot(op: Op, args: list[Known]) -> Known:
    (x, error), size = args[0], op.integer("size")
    if np.any(error):
        raise Unfit
    places = np.arange(size).reshape(size, *(1 for _ in x.shape))
    return exact(np.asarray(x[None] % (1 << (size - 1).bit_length()) == places).astype(int))


def certain(compute: Callable[..., Ints]) -> Callable[[Op, list[Known]], Known]:
    """On bits, which have no error."""
    return lambda op, args: exact(compute(*(a.middle for a in args)))


def truncated(op: Op, x: Known) -> Known:
    """x, truncated on the way to an op that says so."""
    return trunc(op, [x]) if "by" in op.attrs else x


def mul(op: Op, args: list[Known]) -> Known:
    return bilinear(lambda op, x, y: x * y)(op, [truncated(op, args[0]), args[1]])


def square(op: Op, args: list[Known]) -> Known:
    t = trunc(op, args)
    return bilinear(lambda op, x, y: x * y)(op, [t, t])


def select(op: Op, args: list[Known]) -> Known:
    keep = args[0].middle == op.integer("keep")
    kept = Known(*(ints(np.where(keep, part, 0)) for part in truncated(op, args[1])))
    return summed(op, [kept]) if "axes" in op.attrs else kept


OPS: dict[str, Callable[[Op, list[Known]], Known]] = {
    "const": lambda op, args: exact(op.value),
    "lift": lambda op, args: args[0],
    "reveal": lambda op, args: args[0],
    "reshape": structural(lambda op, args: args[0].reshape(op.integers("shape"))),
    "transpose": structural(lambda op, args: args[0].transpose(op.integers("perm"))),
    "broadcast": structural(broadcast),
    "slice": structural(sliced),
    "join": structural(lambda op, args: np.concatenate(args, 1)),
    "concat": structural(lambda op, args: np.concatenate(args, op.integer("axis"))),
    "pad": structural(padded),
    "rev": structural(lambda op, args: np.flip(args[0], op.integers("axes"))),
    "take": indexed(lambda op, args, at: np.take(args[0], at, op.integer("axis"))),
    "dynamic_slice": indexed(lambda op, args, at: args[0][block(args[0], at, op.integers("sizes"))]),
    "dynamic_update": indexed(updated),
    "add": linear(lambda x, y: x + y),
    "sub": linear(lambda x, y: x - y),
    "neg": linear(lambda x: -x),
    "sum": summed,
    "scale": lambda op, args: Known(args[0].middle * op.integer("by"), args[0].error * abs(op.integer("by"))),
    "mul": mul,
    "square": square,
    "dot": bilinear(lambda op, x, y: x @ y * (1 + op.integer("twice", 0))),
    "conv": bilinear(lambda op, x, y: convolved(op, x, y) * (1 + op.integer("twice", 0))),
    "trunc": trunc,
    "rescale": rescale,
    "xor": certain(lambda x, y: x ^ y),
    "and": certain(lambda *xs: np.bitwise_and.reduce(xs)),
    "or": certain(lambda x, y: x | y),
    "not": certain(lambda x: 1 - x),
    "sign": sign,
    "inject": lambda op, args: args[0],
    "onehot": onehot,
    "select": select,
}


# ---- graphs ----------------------------------------------------------------------------------------------------------
def result(op: Op, args: list[Any], inputs: dict[str, Known]) -> Any:
    """What one op makes of its arguments: Known, or a list of them for a loop."""
    if op.name == "input":
        found = inputs[op.text("dataset")]
    elif op.name == "loop":
        return loop(op, args)
    elif op.name == "get":
        return args[0][op.integer("index")]
    else:
        found = OPS[op.name](op, args)
    found = Known(*(ints(part).reshape(op.type.shape) for part in found))
    bounds = np.asarray(abs(found.middle) + found.error).reshape(-1)
    if op.type.kind is not Kind.BIT and max(bounds, default=0) >= RANGE:
        raise Unfit
    return found


def evaluate(graph: Graph, params: Sequence[Known]) -> list[Any]:
    """The outputs of a loop's body."""
    values: list[Any] = []
    for op in graph.ops:
        args = [values[a] for a in op.args]
        values.append(params[op.integer("index")] if op.name == "param" else result(op, args, {}))
    return [values[o] for o in graph.outputs]


def loop(op: Op, args: list[Known]) -> list[Known]:
    consts, carried, length = op.integer("consts"), op.integer("carry"), op.integer("length")
    carry, steps = args[consts : consts + carried], range(length)
    stacked: dict[int, list[Known]] = {}
    for t in reversed(steps) if op.integer("reverse") else steps:
        slices = [Known(ints(x.middle[t]), ints(x.error[t])) for x in args[consts + carried :]]
        outputs = evaluate(op.body, [*args[:consts], *carry, *slices])
        carry, stacked[t] = outputs[:carried], outputs[carried:]
    stacks = [
        Known(*(np.stack(parts) for parts in zip(*column, strict=True)))
        for column in zip(*(stacked[t] for t in steps), strict=True)
    ]
    return [*carry, *stacks]
