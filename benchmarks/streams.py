"""What gRPC and TLS alone allow between two processes on this machine: `python benchmarks/streams.py`.

One bidirectional stream with the nodes' credentials and options, over grpcio's public interface: small messages back
and forth, and large ones one way.  The nodes' own streams stand below that interface and are faster with small ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import grpc

from coordinator.local import LocalCluster
from mpcnode import tls
from mpcnode.cluster import Cluster
from mpcnode.identity import load_identity

HELPER, SERVER, CLIENT = "helper", "clinic_a", "clinic_b"
METHOD, DEAL = "/benchmark/Stream", "/benchmark/Deal"
PIECE = bytes(1 << 20)
WORD = b"."


class Streams(NamedTuple):
    """one_way_s: of a message of one byte; bytes_per_s: in messages of 1 MiB, one way."""

    one_way_s: float
    bytes_per_s: float


class _Echo(grpc.GenericRpcHandler):
    """Answers every small message, and takes in large ones without a word."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(self._answer)

    @staticmethod
    def _answer(incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for message in incoming:
            if len(message) == len(WORD):
                yield message


def _serve(folder: Path, pipe: Connection) -> None:
    identity, cluster = load_identity(folder / SERVER), Cluster.load(folder / "cluster.toml")
    server = grpc.server(ThreadPoolExecutor(2), options=tls.SERVER_OPTIONS, handlers=[_Echo()])
    pipe.send(server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity, cluster)))
    server.start()
    pipe.recv()  # until it is enough
    server.stop(0).wait(5)


def measure(rounds: int = 400, pieces: int = 256) -> Streams:
    """The median of single messages, and the rate of many large ones."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        local = LocalCluster(folder)
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(folder, theirs), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(pipe.send, "enough")
        address = f"127.0.0.1:{pipe.recv()}"
        channel = stack.enter_context(tls.channel(local.identities[CLIENT], local.cluster, SERVER, address))
        outbox: SimpleQueue[bytes | None] = SimpleQueue()
        answers = channel.stream_stream(METHOD)(iter(outbox.get, None))
        stack.callback(outbox.put, None)

        def trip() -> float:
            began = time.perf_counter()
            outbox.put(WORD)
            next(answers)
            return time.perf_counter() - began

        trips = [trip() for _ in range(rounds)][rounds // 10 :]
        began = time.perf_counter()
        for _ in range(pieces):
            outbox.put(PIECE)
        trip()  # behind all of them
        return Streams(statistics.median(trips) / 2, pieces * len(PIECE) / (time.perf_counter() - began))


# ---- the messages of a whole step, and nothing else ------------------------------------------------------------------
class Step(NamedTuple):
    """What is sent in a training step: so many rounds in which two evaluators send each other as much in each, and what
    a helper deals to both of them together meanwhile, in pieces of at most 1 MiB.
    """

    rounds: int
    bytes_each_way: int
    dealt_bytes: int


class _Sink(grpc.GenericRpcHandler):
    """Takes what is dealt; and swaps messages, as many as the first one says and as large as itself sends."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(self._take if details.method == DEAL else self._swap)

    @staticmethod
    def _take(incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in incoming:
            pass
        yield WORD

    @staticmethod
    def _swap(incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        count, size = map(int, next(incoming).split())
        message = bytes(size)
        for _ in range(count):
            yield message
            next(incoming)


def _party(folder: Path, me: str, pipe: Connection) -> None:
    """A party of `messages`: says where it listens, hears where the others do, then does its part as often as it is
    told how many steps.
    """
    identity, cluster = load_identity(folder / me), Cluster.load(folder / "cluster.toml")
    server = grpc.server(ThreadPoolExecutor(4), options=tls.SERVER_OPTIONS, handlers=[_Sink()])
    pipe.send(server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity, cluster)))
    server.start()
    step, addresses = pipe.recv()
    channels = {peer: tls.channel(identity, cluster, peer, address) for peer, address in addresses.items()}
    piece, pieces = bytes(min(len(PIECE), step.dealt_bytes)), -(-step.dealt_bytes // len(PIECE))
    message = bytes(step.bytes_each_way // step.rounds)
    while steps := pipe.recv():
        outboxes: dict[str, SimpleQueue[bytes | None]] = {peer: SimpleQueue() for peer in channels}
        method = DEAL if me == HELPER else METHOD
        calls = {
            peer: channels[peer].stream_stream(method)(iter(outbox.get, None)) for peer, outbox in outboxes.items()
        }
        if me == HELPER:
            for i in range(steps * pieces):
                outboxes[(SERVER, CLIENT)[i % 2]].put(piece)
            for peer, outbox in outboxes.items():
                outbox.put(None)
                next(calls[peer])
        elif me == CLIENT:
            outbox, answers = outboxes[SERVER], calls[SERVER]
            outbox.put(f"{steps * step.rounds} {len(message)}".encode())
            for _ in range(steps * step.rounds):
                outbox.put(message)
                next(answers)
            outbox.put(None)
        pipe.send("done")
    for channel in channels.values():
        channel.close()
    server.stop(0).wait(5)


def messages(step: Step, steps: int = 40, runs: int = 5) -> float:
    """Seconds that the messages of a step take three processes on this machine: the median of differences between long
    and short runs.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        LocalCluster(folder)
        context = multiprocessing.get_context("spawn")
        pipes: dict[str, Connection] = {}
        for name in (SERVER, CLIENT, HELPER):  # the last one ends first: nobody has dialled it
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=_party, args=(folder, name, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(pipes[name].send, 0)
        addresses = {name: f"127.0.0.1:{pipe.recv()}" for name, pipe in pipes.items()}
        dialled = {HELPER: (SERVER, CLIENT), SERVER: (), CLIENT: (SERVER,)}
        for name, pipe in pipes.items():
            pipe.send((step, {peer: addresses[peer] for peer in dialled[name]}))

        def run(steps: int) -> float:
            began = time.perf_counter()
            for pipe in pipes.values():
                pipe.send(steps)
            for pipe in pipes.values():
                pipe.recv()
            return time.perf_counter() - began

        few = max(1, steps // 10)
        run(few)
        return statistics.median((run(steps + few) - run(few)) / steps for _ in range(runs))


if __name__ == "__main__":
    found = measure()
    print(f"{found.one_way_s * 1e6:.0f} µs one way, {found.bytes_per_s / 1e6:.0f} MB/s one way")
    for step in (Step(40, 4_500_000, 4_500_000), Step(30, 3_200_000, 7_080_000)):  # the second one is W2's
        megabytes = f"{step.bytes_each_way / 1e6:.2f} MB each way and {step.dealt_bytes / 1e6:.2f} MB dealt"
        print(f"{messages(step) * 1e3:.1f} ms for {step.rounds} rounds, {megabytes}")
