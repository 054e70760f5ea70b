"""examples/mnist on images that are made up: its files are read, and both its jobs compile and fit together."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from coordinator import jobfile
from coordinator.compiled import Compiled, compile_job
from coordinator.local import LocalCluster
from mpcnode.errors import DataError
from mpcnode.graph_wire import type_to_wire
from mpcnode.service import describe
from mpcnode.simulate import simulate
from mpcnode.wire import coordinator_pb2, node_pb2

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """Its modules, which import each other by their bare names; gone again afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = ("idx", "lenet", "demo")
    before = {name: sys.modules.pop(name, None) for name in names}
    yield {name: __import__(name) for name in names}
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def write_idx(path: Path, array: np.ndarray) -> None:
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    for part, count in (("train", 64), ("t10k", 3)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count))
    return tmp_path


def test_its_files_are_read_or_refused(example: dict[str, ModuleType], mnist: Path) -> None:
    load = example["idx"].load
    images, digits = load(mnist, "train")
    assert images.shape == (64, 784) and digits.shape == (64,) and images.max() > 200
    packed = mnist / "t10k-images-idx3-ubyte.gz"
    (mnist / "t10k-images-idx3-ubyte").write_bytes(gzip.decompress(packed.read_bytes()))
    np.testing.assert_array_equal(
        load(mnist, "test")[0], example["idx"].read(packed.with_suffix(""), 3).reshape(3, 784)
    )
    (mnist / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03 cut")
    with pytest.raises(DataError, match="is no IDX file of bytes with 3 axes"):
        load(mnist, "test")
    write_idx(mnist / "train-labels-idx1-ubyte.gz", np.zeros(63))
    with pytest.raises(DataError, match="these are not MNIST's"):
        load(mnist, "train")
    with pytest.raises(DataError, match="give the folder with MNIST's four files"):
        load(mnist / "nowhere", "train")


def compiled(name: str, cluster: LocalCluster, values: tuple[coordinator_pb2.KeptValue, ...] = ()) -> Compiled:
    path = EXAMPLE / name
    job = jobfile.read(path)
    offered = [
        coordinator_pb2.PartySchemas(party=owner, schemas=map(describe, cluster.datasets(owner).schemas()))
        for owner in cluster.cluster.owners
    ]
    plan = jobfile.resolve(job, name, cluster.cluster, offered, values)
    return compile_job(plan, jobfile.load_function(path, job), "")


def test_what_is_trained_can_be_used(example: dict[str, ModuleType], mnist: Path, tmp_path: Path) -> None:
    demo, lenet = example["demo"], example["lenet"]
    cluster = LocalCluster(tmp_path / "cluster", demo.OWNERS, (), owners=(demo.CLIENT,))
    held = demo.split(mnist, 64, 3)
    for owner, (pixels, digits) in held.items():
        demo.register(cluster, owner, pixels, digits, keep=owner in demo.OWNERS)
    stores = [op for op in compiled("train.toml", cluster).graph.ops if op.name == "store"]
    leaves = [node_pb2.Leaf(path=op.texts("path"), type=type_to_wire(op.type), dtype=op.text("dtype")) for op in stores]
    value = coordinator_pb2.KeptValue(kept=node_pb2.Kept(name=demo.KEPT, job="mnist-train-1", attempt=1, leaves=leaves))
    graph = compiled("predict.toml", cluster, (value,)).graph
    params = lenet.start(1)
    kept: dict[Any, Any] = {
        (demo.KEPT, (f".{layer}", f".{part}")): np.asarray(params[layer][part]) for layer in params for part in "wb"
    }
    images = held[demo.CLIENT][0]
    data = {(demo.CLIENT, "letters"): {f"p{i}": images[:, i] for i in range(784)}}
    found = simulate(graph, data, kept=kept, guests=[demo.CLIENT]).outputs["scores"]
    np.testing.assert_allclose(found, np.asarray(lenet.logits(params, images)), atol=2e-3)
