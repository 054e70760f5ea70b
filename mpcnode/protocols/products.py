"""Bilinear maps of masked values: what each party of masked.py adds up, and how a result is cut into tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from mpcnode import kernels
from mpcnode.party import Place
from mpcnode.protocols import Bilinear, Sharing
from mpcnode.protocols.dealing import FIRST, HELPER, TILE, total
from mpcnode.rounds import Array

# Terms of what a party adds up: the left factor, cut to a tile, and the right one.
Factors: TypeAlias = "list[tuple[Callable[[tuple[Any, ...]], Array], Array]]"


@lru_cache(maxsize=64)
def unit(evaluators: int, times: int) -> int | None:
    """c with c·n = `times` in Z_2^64 for n evaluators, None if there is none (n = 2 wants twice the product)."""
    if times == 2 and evaluators % 2 == 0:
        evaluators, times = evaluators // 2, 1
    return times * pow(evaluators, -1, 1 << 64) % (1 << 64) if evaluators % 2 else None


def whole(p: Place, f: Bilinear, x: Sharing, y: Sharing) -> Factors:
    """H: λx·λy;  E_1: mx·(my - λy_1) - λx_1·my;  the others: - mx·λy_i - λx_i·my."""

    def part(k: int) -> Callable[[tuple[Any, ...]], Array]:
        return lambda cut: x[k][cut]

    if p.rank == HELPER:
        return [(part(0), y[0] if f.times == 1 else y[0] * np.uint64(f.times))]
    minus = np.uint64(-f.times % (1 << 64))
    mine = kernels.waxpby(f.times, y[0], -f.times, y[1]) if p.rank == FIRST else y[1] * minus
    return [(part(0), mine), (part(1), y[0] * minus)]


def apart(p: Place, x: Sharing, y: Sharing, c: int) -> Factors:
    """One map an evaluator instead of two.  With d_i = λ - n·λ_i, whose sum over i is 0,

        Σ_i (mx - n·λx_i)·(my - n·λy_i) = Σ_i (x + dx_i)·(y + dy_i) = n·x·y + Σ_i dx_i·dy_i,

    so E_i computes c·(mx - n·λx_i)·(my - n·λy_i), and H deals -c·Σ_i dx_i·dy_i, which is, as d_n = - Σ_(i<n) d_i, a
    sum of n - 1 products dx_i·(dy_i + Σ_(j<n) dy_j).  For n = 2: -2c·dx_1·dy_1, and three products at all parties
    together instead of five.  Not in the papers above; what is sent is masked as it was.
    """
    n = p.size - FIRST

    def left(k: int) -> Callable[[tuple[Any, ...]], Array]:
        return lambda cut: kernels.waxpby(1, x[0][cut], -n, x[k][cut])

    if p.rank != HELPER:
        return [(left(1), kernels.waxpby(c, y[0], -n * c, y[1]))]
    if n == 2:
        return [(left(1), kernels.waxpby(-2 * c, y[0], 4 * c, y[1]))]
    others = [kernels.waxpby(-c, y[0], n * c, y[i]) for i in range(1, n)]
    together = total(others[0], others[1:])
    return [(left(i), other + together) for i, other in enumerate(others, 1)]


@lru_cache(maxsize=1024)
def axis_tiles(shape: tuple[int, ...], axis: int, least: int) -> Sequence[slice]:
    """Cuts of one axis so that a tile has about TILE elements, and not less than `least` entries."""
    length = shape[axis]
    entry_elements = max(1, math.prod(shape) // max(1, length))
    step = max(least, -(-TILE // entry_elements))  # rounded up: tiles are numbered with 16 bits
    return tuple(slice(a, min(a + step, length)) for a in range(0, length, step)) or (slice(0, 0),)
