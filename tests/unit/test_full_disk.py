"""A disk without room, and folders that cannot be written: one sentence, and what was there before is there still."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from coordinator import calibration, results
from coordinator.calibration import Calibration
from coordinator.store import Store
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets
from mpcnode.errors import ConfigError, MpcError
from mpcnode.identity import create_identity, load_identity
from mpcnode.kept import Header, Kept, Leaf, Making


@contextmanager
def full_disk(nbytes: int) -> Iterator[None]:
    """No file can grow beyond that; Python ignores the signal, so that writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MAKING = Making(
    name="model", job="job-1", attempt=1, program="0" * 64, protocol="masked", parties=("helper", "a", "b"),
    leaves=(Leaf(path=(), kind="arith", frac=18, shape=(100,), dtype="float32"),), kept_at=1.0,
)  # fmt: skip


def hold(folder: Path, job: str) -> None:
    header = Header(making=MAKING.model_copy(update={"job": job}), party="a", parts=(2,), tags={})
    Kept(load_identity(folder / "a")).hold(header, {(): np.zeros((2, 100), np.uint64)})


WRITERS: dict[str, Callable[[Path], object]] = {
    "a cluster": lambda folder: Cluster.load(folder / "cluster.toml").save(folder / "cluster.toml"),
    "a dataset": lambda folder: Datasets(folder / "a").add("d", folder / "d.npy", ["a"], replace=True),
    "an approval": lambda folder: Datasets(folder / "a").allow("d", programs=["1" * 64]),
    "a dataset's end": lambda folder: Datasets(folder / "a").forbid("d"),
    "a share": lambda folder: hold(folder, "job-2"),
    "a kept value's terms": lambda folder: Kept(load_identity(folder / "a")).allow("model", ["b"]),
    "a kept value's end": lambda folder: Kept(load_identity(folder / "a")).forbid("model"),
    "a result": lambda folder: results.write({"w": np.ones(100)}, folder / "out"),
    "a calibration": lambda folder: calibration.write(Calibration("p", "n", {"x": 3}, {}), folder / "c.toml"),
    "an identity": lambda folder: create_identity(folder / "new", "new"),
    "a database": lambda folder: Store.in_folder(folder / "new"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("helper", "a", "b", "coordinator")
    cards = [create_identity(tmp_path / name, name, "127.0.0.1:1").card for name in names]
    made = Cluster.of("c", cards, evaluators=["a", "b"], coordinator="coordinator", helper="helper")
    made.save(tmp_path / "cluster.toml")
    np.save(tmp_path / "d.npy", np.ones((3, 2)))
    Datasets(tmp_path / "a").add("d", tmp_path / "d.npy", ["a"])
    hold(tmp_path, "job-1")
    Kept(load_identity(tmp_path / "a")).confirm("job-1", 1)
    results.write({"w": np.zeros(3)}, tmp_path / "out")
    calibration.write(Calibration("old", "n", {"x": 3}, {}), tmp_path / "c.toml")
    return tmp_path


@pytest.mark.parametrize("nbytes", [0, 40])
@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_one_sentence_and_loses_nothing(folder: Path, what: str, nbytes: int) -> None:
    before = contents(folder)
    (folder / "new").mkdir()
    with full_disk(nbytes), pytest.raises(MpcError, match=r"cannot be (written|used)") as caught:
        WRITERS[what](folder)
    assert "\n" not in str(caught.value)
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after.keys() - before.keys() if not name.startswith("new/coordinator.sqlite")]
    WRITERS[what](folder)  # and once there is room again, it is as if nothing had been


def test_no_half_an_identity_is_left(folder: Path) -> None:
    """Wherever the disk is full: at any of the four files."""
    card = (folder / "coordinator" / "card.toml").stat().st_size  # it is the last of them, and the largest
    for nbytes in (0, 100, 150, 300, card - 100):
        with full_disk(nbytes), pytest.raises(ConfigError, match="cannot be written"):
            create_identity(folder / "new", "new")
        assert list((folder / "new").iterdir()) == []
    create_identity(folder / "new", "new")


@pytest.mark.parametrize("what", ["a cluster", "a dataset", "an approval", "a share", "a result", "a calibration"])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As for another user than root, who may write everywhere."""
    before = contents(folder)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        WRITERS[what](folder)
    assert contents(folder) == before
