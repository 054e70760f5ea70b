"""Nodes over real streams, and what others may do to them: every fault ends every node's attempt, with a name."""

import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import DATA, WEIGHTS, Clerk, layer

from mpcnode import frames, tls
from mpcnode.frames import Piece
from mpcnode.graph import Graph
from mpcnode.grpc_links import METHOD
from mpcnode.service import Server
from mpcnode.wire import node_pb2, peer_pb2

pytestmark = pytest.mark.usefixtures("wdbc")
Servers = dict[str, Server]
WANTED = np.maximum(DATA @ WEIGHTS, 0)


def test_a_job_runs_and_only_its_recipients_read_the_result(clerk: Clerk, servers: Servers) -> None:
    graph = layer(length=5)
    for attempt in (1, 2):
        clerk.begin(graph, attempt=attempt)
        ends = {name: clerk.last(name, attempt=attempt).finished for name in clerk.nodes}
        assert {end.rounds for end in ends.values()} == {ends["helper"].rounds}
        for recipient in ("analyst", "clinic_b"):
            np.testing.assert_allclose(
                clerk.open(graph, attempt=attempt, recipient=recipient)["activations"], WANTED, atol=1e-4
            )
    assert "activations" not in clerk.open(graph, recipient="clinic_a")
    profile = {op.name: op for op in ends["clinic_a"].profile}
    assert (profile["mul"].calls, profile["mul"].where) == (5, "train.py:12") or profile["mul"].calls == 5
    assert profile["sign"].sent_bytes > 0
    assert {link.peer: bool(link.sent_bytes) for link in ends["clinic_a"].traffic} == {
        "helper": False,
        "clinic_b": True,
    }


def test_an_attempt_leaves_no_thread_behind(clerk: Clerk, servers: Servers) -> None:
    clerk.begin(layer())
    for name in clerk.nodes:
        assert clerk.last(name).HasField("finished")
    clerk.prepare("clinic_a", layer(), "other")
    clerk.nodes["clinic_a"].Abort(node_pb2.AbortRequest(job="other", attempt=1, cause="enough"))
    for thread in threading.enumerate():
        if thread.name.startswith(("from ", "job ")):
            thread.join(5)
            assert not thread.is_alive(), thread.name


def test_a_coordinator_that_lies_is_found_out(clerk: Clerk, servers: Servers) -> None:
    for name in clerk.nodes:
        clerk.prepare(name, layer(by=2.0 if name == "clinic_b" else 1.0))
    for name in clerk.nodes:
        clerk.start(name)
    for failed in clerk.failures().values():
        assert "it was given another program: do not trust the coordinator" in failed.cause
        assert failed.where == "the start"
    for name in clerk.nodes:
        assert not any(event.HasField("sealed") for event in clerk.watch(name))


def test_an_abort_reaches_every_node(clerk: Clerk, servers: Servers) -> None:
    clerk.begin(layer(length=1_000_000))
    next(clerk.watch("clinic_a"))
    clerk.nodes["clinic_b"].Abort(node_pb2.AbortRequest(job="job", attempt=1, cause="analyst cancelled it"), timeout=10)
    assert {failed.cause for failed in clerk.failures().values()} == {"analyst cancelled it"}
    clerk.begin(layer(), attempt=2)
    assert clerk.last("clinic_b", attempt=2).HasField("finished")


def test_a_node_that_is_shut_down_says_so(clerk: Clerk, servers: Servers) -> None:
    clerk.begin(layer(length=1_000_000))
    next(clerk.watch("clinic_a"))
    servers["clinic_b"].stop()
    for failed in clerk.failures(but="clinic_b").values():
        assert failed.cause == "clinic_b was shut down"


# ---- a helper that does as it likes ----------------------------------------------------------------------------------
class Rogue:
    """A stream to a node, with the certificate of any member: this test writes the frames."""

    def __init__(self, clerk: Clerk, caller: str, target: str) -> None:
        self._frames: SimpleQueue[bytes | None] = SimpleQueue()
        self.channel = tls.channel(clerk.members[caller], clerk.cluster, target)
        exchange: Any = self.channel.stream_stream(METHOD)
        self.call = exchange(iter(self._frames.get, None), timeout=20)

    def say(self, *said: bytes | peer_pb2.Frame) -> None:
        for frame in said:
            self._frames.put(frame if isinstance(frame, bytes) else frame.SerializeToString())

    def hear(self) -> peer_pb2.Frame:
        """The next frame of the node."""
        return peer_pb2.Frame.FromString(next(self.call))

    def refusal(self) -> tuple[grpc.StatusCode, str]:
        """How the node ended the call."""
        with pytest.raises(grpc.RpcError) as refused:
            for _ in self.call:
                pass
        error: Any = refused.value
        return error.code(), error.details()

    def close(self) -> None:
        self._frames.put(None)
        self.call.cancel()
        self.channel.close()


@pytest.fixture
def rogue(clerk: Clerk, servers: Servers) -> Iterator[Callable[..., Rogue]]:
    made: list[Rogue] = []

    def make(caller: str, target: str) -> Rogue:
        made.append(Rogue(clerk, caller, target))
        return made[-1]

    yield make
    for one in made:
        one.close()


def hello(clerk: Clerk, caller: str, graph: Graph, **change: Any) -> peer_pb2.Frame:
    fields: dict[str, Any] = {
        "job": "job",
        "attempt": 1,
        "party": caller,
        "graph_digest": graph.digest(),
        "protocol": "masked",
    }
    fields |= {"cluster_digest": clerk.cluster.digest(), "seed": os.urandom(32)}
    return peer_pb2.Frame(hello=peer_pb2.Hello(**(fields | change)))


