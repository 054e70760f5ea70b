"""Distributed comparison functions: a key for each of two parties, with which they have xor shares of [C < ρ] for any
public C, and neither of which tells anything of ρ.

After Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar and Rathee (Function Secret Sharing for Mixed-Mode and Fixed-Point
Secure Computation, EUROCRYPT 2021, ePrint 2020/1392, section 3, figure 1), with the group Z_2.  Where we depart from
it: one more bit, a constant, is added to the function; and the tree ends 7 levels early, in 128 bits that are corrected
together (early termination: Boyle, Gilboa, Ishai, Function Secret Sharing: Improvements and Extensions, CCS 2016).

A node of the tree is a seed s of 128 bits, a bit t and a bit v.  Its generator is AES-128 in counter mode under the key
s, from zero on; of its blocks

    0, 1    are the seeds of the child for a 0 and the child for a 1 in C, which is read from its highest bit
    2       is in bits 0, 1 the children's t, in bits 2, 3 their v
    3       is what the last level has instead: a bit for every number that is left

and where t = 1, a party corrects what comes out with the words of the level, which both parties' keys contain.  On the
way of ρ the parties' seeds are independent, and exactly one of the two has t = 1; off it all is equal but the v, whose
sum is the result.  A key is those words, 17 bytes a level (a seed; bits 0, 1: corrections of t, 2: of v) and 16 for the
last, and the party's own root, which is t = 0 at the first party and t = 1 at the other one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

TAIL = 7  # levels that the last block stands for
SEED = 16  # bytes
LEVEL = SEED + 1
BLOCKS = 4


def dcf_levels(bits: int) -> int:
    """Levels with a seed of their own in a tree for numbers of so many bits."""
    return max(0, bits - TAIL)


def dcf_bytes(bits: int) -> int:
    """Bytes of the corrections for one number of so many bits."""
    return LEVEL * dcf_levels(bits) + SEED


def _generate(seed: bytes, *numbers: int) -> list[bytes]:
    """Some of a node's blocks."""
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(SEED))).encryptor().update(bytes(BLOCKS * SEED))
    return [stream[i * SEED : (i + 1) * SEED] for i in numbers]


def _xor(*texts: bytes) -> bytes:
    total = 0
    for text in texts:
        total ^= int.from_bytes(text, "little")
    return total.to_bytes(SEED, "little")


def _bit(text: bytes, i: int) -> int:
    return text[i // 8] >> i % 8 & 1


def reach(lo: int, top: int) -> int:
    """How many bits are compared: lo .. top-1.  Raises ValueError for what is no range of them."""
    if not 0 <= lo < top <= 63:
        raise ValueError(f"bits {lo} to {top} of 63")
    return top - lo


def dcf_deal(x: U64, roots: U64, lo: int, top: int) -> U8:
    """The corrections for ρ = bits lo .. top-1 of x, and for x's bit `top` as the constant that is added.
    x: uint64[elements], roots: uint64[2, elements, 2], the parties' seeds.  Returns uint8[elements, dcf_bytes].
    """
    bits = reach(lo, top)
    out = np.empty((x.size, dcf_bytes(bits)), np.uint8)
    for e, number in enumerate(x.tolist()):
        rho, constant = number >> lo & ((1 << bits) - 1), number >> top & 1
        out[e] = np.frombuffer(
            _corrections([r.tobytes() for r in roots[:, e].astype("<u8")], rho, constant, bits), np.uint8
        )
    return out


def _corrections(seeds: list[bytes], rho: int, constant: int, bits: int) -> bytes:
    words, t, v = b"", [0, 1], 0  # v: the sum of the parties' on the way of ρ
    for level in range(dcf_levels(bits)):
        way = rho >> (bits - 1 - level) & 1
        lost = 1 - way
        *children, own = zip(*(_generate(seed, 0, 1, 2) for seed in seeds), strict=True)
        word = _xor(*children[lost])
        turn = [_bit(own[0], c) ^ _bit(own[1], c) ^ (way == c) for c in (0, 1)]
        sums = [_bit(own[0], 2 + c) ^ _bit(own[1], 2 + c) for c in (0, 1)]
        put = sums[lost] ^ v ^ way ^ constant  # who leaves the way of ρ here is below it if that goes to the right
        v ^= sums[way] ^ put
        words += word + bytes([turn[0] | turn[1] << 1 | put << 2])
        seeds = [_xor(children[way][b], word) if t[b] else children[way][b] for b in (0, 1)]
        t = [_bit(own[b], way) ^ (t[b] & turn[way]) for b in (0, 1)]
    rest = rho & ((1 << min(bits, TAIL)) - 1)
    below = ((1 << rest) - 1) ^ (-(v ^ constant) & ((1 << 128) - 1))
    return words + _xor(*(_generate(seed, 3)[0] for seed in seeds), below.to_bytes(SEED, "little"))


def dcf_share(x: U64, cuts: U64, key: U8, root: U64, lo: int, top: int, *, first: bool) -> tuple[U8, U8]:
    """Xor shares of [C < ρ] ^ constant, where C is bits lo .. top-1 of x - cut, and bit `top` of x - cut, for all cuts:
    uint8[cuts, elements] each.  x: uint64[elements], cuts: uint64[cuts], public; key: what `dcf_deal` returns; root:
    uint64[elements, 2], this party's.
    """
    bits = reach(lo, top)
    if key.shape != (x.size, dcf_bytes(bits)):
        raise ValueError(f"key: want uint8{[x.size, dcf_bytes(bits)]}, got {key.dtype}{list(key.shape)}")
    share, tops = (np.empty((cuts.size, x.size), np.uint8) for _ in range(2))
    for k, cut in enumerate(cuts):
        moved = x - cut
        tops[k] = moved >> np.uint64(top) & np.uint64(1)
        for e, number in enumerate(moved.tolist()):
            c = number >> lo & ((1 << bits) - 1)
            share[k, e] = _evaluated(root[e].astype("<u8").tobytes(), key[e].tobytes(), c, bits, int(not first))
    return share, tops


def _evaluated(seed: bytes, words: bytes, c: int, bits: int, t: int) -> int:
    v = 0
    for level in range(dcf_levels(bits)):
        way = c >> (bits - 1 - level) & 1
        child, own = _generate(seed, way, 2)
        word, put = words[LEVEL * level : LEVEL * level + SEED], words[LEVEL * level + SEED] * t
        v ^= _bit(own, 2 + way) ^ (put >> 2 & 1)
        seed, t = _xor(child, word) if t else child, _bit(own, way) ^ (put >> way & 1)
    rest = c & ((1 << min(bits, TAIL)) - 1)
    return v ^ _bit(_generate(seed, 3)[0], rest) ^ (t & _bit(words[-SEED:], rest))
