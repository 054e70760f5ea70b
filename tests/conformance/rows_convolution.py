"""Rows of the conformance table: convolutions, held to their definition, one product after the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
from rows import Case, Ints, Shape, emit, named, public, ring, row, secret

from mpcnode.protocols.dealing import TILE
from mpcnode.window import Window


def plain(rank: int, **changes: tuple[int, ...]) -> Window:
    """Nothing padded or dilated, steps of 1."""
    return Window(*[(1,) * rank, (0,) * rank, (0,) * rank, (1,) * rank, (1,) * rank])._replace(**changes)


def convolved(x: Ints, w: Ints, window: Window) -> Ints:
    """Σ x[g, i, *at, c]·w[g, *e, c, o] over the elements e of the window and channels c, at every place; `at` is where
    the element stands, if something but a zero stands there.
    """
    space, sizes = x.shape[2:-1], w.shape[1:-2]
    out = np.zeros((*x.shape[:2], *window.places(space, sizes), w.shape[-1]), np.int64)
    for place, element in product(np.ndindex(*out.shape[2:-1]), np.ndindex(*sizes)):
        spread = [
            p * stride + e * dilation - low
            for p, e, stride, dilation, low in zip(
                place, element, window.stride, window.window_dilation, window.low, strict=True
            )
        ]
        at = [s // d for s, d in zip(spread, window.base_dilation, strict=True)]
        met = all(s % d == 0 and 0 <= a < n for s, d, a, n in zip(spread, window.base_dilation, at, space, strict=True))
        if met:
            out[(slice(None), slice(None), *place)] += x[(slice(None), slice(None), *at)] @ w[(slice(None), *element)]
    return out


MIXTURES = list(product((secret, public), repeat=2))
SHAPES: list[tuple[str, Shape, Shape, Window]] = [
    ("line", (1, 2, 7, 3), (1, 3, 3, 2), plain(1)),
    ("grouped", (3, 2, 5, 4, 2), (3, 2, 3, 2, 1), plain(2, stride=(2, 1))),
    ("padded", (1, 2, 4, 4, 1), (1, 3, 3, 1, 2), plain(2, low=(1, 2), high=(1, 0))),
    ("cut", (1, 2, 6, 5, 1), (1, 2, 2, 1, 2), plain(2, low=(-1, 1), high=(-2, -1))),
    ("dilated", (1, 1, 4, 5, 2), (1, 2, 2, 2, 3), plain(2, base_dilation=(3, 1), window_dilation=(2, 2), low=(2, 0))),
    ("volume", (2, 1, 3, 2, 3, 2), (2, 2, 1, 2, 2, 1), plain(3, stride=(1, 1, 2), high=(0, 1, 1))),
    ("window-of-one", (1, 3, 2, 2), (1, 1, 2, 3), plain(1)),
    ("no-place", (1, 2, 2, 3), (1, 3, 3, 2), plain(1)),
    ("no-image", (1, 0, 4, 3), (1, 3, 3, 2), plain(1)),
    ("no-channel", (1, 2, 4, 0), (1, 3, 0, 2), plain(1)),
    ("no-output", (1, 2, 4, 3), (1, 3, 3, 0), plain(1)),
    ("only-zeros", (1, 1, 2, 1), (1, 1, 1, 1), plain(1, base_dilation=(9,), low=(3,), high=(3,), stride=(4,))),
]


@row
def conv() -> Iterator[Case]:
    for (first, second), (label, left, right, window) in product(MIXTURES, SHAPES):
        args = first(ring(*left, seed=1)), second(ring(*right, seed=2))
        want = partial(convolved, window=window)
        name = f"{first.__name__}-{second.__name__}-{label}"
        yield Case(name, args, emit("conv", **window._asdict()), want)
        twice = emit("conv", twice=1, **window._asdict())
        yield Case(f"twice-{name}", args, twice, lambda x, w, want=want: 2 * want(x, w))
    for label, left, right in (
        ("tiles-of-images", (1, 5, 4, 1), (1, 2, 1, TILE // 7)),
        ("tiles-of-one-image", (1, 2, 3, 1), (1, 2, 1, TILE // 2 + 5)),
    ):
        args = secret(ring(*left, seed=1)), secret(ring(*right, seed=2))
        yield Case(label, args, emit("conv", **plain(1)._asdict()), partial(convolved, window=plain(1)))
    args = secret(ring(1, 4, 4, 4, 3, seed=1)), secret(ring(1, 2, 2, 3, 4, seed=2))
    yield Case(
        f"of-moved-axes-{named((4, 4))}",
        args,
        lambda b, x, w: b.emit(
            "conv", b.transpose(x, (0, 3, 2, 1, 4)), b.emit("rev", w, axes=(1, 2)), **plain(2)._asdict()
        ),
        lambda x, w: convolved(x.transpose(0, 3, 2, 1, 4), w[:, ::-1, ::-1], plain(2)),
    )
