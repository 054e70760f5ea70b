"""A loop's body as a tape: recorded while it runs, and played from then on.

What a body does at a party is a function of its graph alone: the same kernels on arrays of the same shapes, the same
stops, and randomness whose addresses differ in the number of the iteration only.  So it is worked out once, by watching
(recorder.py); playing it is a loop over calls.

Nothing is taken on trust: a tape is tried before it is played.  In one more iteration, which runs as ever, it is handed
what came from the peers, and everything that it would have sent, and its outputs, must be the same bit by bit.  Masks
are fresh in every iteration, so no stale array passes that.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from mpcnode.kernels.memory import WATCHER
from mpcnode.party import STEP_BYTES
from mpcnode.recorder import Recorder, Tape
from mpcnode.rounds import Array, Exchange, Inbox, Kernel, Send

Body: TypeAlias = Callable[[Sequence[Array]], Kernel["list[Array]"]]


@types.coroutine
def play(tape: Tape, params: Sequence[Array], step: int) -> Generator[Exchange, Inbox, list[Array]]:
    """Run an iteration.  The outputs stay as they are until the next time."""
    tape.step[0] = step.to_bytes(STEP_BYTES, "big")
    steady = len(tape.steady)
    for i, given in enumerate(params[:steady]):
        if given is not tape.steady[i]:
            tape.steady[i] = given
            tape.inputs[i][...] = given
    for mine, given in zip(tape.inputs[steady:], params[steady:], strict=True):
        mine[...] = given
    for calls, what, into in tape.stops:
        for function, args in calls:
            function(*args)
        got = yield what
        for mine, given in zip(into, got, strict=True):
            if given is not mine:
                mine[...] = given
    for function, args in tape.last:
        function(*args)
    return tape.outputs


class Tapes:
    """The tapes of one body at one party.  Who is dealt what takes turns, so there is one for every turn: iterations
    `period` apart do the same.
    """

    def __init__(self, period: int, steady: int) -> None:
        """steady: how many of the first params are the same array in many iterations."""
        self._period, self._steady = period, steady
        self._tapes: dict[int, Tape | None] = {}  # by turn; None: there will be none
        self._tried: set[int] = set()

    def sweep(self, body: Body, params: Sequence[Array], step: int) -> Kernel[list[Array]]:
        """Run an iteration: as ever, or from a tape."""
        turn = step % self._period
        tape = self._tapes.get(turn)
        kernel: Any
        if tape is not None:
            kernel = play(tape, params, step) if turn in self._tried else self._try(turn, tape, body, params, step)
        else:
            kernel = body(params) if turn in self._tapes else self._record(turn, body, params, step)
        return cast("Kernel[list[Array]]", kernel)

    @types.coroutine
    def _record(
        self, turn: int, body: Body, params: Sequence[Array], step: int
    ) -> Generator[Exchange, Inbox, list[Array]]:
        recorder = Recorder(step)
        inputs = list(map(recorder.taken, params))
        sweep, got = body(inputs), None
        try:
            while True:
                token = WATCHER.set(recorder)
                try:
                    what = sweep.send(got)
                finally:
                    WATCHER.reset(token)
                got = recorder.received((yield recorder.stopped(what)))
        except StopIteration as stop:
            outputs: list[Array] = stop.value
        finally:
            sweep.close()
        self._tapes[turn] = recorder.tape(list(params[: self._steady]), inputs, outputs)
        return [np.array(y) for y in outputs]

    @types.coroutine
    def _try(
        self, turn: int, tape: Tape, body: Body, params: Sequence[Array], step: int
    ) -> Generator[Exchange, Inbox, list[Array]]:
        """Run an iteration as ever, and then from the tape: both must be the same."""
        sweep, got, stops = body(params), None, []
        try:
            while True:
                what = sweep.send(got)
                sent = [Send(peer, np.array(array), op) for peer, array, op in what.send]
                got = yield what
                stops.append((Exchange(sent, list(what.recv), what.when), [np.array(x) for x in got or ()]))
        except StopIteration as stop:
            outputs: list[Array] = stop.value
        finally:
            sweep.close()
        if _same(cast("Kernel[list[Array]]", play(tape, params, step)), stops, outputs):
            self._tried.add(turn)
        else:
            self._tapes[turn] = None
        return outputs


def _same(played: Kernel[list[Array]], stops: list[tuple[Exchange, Inbox]], outputs: list[Array]) -> bool:
    """Does a tape send what was sent, and end with these outputs, when it is told what came?"""
    got: Inbox | None = None
    try:
        for expected, answer in stops:
            what = played.send(got)
            due = [recv._replace(into=None) for recv in what.recv]
            if what.when is not expected.when or due != expected.recv or len(what.send) != len(expected.send):
                return False
            for mine, theirs in zip(what.send, expected.send, strict=True):
                if (mine.peer, mine.op) != (theirs.peer, theirs.op) or not _equal(mine.array, theirs.array):
                    return False
            got = answer
        played.send(got)
    except StopIteration as stop:
        return len(stop.value) == len(outputs) and all(map(_equal, stop.value, outputs))
    finally:
        played.close()
    return False  # it stops once more


def _equal(x: Array, y: Array) -> bool:
    return x.dtype == y.dtype and np.array_equal(x, y)
