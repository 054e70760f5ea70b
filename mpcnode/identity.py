"""Who a party is: two private keys that stay in its folder, and a card that it gives to everybody.

    NAME/key.pem           private, for TLS and signatures (EC P-256)
    NAME/seal.key          private, opens results sealed to this party (X25519)
    NAME/certificate.pem   public, self-signed, names the party
    NAME/card.toml         public: name, address, certificate and seal key

The certificate is recognised byte for byte, so there is no authority to trust, and none to run.
"""

import base64
import binascii
import ipaddress
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from mpcnode import tomlfile
from mpcnode.errors import ConfigError

DEFAULT_DAYS = 3650
ANYONE = "anyone"  # in a policy: every party of the cluster; so it cannot be the name of one

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", re.ASCII)
_CLOCK_SLACK = timedelta(hours=1)  # a new certificate must also be valid where the clock is behind


def check_name(name: str) -> str:
    """Return `name` if it can name a party; ValueError says what a name looks like."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name is a lower-case letter followed by at most 62 of a-z, 0-9, _ and -")
    if name == ANYONE:
        raise ValueError(f'"{ANYONE}" means every party in a policy and cannot name one')
    return name


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, with an IPv6 host in brackets, as (host, port); ValueError says what is expected."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError("an address is HOST:PORT with a port from 1 to 65535, such as clinic.example.org:7443")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif not _HOST.fullmatch(host):
        raise ValueError("an address is HOST:PORT, and an IPv6 host stands in brackets, such as [::1]:7443")
    return host, int(port)


def check_address(address: str) -> str:
    """Return `address` if it is HOST:PORT; ValueError says what is expected."""
    split_address(address)
    return address


def check_certificate(pem: str) -> str:
    """Return the one certificate in `pem` without anything around it; ValueError if it is none or unfit.

    A certificate that may sign others (a CA) is refused: whoever trusted it would trust all that it signs.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise ValueError("this is not a certificate in PEM form") from None
    if len(certificates) != 1:
        raise ValueError("a card holds exactly one certificate")
    certificate = certificates[0]
    if not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
        raise ValueError(  # noqa: TRY004 - pydantic reports ValueErrors
            "the certificate's key is not an elliptic-curve key: make the card with `mpcnode init`"
        )
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        may_sign = True  # unsaid, and TLS libraries disagree on what that means
    if may_sign:
        raise ValueError("the certificate does not say that it is no CA: make the card with `mpcnode init`")
    return certificate.public_bytes(Encoding.PEM).decode()


