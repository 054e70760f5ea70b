"""Z_2^64 as fixed-point numbers.

A number x is the ring element round(x·2^frac) mod 2^64, read back as a signed integer.  Products add the fraction
bits of their factors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpcnode.kernels import U8, U64

FRAC = 18  # the default binary point
LIMIT_BITS = 62  # |ring element| must stay below 2^62 before a truncation

Value = npt.NDArray[np.uint64] | npt.NDArray[np.uint8]  # a ring element, or bits (0 and 1) as uint8


class RangeError(ValueError):
    """A number that the ring cannot hold with the asked fraction bits."""


def encode(x: npt.ArrayLike, frac: int = FRAC) -> U64:
    """Numbers -> ring elements with `frac` fraction bits, rounded to the nearest.  Raises RangeError at |x| >=
    2^(62-frac) and for NaN; the message holds no element of x.
    """
    a = np.asarray(x)
    exact = a.dtype.kind in "iub" and frac == 0  # beyond the 53 bits of float64
    with np.errstate(over="ignore"):  # to infinity, which is out of range
        scaled = a if exact else np.rint(a.astype(np.float64) * float(1 << frac))
    limit = 1 << LIMIT_BITS
    if a.size and not (-limit < scaled.min() and scaled.max() < limit):
        raise RangeError(
            f"a value is not below 2^{LIMIT_BITS - frac} in absolute value, the range of {frac} fraction bits"
        )
    return scaled.astype(np.int64).astype(np.uint64)


def decode(x: U64, frac: int = FRAC) -> npt.NDArray[np.float64]:
    """Ring elements with `frac` fraction bits -> numbers."""
    return signed(x).astype(np.float64) / float(1 << frac)


def signed(x: U64) -> npt.NDArray[np.int64]:
    """Ring elements as two's complement integers."""
    return x.view(np.int64) if x.flags.c_contiguous else x.astype(np.int64)


__all__ = ["FRAC", "LIMIT_BITS", "U8", "U64", "RangeError", "Value", "decode", "encode", "signed"]
