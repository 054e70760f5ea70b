"""The recipient's arithmetic and files.  What tampering does is in test_coordinator_service.py."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fake_nodes import EVALUATORS, make_cluster

from coordinator import results
from coordinator.jobs import Run
from coordinator.programs import Output
from mpcnode import sealing
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError, SealError
from mpcnode.graph import Kind, Type
from mpcnode.graph_wire import type_to_wire
from mpcnode.identity import Identity
from mpcnode.wire import node_pb2

RUN = Run("job", 3)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Identity], Cluster]:
    return make_cluster(tmp_path_factory.mktemp("cluster"))


def sealed_parts(
    members: tuple[dict[str, Identity], Cluster], type: Type, value: npt.NDArray[Any], name: str = "w"
) -> list[node_pb2.Sealed]:
    """`value`, as raw ring elements or bits, split between the evaluators and sealed to the analyst."""
    identities, cluster = members
    rng = np.random.default_rng(1)
    if type.kind is Kind.BIT:
        mask = rng.integers(0, 2, value.shape).astype(np.uint8)
        parts = [mask, value ^ mask]
    else:
        mask = rng.integers(0, 2**64, value.shape, np.uint64)
        parts = [mask, value - mask]
    found = []
    for sender, part in zip(EVALUATORS, parts, strict=True):
        raw = np.ascontiguousarray(part, part.dtype.newbyteorder("<")).tobytes()
        purpose = sealing.Purpose(RUN.job, RUN.attempt, sender, "analyst", name, str(type), 0, 1)
        data = sealing.seal_result(identities[sender], cluster.card("analyst"), purpose, raw)
        wire = type_to_wire(type)
        found.append(
            node_pb2.Sealed(output=name, recipient="analyst", sender=sender, type=wire, piece=0, pieces=1, data=data)
        )
    return found


def collect(members: tuple[dict[str, Identity], Cluster], type: Type, sealed: list[node_pb2.Sealed]) -> results.Arrays:
    identities, cluster = members
    expected = {"w": Output(type, ("analyst",)), "other": Output(type, ("clinic_a",))}
    return results.collect(identities["analyst"], cluster, RUN, expected, sealed)


@pytest.mark.parametrize(
    ("type", "raw", "numbers"),
    [
        (Type(Kind.ARITH, 18, (2,)), np.array([2**17, 2**64 - 2**18], np.uint64), np.array([0.5, -1.0])),
        (Type(Kind.ARITH, 18, ()), np.array(3 << 18, np.uint64), np.array(3.0)),
        (Type(Kind.ARITH, 0, (2, 1)), np.array([[7], [2**64 - 7]], np.uint64), np.array([[7], [-7]])),
        (Type(Kind.BIT, 0, (3,)), np.array([1, 0, 1], np.uint8), np.array([True, False, True])),
        (Type(Kind.ARITH, 18, (0, 4)), np.empty((0, 4), np.uint64), np.empty((0, 4))),
    ],
)
def test_parts_add_up_to_numbers(
    members: tuple[dict[str, Identity], Cluster], type: Type, raw: npt.NDArray[Any], numbers: npt.NDArray[Any]
) -> None:
    found = collect(members, type, sealed_parts(members, type, raw))
    assert found.keys() == {"w"}
    assert found["w"].dtype == numbers.dtype
    np.testing.assert_array_equal(found["w"], numbers)


def test_a_part_of_the_wrong_length_is_refused(members: tuple[dict[str, Identity], Cluster]) -> None:
    type = Type(Kind.ARITH, 18, (2,))
    with pytest.raises(SealError, match=r"clinic_a sealed 24 bytes of w, which do not make arith\.18 \[2\]"):
        collect(members, type, sealed_parts(members, type, np.zeros(3, np.uint64)))


def test_a_part_sealed_as_another_type_does_not_open(members: tuple[dict[str, Identity], Cluster]) -> None:
    sealed = sealed_parts(members, Type(Kind.ARITH, 18, (2,)), np.zeros(2, np.uint64))
    with pytest.raises(SealError, match="does not open"):
        collect(members, Type(Kind.ARITH, 20, (2,)), sealed)


def test_a_member_for_whom_there_is_nothing_gets_nothing(members: tuple[dict[str, Identity], Cluster]) -> None:
    identities, cluster = members
    assert results.collect(identities["clinic_b"], cluster, RUN, {}, []) == {}


# ---- files ----------------------------------------------------------------------------------------------------------
def test_each_output_is_a_file_and_the_rest_of_its_name_a_key(tmp_path: Path) -> None:
    arrays: results.Arrays = {
        "weights/0/w": np.ones((2, 3)),
        "weights/0/b": np.zeros(3),
        "weights/file": np.array(1),
        "accuracy": np.array(0.97),
        "bits": np.array([True, False]),
    }
    files = results.write(arrays, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["weights.npz", "accuracy.npz", "bits.npz"]
    with np.load(tmp_path / "new" / "folder" / "weights.npz", allow_pickle=False) as weights:
        assert set(weights.files) == {"0/w", "0/b", "file"}
        np.testing.assert_array_equal(weights["0/w"], np.ones((2, 3)))
    with np.load(files[1], allow_pickle=False) as accuracy:
        assert accuracy["accuracy"].shape == () and float(accuracy["accuracy"]) == 0.97
    with zipfile.ZipFile(files[2]) as archive:
        assert archive.testzip() is None
    assert sorted(p.name for p in files[0].parent.iterdir()) == ["accuracy.npz", "bits.npz", "weights.npz"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    results.write({"w": np.zeros(3)}, tmp_path)
    results.write({"w": np.ones(2)}, tmp_path)
    with np.load(tmp_path / "w.npz") as found:
        np.testing.assert_array_equal(found["w"], np.ones(2))


@pytest.mark.parametrize("name", ["../w", "a/../../w", "/w", "w/", "", "a b", "..", ".hidden", "a\\b", "w\n"])
def test_a_name_from_the_network_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(SealError, match="cannot name a file"):
        results.write({name: np.zeros(1)}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        results.write({"w": np.zeros(1)}, tmp_path / "file")
