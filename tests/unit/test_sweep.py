"""What the sweep counts and fits; that it measures what it says is for who runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coordinator.compiled import Compiled
from coordinator.jobfile import Plan
from coordinator.lower.builder import Builder
from mpcnode.graph import Kind, Type, verify

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from sweep import BASE, SWEEPS, Setting, limits, macs, of_sweep, settings, slope, with_steps


def looped(length: int) -> Compiled:
    """Products of secrets, [4, 5] by [5, 5], and of a secret with public numbers, so often."""
    b, body = Builder(), Builder()
    y = body.emit("param", index=0, type=Type(Kind.ARITH, 18, (5, 5)))
    x = body.emit("param", index=1, type=Type(Kind.ARITH, 18, (4, 5)))
    product = body.emit("trunc", body.emit("dot", x, y), by=18)
    body.emit("dot", y, body.const([[1.0, 2.0]] * 5))
    inputs = [
        b.emit("input", owner="a", dataset=f"d{n}", columns=tuple("abcde"), type=Type(Kind.ARITH, 18, (n, 5)))
        for n in (5, 4)
    ]
    loop = b.emit("loop", *inputs, length=length, reverse=0, consts=1, carry=1, body=body.graph([product]))
    b.emit("reveal", b.emit("get", loop, index=0), to=("a",), name="out")
    return Compiled(Plan("p", 18, {}, {}), {"final": b.graph()}, "")


def test_products_of_secrets_are_counted_in_every_step() -> None:
    compiled = looped(3)
    verify(compiled.graph)
    assert macs(compiled.graph) == 3 * 4 * 5 * 5


def test_a_program_gets_another_number_of_steps() -> None:
    longer = with_steps(looped(3), 7)
    verify(longer.graph)
    assert macs(longer.graph) == 7 * 4 * 5 * 5
    assert longer.graph.digest() == looped(7).graph.digest()


def test_a_sweep_changes_one_thing_and_measures_the_base_once() -> None:
    found = list(settings(list(SWEEPS)))
    assert found.count(BASE) == 1 and len(found) == len(set(found)) == sum(map(len, SWEEPS.values())) - 4
    assert all(sum(a != b for a, b in zip(setting, BASE, strict=True)) <= 1 for setting in found)
    assert Setting(depth=3, width=64).sizes == (784, 64, 64, 64, 10)
    points = [{**setting._asdict(), "seconds": 1.0} for setting in reversed(found)]
    assert [point["batch"] for point in of_sweep(points, "batch")] == list(SWEEPS["batch"])
    assert all(point["width"] == BASE.width for point in of_sweep(points, "batch"))


def test_the_fitted_line() -> None:
    points = [{"batch": n, "seconds": 0.01 * n**0.75} for n in (32, 64, 128)]
    assert slope(points, "batch") == pytest.approx((0.75, 1.0))
    points[1]["seconds"] *= 2
    power, off = slope(points, "batch")
    assert power == pytest.approx(0.75) and 1.5 < off < 2


def test_limits() -> None:
    record = {"limits": {"gmac_per_s": 10.0, "stream_bytes_per_s": 1e8, "message_s": 1e-4}, "products": 2}
    point = {"macs": 1e9, "busiest_sent_bytes": 5e6, "rounds": 40, "threads": 2}
    assert limits(point, record) == pytest.approx({"products": 0.1, "bytes": 0.05, "rounds": 0.004})
