"""Gather, scatter and slices whose place is secret, and comparisons with many known integers: see `lower.lookup`.

What jax leaves open or fills with NaN for an index out of range is 0 here, or any entry where the program promises that
there is none (`mode="promise_in_bounds"`, and plain `x[i]`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from coordinator.lower import lookup
from coordinator.lower.builder import Value
from coordinator.lower.ranges import note, range_of
from coordinator.lower.rules.registry import Numbers, Operand, Public, Site
from mpcnode.graph import MAX_ONEHOT, Kind

WORTH = 512  # places in a vector, at most, for each number that is asked for


# ---- comparisons with known integers ---------------------------------------------------------------------------------
def counted_from_the_end(s: Site, which: Value, no: Operand, yes: Operand) -> tuple[Value, int] | None:
    """x and n where this is the choice of x + n for negative x, as jnp normalises indices."""
    op = s.b.op(which)
    if op.name != "sign" or not isinstance(no, Value) or not isinstance(yes, Value) or op.args[0] != no.number:
        return None
    added = s.b.op(yes)
    if added.name != "add" or added.args[0] != no.number or no.frac:
        return None
    n = _constant(s, Value(added.args[1], s.b.ops[added.args[1]].type))
    return (no, int(n.flat[0])) if n is not None and n.size and (n == n.flat[0]).all() else None


def _constant(s: Site, v: Value) -> Numbers | None:
    """The numbers of a public value, if they are constant."""
    op = s.b.op(v)
    if op.name == "const":
        return op.value
    if op.name not in ("reshape", "broadcast", "lift"):
        return None
    inner = _constant(s, Value(op.args[0], s.b.ops[op.args[0]].type))
    if inner is None or op.name == "lift":
        return inner
    if op.name == "reshape":
        return inner.reshape(v.shape)
    wide = [1] * len(v.shape)
    for axis, d in enumerate(op.integers("dims")):
        wide[d] = inner.shape[axis]
    return np.broadcast_to(inner.reshape(wide), v.shape)


def equal_places(s: Site, x: Operand, y: Operand) -> Value | None:
    """x == y for a secret integer and known ones along other axes (jax.nn.one_hot): all at once."""
    if isinstance(x, Public):
        x, y = y, x
    if not isinstance(x, Value) or not isinstance(y, Public) or y.kind != "i":
        return None
    core, few = _narrow(s, x), y.compact()
    rank, places = len(s.shape), np.asarray(few.array).astype(np.int64)
    if x.type.kind is not Kind.ARITH or x.frac or few.over or len(core.shape) != rank or places.ndim != rank:
        return None
    low, size = int(places.min(initial=1 << 62)), int(np.ptp(places)) + 1 if places.size else 0
    crossed = any(m != 1 and n != 1 for m, n in zip(core.shape, places.shape, strict=True))
    if crossed or len(np.unique(places)) < 2 or size > min(MAX_ONEHOT, WORTH * len(np.unique(places))):
        return None
    flat = s.b.reshape(core, (core.type.size,))
    bits = lookup.one_hot(s.b, s.b.sub(flat, s.b.fill(low, flat, 0)) if low else flat, size)
    found = s.b.emit("take", bits, s.b.const(places.reshape(-1) - low, 0), axis=0)
    wide = s.b.reshape(found, (*places.shape, *core.shape))
    mixed = s.b.transpose(wide, tuple(a for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for a in pair))
    shape = tuple(max(m, n) for m, n in zip(places.shape, core.shape, strict=True))
    return s.b.spread(s.b.reshape(mixed, shape), s.shape)


def _narrow(s: Site, x: Value) -> Value:
    """x before it was broadcast, with axes of length 1."""
    op = s.b.op(x)
    if op.name != "broadcast":
        return x
    source, shape = Value(op.args[0], s.b.ops[op.args[0]].type), [1] * len(x.shape)
    for axis, d in enumerate(op.integers("dims")):
        shape[d] = source.shape[axis]
    return s.b.reshape(source, tuple(shape))


# ---- where a gather or scatter goes ----------------------------------------------------------------------------------
class Way(NamedTuple):
    """The operand's axes: known and secret indices run along some, the others are taken whole.  count: of indices."""

    known: tuple[int, ...]  # axes
    secret: tuple[int, ...]
    rest: tuple[int, ...]
    rows: Numbers  # [count] the known indices, as one number
    bits: Value  # [places, count] the secret ones
    batch: tuple[int, ...]  # axes of the result, or of the updates, that are the indices'

    def moved(self, s: Site, x: Value) -> Value:
        """The operand as [known, secret, rest]."""
        perm = self.known + self.secret + self.rest
        groups = (self.known, self.secret, self.rest)
        return s.b.reshape(s.b.transpose(x, perm), tuple(math.prod(x.shape[a] for a in g) for g in groups))


