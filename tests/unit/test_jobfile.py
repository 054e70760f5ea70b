"""Job files: what is wrong with one is said in one sentence that names the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_nodes import make_cluster

from coordinator import jobfile
from coordinator.jobfile import Input, Keep, KeptInput, Leaf, Piece
from mpcnode.cluster import Cluster
from mpcnode.errors import ConfigError
from mpcnode.graph import Kind, Type
from mpcnode.graph_wire import type_to_wire
from mpcnode.wire import coordinator_pb2, node_pb2

GOOD = """
[job]
name = "breast-cancer"
program = "train.py:train"
[inputs.x]
rows = ["clinic_a/wdbc", "clinic_b/wdbc"]
columns = "features"
[inputs.y]
rows = ["clinic_a/wdbc", "clinic_b/wdbc"]
columns = ["malignant"]
squeeze = true
[outputs]
weights = ["analyst"]
accuracy = ["analyst", "clinic_a"]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("cluster"))[1]


def party(
    name: str,
    rows: int,
    columns: tuple[str, ...] = ("a", "b", "malignant"),
    dataset: str = "wdbc",
    key: str = "",
) -> coordinator_pb2.PartySchemas:
    dtypes = {"malignant": "bool", "count": "int64"}
    schema = node_pb2.Schema(
        dataset=dataset,
        rows=rows,
        columns=[node_pb2.Column(name=column, dtype=dtypes.get(column, "float64")) for column in columns],
        groups=[node_pb2.ColumnGroup(name="features", columns=[c for c in columns if c != "malignant"])],
        key=key,
    )
    return coordinator_pb2.PartySchemas(party=name, schemas=[schema])


PARTIES = [party("clinic_a", 300), party("clinic_b", 269)]


def read(folder: Path, text: str) -> jobfile.JobFile:
    (folder / "job.toml").write_text(text)
    return jobfile.read(folder / "job.toml")


