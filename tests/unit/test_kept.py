"""A node's kept shares: they count once the job is done, lie encrypted, and open as nothing but what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mpcnode import kept as module
from mpcnode.cli import app
from mpcnode.errors import ConfigError, DataError
from mpcnode.identity import Identity, create_identity
from mpcnode.kept import Header, Kept, Leaf, Making

PARTIES = ("helper", "clinic_a", "clinic_b")
PROGRAM = "0123456789abcdef" * 4
W, FLAG = (".w",), (".seen", "[0")
ARRAYS = {
    W: np.random.default_rng(1).integers(0, 1 << 63, (2, 3, 4), np.uint64),
    FLAG: np.array([[1, 0, 1]], np.uint8),  # a helper has fewer parts of bits
}


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return create_identity(tmp_path / "clinic_a", "clinic_a")


def header(name: str = "model", job: str = "job-1", party: str = "clinic_a", **change: Any) -> Header:
    leaves = (
        Leaf(path=W, kind="arith", frac=18, shape=(3, 4), dtype="float32"),
        Leaf(path=FLAG, kind="bit", frac=0, shape=(3,), dtype="bool"),
    )
    making: dict[str, Any] = {"name": name, "job": job, "attempt": 1, "program": PROGRAM, "protocol": "masked"}
    making |= {"parties": PARTIES, "leaves": leaves, "recipients": (), "kept_at": 1e9}
    return Header(making=Making(**{**making, **change}), party=party, parts=(2, 1), tags={"helper": "ab"})


def held(identity: Identity, **change: Any) -> Kept:
    kept = Kept(identity)
    kept.hold(header(**change), ARRAYS)
    return kept


def share_of(identity: Identity, name: str = "model") -> Path:
    [path] = (identity.folder / "kept").glob(f"{name}@*.share")
    return path


# ---- when it counts --------------------------------------------------------------------------------------------------
def test_a_share_counts_once_it_is_confirmed(identity: Identity) -> None:
    kept = held(identity)
    assert kept.entries() == ()
    assert [counts for _, counts in kept.makings()] == [False]
    with pytest.raises(DataError, match="clinic_a keeps nothing named model"):
        kept.terms("model")
    assert kept.confirm("job-1", 1) == ["model"]
    assert [(making.run, counts) for making, counts in kept.makings()] == [("job-1/1", True)]
    kept.drop("job-1", 1)  # too late: it counts
    share = kept.load("model", "job-1/1")
    assert share.header == header()
    for path, array in ARRAYS.items():
        np.testing.assert_array_equal(share.arrays[path], array)
        assert share.arrays[path].dtype == array.dtype


def test_an_attempt_that_failed_leaves_nothing(identity: Identity) -> None:
    kept = held(identity)
    kept.hold(header(job="job-2"), ARRAYS)
    kept.drop("job-1", 1)
    kept.drop("job-3", 1)
    assert [making.job for making, _ in kept.makings()] == ["job-2"]


def test_a_node_that_was_away_finds_out_when_a_job_asks(identity: Identity) -> None:
    kept = held(identity)
    kept.load("model", "job-1/1")
    assert [entry.name for entry in kept.entries()] == ["model"]


def test_what_is_kept_anew_takes_the_place_of_the_old(identity: Identity) -> None:
    kept = held(identity)
    kept.confirm("job-1", 1)
    kept.allow("model", ["analyst"])
    kept.hold(header(job="job-2", recipients=("client",)), ARRAYS)
    assert kept.load("model", "job-1/1").header.making.job == "job-1"  # until the new one counts
    kept.confirm("job-2", 1)
    assert kept.terms("model").recipients == {"client"}  # what was allowed of the old one is not of the new one
    with pytest.raises(DataError, match=r"does not hold its share of model as job-1/1 made it, but the one of job-2/1"):
        kept.load("model", "job-1/1")
    assert share_of(identity).name == "model@job-2@1.share"


@pytest.mark.parametrize("run", ["", "job", "job/0", "job/-1", "../job/1", "a/b/1", "job/1/", "job/99999999999"])
def test_a_run_is_a_job_and_an_attempt(identity: Identity, run: str) -> None:
    with pytest.raises(DataError, match="names no making of a kept value"):
        held(identity).load("model", run)


# ---- at rest ---------------------------------------------------------------------------------------------------------
def test_at_rest_there_are_no_shares_in_clear(identity: Identity) -> None:
    kept = held(identity)
    path = share_of(identity)
    first = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0
    for array in ARRAYS.values():
        assert array.tobytes()[:16] not in first
    kept.hold(header(), ARRAYS)
    body = len(first) - 100
    assert path.read_bytes()[-100:] != first[-100:] and len(path.read_bytes()) > body  # another key each time


def test_no_byte_can_be_changed(identity: Identity) -> None:
    kept = held(identity)
    path = share_of(identity)
    whole = path.read_bytes()
    for at in (*range(0, len(whole), 37), len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError):
            kept.load("model", "job-1/1")
    for cut in (whole[:-1], whole[: len(whole) // 2], whole[:10], b"", whole + b"x"):
        path.write_bytes(cut)
        with pytest.raises(DataError):
            kept.load("model", "job-1/1")
    path.write_bytes(whole)
    kept.load("model", "job-1/1")


def test_pieces_cannot_change_places(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 64)
    kept = held(identity)
    path = share_of(identity)
    np.testing.assert_array_equal(kept.load("model", "job-1/1").arrays[W], ARRAYS[W])
    whole, size = path.read_bytes(), 64 + 16
    start = len(whole) - (3 * size + 6 + 16)  # three pieces of w, one of the bits
    one, two = whole[start : start + size], whole[start + size : start + 2 * size]
    path.write_bytes(whole[:start] + two + one + whole[start + 2 * size :])
    with pytest.raises(DataError, match="was altered, or belongs to another node or identity"):
        kept.load("model", "job-1/1")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"party": "clinic_b"}, "is not clinic_a's share of model as job-1/1 made it"),
        ({"name": "other"}, "is not clinic_a's share"),
        ({"job": "job-9"}, "is not clinic_a's share"),
    ],
)
def test_a_file_in_the_place_of_another_is_refused(identity: Identity, change: dict[str, Any], why: str) -> None:
    kept = held(identity)
    place = share_of(identity)
    kept.hold(header(**change), ARRAYS)
    others = [path for path in place.parent.glob("*.share") if path != place]
    if others:
        others[0].replace(place)
    with pytest.raises(DataError, match=why):
        kept.load("model", "job-1/1")


def test_another_identity_opens_nothing(identity: Identity, tmp_path: Path) -> None:
    held(identity)
    other = create_identity(tmp_path / "new" / "clinic_a", "clinic_a")
    (other.folder / "kept").mkdir()
    target = other.folder / "kept" / share_of(identity).name
    target.write_bytes(share_of(identity).read_bytes())
    with pytest.raises(DataError, match="was altered, or belongs to another node or identity"):
        Kept(other).load("model", "job-1/1")


def test_a_folder_that_cannot_be_written_is_named(identity: Identity) -> None:
    (identity.folder / "kept").write_text("in the way")
    with pytest.raises(ConfigError, match="kept cannot be written"):
        held(identity)


# ---- terms -----------------------------------------------------------------------------------------------------------
def test_nothing_is_allowed_at_first(identity: Identity) -> None:
    kept = held(identity)
    kept.confirm("job-1", 1)
    assert kept.terms("model") == (frozenset(), False, {})
    kept.allow("model", programs=[PROGRAM])
    kept.allow("model", ["analyst", "anyone"])
    assert Kept(identity).terms("model") == ({"analyst", "anyone"}, False, {PROGRAM: {"anyone"}})
    kept.forbid("model")
    assert kept.terms("model") == (frozenset(), False, {})


def test_the_command_line(identity: Identity) -> None:
    held(identity).confirm("job-1", 1)

    def mpcnode(*words: str) -> str:
        ran = CliRunner().invoke(app, ["kept", *words, "--dir", str(identity.folder)], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return ran.output

    assert "model" in mpcnode("list") and "job-1/1" in mpcnode("list")
    allowed = mpcnode("allow", "model", "--program", PROGRAM, "--for", "client")
    assert allowed == f"model: what any program computes is for nobody; approved programs: {PROGRAM[:12]} for client\n"
    assert PROGRAM[:12] in mpcnode("list")
    assert "any program computes is for client; approved" in mpcnode("allow", "model", "--for", "client")
    assert "may be revealed any more" in mpcnode("forbid", "model")
    assert "removed clinic_a's shares of model" in mpcnode("remove", "model")
    assert not list((identity.folder / "kept").glob("*.share"))
    for words, why in (
        (["allow", "model", "--for", "client"], "clinic_a keeps nothing named model"),
        (["remove", "model"], "clinic_a keeps nothing named model"),
        (["allow", "model"], "say what to allow"),
    ):
        with pytest.raises((ConfigError, DataError), match=why):
            mpcnode(*words)


def test_what_was_allowed_by_a_digest_alone_still_is(identity: Identity) -> None:
    """As kept.toml had it before approvals could be for some recipients."""
    kept = held(identity)
    kept.confirm("job-1", 1)
    file = identity.folder / "kept.toml"
    file.write_text(file.read_text().replace("programs = []", f'programs = ["{PROGRAM}"]'))
    assert kept.terms("model").programs == {PROGRAM: {"anyone"}}
    kept.allow("model", ["client"], [PROGRAM])
    assert kept.terms("model") == (frozenset(), False, {PROGRAM: {"anyone"}})


@pytest.mark.parametrize("program", ["", "0123", PROGRAM.upper(), "g" * 64])
def test_a_program_is_named_by_its_whole_digest(identity: Identity, program: str) -> None:
    kept = held(identity)
    kept.confirm("job-1", 1)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        kept.allow("model", programs=[program])
