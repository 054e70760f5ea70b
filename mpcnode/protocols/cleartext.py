"""No secrets: every party holds every value.  The reference that every other protocol is tested against; not for real
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mpcnode.graph import TOP, Kind, Op, Type
from mpcnode.kernels import reference
from mpcnode.party import Place
from mpcnode.protocols import Bilinear, Cost, Protocol, Sharing
from mpcnode.rounds import Array, exchange


class Cleartext(Protocol):
    """A sharing is the value itself, under a leading axis of length 1."""

    name: ClassVar[str] = "cleartext"
    paper: ClassVar[str] = "none"
    threat_model: ClassVar[str] = "none: every party sees every owner's data in clear; for tests only"
    helpers: ClassVar[int] = 0

    def parts(self, p: Place, kind: Kind = Kind.ARITH) -> int:
        return 1

    def check_size(self, size: int) -> None:
        if size < 1:
            raise ValueError("cleartext wants a party")

    def add_public(self, p: Place, x: Sharing, c: Array) -> Sharing:
        return x ^ c if x.dtype == np.uint8 else x + c

    async def share(self, p: Place, owner: int, shape: tuple[int, ...], value: Array | None) -> Sharing:
        """1 round: the owner sends the value to everyone."""
        if p.rank == owner:
            assert value is not None
            await exchange([p.to(peer, value) for peer in range(p.size) if peer != owner])
            return value[None]
        [value] = await exchange((), [p.due(owner, np.uint64, shape)])
        return value[None]

    async def open(self, p: Place, x: Sharing) -> Array:
        value: Array = x[0]
        return value

    def reveal(self, p: Place, x: Sharing) -> Array:
        return x[0] if p.rank == 0 else np.zeros_like(x[0])

    async def mul(self, p: Place, x: Sharing, y: Sharing, by: int = 0) -> Sharing:
        return (await self.trunc(p, x, by) if by else x) * y

    async def square(self, p: Place, x: Sharing, by: int) -> Sharing:
        t = await self.trunc(p, x, by)
        return t * t

    async def bilinear(self, p: Place, f: Bilinear, x: Sharing, y: Sharing) -> Sharing:
        found = f.product(x[0], y[0])[None]
        return found if f.times == 1 else np.multiply(found, np.uint64(f.times))

    async def and_(self, p: Place, *bits: Sharing) -> Sharing:
        product: Sharing = np.bitwise_and.reduce(bits)
        return product

    async def trunc(self, p: Place, x: Sharing, by: int, times: int = 1) -> Sharing:
        """To the nearest, halves up."""
        if times == 1:
            return ((x.astype(np.int64) + np.int64(1 << (by - 1))) >> np.int64(by)).astype(np.uint64)
        halves = reference.scaled(x + np.uint64(1 << 62), times, by - 1) if times < 1 << by else None
        if halves is None:
            return np.array(x)
        return ((halves + np.uint64(1)) >> np.uint64(1)) - np.uint64(times << (62 - by))

    async def sign(self, p: Place, x: Sharing, lo: int, top: int = TOP, cuts: tuple[int, ...] = ()) -> Sharing:
        if cuts:
            x = x[:, None] - np.array(cuts, np.int64).view(np.uint64).reshape(-1, *(1 for _ in x.shape[1:]))
        return (x >> np.uint64(top)).astype(np.uint8) & np.uint8(1)

    async def onehot(self, p: Place, x: Sharing, size: int) -> Sharing:
        places = np.arange(size, dtype=np.uint64).reshape(size, *(1 for _ in x.shape[1:]))
        bits: Sharing = (x[:, None] & np.uint64((1 << (size - 1).bit_length()) - 1) == places).astype(np.uint8)
        return bits

    async def select(
        self, p: Place, b: Sharing, w: Sharing, keep: int, by: int = 0, axes: tuple[int, ...] = ()
    ) -> Sharing:
        kept = np.where(b == keep, await self.trunc(p, w, by) if by else w, np.uint64(0))
        return np.add.reduce(kept, axis=tuple(a + 1 for a in axes), dtype=np.uint64) if axes else kept

    async def inject(self, p: Place, b: Sharing) -> Sharing:
        return b.astype(np.uint64)

    def cost(self, op: Op, args: Sequence[Type], size: int) -> Cost:
        return Cost(rounds=1, owner_bytes=8 * op.type.size * (size - 1)) if op.name == "input" else Cost()
