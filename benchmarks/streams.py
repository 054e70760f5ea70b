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

SERVER, CLIENT = "clinic_a", "clinic_b"
METHOD = "/benchmark/Stream"
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


if __name__ == "__main__":
    found = measure()
    print(f"{found.one_way_s * 1e6:.0f} µs one way, {found.bytes_per_s / 1e6:.0f} MB/s one way")
