"""cluster.toml, and over loopback that mutual TLS lets in exactly its members."""

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mpcnode import tls
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.identity import Card, Identity, create_identity, self_signed
from mpcnode.wire import node_pb2, node_pb2_grpc

NAMES = ["helper", "clinic_a", "clinic_b", "coordinator", "analyst"]
NOW = datetime.now(UTC)


def identities(folder: Path, *names: str) -> dict[str, Identity]:
    return {n: create_identity(folder / n, n, None if n == "analyst" else "127.0.0.1:1") for n in names}


def cluster_of(members: dict[str, Identity], **changes: object) -> Cluster:
    fields: dict[str, object] = {
        "name": "trial",
        "helper": "helper",
        "evaluators": ("clinic_a", "clinic_b"),
        "coordinator": "coordinator",
        "cards": tuple(member.card for member in members.values()),
    }
    return Cluster.model_validate(fields | changes)


def aged(identity: Identity, start: timedelta, end: timedelta) -> Identity:
    """The same party with a certificate that is valid from `start` to `end`, counted from now."""
    certificate = self_signed(identity.name, identity.signing_key, NOW + start, NOW + end)
    pem = certificate.public_bytes(Encoding.PEM).decode()
    card = Card(**{**identity.card.document(), "certificate": pem})
    return Identity(identity.folder, card, identity.signing_key, identity.seal_private)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    return identities(tmp_path_factory.mktemp("members"), *NAMES)


@pytest.fixture(scope="module")
def cluster(members: dict[str, Identity]) -> Cluster:
    return cluster_of(members)


# ---- the file ------------------------------------------------------------------------------------------------


def test_a_cluster_survives_the_disk(tmp_path: Path, cluster: Cluster) -> None:
    cluster.save(tmp_path / "cluster.toml")
    read = Cluster.load(tmp_path / "cluster.toml")
    assert read == cluster
    assert read.parties == ("helper", "clinic_a", "clinic_b")
    assert [card.name for card in read.servers] == ["helper", "clinic_a", "clinic_b", "coordinator"]
    assert read.digest() == cluster.digest()


def test_the_parties_of_a_cluster_without_helper(members: dict[str, Identity]) -> None:
    assert cluster_of(members, helper=None, protocol="cleartext").parties == ("clinic_a", "clinic_b")


def test_the_digest_covers_roles_and_keys_only(tmp_path: Path, members: dict[str, Identity], cluster: Cluster) -> None:
    moved = members["clinic_a"].card.model_copy(update={"address": "10.0.0.1:7"})
    cards = (moved, *(c for c in reversed(cluster.cards) if c.name != "clinic_a"))
    assert cluster_of(members, cards=cards).digest() == cluster.digest()
    other = identities(tmp_path, "analyst")
    differing = [
        cluster_of(members | other),
        cluster_of(members, name="other"),
        cluster_of(members, evaluators=("clinic_b", "clinic_a")),
        cluster_of(members, protocol="cleartext"),
        cluster_of({name: members[name] for name in NAMES if name != "analyst"}),
    ]
    assert len({cluster.digest(), *(c.digest() for c in differing)}) == 6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"helper": None}, "needs a helper"),
        ({"helper": "clinic_a"}, "clinic_a is helper and evaluator"),
        ({"evaluators": ("clinic_a",)}, "at least 2"),
        ({"evaluators": ("clinic_a", "clinic_a")}, "twice among the evaluators"),
        ({"evaluators": ("clinic_a", "clinic_c")}, "clinic_c has a role but no"),
        ({"evaluators": ("clinic_a", "analyst")}, "analyst has a role but its card has no address"),
        ({"coordinator": "helper"}, "helper coordinates and computes"),
        ({"coordinator": "nobody"}, "nobody has a role but no"),
        ({"protocol": "magic"}, "protocol"),
        ({"name": "Trial!"}, "name"),
        ({"size": 3}, "size"),
    ],
)
def test_a_bad_cluster_is_refused(members: dict[str, Identity], change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        cluster_of(members, **change)


def test_a_name_or_certificate_stands_once(tmp_path: Path, members: dict[str, Identity], cluster: Cluster) -> None:
    other = create_identity(tmp_path, "analyst")
    with pytest.raises(ValueError, match="two cards have the name analyst"):
        cluster_of(members, cards=(*cluster.cards, other.card))
    twin = members["clinic_a"].card.model_copy(update={"name": "clinic_c"})
    with pytest.raises(ValueError, match="not made out to clinic_c"):
        cluster_of(members, cards=(*cluster.cards, twin))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("coordinator = ", "koordinator = ", "coordinator: this field is missing"),
        ("[cluster]", "[clusters]", r"wants one \[cluster\]"),
        ("[[party]]", "[[parties]]", r"a \[\[party\]\] for each card"),
        ('address = "127.0.0.1:1"', 'address = "127.0.0.1"', r"party\[1\].address: an address is HOST:PORT"),
        ('evaluators = [\n    "clinic_a",', "evaluators = [\n    7,", r"evaluators\[1\]: "),
    ],
)
def test_a_bad_file_is_refused_by_field(tmp_path: Path, cluster: Cluster, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "cluster.toml"
    cluster.save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=complaint):
        Cluster.load(path)


