"""Sealed results open for their recipient and purpose, unaltered and from their sender, and in no other case."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpcnode.errors import ConfigError, SealError
from mpcnode.identity import Identity, create_identity
from mpcnode.sealing import Purpose, open_result, open_sealed, seal, seal_result

PURPOSE = Purpose("job-7", 1, "clinic_a", "analyst", "weights", "arith.18 [2,3]", 0, 2)


@pytest.fixture
def sender(tmp_path: Path) -> Identity:
    return create_identity(tmp_path / "clinic_a", "clinic_a")


@pytest.fixture
def recipient(tmp_path: Path) -> Identity:
    return create_identity(tmp_path / "analyst", "analyst")


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(range(256)) * 4096])
def test_what_is_sealed_opens(plaintext: bytes) -> None:
    private = X25519PrivateKey.generate()
    sealed = seal(private.public_key().public_bytes_raw(), b"info", plaintext)
    assert len(sealed) == len(plaintext) + 48
    assert open_sealed(private, b"info", sealed) == plaintext


def test_every_byte_counts() -> None:
    private = X25519PrivateKey.generate()
    sealed = seal(private.public_key().public_bytes_raw(), b"info", b"secret")
    for i in range(len(sealed)):
        altered = bytearray(sealed)
        altered[i] ^= 0x40  # the top bit of an X25519 point is ignored by RFC 7748, so any other
        with pytest.raises(SealError, match="does not open"):
            open_sealed(private, b"info", bytes(altered))
        with pytest.raises(SealError):
            open_sealed(private, b"info", sealed[:i])
    with pytest.raises(SealError):
        open_sealed(private, b"other", sealed)
    with pytest.raises(SealError):
        open_sealed(X25519PrivateKey.generate(), b"info", sealed)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32)])
def test_a_useless_key_is_refused(key: bytes) -> None:
    with pytest.raises(ConfigError, match="seal key"):
        seal(key, b"", b"secret")


def test_two_purposes_never_share_their_bytes() -> None:
    assert Purpose("ab", 1, "c", "d", "e", "f").encode() != Purpose("a", 1, "bc", "d", "e", "f").encode()
    assert Purpose("a", 11, "c", "d", "e", "f").encode() != Purpose("a1", 1, "c", "d", "e", "f").encode()


def test_a_result_opens_for_its_purpose_only(sender: Identity, recipient: Identity) -> None:
    sealed = seal_result(sender, recipient.card, PURPOSE, b"share")
    assert b"share" not in sealed
    assert open_result(recipient, sender.card, PURPOSE, sealed) == b"share"
    others: dict[str, Any] = {
        "job": "job-8",
        "attempt": 2,
        "sender": "clinic_b",
        "recipient": "clinic_b",
        "output": "accuracy",
        "type": "arith.18 [3,2]",
        "piece": 1,
        "pieces": 1,
    }
    assert others.keys() == set(Purpose._fields)
    for field, value in others.items():
        with pytest.raises(SealError):
            open_result(recipient, sender.card, PURPOSE._replace(**{field: value}), sealed)


def test_who_passes_a_result_on_cannot_replace_it(tmp_path: Path, sender: Identity, recipient: Identity) -> None:
    coordinator = create_identity(tmp_path / "coordinator", "coordinator")
    forged = seal_result(coordinator, recipient.card, PURPOSE, b"mine")
    unsigned = seal(recipient.card.seal_public, PURPOSE.encode(), b"")
    for bad in (forged, unsigned, seal(recipient.card.seal_public, PURPOSE.encode(), b"\xff1")):
        with pytest.raises(SealError, match="does not carry the signature of clinic_a"):
            open_result(recipient, sender.card, PURPOSE, bad)
