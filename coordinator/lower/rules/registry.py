"""What a rule sees: the equation that it lowers (`Site`) and its operands, secret (`Value`) or known (`Public`).

A rule is one function per jax primitive: `@rule("tanh") def tanh(s: Site, x: Operand) -> Operand`.  It is called only
when an operand is secret.  Secret floats are arith values with the job's fraction bits, secret integers are arith
values without, secret booleans are bits; a rule returns its result in the same form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from coordinator.lower.builder import Builder, Value
from coordinator.lower.points import Seen
from mpcnode.errors import MpcError
from mpcnode.ring import FRAC, LIMIT_BITS

Numbers: TypeAlias = npt.NDArray[Any]
ENDLESS = 2.0**64  # known numbers from here on stand for infinity,
FAR = 2.0**20  # and this for them, in sums and choices
FACTOR, FACTOR_LEAST = 20, 14  # bits of the smallest and largest of known factors, where the product's room is known


class CompileError(MpcError):
    """A program that cannot be computed on secret data: the message names the user's line, what stands there, and the
    way around it if there is one.
    """


class Public(NamedTuple):
    """Numbers that do not depend on a secret, evaluated at compile time.

    Inside loops they may differ from step to step: the leading axes of `array` are the steps of the loops in `over`
    (numbered from 1, outermost first).  kind: f(loat), i(nteger), b(oolean), or k(ey of a random generator).
    """

    array: Any
    over: tuple[int, ...]
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[len(self.over) :])

    def compact(self) -> Public:
        """The same numbers with axes of length 1 where nothing changes along an axis, and without the loops over which
        nothing changes.
        """
        array, over = np.asarray(self.array), list(self.over)
        for axis in range(len(self.over), array.ndim):
            if array.shape[axis] > 1 and _constant(array, axis):
                array = array.take([0], axis)
        for axis in reversed(range(len(self.over))):
            if _constant(array, axis):
                array = array.take(0, axis)
                del over[axis]
        return Public(array, tuple(over), self.kind)

    @property
    def scalar(self) -> float | None:
        """The number that stands in every place and every step, or None."""
        few = self.compact().array
        return float(few.reshape(-1)[0]) if few.size == 1 else None


Operand: TypeAlias = Value | Public


def _constant(array: Numbers, axis: int) -> bool:
    """Does nothing change along the axis?  (An axis that numpy only pretends to have costs nothing to see.)"""
    if array.strides[axis] == 0 or array.shape[axis] <= 1:
        return True
    first = array.take([0], axis)
    if not np.array_equal(first, array.take([1], axis), equal_nan=array.dtype.kind == "f"):
        return False
    return bool(np.all((array == first) | ((array != array) & (first != first))))  # noqa: PLR0124  NaN is itself here


class Place(Protocol):
    """The graph under construction, as rules need it (a scope of the front end)."""

    builder: Builder
    notes: dict[Value, tuple[Any, ...]]
    doubts: dict[Value, Any]
    absorbed: list[tuple[str, str]]

    def place(self, ring: npt.NDArray[np.int64], frac: int, over: tuple[int, ...]) -> Value:
        """Known ring elements as a public value: a constant, or what a loop scans."""


class Site(NamedTuple):
    """One equation: where it stands, its parameters, and the shape and kind (f, i, b) of each result.

    positions: for gather and scatter, see `rules.indexing`.  notes: what rules found out about values, for later rules.
    """

    name: str
    params: Mapping[str, Any]
    shapes: Sequence[tuple[int, ...]]
    kinds: Sequence[str]
    where: str
    scope: Place
    positions: Callable[..., Public]
    seen: Sequence[Seen | None] = ()  # what a calibration met of the operands ...
    made: Seen | None = None  # ... and of the result

    @property
    def b(self) -> Builder:
        return self.scope.builder

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    @property
    def kind(self) -> str:
        return self.kinds[0]

    # ---- notes -----------------------------------------------------------------------------------------------------
    def note(self, value: Value, *what: Any) -> Value:
        self.scope.notes[value] = what
        return value

    def noted(self, value: Operand, what: str) -> tuple[Any, ...] | None:
        """What was noted of the value under that word."""
        found = self.scope.notes.get(value) if isinstance(value, Value) else None
        return found[1:] if found and found[0] == what else None

    # ---- known numbers as values -----------------------------------------------------------------------------------
    def frac_of(self, kind: str) -> int:
        return self.b.frac if kind == "f" else 0

    def value(self, x: Operand, shape: tuple[int, ...] | None = None) -> Value:
        """The operand as a value in the form of its kind, broadcast to `shape` (default: its own)."""
        if isinstance(x, Public):
            few = x.compact()
            raw = self.encode(few, self.frac_of(x.kind))
            return self._spread(few, raw, self.frac_of(x.kind), x.shape if shape is None else shape)
        return x if shape is None else self.b.spread(x, shape)

    def both(self, x: Operand, y: Operand) -> tuple[Value, Value]:
        """Two operands as values of the result's shape (a scalar stands for an array of equals)."""
        return self.value(x, self.shape), self.value(y, self.shape)

    def factor(self, x: Public, shape: tuple[int, ...], other: Operand | None = None, bits: int | None = None) -> Value:
        """Known floats as one factor of a product, with `bits` fraction bits or as many as they need (see
        `factor_bits`).
        """
        few = x.compact()
        self.check(few)
        frac = self.bits_of(few.array, other) if bits is None else bits
        raw = np.asarray(np.rint(few.array.astype(np.float64) * 2.0**frac), np.int64)
        return self._spread(few, raw, frac, shape)

    def bits_of(self, numbers: Numbers, other: Operand | None) -> int:
        """Fraction bits for known factors; where the room of their product with `other` is known, all of it that they
        can use.
        """
        if not self.b.most:
            return factor_bits(numbers, self.b.frac)
        if not isinstance(other, Value):
            return factor_bits(numbers, FRAC)
        a = np.abs(numbers[numbers != 0].astype(np.float64))
        if not a.size:
            return 0
        least, largest = (int(math.frexp(float(v))[1]) for v in (a.min(), a.max()))
        useful = min(FACTOR - least, LIMIT_BITS - 1 - largest)
        bits = max(min(useful, self.b.most - other.frac), FACTOR_LEAST - largest, 0)
        return min(bits, factor_bits(numbers, max(bits, 1)))

    def numbers(self, array: Numbers, over: tuple[int, ...]) -> Value:
        """Known integers as a public value, without the loops over which nothing changes."""
        array = array.astype(np.int64)
        for axis in reversed(range(len(over))):
            if _constant(array, axis):
                array, over = np.asarray(array.take(0, axis)), over[:axis] + over[axis + 1 :]
        return self.scope.place(np.asarray(array, np.int64, order="C"), 0, over)

    def encode(self, x: Public, frac: int) -> npt.NDArray[np.int64]:
        """Known numbers as ring elements."""
        if x.kind == "k":
            self.refuse("a key of a random generator meets secret data")
        if frac == 0:
            return np.asarray(x.array).astype(np.int64)
        self.check(x)
        scaled = np.rint(x.array.astype(np.float64) * 2.0**frac)
        if np.abs(scaled).max(initial=0.0) >= 2.0**LIMIT_BITS:
            self.refuse(f"a constant is not below 2^{LIMIT_BITS - frac} in absolute value")
        if scaled.size == 1:  # a guard such as 1e-12 must not become 0
            scaled = np.where((scaled == 0) & (x.array != 0), np.sign(x.array), scaled)
        return np.asarray(scaled, np.int64)

    def bounded(self, x: Operand) -> Operand:
        """Known floats with FAR for what is infinite, or too large for any ring.  Who masks logits with -jnp.inf or
        jnp.finfo(...).min only means that they are never the largest.
        """
        if not isinstance(x, Public) or x.kind != "f":
            return x
        array = np.asarray(x.array)
        endless = np.abs(array) >= ENDLESS
        return x._replace(array=np.where(endless, np.copysign(FAR, array), array)) if endless.any() else x

    def check(self, x: Public) -> None:
        """Refuse what is no number."""
        if not np.isfinite(x.array).all():
            self.refuse("a constant is infinite or NaN", "use a large number such as -1e4 in the place of infinity")

    def _spread(self, few: Public, raw: npt.NDArray[np.int64], frac: int, shape: tuple[int, ...]) -> Value:
        steps = raw.shape[: len(few.over)]
        if raw.size == np.prod(steps, dtype=int):
            raw = raw.reshape(steps)
        return self.b.spread(self.scope.place(raw, frac, few.over), shape)

    # ---- refusals --------------------------------------------------------------------------------------------------
    def refuse(self, why: str, instead: str = "") -> NoReturn:
        """Raise CompileError for this equation."""
        refuse(self.where, self.name, why, instead)


