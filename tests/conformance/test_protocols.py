"""Every protocol computes what numpy computes, for every op, and costs what it declares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rows_arithmetic  # noqa: F401  (enters its rows)
import rows_control  # noqa: F401
import rows_convolution  # noqa: F401
import rows_structure  # noqa: F401
from rows import NAMES, ROWS, Case, Owners, ring, secret, written

from mpcnode import protocols
from mpcnode.engine import Plan
from mpcnode.graph import Attr, Graph, Kind, Op, Type
from mpcnode.matching import joins, sent_bytes
from mpcnode.ops import INTERACTIVE
from mpcnode.optable import OPS
from mpcnode.protocols import Cost, Protocol
from mpcnode.simulate import Message, simulate
from mpcnode.verify import verify

SETTINGS = [("cleartext", 1), ("cleartext", 2), ("cleartext", 3), ("masked", 2), ("masked", 3), ("masked", 5)]
CASES = [pytest.param(case, id=f"{name}-{case.label}") for name, cases in ROWS.items() for case in cases]


def test_every_op_has_a_row() -> None:
    assert ROWS.keys() == OPS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_every_case_has_its_op(name: str) -> None:
    assert ROWS[name]
    for case in ROWS[name]:
        graph, _ = written(case, NAMES)
        verify(graph)
        assert name in {op.name for op in graph.walk()}


@pytest.mark.parametrize("name", INTERACTIVE)
def test_an_op_on_secrets_alone_has_a_cost_under_masked_evaluation(name: str) -> None:
    graph, _ = written(ROWS[name][0], NAMES)
    [op] = [op for op in graph.ops if op.name == name]
    types = [graph.ops[a].type for a in op.args]
    assert all(t.kind is not Kind.PUBLIC for t in types)
    assert protocols.get("masked").cost(op, types, 3).rounds > 0


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("protocol", "evaluators"), SETTINGS, ids=str)
def test_computes_what_numpy_computes_at_the_declared_cost(protocol: str, evaluators: int, case: Case) -> None:
    rules = protocols.get(protocol)
    graph, data = written(case, NAMES[:evaluators])
    size = rules.helpers + evaluators
    sent: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)

    def count(message: Message) -> list[Message]:
        assert message.dealt == rules.is_helper(message.source)
        assert not rules.is_helper(message.target), "a helper receives nothing"
        sent[message.op][message.source, message.target] += message.array.nbytes
        return [message]

    result = simulate(
        graph, {}, protocol, evaluators=evaluators, hooks=lambda rank: Owners(data, rules, rank, size), tap=count
    )

    with np.errstate(over="ignore"):
        want = case.want(*(arg.value for arg in case.args))
    low, high = want if isinstance(want, tuple) else (want, want)
    got = result.outputs["result"]
    assert got.shape == low.shape
    assert np.all((low <= got) & (got <= high))

    assert sum(sent.values(), Counter()) == Counter(result.traffic.sent_bytes)
    matching = {join.number for join in joins(graph, Plan(graph).numbers)}
    assert sum(sum(sent.pop(number, {}).values()) for number in matching) == sent_bytes(graph)
    for number, op, types, times in executions(Plan(graph)):
        check_bytes(rules, op, rules.cost(op, types, size).times(times), sent[number], range(rules.helpers, size))
    if all(op.name != "loop" for op in graph.ops):
        assert result.traffic.rounds == rounds(rules, graph, size) + bool(matching)


def executions(plan: Plan, times: int = 1) -> Iterator[tuple[int, Op, list[Type], int]]:
    """Number, op, types of its arguments and how often it runs, loop bodies included."""
    for i, op in enumerate(plan.graph.ops):
        if op.name == "loop":
            yield from executions(plan.bodies[i], times * op.integer("length"))
        else:
            yield plan.numbers[i], op, [plan.graph.ops[a].type for a in op.args], times


def check_bytes(rules: Protocol, op: Op, cost: Cost, sent: Counter[tuple[int, int]], evaluators: range) -> None:
    """What an op sent, by (source, target), is what it declares."""
    assert sum(n for (source, _), n in sent.items() if rules.is_helper(source)) == cost.deal_bytes, op
    if op.name == "input":
        assert sum(sent.values()) == cost.owner_bytes
    else:
        assert all(sent[a, b] == cost.swap_bytes for a in evaluators for b in evaluators if a != b), op


def rounds(rules: Protocol, graph: Graph, size: int) -> int:
    """Rounds by the declared costs: on a chain of ops they add up, beside each other they are shared."""
    depths: list[int] = []
    for op in graph.ops:
        own = rules.cost(op, [graph.ops[a].type for a in op.args], size).rounds
        depths.append(own + max((depths[a] for a in op.args), default=0))
    return max(depths)


@pytest.mark.parametrize("evaluators", [2, 3])
def test_an_input_of_the_helper_goes_to_every_evaluator(evaluators: int) -> None:
    case = Case("of-the-helper", (secret(ring(4, 3)),), lambda b, x: x, lambda x: x)
    graph, data = written(case, ["helper"])
    rules = protocols.get("masked")
    hooks = lambda rank: Owners(data, rules, rank, 1 + evaluators)  # noqa: E731
    found = simulate(graph, {}, "masked", evaluators=evaluators, hooks=hooks)
    np.testing.assert_array_equal(found.outputs["result"], data["0"])
    assert found.traffic.sent_bytes == {(0, rank): 8 * 12 for rank in range(1, 1 + evaluators)}


@pytest.mark.parametrize("protocol", ["cleartext", "masked"])
@pytest.mark.parametrize("evaluators", [2, 3])
def test_a_guest_brings_data_and_computes_nothing(protocol: str, evaluators: int) -> None:
    """Beside an evaluator's input, in the order of ops; every evaluator gets as many bytes of it as any other."""
    args = secret(ring(4, 3)), secret(ring(4, 3, seed=1)), secret(ring(4, 3, seed=2))
    case = Case("guest", args, lambda b, x, y, z: b.emit("mul", b.emit("add", x, y), z), lambda x, y, z: (x + y) * z)
    graph, data = written(case, ["guest", "alice", "guest"])
    rules = protocols.get(protocol)
    size = rules.helpers + evaluators
    hooks = lambda rank: Owners(data, rules, rank, size)  # noqa: E731
    found = simulate(graph, {}, protocol, evaluators=evaluators, hooks=hooks, guests=["guest"])
    np.testing.assert_array_equal(found.outputs["result"], case.want(*(arg.value for arg in args)))
    sent = found.traffic.sent_bytes
    assert all(sent[size, rank] == 2 * 8 * 12 for rank in range(rules.helpers, size))
    assert all(target < size for _, target in sent), "a guest receives nothing"
    assert rules.helpers == 0 or (size, 0) not in sent