def test_a_good_file_is_resolved(tmp_path: Path, cluster: Cluster) -> None:
    plan = jobfile.resolve(read(tmp_path, GOOD), "job.toml", cluster, PARTIES)
    assert (plan.name, plan.frac) == ("breast-cancer", 18)
    assert plan.outputs == {"weights": ("analyst",), "accuracy": ("analyst", "clinic_a")}
    pieces = (Piece("clinic_a", "wdbc", 300, ("a", "b")), Piece("clinic_b", "wdbc", 269, ("a", "b")))
    assert plan.inputs["x"] == Input(pieces, squeeze=False, integer=False)
    assert plan.inputs["x"].shape == (569, 2)
    assert plan.inputs["y"].shape == (569,) and plan.inputs["y"].dtype == "bool"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[job]", "[jub]", "job: this field is missing"),
        ('name = "breast-cancer"', "", "job.name: this field is missing"),
        ('name = "breast-cancer"', "name = 3", "job.name: Input should be a valid string"),
        ("train.py:train", "train.py", r"job\.program: a program is FILE\.py:FUNCTION"),
        ("train.py:train", "train:train", r"job\.program: a program is FILE\.py:FUNCTION"),
        ("[inputs.x]", "frac = 40\n[inputs.x]", r"job\.frac: Input should be less than or equal to 28"),
        ("[inputs.x]", "speed = 1\n[inputs.x]", r"job\.speed: there is no such field"),
        ("squeeze = true", 'squeeze = "yes"', r"inputs\.y\.squeeze"),
        ("squeeze = true", "squash = true", r"inputs\.y\.squash: there is no such field"),
        ('columns = "features"', "", r"inputs\.x: rows want columns"),
        ('rows = ["clinic_a/wdbc", "clinic_b/wdbc"]', "", r"inputs\.x: wants rows, join or kept"),
        ('columns = "features"', "columns = []", r"inputs\.x\.columns: names no column"),
        ('"clinic_a/wdbc"', '"wdbc"', r"inputs\.x\.rows\[1\]: rows are named OWNER/DATASET"),
        ("[inputs.x]", '[inputs."x y"]', "'x y' is no Python name"),
        ('weights = ["analyst"]', "weights = []", r"outputs\.weights: nobody learns it: name its recipients"),
        ('weights = ["analyst"]', 'weights = ["Analyst"]', r"outputs\.weights\[1\]: a name is"),
        ("[outputs]", "[outputs", "is not valid TOML"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        read(tmp_path, GOOD.replace(old, new))
    sentence = str(caught.value)
    assert sentence.startswith(str(tmp_path / "job.toml")) and "\n" not in sentence


def test_a_file_without_inputs_or_outputs_is_refused(tmp_path: Path) -> None:
    header = GOOD[: GOOD.index("[inputs.x]")]
    with pytest.raises(ConfigError, match="inputs: this field is missing"):
        read(tmp_path, header)
    with pytest.raises(ConfigError, match="inputs: wants at least 1, and there is none"):
        read(tmp_path, header + "[inputs]\n[outputs]\n")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("clinic_a/wdbc", "clinic_a/wdcb", r"inputs\.x\.rows: nobody offers 'clinic_a/wdcb': did you mean 'clinic_"),
        ("clinic_a/wdbc", "x/y", r"inputs\.x\.rows: nobody offers 'x/y'; there is clinic_a/wdbc, clinic_b/wdbc"),
        ('"features"', '"feature"', r"clinic_a/wdbc has no column or group 'feature': did you mean 'features'\?"),
        (
            '["malignant"]',
            '["z"]',
            r"inputs\.y\.columns: clinic_a/wdbc has no column or group 'z'; there is a, b",
        ),
        ('["malignant"]', '["features", "a"]', r"inputs\.y\.columns: column 'a' of clinic_a/wdbc comes twice"),
        ('["malignant"]', '["a", "b"]', r"inputs\.y\.squeeze: wants one column, and there are 2"),
        (
            'weights = ["analyst"]',
            'weights = ["analist"]',
            r"outputs\.weights: .*: did you mean 'analyst'\?",
        ),
    ],
)
def test_a_name_that_nobody_knows_is_answered_with_the_nearest(
    tmp_path: Path, cluster: Cluster, old: str, new: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        jobfile.resolve(read(tmp_path, GOOD.replace(old, new, 1)), "job.toml", cluster, PARTIES)
    assert str(caught.value).startswith("job.toml: ")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (("a", "malignant"), "clinic_b/wdbc and clinic_a/wdbc do not stack: column 'b' is in one of them only"),
        (("a", "b", "c", "malignant"), "column 'c' is in one of them only"),
        (("b", "a", "malignant"), "have the same columns in another order: name them one by one"),
    ],
)
def test_blocks_that_do_not_stack_are_refused(
    tmp_path: Path, cluster: Cluster, columns: tuple[str, ...], why: str
) -> None:
    parties = [PARTIES[0], party("clinic_b", 269, columns)]
    with pytest.raises(ConfigError, match=why):
        jobfile.resolve(read(tmp_path, GOOD), "job.toml", cluster, parties)


def test_columns_and_groups_may_be_mixed(tmp_path: Path, cluster: Cluster) -> None:
    text = GOOD.replace('columns = "features"', 'columns = ["malignant", "features"]')
    plan = jobfile.resolve(read(tmp_path, text), "job.toml", cluster, PARTIES)
    assert plan.inputs["x"].pieces[0].columns == ("malignant", "a", "b") and plan.inputs["x"].dtype == "float32"


# ---- joined columns --------------------------------------------------------------------------------------------------
JOINED = """
[job]
name = "credit"
program = "train.py:train"
[inputs.x]
join = [
    { dataset = "clinic_a/loans", columns = ["b", "a"] },
    { dataset = "clinic_b/scores", columns = "features" },
]
[outputs]
weights = ["analyst"]
"""
KEYED = [
    party("clinic_a", 300, dataset="loans", key="id"),
    party("clinic_b", 300, ("c", "count"), dataset="scores", key="number"),
]


def test_columns_of_two_owners_are_joined(tmp_path: Path, cluster: Cluster) -> None:
    item = jobfile.resolve(read(tmp_path, JOINED), "job.toml", cluster, KEYED).inputs["x"]
    loans, scores = Piece("clinic_a", "loans", 300, ("b", "a")), Piece("clinic_b", "scores", 300, ("c", "count"))
    assert item == Input((loans, scores), squeeze=False, integer=False, joined=True)
    assert item.shape == item.size == (300, 4)
    assert list(item.blocks()) == [(loans, slice(0, 300), slice(0, 2)), (scores, slice(0, 300), slice(2, 4))]


