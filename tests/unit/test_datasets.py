"""Datasets: what is accepted and what it becomes, and that every refusal names the place and never the value."""

import gzip
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mpcnode.datasets import Column, Datasets, Schema, keys_digest
from mpcnode.errors import ConfigError, DataError
from mpcnode.policy import Terms

SECRET = "4711"  # stands for a value that no message may hold
CSV = "age,bmi,smokes,label\n50,21.5,true,1\n61,30.25,false,0\n"


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    (tmp_path / "node").mkdir()
    return Datasets(tmp_path / "node")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(CSV)
    return path


# ---- what is accepted ----------------------------------------------------------------------------------------


def test_a_csv(datasets: Datasets, csv: Path) -> None:
    schema = datasets.add("study", csv, ["analyst"], label="label")
    assert schema == Schema(
        name="study",
        rows=2,
        columns=(Column("age", "int64"), Column("bmi", "float64"), Column("smokes", "bool"), Column("label", "int64")),
        groups={"label": ("label",), "features": ("age", "bmi", "smokes")},
    )
    features = datasets.load("study", "features")
    assert features.dtype == np.float64
    assert features.tolist() == [[50, 21.5, 1], [61, 30.25, 0]]
    labels = datasets.load("study", ["label", "smokes"])
    assert labels.dtype == np.int64
    assert labels.tolist() == [[1, 1], [0, 0]]


def test_columns_come_in_the_order_asked_for(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst"])
    assert datasets.load("study", ["bmi", "age"]).tolist() == [[21.5, 50], [30.25, 61]]


def test_a_csv_without_header(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("1,2.5\n3,4.5\n")
    datasets.add("bare", path, ["analyst"], columns=["a", "b"])
    assert datasets.load("bare", ["b", "a"]).tolist() == [[2.5, 1], [4.5, 3]]


def test_a_csv_as_spreadsheets_write_it(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "DATA.CSV"
    path.write_bytes(b'\xef\xbb\xbf"first, second",b\r\n 1,2\r\n3,4\r\n\r\n')
    datasets.add("sheet", path, ["analyst"])
    assert datasets.load("sheet", ["first, second", "b"]).tolist() == [[1, 2], [3, 4]]


def test_numbered_columns_as_pandas_writes_them(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "pixels.csv"
    path.write_text("0,1,2\n7,8,9\n")
    assert [c.name for c in datasets.add("pixels", path, ["analyst"]).columns] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.int8(), "int64"),
        (pa.uint64(), "int64"),
        (pa.float16(), "float64"),
        (pa.float32(), "float64"),
        (pa.bool_(), "bool"),
    ],
)
def test_a_parquet(datasets: Datasets, tmp_path: Path, kind: pa.DataType, dtype: str) -> None:
    values = pa.array([0, 1, 1]).cast(kind) if kind != pa.float16() else pa.array(np.array([0, 1, 1], np.float16))
    path = tmp_path / "data.parquet"
    pa.parquet.write_table(pa.table({"x": values, "y": [1.5, 2.5, 3.5]}), path)
    schema = datasets.add("study", path, ["analyst"])
    assert schema.columns == (Column("x", dtype), Column("y", "float64"))  # type: ignore[arg-type]
    assert datasets.load("study", ["y", "x"]).tolist() == [[1.5, 0], [2.5, 1], [3.5, 1]]
    assert datasets.load("study", "x").dtype == (np.float64 if dtype == "float64" else np.int64)


@pytest.mark.parametrize("dtype", ["u1", "<i4", "<i8", "<f4", ">f8", "?"])
def test_an_npy(datasets: Datasets, tmp_path: Path, dtype: str) -> None:
    array = np.asfortranarray(np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype))
    np.save(tmp_path / "x.npy", array)
    datasets.add("x", tmp_path / "x.npy", ["analyst"], groups={"pixels": ["c*"]})
    assert datasets.load("x", "pixels").tolist() == array.tolist()
    datasets.add("x", tmp_path / "x.npy", ["analyst"], columns=["left", "right"], replace=True)
    assert datasets.load("x", "right").tolist() == array[:, 1:].tolist()


