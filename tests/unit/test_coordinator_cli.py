"""The command line as people use it: over a real coordinator, with nodes that follow scripts (fake_nodes.py)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pytest
from fake_nodes import NAMES, VALUE, World, world

from coordinator import cli
from coordinator.client import Client
from coordinator.local import free_ports
from mpcnode.cluster import Cluster
from mpcnode.identity import create_identity, load_identity
from mpcnode.wire import graph_pb2, node_pb2

JOB = """
[job]
name = "demo"
program = "train.py:train"
[inputs.x]
rows = ["clinic_a/wdbc", "clinic_b/wdbc"]
columns = "features"
[inputs.y]
rows = ["clinic_a/wdbc", "clinic_b/wdbc"]
columns = ["y"]
squeeze = true
[outputs]
result = ["analyst"]
"""

TRAIN = """
import jax
import jax.numpy as jnp


def train(x, y):
    w = jnp.zeros(2)

    def step(w, _):
        return w - 0.1 * x.T @ (x @ w - y), None

    w, _ = jax.lax.scan(step, w, None, length=3)
    return {"result": (x @ w)[:3]}
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command line in this process, in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MPCNODE_DIR", "analyst")

    def command(*args: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["coordinator", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        found = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, found.out, found.err)

    return command


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "train.py").write_text(TRAIN)
    with world(tmp_path) as made:
        made.cluster.save(tmp_path / "cluster.toml")
        yield made


def one_line(ran: Ran, why: str) -> None:
    """The command failed with one sentence."""
    assert ran.code == 1
    assert ran.err.startswith("coordinator: ") and ran.err.count("\n") == 1
    assert why in ran.err


# ---- setting up -----------------------------------------------------------------------------------------------------
def cards(folder: Path, *names: str) -> list[str]:
    for name, port in zip(names, free_ports(len(names)), strict=True):
        create_identity(folder / name, name, None if name == "analyst" else f"127.0.0.1:{port}")
    return [f"{name}/card.toml" for name in names]


def test_init_makes_the_coordinator_and_collects_the_cards(run: Run, tmp_path: Path) -> None:
    found = cards(tmp_path, "clinic_a", "helper", "clinic_b", "analyst")
    ran = run("init", *found, "--address", "127.0.0.1:7000")
    assert ran.code == 0 and "wrote cluster.toml" in ran.out and "coordinator" in ran.out
    made = Cluster.load(tmp_path / "cluster.toml")
    assert (made.helper, made.evaluators, made.coordinator) == ("helper", ("clinic_a", "clinic_b"), "coordinator")
    assert load_identity(tmp_path / "coordinator").card.address == "127.0.0.1:7000"
    one_line(run("init", *found), "cluster.toml exists")
    assert run("init", *found, "--replace").code == 0
    one_line(run("init", *found, "--replace", "--address", "127.0.0.1:7001"), "leave --address away")


def test_init_with_other_roles(run: Run, tmp_path: Path) -> None:
    found = cards(tmp_path, "bank_a", "bank_b", "bank_c", "dealer")
    options = ("--helper", "dealer", "--evaluator", "bank_c", "--evaluator", "bank_a", "--name", "clerk")
    more = ("--dir", "here", "--address", "127.0.0.1:7000", "--cluster-name", "banks", "--out", "banks.toml")
    assert run("init", *found, *options, *more).code == 0
    made = Cluster.load(tmp_path / "banks.toml")
    assert (made.name, made.helper, made.evaluators) == ("banks", "dealer", ("bank_c", "bank_a"))
    assert made.coordinator == "clerk" and load_identity(tmp_path / "here").name == "clerk"


def test_init_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    found = cards(tmp_path, "clinic_a", "clinic_b")
    one_line(run("init", *found), "say with --address")
    one_line(run("init", *found, "--address", "127.0.0.1:7000"), "needs a helper")
    one_line(run("init", "nowhere.toml"), "nowhere.toml does not exist")


def test_serving_says_what_is_wrong(run: Run, cluster: World, tmp_path: Path) -> None:
    one_line(run("serve", "--dir", "clinic_a"), "the coordinator of the cluster study is coordinator, not clinic_a")
    one_line(run("serve", "--dir", "coordinator"), "is a coordinator running already?")
    one_line(run("serve", "--dir", "coordinator", "--listen", "7000"), "--listen 7000: an address is HOST:PORT")
    one_line(run("serve", "--dir", "coordinator", "--database", "nonsense"), "a database is given as a URL")
    one_line(run("serve", "--dir", "nowhere"), "holds no identity")
    (tmp_path / "cluster.toml").write_text("[cluster]\n")
    one_line(run("serve", "--dir", "coordinator"), "cluster.toml")


