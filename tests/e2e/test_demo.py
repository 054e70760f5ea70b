"""`make demo`, whole, and cut short: it must end with a good model, or with nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
WHOLE_S = 170.0
START_S = 90.0


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO), "breast_cancer", "--folder", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def using(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder: the cluster's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if str(folder) in words:
                found.append(words)
    return found


@pytest.mark.timeout(200)
def test_demo_trains_a_good_model(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with start(folder) as demo:
        out, err = demo.communicate(timeout=WHOLE_S)
    assert demo.returncode == 0, out + err
    summary = json.loads((folder / "summary.json").read_text())
    assert min(summary["measures"].values()) > 0.93
    assert summary["measures"] == pytest.approx(summary["plain_measures"], abs=0.02)
    assert summary["largest_weight_difference"] < 5e-3
    assert summary["sent_bytes"]["clinic_a->helper"] == summary["sent_bytes"]["clinic_b->helper"] == 0
    assert summary["rounds"] > 0 and summary["seconds"] > 0
    assert "helper" in summary["threat_model"]
    with np.load(summary["result"], allow_pickle=False) as weights:
        assert all(np.isfinite(weights[name]).all() for name in weights.files)
    assert "threat model" in out
    assert using(folder) == []


@pytest.mark.timeout(200)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["starting helper", "submitted"])
def test_demo_cut_short_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    """A signal to the demo alone, when processes are starting and when the job is on its way."""
    folder = tmp_path / "demo"
    with start(folder) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        until = time.monotonic() + START_S
        for line in demo.stdout:
            if moment in line:
                break
            assert time.monotonic() < until
        demo.send_signal(number)
        demo.stdout.read()
        error = demo.stderr.read()
        assert demo.wait(timeout=30) == 130, error
    assert error == "demo: interrupted; all processes are stopped\n"
    assert using(folder) == []


@pytest.mark.timeout(200)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_demo_killed_takes_its_processes_along(tmp_path: Path) -> None:
    """kill -9 leaves it no time to tidy up: the processes notice by themselves, and end within seconds."""
    folder = tmp_path / "demo"
    with start(folder) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "submitted" in line:
                break
        demo.kill()
    until = time.monotonic() + 30
    while using(folder):
        assert time.monotonic() < until, using(folder)
        time.sleep(0.1)


@pytest.mark.timeout(200)
def test_demo_fails_in_one_sentence(tmp_path: Path) -> None:
    """A folder that it did not make is left alone."""
    (tmp_path / "precious.txt").write_text("mine")
    with start(tmp_path) as demo:
        _, err = demo.communicate(timeout=START_S)
    assert demo.returncode == 1
    assert err.startswith("demo: ") and "precious" not in err and err.count("\n") == 1
    assert (tmp_path / "precious.txt").read_text() == "mine"
