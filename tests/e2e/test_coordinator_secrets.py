"""The coordinator never sees what it must not: a planted value is looked for in all that it stores, logs and is told.

Three real nodes, each a process, and a coordinator in this process whose every message is recorded, on both sides.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from coordinator import nodes
from coordinator.client import Client
from coordinator.local import LocalCluster
from coordinator.service import Server
from coordinator.store import Store
from mpcnode import tls
from mpcnode.wire import coordinator_pb2 as wire

SECRETS = {"clinic_a": 987654321.12345678, "clinic_b": -123456789.87654321}
HUGE = 3141592653589793.0  # does not fit into the ring: its owner refuses the job, and must not say why by value
FRAC = 18

JOB = """
[job]
name = "planted"
program = "train.py:train"
[inputs.x]
rows = ["clinic_a/{dataset}", "clinic_b/{dataset}"]
columns = ["value", "other"]
[outputs]
rows = ["analyst"]
total = ["analyst"]
"""

TRAIN = """
import jax
import jax.numpy as jnp


def train(x):
    total, _ = jax.lax.scan(lambda sum, row: (sum + row[0], None), jnp.zeros(()), x)
    return {"rows": x, "total": total}
"""


def encodings(value: float) -> dict[str, bytes]:
    """Every form in which a number may lie in bytes or text."""
    ring = round(value * 2**FRAC)
    texts = {"decimal": f"{value:.4f}"[:12], "repr": repr(value)[:12], "ring decimal": str(ring), "hex": value.hex()}
    binary = {
        "float64 little": struct.pack("<d", value),
        "float64 big": struct.pack(">d", value),
        "float32 little": struct.pack("<f", value),
        "float32 big": struct.pack(">f", value),
        "ring little": struct.pack("<q", ring) if abs(ring) < 2**63 else b"",
        "ring big": struct.pack(">q", ring) if abs(ring) < 2**63 else b"",
    }
    in_hex = {f"{name} in hex": data.hex().encode() for name, data in binary.items()}
    found = {**binary, **in_hex, **{name: text.encode() for name, text in texts.items()}}
    return {name: data for name, data in found.items() if data}


def found_in(corpus: bytes, value: float) -> list[str]:
    lowered = corpus.lower()
    return [name for name, data in encodings(value).items() if data in corpus or data.lower() in lowered]


class Recorder(grpc.ServerInterceptor, grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Keeps the bytes of every message of the coordinator, asked or answered."""

    def __init__(self) -> None:
        self.messages: dict[str, list[bytes]] = {}

    def keep(self, method: str, message: Any) -> Any:
        self.messages.setdefault(method, []).append(message.SerializeToString())
        return message

    @property
    def all(self) -> bytes:
        return b"".join(message for messages in self.messages.values() for message in messages)

    # ---- as a server: members' calls --------------------------------------------------------------------------------
    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        handler, method = continuation(details), str(details.method)
        if handler.response_streaming:

            def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                for answer in handler.unary_stream(self.keep(method, request), context):
                    yield self.keep(method, answer)

            return grpc.unary_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            return self.keep(method, handler.unary_unary(self.keep(method, request), context))

        return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)

    # ---- as a client: the nodes' answers ----------------------------------------------------------------------------
    def intercept_unary_unary(self, continuation: Any, details: grpc.ClientCallDetails, request: Any) -> Any:
        call = continuation(details, self.keep(str(details.method), request))

        def ended(call: Any) -> None:
            if call.code() is grpc.StatusCode.OK:
                self.keep(str(details.method), call.result())
            else:
                self.messages.setdefault(str(details.method), []).append((call.details() or "").encode())

        call.add_done_callback(ended)
        return call

    def intercept_unary_stream(self, continuation: Any, details: grpc.ClientCallDetails, request: Any) -> Any:
        call = continuation(details, self.keep(str(details.method), request))
        return _Recorded(call, lambda message: self.keep(str(details.method), message))


