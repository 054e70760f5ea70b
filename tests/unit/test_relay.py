"""The benchmarks' relay: what arrives when, by a clock that the test holds, and that connections get through whole."""

from __future__ import annotations

import contextlib
import math
import socket
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from measure import apart
from relay import BUFFER_BYTES, Line, Network, Way, between
from run import parse_network

from coordinator.local import LocalCluster
from mpcnode.cluster import Cluster

FAST = Network(0.02, math.inf)
SLOW = Network(0.02, 1000.0)


def way(network: Network, out: Line | None = None, into: Line | None = None) -> Way:
    return Way(out or Line(network.bytes_per_s), into or Line(network.bytes_per_s), network)


def test_bytes_travel_for_the_delay() -> None:
    line = way(FAST)
    line.enter(1.0, b"a")
    line.enter(1.005, b"b")
    assert line.next_s == pytest.approx(1.02)
    assert line.due(1.0199) == []
    assert line.due(1.0201) == [b"a"]
    assert line.next_s == pytest.approx(1.025)
    assert line.due(2.0) == [b"b"] and line.next_s is None


def test_bytes_leave_one_after_the_other_at_the_rate() -> None:
    line = way(SLOW)
    line.enter(0.0, bytes(100))  # 0.1 s each
    line.enter(0.0, bytes(100))
    line.enter(0.15, bytes(100))
    assert line.waiting_bytes == 300
    arrivals = []
    while (next_s := line.next_s) is not None:
        arrivals.append(next_s)
        line.due(next_s)
    assert arrivals == pytest.approx([0.12, 0.22, 0.32])  # the line is passed once, not once at each end
    assert line.waiting_bytes == 0


def test_a_line_that_rests_saves_nothing_up() -> None:
    line = way(SLOW)
    line.enter(0.0, bytes(100))
    line.due(9.0)
    line.enter(10.0, bytes(1000))
    assert line.next_s == pytest.approx(11.02)


def test_connections_of_a_node_share_its_line_out() -> None:
    out = Line(SLOW.bytes_per_s)
    first, second = way(SLOW, out), way(SLOW, out)
    first.enter(0.0, bytes(100))
    second.enter(0.0, bytes(100))
    assert (first.next_s, second.next_s) == pytest.approx((0.12, 0.22))


def test_connections_to_a_node_share_its_line_in() -> None:
    into = Line(SLOW.bytes_per_s)
    first, second = way(SLOW, None, into), way(SLOW, None, into)
    first.enter(0.0, bytes(100))
    second.enter(0.0, bytes(100))
    assert (first.next_s, second.next_s) == pytest.approx((0.12, 0.22))


def test_ways_of_different_nodes_do_not_meet() -> None:
    first, second = way(SLOW), way(SLOW)
    first.enter(0.0, bytes(100))
    second.enter(0.0, bytes(100))
    assert (first.next_s, second.next_s) == pytest.approx((0.12, 0.12))


def test_who_sends_too_much_ahead_is_held_back_until_it_has_left() -> None:
    line = way(SLOW)
    line.enter(0.0, bytes(BUFFER_BYTES + 20))  # 20 bytes are on their way at any time
    assert not line.is_full
    line.enter(0.0, b"x")
    assert line.is_full
    line.due(2000.0)
    assert not line.is_full


def echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def test_a_connection_gets_through_whole() -> None:
    sent = bytes(range(256)) * 20_000  # more than all buffers on the way hold
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=echo, args=(listener,), daemon=True)
        answering.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with between({"b": address}, [("a", "b")], Network(0.001, 1e9)) as fronts:
            host, port = fronts["a", "b"].split(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                sending = threading.Thread(target=connection.sendall, args=(sent,), daemon=True)
                sending.start()
                got = bytearray()
                while len(got) < len(sent):
                    got += connection.recv(1 << 16)
                sending.join(10)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""  # the end gets through as well
        answering.join(10)
    assert bytes(got) == sent and not answering.is_alive()


def test_nobody_at_the_other_end_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"127.0.0.1:{taken.getsockname()[1]}"
    with between({"b": free}, [("a", "b")], FAST) as fronts:
        host, port = fronts["a", "b"].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            assert connection.recv(1) == b""


# ---- between nodes ---------------------------------------------------------------------------------------------------
def test_every_pair_of_nodes_has_a_relay_and_the_coordinator_none(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path)
    at = {card.name: card.address for card in local.cluster.servers}
    with contextlib.ExitStack() as stack:
        apart(stack, local, FAST)
        views = {name: Cluster.load(tmp_path / name / "cluster.toml") for name in local.nodes}
    seen = {(name, card.name): card.address for name, view in views.items() for card in view.servers}
    moved = {pair for pair, address in seen.items() if address != at[pair[1]]}
    assert moved == {("helper", "clinic_a"), ("helper", "clinic_b"), ("clinic_a", "clinic_b")}
    assert len({seen[pair] for pair in moved}) == 3
    assert {view.digest() for view in views.values()} == {local.cluster.digest()}


def test_networks_by_name_and_by_numbers() -> None:
    assert parse_network("wan") == parse_network("40ms/352Mbit") == parse_network("40ms/352Mbit/s") == (0.02, 44e6)
    assert parse_network("lan") == (0.00025, 125e6)
    with pytest.raises(
        ValueError, match="'40ms' is neither of lan, wan, nor a round trip and a rate like 40ms/352Mbit"
    ):
        parse_network("40ms")
