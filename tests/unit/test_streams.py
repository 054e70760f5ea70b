"""Both ends of a stream of frames, over real gRPC: who waits for what comes, and what a server does meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

import grpc
import pytest

from mpcnode import streams
from mpcnode.streams import ClientStream, Listener, ServerStream, Stream

LIMIT_S = 5.0
STREAM, ASK = "/test/Stream", "/test/Ask"


class End:
    """One end of a stream with its thread; what comes there."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.frames: SimpleQueue[bytes] = SimpleQueue()
        self.over: SimpleQueue[str] = SimpleQueue()
        self.thread = Thread(target=stream.run, args=(self._receive, self.over.put, lambda: None), daemon=True)
        self.thread.start()

    def _receive(self, frame: bytes) -> bool:
        self.frames.put(frame)
        return True


class Both(NamedTuple):
    client: End
    server: End
    channel: grpc.Channel
    calls: grpc.Server


class _Answer(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request) if details.method == ASK else None


@pytest.fixture
def both() -> Iterator[Both]:
    accepted: SimpleQueue[ServerStream] = SimpleQueue()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[_Answer()])
    listener = Listener(server, STREAM, accepted.put)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    listener.listen()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = End(ClientStream(channel, STREAM))
        client.stream.outbox.put(b"hello")
        there = End(accepted.get(timeout=LIMIT_S))
        assert there.frames.get(timeout=LIMIT_S) == b"hello"
        yield Both(client, there, channel, server)
        for end in (client, there):
            end.stream.attended = False
            end.stream.outbox.close()
        for end in (client, there):
            end.thread.join(LIMIT_S)
            assert not end.thread.is_alive()
    server.stop(0).wait(LIMIT_S)


def attend(end: End, frames: int) -> list[bytes]:
    """Attend until so many frames have come."""
    until, got = time.monotonic() + LIMIT_S, []
    while len(got) < frames:
        assert time.monotonic() < until
        end.stream.attend(0.01)
        while not end.frames.empty():
            got.append(end.frames.get())
    return got


def test_who_attends_gets_what_comes_in_order(both: Both) -> None:
    assert both.server.stream.attendable and not both.client.stream.attendable
    for end in (both.server, both.client):
        end.stream.attended = True
    sent = [bytes([i]) * (1 << 16) for i in range(50)]
    for frame in sent:
        both.client.stream.outbox.put(frame)
        both.server.stream.outbox.put(frame)
    assert attend(both.server, len(sent)) == sent
    assert [both.client.frames.get(timeout=LIMIT_S) for _ in sent] == sent


def test_what_nobody_attends_to_is_seen_to_all_the_same(both: Both) -> None:
    both.server.stream.attended = True
    sent = [bytes([i]) * (1 << 20) for i in range(20)]
    for frame in sent:
        both.client.stream.outbox.put(frame)
    assert [both.server.frames.get(timeout=LIMIT_S) for _ in sent] == sent


def test_a_server_answers_calls_while_streams_are_attended(both: Both) -> None:
    ask = both.channel.unary_unary(ASK)
    both.server.stream.attended = True
    for i in range(10):
        assert ask(bytes([i]), timeout=LIMIT_S) == bytes([i])
    both.calls.stop(None).wait(LIMIT_S)
    assert both.server.over.get(timeout=LIMIT_S) == "the connection broke"


def test_the_reason_of_an_end_is_waited_for_in_short_looks_too(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, vain = both.server.stream, iter(range(3))
    look = stream._next
    monkeypatch.setattr(
        stream, "_next", lambda patience_s: None if stream._over and next(vain, None) is not None else look(patience_s)
    )
    stream.attended = True
    both.client.stream.cancel()
    assert both.server.over.get(timeout=LIMIT_S) == "the connection broke"


def test_who_rests_is_woken_when_nobody_attends_any_more(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REST_S", 60.0)
    both.server.stream.attended = True
    attend(both.server, 0)
    time.sleep(2 * streams.IDLE_S)  # the server's own thread rests as well
    both.client.stream.outbox.put(b"late")
    both.server.stream.attended = False
    assert both.server.frames.get(timeout=LIMIT_S) == b"late"
    assert both.channel.unary_unary(ASK)(b"well?", timeout=LIMIT_S) == b"well?"


def test_nothing_comes_to_who_waits_in_vain(both: Both) -> None:
    both.server.stream.attended = True
    began = time.monotonic()
    while both.server.stream.attend(0.05):  # "sent" of its first words
        pass
    assert time.monotonic() - began < LIMIT_S
    assert both.server.frames.empty()


def test_an_end_that_goes_away_is_noticed_by_who_attends(both: Both) -> None:
    both.server.stream.attended = True
    both.client.stream.cancel()
    until = time.monotonic() + LIMIT_S
    while both.server.over.empty():
        assert time.monotonic() < until
        both.server.stream.attend(0.01)
    assert both.server.over.get() == "the connection broke"


def test_grpc_knows_the_settings_that_it_is_given() -> None:
    """Else it says so in a line of its own, in front of every command's output."""
    code = "import mpcnode, grpc; grpc.insecure_channel('127.0.0.1:1').close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == done.stderr == ""
