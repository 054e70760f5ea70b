"""Gather, scatter and slices whose place is known (it may change from step to step).  None of it costs a round.
Those whose place is secret are in `rules.lookup`.

`Site.positions` (of the front end) tells for every element of a gather's result, or of a scatter's updates, the
position of its counterpart in the flattened operand; -1 where there is none.  Everything follows from these positions;
only rows taken along one axis have a shorter form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from coordinator.lower.builder import Value
from coordinator.lower.rules import arithmetic, elementwise, lookup
from coordinator.lower.rules.registry import Numbers, Operand, Public, Site, rule
from coordinator.lower.rules.structure import moved
from mpcnode.graph import Kind

ZERO = Public(np.zeros((), np.int64), (), "i")


# ---- blocks --------------------------------------------------------------------------------------------------------
def _corner(s: Site, starts: tuple[Public, ...], shape: tuple[int, ...], sizes: tuple[int, ...]) -> Value:
    """The corner of a block, clamped, as one public value [axes]."""
    steps = {loop: int(n) for p in starts for loop, n in zip(p.over, p.array.shape, strict=False)}
    loops = tuple(sorted(steps))
    corner = np.empty((*(steps[loop] for loop in loops), len(starts)), np.int64)
    for axis, p in enumerate(starts):
        wide = [steps[loop] if loop in p.over else 1 for loop in loops]
        corner[..., axis] = np.clip(np.asarray(p.array).reshape(wide), 0, shape[axis] - sizes[axis])
    return s.numbers(corner, loops)


@rule("dynamic_slice")
def dynamic_slice(s: Site, x: Operand, *starts: Operand) -> Operand:
    sizes = tuple(int(n) for n in s.params["slice_sizes"])
    v = s.value(x)
    known = tuple(p if isinstance(p, Public) else ZERO for p in starts)
    secret = [axis for axis, p in enumerate(starts) if isinstance(p, Value)]
    if secret:
        for axis in secret:
            v = lookup.dynamic_slice(s, v, axis, s.value(starts[axis]), sizes[axis])
        if len(secret) == len(starts):
            return v
    if not known:
        return v
    corner = _corner(s, known, v.shape, sizes)
    op = s.b.op(corner)
    if op.name == "const":
        start = tuple(int(i) for i in op.value)
        limit = tuple(a + n for a, n in zip(start, sizes, strict=True))
        return moved(s, v, lambda w: s.b.emit("slice", w, start=start, limit=limit, stride=(1,) * len(start)))
    return moved(s, v, lambda w: s.b.emit("dynamic_slice", w, corner, sizes=sizes))


@rule("dynamic_update_slice")
def dynamic_update_slice(s: Site, x: Operand, block: Operand, *starts: Operand) -> Operand:
    v, w = s.value(x), s.value(block)
    if not starts:
        return w
    secret = [axis for axis, p in enumerate(starts) if isinstance(p, Value)]
    if secret:
        return _secret_update(s, v, w, starts, secret)
    kind = next(u.type.kind for u in (v, w) if not u.public)
    corner = _corner(s, tuple(p for p in starts if isinstance(p, Public)), v.shape, w.shape)
    return s.b.emit("dynamic_update", s.b.lift(v, kind), s.b.lift(w, kind), corner)


def _secret_update(s: Site, x: Value, block: Value, starts: tuple[Operand, ...], secret: list[int]) -> Value:
    """The block within a slice of x along the known axes, which then is put back."""
    [axis, *more] = secret
    if more:
        s.refuse("writes at a place that is secret along two axes", "write along one axis after the other")
    sizes = tuple(n if a == axis else m for a, (n, m) in enumerate(zip(x.shape, block.shape, strict=True)))
    if sizes == x.shape:
        return lookup.dynamic_update(s, x, block, axis, s.value(starts[axis]))
    corner = _corner(s, tuple(p if isinstance(p, Public) else ZERO for p in starts), x.shape, sizes)
    part = s.b.emit("dynamic_slice", x, corner, sizes=sizes)
    changed = lookup.dynamic_update(s, part, block, axis, s.value(starts[axis]))
    return s.b.emit("dynamic_update", s.b.lift(x, changed.type.kind), changed, corner)


# ---- gather --------------------------------------------------------------------------------------------------------
@rule("gather")
def gather(s: Site, x: Operand, indices: Operand) -> Value:
    if isinstance(indices, Value):
        return lookup.gather(s, x, indices)
    index = indices
    assert isinstance(x, Value)
    rows = _rows(s, x, index)
    if rows is not None:
        return rows
    positions = np.asarray(s.positions(index).array)
    if positions.min(initial=0) < 0:
        s.refuse("an index is out of range")
    place = s.numbers(positions.reshape(*positions.shape[: len(index.over)], -1), index.over)
    return moved(s, x, lambda v: s.b.reshape(s.b.emit("take", s.b.reshape(v, (v.type.size,)), place, axis=0), s.shape))


def _rows(s: Site, x: Value, index: Public) -> Value | None:
    """x[i] along one axis, everything else whole, if the gather is of this kind."""
    numbers, sizes = s.params["dimension_numbers"], tuple(int(n) for n in s.params["slice_sizes"])
    if len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
        return None
    [axis] = (int(a) for a in numbers.start_index_map)
    whole = all(n == m for a, (n, m) in enumerate(zip(sizes, x.shape, strict=True)) if a != axis)
    if tuple(numbers.collapsed_slice_dims) != (axis,) or not whole:
        return None
    i = np.asarray(index.array)[..., 0]
    if i.size and (i.min() < 0 or i.max() >= x.shape[axis]):
        return None
    place = s.numbers(i, index.over)
    offset = tuple(int(d) for d in numbers.offset_dims)
    batch = [d for d in range(len(s.shape)) if d not in offset]
    # `take` puts the index's axes where the axis was, the gather wants them at the places that are no offset
    natural = [*offset[:axis], *batch, *offset[axis:]]
    perm = tuple(natural.index(d) for d in range(len(natural)))
    return moved(s, x, lambda v: s.b.transpose(s.b.emit("take", v, place, axis=axis), perm))


# ---- scatter -------------------------------------------------------------------------------------------------------
def _targets(s: Site, index: Public, size: int) -> Numbers:
    """[steps, m, size]: the updates that fall on each element, first to last, as positions in the flattened updates;
    the number of updates stands for none.
    """
    positions = np.asarray(s.positions(index).array)
    lead = positions.shape[: len(index.over)]
    table = positions.reshape(math.prod(lead), -1)
    steps, none = table.shape
    order = np.argsort(table, axis=1, kind="stable")
    ranked = np.take_along_axis(table, order, 1)
    counter = np.broadcast_to(np.arange(none), table.shape)
    fresh = np.ones(table.shape, bool)
    fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    rank = counter - np.maximum.accumulate(np.where(fresh, counter, 0), axis=1)
    valid = ranked >= 0
    depth = int(rank[valid].max(initial=-1)) + 1
    found = np.full((steps, depth, size), none, np.int64)
    found[np.nonzero(valid)[0], rank[valid], ranked[valid]] = order[valid]
    return found.reshape(*lead, depth, size)


@rule("scatter-add")
def scatter_add(s: Site, x: Operand, indices: Operand, updates: Operand) -> Operand:
    """x plus, for each of its elements, the updates that fall on it: the gradient of a gather."""
    if isinstance(indices, Value):
        return lookup.scatter_add(s, x, indices, updates)
    index = indices
    targets = _targets(s, index, math.prod(s.shape))
    flat = s.value(updates)
    wide = s.b.emit("pad", s.b.reshape(flat, (flat.type.size,)), low=(0,), high=(1,))
    fallen = s.b.emit("take", wide, s.numbers(targets, index.over), axis=0)
    total = s.b.reshape(s.b.emit("sum", fallen, axes=(0,)), s.shape)
    return total if isinstance(x, Public) and x.scalar == 0 else s.b.add(s.value(x, s.shape), total)


@rule("scatter")
def scatter(s: Site, x: Operand, indices: Operand, updates: Operand) -> Value:
    """x with elements replaced (x.at[i].set(v)): taken from the updates and x, joined."""
    if s.params.get("update_jaxpr") is not None:
        s.refuse("applies a function in place", "write x.at[i].set(f(x[i]))")
    if isinstance(indices, Value):
        return lookup.scatter(s, x, indices, updates)
    index = indices
    v, w = s.value(x), s.value(updates)
    size, count = v.type.size, w.type.size
    targets = _targets(s, index, size)
    kind = Kind.BIT if Kind.BIT in (v.type.kind, w.type.kind) else Kind.ARITH
    flat = [s.b.lift(s.b.reshape(u, (u.type.size,)), kind) for u in (w, v)]
    last = np.where(targets == count, -1, targets).max(axis=-2, initial=-1)  # the last update counts
    place = s.numbers(np.where(last < 0, count + np.arange(size), last), index.over)
    return s.b.reshape(s.b.emit("take", s.b.emit("concat", *flat, axis=0), place, axis=0), s.shape)


FOLDS: dict[str, Callable[[Site, Value, Value], Operand]] = {
    "scatter-sub": arithmetic.sub,
    "scatter-mul": arithmetic.mul,
    "scatter-max": elementwise.maximum,
    "scatter-min": elementwise.minimum,
}


@rule(*FOLDS)
def scatter_fold(s: Site, x: Operand, indices: Operand, updates: Operand) -> Value:
    """x with each update joined to the element that it falls on (x.at[i].multiply(v)): only these are computed."""
    if isinstance(indices, Value):
        s.refuse("changes elements at secret places", "compute x[i] first, and set it with x.at[i].set()")
    flat = [s.b.lift(s.b.reshape(v, (v.type.size,))) for v in (s.value(x), s.value(updates))]
    found, (size,), (count,) = flat[0], flat[0].shape, flat[1].shape
    targets = _targets(s, indices, size)
    for layer in np.moveaxis(targets, -2, 0):  # of updates that fall on the same element, one after the other
        hit = layer != count
        touched = np.unique(hit.sum(-1))
        if len(touched) != 1:
            s.refuse("changes another number of elements in each step", "change all of them, with jnp.where")
        steps, few = layer.shape[:-1], int(touched[0])
        at = np.nonzero(hit)[-1].reshape(*steps, few)
        place = np.broadcast_to(np.arange(size), layer.shape).copy()
        place[hit] = np.broadcast_to(size + np.arange(few), at.shape).reshape(-1)
        old = s.b.emit("take", found, s.numbers(at, indices.over), axis=0)
        new = s.b.emit("take", flat[1], s.numbers(layer[hit].reshape(*steps, few), indices.over), axis=0)
        joined = s.value(FOLDS[s.name](s._replace(shapes=[(few,)]), old, new))
        found = s.b.emit("take", s.b.emit("concat", found, joined, axis=0), s.numbers(place, indices.over), axis=0)
    return s.b.reshape(found, s.shape)