def _columns(s: Site, index: Value) -> list[Value]:
    """The indices along each axis, [count] each."""
    n, count = index.shape[-1], math.prod(index.shape[:-1])
    op = s.b.op(index)
    if op.name == "concat" and op.integer("axis") == len(index.shape) - 1:
        parts = [Value(a, s.b.ops[a].type) for a in op.args]
        return [column for part in parts for column in _columns(s, part)]
    return [s.b.reshape(s.b.slice_axis(index, len(index.shape) - 1, i, i + 1), (count,)) for i in range(n)]


def _vector(s: Site, column: Value, size: int, mode: str) -> Value:
    """The bits of the indices along an axis of that size, [size, count]."""
    source = column
    while s.b.op(source).name == "reshape" and s.noted(source, "counted") is None:
        source = Value(s.b.op(source).args[0], s.b.ops[s.b.op(source).args[0]].type)
    counted, inside = s.noted(source, "counted"), "PROMISE" in mode
    if "CLIP" in mode:
        column, counted = clipped(s, column, size - 1), None
    if counted is not None and counted[1] == size and 2 * size <= MAX_ONEHOT:
        return lookup.one_hot_from_the_end(s.b, s.b.reshape(counted[0], column.shape), size, inside=inside)
    if size > MAX_ONEHOT:
        s.refuse(f"a secret index into {size} entries", f"at most {MAX_ONEHOT} are possible: split the table")
    return lookup.one_hot(s.b, column, size, inside=inside)


def clipped(s: Site, x: Value, high: int) -> Value:
    """x within 0 .. high."""
    known = range_of(s.b, x)
    if known.low < 0:
        x = note(s.b, s.b.emit("select", s.b.emit("sign", x, lo=0), x, keep=0), 0, max(0, known.high))
    if known.high > high:
        top = s.b.fill(high, x, 0)
        x = s.b.emit("sub", x, s.b.keep(s.b.less(top, x), s.b.emit("sub", x, top), 1))
    return note(s.b, x, 0, high)


def _way(s: Site, shape: tuple[int, ...], index: Value, sizes: tuple[int, ...], offset: tuple[int, ...]) -> Way:
    """How a gather of windows of these sizes goes through an operand; offset: the axes of the windows in the result."""
    numbers: Any = s.params["dimension_numbers"]
    gathers = hasattr(numbers, "start_index_map")
    indexed = tuple(int(a) for a in (numbers.start_index_map if gathers else numbers.scatter_dims_to_operand_dims))
    batching = tuple(int(a) for a in numbers.operand_batching_dims)
    shared = numbers.start_indices_batching_dims if gathers else numbers.scatter_indices_batching_dims
    rest = tuple(a for a in range(len(shape)) if a not in indexed + batching)
    if any(sizes[a] != 1 for a in indexed) or any(sizes[a] != shape[a] for a in rest):
        s.refuse("takes windows at secret places", "take single rows, or one window with lax.dynamic_slice")
    lead, count = index.shape[:-1], math.prod(index.shape[:-1])
    known, places, secret, vectors = list(batching), [], [], []
    for d in shared:
        at = np.arange(lead[int(d)]).reshape([-1 if i == int(d) else 1 for i in range(len(lead))])
        places.append(np.broadcast_to(at, lead).reshape(count))
    for axis, column in zip(indexed, _columns(s, index), strict=True):
        constant = _constant(s, column)
        if constant is not None and constant.size and constant.min() >= 0 and constant.max() < shape[axis]:
            known.append(axis)
            places.append(constant)
        else:
            secret.append(axis)
            vectors.append(_vector(s, column, shape[axis], str(s.params.get("mode"))))
    rows = np.zeros(count, np.int64)
    for axis, place in zip(known, places, strict=True):
        rows = rows * shape[axis] + place
    batch = tuple(d for d in range(len(lead) + len(offset)) if d not in offset)
    return Way(tuple(known), tuple(secret), rest, rows, lookup.joint(s.b, vectors), batch)