def refuse(where: str, primitive: str, why: str, instead: str = "") -> NoReturn:
    place = f"{where}: " if where else ""
    raise CompileError(f"{place}primitive '{primitive}': {why}" + (f"; {instead}" if instead else ""))


def factor_bits(numbers: Numbers, frac: int) -> int:
    """Fraction bits for known factors: as few as hold them exactly, else `frac`, and up to 8 more for small ones (they
    leave the product as much room), and fewer where one is above 64.
    """
    a = numbers.astype(np.float64)
    for bits in range(frac + 1):
        scaled = a * 2.0**bits
        if np.array_equal(scaled, np.rint(scaled)):
            return bits
    top = int(np.floor(np.log2(np.abs(a).max()))) + 1  # all are below 2^top
    return max(0, frac + min(8, max(0, -top)) - max(0, top - 6))


Function: TypeAlias = Callable[[Builder, Value], Value]


def approximate(s: Site, function: Callable[..., Value], *xs: Any) -> Value:
    """function(builder, *xs) at the binary point that approximations are made for, whatever the job's is.  The result
    has that of the job; or, where rooms are known, whatever it was made with.
    """
    b, own = s.b, s.b.frac
    aligned = [b.align(x, FRAC) if isinstance(x, Value) and x.frac == own != FRAC else x for x in xs]
    with b.aiming(FRAC):
        result = function(b, *aligned)
    return b.align(result, own) if result.frac == FRAC != own and not b.most else result


