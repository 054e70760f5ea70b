"""Train, keep the model as shares, restart every node, predict for a client who computes nothing; and what is refused.

One cluster of real processes: two hospitals evaluate, a client only brings its secret input and learns predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator import cost
from coordinator.client import Client
from coordinator.local import LocalCluster
from mpcnode import protocols
from mpcnode.errors import MpcError
from mpcnode.graph import Graph
from mpcnode.kept import Kept
from mpcnode.wire import coordinator_pb2 as wire

OWNERS = ("clinic_a", "clinic_b")
NODES = ("helper", *OWNERS)
SECRET = 31.4159265  # a weight that training finds, from what it is given
STEPS, RATE = 3, 0.25

PROGRAMS = """
import jax
import jax.numpy as jnp


def train(x, y):
    def step(params, _):
        error = x @ params["layers"][0]["w"] + params["bias"][0] - y
        w = params["layers"][0]["w"] - 0.25 / x.shape[0] * (x.T @ error)
        return {"layers": [{"w": w}], "bias": (params["bias"][0] - 0.25 * error.mean(0),)}, None

    start = {"layers": [{"w": jnp.zeros((x.shape[1], 1))}], "bias": (jnp.full((1,), 31.4159265),)}
    params, _ = jax.lax.scan(step, start, None, length=3)
    return {"params": params, "count": (y > 0).sum()}


def predict(params, x):
    return {"predictions": x @ params["layers"][0]["w"] + params["bias"][0]}


def steal(params, x):
    return {"predictions": params["layers"][0]["w"] + 0.0 * x[0, 0]}
