"""Common randomness is a function of its address and of the pair's key, and of nothing less."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from mpcnode import party
from mpcnode.kernels.prg import Prg
from mpcnode.party import Party, pair_key, seeded_keys

KEY_OF: dict[str, Any] = {"job": "job", "attempt": 1, "low": "alice", "high": "bob"}


# ---- keys ------------------------------------------------------------------------------------------------------------
def test_both_sides_derive_one_key_of_16_bytes() -> None:
    assert pair_key(bytes(32), b"\1" * 32, **KEY_OF) == pair_key(bytes(32), b"\1" * 32, **KEY_OF)
    assert len(pair_key(bytes(32), bytes(32), **KEY_OF)) == 16


def test_the_key_is_hkdf_sha256() -> None:
    """Written out by RFC 5869: extract with a salt of zeros, expand with the info and the counter 1."""
    import hashlib
    import hmac

    low, high = bytes(range(32)), bytes(range(32, 64))
    extracted = hmac.new(bytes(32), low + high, hashlib.sha256).digest()
    info = b"mpcnode pair key\0job\x001\0alice\0bob"
    assert pair_key(low, high, **KEY_OF) == hmac.new(extracted, info + b"\1", hashlib.sha256).digest()[:16]


def test_every_input_of_a_key_matters() -> None:
    seeds = bytes(32), b"\1" * 32
    others = [{"job": "job2"}, {"attempt": 2}, {"low": "alicia"}, {"high": "bo"}, {"low": "bob", "high": "alice"}]
    keys = [pair_key(*seeds, **KEY_OF)] + [pair_key(*seeds, **KEY_OF | other) for other in others]
    keys += [pair_key(*seeds[::-1], **KEY_OF)]
    keys += [pair_key(seeds[0], seeds[1][:-1] + b"\0", **KEY_OF), pair_key(b"\1" + seeds[0][1:], seeds[1], **KEY_OF)]
    assert len(set(keys)) == len(keys)


def test_names_do_not_run_into_each_other() -> None:
    seeds = bytes(32), bytes(32)
    one = pair_key(*seeds, job="a", attempt=11, low="x", high="y")
    assert one != pair_key(*seeds, job="a1", attempt=1, low="x", high="y")
    assert pair_key(*seeds, job="a", attempt=1, low="xy", high="z") != pair_key(
        *seeds, job="a", attempt=1, low="x", high="yz"
    )


@pytest.mark.parametrize("sizes", [(0, 32), (32, 31), (33, 32)])
def test_a_seed_of_another_length_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a seed has 32 bytes"):
        pair_key(bytes(sizes[0]), bytes(sizes[1]), **KEY_OF)


def test_seeded_keys_differ_by_pair_and_by_seed() -> None:
    keys, others = seeded_keys(4, b"a"), seeded_keys(4, b"b")
    pairs = [(low, high) for low, high in product(range(4), repeat=2) if low < high]
    assert all(keys[low][high] == keys[high][low] for low, high in pairs)
    assert len({k[low][high] for k in (keys, others) for low, high in pairs}) == 2 * len(pairs)


# ---- addresses -------------------------------------------------------------------------------------------------------
@pytest.fixture
def nonces(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The addresses at which something is drawn."""
    seen: list[bytes] = []

    class Noting(Prg):
        def fill(self, nonce: bytes, out: Any) -> Any:
            seen.append(nonce)
            return super().fill(nonce, out)

    monkeypatch.setattr(party, "Prg", Noting)
    return seen


def alone() -> Party:
    return Party(0, ["alice", "bob"], {1: bytes(16)})


STEPS = [0, 1, 255, 256, 1 << 32, (1 << 40) - 1]
OPS = [0, 1, 255, 256, 1 << 24, (1 << 32) - 1]
TILES = [0, 1, 255, 256, (1 << 16) - 1]
PURPOSES = [0, 1, 16, 255]


def test_addresses_never_collide(nonces: list[bytes]) -> None:
    me = alone()
    for op, step, tile, purpose in product(OPS, STEPS, TILES, PURPOSES):
        me.at(op, step).tile(tile).common(1, purpose, np.empty(1, np.uint8))
    assert {len(nonce) for nonce in nonces} == {12}
    assert len(set(nonces)) == len(nonces) == len(OPS) * len(STEPS) * len(TILES) * len(PURPOSES)


def test_a_place_is_its_own_tile_0(nonces: list[bytes]) -> None:
    place = alone().at(5, 3)
    for p in (place, place.tile(0), place.tile(1).tile(0)):
        p.common(1, 2, np.empty(1, np.uint8))
    assert len(set(nonces)) == 1


@pytest.mark.parametrize("number", [-1, 1 << 40])
def test_a_step_beyond_the_address_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        alone().at(0, number).common(1, 0, np.empty(1, np.uint8))


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_an_op_beyond_the_address_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        alone().at(number).common(1, 0, np.empty(1, np.uint8))


@pytest.mark.parametrize("number", [-1, 1 << 16])
def test_a_tile_beyond_the_address_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        alone().at(0).tile(number).common(1, 0, np.empty(1, np.uint8))


@pytest.mark.parametrize("number", [-1, 1 << 8])
def test_a_purpose_beyond_the_address_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        alone().at(0).common(1, number, np.empty(1, np.uint8))


# ---- randomness ------------------------------------------------------------------------------------------------------
def test_two_parties_draw_the_same_and_other_pairs_do_not() -> None:
    keys = seeded_keys(3, b"seed")
    parties = [Party(i, "abc", keys[i]) for i in range(3)]
    drawn = {
        (i, j): parties[i].at(7, 2).common(j, 1, np.empty(100, np.uint64)).tobytes()
        for i, j in product(range(3), repeat=2)
        if i != j
    }
    assert all(drawn[i, j] == drawn[j, i] for i, j in drawn)
    assert len(set(drawn.values())) == 3


def test_what_cannot_be_filled_in_place_is_refused() -> None:
    """A scalar or a strided view would be filled as a copy: its owner would go on with a mask of zeros."""
    p, x = alone().at(0), np.zeros((4, 6), np.uint64)
    for out in (x[:, 0], x.T, x[::2], x[0, 0], np.broadcast_to(x[:1], (4, 6))):
        with pytest.raises(ValueError, match="C-contiguous"):
            p.common(1, 0, out)
    assert not x.any()
    for out in (x[1], x[2:4], x[0, 0, ...]):
        assert p.common(1, 0, out) is out
        assert out.any()


def test_nothing_shows_a_key() -> None:
    key = bytes(range(100, 116))
    me = Party(0, ["alice", "bob"], {1: key})
    for shown in (repr(me), str(me), repr(vars(me)), repr(me.at(0))):
        assert str(key) not in shown
        assert key.hex() not in shown


def test_messages_carry_the_number_of_their_op() -> None:
    p = alone().at(9, 4)
    assert p.to(1, np.zeros(3)).op == 9
    due = p.due(1, np.uint16, (2, 5))
    assert (due.peer, due.dtype, due.shape, due.op, due.nbytes) == (1, np.dtype(np.uint16), (2, 5), 9, 20)
    assert p.size == 2
