"""Pseudo-random expansion: AES-128 in counter mode at an address.

The key stream at (key, nonce) is AES-128-CTR with the initial counter block nonce || 0^32, so every nonce owns 2^32 blocks (64 GiB).
`cryptography` runs it at the speed of the hardware; there is no reason for a PRG of our own.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpcnode.kernels.reference import U64

NONCE_BYTES = 12
_ZEROS = np.zeros(1 << 18, np.uint8)
_COUNTER = bytes(16 - NONCE_BYTES)


class Prg:
    """The key streams of one 16-byte key.  Not safe to share between threads."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise ValueError(f"a PRG key has 16 bytes, not {len(key)}")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def fill(self, nonce: bytes, out: U64) -> U64:
        """Overwrite `out` (any dtype, C-contiguous) with the key stream of `nonce` (12 bytes) and return it."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a PRG nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        self._encryptor.reset_nonce(nonce + _COUNTER)
        flat = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for start in range(0, len(flat), len(_ZEROS)):
            part = flat[start : start + len(_ZEROS)]
            self._encryptor.update_into(memoryview(_ZEROS)[: len(part)], part)  # type: ignore[arg-type]
        return out
