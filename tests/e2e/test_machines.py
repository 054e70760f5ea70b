"""The README's section on separate machines, as a new user would go through it: every member at an address of its own.

Where network namespaces can be made (root), each member has one, joined by a bridge in another; else they are at
127.0.0.1 to 4.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

PROGRAM = """
import jax
import jax.numpy as jnp

def train(x, y):
    def step(w, _):
        error = jax.nn.sigmoid(x @ w) - y
        return w - 0.5 / x.shape[0] * (x.T @ error), None
    w, _ = jax.lax.scan(step, jnp.zeros((x.shape[1], 1)), None, length=3)
    return {"weights": w, "correct": jnp.sum((x @ w > 0).astype(jnp.float32) == y)}
"""
JOB = """
[job]
name = "separate machines"
program = "program.py:train"
[inputs.x]
rows = ["clinic_a/visits", "clinic_b/visits"]
columns = "features"
[inputs.y]
rows = ["clinic_a/visits", "clinic_b/visits"]
columns = ["ill"]
[outputs]
weights = ["analyst"]
correct = ["analyst", "clinic_a"]
"""
SERVING = ("helper", "clinic_a", "clinic_b", "coordinator")
PORT = 7443
ENVIRONMENT = {**os.environ, "COLUMNS": "160"}
COMMAND_S = 60.0
READY_S = 40.0


class Machines(NamedTuple):
    """Where each member is: its address, and the words that put a command there."""

    address: dict[str, str]
    prefix: dict[str, list[str]]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


def can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"mpc-{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, timeout=20).returncode != 0:
        return False
    ip("netns", "delete", name)
    return True


@pytest.fixture
def machines() -> Iterator[Machines]:
    if not can_make_namespaces():
        yield Machines(
            {name: f"127.0.0.{i}" for i, name in enumerate(SERVING, 1)}, {n: [] for n in (*SERVING, "analyst")}
        )
        return
    tag = uuid.uuid4().hex[:5]
    hub, spaces = f"mpc-{tag}-hub", {name: f"mpc-{tag}-{i}" for i, name in enumerate(SERVING, 1)}
    made: list[str] = []
    try:
        for space in (hub, *spaces.values()):
            ip("netns", "add", space)
            made.append(space)
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for i, space in enumerate(spaces.values(), 1):
            ip("-n", space, "link", "add", "eth", "type", "veth", "peer", "name", f"port{i}", "netns", hub)
            ip("-n", hub, "link", "set", f"port{i}", "master", "bridge", "up")
            ip("-n", space, "address", "add", f"10.77.0.{i}/24", "dev", "eth")
            ip("-n", space, "link", "set", "eth", "up")
            ip("-n", space, "link", "set", "lo", "up")
        prefix = {name: ["ip", "netns", "exec", space] for name, space in spaces.items()}
        # the analyst runs no node: she sits at the coordinator's
        prefix["analyst"] = prefix["coordinator"]
        yield Machines({name: f"10.77.0.{i}" for i, name in enumerate(SERVING, 1)}, prefix)
    finally:
        for space in made:
            ip("netns", "delete", space)


class Users:
    """Commands typed at the members' machines, in one folder that plays all their disks."""

    def __init__(self, folder: Path, machines: Machines) -> None:
        self.folder, self.machines = folder, machines
        self.serving: list[subprocess.Popen[bytes]] = []

    def command(self, who: str, program: str, words: Sequence[str]) -> list[str]:
        return [*self.machines.prefix[who], sys.executable, "-m", program, *words]

    def run(self, who: str, program: str, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            self.command(who, program, words),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            env=ENVIRONMENT,
        )
        assert (done.returncode != 0) == fails, f"{program} {' '.join(words)}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def serve(self, who: str, program: str, *words: str) -> None:
        log = (self.folder / f"{who}.log").open("wb")
        self.serving.append(
            subprocess.Popen(
                self.command(who, program, ["serve", *words]), cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )
        )
        log.close()

    def stop(self) -> list[int]:
        for process in self.serving:
            process.send_signal(signal.SIGTERM)
        try:
            return [process.wait(timeout=15) for process in self.serving]
        finally:
            for process in self.serving:
                process.kill()