def test_of_says_what_does_not_fit(members: dict[str, Identity]) -> None:
    cards = [member.card for member in members.values()]
    made = Cluster.of("trial", cards, evaluators=["clinic_a", "clinic_b"], coordinator="coordinator", helper="helper")
    assert made == cluster_of(members)
    with pytest.raises(ConfigError, match=r"the cluster cannot be made: .*needs a helper"):
        Cluster.of("trial", cards, evaluators=["clinic_a", "clinic_b"], coordinator="coordinator")


def test_members_are_found_by_name_and_by_certificate(tmp_path: Path, cluster: Cluster) -> None:
    card = cluster.card("clinic_b")
    assert cluster.by_certificate(card.certificate.encode()) is card
    stranger = create_identity(tmp_path, "clinic_b").card
    assert cluster.by_certificate(stranger.certificate.encode()) is None
    assert cluster.by_certificate(b"nonsense") is None
    with pytest.raises(ConfigError, match="clinic_x is not in the cluster trial"):
        cluster.card("clinic_x")


def test_an_identity_must_be_the_one_in_the_cluster(tmp_path: Path, cluster: Cluster) -> None:
    renewed = create_identity(tmp_path, "clinic_a", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="another card for clinic_a"):
        tls.server_credentials(renewed, cluster)
    with pytest.raises(ConfigError, match="another card for clinic_a"):
        tls.channel(renewed, cluster, "clinic_b")


def test_validity_is_told_before_it_ends(members: dict[str, Identity]) -> None:
    day = timedelta(days=1)
    assert cluster_of(members).validity() == []
    dated = cluster_of(
        members
        | {
            "clinic_a": aged(members["clinic_a"], -9 * day, -2 * day),
            "clinic_b": aged(members["clinic_b"], -9 * day, 5 * day),
            "analyst": aged(members["analyst"], 2 * day, 9 * day),
        }
    )
    expired, ending, early = dated.validity(NOW)
    assert expired.startswith(f"the certificate of clinic_a expired on {NOW - 2 * day:%Y-%m-%d}: clinic_a makes a new")
    assert ending.startswith("the certificate of clinic_b expires on ")
    assert early.startswith("the certificate of analyst is valid from ")
    with pytest.raises(ConfigError, match="the certificate of clinic_a expired"):
        dated.check_validity(NOW)
    early = cluster_of(members | {"analyst": aged(members["analyst"], 2 * day, 9 * day)})
    early.check_validity(NOW)  # the computation does not need the analyst's
    early.check_dialogue("clinic_a", NOW)
    for check in (lambda: early.check_validity(NOW, ["analyst"]), lambda: early.check_dialogue("analyst", NOW)):
        with pytest.raises(ConfigError, match=r"the certificate of analyst is valid from .* on: check this clock"):
            check()
    dated.check_dialogue("clinic_b", NOW)  # whatever has become of clinic_a


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("taken", "is not free to listen on: is a node running already"),
        ("192.0.2.1:7000", "192.0.2.1:7000 is no address of this machine"),
        ("nowhere.invalid:7000", "the host of nowhere.invalid:7000 is not known here"),
    ],
)
def test_where_nobody_can_listen(
    members: dict[str, Identity], cluster: Cluster, capfd: pytest.CaptureFixture[str], address: str, why: str
) -> None:
    """In a sentence, without a line of gRPC's beside it."""
    credentials = tls.server_credentials(members["clinic_a"], cluster)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}" if address == "taken" else address
        with pytest.raises(ConfigError, match=why):
            tls.listen(grpc.server(ThreadPoolExecutor(1)), where, credentials, "node")
    assert capfd.readouterr().err == ""


# ---- mutual TLS over loopback --------------------------------------------------------------------------------