def test_strangers_to_an_attempt_are_refused(clerk: Clerk, rogue: Callable[..., Rogue]) -> None:
    graph = layer()
    clerk.prepare("clinic_b", graph)
    late = rogue("helper", "clinic_b")
    late.say(hello(clerk, "helper", graph, job="another"))
    assert late.refusal() == (grpc.StatusCode.NOT_FOUND, "clinic_b knows nothing of attempt 1 at 'another'")
    rude = rogue("helper", "clinic_b")
    rude.say(frames.write([Piece(1, 7, 0, 8, bytes(8))]))
    code, sentence = rude.refusal()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "it sent something else than a greeting first" in sentence


def test_a_replayed_greeting_with_another_seed_is_refused(clerk: Clerk, rogue: Callable[..., Rogue]) -> None:
    graph = layer()
    clerk.prepare("clinic_b", graph)
    first, second = rogue("helper", "clinic_b"), rogue("helper", "clinic_b")
    first.say(hello(clerk, "helper", graph))
    assert first.hear().hello.party == "clinic_b"
    second.say(hello(clerk, "helper", graph))
    assert second.refusal() == (
        grpc.StatusCode.ALREADY_EXISTS,
        "clinic_b needs no stream from helper for job, attempt 1",
    )
    assert first.call.is_active()


def test_a_node_refuses_to_be_dialled_by_whom_it_dials_itself(clerk: Clerk, rogue: Callable[..., Rogue]) -> None:
    graph = layer()
    clerk.prepare("clinic_a", graph)
    stream = rogue("clinic_b", "clinic_a")
    stream.say(hello(clerk, "clinic_b", graph))
    assert stream.refusal()[0] is grpc.StatusCode.ALREADY_EXISTS


GREETINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"party": "clinic_a"}, "it calls itself 'clinic_a'"),
    "another program": ({"graph_digest": bytes(32)}, "it was given another program"),
    "another cluster": ({"cluster_digest": bytes(32)}, "it has another cluster.toml"),
    "another protocol": ({"protocol": "cleartext"}, "it was told to run another protocol"),
    "no seed": ({"seed": b""}, "its seed has 0 bytes"),
}


@pytest.mark.parametrize(("change", "why"), GREETINGS.values(), ids=GREETINGS.keys())
def test_a_greeting_that_differs_ends_the_attempt(
    clerk: Clerk, rogue: Callable[..., Rogue], change: dict[str, Any], why: str
) -> None:
    graph = layer()
    clerk.prepare("clinic_b", graph)
    stream = rogue("helper", "clinic_b")
    stream.say(hello(clerk, "helper", graph, **change))
    assert why in next(frame.farewell.cause for frame in iter(stream.hear, None) if frame.HasField("farewell"))
    clerk.start("clinic_b")
    assert why in clerk.last("clinic_b").failed.cause


PARTS: dict[str, tuple[list[bytes | peer_pb2.Frame], str]] = {
    "garbage": ([b"\xff\xff"], "it sent 2 bytes that are no frame"),
    "too large": ([bytes(frames.MAX_FRAME + 1)], "are the most"),
    "another sequence": ([frames.write([Piece(2, 3, 5, 8, bytes(8))])], "array 5 of its deal channel, array 0 was due"),
    "another op": ([frames.write([Piece(2, 99, 0, 8, bytes(8))])], "an array for op 99"),
    "another length": ([frames.write([Piece(2, 3, 0, 7, bytes(7))])], "it sent 7 bytes"),
    "too much": ([frames.write([Piece(2, 3, 0, 1 << 40, bytes(8))])], f"it sent {1 << 40} bytes"),
    "nothing more": ([peer_pb2.Frame(farewell=peer_pb2.Farewell())], "it finished without sending"),
    "a cause": ([peer_pb2.Frame(farewell=peer_pb2.Farewell(cause="I will not"))], "I will not"),
}


@pytest.mark.parametrize(("said", "why"), PARTS.values(), ids=PARTS.keys())
def test_a_helper_that_breaks_the_rules_ends_the_attempt_everywhere(
    clerk: Clerk, rogue: Callable[..., Rogue], said: list[bytes | peer_pb2.Frame], why: str
) -> None:
    graph = layer()
    streams = [rogue("helper", name) for name in clerk.cluster.evaluators]
    for name in clerk.cluster.evaluators:
        clerk.prepare(name, graph)
    for name in clerk.cluster.evaluators:
        clerk.start(name)
    for stream in streams:
        stream.say(hello(clerk, "helper", graph))
        assert stream.hear().HasField("hello")
    for stream in streams:  # the one that is due something says what is wrong, and tells the other
        stream.say(*said)
    for failed in clerk.failures(but="helper").values():
        assert why in failed.cause or "array 0 was due" in failed.cause
        assert failed.peer == "helper" or "I will not" in failed.cause


def test_a_helper_that_falls_silent_is_named(clerk: Clerk, rogue: Callable[..., Rogue]) -> None:
    graph = layer()
    streams = [rogue("helper", name) for name in clerk.cluster.evaluators]
    for name in clerk.cluster.evaluators:
        clerk.prepare(name, graph, deadline_s=0.5)
    for name in clerk.cluster.evaluators:
        clerk.start(name)
    for stream in streams:
        stream.say(hello(clerk, "helper", graph))
    for failed in clerk.failures(but="helper").values():
        assert failed.peer == "helper"
        assert "(train.py:12)" in failed.where


def test_a_helper_that_never_comes_is_named(clerk: Clerk, servers: Servers) -> None:
    for name in clerk.cluster.evaluators:
        clerk.prepare(name, layer(), deadline_s=0.5)
    for name in clerk.cluster.evaluators:
        clerk.start(name)
    for failed in clerk.failures(but="helper").values():
        assert failed.peer == "helper"
        assert "it has not connected within 0.5 s" in failed.cause