@pytest.fixture
def users(tmp_path: Path, machines: Machines) -> Iterator[Users]:
    users = Users(tmp_path, machines)
    yield users
    users.stop()


def write_data(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 4))
    y = (x @ np.array([[1.0], [-2.0], [0.5], [0.0]]) > 0).astype(int)
    for name, rows in (("clinic_a", slice(0, 25)), ("clinic_b", slice(25, 60))):
        lines = ["age,weight,pulse,height,ill"]
        lines += [",".join(f"{v:.6f}" for v in xs) + f",{label}" for xs, [label] in zip(x[rows], y[rows], strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "job.toml").write_text(JOB)
    return x.round(6), y


def expected(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    w = np.zeros((4, 1))
    for _ in range(3):
        w -= 0.5 / len(x) * (x.T @ (1 / (1 + np.exp(-x @ w)) - y))
    return w


def set_up(users: Users) -> None:
    """Cards, cluster.toml and data, as the README has it."""
    for name in SERVING[:3]:
        users.run(name, "mpcnode", "init", "--name", name, "--address", f"{users.machines.address[name]}:{PORT}")
    users.run("analyst", "mpcnode", "init", "--name", "analyst")
    cards = [f"{name}/card.toml" for name in (*SERVING[:3], "analyst")]
    address = f"{users.machines.address['coordinator']}:{PORT}"
    users.run("coordinator", "coordinator", "init", *cards, "--helper", "helper", "--address", address)
    for name in ("clinic_a", "clinic_b"):
        words = ["--for", "analyst", "--for", "clinic_a", "--label", "ill", "--dir", name]
        users.run(name, "mpcnode", "data", "add", "visits", f"{name}.csv", *words)
        assert "visits" in users.run(name, "mpcnode", "data", "list", "--dir", name)


def wait_until_well(users: Users) -> str:
    """`mpcnode doctor` finds nothing wrong once everybody serves."""
    until = time.monotonic() + READY_S
    words = users.command("clinic_a", "mpcnode", ["doctor", "--dir", "clinic_a"])
    while True:
        done = subprocess.run(
            words, cwd=users.folder, capture_output=True, text=True, timeout=COMMAND_S, env=ENVIRONMENT
        )
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < until, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_readme_on_separate_machines(users: Users) -> None:
    x, y = write_data(users.folder)
    set_up(users)
    assert "helper" in users.run("clinic_a", "mpcnode", "doctor", "--dir", "clinic_a", fails=True)  # nobody serves yet
    for name in SERVING[:3]:
        users.serve(name, "mpcnode", "--dir", name, "--threads", "1")
    users.serve("coordinator", "coordinator", "--dir", "coordinator")
    report = wait_until_well(users)
    for name in SERVING:
        assert name in report

    estimate = users.run(
        "analyst", "coordinator", "estimate", "job.toml", "--rtt", "40ms", "--rate", "352Mbit/s", "--dir", "analyst"
    )
    assert "rounds" in estimate
    submitted = users.run("analyst", "coordinator", "submit", "job.toml", "--dir", "analyst", "--output", "results")
    assert "passive" in submitted  # the threat model, on every run
    jobs = users.run("analyst", "coordinator", "jobs", "--dir", "analyst")
    assert "separate-machines-" in jobs and "done" in jobs
    with np.load(users.folder / "results" / "weights.npz", allow_pickle=False) as found:
        [weights] = [found[name] for name in found.files]
    assert np.abs(weights - expected(x, y)).max() < 2e-3
    with np.load(users.folder / "results" / "correct.npz", allow_pickle=False) as found:
        [correct] = [found[name] for name in found.files]
    assert correct == np.sum((x @ expected(x, y) > 0) == y)
    assert users.stop() == [0, 0, 0, 0]