# ---- gather ----------------------------------------------------------------------------------------------------------
def gather(s: Site, x: Operand, index: Value) -> Value:
    """The table times the one-hot vectors: 3 rounds where the indices are known to be in range."""
    table, numbers = s.value(x), s.params["dimension_numbers"]
    offset = tuple(int(d) for d in numbers.offset_dims)
    way = _way(s, table.shape, index, tuple(int(n) for n in s.params["slice_sizes"]), offset)
    moved, count = way.moved(s, table), way.bits.shape[1]
    places, width = moved.shape[1:]
    if way.known:
        rows = moved if np.array_equal(way.rows, np.arange(moved.shape[0])) else s.b.emit(
            "take", moved, s.b.const(way.rows, 0), axis=0
        )  # fmt: skip
        found = _product(s, s.b.reshape(s.b.transpose(way.bits, (1, 0)), (count, 1, places)), rows)
    else:
        found = _product(s, s.b.transpose(way.bits, (1, 0)), s.b.reshape(moved, (places, width)))
    lead = tuple(s.shape[d] for d in way.batch)
    spread = s.b.reshape(found, (*lead, *(s.shape[d] for d in offset)))
    return s.b.transpose(spread, tuple(int(i) for i in np.argsort(way.batch + offset)))


def _product(s: Site, bits: Value, table: Value) -> Value:
    """bits @ table; for a table of bits too."""
    if s.kind != "b":
        return s.b.emit("dot", s.b.emit("inject", bits), table)
    rows = s.b.emit("inject", table) if table.type.kind is Kind.BIT else table
    return s.b.emit("sign", s.b.emit("neg", s.b.emit("dot", s.b.emit("inject", bits), rows)), lo=0, top=2)


# ---- scatter ---------------------------------------------------------------------------------------------------------
def _spread_updates(s: Site, x: Operand, index: Value, updates: Value) -> tuple[Value, Value | None]:
    """What falls on each element of the operand, and how often something does (asked for by `scatter` alone)."""
    numbers = s.params["dimension_numbers"]
    offset = tuple(int(d) for d in numbers.update_window_dims)
    whole = {int(d) for d in (*numbers.inserted_window_dims, *numbers.operand_batching_dims)}
    inner = iter(updates.shape[d] for d in offset)
    sizes = tuple(1 if a in whole else next(inner) for a in range(len(s.shape)))
    way = _way(s, s.shape, index, sizes, offset)
    count = way.bits.shape[1]
    width = math.prod(s.shape[a] for a in way.rest)
    rows = s.b.reshape(s.b.transpose(updates, way.batch + offset), (count, width))
    ones = s.b.emit("inject", way.bits)
    total = _fallen(s, way, ones, rows, math.prod(s.shape[a] for a in way.known))
    hits = None
    if s.name == "scatter":
        hits = _fallen(s, way, ones, s.b.fill(1, rows, 0), math.prod(s.shape[a] for a in way.known))
    order = way.known + way.secret + way.rest
    shape, perm = tuple(s.shape[a] for a in order), tuple(int(i) for i in np.argsort(order))
    back = [None if v is None else s.b.transpose(s.b.reshape(v, shape), perm) for v in (total, hits)]
    assert back[0] is not None
    return back[0], back[1]