def test_an_npy_of_one_axis_is_one_column(datasets: Datasets, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([3, 1, 4]))
    datasets.add("y", tmp_path / "y.npy", ["analyst"])
    assert datasets.load("y", "c0").tolist() == [[3], [1], [4]]


# ---- groups --------------------------------------------------------------------------------------------------


def test_groups_list_columns_or_match_them(datasets: Datasets, csv: Path) -> None:
    groups = {"body": ["bmi", "age"], "vowels": ["a*", "*m?"]}
    schema = datasets.add("study", csv, ["analyst"], groups=groups)
    assert schema.groups == {"body": ("bmi", "age"), "vowels": ("age", "bmi")}
    assert schema.expand("body") == ("bmi", "age")
    assert schema.expand(["label", "body"]) == ("label", "bmi", "age")


@pytest.mark.parametrize(
    ("groups", "label", "complaint"),
    [
        ({"g": ["agee"]}, None, "group g asks for 'agee', which fits no column: there is age, bmi, smokes, label"),
        ({"g": ["x*"]}, None, "fits no column"),
        ({"g": []}, None, "group g has no columns"),
        ({"age": ["bmi"]}, None, "group age has the name of a column"),
        ({"label": ["age"]}, "label", "--label makes the group label already"),
        ({}, "sex", "the label asks for 'sex'"),
    ],
)
def test_bad_groups(
    datasets: Datasets, csv: Path, groups: dict[str, list[str]], label: str | None, complaint: str
) -> None:
    with pytest.raises(DataError) as caught:
        datasets.add("study", csv, ["analyst"], groups=groups, label=label)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("weight", "dataset study has no column 'weight', nor a group (there is label, features)"),
        (["age", "features"], "column 'age' of dataset study is asked for twice"),
        ([], "no column of dataset study is asked for"),
    ],
)
def test_bad_questions(datasets: Datasets, csv: Path, asked: str | list[str], complaint: str) -> None:
    datasets.add("study", csv, ["analyst"], label="label")
    with pytest.raises(DataError) as caught:
        datasets.load("study", asked)
    assert complaint in str(caught.value)


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is it empty"),
        ("a,b\n", "is empty: it needs at least one column and one row"),
        (f"a,b\n1,2\n3,{SECRET}x\n", "column 'b' is not numeric, first in row 2"),
        (f"a,b\n1,2\n3,{SECRET}_0\n", "column 'b' is not numeric, first in row 2"),
        (f"a\nx{SECRET}\n", "column 'a' is not numeric, first in row 1"),
        ("a,b\n1,2020-01-01\n", "column 'b' is not numeric from row 1 on, it is date32"),
        ("a,b\n1,2\n3,\n", "column 'b' has no value in row 2"),
        ("a,b\n1,2\n3,NaN\n", "column 'b' has no value in row 2"),
        ("a,b\n1,\n3,\n", "column 'b' has no value in row 1"),
        ("a,b\n1,2.5\n3,inf\n", "column 'b' is NaN or infinite in row 2"),
        ("a,b\n1,2.5\n3,-1e999\n", "column 'b' is NaN or infinite in row 2"),
        (f"a\n1\n{SECRET}00000000000000\n", "column 'a' is too large (beyond 2^53) in row 2"),
        (f"a\n1\n-{SECRET}00000000000000\n", "column 'a' is too large (beyond 2^53) in row 2"),
        (f"a\n{SECRET}000000000000000000\n", "column 'a' is too large (beyond 2^53) in row 1"),
        ("a\n-9223372036854775808\n", "column 'a' is too large (beyond 2^53) in row 1"),
        (f"a,b\n1,2\n{SECRET}\n", "has 1 fields in row 2, not 2"),
        (f"a,b\n1,2\n1,2,{SECRET}\n", "has 3 fields in row 2, not 2"),
        ("a,b,a\n1,2,3\n", "has two columns named 'a'"),
        (",b\n0,2\n", "perhaps row numbers: write it with index=False"),
        ("a,\n1,2\n", "the name of column 2 is empty"),
        ("a,\x1b[2J\n1,2\n", "the name of column 2 is empty, too long or not printable"),
        (f"{SECRET}.5,x\n1,2\n", "has numbers where the names of its columns should stand"),
        (f"{SECRET}\n1\n", "has numbers where the names of its columns should stand"),
        ("a;b\n1;2\n", "separates its fields by something else than commas"),
    ],
)
def test_bad_csvs(datasets: Datasets, tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        datasets.add("study", path, ["analyst"])
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:  # nor may a chained cause quote it
        assert SECRET not in str(error).replace(str(path), "")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert datasets.entries() == ()


@pytest.mark.parametrize("contents", [b"a,b\n1,\xff\n", b"a,\xff\n1,2\n"])
def test_a_csv_in_another_encoding(datasets: Datasets, tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "data.csv").write_bytes(contents)
    with pytest.raises(DataError, match=r"not numeric, first in row 1|not UTF-8"):
        datasets.add("study", tmp_path / "data.csv", ["analyst"])


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"a": ["x", SECRET]}, "column 'a' is not numeric, first in row 1"),
        ({"a": [[1], [2]]}, "column 'a' is not numeric from row 1 on, it is list"),
        ({"a": [1, None]}, "column 'a' has no value in row 2"),
        ({"a": [1.0, float("nan")]}, "column 'a' is NaN or infinite in row 2"),
        ({"a": pa.array([1, 2**64 - 1], pa.uint64())}, "column 'a' is too large (beyond 2^53) in row 2"),
        ({"__index_level_0__": [1]}, "perhaps row numbers"),
        ({"a": pa.array([], pa.int64())}, "is empty"),
        ({}, "is empty"),
    ],
)
def test_bad_parquets(datasets: Datasets, tmp_path: Path, table: dict[str, object], complaint: str) -> None:
    path = tmp_path / "data.parquet"
    pa.parquet.write_table(pa.table(table), path)
    with pytest.raises(DataError) as caught:
        datasets.add("study", path, ["analyst"])
    assert complaint in str(caught.value)
    assert SECRET not in str(caught.value).replace(str(path), "")