def check_seal_key(text: str) -> str:
    """Return `text` if it is 32 bytes in base64; ValueError otherwise."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise ValueError("a seal key is 32 bytes in base64")
    return text


Name = Annotated[str, AfterValidator(check_name)]
Address = Annotated[str, AfterValidator(check_address)]


class Card(BaseModel):
    """What the others know of a party.  Without an address it submits jobs or receives results, and serves nothing."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Name
    address: Address | None = None
    certificate: Annotated[str, AfterValidator(check_certificate)]
    seal_key: Annotated[str, AfterValidator(check_seal_key)]

    @model_validator(mode="after")
    def _certificate_names_the_party(self) -> Self:
        if certified_names(self.x509) != [self.name]:
            raise ValueError(
                f"the certificate is not made out to {self.name}: take the card as `mpcnode init` wrote it"
            )
        return self

    @classmethod
    def load(cls, path: Path | str) -> "Card":
        """Read a card.toml; ConfigError names the field that is wrong."""
        return tomlfile.read(Path(path), cls)

    def document(self) -> dict[str, Any]:
        """The card as it stands in card.toml, and in a [[party]] of cluster.toml."""
        return self.model_dump(exclude_none=True)

    @cached_property
    def x509(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_pem_x509_certificate(self.certificate.encode())

    @cached_property
    def der(self) -> bytes:
        """The certificate's exact bytes, by which a party is recognised."""
        return self.x509.public_bytes(Encoding.DER)

    @property
    def signing_key(self) -> ec.EllipticCurvePublicKey:
        """The key that verifies this party's signatures."""
        key = self.x509.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # check_certificate
        return key

    @property
    def seal_public(self) -> bytes:
        """The raw X25519 key that results for this party are sealed to."""
        return base64.b64decode(self.seal_key)

    def expired(self, now: datetime) -> bool:
        """True if the certificate is not valid at `now` (aware): TLS with this party then fails."""
        return not self.x509.not_valid_before_utc <= now <= self.x509.not_valid_after_utc


@dataclass(frozen=True)
class Identity:
    """A party's folder, read and checked.  Keys stay out of its repr."""

    folder: Path
    card: Card
    signing_key: ec.EllipticCurvePrivateKey = field(repr=False)
    seal_private: X25519PrivateKey = field(repr=False)

    @property
    def name(self) -> str:
        """The party's name."""
        return self.card.name

    @property
    def key_pem(self) -> bytes:
        """The certificate's private key as TLS libraries read it."""
        return _private_pem(self.signing_key)


def certified_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names in the subjectAltName extension."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER bytes, in hex: what two people compare by telephone."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def self_signed(
    name: str, key: ec.EllipticCurvePrivateKey, not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """A certificate for exactly one party, which can sign no other and serves both ends of a TLS connection."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(both_ends, critical=False)
        .sign(key, hashes.SHA256())
    )


def create_identity(folder: Path | str, name: str, address: str | None = None, days: int = DEFAULT_DAYS) -> Identity:
    """Make the keys, certificate and card of a new party in `folder`, valid for `days` days from now.

    ConfigError if the name or address is malformed, or if the folder already holds an identity: a key is never
    overwritten, since results sealed to it could never be read again.
    """
    folder = Path(folder)
    try:
        check_name(name)
        if address is not None:
            check_address(address)
    except ValueError as error:
        raise ConfigError(f"{error}") from error
    if not 1 <= days <= 36500:
        raise ConfigError("a certificate is valid for 1 to 36500 days")
    key, seal_private = ec.generate_private_key(ec.SECP256R1()), X25519PrivateKey.generate()
    now = datetime.now(UTC)
    certificate = self_signed(name, key, now - _CLOCK_SLACK, now + timedelta(days=days))
    pem = certificate.public_bytes(Encoding.PEM)
    card = Card(
        name=name,
        address=address,
        certificate=pem.decode(),
        seal_key=base64.b64encode(seal_private.public_key().public_bytes_raw()).decode(),
    )
    files = {"key.pem": _private_pem(key), "seal.key": _private_pem(seal_private), "certificate.pem": pem}
    _refuse_existing(folder, [*files, "card.toml"])
    made: list[Path] = []
    try:
        for file_name, contents in files.items():
            _create(folder / file_name, contents, 0o644 if contents is pem else 0o600)
            made.append(folder / file_name)
        tomlfile.write(folder / "card.toml", card.document())
    except ConfigError:  # half an identity would stand in the way of the next try
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return Identity(folder, card, key, seal_private)


def load_identity(folder: Path | str) -> Identity:
    """Read a folder that `create_identity` made; ConfigError if its parts are missing or do not belong together."""
    folder = Path(folder)
    if not (folder / "card.toml").exists():
        raise ConfigError(f"{folder} holds no identity: make one with `mpcnode init`, or name its folder with --dir")
    card = Card.load(folder / "card.toml")
    if tomlfile.read_text(folder / "certificate.pem") != card.certificate:
        raise ConfigError(f"{folder / 'certificate.pem'} is not the certificate in {folder / 'card.toml'}")
    key, seal_private = _read_private(folder / "key.pem"), _read_private(folder / "seal.key")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != card.signing_key:
        raise ConfigError(f"{folder / 'key.pem'} is not the key of the certificate in {folder / 'card.toml'}")
    if (
        not isinstance(seal_private, X25519PrivateKey)
        or seal_private.public_key().public_bytes_raw() != card.seal_public
    ):
        raise ConfigError(f"{folder / 'seal.key'} is not the key of the seal_key in {folder / 'card.toml'}")
    return Identity(folder, card, key, seal_private)


def _private_pem(key: ec.EllipticCurvePrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _refuse_existing(folder: Path, file_names: list[str]) -> None:
    for file_name in file_names:
        if (folder / file_name).exists():
            raise ConfigError(f"{folder / file_name} exists and is never overwritten: choose another folder with --dir")


def _create(path: Path, contents: bytes, mode: int) -> None:
    """Write a new file that has `mode` from its first moment on, all of it or none, and fail if the file exists."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(contents)
                file.flush()
                os.fsync(handle)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _read_private(path: Path) -> PrivateKeyTypes:
    pem = tomlfile.read_text(path).encode()
    # The owner's group may read: a Kubernetes secret is mounted so for a process that is not root.
    if path.stat().st_mode & 0o027:
        raise ConfigError(f"{path} can be read or written by others: `chmod 600 {path}`")
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise ConfigError(f"{path} is not a private key in PEM form without a password") from None
