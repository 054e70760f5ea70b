"""Products of what is truncated on the way: one round for a truncation and the product behind it.

Of x = m - λ with |x| < 2^62, the truncation by f bits is t = A - R + W·S (see `Masked.trunc`).  The evaluators know

    A = (c' >> f) - 2^(62-f)   and   W = (1 - (c' >> 63))·2^(64-f)   with c' = m + 2^62,

and the helper R = λ >> f and S = λ >> 63.  So a product of t is a polynomial in what the helper knows, with
coefficients that the evaluators know: it deals the monomials, and t itself is never opened.  S and its products are
multiplied with W alone, so they count mod 2^f and travel in the narrowest dtype that holds that (`wrap_dtype`).  The
rounding is that of `trunc`, at the same threshold: the product is that of what `trunc` would have made of x.  Not in
the papers that masked.py names.

Each function is one tile: at an evaluator its message, with the fresh mask `mask`; the helper deals, and has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpcnode import kernels
from mpcnode.party import Place
from mpcnode.protocols import Sharing
from mpcnode.protocols.dealing import FIRST, HELPER, WORD, give, take
from mpcnode.rounds import Array

_WIDTHS = tuple(map(np.dtype, (np.uint16, np.uint16, np.uint32, np.uint32)))  # by (by - 1) // 8


def wrap_dtype(by: int) -> np.dtype[Any]:
    """The narrowest dtype in which the wrap bit of a truncation may be shared: it counts mod 2^by."""
    return _WIDTHS[(by - 1) >> 3] if by <= 32 else WORD


def dealt_bytes(name: str, by: int) -> int:
    """That the helper deals an element of such a product."""
    whole = {"trunc": 8, "select": 24, "mul": 16, "square": 16}[name]
    return whole + wrap_dtype(by).itemsize * (1 if name == "trunc" else 2)


async def select(p: Place, k: int, m: Array, x: Sharing, mask: Array, by: int) -> Array | None:
    """[R], [S], [β], [β·R], [β·S] for b = m_b ^ β: b·t = m_b·(A - R + W·S) + (1 - 2m_b)·(β·A - β·R + W·β·S).  m: m_b,
    and β at the helper, [terms, elements] as x; terms are summed up under one mask.
    """
    wrap = wrap_dtype(by)
    if p.rank == HELPER:
        await give(p, k, kernels.select_trunc_deal(m, x[0], by, wrap))
        return None
    word, narrow = (WORD, m.shape), (wrap, m.shape)
    t, b, beta, beta_t, beta_b = await take(p, k, [word, narrow, word, word, narrow])
    return kernels.select_trunc_share(m, x[0], t, b, beta, beta_t, beta_b, mask, by, first=p.rank == FIRST)


async def mul(p: Place, k: int, x: Sharing, y: Sharing, mask: Array, by: int) -> Array | None:
    """[R], [S], [R·λy], [S·λy]: t·y = m_y·(A - R + W·S) - A·λy + R·λy - W·S·λy."""
    wrap = wrap_dtype(by)
    if p.rank == HELPER:
        await give(p, k, kernels.mul_trunc_deal(x[0], y[0], by, wrap))
        return None
    word, narrow = (WORD, mask.shape), (wrap, mask.shape)
    t, b, t_ly, b_ly = await take(p, k, [word, narrow, word, narrow])
    return kernels.mul_trunc_share(x[0], y[0], y[1], t, b, t_ly, b_ly, mask, by, first=p.rank == FIRST)


async def square(p: Place, k: int, x: Sharing, mask: Array, by: int) -> Array | None:
    """[R], [S], [R²], [R·S]: t² = A² - 2·A·R + R² + (2·A·W + W²)·S - 2·W·R·S, as S² = S."""
    wrap = wrap_dtype(by)
    if p.rank == HELPER:
        await give(p, k, kernels.square_trunc_deal(x[0], by, wrap))
        return None
    word, narrow = (WORD, mask.shape), (wrap, mask.shape)
    t, b, tt, bt = await take(p, k, [word, narrow, word, narrow])
    return kernels.square_trunc_share(x[0], t, b, tt, bt, mask, by, first=p.rank == FIRST)