def test_a_parquet_with_names_of_its_own(datasets: Datasets, tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match="leave --columns away"):
        datasets.add("study", tmp_path / "data.parquet", ["analyst"], columns=["b"])
    twins = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pa.parquet.write_table(twins, tmp_path / "data.parquet")
    with pytest.raises(DataError, match="two columns named 'a'"):
        datasets.add("study", tmp_path / "data.parquet", ["analyst"])


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((2, 2, 2)), "has 3 axes"),
        (np.float64(1), "has 0 axes"),
        (np.zeros((0, 3)), "is empty"),
        (np.zeros((3, 0)), "is empty"),
        (np.array(["a"]), "column 'c0' is not numeric"),
        (np.array([1j]), "column 'c0' is not numeric"),
        (np.array([[1.0, 2.0], [3.0, np.inf]]), "column 'c1' is NaN or infinite in row 2"),
        (np.array([1, 2**63], np.uint64), "column 'c0' is too large (beyond 2^53) in row 2"),
        (np.array([{}]), "cannot be read as NPY"),
    ],
)
def test_bad_npys(datasets: Datasets, tmp_path: Path, array: np.ndarray, complaint: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError) as caught:
        datasets.add("x", tmp_path / "x.npy", ["analyst"])
    assert complaint in str(caught.value)


