"""A cluster on this machine: every member in a folder and, if it serves, a process of its own, talking mutual TLS
over loopback.

For demos, benchmarks and end-to-end tests, and for a first try.  Each process is what its operator would start by
hand (`mpcnode serve`, `coordinator serve`); nothing in it knows that the others are near.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

import grpc
from grpc_health.v1 import health_pb2

from mpcnode import tls
from mpcnode.cli import WITH_PARENT
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets
from mpcnode.errors import ConfigError
from mpcnode.identity import Identity, create_identity

READY_S = 60.0
STOP_S = 10.0


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on now.  All are held while they are looked for, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for s in sockets:
            s.bind((host, 0))
        return [int(s.getsockname()[1]) for s in sockets]


INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # as shells say it


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Signals that would interrupt arrive after the block: a process that was started must also be remembered."""
    if threading.current_thread() is not threading.main_thread():  # signals interrupt the main thread only
        yield
        return
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda n, _: arrived.append(n)) for number in INTERRUPTING}
    try:
        yield
    finally:
        for watch, handler in before.items():
            signal.signal(watch, handler)
        for number in arrived:
            signal.raise_signal(number)


class LocalCluster:
    """Makes identities and cluster.toml below `folder` on construction; a context manager that runs the processes.

    evaluators compute beside a helper; owners bring data and compute nothing; users run no process.
    hosts: the address that each serving member listens on (default 127.0.0.1).  prefix: words put in front of a
    member's command, for instance to enter a network namespace.  Raises ConfigError when a process ends early or is
    not ready in time, with its last words.
    """

    def __init__(
        self,
        folder: Path,
        evaluators: Sequence[str] = ("clinic_a", "clinic_b"),
        users: Sequence[str] = ("analyst",),
        *,
        protocol: str = "masked",
        deadline_s: float = 60.0,
        threads: int = 1,
        owners: Sequence[str] = (),
        hosts: Mapping[str, str] | None = None,
        prefix: Mapping[str, Sequence[str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.deadline_s, self.threads = deadline_s, threads
        self._prefix, self._environment = prefix or {}, environment or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []
        self.nodes = ("helper", *evaluators, *owners)
        hosts = hosts or {}
        serving = (*self.nodes, "coordinator")
        self.identities: dict[str, Identity] = {}
        # in a namespace of its own a member's address cannot be bound from here; any port is free there
        ports = free_ports(len(serving))
        for name, port in zip(serving, ports, strict=True):
            self.identities[name] = create_identity(folder / name, name, f"{hosts.get(name, '127.0.0.1')}:{port}")
        for name in users:
            self.identities[name] = create_identity(folder / name, name)
        self.cluster = Cluster.of(
            "local",
            [identity.card for identity in self.identities.values()],
            protocol=protocol,
            helper="helper",
            evaluators=list(evaluators),
            coordinator="coordinator",
        )
        self.cluster_file = folder / "cluster.toml"
        self._views: dict[str, Path] = {}
        self.cluster.save(self.cluster_file)

    def datasets(self, name: str) -> Datasets:
        """The data registry of a node."""
        return Datasets(self.folder / name)

    def reach(self, name: str, addresses: Mapping[str, str]) -> None:
        """From its next start on a member reaches others at these addresses instead of those on their cards: through a
        firewall, or what a benchmark puts between.
        """
        cards = [
            card.model_copy(update={"address": addresses.get(card.name, card.address)}) for card in self.cluster.cards
        ]
        self._views[name] = self.folder / name / "cluster.toml"
        self.cluster.model_copy(update={"cards": tuple(cards)}).save(self._views[name])

    def __enter__(self) -> Self:
        try:
            for name in (*self.nodes, "coordinator"):
                self.start(name)
            for name in (*self.nodes, "coordinator"):
                self.wait(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str) -> None:
        """Start a member's process; its output goes to NAME/log.txt."""
        package = "coordinator" if name == "coordinator" else "mpcnode"
        command = [
            sys.executable,
            "-m",
            package,
            "serve",
            "--dir",
            str(self.folder / name),
            "--cluster",
            str(self._views.get(name, self.cluster_file)),
        ]
        if package == "mpcnode":
            command += ["--threads", str(self.threads)]
        command += ["--deadline", str(self.deadline_s)]
        log = (self.folder / name / "log.txt").open("ab")
        self._logs.append(log)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", WITH_PARENT: "1", **self._environment}
        with signals_later():
            self._processes[name] = subprocess.Popen(  # noqa: S603
                [*self._prefix.get(name, ()), *command],
                stdin=subprocess.PIPE,  # never written to: it closes when this process ends, even by kill -9
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def wait(self, name: str, deadline_s: float = READY_S) -> None:
        """Until the member's health service says that it serves."""
        card = self.cluster.card(name)
        assert card.address is not None
        until = time.monotonic() + deadline_s
        with contextlib.ExitStack() as stack:
            channel = tls.channel(self.identities["coordinator"], self.cluster, name)
            stack.callback(tls.let_go, channel)
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            while True:
                if self._processes[name].poll() is not None:
                    raise ConfigError(f"{name} ended while it started; its last words: {self.last_words(name)}")
                try:
                    reply = check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.RpcError as error:
                    code = error.code()
                    if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise ConfigError(
                            f"{name} at {card.address} refused a health check: {error.details()}"
                        ) from error
                if time.monotonic() > until:
                    raise ConfigError(
                        f"waited {deadline_s:.0f} s for {name} at {card.address} to serve; "
                        f"its last words: {self.last_words(name)}"
                    )

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self._processes[name]

    def last_words(self, name: str, lines: int = 5) -> str:
        """The end of a member's log."""
        log = self.folder / name / "log.txt"
        return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:]) if log.exists() else "none"

    def kill(self, name: str) -> None:
        """As a crash would."""
        process = self._processes[name]
        process.kill()
        process.wait(STOP_S)
        assert process.stdin is not None
        process.stdin.close()

    def stop(self) -> None:
        """Ask every process to end, then see to it."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for log in self._logs:
            log.close()
        self._processes.clear()
        self._logs.clear()


def end_on_signals(cluster: LocalCluster, name: str) -> None:
    """From now on Ctrl-C, and a polite kill, stop the cluster's processes and end this one, wherever it is: after an
    exception in the midst of its work gRPC fails in ways of its own.  `name` begins the last words.  Main thread only.
    """

    def end(number: int, _: FrameType | None) -> None:
        stderr = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # gRPC has words for peers that go
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.stop()
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor, which progress bars hide
        os.write(stderr, f"{name}: interrupted; all processes are stopped\n".encode())
        os._exit(INTERRUPTED)

    for watch in INTERRUPTING:
        signal.signal(watch, end)


@contextlib.contextmanager
def workdir(folder: Path) -> Iterator[Path]:
    """An empty folder in place of what an earlier run left at `folder`; only a folder that this function made is
    replaced.
    """
    import shutil

    mark = folder / ".local-cluster"
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise ConfigError(f"{folder} is not empty and not from an earlier run: name another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    yield folder
