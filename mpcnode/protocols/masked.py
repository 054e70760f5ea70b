"""Masked evaluation with a helper: n >= 2 evaluators compute on masked values, a helper deals correlated randomness
ahead of them.

Family: ASTRA (Chaudhari, Choudhury, Patra, Suresh, CCSW 2019), Trio (Harth-Kitzerow et al., ePrint 2024/386), gates
of fan-in 4 as in ABY2.0 (Patra, Schneider, Suresh, Yalame, USENIX Security 2021), generalised to n evaluators.

A value x of Z_2^64 is shared as m = x + λ, known to every evaluator, and λ = Σ λ_i, where λ_i is known to evaluator
E_i and to the helper H (from their pair key, so masks cost no message).  E_i holds the parts (m, λ_i), H the parts
(λ, λ_1, ..., λ_(n-1)).  Bits are shared likewise under xor, but H holds λ alone.  Linear ops are local on every part; a
constant touches m only.

H knows the masks and never a masked value, so it receives nothing and runs ahead.  `[v]` says: H knows v and deals
shares of it (see dealing.py).  The term in braces in a formula is E_1's alone (`first`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from mpcnode import kernels
from mpcnode.graph import TOP, Kind, Op, Type
from mpcnode.kernels import memory
from mpcnode.party import Place
from mpcnode.protocols import Bilinear, Cost, Protocol, Sharing, fused, lookup
from mpcnode.protocols import comparison as compare
from mpcnode.protocols.dealing import (
    DEALT,
    FIRST,
    HELPER,
    MASK,
    REVEAL,
    WORD,
    flat,
    fresh,
    give,
    opened,
    payee,
    renew,
    swap,
    take,
    terms,
    tiled,
    tiles,
)
from mpcnode.protocols.products import apart, axis_tiles, unit, whole
from mpcnode.rounds import Array, exchange

# An evaluator's message for a tile: the place, the tile's number, where it stands, its fresh mask; None at the helper.
Message: TypeAlias = Callable[[Place, int, slice, Array], Awaitable["Array | None"]]


class Masked(Protocol):
    """See the module's head."""

    name: ClassVar[str] = "masked"
    paper: ClassVar[str] = "ASTRA (CCSW 2019), Trio (ePrint 2024/386), ABY2.0 (USENIX Security 2021)"
    threat_model: ClassVar[str] = (
        "passive: parties follow the protocol; the helper alone learns nothing, all evaluators but one together learn "
        "nothing, and the helper together with an evaluator would learn the data"
    )
    helpers: ClassVar[int] = 1

    def parts(self, p: Place, kind: Kind = Kind.ARITH) -> int:
        """H holds the masks of single evaluators only where `apart` can ever use them."""
        if p.rank != HELPER:
            return 2
        evaluators = p.size - FIRST
        return 1 if kind is Kind.BIT or unit(evaluators, 2) is None else evaluators

    def check_size(self, size: int) -> None:
        if size < 3:
            raise ValueError(f"masked evaluation wants a helper and at least 2 evaluators, not {size} parties")

    def period(self, size: int) -> int:
        """Evaluators take turns in being dealt: see `payee`."""
        return size - FIRST

    def add_public(self, p: Place, x: Sharing, c: Array) -> Sharing:
        """Local: a constant touches m only."""
        if p.rank == HELPER:
            return x
        out = memory.copy(x)
        plus = np.bitwise_xor if x.dtype == np.uint8 else np.add
        plus(x[0], c, out[0, ...])
        return out

    async def share(self, p: Place, owner: int, shape: tuple[int, ...], value: Array | None) -> Sharing:
        """λ = λ_D alone when an evaluator D owns the value, else all λ_i; the owner sends m.  1 round."""
        if owner >= p.size:
            return await self._share_guest(p, owner, shape, value)
        out = memory.zeros((self.parts(p), *shape), WORD)
        mask = memory.zeros(shape, np.uint64)
        if owner == HELPER:
            mask = renew(p, out)
        elif p.rank == owner:
            mask = p.common(HELPER, MASK, out[1, ...])
        elif p.rank == HELPER:
            out[0] = p.common(owner, MASK, mask)
            if owner < len(out):
                out[owner] = mask
        if p.rank == owner:
            assert value is not None
            m = np.array(np.add(value, mask), order="C")
            await exchange([p.to(i, m) for i in range(FIRST, p.size) if i != owner])
            if p.rank != HELPER:
                out[0] = m
        elif p.rank == HELPER:
            await exchange()
        else:
            [out[0]] = await exchange((), [p.due(owner, np.uint64, shape)])
        return out

    async def _share_guest(self, p: Place, guest: int, shape: tuple[int, ...], value: Array | None) -> Sharing:
        """λ is the guest's and H's, from their pair key; H deals [λ], the guest sends m to every evaluator.  So no
        n - 1 evaluators together know the whole of λ, and H receives nothing.  1 round.
        """
        if p.rank == guest:
            assert value is not None
            m = np.array(np.add(value, p.common(HELPER, MASK, memory.empty(shape, np.uint64))), order="C")
            await exchange([p.to(i, m) for i in range(FIRST, p.size)])
            return m[None]
        out = memory.zeros((self.parts(p), *shape), WORD)
        if p.rank == HELPER:
            p.common(guest, MASK, out[0, ...])
            rest = memory.copy(out[0])
            await give(p, 0, [rest])
            for i in range(FIRST, len(out)):
                out[i] = rest if i == payee(p, 0) else p.common(i, DEALT, memory.empty(shape, np.uint64))
            await exchange()
        else:
            [out[1]] = await take(p, 0, [(WORD, shape)])
            [out[0]] = await exchange((), [p.due(guest, np.uint64, shape)])
        return out

    async def open(self, p: Place, x: Sharing) -> Array | None:
        """Evaluators exchange their λ_i.  1 round."""
        if p.rank == HELPER:
            await exchange()
            return None
        value = memory.copy(x[0])
        for mask in (x[1], *await swap(p, memory.copy(x[1]))):
            if x.dtype == np.uint8:
                value ^= mask
            else:
                value -= mask
        return value

    def reveal(self, p: Place, x: Sharing) -> Array | None:
        """{m} - λ_i + ζ_i with Σ ζ_i = 0 from the evaluators' pair keys: beyond their sum the parts are uniform, so a
        recipient, even one that is an evaluator itself, learns nothing that x and its own view do not imply.  Local.
        """
        if p.rank == HELPER:
            return None
        bits = x.dtype == np.uint8
        part = np.array(x[0] if p.rank == FIRST else np.zeros_like(x[1]))
        if bits:
            part ^= x[1]
        else:
            part -= x[1]
        for i in range(FIRST, p.size):
            if i == p.rank:
                continue
            zeta = p.common(i, REVEAL, memory.empty(part.shape, part.dtype))
            if bits:
                part ^= zeta & np.uint8(1)
            elif p.rank < i:
                part += zeta
            else:
                part -= zeta
        return part

    async def mul(self, p: Place, x: Sharing, y: Sharing, by: int = 0) -> Sharing:
        """[γ = λx·λy];  s_i = γ_i + λ'_i - mx·λy_i - λx_i·my {+ mx·my};  m' = Σ s_i.  1 round.  x truncated on the way:
        see fused.py.
        """
        if by:
            one, other = flat(x[:1]), flat(y[:2])
            message = lambda p, k, at, mask: fused.mul(p, k, one[:, at], other[:, at], mask, by)  # noqa: E731
            return await self._opened(p, x.shape, message)
        a, b = flat(x[:2]), flat(y[:2])
        out = memory.empty((len(x), a.shape[1]), WORD)

        async def body(p: Place, k: int, at: slice) -> None:
            mask = renew(p, out[:, at])
            if p.rank == HELPER:
                await give(p, k, [a[0, at] * b[0, at]])
                await exchange()
                return
            [gamma] = await take(p, k, [(WORD, mask.shape)])
            s = kernels.mul_share(a[0, at], a[1, at], b[0, at], b[1, at], gamma, mask, first=p.rank == FIRST)
            await opened(p, s, out[0, at])

        await tiled(p, tiles(a.shape[1]), body)
        return out.reshape(x.shape)

    async def square(self, p: Place, x: Sharing, by: int) -> Sharing:
        """See fused.py.  1 round."""
        a = flat(x[:1])
        return await self._opened(p, x.shape, lambda p, k, at, mask: fused.square(p, k, a[:, at], mask, by))

    async def _opened(
        self, p: Place, shape: tuple[int, ...], message: Message, cuts: Sequence[slice] | None = None
    ) -> Sharing:
        """What the evaluators' messages add up to, less the fresh mask in each of them, as a new sharing.  1 round."""
        out = memory.empty((shape[0], math.prod(shape[1:])), WORD)

        async def body(p: Place, k: int, at: slice) -> None:
            s = await message(p, k, at, renew(p, out[:, at]))
            if s is None:
                await exchange()
            else:
                await opened(p, s, out[0, at])

        await tiled(p, tiles(out.shape[1]) if cuts is None else cuts, body)
        return out.reshape(shape)

    async def bilinear(self, p: Place, f: Bilinear, x: Sharing, y: Sharing) -> Sharing:
        """As `mul` with any bilinear f, where one map an evaluator does not do (see `products.apart`): E_1 computes
        f(mx, my - λy_1) - f(λx_1, my), the others - f(mx, λy_i) - f(λx_i, my).  1 round.
        """
        c = unit(p.size - FIRST, f.times)
        factors = whole(p, f, x, y) if c is None else apart(p, x, y, c)
        out = memory.empty((len(x), *f.shape), WORD)
        behind = (slice(None),) * (-1 - f.axis)

        async def body(p: Place, k: int, at: slice) -> None:
            cut: tuple[Any, ...] = (..., at, *behind)
            result = out[cut]
            if result[0].flags.c_contiguous:  # it has the masks' place
                mask = renew(p, result)
            else:
                masks = memory.empty(result.shape, WORD)
                mask = renew(p, masks)
                held = slice(p.rank != HELPER, None)
                result[held] = masks[held]
            (left, right), *others = factors
            if p.rank == HELPER:
                s = f.product(left(cut), right)
            else:
                [s] = await take(p, k, [(WORD, mask.shape)])
                s += mask
                f.accumulate(s, left(cut), right, negate=False)
            for left, right in others:
                f.accumulate(s, left(cut), right, negate=False)
            if p.rank == HELPER:
                await give(p, k, [s])
                await exchange()
            else:
                await opened(p, s, result[0])

        await tiled(p, axis_tiles(f.shape, f.axis, f.least), body)
        return out

    async def and_(self, p: Place, *bits: Sharing) -> Sharing:
        """[Π_{i in S} β_i] for all sets S of two and more of the bits b_i = m_i ^ β_i: b_1···b_k = Σ_S Π_{i in S} β_i·
        Π_{i not in S} m_i over Z_2, on packed bits (ABY2.0, section 3.1.4).  1 round.
        """
        xs = [flat(b) for b in bits]
        out = memory.empty(xs[0].shape, np.uint8)

        async def body(p: Place, k: int, at: slice) -> None:
            m, *held = planes_of([x[:, at] for x in xs])
            mask = fresh(p, memory.empty(m[0].shape, m.dtype), xor=True)
            n = at.stop - at.start
            out[-1, at] = kernels.unpack_bits(mask, n)
            if p.rank == HELPER:
                await give(p, k, [kernels.and_deal(m)], xor=True)
                await exchange()
                return
            [products] = await take(p, k, [(WORD, (kernels.and_rows(len(xs)), len(mask)))])
            s = kernels.and_share(m, held[0], products, first=p.rank == FIRST) ^ mask
            out[0, at] = kernels.unpack_bits(await opened(p, s, xor=True), n)

        await tiled(p, tiles(xs[0].shape[1]), body)
        return out.reshape(bits[0].shape)

    async def trunc(self, p: Place, x: Sharing, by: int, times: int = 1) -> Sharing:
        """[t = c·r >> f], [b = c·(r >> 63)] with r = λ, c = `times`;  M = m + 2^62;  v_i = λ'_i + (1 - (M >> 63))·b_i
        mod 2^f;  m' = (c·M >> f) - c·2^(62-f) + 2^(64-f)·Σ v_i, with the mask t + 2^(64-f)·Σ λ'_i: all of the result
        but its wrap is known at either side, so nothing more is opened.  1 round.  One bit of slack: Dalskov, Escudero,
        Keller (ePrint 2019/131, section 3), with the wrap bit dealt, so that there is no rare large error; rounding
        is stochastic and unbiased.
        """
        a = flat(x[:1])
        out = memory.empty((len(x), a.shape[1]), WORD)
        wrap = fused.wrap_dtype(by)

        async def body(p: Place, k: int, at: slice) -> None:
            c, parts = a[0, at], out[:, at]
            if p.rank == HELPER:
                t, b = kernels.trunc_deal(c, by, wrap, times)
                masks = memory.empty((len(parts), *t.shape), wrap)
                renew(p, masks)
                kernels.trunc_mask(t, masks[0], by, parts[0])
                await give(p, k, [t, b], shares=parts[1:])
                for part, mask in zip(parts[1:], masks[1:], strict=True):
                    kernels.trunc_mask(part, mask, by, part)
                await exchange()
                return
            t, b = await take(p, k, [(WORD, c.shape), (wrap, c.shape)])
            mask = fresh(p, memory.empty(c.shape, wrap))
            kernels.trunc_mask(t, mask, by, parts[1])
            v = kernels.trunc_share(c, b, mask)
            kernels.trunc_open(c, await opened(p, v), by, times, parts[0])

        await tiled(p, tiles(a.shape[1]), body)
        return out.reshape(x.shape)

    async def sign(self, p: Place, x: Sharing, lo: int, top: int = TOP, cuts: tuple[int, ...] = ()) -> Sharing:
        """m_top ^ λ_top ^ [m mod 2^top < λ mod 2^top], where m_top is bit `top` of m: m - λ = x holds mod 2^(top+1)
        too; the comparison by a tree of dealt leaves and gates, or by a key: see comparison.py.  x - cut has m - cut,
        and x's λ.
        """
        a, numbers = flat(x[:1]), compare.ring_elements(cuts or (0,))
        out = memory.empty((self.parts(p, Kind.BIT), len(numbers), a.shape[1]), np.uint8)

        async def body(p: Place, k: int, at: slice) -> None:
            rows = await compare.sign_planes(p, k, a[0, at], numbers, lo, top, a.shape[1])
            for part, plane in zip(out[:, :, at], rows, strict=True):
                part[...] = kernels.unpack_bits(plane, part.size).reshape(part.shape)

        await tiled(p, compare.sign_tiles(a.shape[1], len(numbers)), body)
        return out.reshape(len(out), *([len(numbers)] if cuts else []), *x.shape[1:])

    async def onehot(self, p: Place, x: Sharing, size: int) -> Sharing:
        """[λ = j mod 2^w] for all j: see lookup.py."""
        a = flat(x[:1])
        out = memory.empty((self.parts(p, Kind.BIT), size, a.shape[1]), np.uint8)

        async def body(p: Place, k: int, at: slice) -> None:
            out[:, :, at] = await lookup.onehot(p, k, a[0, at], size)

        await tiled(p, lookup.cuts(a.shape[1], size), body)
        return out.reshape(len(out), size, *x.shape[1:])

    async def select(
        self, p: Place, b: Sharing, w: Sharing, keep: int, by: int = 0, axes: tuple[int, ...] = ()
    ) -> Sharing:
        """[β], [β·λ_w] for b = m_b ^ β;  o_i = λ'_i - m_b·λw_i + (1 - 2m_b)·(β_i·m_w - (βλ_w)_i) {+ m_b·m_w};  m' = Σ
        o_i.  1 round.  w truncated on the way: see fused.py.  A sum over axes is linear in the o_i less λ'_i: each
        evaluator adds up its own, and one λ'_i goes on top.
        """
        shape = tuple(n for i, n in enumerate(w.shape[1:]) if i not in axes) if axes else w.shape[1:]
        bits, a = terms(b[:1], axes), terms(w[:2], axes)
        flip = not keep and p.rank != HELPER

        async def message(p: Place, k: int, at: slice, mask: Array) -> Array | None:
            m, x = bits[0, :, at], a[:, :, at]
            if flip:
                m = m ^ np.uint8(1)
            if by:
                return await fused.select(p, k, m, x, mask, by)
            if p.rank == HELPER:
                beta = m.astype(np.uint64)
                await give(p, k, [beta, beta * x[0]])
                return None
            beta, beta_lw = await take(p, k, [(WORD, m.shape)] * 2)
            return kernels.select_share(m, x[0], x[1], beta, beta_lw, mask, first=p.rank == FIRST)

        return await self._opened(p, (len(w), *shape), message, tiles(a.shape[2], a.shape[1]))

    async def inject(self, p: Place, b: Sharing) -> Sharing:
        """[β] for b = m_b ^ β;  o_i = λ'_i + (1 - 2m_b)·β_i {+ m_b};  m' = Σ o_i.  1 round."""
        bits = flat(b)
        out = memory.empty((self.parts(p), bits.shape[1]), WORD)

        async def body(p: Place, k: int, at: slice) -> None:
            mask = renew(p, out[:, at])
            if p.rank == HELPER:
                await give(p, k, [bits[0, at].astype(np.uint64)])
                await exchange()
                return
            [beta] = await take(p, k, [(WORD, mask.shape)])
            o = kernels.inject_share(bits[0, at], beta, mask, first=p.rank == FIRST)
            await opened(p, o, out[0, at])

        await tiled(p, tiles(bits.shape[1]), body)
        return out.reshape(len(out), *b.shape[1:])

    def cost(self, op: Op, args: Sequence[Type], size: int) -> Cost:
        """Per element, n = 2, swap / deal bytes / rounds: mul, dot and conv 8/8/1, trunc by 18 4/12/1, sign of 45 bits
        3.8/30.6/3 (for few elements in 2 rounds or 1, see comparison.py; with several cuts, 8 more dealt for each),
        select 8/16/1, inject 8/8/1, and 1/8 and 1/8, /1; truncated by 18 on the way, mul and square 8/24/1, select
        8/32/1.  A sum of selects is swapped once, and dealt as each of them is.
        """
        n = op.type.size
        if op.name == "input":
            return Cost(
                rounds=1, owner_bytes=8 * n * (size - 2)
            )  # of an evaluator's input; a helper's goes to one party more
        if any(a.kind is Kind.PUBLIC for a in args):
            return Cost()
        match op.name:
            case "trunc" | "rescale":
                by = op.integer("by")
                return Cost(1, fused.wrap_dtype(by).itemsize * n, fused.dealt_bytes("trunc", by) * n)
            case "mul" | "select" | "square" if "by" in op.attrs:
                return Cost(1, 8 * n, fused.dealt_bytes(op.name, op.integer("by")) * args[0].size)
            case "mul" | "dot" | "conv" | "inject":
                return Cost(1, 8 * n, 8 * n)
            case "select":
                return Cost(1, 8 * n, 16 * args[0].size)
            case "and" | "or":
                planes = 8 * sum(kernels.words(at.stop - at.start) for at in tiles(n))
                return Cost(1, planes, kernels.and_rows(len(args)) * planes)
            case "onehot":
                opened, dealt = lookup.onehot_planes(args[0].size, op.integer("size"))
                return Cost(1, 8 * opened, 8 * dealt)
            case "sign":
                bits, cuts = (op.integer("lo"), op.integer("top", TOP)), len(op.integers("cuts", (0,)))
                return Cost(*compare.sign_cost(*bits, args[0].size, cuts, size - FIRST))
            case _:
                return Cost()


FEW = 4096  # bits that are copied rather than packed one by one


def planes_of(bits: Sequence[Sharing]) -> Array:
    """Sharings of n bits as planes, [parts, bits, words]."""
    if bits[0].shape[1] <= FEW:
        return kernels.pack_bits(np.stack(bits, axis=1))
    return np.stack([np.stack([kernels.pack_bits(part) for part in parts]) for parts in zip(*bits, strict=True)])
