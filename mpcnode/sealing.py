"""Results sealed to their recipient: who passes them on can neither read them nor give them to another job.

HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, in one shot.  Base mode
says nothing of the sender, as anybody knows a recipient's public key; the sender's signature (ECDSA on the P-256
key of its certificate) over the sealed bytes does.
"""

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from mpcnode.errors import ConfigError, SealError

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_PUBLIC_KEY_BYTES = 32


class Purpose(NamedTuple):
    """What a sealed result is: exactly this sender's part of exactly this output.  `encode()` is HPKE's `info`."""

    job: str
    attempt: int
    sender: str
    recipient: str
    output: str

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


def sign(private: ec.EllipticCurvePrivateKey, info: bytes, sealed: bytes) -> bytes:
    """The sender's signature over `sealed` and its purpose: ECDSA, P-256, SHA-256, in DER."""
    return private.sign(_signed_bytes(info, sealed), ec.ECDSA(hashes.SHA256()))


def verify_signature(public: ec.EllipticCurvePublicKey, info: bytes, sealed: bytes, signature: bytes) -> None:
    """SealError unless the holder of `public` signed exactly this `sealed` for exactly this purpose."""
    try:
        public.verify(signature, _signed_bytes(info, sealed), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise SealError(
            "a sealed result does not carry its sender's signature: somebody replaced it on the way; run the job "
            "again, and if it happens again mistrust whoever passed it on"
        ) from error


def _signed_bytes(info: bytes, sealed: bytes) -> bytes:
    # The first words keep this apart from everything else the key signs: TLS 1.3 starts with 64 spaces.
    return b"mpcnode sealed result" + len(info).to_bytes(4, "big") + info + sealed
