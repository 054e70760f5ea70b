"""How interactive code stops: one awaitable, and nothing else ever waits.

Protocol code is `async def`, but it is not asyncio: a driver steps it by hand.  The simulator connects the parties'
coroutines in one thread; a node connects one of them to its links.  A kernel can stop for three reasons:

- `exchange`: the end of a round.  What it sent and what it waits for travel with those of every other kernel that
  stops here.
- `post`: something for this round is ready to leave; the kernel goes on at once, so that sending it overlaps
  computing the next.  Small things wait for the end of the round nevertheless, as links let them wait for company.
- `deal`: input-independent material from a helper that runs ahead; a channel of its own, and no round, since nobody
  answers.

Rule: all parties stop equally often for `exchange` in a kernel (an empty one is allowed), whatever the data.
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]


class When(enum.IntEnum):
    """Why a kernel stops, and (DEAL or not) on which of a link's two channels its arrays travel."""

    ROUND = 0
    POST = 1
    DEAL = 2


class Send(NamedTuple):
    peer: int
    array: Array
    op: int  # number of the op in its graph; the receiver expects the same one


class Target(NamedTuple):
    """An array that is written to, C-contiguous, and its bytes."""

    array: Array
    bytes: memoryview


class Recv(NamedTuple):
    peer: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    op: int
    into: Target | None = None  # where it may be put, instead of in a new array

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize if self.into is None else len(self.into.bytes)


class Exchange(NamedTuple):
    """Arrays to send and what to receive, both in order; the answer is the received arrays in the order of `recv`."""

    send: Sequence[Send]
    recv: Sequence[Recv]
    when: When


Inbox: TypeAlias = "list[Array]"
Kernel: TypeAlias = Coroutine[Exchange, "Inbox | None", T]


def as_bytes(array: Array) -> memoryview:
    """The bytes of an array, row-major; of a copy if it is not laid out so."""
    if not array.size:
        return memoryview(bytearray())
    return (array if array.flags.c_contiguous else np.ascontiguousarray(array)).data.cast("B")


@types.coroutine
def exchange(send: Sequence[Send] = (), recv: Sequence[Recv] = ()) -> Generator[Exchange, Inbox, Inbox]:
    """End a round: send these, wait for those."""
    return (yield Exchange(send, recv, When.ROUND))


@types.coroutine
def post(send: Sequence[Send]) -> Generator[Exchange, Inbox, None]:
    """Let arrays of the current round leave now."""
    if send:
        yield Exchange(send, (), When.POST)


@types.coroutine
def deal(send: Sequence[Send] = (), recv: Sequence[Recv] = ()) -> Generator[Exchange, Inbox, Inbox]:
    """Pass on, or take, what a helper deals ahead of the computation."""
    if not send and not recv:
        return []
    return (yield Exchange(send, recv, When.DEAL))


class Finished(NamedTuple):
    result: Any


LEAVE_BYTES = 1 << 18  # that kernels have for their peers, before it leaves without waiting for the round's end


class Lockstep:
    """Kernels that run side by side: their n-th exchanges share a round.  Arrays to one peer leave in the order of
    `add`: what is large at once, so that sending it overlaps computing; the rest with the round's end, since each stop
    costs its driver more than sending a small array a little later.
    """

    __slots__ = ("_bytes", "_recv", "_send", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Kernel[Any], int]] = []  # key, kernel, number of arrays it waits for
        self._recv: list[Recv] = []
        self._send: list[Send] = []  # what waits for company ..
        self._bytes = 0  # .. and its size

    def __len__(self) -> int:
        return len(self._waiting)

    @types.coroutine
    def add(
        self, key: int, kernel: Kernel[Any], got: Inbox | None = None
    ) -> Generator[Exchange, Inbox, Finished | None]:
        """Run a kernel to the end of the current round; its result if it has one already.  What it deals on the way
        goes out at once.
        """
        try:
            while True:
                what = kernel.send(got)
                if what.when is When.DEAL:
                    got = yield what
                    continue
                if what.send:
                    for send in what.send:
                        self._send.append(send)
                        self._bytes += send.array.nbytes
                    if self._bytes >= LEAVE_BYTES:
                        yield Exchange(self._taken(), (), When.POST)
                if what.when is When.ROUND:
                    break
                got = []
        except StopIteration as stop:
            return Finished(stop.value)
        self._waiting.append((key, kernel, len(what.recv)))
        self._recv += what.recv
        return None

    def _taken(self) -> list[Send]:
        send, self._send, self._bytes = self._send, [], 0
        return send

    @types.coroutine
    def turn(self) -> Generator[Exchange, Inbox, list[tuple[int, Kernel[Any], Inbox]]]:
        """End the round for all: the kernels with what they received, in order; each is to be added again."""
        got = yield Exchange(self._taken(), self._recv, When.ROUND)  # if it fails, `close` still knows who waits
        waiting, self._waiting, self._recv = self._waiting, [], []
        resumed, at = [], 0
        for key, kernel, count in waiting:
            resumed.append((key, kernel, got[at : at + count]))
            at += count
        return resumed

    def close(self) -> None:
        """Drop kernels that will not be resumed."""
        for _, kernel, _ in self._waiting:
            kernel.close()


@types.coroutine
def going_on(kernel: Kernel[T], got: Inbox | None) -> Generator[Exchange, Inbox, T]:
    """A kernel from where it waits for this, to its end and on its own."""
    try:
        while True:
            got = yield kernel.send(got)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        kernel.close()


async def par(*kernels: Kernel[T]) -> list[T]:
    """Run kernels side by side and return their results in order; rounds: those of the longest."""
    results: dict[int, T] = {}
    lockstep = Lockstep()
    resumed: list[tuple[int, Kernel[Any], Inbox | None]] = [(i, kernel, None) for i, kernel in enumerate(kernels)]
    try:
        while resumed:
            for key, kernel, got in resumed:
                done = await lockstep.add(key, kernel, got)
                if done is not None:
                    results[key] = done.result
            resumed = list(await lockstep.turn()) if len(lockstep) else []
    finally:
        for kernel in kernels:
            kernel.close()
    return [results[i] for i in range(len(kernels))]
