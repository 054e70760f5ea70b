"""Results sealed to their recipient: who passes them on can neither read them nor give them to another job.

HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, in one shot.  Base mode
says nothing of the sender, as everybody knows the recipient's public key: so a result carries inside the seal its
sender's signature (ECDSA, SHA-256, with the P-256 key of the certificate) over purpose and contents.
"""

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from mpcnode.errors import ConfigError, SealError
from mpcnode.identity import Card, Identity

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_PUBLIC_KEY_BYTES = 32


class Purpose(NamedTuple):
    """What a sealed piece is: this sender's part of this output of this attempt.  `encode()` is HPKE's `info`."""

    job: str
    attempt: int
    sender: str
    recipient: str
    output: str
    type: str  # as the graph writes it, so that nobody can have the bytes read in another shape or scale
    piece: int = 0
    pieces: int = 1

    def encode(self) -> bytes:
        """Every field with its length before it, so that no two purposes have the same bytes."""
        fields = [str(field).encode() for field in self]
        return b"mpcnode result v1" + b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def seal(recipient_public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Encrypt `plaintext` to the raw X25519 key of a card; the result is 48 bytes longer.

    ConfigError if the key is not a usable X25519 point.
    """
    if len(recipient_public) != _PUBLIC_KEY_BYTES:
        raise ConfigError("a seal key is 32 bytes: ask its owner for a new card")
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(recipient_public), info)
    except ValueError as error:  # a point of small order, with which everybody could read the result
        raise ConfigError("the recipient's seal key is not a valid X25519 key: ask for a new card") from error


def open_sealed(private: X25519PrivateKey, info: bytes, sealed: bytes) -> bytes:
    """Decrypt what `seal` made; SealError if a bit of `sealed` or `info` differs or it was sealed to another key."""
    try:
        return _SUITE.decrypt(sealed, private, info)
    except (InvalidTag, ValueError) as error:
        raise SealError(
            "a sealed result does not open: it was altered on the way, or made for another recipient, job or output; "
            "check that your card in cluster.toml is the current one and run the job again"
        ) from error


def seal_result(sender: Identity, recipient: Card, purpose: Purpose, plaintext: bytes) -> bytes:
    """A piece of a result, signed by `sender` and sealed to `recipient`: at most 121 bytes longer."""
    info = purpose.encode()
    signature = sender.signing_key.sign(_signed_bytes(info, plaintext), ec.ECDSA(hashes.SHA256()))
    return seal(recipient.seal_public, info, len(signature).to_bytes(1, "big") + signature + plaintext)


def open_result(recipient: Identity, sender: Card, purpose: Purpose, sealed: bytes) -> bytes:
    """The plaintext of a piece that exactly `sender` sealed for exactly this `purpose`; SealError otherwise."""
    info = purpose.encode()
    opened = open_sealed(recipient.seal_private, info, sealed)
    end = 1 + opened[0] if opened else 0
    signature, plaintext = opened[1:end], opened[end:]
    try:
        sender.signing_key.verify(signature, _signed_bytes(info, plaintext), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise SealError(
            f"a sealed result does not carry the signature of {sender.name}: somebody replaced it on the way; run the "
            "job again, and if it happens again mistrust whoever passed it on"
        ) from error
    return plaintext


def _signed_bytes(info: bytes, plaintext: bytes) -> bytes:
    # The first words keep this apart from everything else the key signs: TLS 1.3 starts with 64 spaces.
    return b"mpcnode result signature" + len(info).to_bytes(4, "big") + info + plaintext
