"""What the sweep counts and fits; that it measures what it says is for who runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coordinator.compiled import Compiled
from coordinator.jobfile import Plan
from coordinator.lower.builder import Builder
from mpcnode.graph import Kind, Type
from mpcnode.verify import verify

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from measure import bounds, macs
from sweep import BASE, SWEEPS, Setting, of_sweep, settings, slope, with_steps
from tables import PAGE, growth, loopback, network, write


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


def test_products_of_a_convolution() -> None:
    b = Builder()
    x = b.emit("input", owner="a", dataset="d", columns=("v",), type=Type(Kind.ARITH, 18, (2 * 8 * 8 * 3, 1)))
    w = b.emit("input", owner="a", dataset="e", columns=("v",), type=Type(Kind.ARITH, 18, (5 * 5 * 3 * 4, 1)))
    window = {"stride": 1, "low": 0, "high": 0, "base_dilation": 1, "window_dilation": 1}
    b.emit(
        "conv",
        b.reshape(x, (1, 2, 8, 8, 3)),
        b.reshape(w, (1, 5, 5, 3, 4)),
        **{name: (value, value) for name, value in window.items()},
    )
    assert macs(b.graph()) == 2 * 4 * 4 * 4 * (5 * 5 * 3)


def test_bounds() -> None:
    at = {"gmac_per_s": 10.0, "stream_bytes_per_s": 1e8, "message_s": 1e-4}
    found = {"macs": 1e9, "sent_bytes": {"a->b": 3e6, "a->c": 2e6, "b->a": 4e6}, "rounds": 40}
    assert bounds(found, at, threads=2) == pytest.approx({"products": 0.05, "bytes": 0.05, "rounds": 0.004})


# ---- the page --------------------------------------------------------------------------------------------------------
RECORD = {
    "at": "2026-01-02T03:04:05+00:00",
    "machine": {"cpu": "a processor", "cores": 2, "simd": ["avx2"], "kernels": "native", "load": 0.2},
    "limits": {"gmac_per_s": 10.0, "stream_bytes_per_s": 1e8, "message_s": 1e-4},
}
SENT = {"helper->a": 2e6, "a->b": 5e6, "b->a": 5e6}
FOUND = {"seconds": 0.25, "rounds": 40.0, "macs": 1e9, "sent_bytes": SENT, "peak_mib": {"a": 50.0, "b": 100.0}}


def test_tables_hold_a_figure_beside_its_limits() -> None:
    text = loopback({**RECORD, "workloads": {"mine": {"what": "of all", **FOUND}}})
    assert "2026-01-02, a processor, 2 cores (avx2), native kernels; kernel 10.0 GMAC/s a thread" in text
    assert "Preliminary" not in text
    assert "| **mine** of all | 250 ms | 40 | 10 | 2 | 105 | 100 ms | 50 ms | 4 ms |" in text


def test_figures_of_a_busy_machine_are_called_preliminary() -> None:
    busy = {**RECORD, "machine": {**RECORD["machine"], "load": 7.0}}  # type: ignore[dict-item]
    workloads = {"W2": {**FOUND, "estimated_seconds": 0.2}}
    text = network([{**busy, "round_trip_s": 0.04, "bytes_per_s": 44e6, "workloads": workloads}])
    assert "Preliminary: the machine had other work (load 7 on 2 cores)" in text
    assert "| 40 ms, 352 Mbit/s | W2 | 250 ms | 200 ms | 1.25 | 40 |" in text


def test_slopes_in_a_table() -> None:
    points = [{**FOUND, **BASE._replace(batch=n)._asdict(), "seconds": n / 1000} for n in SWEEPS["batch"]]
    text = growth({**RECORD, "points": points})
    assert "| batch 32 to 512 | 32 ms to 512 ms | 1.00 (x1.00) | 40 to 40 | 1.00 | 1.00 | products: 100 ms |" in text


def test_the_page_has_a_place_for_every_table() -> None:
    page = PAGE.read_text()
    for name in ("loopback", "network", "growth"):
        written = write(page, name, "new")
        assert f"<!-- {name} -->\nnew\n<!-- end -->" in written and written.count("<!-- end -->") == 3
    with pytest.raises(ValueError, match="has 0 places for other, and wants one"):
        write(page, "other", "new")