class _Recorded:
    def __init__(self, call: Any, keep: Callable[[Any], Any]) -> None:
        self._call, self._keep = call, keep

    def __iter__(self) -> Iterator[Any]:
        for message in self._call:
            yield self._keep(message)

    def cancel(self) -> None:
        self._call.cancel()


@pytest.fixture
def planted(tmp_path: Path) -> LocalCluster:
    """Owners' data with the secrets in it, and a job that works on it."""
    cluster = LocalCluster(tmp_path / "cluster", deadline_s=20.0)
    for owner, value in SECRETS.items():
        for dataset, number in (("fits", value), ("huge", HUGE if owner == "clinic_a" else 1.0)):
            rows = np.array([[number, 1.0], [0.25, 2.0], [-3.5, 4.0]])
            file = cluster.folder / owner / f"{dataset}.npy"
            np.save(file, rows)
            cluster.datasets(owner).add(dataset, file, ["analyst"], columns=["value", "other"])
            (tmp_path / f"{dataset}.toml").write_text(JOB.format(dataset=dataset))
    (tmp_path / "train.py").write_text(TRAIN)
    return cluster


def test_the_coordinator_learns_no_value(
    planted: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    recorder = Recorder()
    recording = SimpleNamespace(channel=lambda *args: grpc.intercept_channel(tls.channel(*args), recorder))
    monkeypatch.setattr(nodes, "tls", recording)
    identity = planted.identities["coordinator"]
    assert identity.card.address is not None
    try:
        for name in planted.nodes:
            planted.start(name)
        for name in planted.nodes:
            planted.wait(name)
        server = Server(
            identity,
            planted.cluster,
            Store.in_folder(identity.folder),
            listen=identity.card.address,
            interceptors=[recorder],
        )
        server.start()
        try:
            arrays, refused = run_jobs(planted, tmp_path)
            stored = folder_bytes(identity.folder)  # with what has not yet been moved out of the write-ahead log
        finally:
            server.stop()
    finally:
        planted.stop()

    # the values were computed with, and came out at their recipient
    for value in SECRETS.values():
        assert np.isclose(arrays["rows"], value, rtol=0, atol=2**-17).any()
    total = sum(SECRETS.values()) + 2 * (0.25 - 3.5)
    assert np.isclose(arrays["total"], total, rtol=0, atol=1e-3)
    assert refused.state == wire.JOB_STATE_ABORTED and "clinic_a/huge does not fit" in refused.cause

    # the search would have found them
    for owner, value in SECRETS.items():
        assert found_in((planted.folder / owner / "fits.npy").read_bytes(), value) == ["float64 little"]
    for method in ("Submit", "Watch", "Results", "Get", "Prepare", "Start", "Schemas"):
        assert any(name.endswith(f"/{method}") for name in recorder.messages), method
    assert len(recorder.messages["/mpc.Coordinator/Results"]) >= 4 and b"planted" in stored

    # and the coordinator has none of them, in any form
    logs = caplog.text.encode() + b"".join((planted.folder / n / "log.txt").read_bytes() for n in planted.nodes)
    everything = {
        "messages": recorder.all,
        "files": stored + folder_bytes(identity.folder),
        "logs": logs,
    }
    for place, corpus in everything.items():
        assert len(corpus) > 1000, place
        for value in (*SECRETS.values(), HUGE, total):
            assert found_in(corpus, value) == [], place


def run_jobs(cluster: LocalCluster, folder: Path) -> tuple[dict[str, Any], wire.Job]:
    """A job on the planted data, and one that its owner refuses because a value does not fit."""
    with Client(cluster.identities["analyst"], cluster.cluster) as client:
        jobs = [client.submit(folder / f"{dataset}.toml") for dataset in ("fits", "huge")]
        for job in jobs:
            for _ in client.watch(job):
                pass
        return client.result(jobs[0]), client.get(jobs[1])


def folder_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file())
