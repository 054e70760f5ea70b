"""Floor 0: the arithmetic, ndarray -> ndarray.  The compiled kernels serve if they were built, else the numpy
reference.

MPCNODE_KERNELS=reference|native in the environment forces the choice.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

__all__ = [
    "CHUNK",
    "NAME",
    "U8",
    "U64",
    "KernelsWarning",
    "Unsigned",
    "and_deal",
    "and_rows",
    "and_share",
    "chunks",
    "conv",
    "conv_add",
    "dcf_bytes",
    "dcf_deal",
    "dcf_levels",
    "dcf_share",
    "gate_deal",
    "gate_products",
    "gate_share",
    "gate_sums",
    "inject_share",
    "leaf_deal",
    "leaf_rows",
    "leaf_share",
    "leaves",
    "matmul",
    "matmul_add",
    "mul_share",
    "mul_trunc_deal",
    "mul_trunc_share",
    "pack_bits",
    "select_share",
    "select_trunc_deal",
    "select_trunc_share",
    "set_threads",
    "square_trunc_deal",
    "square_trunc_share",
    "threads",
    "to_planes",
    "trunc_deal",
    "trunc_mask",
    "trunc_open",
    "trunc_share",
    "unpack_bits",
    "waxpby",
    "wide_gate_deal",
    "wide_gate_rows",
    "wide_gate_share",
    "words",
]


class KernelsWarning(RuntimeWarning):
    """The compiled kernels are missing: everything works, ten to thirty times slower."""


def _pick() -> str:
    """Which kernels serve: "native" or "reference"."""
    wanted = os.environ.get("MPCNODE_KERNELS", "")
    if wanted not in ("", "native", "reference"):
        raise ValueError(f"MPCNODE_KERNELS is {wanted!r}: want native or reference")
    if wanted == "reference":
        return "reference"
    try:
        import mpcnode.kernels._native  # noqa: F401
    except ImportError as error:
        if wanted:
            raise ImportError(
                "MPCNODE_KERNELS=native, but no kernels were compiled: install with a C compiler"
            ) from error
        warnings.warn(f"the numpy kernels serve, slowly: no compiled ones ({error})", KernelsWarning, stacklevel=3)
        return "reference"
    return "native"


NAME = _pick()

if TYPE_CHECKING or NAME == "reference":
    from mpcnode.kernels.reference import (
        CHUNK,
        U8,
        U64,
        Unsigned,
        and_deal,
        and_rows,
        and_share,
        chunks,
        conv,
        conv_add,
        dcf_bytes,
        dcf_deal,
        dcf_levels,
        dcf_share,
        gate_deal,
        gate_products,
        gate_share,
        gate_sums,
        inject_share,
        leaf_deal,
        leaf_rows,
        leaf_share,
        leaves,
        matmul,
        matmul_add,
        mul_share,
        mul_trunc_deal,
        mul_trunc_share,
        pack_bits,
        select_share,
        select_trunc_deal,
        select_trunc_share,
        set_threads,
        square_trunc_deal,
        square_trunc_share,
        threads,
        to_planes,
        trunc_deal,
        trunc_mask,
        trunc_open,
        trunc_share,
        unpack_bits,
        waxpby,
        wide_gate_deal,
        wide_gate_rows,
        wide_gate_share,
        words,
    )
else:
    from mpcnode.kernels.native import (
        CHUNK,
        U8,
        U64,
        Unsigned,
        and_deal,
        and_rows,
        and_share,
        chunks,
        conv,
        conv_add,
        dcf_bytes,
        dcf_deal,
        dcf_levels,
        dcf_share,
        gate_deal,
        gate_products,
        gate_share,
        gate_sums,
        inject_share,
        leaf_deal,
        leaf_rows,
        leaf_share,
        leaves,
        matmul,
        matmul_add,
        mul_share,
        mul_trunc_deal,
        mul_trunc_share,
        pack_bits,
        select_share,
        select_trunc_deal,
        select_trunc_share,
        set_threads,
        square_trunc_deal,
        square_trunc_share,
        threads,
        to_planes,
        trunc_deal,
        trunc_mask,
        trunc_open,
        trunc_share,
        unpack_bits,
        waxpby,
        wide_gate_deal,
        wide_gate_rows,
        wide_gate_share,
        words,
    )