@pytest.mark.parametrize("evaluators", [2, 3])
def test_what_a_guest_brings_is_masked_for_every_evaluator(evaluators: int) -> None:
    """Each evaluator has m and one additive part of the mask, of which it takes all to unmask; the helper has no m."""
    value = ring(50)
    case = Case("guest", (secret(value),), lambda b, x: x, lambda x: x)
    graph, data = written(case, ["guest"])
    rules, size = protocols.get("masked"), 1 + evaluators
    made = [Keeper(data, rules, rank, size) for rank in range(size + 1)]
    graph = Graph((*graph.ops, Op("store", (0,), STORE, graph.ops[0].type)))
    simulate(graph, {}, "masked", evaluators=evaluators, hooks=made.__getitem__, guests=["guest"])
    masked, masks = made[1].stored[0].reshape(-1), [made[rank].stored[1].reshape(-1) for rank in range(1, size)]
    np.testing.assert_array_equal(masked - sum(masks), value.view(np.uint64))
    np.testing.assert_array_equal(sum(masks), made[0].stored[0].reshape(-1))
    for known in masks:  # one alone, or all but one, leave every element masked
        assert np.all(masked != value.view(np.uint64)) and np.all(masked - known != value.view(np.uint64))
        assert np.all(masked - (sum(masks) - known) != value.view(np.uint64))


STORE: dict[str, Attr] = {"kept": "value", "path": (), "dtype": "int32", "to": (), "replace": 0}


class Keeper(Owners):
    """Remembers what is kept."""

    stored: Any

    def store(self, op: Op, sharing: Any) -> None:
        self.stored = sharing
