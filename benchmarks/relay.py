"""A network between processes on one machine, in user space: connections with a delay and a rate.

    python benchmarks/relay.py --listen 127.0.0.1:7001 --to 127.0.0.1:7000 --delay-ms 20 --rate-mbit 352

Whatever connects to 7001 then talks to 7000 over a line of 40 ms round trip and 352 Mbit/s each way.  No root and no
kernel module is needed, so it runs wherever the benchmarks run.

The model is that of an access line a node: bytes leave one after the other at the rate (`Line`), all of a node's
connections share its line, each way; between lines they travel for the delay (`Way`).  Nothing is lost or overtaken.
TCP itself ends at the relay on both sides, so its slow start and congestion control are not part of the picture;
what programs do above it (the windows of HTTP/2, rounds, acknowledgements of their own) is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

import typer

from coordinator.local import free_ports
from mpcnode.identity import split_address

BUFFER_BYTES = 1 << 20  # that may wait for a line, beyond what is travelling, before the sender is held back
STOP_S = 5.0  # for the thread of the relays to end


# ---- what comes when: no I/O and no clock ----------------------------------------------------------------------------
class Network(NamedTuple):
    """delay_s: one way; bytes_per_s: of a node's line, each way; math.inf for as fast as it goes."""

    delay_s: float
    bytes_per_s: float


class Line:
    """One way of a node's access line, which all its connections share."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_s = -math.inf  # when its last byte has passed

    def send(self, now_s: float, nbytes: int) -> float:
        """Bytes enter now, behind those that are waiting: when the last of them has left."""
        self._free_s = max(self._free_s, now_s) + nbytes / self._bytes_per_s
        return self._free_s

    def receive(self, last_s: float, nbytes: int) -> float:
        """The last of these bytes is here at `last_s`, the others just before: when the last one is through."""
        self._free_s = max(self._free_s + nbytes / self._bytes_per_s, last_s)
        return self._free_s


class Way:
    """One direction of a connection: out over the sender's line, the delay, in over the receiver's."""

    def __init__(self, out: Line, into: Line, network: Network) -> None:
        self._out, self._into, self._network = out, into, network
        self._queue: deque[tuple[float, bytes]] = deque()
        self.waiting_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the sender should pause."""
        travelling = self._network.delay_s * self._network.bytes_per_s
        return self.waiting_bytes > BUFFER_BYTES + (travelling if math.isfinite(travelling) else BUFFER_BYTES)

    def enter(self, now_s: float, data: bytes) -> None:
        last_s = self._out.send(now_s, len(data)) + self._network.delay_s
        self._queue.append((self._into.receive(last_s, len(data)), data))
        self.waiting_bytes += len(data)

    def due(self, now_s: float) -> list[bytes]:
        """What has arrived by now, in order."""
        found = []
        while self._queue and self._queue[0][0] <= now_s:
            found.append(self._queue.popleft()[1])
        self.waiting_bytes -= sum(map(len, found))
        return found

    @property
    def next_s(self) -> float | None:
        """When something arrives next, if anything is on its way."""
        return self._queue[0][0] if self._queue else None


# ---- sockets ---------------------------------------------------------------------------------------------------------
class End(asyncio.Protocol):
    """One side of a relayed connection: what it receives goes over `way` to the other side."""

    def __init__(self, way: Way, connected: Callable[[End], None]) -> None:
        self._way, self._connected = way, connected
        self.other: End | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held = False  # the other side does not take in what it is sent
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connected(self)

    def join(self, other: End) -> None:
        self.other, other.other = other, self
        self._deliver()

    def data_received(self, data: bytes) -> None:
        self._way.enter(asyncio.get_running_loop().time(), data)
        if self._way.is_full and self._transport is not None:
            self._transport.pause_reading()
        self._deliver()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended, self._transport = True, None
        self._deliver()

    def pause_writing(self) -> None:
        assert self.other is not None
        self.other._held = True

    def resume_writing(self) -> None:
        assert self.other is not None
        self.other._held = False
        self.other._deliver()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _deliver(self) -> None:
        """Hand over what is due, and come back for the next."""
        if self.other is None or self._held:
            return
        loop = asyncio.get_running_loop()
        arrived = self._way.due(loop.time())
        target = self.other._transport
        if target is not None:
            target.writelines(arrived)
        if self._transport is not None and not self._way.is_full:
            self._transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        next_s = self._way.next_s
        self._timer = None if next_s is None or self._held else loop.call_at(next_s, self._deliver)
        if self._ended and next_s is None and target is not None:
            target.close()


class Relay:
    """Relays between named nodes.  `open` from anywhere; the sockets live in the loop that runs `serve`."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._lines: dict[str, tuple[Line, Line]] = {}  # by node: out and in
        self._ends: list[End] = []

    def _line(self, node: str) -> tuple[Line, Line]:
        return self._lines.setdefault(node, (Line(self.network.bytes_per_s), Line(self.network.bytes_per_s)))

    async def serve(self, source: str, target: str, listen: str, to: str) -> asyncio.Server:
        """Relay what connects to `listen`, which the node `source` does, to the node `target` at `to`."""
        loop = asyncio.get_running_loop()
        (source_out, source_in), (target_out, target_in) = self._line(source), self._line(target)
        tasks: set[asyncio.Task[None]] = set()

        async def dial(near: End) -> None:
            there = Way(target_out, source_in, self.network)
            try:
                _, far = await loop.create_connection(lambda: End(there, lambda _: None), *split_address(to))
            except OSError:
                near.close()
                return
            self._ends.append(far)
            near.join(far)
            far.join(near)

        def accepted(near: End) -> None:
            self._ends.append(near)
            task = loop.create_task(dial(near))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        here = lambda: End(Way(source_out, target_in, self.network), accepted)  # noqa: E731
        return await loop.create_server(here, *split_address(listen))

    def close(self) -> None:
        for end in self._ends:
            end.close()


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are good to microseconds: epoll's are in milliseconds, as long as a LAN's round trip."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@contextlib.contextmanager
def between(
    addresses: Mapping[str, str], pairs: Sequence[tuple[str, str]], network: Network
) -> Iterator[dict[tuple[str, str], str]]:
    """Relays for these pairs of nodes, (who dials, whom), in a thread: the address that each should dial."""
    relay, loop = Relay(network), new_loop()
    fronts = {pair: f"127.0.0.1:{port}" for pair, port in zip(pairs, free_ports(len(pairs)), strict=True)}
    servers = [
        loop.run_until_complete(relay.serve(source, target, front, addresses[target]))
        for (source, target), front in fronts.items()
    ]
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    try:
        yield fronts
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_S)
        for server in servers:
            server.close()
        relay.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def main(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to take connections.")],
    to: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where they go.")],
    delay_ms: Annotated[float, typer.Option(min=0.0, help="One way: half of the round trip.")] = 0.0,
    rate_mbit: Annotated[
        float | None, typer.Option(min=0.001, help="Each way, in 10^6 bits a second.", show_default="unlimited")
    ] = None,
) -> None:
    """Relay TCP connections with a delay and a rate, until Ctrl-C."""
    network = Network(delay_ms / 1e3, math.inf if rate_mbit is None else rate_mbit * 1e6 / 8)
    relay, loop = Relay(network), new_loop()
    loop.run_until_complete(relay.serve("near", "far", listen, to))
    print(f"{listen} -> {to}: {delay_ms:g} ms and {rate_mbit or 'unlimited'} Mbit/s each way", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()
    relay.close()


if __name__ == "__main__":
    typer.run(main)
