"""The compiled kernels behind the signatures of reference.py, a file for each of the C code's.

The C code trusts what it is given, so every array is checked here: uint64 (or what the kernel says), the right shape,
C-contiguous and aligned (else copied).  A call costs about a microsecond, plus 0.4 for each array.
"""

from __future__ import annotations

from mpcnode.kernels.native.fused import (
    mul_trunc_deal,
    mul_trunc_share,
    select_trunc_deal,
    select_trunc_share,
    square_trunc_deal,
    square_trunc_share,
)
from mpcnode.kernels.native.machine import isa, set_isa, set_threads, threads
from mpcnode.kernels.native.planes import (
    and_deal,
    and_share,
    gate_deal,
    gate_share,
    leaf_deal,
    leaf_share,
    leaves,
    pack_bits,
    to_planes,
    unpack_bits,
    wide_gate_deal,
    wide_gate_share,
)
from mpcnode.kernels.native.products import conv, conv_add, matmul, matmul_add
from mpcnode.kernels.native.shares import (
    inject_share,
    mul_share,
    select_share,
    trunc_deal,
    trunc_mask,
    trunc_open,
    trunc_share,
    waxpby,
)
from mpcnode.kernels.reference import (
    CHUNK,
    U8,
    U64,
    Unsigned,
    and_rows,
    chunks,
    gate_products,
    gate_sums,
    leaf_rows,
    wide_gate_rows,
    words,
)

__all__ = [
    "CHUNK",
    "U8",
    "U64",
    "Unsigned",
    "and_deal",
    "and_rows",
    "and_share",
    "chunks",
    "conv",
    "conv_add",
    "gate_deal",
    "gate_products",
    "gate_share",
    "gate_sums",
    "inject_share",
    "isa",
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
    "set_isa",
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
