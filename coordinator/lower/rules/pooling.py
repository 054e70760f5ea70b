"""reduce_window and its gradients: sums and extremes of windows.

The largest of rectified values is the rectified largest, so signs are asked of maxima only; and as an order is the same
before and after a truncation, maxima are truncated and not what they are taken of.
"""

from __future__ import annotations

from typing import NamedTuple

from coordinator.lower.builder import Value
from coordinator.lower.pool import Pool, pool
from coordinator.lower.ranges import note, range_of
from coordinator.lower.rules import logic
from coordinator.lower.rules.registry import Operand, Site, rule
from coordinator.lower.untruncated import argument, most_frac, untruncated
from coordinator.lower.windows import Line, line, unfold
from mpcnode.window import Window

DEEP = 8  # ops that are followed back to truncations


def _lines(s: Site, shape: tuple[int, ...]) -> list[Line]:
    """The windows along each axis where they are not just the entries."""
    rank = len(shape)
    counts = tuple(int(n) for n in s.params["window_dimensions"])
    low, high = zip(*s.params["padding"], strict=True)
    ones = (1,) * rank
    dilations = (s.params.get(name, ones) for name in ("base_dilation", "window_dilation"))
    fields = [tuple(int(n) for n in f) for f in (s.params["window_strides"], low, high, *dilations)]
    found = []
    for axis in range(rank):
        window = Window(*((f[axis],) for f in fields))
        if (counts[axis], *window) != (1, (1,), (0,), (0,), (1,), (1,)):
            found.append(line(axis, shape[axis], counts[axis], window))
    return found


@rule("reduce_window_sum")
def reduce_window_sum(s: Site, x: Value) -> Value:
    """Axis by axis.  Costs nothing."""
    for windows in reversed(_lines(s, x.shape)):
        x = s.b.emit("sum", unfold(s.b, x, windows), axes=(0,))
    return x


# ---- extremes --------------------------------------------------------------------------------------------------------
class Pooled(NamedTuple):
    """The maxima of the operand without what does not change an order: whether it is rectified, a truncation by `bits`,
    and what is the same for all entries of a window (a bias), at the windows' places.
    """

    rectified: bool
    bits: int
    offset: Value | None
    pool: Pool

    def largest(self, s: Site) -> Value:
        """Of the operand before it was rectified."""
        found = self.pool.largest
        if self.offset is not None:
            found = s.b.add(found, self.offset)
        return s.b.emit("trunc", found, by=self.bits) if self.bits else found


def _pooled(s: Site, x: Operand) -> Pooled:
    """How the extremes of x are found; asked again by a gradient, it is the same ops."""
    if not isinstance(x, Value):
        s.refuse("a secret gradient of the extremes of known values is not supported")
    lines = []
    for windows in _lines(s, x.shape):
        filled = windows.filled()
        if filled is None:
            s.refuse("a window lies in the padding alone", "pad less, or let the windows move in smaller steps")
        lines.append(filled)
    inner = _unrectified(s, x)
    plain = x if inner is None else inner
    source, bits = untruncated(s.b, plain, DEEP) or (plain, 0)
    if source.frac > most_frac(s.b, s.b.op(plain)):  # two of them are to be compared with each other
        source, bits = plain, 0
    source, offset = _without_offset(s, source, lines)
    return Pooled(inner is not None, bits, offset, pool(s.b, source, lines, bits))


def _without_offset(s: Site, x: Value, lines: list[Line]) -> tuple[Value, Value | None]:
    """x = y + c where c does not change within windows: y, and c at their places."""
    places = {n.axis: n.places for n in lines}
    for i in (0, 1) if s.b.op(x).name == "add" else ():
        wide, rest = s.b.op(argument(s.b, x, i)), argument(s.b, x, 1 - i)
        if wide.name != "broadcast" or rest.public:
            continue
        narrow, dims = Value(wide.args[0], s.b.ops[wide.args[0]].type), wide.integers("dims")
        if all(n == 1 or d not in places for n, d in zip(narrow.shape, dims, strict=True)):
            shape = tuple(places.get(axis, n) for axis, n in enumerate(x.shape))
            return rest, s.b.emit("broadcast", narrow, shape=shape, dims=dims)
    return x, None


def _unrectified(s: Site, x: Value) -> Value | None:
    """y, if x is max(y, 0)."""
    op = s.b.op(x)
    if op.name != "select" or op.integer("keep") != 1:
        return None
    y = argument(s.b, x, 1)
    return y if argument(s.b, x) == logic.less(s, 0.0, y) else None


def _rectified(s: Site, largest: Value, x: Value) -> Value:
    """x where the largest is above 0."""
    return s.b.keep(logic.less(s, 0.0, largest), x, 1)


@rule("reduce_window_max", "reduce_window_min")
def reduce_window_max(s: Site, x: Value) -> Value:
    downwards, (low, high) = s.name.endswith("min"), range_of(s.b, x)
    found = _pooled(s, s.b.emit("neg", x) if downwards else x)
    largest = found.largest(s)
    if found.rectified:
        largest = _rectified(s, largest, largest)
    return note(s.b, s.b.emit("neg", largest) if downwards else largest, low, high)


def _selected(s: Site, x: Operand) -> Pooled:
    """The maxima, or minima, that a derivative asks for."""
    return _pooled(s, s.b.emit("neg", x) if s.params["select_prim"].name == "le" and isinstance(x, Value) else x)


@rule("select_and_scatter_add")
def select_and_scatter_add(s: Site, source: Operand, x: Operand) -> Value:
    """The gradient of a maximum goes to the first largest entry of each window.  Noted beside it: what is left of it
    where rectified entries are above 0, which is what the gradient of relu asks for next.
    """
    found, g = _selected(s, x), s.value(source)
    result = found.pool.back(s.b, g)
    if not found.rectified:
        return result
    assert isinstance(x, Value)
    kept = found.pool.back(s.b, _rectified(s, found.largest(s), g))
    return s.note(result, "kept", argument(s.b, x), kept)


@rule("select_and_gather_add")
def select_and_gather_add(s: Site, tangents: Operand, x: Operand) -> Value:
    """The tangent at the first largest entry of each window."""
    return _selected(s, x).pool.pick(s.b, s.value(tangents))
