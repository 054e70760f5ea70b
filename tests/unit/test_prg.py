"""The PRG is AES-128-CTR, at an address."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcnode.kernels.prg import Prg

KEY = bytes(range(16))


def key_stream(key: bytes, nonce: bytes, size: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(nonce + bytes(4))).encryptor().update(bytes(size))


def test_nist_vector() -> None:
    """SP 800-38A, F.5.1 (CTR-AES128.Encrypt).  Its counter begins 0xfcfdfeff blocks into a key stream of ours, too far
    to go to: so the vector checks the cipher that the other tests compare with.
    """
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    want = bytes.fromhex(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    assert Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(plain) == want


def test_a_block_is_the_encrypted_address() -> None:
    """Block i of the key stream is AES(nonce || i), i in 4 bytes, big-endian."""
    nonce = bytes.fromhex("00112233445566778899aabb")
    aes = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    blocks = b"".join(aes.update(nonce + i.to_bytes(4, "big")) for i in range(5))
    assert Prg(KEY).fill(nonce, np.empty(80, np.uint8)).tobytes() == blocks


@pytest.mark.parametrize(
    "size", [0, 1, 15, 16, 17, 80, 4095, 4096, 4097, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1_000_003]
)
def test_every_size_is_the_key_stream(size: int) -> None:
    nonce = b"twelve bytes"
    assert Prg(KEY).fill(nonce, np.empty(size, np.uint8)).tobytes() == key_stream(KEY, nonce, size)


@pytest.mark.parametrize("dtype", [np.uint64, np.uint32, np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(), (1,), (10,), (3, 5), (2, 0, 4), (0,), (2, 300, 20), (1000, 80)])
def test_every_dtype_and_shape(dtype: Any, shape: tuple[int, ...]) -> None:
    out = np.zeros(shape, dtype)
    got = Prg(KEY).fill(bytes(12), out)
    assert got is out
    assert out.tobytes() == key_stream(KEY, bytes(12), out.nbytes)


@given(
    st.binary(min_size=16, max_size=16),
    st.lists(st.tuples(st.binary(min_size=12, max_size=12), st.integers(0, 300)), max_size=8),
)
@settings(max_examples=50, deadline=None)
def test_a_fill_does_not_depend_on_those_before(key: bytes, fills: list[tuple[bytes, int]]) -> None:
    prg = Prg(key)
    for nonce, size in fills:
        assert prg.fill(nonce, np.empty(size, np.uint8)).tobytes() == key_stream(key, nonce, size)


@pytest.mark.parametrize("size", [0, 1, 16, 4097, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1_000_003])
def test_a_filler_fills_again_and_again(size: int) -> None:
    prg, out = Prg(KEY), np.empty(size, np.uint8)
    fill = prg.filler(out)
    for nonce in (b"twelve bytes", b"other twelve", b"twelve bytes"):
        prg.fill(bytes(12), np.empty(5, np.uint8))  # others draw from the same key in between
        fill(nonce)
        assert out.tobytes() == key_stream(KEY, nonce, size)


@pytest.mark.parametrize("shape", [(), (3, 5), (2, 0, 4)])
def test_a_filler_of_any_shape(shape: tuple[int, ...]) -> None:
    out = np.zeros(shape, np.uint64)
    Prg(KEY).filler(out)(bytes(12))
    assert out.tobytes() == key_stream(KEY, bytes(12), out.nbytes)


def test_a_filler_of_what_has_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        Prg(KEY).filler(np.zeros((4, 4), np.uint64)[:, :2])


def test_a_part_of_a_larger_array_can_be_filled() -> None:
    whole = np.zeros((4, 10), np.uint64)
    Prg(KEY).fill(bytes(12), whole[1:3])
    assert whole[1:3].tobytes() == key_stream(KEY, bytes(12), 160)
    assert not whole[0].any()
    assert not whole[3].any()


def test_refuses() -> None:
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        Prg(bytes(15))
    with pytest.raises(ValueError, match="12 bytes, not 16"):
        Prg(KEY).fill(bytes(16), np.empty(4, np.uint64))
    for out in (np.zeros(8, np.uint64)[::2], np.zeros((4, 4), np.uint64)[:, :2], np.zeros((4, 3), np.uint64).T):
        with pytest.raises(ValueError, match="C-contiguous"):
            Prg(KEY).fill(bytes(12), out)
        assert not out.any()
    frozen = np.zeros(4, np.uint64)
    frozen.flags.writeable = False
    with pytest.raises((TypeError, ValueError, BufferError)):
        Prg(KEY).fill(bytes(12), frozen)
