"""Where elements stand: reshapes, slices, joins.  None of it costs a round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from coordinator.lower.builder import Value
from coordinator.lower.rules.registry import Operand, Public, Site, rule


def moved(s: Site, x: Value, move: Callable[[Value], Value]) -> Value:
    """move(x); what is a choice by a bit is, moved, the choice by the bit moved."""
    found = s.noted(x, "choice")
    y = move(x)
    return y if found is None else s.note(y, "choice", move(found[0]), *found[1:])


@rule("copy", "copy_p", "stop_gradient", "reduce_precision", "optimization_barrier", "pvary")
def same(s: Site, *xs: Operand) -> tuple[Operand, ...]:
    return xs


@rule("reshape", "squeeze", "expand_dims")
def reshape(s: Site, x: Value) -> Value:
    """A reshape's `dimensions` are an order that the axes are brought into before."""
    order = s.params.get("dimensions") if s.name == "reshape" else None
    perm = tuple(range(len(x.shape)) if order is None else (int(a) for a in order))
    return moved(s, x, lambda v: s.b.reshape(s.b.transpose(v, perm), s.shape))


@rule("transpose")
def transpose(s: Site, x: Value) -> Value:
    perm = tuple(int(p) for p in s.params["permutation"])
    return moved(s, x, lambda v: s.b.transpose(v, perm))


@rule("broadcast_in_dim")
def broadcast_in_dim(s: Site, x: Value) -> Value:
    dims = tuple(int(d) for d in s.params["broadcast_dimensions"])
    if math.prod(s.shape) == x.type.size:
        return moved(s, x, lambda v: s.b.reshape(v, s.shape))
    return moved(s, x, lambda v: s.b.emit("broadcast", v, shape=s.shape, dims=dims))


@rule("tile")
def tile(s: Site, x: Value) -> Value:
    reps = tuple(int(r) for r in s.params["reps"])
    own = (1,) * (len(reps) - len(x.shape)) + x.shape
    pairs = tuple(n for pair in zip(reps, own, strict=True) for n in pair)
    dims = tuple(range(1, 2 * len(reps), 2))
    return moved(
        s, x, lambda v: s.b.reshape(s.b.emit("broadcast", s.b.reshape(v, own), shape=pairs, dims=dims), s.shape)
    )


@rule("slice")
def slice_(s: Site, x: Value) -> Value:
    start = tuple(int(i) for i in s.params["start_indices"])
    limit = tuple(int(i) for i in s.params["limit_indices"])
    stride = tuple(int(i) for i in s.params["strides"] or (1,) * len(start))
    if s.shape == x.shape:
        return x
    return moved(s, x, lambda v: s.b.emit("slice", v, start=start, limit=limit, stride=stride))


@rule("split")
def split(s: Site, x: Value) -> list[Value]:
    axis, at, parts = int(s.params["axis"]), 0, []
    for size in s.params["sizes"]:
        parts.append(s.b.slice_axis(x, axis, at, at + int(size)))
        at += int(size)
    return parts


@rule("unstack")
def unstack(s: Site, x: Value) -> list[Value]:
    axis = int(s.params["axis"])
    return [s.b.reshape(s.b.slice_axis(x, axis, i, i + 1), shape) for i, shape in enumerate(s.shapes)]


@rule("rev")
def rev(s: Site, x: Value) -> Value:
    axes = tuple(sorted(int(a) for a in s.params["dimensions"]))
    return moved(s, x, lambda v: s.b.emit("rev", v, axes=axes))


@rule("concatenate")
def concatenate(s: Site, *xs: Operand) -> Value:
    return _joined(s, [s.value(x) for x in xs], int(s.params["dimension"]))


@rule("stack")
def stack(s: Site, *xs: Operand) -> Value:
    axis = int(s.params["axis"])
    return _joined(s, [s.b.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in map(s.value, xs)], axis)


def _joined(s: Site, values: Sequence[Value], axis: int) -> Value:
    kind = next(v.type.kind for v in values if not v.public)
    return s.b.emit("concat", *(s.b.lift(v, kind) for v in values), axis=axis)


@rule("pad")
def pad(s: Site, x: Operand, filling: Operand) -> Value:
    """With zeros; another filling is subtracted before and added after."""
    config = [tuple(int(n) for n in c) for c in s.params["padding_config"]]
    if isinstance(filling, Public) and filling.scalar == 0:
        return padded(s, s.value(x), config)
    if s.kind == "b":
        return s.b.emit("not", padded(s, s.b.emit("not", s.value(x)), config))
    v = s.value(x)
    return s.b.add(padded(s, s.b.sub(v, s.value(filling, v.shape)), config), s.value(filling, s.shape))


def padded(s: Site, x: Value, config: Sequence[tuple[int, ...]]) -> Value:
    """Zeros around and between the elements: (low, high, inner) for each axis; a negative low or high cuts."""
    for axis, (_, _, inner) in enumerate(config):
        n = x.shape[axis]
        if inner and n > 1:  # each element joined with the zeros after it
            flat = s.b.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
            after = tuple(inner if a == axis + 1 else 0 for a in range(len(flat.shape)))
            spaced = s.b.emit("pad", flat, low=(0,) * len(after), high=after)
            x = s.b.reshape(spaced, (*x.shape[:axis], n * (inner + 1), *x.shape[axis + 1 :]))
            x = s.b.slice_axis(x, axis, 0, n * (inner + 1) - inner)
    for axis, (low, high, _) in enumerate(config):
        x = s.b.slice_axis(x, axis, max(0, -low), x.shape[axis] - max(0, -high))
    lows, highs = tuple(max(0, c[0]) for c in config), tuple(max(0, c[1]) for c in config)
    return s.b.emit("pad", x, low=lows, high=highs) if any(lows + highs) else x
