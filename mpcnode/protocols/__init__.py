"""Protocols: how parties compute on shares.  One file each, all behind `Protocol`, all before the same conformance
suite.

A sharing is an array whose first axis is the parts that this party holds, so linear and structural ops are one numpy
line for every protocol.  A sharing is never changed once it is made.
"""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np

from mpcnode.graph import TOP, Kind, Op, Type
from mpcnode.party import Place
from mpcnode.rounds import Array

Sharing: TypeAlias = Array


class Cost(NamedTuple):
    """What one execution of an op costs.  Declared beside the kernels; the conformance suite holds it to the
    simulator's counters.
    """

    rounds: int = 0
    swap_bytes: int = 0  # that every evaluator sends to every other evaluator
    deal_bytes: int = 0  # that the helper deals, over all its links
    owner_bytes: int = 0  # that the owner of an input sends, over all its links

    def __add__(self, other: tuple[object, ...]) -> Cost:
        """Of two ops one after the other."""
        assert isinstance(other, Cost)
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> Cost:
        return Cost(*(count * a for a in self))


class Accumulate(typing.Protocol):
    def __call__(self, out: Array, x: Array, y: Array, /, *, negate: bool) -> None: ...


class Bilinear(NamedTuple):
    """A map of two ring arrays that is linear in each, and how it is cut into tiles: entries of `axis` (counted from
    the end) of the result need the same entries of that axis of x, and all of y.  Wanted is 1 or 2 `times` the map.
    """

    shape: tuple[int, ...]  # of the result
    axis: int
    least: int  # entries of a tile, at least: each tile goes over y anew
    times: int
    product: Callable[[Array, Array], Array]
    accumulate: Accumulate  # out += product(x, y), or -= it


class Protocol(ABC):
    """The ops that need a protocol.  x, y, w: sharings of arith values (uint64), b: of bits (uint8, 0 and 1); shapes
    as in the graph, after the leading axis of parts.  Coroutines stop for rounds (see rounds.py); the others are
    local.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    threat_model: ClassVar[str]  # one sentence, shown with every run
    helpers: ClassVar[int]  # ranks below this number are helpers, the others evaluators

    @abstractmethod
    def parts(self, p: Place, kind: Kind = Kind.ARITH) -> int:
        """Length of the leading axis of this party's sharings of arith values or of bits."""

    @abstractmethod
    def check_size(self, size: int) -> None:
        """Raise ValueError when that many parties cannot run this protocol."""

    def period(self, size: int) -> int:
        """Iterations of a loop that are so many apart do the same, but for fresh randomness."""
        return 1

    @abstractmethod
    def add_public(self, p: Place, x: Sharing, c: Array) -> Sharing:
        """x + c for ring elements (uint64), x ^ c for bits (uint8)."""

    @abstractmethod
    async def share(self, p: Place, owner: int, shape: tuple[int, ...], value: Array | None) -> Sharing:
        """Share the owner's array of ring elements, uint64; `value` is None at every other party.  An owner whose rank
        is `p.size` or more is a guest: it brings the value and computes nothing, so what it gets back is no sharing.
        """

    @abstractmethod
    async def open(self, p: Place, x: Sharing) -> Array | None:
        """Every evaluator learns x (the helper gets None)."""

    @abstractmethod
    def reveal(self, p: Place, x: Sharing) -> Array | None:
        """This evaluator's additive (bits: xor) part of x, for a recipient outside of the protocol; parts hold
        nothing but x.
        """

    @abstractmethod
    async def mul(self, p: Place, x: Sharing, y: Sharing, by: int = 0) -> Sharing:
        """x·y, elementwise; of x truncated by so many bits."""

    @abstractmethod
    async def square(self, p: Place, x: Sharing, by: int) -> Sharing:
        """x², elementwise, of x truncated by so many bits."""

    @abstractmethod
    async def bilinear(self, p: Place, f: Bilinear, x: Sharing, y: Sharing) -> Sharing:
        """f.times·f(x, y): a matrix product, a convolution, or twice that."""

    @abstractmethod
    async def and_(self, p: Place, *bits: Sharing) -> Sharing:
        """The product of 2 to 8 bits."""

    @abstractmethod
    async def trunc(self, p: Place, x: Sharing, by: int, times: int = 1) -> Sharing:
        """x·times / 2^by for |x| < 2^62, one of the two neighbouring integers; times <= 2^by, and below 2^31."""

    @abstractmethod
    async def sign(self, p: Place, x: Sharing, lo: int, top: int = TOP, cuts: tuple[int, ...] = ()) -> Sharing:
        """The bit x < 0 for |x| < 2^top - 2^lo; within 2^lo of zero it may be either.  With `cuts`, that of x - cut for
        each of them, along a new first axis of the shape.
        """

    @abstractmethod
    async def onehot(self, p: Place, x: Sharing, size: int) -> Sharing:
        """The bits x = j mod 2^w for j < size, along a new first axis of the shape; 2^w is the least power of two that
        is not below size.
        """

    @abstractmethod
    async def select(
        self, p: Place, b: Sharing, w: Sharing, keep: int, by: int = 0, axes: tuple[int, ...] = ()
    ) -> Sharing:
        """w, truncated by so many bits, where b = keep, else 0; summed up over these axes of its shape."""

    @abstractmethod
    async def inject(self, p: Place, b: Sharing) -> Sharing:
        """b as a ring element."""

    @abstractmethod
    def cost(self, op: Op, args: Sequence[Type], size: int) -> Cost:
        """Of one execution of `op` (not a loop) among `size` parties."""

    def is_helper(self, rank: int) -> bool:
        return rank < self.helpers

    def combine(self, parts: Sequence[Array]) -> Array:
        """What a recipient computes from the evaluators' parts of an output."""
        total = parts[0].copy()
        for part in parts[1:]:
            if total.dtype == np.uint8:
                total ^= part
            else:
                total += part
        return total


def get(name: str) -> Protocol:
    """The protocol of that name.  Raises ValueError that lists the names there are."""
    from mpcnode.protocols.cleartext import Cleartext
    from mpcnode.protocols.masked import Masked

    known: dict[str, type[Protocol]] = {Masked.name: Masked, Cleartext.name: Cleartext}
    if name not in known:
        raise ValueError(f"there is no protocol {name!r}; there are {', '.join(sorted(known))}")
    return known[name]()
