"""Mutual TLS for gRPC: both ends show a certificate of the cluster, and each is compared byte for byte.

A server's trust roots are the cluster's certificates; a client's only root is the one certificate of the peer that
it wants.  Neither end ever falls back to plaintext, to the system's authorities or to a proxy.
"""

import errno
import socket
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import cast

import grpc

from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.identity import Card, Identity, split_address

MAX_MESSAGE_BYTES = 64 * 2**20

Options = Sequence[tuple[str, int | str]]

_KEEPALIVE: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),  # a helper's link is silent for long
)
_LIMITS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
SERVER_OPTIONS: Options = (
    *_KEEPALIVE,
    *_LIMITS,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # else the peers' keepalives count as abuse
    ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, and must fail
)
CHANNEL_OPTIONS: Options = (
    *_KEEPALIVE,
    *_LIMITS,
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_http_proxy", 0),  # an environment variable must not reroute a computation
)


def server_credentials(identity: Identity, cluster: Cluster) -> grpc.ServerCredentials:
    """Credentials that refuse, in the handshake, a client without a valid certificate of the cluster.

    Every handler still calls `peer_card`: only it says which member the client is.
    """
    cluster.check_member(identity)
    roots = "".join(card.certificate for card in cluster.cards).encode()
    pair = (identity.key_pem, identity.card.certificate.encode())
    return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=True)


def listen(server: grpc.Server, address: str, credentials: grpc.ServerCredentials, who: str) -> int:
    """Have a server listen at HOST:PORT; the port.  ConfigError says why it cannot; who: of what may run there."""
    _check_free(address, who)
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"{address} is not free to listen on: is a {who} running already?") from error


def _check_free(address: str, who: str) -> None:
    """Try it with a plain socket first, which says what is wrong; gRPC says it to the log only."""
    try:
        host, port = split_address(address)
        family, kind, number, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except ValueError:  # such as port 0, any that is free
        return
    except socket.gaierror as error:
        raise ConfigError(f"the host of {address} is not known here: name an address of this machine") from error
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"is not free to listen on: is a {who} running already?",
            errno.EADDRNOTAVAIL: "is no address of this machine: name one with --listen",
            errno.EACCES: "is not for this user to listen on: take a port above 1023",
        }.get(error.errno or 0)
        if why is not None:  # all else is gRPC's to judge
            raise ConfigError(f"{address} {why}") from error


def channel(identity: Identity, cluster: Cluster, peer_name: str, address: str | None = None) -> grpc.Channel:
    """A lazy channel to the member `peer_name`, at `address` if that is not the one on its card.

    Only the peer's own certificate is accepted at the other end.  ConfigError if the peer is no member or serves
    nothing, or if the cluster does not hold this identity.
    """
    cluster.check_member(identity)
    peer = cluster.card(peer_name)
    target = address or peer.address
    if target is None:
        raise ConfigError(f"{peer_name} has no address in cluster.toml, so nothing can be asked of it")
    credentials = grpc.ssl_channel_credentials(
        peer.certificate.encode(), identity.key_pem, identity.card.certificate.encode()
    )
    name = ("grpc.ssl_target_name_override", peer_name)  # the certificate names the party, not its host
    return grpc.secure_channel(target, credentials, [*CHANNEL_OPTIONS, name])


def let_go(channel: grpc.Channel, patience_s: float = 2.0) -> None:
    """Close a channel.  gRPC's own `close` waits without end for a call that Ctrl-C left half made; this does not."""
    closing = Thread(target=channel.close, name="closing", daemon=True)
    closing.start()
    closing.join(patience_s)


class Stranger(Exception):
    """A client whose certificate is none of the cluster's; the message says so to them."""


def member(auth: Mapping[str, Sequence[bytes]], cluster: Cluster) -> Card:
    """The member whose exact certificate the client presented.  Raises Stranger.

    auth: of the call, as of grpc.ServicerContext.auth_context.
    """
    presented = auth.get("x509_pem_cert")
    if not presented:
        raise Stranger("the connection carries no client certificate: connect with mutual TLS")
    card = cluster.by_certificate(presented[0])
    if card is None:
        raise Stranger(f"this certificate is not in the cluster {cluster.name}: send its members your card")
    return card


def peer_card(context: grpc.ServicerContext, cluster: Cluster) -> Card:
    """The member whose exact certificate the client presented; otherwise ends the call as UNAUTHENTICATED."""
    try:  # the stubs say bytes; every property is a list of bytes
        return member(cast(Mapping[str, Sequence[bytes]], context.auth_context()), cluster)
    except Stranger as stranger:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{stranger}")
        raise AssertionError("abort returned") from None
