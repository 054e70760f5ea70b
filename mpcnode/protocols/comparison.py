"""The sign of a masked value: a millionaires' tree, dealt instead of by oblivious transfer.

After CrypTFlow2 (Rathee et al., CCS 2020, ePrint 2020/1002, section 3.1): [C < ρ] and [C = ρ] on chunks of 4 bits are the leaves, and
neighbouring chunks merge by lt = lt_hi ^ eq_hi·lt_lo, eq = eq_hi·eq_lo.  Where we depart from it: C = m is public to the evaluators and
ρ = λ is known to the helper, so a leaf needs no transfer but xor shares of the monomials of the chunk's bits of ρ; and up to 4 nodes
merge in one gate, expanded over m ^ λ as in ABY2.0's multi-input AND.  All of it is dealt in one message ahead of the computation.

Everything here is bit planes, uint64[rows, words]; the nodes of a level are rows lt_0 .. lt_{c-1}, eq_1 .. eq_{c-1} (nobody asks the
lowest node's eq).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mpcnode import kernels
from mpcnode.kernels import CHUNK, U64
from mpcnode.party import Place
from mpcnode.protocols.dealing import FIRST, HELPER, LEVEL, fresh, give, swap, take, total
from mpcnode.rounds import Array, exchange

TOP = 63  # the bit of the sign


class Gate(NamedTuple):
    """Nodes low .. low + fan - 1 of a level become one of the next; a single one is passed on."""

    low: int
    fan: int

    @property
    def with_eq(self) -> bool:
        return self.low > 0

    @property
    def dealt(self) -> int:
        """Planes that the helper deals."""
        return len(kernels.gate_products(self.fan, self.with_eq)) if self.fan > 1 else 0

    def rows(self, nodes: int) -> list[int]:
        """Where a level of that many nodes holds the gate's inputs lt_low .., eq_low ..; where nobody asks an eq, any row."""
        inside = range(self.low, self.low + self.fan)
        return [*inside, *(nodes - 1 + max(i, 1) for i in inside)] if nodes > 1 else [0, 0]


def _gates(nodes: int) -> list[Gate]:
    return [Gate(low, min(CHUNK, nodes - low)) for low in range(0, nodes, CHUNK)]


@lru_cache(maxsize=64)
def _levels(bits: int) -> tuple[tuple[int, tuple[Gate, ...]], ...]:
    """For each level above the leaves: how many nodes it merges, and by which gates."""
    levels, nodes = [], len(kernels.chunks(bits))
    while nodes > 1:
        gates = _gates(nodes)
        levels.append((nodes, tuple(gates)))
        nodes = len(gates)
    return tuple(levels)


def _width(nodes: int) -> int:
    """Rows of a level."""
    return 2 * nodes - 1


def sign_cost(lo: int) -> tuple[int, int, int]:
    """Rounds, planes that each evaluator opens, planes that the helper deals."""
    bits = TOP - lo
    levels = _levels(bits)
    opened = _width(len(kernels.chunks(bits)))
    for _, gates in levels:
        opened += sum(1 + g.with_eq for g in gates if g.fan > 1)
    dealt = kernels.leaf_rows(bits) + sum(g.dealt for _, gates in levels for g in gates) + 1
    return 1 + len(levels), opened, dealt


def _merge(nodes: int, gates: tuple[Gate, ...], level: U64, outputs: list[U64]) -> U64:
    """The next level: each gate's output rows from `outputs`, in order, single nodes from this `level`."""
    found = iter(outputs)
    pairs = [next(found) if g.fan > 1 else level[g.rows(nodes)] for g in gates]
    return np.stack([*(pair[0] for pair in pairs), *(pair[1] for pair in pairs[1:])])


def _split(gates: tuple[Gate, ...], rows: U64) -> list[U64]:
    """Rows of all the gates that open something -> rows a gate."""
    cuts = np.cumsum([1 + g.with_eq for g in gates if g.fan > 1])[:-1]
    return list(np.split(rows, cuts))


def _masks(p: Place, bits: int, words: int) -> Iterator[U64]:
    """What this party knows of the masks of everything that is opened: the leaves', then each level's gate outputs'."""
    yield fresh(p, np.empty((_width(len(kernels.chunks(bits))), words), np.uint64), LEVEL, xor=True)
    for i, (_, gates) in enumerate(_levels(bits)):
        opened = sum(1 + g.with_eq for g in gates if g.fan > 1)
        yield fresh(p, np.empty((opened, words), np.uint64), LEVEL + 1 + i, xor=True)


async def sign_planes(p: Place, tile: int, x: Array, lo: int) -> list[U64]:
    """One tile.  x: uint64[elements], m at an evaluator, λ at the helper.  Returns the planes of the sign's parts."""
    bits = TOP - lo
    planes = kernels.to_planes(x, lo, TOP + 1)
    number, top = planes[:bits], planes[bits]
    if p.rank == HELPER:
        return [await _deal_sign(p, tile, number, top)]
    return await _evaluate_sign(p, tile, number, top)


async def _deal_sign(p: Place, tile: int, rho: U64, top: U64) -> U64:
    """The helper deals the leaves' monomials, every gate's products and λ's top bit; it ends as many rounds as the evaluators."""
    bits, words = rho.shape
    masks = _masks(p, bits, words)
    level = next(masks)
    dealt = [kernels.leaf_deal(rho)]
    for nodes, gates in _levels(bits):
        dealt += [kernels.gate_deal(level[g.rows(nodes)], with_eq=g.with_eq) for g in gates if g.fan > 1]
        level = _merge(nodes, gates, level, _split(gates, next(masks)))
    await give(p, tile, [np.concatenate([*dealt, top[None]])], xor=True)
    for _ in range(1 + len(_levels(bits))):
        await exchange()
    return level[0]


async def _evaluate_sign(p: Place, tile: int, c: U64, top: U64) -> list[U64]:
    """Leaves, then a gate level a round; the last opening carries λ's top bit, and m's is added in the open."""
    bits, words = c.shape
    first, levels = p.rank == FIRST, _levels(bits)
    [dealt] = await take(p, tile, [(np.uint64, (sign_cost(TOP - bits)[2], words))])
    leaves, at = dealt[: kernels.leaf_rows(bits)], kernels.leaf_rows(bits)
    masks = _masks(p, bits, words)
    mask = next(masks)
    lt, eq = kernels.leaf_share(c, leaves, first=first)
    share = np.concatenate([lt, eq[1:]]) ^ mask
    if not levels:
        share ^= dealt[-1]
    m = total(share, await swap(p, share), xor=True)
    for i, (nodes, gates) in enumerate(levels):
        outputs = []
        for g in gates:
            if g.fan > 1:
                rows = g.rows(nodes)
                outputs.append(kernels.gate_share(m[rows], mask[rows], dealt[at : at + g.dealt], with_eq=g.with_eq, first=first))
                at += g.dealt
        fresh_rows = next(masks)
        share = np.concatenate(outputs) ^ fresh_rows
        if i == len(levels) - 1:
            share ^= dealt[-1]
        opened = total(share, await swap(p, share), xor=True)
        mask = _merge(nodes, gates, mask, _split(gates, fresh_rows))
        m = _merge(nodes, gates, m, _split(gates, opened))
    return [m[0] ^ top, mask[0]]
