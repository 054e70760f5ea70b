"""Estimates against counts made by hand, and against what the simulator counts."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import cost
from coordinator.lower.builder import Builder, Value
from mpcnode import protocols, simulate
from mpcnode.graph import Graph, Kind, Type
from mpcnode.verify import verify

MASKED = protocols.get("masked")
PARTIES = ("helper", "a", "b")
SIZE = len(PARTIES)


def read(b: Builder, rows: int, columns: int, owner: str = "a") -> Value:
    names = tuple(f"c{i}" for i in range(columns))
    return b.emit("input", owner=owner, dataset="d", columns=names, type=Type(Kind.ARITH, 18, (rows, columns)))


def reveal(b: Builder, value: Value) -> None:
    b.emit("reveal", value, to=("a",), name=f"out{value.index}")


def test_a_product_by_hand() -> None:
    b = Builder()
    with b.at("t.py:1"):
        x, y = read(b, 10, 4), read(b, 4, 3, "b")
    with b.at("t.py:2"):
        product = b.emit("dot", x, y)
    with b.at("t.py:3"):
        reveal(b, b.emit("trunc", product, by=18))
    found = cost.estimate(b.graph(), MASKED, PARTIES)
    assert found.rounds == 3  # both inputs at once, the product, the truncation
    assert found.link_bytes == 30 * 8 + 30 * 4  # the product; wraps mod 2^18 in 32 bits
    assert found.total.deal_bytes == 30 * 8 + 30 * 12  # gamma; t, and b mod 2^18 in 32 bits
    assert found.total.owner_bytes == (40 + 12) * 8
    assert found.bytes == 2 * found.link_bytes + found.total.deal_bytes + found.total.owner_bytes
    assert [(line.where, line.ops, line.cost.rounds) for line in found.lines] == [
        ("t.py:2", 1, 1),
        ("t.py:3", 2, 1),
        ("t.py:1", 2, 2),
    ]


def test_independent_ops_share_their_rounds() -> None:
    b = Builder()
    x = read(b, 5, 5)
    for _ in range(3):
        reveal(b, b.emit("mul", x, b.emit("neg", x)))
        x = b.emit("neg", x)
    assert cost.estimate(b.graph(), MASKED, PARTIES).rounds == 2


def loop(b: Builder, x: Value, length: int, products: int) -> Value:
    """x squared `products` times in a row, `length` times over."""
    body = Builder()
    y = body.emit("param", index=0, type=x.type)
    for _ in range(products):
        y = body.emit("trunc", body.emit("mul", y, y), by=18)
    turns = b.emit("loop", x, length=length, reverse=0, consts=0, carry=1, body=body.graph([y]))
    return b.emit("get", turns, index=0)


def test_a_loop_costs_its_length_times_its_body() -> None:
    b = Builder()
    x = read(b, 6, 2)
    reveal(b, loop(b, x, length=7, products=3))
    found = cost.estimate(b.graph(), MASKED, PARTIES)
    assert found.rounds == 1 + 7 * 3 * 2
    assert found.link_bytes == 7 * 3 * 12 * (8 + 4)
    [line] = found.lines
    assert line.executions == 1 + 7 * (1 + 3 * 2) + 2


def test_a_body_counts_its_longest_chain_though_nothing_waits_for_it() -> None:
    body = Builder()
    y = body.emit("param", index=0, type=Type(Kind.ARITH, 18, (2, 2)))
    body.emit("trunc", body.emit("mul", y, y), by=18)  # the iteration ends when all of it is done
    b = Builder()
    x = read(b, 2, 2)
    turns = b.emit("loop", x, length=5, reverse=0, consts=0, carry=1, body=body.graph([y]))
    reveal(b, b.emit("get", turns, index=0))
    assert cost.estimate(b.graph(), MASKED, PARTIES).rounds == 1 + 5 * 2


def test_what_is_public_costs_nothing() -> None:
    b = Builder()
    x = read(b, 3, 3)
    reveal(b, b.emit("mul", x, b.const(np.ones((3, 3)))))
    found = cost.estimate(b.graph(), MASKED, PARTIES)
    assert (found.rounds, found.link_bytes, found.total.deal_bytes) == (1, 0, 0)


def test_cleartext_costs_the_sharing_of_inputs_only() -> None:
    b = Builder()
    reveal(b, loop(b, read(b, 3, 3), 2, 2))
    found = cost.estimate(b.graph(), protocols.get("cleartext"), ("a", "b", "c"))
    assert (found.rounds, found.link_bytes, found.bytes) == (1, 0, 9 * 8 * 2)


@pytest.mark.parametrize("evaluators", [2, 3])
def test_estimates_are_what_the_simulator_counts(evaluators: int) -> None:
    b = Builder()
    x, y = read(b, 4, 3), read(b, 3, 5, "b")
    z = b.dot(x, y)
    relu = b.emit("select", b.emit("sign", z, lo=18), z, keep=0)
    reveal(b, relu)
    reveal(b, loop(b, z, 3, 2))
    graph = b.graph()
    verify(graph)
    found = cost.estimate(graph, MASKED, simulate.parties(graph, MASKED, evaluators))
    data = {("a", "d"): np.full((4, 3), 0.25), ("b", "d"): np.full((3, 5), -0.5)}
    traffic = simulate.simulate(graph, data, "masked", evaluators=evaluators).traffic
    assert found.rounds == traffic.rounds
    assert found.bytes == sum(traffic.sent_bytes.values())
    if evaluators == 3:  # the third owns nothing
        assert found.link_bytes == traffic.sent_bytes[3, 1] == traffic.sent_bytes[3, 2]


GUEST, HELPER = "guest", "helper"


@pytest.mark.parametrize("evaluators", [2, 3])
@pytest.mark.parametrize("protocol", ["masked", "cleartext"])
@pytest.mark.parametrize("owners", [("a", "b"), (GUEST,), (GUEST, "a", GUEST), (HELPER, "a"), (GUEST, HELPER, "b")])
def test_inputs_cost_what_the_simulator_counts(protocol: str, evaluators: int, owners: tuple[str, ...]) -> None:
    """Whoever brings them: evaluators, the helper, owners that do not compute."""
    rules = protocols.get(protocol)
    b = Builder()
    inputs = [read(b, 5, 2 + i, owner) for i, owner in enumerate(owners)]
    for value in inputs:
        reveal(b, b.emit("trunc", b.emit("mul", value, value), by=18))
    graph = b.graph()
    guests = [GUEST] if GUEST in owners else []
    found = cost.estimate(graph, rules, simulate.parties(graph, rules, evaluators, guests))
    data = {(owner, "d"): {f"c{i}": np.ones(5) for i in range(2 + len(owners))} for owner in owners}
    traffic = simulate.simulate(graph, data, protocol, evaluators=evaluators, guests=guests).traffic
    assert (found.rounds, found.bytes) == (traffic.rounds, sum(traffic.sent_bytes.values()))
    if guests:  # by the link, too: of what a guest brings every evaluator gets all, and nobody else
        rank = rules.helpers + evaluators
        sent = {target: n for (source, target), n in traffic.sent_bytes.items() if source == rank}
        brought = sum(8 * 5 * (2 + i) for i, owner in enumerate(owners) if owner == GUEST)
        assert sent == dict.fromkeys(range(rules.helpers, rank), brought)


# ---- the chain that makes the rounds ---------------------------------------------------------------------------------
def test_the_chain_of_a_program_without_loops() -> None:
    b = Builder()
    with b.at("t.py:1"):
        x = read(b, 4, 4)
    with b.at("t.py:2"):
        short = b.emit("mul", x, x)
        long = b.emit("trunc", b.emit("dot", x, x), by=18)
    with b.at("t.py:3"):
        sign = b.emit("sign", long, lo=0)
    with b.at("t.py:2"):
        kept = b.emit("select", sign, long, keep=0)
    reveal(b, kept)
    reveal(b, short)
    found = cost.critical_chain(b.graph(), MASKED, SIZE)
    assert found.legs == (
        cost.Leg("t.py:1", ("input",), 1),
        cost.Leg("t.py:2", ("dot", "trunc"), 2),
        cost.Leg("t.py:3", ("sign",), 1),
        cost.Leg("t.py:2", ("select",), 1),
    )
    assert (found.where, found.steps, found.rounds) == ("", 1, 5)
    assert found.rounds == cost.estimate(b.graph(), MASKED, PARTIES).rounds
    assert found.by_line() == [("t.py:2", 3), ("t.py:1", 1), ("t.py:3", 1)]


def test_the_chain_of_the_loop_with_the_most_rounds() -> None:
    b = Builder()
    x = read(b, 2, 2)
    with b.at("t.py:5"):
        x = loop(b, x, length=10, products=1)
    with b.at("t.py:6"):
        x = loop(b, x, length=2, products=9)
    reveal(b, x)
    found = cost.critical_chain(b.graph(), MASKED, SIZE)
    assert (found.where, found.steps, found.rounds) == ("t.py:6", 2, 18)


def test_an_inner_loop_counts_all_its_steps() -> None:
    body = Builder()
    y = body.emit("param", index=0, type=Type(Kind.ARITH, 18, (2, 2)))
    with body.at("t.py:9"):
        y = body.emit("trunc", body.emit("mul", y, y), by=18)
    y = loop(body, y, length=5, products=1)
    b = Builder()
    turns = b.emit("loop", read(b, 2, 2), length=3, reverse=0, consts=0, carry=1, body=body.graph([y]))
    reveal(b, b.emit("get", turns, index=0))
    found = cost.critical_chain(b.graph(), MASKED, SIZE)
    assert [(leg.ops, leg.rounds) for leg in found.legs] == [(("mul", "trunc"), 2), (("mul", "trunc"), 10)]
    assert 1 + found.steps * found.rounds == cost.estimate(b.graph(), MASKED, PARTIES).rounds


def test_the_chain_of_nothing() -> None:
    assert cost.critical_chain(Graph(()), MASKED, SIZE) == cost.Chain("", 1, ())


def test_seconds_are_half_a_round_trip_for_each_round_and_the_busiest_party() -> None:
    zero = cost.Estimate(100, protocols.Cost(0, 0, 0), 2, ())
    assert zero.seconds(0.04, 1e6) == pytest.approx(2.0)
    busy = cost.Estimate(0, protocols.Cost(0, 10**6, 0), 3, ())
    assert busy.seconds(0.04, 1e6) == pytest.approx(2.0)  # a million bytes to each of two
    dealt = cost.Estimate(100, protocols.Cost(0, 0, 10**7), 2, ())
    assert dealt.seconds(0.04, 1e6) == pytest.approx(10.0)  # the helper's line is the bottleneck
    assert dealt.seconds(0.04, 1e9) == pytest.approx(2.005)
    brought = cost.Estimate(2, protocols.Cost(owner_bytes=2 * 10**6), 2, (), largest_input_bytes=2 * 10**6)
    assert brought.seconds(0.04, 1e6) == pytest.approx(2.04)  # a guest sends each of two a million


@pytest.mark.parametrize(("text", "value"), [("40ms", 0.04), ("200us", 2e-4), ("1.5 s", 1.5), ("0ms", 0.0)])
def test_times(text: str, value: float) -> None:
    assert cost.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("352Mbit/s", 44e6), ("10 Gbit/s", 1.25e9), ("8kbit/s", 1e3)])
def test_rates(text: str, value: float) -> None:
    assert cost.bytes_per_s(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "40", "ms", "-1ms", "nan s", "inf s", "4 min", "1Mbit/s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no number with one of the units us, ms, s"):
        cost.seconds(text)


@pytest.mark.parametrize("text", ["0Mbit/s", "10MB/s", "-1Gbit/s", "fast", "40ms"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is no number with one of the units"):
        cost.bytes_per_s(text)


def test_an_estimate_of_an_empty_graph() -> None:
    assert cost.estimate(Graph(()), MASKED, PARTIES) == cost.Estimate(0, protocols.Cost(), 2, ())
