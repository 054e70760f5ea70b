"""deploy/: what can be checked without a container engine.  The scripts are run as the containers of compose.yaml run
them, each member in a folder of its own, and what compose.yaml names is there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets

yaml = pytest.importorskip("yaml", reason="of the extra [dev]")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The commands of this installation, and the folder for what is public."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("mpcnode", "coordinator"):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        (commands / name).chmod(0o755)
    (tmp_path / "cards").mkdir()
    return os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "CARDS": f"{tmp_path / 'cards'}"}


def test_members_make_themselves_and_find_each_other(
    compose: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    """With the environments of compose.yaml, all at once, in any order; and a second time, when all is there."""
    members = {name: service for name, service in compose["services"].items() if "environment" in service}
    assert set(members) == {"helper", "clinic_a", "clinic_b", "coordinator", "analyst"}
    command = ["test", "-e", tmp_path / "cards" / "cluster.toml"]
    for _ in range(2):
        started = [
            subprocess.Popen(
                ["sh", DEPLOY / Path(service["entrypoint"][-1]).name, *command],
                env=environment | service["environment"] | {"MPCNODE_DIR": f"{tmp_path / name}"},
                cwd=ROOT,
            )
            for name, service in members.items()
        ]
        assert [process.wait(60) for process in started] == [0] * len(members)
    cluster = Cluster.load(tmp_path / "cards" / "cluster.toml")
    assert cluster.parties == ("helper", "clinic_a", "clinic_b") and cluster.coordinator == "coordinator"
    assert cluster.card("clinic_a").address == "clinic_a:7000"
    assert not [file for file in (tmp_path / "cards").iterdir() if "key" in file.name]


def test_the_examples_data_is_registered_once(compose: dict[str, Any], tmp_path: Path) -> None:
    data = compose["services"]["data"]
    folders = {Path(volume.split(":")[1]).name for volume in data["volumes"]}
    for name in folders:
        (tmp_path / name).mkdir()
    command = [sys.executable, DEPLOY / "example_data.py", ROOT / data["entrypoint"][2].lstrip("/"), tmp_path]
    lines = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout for _ in range(2)]
    assert "clinic_a registered wdbc: 285 rows" in lines[0] and lines[1] == "the data is there already\n"
    assert {name: len(Datasets(tmp_path / name).schemas()) for name in folders} == {"clinic_a": 1, "clinic_b": 1}


def test_services_are_complete(compose: dict[str, Any]) -> None:
    """Who serves has a health check, its own volume and nobody else's; one-shot services end."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for name, service in compose["services"].items():
        once = name in ("data", "analyst")
        assert service["restart"] == ("no" if once else "unless-stopped"), name
        assert once or "mpcnode doctor $$NAME" in service["healthcheck"]["test"], name
        assert f"AS {service['build']['target']}\n" in dockerfile and "BASE" in service["build"]["args"]
        owned = {volume.split(":")[0] for volume in service["volumes"]} - {"cards"}
        assert owned == ({"clinic_a", "clinic_b"} if name == "data" else {name}) <= set(compose["volumes"])
        assert "/examples/breast_cancer/" in " ".join(service["command"]) or name != "analyst"
    assert dockerfile.count("ARG BASE=") == 1 and dockerfile.count("FROM ${BASE}") == 2
    assert "USER mpc\nWORKDIR /me" in dockerfile
    for word in dockerfile.split():
        if word.startswith(("deploy/", "examples", "mpcnode/", "coordinator/")):
            assert (ROOT / word).exists(), word
