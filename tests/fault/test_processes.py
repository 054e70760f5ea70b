"""Nodes as processes of their own: killed, frozen and told to stop in the middle of a job."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from conftest import Clerk, layer

from mpcnode.identity import split_address
from mpcnode.wire import node_pb2

pytestmark = pytest.mark.usefixtures("wdbc")
Processes = dict[str, subprocess.Popen[str]]

LONG = layer(length=1_000_000)


@pytest.fixture
def processes(clerk: Clerk, tmp_path: Path) -> Iterator[Processes]:
    """All nodes of the clerk's cluster, served by the command line, in the middle of a long job."""
    made: Processes = {}
    for name in clerk.cluster.parties:
        command = [sys.executable, "-m", "mpcnode", "serve", "--dir", str(tmp_path / name), "--threads", "1"]
        command += ["--cluster", str(tmp_path / "cluster.toml")]
        with (tmp_path / f"{name}.log").open("w") as log:
            made[name] = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=dict(os.environ))
    for name in made:
        wait_until_served(clerk, name)
    clerk.begin(LONG, deadline_s=2.0)
    next(clerk.watch("clinic_a"))
    yield made
    for process in made.values():
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(10)


def wait_until_served(clerk: Clerk, name: str) -> None:
    """Sooner than gRPC, which takes longer and longer between two attempts to connect."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(split_address(f"{clerk.cluster.card(name).address}"), timeout=5).close()
        except ConnectionRefusedError:
            Event().wait(0.05)
        else:
            return
    pytest.fail(f"{name} does not serve")


def test_a_killed_node_is_named_at_once(clerk: Clerk, processes: Processes) -> None:
    processes["clinic_b"].kill()
    started = time.monotonic()
    for failed in clerk.failures(but="clinic_b").values():
        assert "the link to clinic_b failed at" in failed.cause
        assert failed.peer == "clinic_b"
    assert time.monotonic() - started < 5


def test_a_killed_helper_is_named(clerk: Clerk, processes: Processes) -> None:
    processes["helper"].kill()
    for failed in clerk.failures(but="helper").values():
        assert failed.peer == "helper"


@pytest.mark.parametrize("frozen", ["clinic_a", "helper"])
def test_a_frozen_node_is_named_in_time_and_comes_back(clerk: Clerk, processes: Processes, frozen: str) -> None:
    processes[frozen].send_signal(signal.SIGSTOP)
    for failed in clerk.failures(but=frozen).values():
        assert failed.peer == frozen
        assert "for 2 s" in failed.cause
        assert failed.where.startswith("%")
    processes[frozen].send_signal(signal.SIGCONT)
    assert clerk.last(frozen).HasField("failed")
    clerk.begin(layer(), attempt=2)
    for name in clerk.nodes:
        assert clerk.last(name, attempt=2).HasField("finished")


def test_a_node_that_is_told_to_stop_tells_the_others_and_goes(
    clerk: Clerk, processes: Processes, tmp_path: Path
) -> None:
    started = time.monotonic()
    processes["clinic_b"].send_signal(signal.SIGTERM)
    assert processes["clinic_b"].wait(10) == 0
    assert time.monotonic() - started < 5
    for failed in clerk.failures(but="clinic_b").values():
        assert failed.cause == "clinic_b was shut down"
    for name in clerk.nodes:
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text()


def test_a_coordinator_that_comes_back_hears_everything(clerk: Clerk, processes: Processes) -> None:
    clerk.nodes["helper"].Abort(node_pb2.AbortRequest(job="job", attempt=1, cause="enough"), timeout=20)
    clerk.failures()  # every node has heard of it
    graph = layer(length=3)
    clerk.begin(graph, "second")
    assert clerk.last("clinic_a", "second").HasField("finished")
    first, again = list(clerk.watch("clinic_a", "second")), list(clerk.watch("clinic_a", "second"))
    assert first == again
    assert [event.WhichOneof("event") for event in first] == ["progress", "sealed", "sealed", "finished"]
    assert (first[0].progress.done, first[0].progress.total) == (3, 3)