def test_blocks_of_stacked_rows(tmp_path: Path, cluster: Cluster) -> None:
    item = jobfile.resolve(read(tmp_path, GOOD), "job.toml", cluster, PARTIES).inputs["x"]
    places = [(piece.owner, rows, columns) for piece, rows, columns in item.blocks()]
    assert places == [("clinic_a", slice(0, 300), slice(0, 2)), ("clinic_b", slice(300, 569), slice(0, 2))]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("join = [", 'columns = "features"\njoin = [', r"inputs\.x: join names its columns itself: leave rows and col"),
        (
            '{ dataset = "clinic_b/scores", columns = "features" },',
            "",
            r"inputs\.x\.join: wants at least 2, and there is 1",
        ),
        ("clinic_b/scores", "clinic_b/score", r"inputs\.x\.join\[2\]\.dataset: nobody offers .* 'clinic_b/scores'\?"),
        ("clinic_b/scores", "scores", r"inputs\.x\.join\[2\]\.dataset: rows are named OWNER/DATASET"),
        ('["b", "a"]', '["z"]', r"inputs\.x\.join\[1\]\.columns: clinic_a/loans has no column or group 'z'"),
        ("clinic_b/scores", "clinic_a/loans", r"inputs\.x\.join: clinic_a/loans comes twice: name all its columns in"),
        ("[outputs]", "squeeze = true\n[outputs]", r"inputs\.x\.squeeze: wants one column, and there are 4"),
    ],
)
def test_a_join_that_is_wrong_is_named(tmp_path: Path, cluster: Cluster, old: str, new: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        jobfile.resolve(read(tmp_path, JOINED.replace(old, new, 1)), "job.toml", cluster, KEYED)


def test_rows_that_cannot_be_of_the_same_keys_are_refused(tmp_path: Path, cluster: Cluster) -> None:
    job = read(tmp_path, JOINED)
    keyless = [KEYED[0], party("clinic_b", 300, ("c", "count"), dataset="scores")]
    with pytest.raises(
        ConfigError, match=r"inputs\.x\.join: clinic_b/scores has no key to join on: its owner .* --key"
    ):
        jobfile.resolve(job, "job.toml", cluster, keyless)
    fewer = [KEYED[0], party("clinic_b", 299, ("c", "count"), dataset="scores", key="id")]
    with pytest.raises(ConfigError, match=r"clinic_b/scores has 299 rows and clinic_a/loans 300: the owners agree on"):
        jobfile.resolve(job, "job.toml", cluster, fewer)


# ---- the program ----------------------------------------------------------------------------------------------------
def test_a_function_is_found_and_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_the_job.py").write_text("NUMBER = 7\n")
    program = "from neighbour_of_the_job import NUMBER\n\ndef train(x, y):\n    return NUMBER\n"
    (tmp_path / "train.py").write_text(program)
    assert jobfile.load_function(tmp_path / "job.toml", read(tmp_path, GOOD))(0, 0) == 7


def test_a_program_that_there_is_not_is_named(tmp_path: Path) -> None:
    job = read(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"job\.program: there is no file .*train\.py"):
        jobfile.load_function(tmp_path / "job.toml", job)
    (tmp_path / "train.py").write_text("def trian(x, y):\n    return x\n")
    with pytest.raises(ConfigError, match=r"has no function train: did you mean 'trian'\?"):
        jobfile.load_function(tmp_path / "job.toml", job)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("def train(x)\n    return x\n", r"train\.py:1: SyntaxError: expected ':'"),
        ("import json\nHALF = json.loads('{')\n", r"train\.py:2: JSONDecodeError: Expecting"),
        ("import no_such_module\n", r"train\.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def half():\n    return 1 / 0\n\nHALF = half()\n", r"train\.py:2: ZeroDivisionError: division by zero"),
    ],
)
def test_a_program_that_cannot_be_loaded_is_told_with_its_line(tmp_path: Path, program: str, why: str) -> None:
    (tmp_path / "train.py").write_text(program)
    with pytest.raises(ConfigError, match=why) as caught:
        jobfile.load_function(tmp_path / "job.toml", read(tmp_path, GOOD))
    assert "\n" not in str(caught.value)