def test_it_serves_until_it_is_told_to_stop(run: Run, cluster: World, tmp_path: Path) -> None:
    cluster.stop_coordinator()
    command = [sys.executable, "-m", "coordinator", "serve", "--dir", "coordinator", "--deadline", "5"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "coordinates study on 127.0.0.1" in line
        ran = run("submit", "job.toml", "--output", "out")
        assert ran.code == 0 and (tmp_path / "out" / "result.npz").exists()
        process.send_signal(signal.SIGTERM)
        log = process.stderr.read()
    assert process.returncode == 0
    assert "analyst submitted demo-" in log and ": done" in log and "Traceback" not in log


# ---- before a job ---------------------------------------------------------------------------------------------------
def test_schemas_are_listed(run: Run, cluster: World) -> None:
    ran = run("schemas")
    assert ran.code == 0 and "clinic_b/wdbc" in ran.out and "features (2)" in ran.out
    assert "float64: x0, x1" in ran.out


def test_any_stage_is_printed(run: Run, cluster: World) -> None:
    stages = run("show", "job.toml", "--stages").out.splitlines()
    assert stages[0].startswith("legal: ") and len(stages) >= 2
    ran = run("show", "job.toml", "--stage", "legal")
    assert ran.code == 0 and '%0 = input {columns ["x0","x1"]' in ran.out and "# train.py:" in ran.out
    assert run("show", "job.toml").out.startswith("%0 = input")
    one_line(run("show", "job.toml", "--stage", "x"), "there is no stage 'x'; there is legal, ")


def test_programs_have_a_name_that_nodes_can_allow(run: Run, cluster: World) -> None:
    digest = run("show", "job.toml", "--digest").out.strip()
    assert len(digest) == 64
    with Client(cluster.identities["analyst"], cluster.cluster) as client:
        assert client.compile("job.toml").graph.digest().hex() == digest
        job = client.submit("job.toml")
    assert run("show", job, "--digest").out.strip() == digest
    assert f"program {digest}\n" in run("estimate", "job.toml").out
    assert f"program {digest}: " in run("submit", "job.toml", "--no-watch").out


def test_kept_values_are_listed(run: Run, cluster: World) -> None:
    leaf = node_pb2.Leaf(path=[".layer", "[0"], type=graph_pb2.Type(kind=graph_pb2.KIND_ARITH, shape=(30, 4)))
    kept = node_pb2.Kept(name="model", job="train-1", attempt=1, parties=NAMES, leaves=[leaf], counts=True)
    for name in ("helper", "clinic_a"):
        cluster.nodes[name].kept = [kept]
    out = run("kept").out
    for part in ("model", "train-1/1", "layer/0", "120", "no share at clinic_b"):
        assert part in out


def test_costs_are_estimated(run: Run, cluster: World) -> None:
    ran = run("estimate", "job.toml", "--rtt", "40ms", "--rate", "352Mbit/s")
    assert ran.code == 0
    assert "rounds" in ran.out and "the network takes" in ran.out and "train.py:10" in ran.out
    assert "of inputs from their owners" in ran.out and "bytes of inputs" in ran.out
    assert "longest chain" not in ran.out
    ran = run("estimate", "job.toml", "--rounds")
    assert ran.code == 0 and "the longest chain of" in ran.out and "rounds on the chain" in ran.out
    ran = run("estimate", "job.toml", "--rtt", "40")
    assert ran.code == 2 and "is no number with one of the units us, ms, s" in ran.err


def test_a_job_is_simulated_on_made_up_numbers(run: Run, cluster: World) -> None:
    ran = run("simulate", "job.toml")
    assert ran.code == 0
    assert "made-up numbers for x, y" in ran.out and "train.py:10" in ran.out
    assert "headroom" in ran.out and "against plain JAX" in ran.out


def test_a_job_is_simulated_on_samples_under_the_protocol(run: Run, cluster: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", rng.normal(size=(9, 2)))
    (tmp_path / "y.csv").write_text("y\n" + "\n".join("01"[i % 2] for i in range(9)) + "\n")
    ran = run("simulate", "job.toml", "--sample", "x=x.npy", "--sample", "y=y.csv", "--protocol", "masked")
    assert ran.code == 0 and "made-up" not in ran.out and "under the protocol: " in ran.out
    one_line(run("simulate", "job.toml", "--sample", "x"), "write INPUT=FILE")
    one_line(run("simulate", "job.toml", "--sample", "z=x.npy"), "there is no input 'z' to sample: there is x, y")
    one_line(run("simulate", "job.toml", "--sample", "y=x.npy"), "has 2 columns, and input y wants 1")
    one_line(run("simulate", "job.toml", "--sample", "x=none.npy"), "none.npy cannot be read")
    one_line(run("simulate", "job.toml", "--protocol", "other"), "there is cleartext and masked")
    np.save(tmp_path / "few.npy", rng.normal(size=(1, 2)))
    one_line(run("simulate", "job.toml", "--sample", "x=few.npy"), "has 1 rows, and input x stacks 2 blocks")
    one_line(run("simulate", "job.toml", "--sample", "x=x.npy", "--sample", "y=few.npy"), "has 2 columns")


def test_values_that_do_not_fit_are_shown(run: Run, cluster: World, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((6, 2), 3e5))
    ran = run("simulate", "job.toml", "--sample", "x=x.npy")
    assert ran.code == 0 and "too large, or wrapped" in ran.out
    np.save(tmp_path / "x.npy", np.full((6, 2), 1e15))
    one_line(run("simulate", "job.toml", "--sample", "x=x.npy"), "the sample data does not fit")


def test_a_job_is_calibrated(run: Run, cluster: World, tmp_path: Path) -> None:
    ran = run("simulate", "job.toml", "--calibrate")
    assert ran.code == 0
    assert "values and their binary points by source line" in ran.out and "against plain JAX" in ran.out
    assert "wrote calibration.toml: name it in job.toml under [job] as calibration" in ran.out
    one_line(run("simulate", "job.toml", "--out", "other.toml"), "give --calibrate too")
    job = (tmp_path / "job.toml").read_text()
    (tmp_path / "job.toml").write_text(job.replace("[job]", "[job]\nassume_ranges = true"))
    one_line(run("estimate", "job.toml"), "assume_ranges relies on a calibration: name its file under calibration")
    named = '[job]\ncalibration = "calibration.toml"\nassume_ranges = true'
    (tmp_path / "job.toml").write_text(job.replace("[job]", named))
    ran = run("submit", "job.toml", "--no-watch")
    assert ran.code == 0
    assert "no value may come to more than 16 times the largest that the calibration met" in " ".join(ran.out.split())
    program = (tmp_path / "train.py").read_text()
    (tmp_path / "train.py").write_text(program.replace("return {", "x = x + x\n    return {", 1))
    one_line(run("estimate", "job.toml"), "the calibration is of another program than the job's function is now")


def test_what_a_job_keeps_is_written_as_a_sample_for_others(run: Run, cluster: World, tmp_path: Path) -> None:
    """The job that keeps writes a stand-in, and the job that uses the value is calibrated on it."""
    one_line(
        run("simulate", "job.toml", "--kept", "here"), "--kept is for what a job keeps, and job.toml keeps nothing"
    )
    (tmp_path / "train.py").write_text("def train(x, y):\n    return {'result': {'w': x.T @ y / 6, 'n': [y.sum()]}}\n")
    (tmp_path / "keep.toml").write_text(JOB.replace('["analyst"]', '{ keep = "model" }'))
    ran = run("simulate", "keep.toml", "--kept", "here")
    assert ran.code == 0 and "as --sample INPUT=here/result.npz" in ran.out
    leaf = lambda path, shape: node_pb2.Leaf(  # noqa: E731
        path=path, type=graph_pb2.Type(kind=graph_pb2.KIND_ARITH, frac=18, shape=shape), dtype="float32"
    )
    leaves = [leaf([".n", "[0"], []), leaf([".w"], [2])]
    for name in NAMES:
        cluster.nodes[name].kept = [
            node_pb2.Kept(name="model", job="train-1", attempt=1, parties=NAMES, leaves=leaves, counts=True)
        ]
    (tmp_path / "train.py").write_text(
        "def train(x, y, model):\n    return {'result': x @ model['w'] + model['n'][0]}\n"
    )
    (tmp_path / "job.toml").write_text(JOB + '[inputs.model]\nkept = "model"\n')
    ran = run("simulate", "job.toml", "--calibrate", "--sample", "model=here/result.npz")
    assert ran.code == 0 and "made-up numbers for x, y (" in ran.out and "for model" not in ran.out
    ran = run("simulate", "job.toml", "--protocol", "masked")
    assert ran.code == 0 and "give what it may be like with --sample model=FILE.npz" in ran.out
    np.savez(tmp_path / "short.npz", **{"n/0": 1.0, "w": np.ones(3)})
    calibrate = ("simulate", "job.toml", "--calibrate", "--sample")
    one_line(run(*calibrate, "model=short.npz"), "the array w is of shape [3], and input model wants [2]")
    one_line(run(*calibrate, "model=train.py"), "train.py is no .npz file, or is cut short")


# ---- jobs -----------------------------------------------------------------------------------------------------------
def test_a_job_from_submission_to_result(run: Run, cluster: World, tmp_path: Path) -> None:
    ran = run("submit", "job.toml", "--output", "out")
    assert ran.code == 0
    for part in (
        "[6, 2]",
        "clinic_a/wdbc (3 rows), clinic_b/wdbc (3 rows)",
        "to analyst, computed from clinic_a/wdbc, clinic_b/wdbc",
        "threat model of masked: ",
        "rounds",
        "submitted as demo-",
        "every node runs program",
        "done",
        "peak memory",
    ):
        assert part in ran.out
    with np.load(tmp_path / "out" / "result.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["result"], VALUE)


def test_a_job_in_steps(run: Run, cluster: World, tmp_path: Path) -> None:
    for name in NAMES:
        cluster.nodes[name].hold.clear()
    ran = run("submit", "job.toml", "--no-watch")
    assert ran.code == 0
    job = ran.out.splitlines()[-1].removeprefix("submitted as ")
    assert job in run("jobs").out
    assert run("show", job).out.startswith("%0 = input")
    one_line(run("show", job, "--stage", "legal"), "has no stages")
    one_line(run("result", job), f"{job} has no results, it is ")
    one_line(run("profile", job), f"no node has finished {job}: it is ")
    for name in NAMES:
        cluster.nodes[name].hold.set()
    watched = run("watch", job)
    assert watched.code == 0 and "queued" in watched.out and "done" in watched.out
    assert run("result", job).out == f"wrote {job}/result.npz\n"
    assert (tmp_path / job / "result.npz").exists()
    assert "train.py:2" in run("profile", job).out
    one_line(run("cancel", job), f"{job} is done already")
    one_line(run("submit", "job.toml", "--no-watch", "--output", "x"), "leave one of them away")


def test_a_job_that_fails_is_one_line(run: Run, cluster: World) -> None:
    cluster.nodes["clinic_b"].prepare_fails = "clinic_b does not allow this"
    ran = run("submit", "job.toml", "--output", "out")
    one_line(ran, "the job was aborted: clinic_b: clinic_b does not allow this")


def test_a_job_that_is_cancelled(run: Run, cluster: World) -> None:
    for name in NAMES:
        cluster.nodes[name].hold.clear()
    job = run("submit", "job.toml", "--no-watch").out.splitlines()[-1].removeprefix("submitted as ")
    assert run("cancel", job).out == f"cancelled {job}\n"
    one_line(run("watch", job), "cancelled by analyst")
    assert "cancelled" in run("jobs").out


def test_interrupting_leaves_the_job_running(run: Run, cluster: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        cluster.nodes[name].hold.clear()

    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", interrupted)
    ran = run("submit", "job.toml")
    assert ran.code == 130
    last = ran.out.splitlines()[-1]
    job = last.split(" ")[0]
    assert last == f"{job} goes on: `coordinator watch {job}` shows it again, `coordinator cancel {job}` ends it"
    assert cluster.client().get(job).ended_at == 0


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("submit", "nowhere.toml"), "nowhere.toml does not exist"),
        (("submit", "job.toml", "--dir", "nowhere"), "holds no identity"),
        (("submit", "job.toml", "--cluster", "nowhere.toml"), "nowhere.toml does not exist"),
        (("submit", "job.toml", "--dir", "stranger"), "stranger is not in the cluster study"),
        (("watch", "nothing"), "there is no job nothing"),
        (("result", "nothing"), "there is no job nothing"),
        (("cancel", "nothing"), "there is no job nothing"),
        (("show", "nothing"), "there is no job nothing"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, cluster: World, args: tuple[str, ...], why: str) -> None:
    one_line(run(*args), why)


def test_a_program_that_does_not_fit_the_job_is_one_line(run: Run, cluster: World, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("def train(x, y):\n    return {'other': x}\n")
    one_line(run("submit", "job.toml"), "other")


def test_a_coordinator_that_does_not_answer_is_one_line(run: Run, cluster: World) -> None:
    cluster.stop_coordinator()
    one_line(run("jobs"), "coordinator cannot be reached")