def test_an_npy_wants_a_name_for_each_column(datasets: Datasets, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match="has 3 columns, and --columns names 2"):
        datasets.add("x", tmp_path / "x.npy", ["analyst"], columns=["a", "b"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
@pytest.mark.parametrize("contents", [b"", b"\x93NUMPY", b"PAR1nonsensePAR1", bytes(range(256))])
def test_nonsense(datasets: Datasets, tmp_path: Path, suffix: str, contents: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(contents)
    with pytest.raises(DataError):
        datasets.add("study", path, ["analyst"])


@pytest.mark.parametrize("shape", ["(1000000000000000, 2)", "(-1, 2)", "((((((", "'x'"], ids=["huge", "-1", "(", "x"])
def test_an_npy_that_promises_what_it_does_not_hold(datasets: Datasets, tmp_path: Path, shape: str) -> None:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(64))
    with pytest.raises(DataError, match="cannot be read as NPY"):
        datasets.add("a", tmp_path / "a.npy", ["analyst"])


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ("\ufeffx,y\n1,2\n".encode("utf-16-le"), "is UTF-16: save it as CSV in UTF-8"),
        (gzip.compress(b"x,y\n1,2\n"), "is compressed: save it as CSV in UTF-8"),
        (b"PK\x03\x04" + bytes(range(64)), "is a spreadsheet or archive: save it as CSV in UTF-8"),
    ],
    ids=["utf-16", "gzip", "zip"],
)
def test_what_has_only_the_name_of_a_csv(datasets: Datasets, tmp_path: Path, contents: bytes, complaint: str) -> None:
    (tmp_path / "a.csv").write_bytes(contents)
    with pytest.raises(DataError, match=complaint):
        datasets.add("a", tmp_path / "a.csv", ["analyst"])


def test_a_mark_of_byte_order_is_no_part_of_a_name(datasets: Datasets, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfid,y\n7,2\n8,3\n")
    assert datasets.add("a", tmp_path / "a.csv", ["analyst"], key="id").key == "id"
    assert [column.name for column in datasets.add("b", tmp_path / "a.csv", ["analyst"]).columns] == ["id", "y"]


@pytest.mark.parametrize("truncated", range(0, 152, 8))
def test_a_truncated_npy(datasets: Datasets, tmp_path: Path, truncated: int) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))
    path.write_bytes(path.read_bytes()[:truncated])
    with pytest.raises(DataError, match="cannot be read as NPY"):
        datasets.add("x", path, ["analyst"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gone.csv", "does not exist"),
        ("node", "Is a directory"),
        ("data.xls", "must end in one of .csv, .npy, .parquet"),
    ],
)
def test_files_that_cannot_be_read(datasets: Datasets, tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "data.xls").write_text("x")
    with pytest.raises(DataError, match=complaint):
        datasets.add("study", tmp_path / name, ["analyst"])


@pytest.mark.parametrize(
    ("name", "recipients"), [("Bad", ["analyst"]), ("a/b", ["analyst"]), ("ok", ["a b"]), ("ok", [])]
)
def test_bad_names(datasets: Datasets, csv: Path, name: str, recipients: list[str]) -> None:
    with pytest.raises(ConfigError):
        datasets.add(name, csv, recipients)


# ---- keys ----------------------------------------------------------------------------------------------------

KEYED = "id,age,bmi\n007,50,21.5\nB-2,61,30.25\n10,42,19\n"  # in the order of their keys: 007, 10, B-2


