"""A run in which a message is lost, repeated, cut, relabelled or overtaken ends in OutOfStep, never in a result.

Every message of the run is tampered with in turn.  What the model of passive parties does not promise, and these tests
do not claim, is that a changed value of the right form is noticed: links are authenticated, their ends are trusted to
follow the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from views import SECRETS, Data, every_op

from mpcnode.simulate import Message, OutOfStep, simulate

Tamper = Callable[[Message], list[Message]]
GRAPH = every_op(64, "owner")


def other_array(change: Callable[[np.ndarray], np.ndarray]) -> Tamper:
    return lambda m: [m._replace(array=change(m.array))]


ALONE: dict[str, Tamper] = {  # what becomes of one message
    "lost": lambda m: [],
    "repeated": lambda m: [m, m],
    "cut": other_array(lambda a: a.reshape(-1)[:-1]),
    "longer": other_array(lambda a: np.append(a, a.reshape(-1)[:1])),
    "in another shape": other_array(lambda a: a.reshape(1, *a.shape)),
    "of another type": other_array(lambda a: a.view(f"i{a.itemsize}")),
    "for another op": lambda m: [m._replace(op=m.op + 1)],
    "with another number": lambda m: [m._replace(sequence=m.sequence + 1)],
}


def tampered(protocol: str, evaluators: int, tap: Callable[[Message], list[Message]]) -> None:
    data = Data(SECRETS["structured"](64))
    simulate(GRAPH, {}, protocol, evaluators=evaluators, tap=tap, hooks=lambda rank: data)


@pytest.mark.parametrize("how", ALONE)
@pytest.mark.parametrize(("protocol", "evaluators"), [("cleartext", 2), ("masked", 2), ("masked", 3)], ids=str)
def test_no_message_can_be_tampered_with(protocol: str, evaluators: int, how: str) -> None:
    for target in count():
        seen = count()
        hit = False

        def tap(m: Message, target: int = target, seen: count[int] = seen) -> list[Message]:
            nonlocal hit
            if next(seen) != target:
                return [m]
            hit = True
            return ALONE[how](m)

        try:
            tampered(protocol, evaluators, tap)
        except OutOfStep:
            assert hit
        else:
            assert not hit, f"message {target} was {how} and nobody saw it"
            assert target > 1
            return


@pytest.mark.parametrize("replayed", [False, True], ids=["overtaken", "replayed"])
@pytest.mark.parametrize(("protocol", "evaluators"), [("cleartext", 2), ("masked", 2), ("masked", 3)], ids=str)
def test_no_message_can_take_the_place_of_the_next(protocol: str, evaluators: int, replayed: bool) -> None:
    """A message comes behind the next one of its channel, or once more in its place."""
    for target in count():
        seen = count()
        held: list[Message] = []
        done = False

        def tap(m: Message, target: int = target, seen: count[int] = seen, held: list[Message] = held) -> list[Message]:
            nonlocal done
            if next(seen) == target:
                held.append(m)
                return [m] if replayed else []
            if held and not done and held[0][:3] == m[:3]:
                done = True
                return [held[0]] if replayed else [m, held[0]]
            return [m]

        try:
            tampered(protocol, evaluators, tap)
        except OutOfStep:
            assert done or not replayed
        else:
            assert not done
            assert replayed or not held
            if not held:
                return