"""
TRAIN = """
[job]
name = "train"
program = "programs.py:train"
[inputs.x]
rows = ["clinic_a/visits", "clinic_b/visits"]
columns = "features"
[inputs.y]
rows = ["clinic_a/visits", "clinic_b/visits"]
columns = ["ill"]
[outputs]
count = ["clinic_a"]
params = { keep = "model" }
"""
PREDICT = """
[job]
name = "predict"
program = "programs.py:FUNCTION"
[inputs.params]
kept = "model"
[inputs.x]
rows = ["client/mine"]
columns = "features"
[outputs]
predictions = ["client"]
"""


def table(owner: str, rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).round(3)
    return np.column_stack([x, x @ [0.5, -1.0, 2.0] + 1]).round(4)


TABLES = {"clinic_a": table("clinic_a", 9, 1), "clinic_b": table("clinic_b", 7, 2), "client": table("client", 4, 3)}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path / "cluster", OWNERS, ("analyst",), owners=("client",), deadline_s=20.0)
    for owner, rows in TABLES.items():
        file = made.folder / owner / "table.npy"
        np.save(file, rows)
        dataset = "mine" if owner == "client" else "visits"
        columns = ["u", "v", "w", "ill"]
        made.datasets(owner).add(
            dataset, file, [owner, "clinic_a"] if owner != "client" else ["client"],
            columns=columns, label="ill", keep=owner != "client",
        )  # fmt: skip
    (tmp_path / "programs.py").write_text(PROGRAMS)
    (tmp_path / "train.toml").write_text(TRAIN)
    for function in ("predict", "steal"):
        (tmp_path / f"{function}.toml").write_text(PREDICT.replace("FUNCTION", function))
    with made:
        yield made


def finish(client: Client, job: str) -> wire.Job:
    for _ in client.watch(job):
        pass
    return client.get(job)


def trained() -> dict[str, Any]:
    """What training finds, in floating point."""
    rows = np.concatenate([TABLES["clinic_a"], TABLES["clinic_b"]])
    x, y = rows[:, :3], rows[:, 3:]
    w, bias = np.zeros((3, 1)), np.full(1, SECRET)
    for _ in range(STEPS):
        error = x @ w + bias - y
        w, bias = w - RATE / len(x) * (x.T @ error), bias - RATE * error.mean(0)
    return {"w": w, "bias": bias}


def restart(cluster: LocalCluster, name: str) -> None:
    cluster.kill(name)
    cluster.start(name)
    cluster.wait(name)


@pytest.mark.timeout(200)
def test_a_model_is_trained_kept_and_used_and_nobody_sees_it(cluster: LocalCluster, tmp_path: Path) -> None:
    with Client(cluster.identities["analyst"], cluster.cluster) as client:
        job = client.submit(tmp_path / "train.toml")
        assert finish(client, job).state == wire.JOB_STATE_DONE
        [value] = client.kept()
        assert (value.kept.name, value.kept.job, list(value.kept.parties)) == ("model", job, list(NODES))
        with pytest.raises(MpcError, match="model is kept already, made by"):
            client.compile(tmp_path / "train.toml")
        for name in NODES:  # killed as in a crash: what counts is on disk
            restart(cluster, name)

        # a stranger's job would show the weights, and so does any program that nobody has looked at
        for function in ("steal", "predict"):
            refused = finish(client, client.submit(tmp_path / f"{function}.toml"))
            assert refused.state == wire.JOB_STATE_ABORTED
            assert "predictions is computed from the kept model and would go to client" in refused.cause

        compiled = client.compile(tmp_path / "predict.toml")
        for owner in OWNERS:
            Kept(cluster.identities[owner]).allow("model", programs=[compiled.graph.digest().hex()])
        theirs = cluster.datasets("client")
        theirs.forbid("mine")  # from now on it is for approved programs only: the client, who computes nothing, decides
        refused = finish(client, client.submit(compiled))
        assert "client has not approved this program, and only those that it has may read client/mine" in refused.cause
        theirs.allow("mine", programs=[compiled.graph.digest().hex()])
        done = client.submit(compiled)
        assert finish(client, done).state == wire.JOB_STATE_DONE, client.get(done).cause
        sent_what_was_estimated(compiled.graph, client.get(done), cluster)
        stolen = finish(client, client.submit(tmp_path / "steal.toml"))
        assert "would go to client" in stolen.cause or "client has not approved" in stolen.cause
    with Client(cluster.identities["client"], cluster.cluster) as client:
        found = client.result(done)["predictions"]
    model = trained()
    np.testing.assert_allclose(found, TABLES["client"][:, :3] @ model["w"] + model["bias"], atol=2e-3)
    nothing_in_clear(cluster, model)
    missing_shares_are_named(cluster, tmp_path)


def sent_what_was_estimated(graph: Graph, done: wire.Job, cluster: LocalCluster) -> None:
    """By all nodes together, and in as many rounds: the client is one that does not compute."""
    found = cost.estimate(graph, protocols.get("masked"), cluster.cluster.parties)
    reports = {report.party: report.finished for report in done.reports}
    assert sum(link.sent_bytes for finished in reports.values() for link in finished.traffic) == found.bytes
    assert {reports[owner].rounds for owner in OWNERS} == {found.rounds}
    assert sum(link.sent_bytes for link in reports["client"].traffic) == found.total.owner_bytes > 0


def nothing_in_clear(cluster: LocalCluster, model: dict[str, Any]) -> None:
    """Neither the weights nor any node's parts of them lie in the folders, as floats, ring elements or text."""
    shares = {name: Kept(cluster.identities[name]) for name in NODES}
    [making] = [making for making, _ in shares["clinic_a"].makings()]
    parts = {name: kept.load("model", making.run).arrays for name, kept in shares.items()}
    needles = [np.float64(model["bias"][0]).tobytes(), np.float32(model["bias"][0]).tobytes()]
    needles += [part.tobytes()[:16] for arrays in parts.values() for part in arrays.values()]
    needles.append(f"{model['bias'][0]:.4f}".encode())
    for name in (*NODES, "client", "coordinator"):
        for file in (cluster.folder / name).rglob("*"):
            if file.is_file():
                assert not any(needle in file.read_bytes() for needle in needles), file
    for name in NODES:
        [share] = (cluster.folder / name / "kept").glob("*.share")
        assert share.stat().st_mode & 0o077 == 0
    path = (".layers", "[0", ".w")
    masked, mask = parts["clinic_a"][path][0], parts["helper"][path][0]
    value = (masked - mask).view(np.int64) / 2**18  # all of them together do hold it
    np.testing.assert_allclose(value, model["w"], atol=2e-3)


def missing_shares_are_named(cluster: LocalCluster, folder: Path) -> None:
    """A share that was altered, swapped or lost: a sentence with the node's name, before anything is computed."""
    [share] = (cluster.folder / "clinic_b" / "kept").glob("*.share")
    whole = share.read_bytes()
    other = next((cluster.folder / "clinic_a" / "kept").glob("*.share")).read_bytes()
    with Client(cluster.identities["analyst"], cluster.cluster) as client:
        compiled = client.compile(folder / "predict.toml")
        for contents, why in (
            (whole[:-1] + bytes([whole[-1] ^ 1]), "was altered"),
            (whole.replace(b'"party":"clinic_b"', b'"party":"clinic_x"'), "was altered"),
            (other, "was altered"),
            (whole[:-9], "was altered"),
            (whole + b"!", "is longer than what was kept"),
            (b"", "is no kept share"),
            (None, "clinic_b does not hold its share of model"),
        ):
            share.unlink() if contents is None else share.write_bytes(contents)
            failed = finish(client, client.submit(compiled))
            assert failed.state == wire.JOB_STATE_ABORTED
            assert failed.cause.startswith("clinic_b") and why in failed.cause, failed.cause
        [value] = client.kept()
        assert list(value.missing) == ["clinic_b"]
        with pytest.raises(MpcError, match="clinic_b cannot be asked for, or has lost, its share of model"):
            client.compile(folder / "predict.toml")
        share.write_bytes(whole)
        share.chmod(0o600)
        assert finish(client, client.submit(compiled)).state == wire.JOB_STATE_DONE