def test_rows_come_in_the_order_of_their_keys(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "keyed.csv"
    path.write_text(KEYED)
    schema = datasets.add("study", path, ["analyst"], key="id", label="bmi")
    assert schema.key == "id" and [column.name for column in schema.columns] == ["age", "bmi"]
    assert schema.groups == {"label": ("bmi",), "features": ("age",)}
    assert datasets.load("study", "age").tolist() == [[50], [42], [61]]
    assert datasets.load("study", ["bmi", "age"]).tolist() == [[21.5, 50], [19, 42], [30.25, 61]]
    with pytest.raises(DataError, match="has no column 'id'"):
        datasets.load("study", "id")


def test_the_same_keys_have_the_same_digest_in_any_order_and_file(datasets: Datasets, tmp_path: Path) -> None:
    ids = [30, 4, 100]
    (tmp_path / "a.csv").write_text("who,x\n" + "".join(f"{i},{i}.5\n" for i in ids))
    (tmp_path / "bare.csv").write_text("".join(f"{i}.5,{i}\n" for i in reversed(ids)))
    pa.parquet.write_table(pa.table({"number": pa.array(ids, pa.int32()), "y": ids}), tmp_path / "b.parquet")
    pa.parquet.write_table(pa.table({"y": ids, "text": [f"{i}" for i in ids]}), tmp_path / "c.parquet")
    np.save(tmp_path / "d.npy", np.array([[1, 100], [2, 4], [3, 30]]))
    datasets.add("a", tmp_path / "a.csv", ["analyst"], key="who")
    datasets.add("bare", tmp_path / "bare.csv", ["analyst"], columns=["x", "who"], key="who")
    datasets.add("b", tmp_path / "b.parquet", ["analyst"], key="number")
    datasets.add("c", tmp_path / "c.parquet", ["analyst"], key="text")
    datasets.add("d", tmp_path / "d.npy", ["analyst"], columns=["z", "who"], key="who")
    assert len({datasets.keys_sha256(name) for name in ("a", "bare", "b", "c", "d")}) == 1
    assert datasets.load("bare", "x").tolist() == datasets.load("a", "x").tolist() == [[100.5], [30.5], [4.5]]
    assert datasets.load("d", "z").tolist() == [[1], [3], [2]]
    np.save(tmp_path / "d.npy", np.array([[1, 100], [2, 4], [3, 31]]))
    datasets.add("d", tmp_path / "d.npy", ["analyst"], columns=["z", "who"], key="who", replace=True)
    assert datasets.keys_sha256("d") != datasets.keys_sha256("a")


def test_keys_cannot_be_cut_in_another_place() -> None:
    assert keys_digest(["ab", "c"]) != keys_digest(["a", "bc"]) != keys_digest(["abc"])


def test_what_has_no_key_cannot_be_joined(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst"])
    assert datasets.schema("study").key is None
    with pytest.raises(DataError, match=r"dataset study has no key, and the program joins it: .* --key COLUMN"):
        datasets.keys_sha256("study")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id,x\n4711,1\n5,2\n4711,3\n", "the key 'id' is the same in rows 1 and 3: keep one of them"),
        ("id,x\n4711,1\n,2\n", "the key 'id' has no value in row 2: fill it in, or drop the row"),
        ("id,x\n4711,1\n  ,2\n", "the key 'id' has no value in row 2"),
        ("ID,x\n4711,1\n", "has no column 'id' to be its key"),
        ("id\n4711\n", "is empty: it needs at least one column and one row"),
    ],
)
def test_bad_keys(datasets: Datasets, tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        datasets.add("bad", path, ["analyst"], key="id")
    assert SECRET not in str(caught.value).replace(str(path), "") and caught.value.__cause__ is None


def test_numbers_with_a_point_are_no_keys(datasets: Datasets, tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"id": [1.0, 2.0], "y": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="the key 'id' is double: it must be whole numbers or text"):
        datasets.add("a", tmp_path / "a.parquet", ["analyst"], key="id")


# ---- the registry --------------------------------------------------------------------------------------------


def test_only_the_schema_is_for_others(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst", "anyone", "analyst"])
    assert set(datasets.schemas()[0].model_dump()) == {"name", "rows", "columns", "groups", "key"}
    assert datasets.schemas() == (datasets.schema("study"),)
    assert type(datasets.schema("study")) is Schema
    assert datasets.terms() == {"study": Terms({"analyst", "anyone"})}


def test_the_registry_is_read_by_people_too(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst"])
    entry = tomllib.loads((datasets.folder / "datasets.toml").read_text())["dataset"][0]
    assert entry["for"] == ["analyst"]
    assert entry["columns"][1] == ["bmi", "float64"]
    assert entry["path"] == str(csv.resolve())


def test_a_file_inside_the_folder_moves_with_it(datasets: Datasets, tmp_path: Path, csv: Path) -> None:
    csv.rename(datasets.folder / "data.csv")
    datasets.add("study", datasets.folder / "data.csv", ["analyst"])
    datasets.folder.rename(tmp_path / "elsewhere")
    assert Datasets(tmp_path / "elsewhere").load("study", "age").tolist() == [[50], [61]]


def test_a_changed_file_is_refused_until_it_is_added_anew(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst"])
    csv.write_text(CSV.replace("50", "51"))
    with pytest.raises(DataError, match=r"has changed since it was added as study: restore it, or .*--replace"):
        datasets.load("study", "age")
    with pytest.raises(DataError, match="study exists already"):
        datasets.add("study", csv, ["analyst"])
    datasets.add("study", csv, ["clinic_b"], replace=True)
    assert datasets.load("study", "age").tolist() == [[51], [61]]
    assert datasets.terms() == {"study": Terms({"clinic_b"})}
    csv.unlink()
    with pytest.raises(DataError, match="does not exist"):
        datasets.load("study", "age")


def test_programs_are_approved_one_by_one(datasets: Datasets, csv: Path) -> None:
    one, two = "1" * 64, "2" * 64
    datasets.add("study", csv, [], programs=[])
    datasets.add("other", csv, ["analyst"])
    assert datasets.terms()["study"] == Terms(set())
    datasets.allow("study", programs=[one])
    datasets.allow("study", ["analyst"], [two])
    datasets.allow("study", ["analyst", "clinic_b"], [two])
    datasets.allow("other", ["clinic_b"], [one])
    datasets.allow("other", ["helper"])
    both = {one: {"anyone"}, two: {"analyst", "clinic_b"}}
    assert Datasets(datasets.folder).terms() == {
        "study": Terms(set(), programs=both),
        "other": Terms({"analyst", "helper"}, programs={one: {"clinic_b"}}),
    }
    entries = tomllib.loads((datasets.folder / "datasets.toml").read_text())["dataset"]
    assert [entry["programs"] for entry in entries] == [
        [one, {"program": two, "for": ["analyst", "clinic_b"]}],
        [{"program": one, "for": ["clinic_b"]}],
    ]
    datasets.forbid("other")
    assert datasets.terms()["other"] == Terms(set())
    datasets.add("study", csv, ["analyst"], programs=[one], replace=True)  # other data: what was approved is forgotten
    assert datasets.terms()["study"] == Terms(set(), programs={one: {"analyst"}})


@pytest.mark.parametrize(
    ("recipients", "programs", "why"),
    [
        ([], None, "nobody is allowed to learn anything"),
        (["analyst"], [], "no program may read study yet, so nothing is for analyst"),
        (["Bad name"], None, "a name is a lower-case letter"),
        ([], ["12ab"], "64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_allowed(
    datasets: Datasets, csv: Path, recipients: list[str], programs: list[str] | None, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        datasets.add("study", csv, recipients, programs=programs)
    assert datasets.entries() == ()
    with pytest.raises(DataError, match="there is no dataset study here"):
        datasets.allow("study", ["analyst"])


def test_removing_forgets_the_dataset_and_keeps_the_file(datasets: Datasets, csv: Path) -> None:
    datasets.add("one", csv, ["analyst"])
    datasets.add("two", csv, ["analyst"])
    datasets.remove("one")
    assert [entry.name for entry in datasets.entries()] == ["two"]
    assert csv.exists()
    with pytest.raises(DataError, match="there is no dataset one here"):
        datasets.remove("one")


def test_a_refused_replacement_changes_nothing(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst"])
    before = datasets.entries()
    csv.write_text("a\nx\n")
    with pytest.raises(DataError):
        datasets.add("study", csv, ["analyst"], replace=True)
    assert datasets.entries() == before
    assert [path.name for path in datasets.folder.iterdir()] == ["datasets.toml"]


def test_an_edited_registry_is_checked(datasets: Datasets, csv: Path) -> None:
    datasets.add("study", csv, ["analyst"])
    path = datasets.folder / "datasets.toml"
    path.write_text(path.read_text().replace('"analyst"', '"The Analyst"'))
    with pytest.raises(ConfigError, match=r"datasets.toml: dataset\[1\].for\[1\]: a name is"):
        datasets.entries()