def _fallen(s: Site, way: Way, ones: Value, rows: Value, known: int) -> Value:
    """[known, places, width]: the sums of the rows [count, width] by place."""
    (places, count), width = ones.shape, rows.shape[1]
    if not way.known:
        return s.b.reshape(s.b.emit("dot", ones, rows), (1, places, width))
    column, row = s.b.reshape(s.b.transpose(ones, (1, 0)), (count, places, 1)), s.b.reshape(rows, (count, 1, width))
    each = s.b.emit("dot", column, row)
    if np.array_equal(way.rows, np.arange(known)):
        return each
    targets = (np.arange(known)[:, None] == way.rows).astype(np.int64)
    flat = s.b.emit("dot", s.b.const(targets, 0), s.b.reshape(each, (count, places * width)))
    return s.b.reshape(flat, (known, places, width))


def scatter_add(s: Site, x: Operand, index: Value, updates: Operand) -> Value:
    """x and the updates, by the transposed one-hot vectors: the gradient of a gather."""
    total, _ = _spread_updates(s, x, index, s.value(updates))
    return total if isinstance(x, Public) and x.scalar == 0 else s.b.add(s.value(x, s.shape), total)


def scatter(s: Site, x: Operand, index: Value, updates: Operand) -> Value:
    """x with elements replaced, where no two updates may meet."""
    if math.prod(index.shape[:-1]) > 1 and not s.params.get("unique_indices"):
        s.refuse("sets elements at secret places that may be the same", "pass unique_indices=True, or use .at[].add()")
    if s.kind == "b":
        s.refuse("sets booleans at secret places", "convert them to int32 first")
    total, hits = _spread_updates(s, x, index, s.value(updates))
    assert hits is not None
    own = s.value(x, s.shape)
    kept = s.b.emit("sub", own, s.b.emit("mul", own, hits)) if not own.public else s.b.sub(
        own, s.b.emit("mul", hits, own)
    )  # fmt: skip
    return s.b.add(kept, total)


# ---- blocks ----------------------------------------------------------------------------------------------------------
def dynamic_slice(s: Site, x: Value, axis: int, start: Value, size: int) -> Value:
    """x[..., start : start + size, ...] along one axis, the start clamped: all windows, times the one-hot vector."""
    count, perm = x.shape[axis] - size + 1, (axis, *(a for a in range(len(x.shape)) if a != axis))
    bits = lookup.one_hot(s.b, clipped(s, s.b.reshape(start, (1,)), count - 1), count)
    front = s.b.transpose(x, perm)
    windows = s.b.const(np.arange(count)[:, None] + np.arange(size), 0)
    table = s.b.reshape(s.b.emit("take", front, windows, axis=0), (count, size * math.prod(front.shape[1:])))
    found = s.b.reshape(_product(s, s.b.transpose(bits, (1, 0)), table), (size, *front.shape[1:]))
    return s.b.transpose(found, tuple(int(i) for i in np.argsort(perm)))


def dynamic_update(s: Site, x: Value, block: Value, axis: int, start: Value) -> Value:
    """x with a block replaced at a secret place along one axis, along the others the block is as long as x."""
    if s.kind == "b":
        s.refuse("sets booleans at a secret place", "convert them to int32 first")
    n, size = x.shape[axis], block.shape[axis]
    count = n - size + 1
    bits = lookup.one_hot(s.b, clipped(s, s.b.reshape(start, (1,)), count - 1), count)
    ones = s.b.emit("pad", s.b.reshape(s.b.emit("inject", bits), (count,)), low=(0,), high=(1,))
    gap = np.arange(n)[:, None] - np.arange(size)  # [x's place, block's place]
    where = s.b.emit("take", ones, s.b.const(np.where((gap < 0) | (gap >= count), count, gap), 0), axis=0)
    perm = (axis, *(a for a in range(len(x.shape)) if a != axis))
    front, part = s.b.transpose(x, perm), s.b.transpose(block, perm)
    width = math.prod(front.shape[1:])
    placed = s.b.reshape(s.b.emit("dot", where, s.b.reshape(part, (size, width))), front.shape)
    covered = s.b.emit("broadcast", s.b.emit("sum", where, axes=(1,)), shape=front.shape, dims=(0,))
    kept = s.b.sub(front, s.b.emit("mul", covered, front))
    return s.b.transpose(s.b.add(kept, placed), tuple(int(i) for i in np.argsort(perm)))
