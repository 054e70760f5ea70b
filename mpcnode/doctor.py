"""Can these parties work together?  Asks every member that serves, and says in words what is in the way.

Each member is tried once, with a deadline: connect, look at the certificate that it shows, then ask `About.Info` a
few times for version, clock, cluster digest and the time that an answer takes.
"""

import socket
import ssl
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from typing import NamedTuple, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpcnode import tls
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.identity import Card, Identity, fingerprint, split_address
from mpcnode.wire import node_pb2, node_pb2_grpc

DEADLINE_S = 5.0
CALLS = 10
MAX_CLOCK_OFFSET_S = 2.0


class Answer(NamedTuple):
    """What a member said of itself, and how fast."""

    info: node_pb2.InfoReply
    round_trip_s: float  # the median of several
    clock_offset_s: float  # its clock minus ours, known to half a round trip


class Finding(NamedTuple):
    """One member's state; without problems it is well."""

    card: Card
    answer: Answer | None
    problems: tuple[str, ...]


def version() -> str:
    """The installed version of this package, "unknown" when it runs from a source tree that is not installed."""
    try:
        return metadata.version("mpcnode")
    except metadata.PackageNotFoundError:
        return "unknown"


def examine(
    identity: Identity, cluster: Cluster, deadline_s: float = DEADLINE_S, names: Sequence[str] = ()
) -> Iterator[Finding]:
    """Try every member that has an address, or those of these names, one after the other.

    ConfigError for the name of nobody, or of a member that serves nothing.
    """
    for name in names:
        if cluster.card(name).address is None:
            raise ConfigError(f"{name} has no address in cluster.toml, so nothing can be asked of it")
    for card in cluster.servers:
        if names and card.name not in names:
            continue
        problem = check_certificate(identity, cluster, card, deadline_s)
        answer = None if problem else ask(identity, cluster, card, deadline_s)
        if isinstance(answer, Answer):
            yield Finding(card, answer, tuple(compare(card, answer, cluster)))
        else:
            yield Finding(card, None, (problem or answer or "",))


def check_certificate(identity: Identity, cluster: Cluster, card: Card, deadline_s: float) -> str | None:
    """Connect without trust, to look at the certificate; a sentence if it is not the one on the card."""
    assert card.address is not None
    host, port = split_address(card.address)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # compared below, byte for byte
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(identity.folder / "certificate.pem", identity.folder / "key.pem")
    try:
        with (
            socket.create_connection((host, port), timeout=deadline_s) as connection,
            context.wrap_socket(connection, server_hostname=card.name) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
    except ssl.SSLError:
        return f"what answers at {card.address} does not speak TLS: is this the address and port of {card.name}?"
    except socket.gaierror:
        return f"the host of {card.name}, {host}, is not known here: correct its address in cluster.toml, or DNS"
    except TimeoutError:
        return (
            f"{card.name} does not answer at {card.address} within {deadline_s:g} s: is the address right, and does a "
            f"firewall on the way let port {port} through?"
        )
    except OSError as error:
        return (
            f"{card.name} cannot be reached at {card.address} ({error.strerror or error}): is it running there, and "
            f"does it listen on port {port}?"
        )
    return None if shown == card.der else _another_certificate(cluster, card, shown or b"")


def ask(identity: Identity, cluster: Cluster, card: Card, deadline_s: float) -> Answer | str:
    """Ask for `Info` over mutual TLS; a sentence if there is no answer."""
    trips_s: list[float] = []
    offsets_s: list[float] = []
    with closing(tls.channel(identity, cluster, card.name)) as channel:
        about = node_pb2_grpc.AboutStub(channel)
        try:
            info = about.Info(node_pb2.InfoRequest(), timeout=deadline_s)  # also opens the connection
            for _ in range(CALLS):
                started_ns, started = time.time_ns(), time.perf_counter()
                info = about.Info(node_pb2.InfoRequest(), timeout=deadline_s)
                trips_s.append(time.perf_counter() - started)
                offsets_s.append((info.unix_time_ns - started_ns) / 1e9 - trips_s[-1] / 2)
        except grpc.RpcError as error:
            # The stubs do not say that the error of a unary call is a grpc.Call as well.
            return _refusal(card, identity, cast(grpc.Call, error).code(), deadline_s)
    best = min(range(CALLS), key=trips_s.__getitem__)
    return Answer(info, statistics.median(trips_s), offsets_s[best])


def compare(card: Card, answer: Answer, cluster: Cluster) -> Iterator[str]:
    """A sentence for everything in which the member's answer does not fit to this side."""
    info = answer.info
    if info.name != card.name:
        yield f"{card.name} calls itself {info.name}: it runs with another identity, start it with the right --dir"
    if info.version != version():
        yield f"{card.name} runs version {info.version}, this is {version()}: install the same version everywhere"
    if info.cluster_digest != cluster.digest():
        yield f"{card.name} has another cluster.toml: give everybody the same file and restart {card.name}"
    if abs(answer.clock_offset_s) > MAX_CLOCK_OFFSET_S + answer.round_trip_s / 2:
        way = "ahead of" if answer.clock_offset_s > 0 else "behind"
        yield f"the clock of {card.name} is {abs(answer.clock_offset_s):.1f} s {way} this one: let NTP set both"


def _another_certificate(cluster: Cluster, card: Card, der: bytes) -> str:
    try:
        shown = x509.load_der_x509_certificate(der)
    except ValueError:
        return f"what answers at {card.address} shows no certificate: is this the address and port of {card.name}?"
    owner = cluster.by_certificate(shown.public_bytes(Encoding.PEM))
    if owner is not None:
        return f"{owner.name} answers at {card.address}, the address of {card.name}: correct it in cluster.toml"
    return (
        f"what answers at {card.address} shows the certificate {fingerprint(shown)[:16]}, the card of {card.name} has "
        f"{fingerprint(card.x509)[:16]}: ask {card.name} for its current card, and compare it by telephone"
    )


def _refusal(card: Card, identity: Identity, code: grpc.StatusCode, deadline_s: float) -> str:
    match code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{card.name} accepts connections and gives no answer within {deadline_s:g} s: is it overloaded?"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"{card.name} answers at {card.address} but not as this version expects: update the older one"
        case grpc.StatusCode.UNAVAILABLE if card.expired(datetime.now(UTC)):
            return f"the certificate of {card.name} is not valid today: it needs a new identity and a new card"
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.UNAUTHENTICATED:
            return (
                f"{card.name} refuses the certificate of {identity.name}: does its cluster.toml hold the current card "
                f"of {identity.name}, and is that certificate still valid?"
            )
        case _:
            return f"{card.name} answers with the error {code.name}: look into its log"