def exact(s: Site, function: Callable[..., Value], *xs: Any) -> Value:
    """function(builder, *xs), which rounds nothing and so needs no binary point of its own where rooms are known."""
    return function(s.b, *xs) if s.b.most else approximate(s, function, *xs)


def pointwise(s: Site, function: Function, x: Value, *, aligned: bool = True) -> Value:
    """function(x), computed before x is broadcast.  `aligned`: as `approximate`, else x as it is."""
    op = s.b.op(x)
    if op.name in ("broadcast", "reshape"):
        inner = pointwise(s, function, Value(op.args[0], s.b.ops[op.args[0]].type), aligned=aligned)
        if op.name == "reshape":
            return s.b.reshape(inner, op.integers("shape"))
        return s.b.emit("broadcast", inner, shape=op.integers("shape"), dims=op.integers("dims"))
    return approximate(s, function, x) if aligned else function(s.b, x)


Rule: TypeAlias = Callable[..., Operand | Sequence[Operand]]
RULES: dict[str, Rule] = {}
R = TypeVar("R", bound=Rule)


def rule(*primitives: str) -> Callable[[R], R]:
    """Register the function as the rule of these primitives."""

    def register(function: R) -> R:
        RULES.update(dict.fromkeys(primitives, function))
        return function

    return register