def test_a_job_may_be_made_in_python() -> None:
    def train(x: object) -> object:
        return x

    inputs = {"x": {"rows": ["clinic_a/wdbc"], "columns": "features"}}
    job = jobfile.of_function(train, inputs, {"weights": ["analyst"]}, frac=20)
    assert (job.job.name, job.job.frac) == ("train", 20)
    assert jobfile.of_function(lambda x: x, inputs, {"w": ["a"]}, name="mine").job.name == "mine"
    assert '[inputs.x]\nrows = [\n    "clinic_a/wdbc",\n]' in jobfile.text(job)
    with pytest.raises(ConfigError, match=r"the job: inputs\.x: wants rows, join or kept"):
        jobfile.of_function(train, {"x": {"columns": "a"}}, {"w": ["a"]})
    with pytest.raises(ConfigError, match="not made of texts, numbers and lists"):
        jobfile.of_function(train, {"x": {"rows": object()}}, {"w": ["a"]})


# ---- kept values -----------------------------------------------------------------------------------------------------
KEEPING = GOOD.replace('weights = ["analyst"]', 'weights = { keep = "model", for = ["analyst"], replace = true }')
USING = GOOD.replace("[outputs]", '[inputs.model]\nkept = "model"\n[outputs]')


def value(*missing: str, shape: tuple[int, ...] = (2, 3)) -> coordinator_pb2.KeptValue:
    leaf = node_pb2.Leaf(path=[".w"], type=type_to_wire(Type(Kind.ARITH, 18, shape)), dtype="float32")
    kept = node_pb2.Kept(name="model", job="train-1", attempt=2, leaves=[leaf])
    return coordinator_pb2.KeptValue(kept=kept, missing=missing)


def test_outputs_are_revealed_or_kept(tmp_path: Path, cluster: Cluster) -> None:
    job = read(tmp_path, KEEPING)
    plan = jobfile.resolve(job, "job.toml", cluster, PARTIES, [value()])
    assert plan.keeps == {"weights": Keep("model", ("analyst",), replace=True)}
    assert plan.outputs == {"accuracy": ("analyst", "clinic_a")}
    assert read(tmp_path, KEEPING.replace(", replace = true", "")).outputs != job.outputs
    table = GOOD.replace('weights = ["analyst"]\n', "") + '[outputs.weights]\nkeep = "model"\n'
    assert jobfile.resolve(read(tmp_path, table), "job.toml", cluster, PARTIES).keeps == {"weights": Keep("model")}


def test_a_kept_input_is_what_it_was(tmp_path: Path, cluster: Cluster) -> None:
    plan = jobfile.resolve(read(tmp_path, USING), "job.toml", cluster, PARTIES, [value()])
    assert plan.kept == {
        "model": KeptInput("model", "train-1/2", (Leaf((".w",), Type(Kind.ARITH, 18, (2, 3)), "float32"),))
    }
    assert plan.inputs.keys() == {"x", "y"}


@pytest.mark.parametrize(
    ("text", "values", "why"),
    [
        (USING, [], r"inputs\.model\.kept: nothing is kept as 'model'; there is none"),
        (USING.replace('"model"', '"modell"'), [value()], r"nothing is kept as 'modell': did you mean 'model'"),
        (USING, [value("clinic_a")], r"clinic_a cannot be asked for, or has lost, its share of model, which train-1"),
        (
            USING.replace('kept = "model"', 'kept = "model"\ncolumns = "w"'),
            [],
            r"inputs\.model: a kept value is what it",
        ),
        (KEEPING.replace(", replace = true", ""), [value()], r"outputs\.weights\.keep: model is kept already, made by"),
        (KEEPING.replace('for = ["analyst"]', 'for = ["eve"]'), [], r"there is no member 'eve'"),
        (KEEPING.replace("keep =", "kept ="), [], r"outputs\.weights\.keep: this field is missing"),
        (KEEPING.replace('"model"', '"My Model"'), [], r"outputs\.weights\.keep: a name is"),
        (KEEPING.replace('["analyst", "clinic_a"]', '{ keep = "model" }'), [], r"two outputs are kept as model"),
        (GOOD.replace('weights = ["analyst"]', "weights = 3"), [], r"outputs\.weights: "),
    ],
)
def test_kept_values_that_do_not_fit_are_named(
    tmp_path: Path, cluster: Cluster, text: str, values: list[coordinator_pb2.KeptValue], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        jobfile.resolve(read(tmp_path, text), "job.toml", cluster, PARTIES, values)


def test_nodes_that_describe_nonsense_are_not_believed(tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"the nodes describe model in a way that makes no sense"):
        jobfile.resolve(read(tmp_path, USING), "job.toml", cluster, PARTIES, [value(shape=(1 << 40, 1 << 20))])
