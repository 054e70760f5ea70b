"""The examples on fewer steps than their folders have: over real processes where columns are joined, else simulated."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from coordinator import jobfile
from coordinator.compiled import compile_job
from coordinator.frontend.plain import run_plain
from coordinator.local import LocalCluster
from mpcnode.errors import MpcError
from mpcnode.service import describe
from mpcnode.simulate import simulate
from mpcnode.wire import coordinator_pb2

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import demo  # noqa: E402

TORCH = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is an optional extra: make test-models")


def shortened(example: str, folder: Path) -> Path:
    """The example's job file, in a copy that goes over its data once and in few steps."""
    shutil.copytree(EXAMPLES / example, folder / example)
    program = folder / example / "train.py"
    text, count = re.subn(
        r"^EPOCHS, BATCH, (.*) = \d+, \d+, ", r"EPOCHS, BATCH, \1 = 1, 256, ", program.read_text(), flags=re.M
    )
    assert count == 1
    program.write_text(text)
    return folder / example / "job.toml"


def test_every_example_is_here() -> None:
    assert demo.EXAMPLES == ["breast_cancer", "credit", "diabetes", "digits", "torch_lenet"]
    for example in demo.EXAMPLES:
        assert (EXAMPLES / example / "README.md").read_text().count(f"examples/demo.py {example}") == 1
    with pytest.raises(
        MpcError, match="there is no example 'x': there is breast_cancer, credit, diabetes, digits, torch"
    ):
        demo.load_owners("x")


def test_joined_columns_over_real_nodes(tmp_path: Path) -> None:
    owners, job = demo.load_owners("credit"), shortened("credit", tmp_path)
    cluster = LocalCluster(tmp_path / "cluster", evaluators=owners.EVALUATORS)
    assert len(list(owners.register(cluster))) == 2
    ids = [(cluster.folder / o / f"{n}.csv").read_text() for o, n in (("bank", "loans"), ("bureau", "scores"))]
    assert ids[0].splitlines()[1].split(",")[0] != ids[1].splitlines()[1].split(",")[0]  # each in its own order
    with cluster:
        summary = demo.run(tmp_path, job, cluster)
    assert summary["measures"].keys() == {"accuracy/joined", "accuracy/bank_alone"}
    assert summary["measures"] == pytest.approx(summary["plain_measures"], abs=0.01)
    assert summary["largest_weight_difference"] < 1e-3
    for name in owners.EVALUATORS:  # keys are nobody else's business, and no log's
        assert "C-" not in (cluster.folder / name / "log.txt").read_text()


@pytest.mark.parametrize(
    ("example", "error"),
    [("diabetes", 2e-2), ("digits", 2e-2), ("breast_cancer", 5e-3), pytest.param("torch_lenet", 2e-2, marks=TORCH)],
)
def test_an_example_in_simulation(tmp_path: Path, example: str, error: float) -> None:
    owners, path = demo.load_owners(example), shortened(example, tmp_path)
    cluster = LocalCluster(tmp_path / "cluster", evaluators=owners.EVALUATORS)
    list(owners.register(cluster))
    offered = [
        coordinator_pb2.PartySchemas(party=name, schemas=map(describe, cluster.datasets(name).schemas()))
        for name in owners.EVALUATORS
    ]
    job = jobfile.read(path)
    plan, train = jobfile.resolve(job, path.name, cluster.cluster, offered), jobfile.load_function(path, job)
    pieces = [piece for item in plan.inputs.values() for piece in item.pieces]
    data: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for piece in pieces:
        columns = cluster.datasets(piece.owner).load(piece.dataset, piece.columns)
        data.setdefault(piece[:2], {}).update(zip(piece.columns, columns.T, strict=True))
    secure = simulate(compile_job(plan, train, "").graph, data, "masked").outputs
    compared = demo.compare(secure, run_plain(train, plan.inputs, plan.outputs, demo.pooled(cluster, plan)))
    assert compared["measures"] == pytest.approx(compared["plain_measures"], abs=2e-2)
    assert compared["largest_weight_difference"] < error
