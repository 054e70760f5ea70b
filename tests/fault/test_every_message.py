"""Message 0, 1, 2, ... until none is left goes wrong in turn, in every way there is, on every link.

Each run must end in the right answer, or in every party's naming the op and one end of the link where it happened:
never in a wrong answer, never in silence.
"""

from collections.abc import Callable, Iterable, Sequence
from threading import Event
from typing import Any

import numpy as np
import pytest

from coordinator.lower.builder import Builder
from mpcnode import protocols, ring
from mpcnode.engine import Hooks, Plan, execute
from mpcnode.frames import Piece
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.links import Cause
from mpcnode.party import Party, seeded_keys
from mpcnode.rounds import Array, Kernel

NAMES = ("helper", "clinic_a", "clinic_b")
WAYS = [(0, 1), (0, 2), (1, 2), (2, 1)]  # nobody sends anything to the helper
DEADLINE_S = 0.5
X = np.linspace(-1, 1, 6).reshape(2, 3)

Run = Callable[..., list[Any]]


def layer() -> Graph:
    """relu(x @ w), x joined of both clinics' columns, w a secret of one."""
    b = Builder()
    with b.at("train.py:12"):
        left = b.emit("input", type=Type(Kind.ARITH, 18, (2, 1)), owner="clinic_a", dataset="x", columns=("u",))
        right = b.emit("input", type=Type(Kind.ARITH, 18, (2, 2)), owner="clinic_b", dataset="x", columns=("v", "w"))
        x = b.emit("join", left, right)
        w = b.emit("input", type=Type(Kind.ARITH, 18, (3, 2)), owner="clinic_b", dataset="w", columns=("u", "v"))
        z = b.emit("trunc", b.emit("dot", x, w), by=18)
        y = b.emit("select", b.emit("sign", z, lo=0), z, keep=0)
        b.emit("reveal", y, to=("analyst",), name="activations")
    return b.graph()


PLAN = Plan(layer())


class Data(Hooks):
    def read(self, op: Op) -> Array:
        columns = {"clinic_a": X[:, :1], "clinic_b": X[:, 1:]}[op.text("owner")]
        return ring.encode(columns if op.text("dataset") == "x" else X.T[:, :2], op.type.frac)

    def keys(self, op: Op) -> bytes:
        return b"the same rows"


def kernels() -> list[Kernel[Any]]:
    """The parties of a run; all runs have the same masks, and so the same answer to the last bit."""
    keys = seeded_keys(3, b"faults")
    return [execute(Party(rank, NAMES, keys[rank]), protocols.get("masked"), PLAN, Data()) for rank in range(3)]


def answer(told: Sequence[Any]) -> Array:
    return protocols.get("masked").combine([one.result["activations"] for one in told[1:]])


class Fault:
    """Does something to the message of a number, and counts."""

    def __init__(self, number: int, what: Callable[["Fault", Piece], Iterable[Piece]]) -> None:
        self.number, self._what = number, what
        self.seen = 0
        self.kept: list[Piece] = []  # to be delivered later

    def __call__(self, piece: Piece) -> list[Piece]:
        late, self.kept = self.kept, []
        number, self.seen = self.seen, self.seen + 1
        return [*(self._what(self, piece) if number == self.number else [piece]), *late]

    def overtake(self, piece: Piece) -> Iterable[Piece]:
        self.kept = [piece]
        return []


def pause(seconds: float) -> None:
    Event().wait(seconds)


def late(seconds: float) -> Callable[[Fault, Piece], Iterable[Piece]]:
    def what(fault: Fault, piece: Piece) -> Iterable[Piece]:
        pause(seconds)
        return [piece]

    return what


def shorter(fault: Fault, piece: Piece) -> Iterable[Piece]:
    return [piece._replace(nbytes=piece.nbytes - 1, data=piece.data[:-1])]


FAULTS: dict[str, Callable[[Fault, Piece], Iterable[Piece]]] = {
    "dropped": lambda fault, piece: [],
    "shortened": shorter,
    "cut off": lambda fault, piece: [piece._replace(data=piece.data[:-1])],
    "longer": lambda fault, piece: [piece._replace(data=bytes(piece.data) + b"\0")],
    "repeated": lambda fault, piece: [piece, piece],
    "overtaken": Fault.overtake,
    "for another op": lambda fault, piece: [piece._replace(op=piece.op + 1)],
    "on another channel": lambda fault, piece: [piece._replace(channel=3 - piece.channel)],
    "late": late(1.3 * DEADLINE_S),
    "slow": late(0.02),
}
HARMLESS = ("slow",)
MAYBE_HARMLESS = ("slow", "late")  # nobody may be waiting


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{NAMES[way[0]]} to {NAMES[way[1]]}")
def test_every_message(run_together: Run, way: tuple[int, int], fault: str) -> None:
    clean = run_together(kernels(), names=NAMES)
    wanted = answer(clean)
    np.testing.assert_allclose(ring.decode(wanted), np.maximum(X @ X.T[:, :2], 0), atol=1e-4)
    number = 0
    while True:
        tamper = Fault(number, FAULTS[fault])
        told = run_together(
            kernels(), names=NAMES, deadline_s=10 if fault in HARMLESS else DEADLINE_S, tamper={way: tamper}
        )
        if tamper.seen <= number:
            break
        causes = {one.ended.why for one in told if one.ended is not None}
        if not causes:
            np.testing.assert_array_equal(answer(told), wanted)
            assert fault in MAYBE_HARMLESS, number
        else:
            assert fault not in HARMLESS, (number, causes)
            check_ends(told, causes, {NAMES[way[0]], NAMES[way[1]]})
        number += 1
    assert number >= 2  # or the test would test nothing


def check_ends(told: Sequence[Any], causes: set[Cause], ends: set[str]) -> None:
    """All parties failed, and whom they blame is one end of the link that the fault was on."""
    for cause in causes:
        assert cause.peer in ends, causes
        assert cause.where == "the end" or "%" in cause.where, causes
    # One array too many at the very end is noticed by its receiver only, when the others have their results.
    assert all(one.ended for one in told) or {cause.where for cause in causes} == {"the end"}