class WhoAmI(node_pb2_grpc.AboutServicer):
    """Answers with the name of the client, as TLS proved it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def Info(self, request: node_pb2.InfoRequest, context: grpc.ServicerContext) -> node_pb2.InfoReply:
        return node_pb2.InfoReply(name=tls.peer_card(context, self.cluster).name)


Serve = Callable[..., str]  # of identity, cluster and perhaps other credentials: the address


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[grpc.Server] = []

    def start(identity: Identity, cluster: Cluster, credentials: grpc.ServerCredentials | None = None) -> str:
        server = grpc.server(ThreadPoolExecutor(2), options=tls.SERVER_OPTIONS)
        node_pb2_grpc.add_AboutServicer_to_server(WhoAmI(cluster), server)
        credentials = credentials or tls.server_credentials(identity, cluster)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait(5)


def ask(channel: grpc.Channel) -> str:
    """The name that the server at the other end sees; waits at most 10 s."""
    with closing(channel):
        return node_pb2_grpc.AboutStub(channel).Info(node_pb2.InfoRequest(), timeout=10).name


def refused(channel: grpc.Channel, codes: Sequence[grpc.StatusCode] = (grpc.StatusCode.UNAVAILABLE,)) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    assert caught.value.code() in codes
    return str(caught.value.details())


@pytest.mark.parametrize("client", ["clinic_a", "helper", "coordinator", "analyst"])
def test_every_member_is_recognised(serve: Serve, members: dict[str, Identity], cluster: Cluster, client: str) -> None:
    address = serve(members["clinic_b"], cluster)
    assert ask(tls.channel(members[client], cluster, "clinic_b", address)) == client


def test_a_stranger_is_refused(tmp_path: Path, serve: Serve, members: dict[str, Identity], cluster: Cluster) -> None:
    stranger = create_identity(tmp_path, "clinic_a", "127.0.0.1:1")
    address = serve(members["clinic_b"], cluster)
    refused(tls.channel(stranger, cluster_of(members | {"clinic_a": stranger}), "clinic_b", address))


def test_a_client_without_certificate_is_refused(serve: Serve, members: dict[str, Identity], cluster: Cluster) -> None:
    address = serve(members["clinic_b"], cluster)
    credentials = grpc.ssl_channel_credentials(members["clinic_b"].card.certificate.encode())
    options = [("grpc.ssl_target_name_override", "clinic_b")]
    refused(grpc.secure_channel(address, credentials, options))


def test_plaintext_is_refused(serve: Serve, members: dict[str, Identity], cluster: Cluster) -> None:
    refused(grpc.insecure_channel(serve(members["clinic_b"], cluster)))


def test_an_expired_client_is_refused(serve: Serve, members: dict[str, Identity]) -> None:
    old = aged(members["clinic_a"], timedelta(days=-9), timedelta(days=-1))
    cluster = cluster_of(members | {"clinic_a": old})
    refused(tls.channel(old, cluster, "clinic_b", serve(members["clinic_b"], cluster)))


def test_an_expired_server_is_refused(serve: Serve, members: dict[str, Identity]) -> None:
    old = aged(members["clinic_b"], timedelta(days=-9), timedelta(days=-1))
    cluster = cluster_of(members | {"clinic_b": old})
    details = refused(tls.channel(members["clinic_a"], cluster, "clinic_b", serve(old, cluster)))
    assert "CERTIFICATE_VERIFY_FAILED" in details


def test_one_member_cannot_stand_in_for_another(serve: Serve, members: dict[str, Identity], cluster: Cluster) -> None:
    address = serve(members["clinic_a"], cluster)
    details = refused(tls.channel(members["helper"], cluster, "clinic_b", address))
    assert "CERTIFICATE_VERIFY_FAILED" in details


def test_a_member_cannot_vouch_for_another(serve: Serve, members: dict[str, Identity], cluster: Cluster) -> None:
    """A key that signs its owner's certificate signs no other that anybody accepts."""
    signer, key = members["clinic_a"], ec.generate_private_key(ec.SECP256R1())
    forged = (
        x509.CertificateBuilder()
        .subject_name(members["clinic_b"].card.x509.subject)
        .issuer_name(signer.card.x509.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("clinic_b")]), critical=False)
        .sign(signer.signing_key, hashes.SHA256())
    )
    chain = forged.public_bytes(Encoding.PEM) + signer.card.certificate.encode()
    key_pem = Identity(Path(), members["clinic_b"].card, key, members["clinic_b"].seal_private).key_pem
    address = serve(members["helper"], cluster)
    credentials = grpc.ssl_channel_credentials(members["helper"].card.certificate.encode(), key_pem, chain)
    refused(grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "helper")]))


def test_a_certificate_that_tls_accepts_is_still_compared(
    tmp_path: Path, serve: Serve, members: dict[str, Identity], cluster: Cluster
) -> None:
    """Were the TLS roots ever wider than the cluster, the handler would still refuse."""
    stranger = create_identity(tmp_path, "clinic_a", "127.0.0.1:1")
    wider = cluster_of(members | {"clinic_a": stranger})
    address = serve(members["clinic_b"], cluster, tls.server_credentials(members["clinic_b"], wider))
    channel = tls.channel(stranger, wider, "clinic_b", address)
    assert "not in the cluster trial" in refused(channel, [grpc.StatusCode.UNAUTHENTICATED])


def test_a_member_without_address_cannot_be_asked(members: dict[str, Identity], cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="analyst has no address"):
        tls.channel(members["clinic_a"], cluster, "analyst")
