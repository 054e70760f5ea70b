"""Identities and cards: what is written, what is refused, and that keys stay private."""

import base64
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mpcnode.errors import ConfigError
from mpcnode.identity import Card, check_address, create_identity, fingerprint, load_identity


def test_an_identity_survives_the_disk(tmp_path: Path) -> None:
    made = create_identity(tmp_path / "clinic_a", "clinic_a", "localhost:7443")
    read = load_identity(tmp_path / "clinic_a")
    assert read.card == made.card == Card.load(tmp_path / "clinic_a" / "card.toml")
    assert read.key_pem == made.key_pem
    assert read.seal_private.private_bytes_raw() == made.seal_private.private_bytes_raw()
    assert (tmp_path / "clinic_a" / "certificate.pem").read_text() == made.card.certificate


def test_the_certificate_names_one_party_and_signs_no_other(tmp_path: Path) -> None:
    certificate = create_identity(tmp_path, "clinic_a", days=30).card.x509
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["clinic_a"]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert fingerprint(certificate) == certificate.fingerprint(hashes.SHA256()).hex()


def test_private_files_are_private_and_stay_out_of_the_repr(tmp_path: Path) -> None:
    identity = create_identity(tmp_path / "me", "me")
    for name in ("key.pem", "seal.key"):
        assert stat.S_IMODE((tmp_path / "me" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "me").stat().st_mode) == 0o700
    assert "PRIVATE" not in repr(identity)
    assert "X25519PrivateKey" not in repr(identity)


@pytest.mark.parametrize("left", ["key.pem", "seal.key", "certificate.pem", "card.toml"])
def test_nothing_is_overwritten(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("precious")
    with pytest.raises(ConfigError, match=f"{left} exists and is never overwritten"):
        create_identity(tmp_path, "clinic_a")
    assert [path.name for path in tmp_path.iterdir()] == [left]
    assert (tmp_path / left).read_text() == "precious"


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "a.b", "é", "a" * 64, "anyone", "a\n"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        create_identity(tmp_path / "x", name)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("days", [0, -1, 36501])
def test_bad_validities_are_refused(tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigError, match="1 to 36500 days"):
        create_identity(tmp_path, "a", days=days)


@pytest.mark.parametrize("address", ["localhost:1", "10.0.0.1:65535", "[::1]:7443", "a-b.example.org:80", "node_1:7"])
def test_addresses(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":80",
        "a:0",
        "a:65536",
        "a:-1",
        "a:8٠",
        "::1:80",
        "[x]:80",
        "http://a:80",
        "a b:80",
        "a/b:1",
        "a:",
    ],
)
def test_bad_addresses_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError):
        check_address(address)
    with pytest.raises(ConfigError):
        create_identity(tmp_path / "x", "a", address)


def test_an_absent_identity_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no identity: make one with `mpcnode init`"):
        load_identity(tmp_path)


def test_an_exposed_key_is_refused(tmp_path: Path) -> None:
    create_identity(tmp_path, "a")
    (tmp_path / "seal.key").chmod(0o604)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_identity(tmp_path)


@pytest.mark.parametrize("file", ["key.pem", "seal.key"])
def test_another_identitys_key_is_refused(tmp_path: Path, file: str) -> None:
    for name in ("a", "b"):
        create_identity(tmp_path / name, name)
    (tmp_path / "a" / file).write_bytes((tmp_path / "b" / file).read_bytes())
    with pytest.raises(ConfigError, match=f"{file} is not the key of"):
        load_identity(tmp_path / "a")


def test_another_certificate_than_the_cards_is_refused(tmp_path: Path) -> None:
    create_identity(tmp_path, "a")
    (tmp_path / "certificate.pem").write_text(create_identity(tmp_path / "other", "a").card.certificate)
    with pytest.raises(ConfigError, match=r"certificate.pem is not the certificate in .*card.toml"):
        load_identity(tmp_path)
    (tmp_path / "certificate.pem").unlink()
    with pytest.raises(ConfigError, match=r"certificate.pem does not exist"):
        load_identity(tmp_path)


@pytest.mark.parametrize("contents", ["", "not a key"])
def test_a_broken_key_is_refused(tmp_path: Path, contents: str) -> None:
    create_identity(tmp_path, "a")
    (tmp_path / "key.pem").write_text(contents)
    with pytest.raises(ConfigError, match="not a private key"):
        load_identity(tmp_path)


def _certificate(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, ca: bool | None, names: list[str]) -> str:
    subject = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


EC_KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = _certificate(EC_KEY, False, ["a"])
SEAL_KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "B"}, "name: a name is"),
        ({"name": "b"}, "the certificate is not made out to b"),
        ({"name": 3}, "name: "),
        ({"address": "nowhere"}, "address: an address is HOST:PORT"),
        ({"adress": "a:1"}, "adress: there is no such field"),
        ({"seal_key": None}, "seal_key: this field is missing"),
        ({"seal_key": "AAAA"}, "seal_key: a seal key is 32 bytes"),
        ({"seal_key": "*"}, "seal_key: a seal key is 32 bytes"),
        ({"certificate": "hello"}, "certificate: this is not a certificate"),
        ({"certificate": GOOD + GOOD}, "certificate: a card holds exactly one"),
        ({"certificate": _certificate(EC_KEY, True, ["a"])}, "certificate: .*no CA"),
        ({"certificate": _certificate(EC_KEY, None, ["a"])}, "certificate: .*no CA"),
        ({"certificate": _certificate(EC_KEY, False, [])}, "not made out to a"),
        ({"certificate": _certificate(EC_KEY, False, ["a", "b"])}, "not made out to a"),
        ({"certificate": _certificate(rsa.generate_private_key(65537, 2048), False, ["a"])}, "elliptic-curve"),
    ],
)
def test_a_bad_card_is_refused_by_file_and_field(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    fields = {"name": "a", "certificate": GOOD, "seal_key": SEAL_KEY} | change
    (tmp_path / "card.toml").write_text(tomli_w.dumps({k: v for k, v in fields.items() if v is not None}))
    with pytest.raises(ConfigError, match=complaint) as caught:
        Card.load(tmp_path / "card.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'card.toml'}: ")


def test_what_surrounds_a_certificate_is_dropped() -> None:
    assert Card(name="a", certificate="-----\nread me\n" + GOOD, seal_key=SEAL_KEY).certificate == GOOD


@pytest.mark.parametrize(("text", "complaint"), [("a = ", "not valid TOML"), (None, "does not exist")])
def test_a_broken_file_is_named(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "card.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"card.toml.*{complaint}"):
        Card.load(path)
