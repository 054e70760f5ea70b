"""What several kinds of tests need: a small cluster on this machine."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from mpcnode.cluster import Cluster
from mpcnode.identity import Card, Identity, create_identity

Members: TypeAlias = tuple[dict[str, Identity], Cluster]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def make_members(tmp_path: Path) -> Callable[..., Members]:
    """Make identities in tmp_path, and the cluster of a helper, evaluators, a coordinator and an analyst."""

    def make(evaluators: int = 2, protocol: str = "masked") -> Members:
        owners = [f"clinic_{letter}" for letter in "abcdef"[:evaluators]]
        names = ["helper", *owners, "coordinator"]
        ports = free_ports(len(names))
        made = {name: create_identity(tmp_path / name, name, f"127.0.0.1:{port}") for name, port in zip(names, ports, strict=True)}
        made["analyst"] = create_identity(tmp_path / "analyst", "analyst")
        cards: list[Card] = [identity.card for identity in made.values()]
        helper = "helper" if protocol == "masked" else None
        cluster = Cluster.of("test", cards, evaluators=owners, coordinator="coordinator", helper=helper, protocol=protocol)
        cluster.save(tmp_path / "cluster.toml")
        return made, cluster

    return make
