"""The command line from the outside: what it prints, what it refuses, and that doctor names what is wrong."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import tomli_w
from cryptography.hazmat.primitives.serialization import Encoding

from coordinator.client import Client
from mpcnode import cli, doctor, tls
from mpcnode.cluster import Cluster
from mpcnode.datasets import Datasets
from mpcnode.errors import ConfigError
from mpcnode.identity import Card, Identity, create_identity, load_identity, self_signed
from mpcnode.policy import Terms
from mpcnode.wire import node_pb2, node_pb2_grpc

SERVING = ["helper", "clinic_a", "clinic_b", "coordinator"]


class Outcome:
    """Exit code and output of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Outcome]


@pytest.fixture
def mpcnode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mpcnode` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["mpcnode", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, out, err)

    return run


def refused(outcome: Outcome) -> str:
    """The one line on stderr of a refused command."""
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith("mpcnode: ")
    assert outcome.err.count("\n") == 1
    return outcome.err


# ---- init and cluster ----------------------------------------------------------------------------------------


def test_init_makes_an_identity_in_a_folder_of_its_name(mpcnode: Run, tmp_path: Path) -> None:
    done = mpcnode("init", "--name", "clinic_a", "--address", "localhost:7443", "--days", "10")
    assert (done.code, done.err) == (0, "")
    assert "clinic_a/card.toml" in done.out
    card = load_identity(tmp_path / "clinic_a").card
    assert (card.name, card.address) == ("clinic_a", "localhost:7443")
    assert card.x509.not_valid_after_utc < datetime.now(UTC) + timedelta(days=10)
    assert "never overwritten" in refused(mpcnode("init", "--name", "clinic_a"))


def test_init_refuses_a_bad_name_in_one_line(mpcnode: Run) -> None:
    assert "a name is a lower-case letter" in refused(mpcnode("init", "--name", "Clinic"))


def test_cluster_collects_cards(mpcnode: Run, tmp_path: Path) -> None:
    cards = []
    for name in SERVING:
        create_identity(tmp_path / name, name, "localhost:1")
        cards.append(f"{name}/card.toml")
    words = ["cluster", *cards, "--name", "trial", "--evaluator", "clinic_a", "--evaluator", "clinic_b"]
    assert "needs a helper" in refused(mpcnode(*words, "--coordinator", "coordinator"))
    words += ["--coordinator", "coordinator", "--helper", "helper"]
    done = mpcnode(*words)
    assert (done.code, done.err) == (0, "")
    assert Cluster.load(tmp_path / "cluster.toml").parties == ("helper", "clinic_a", "clinic_b")
    assert "cluster.toml exists" in refused(mpcnode(*words))
    assert mpcnode(*words, "--replace").code == 0


def test_usage_errors_and_help(mpcnode: Run) -> None:
    assert mpcnode("no-such-command").code == 2
    assert mpcnode("init").code == 2
    assert mpcnode("--version").out == f"{doctor.version()}\n"
    for words in ([], ["init"], ["cluster"], ["serve"], ["doctor"], ["data"], ["data", "add"], ["data", "allow"]):
        shown = mpcnode(*words, "--help")
        assert shown.code == 0
        assert "Usage: mpcnode" in shown.out


def test_python_dash_m() -> None:
    done = subprocess.run([sys.executable, "-m", "mpcnode", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{doctor.version()}\n"


# ---- data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    create_identity(tmp_path / "clinic_a", "clinic_a", "localhost:7443")
    (tmp_path / "data.csv").write_text("age,[bold]bmi,sick\n50,21.5,1\n61,30.25,0\n")
    return tmp_path / "clinic_a"


def test_data_add_list_remove(mpcnode: Run, owner: Path) -> None:
    words = ["data", "add", "study", "data.csv", "--dir", owner]
    done = mpcnode(*words, "--for", "analyst", "--for", "clinic_b", "--label", "sick", "--group", "old=age")
    assert done.out == (
        "added clinic_a/study: 2 rows, 3 columns\n"
        "analyst and clinic_b may learn whatever any program computes from it, even the data itself; to approve "
        "programs one by one: `mpcnode data forbid study`, then `mpcnode data allow study --program DIGEST`\n"
    )
    entry = Datasets(owner).entry("study")
    assert entry.recipients == ("analyst", "clinic_b")
    assert entry.groups == {"old": ("age",), "label": ("sick",), "features": ("age", "[bold]bmi")}
    listed = mpcnode("data", "list", "--dir", owner).out
    assert all(word in listed for word in ["study", "old (1), label (1), features (2)", "analyst, clinic_b"])
    assert "[bold]bmi" in mpcnode("data", "list", "study", "--dir", owner).out
    assert "exists already" in refused(mpcnode(*words, "--for", "analyst"))
    assert mpcnode(*words, "--for", "anyone", "--replace").code == 0
    assert mpcnode("data", "remove", "study", "--dir", owner).code == 0
    assert "there is no dataset study" in refused(mpcnode("data", "remove", "study", "--dir", owner))


def test_a_key_stays_with_its_owner(mpcnode: Run, owner: Path) -> None:
    words = ["data", "add", "study", "data.csv", "--dir", owner, "--for", "analyst", "--key", "age"]
    added = "added clinic_a/study: 2 rows, 2 columns in the order of age, which stays here\nanalyst may learn"
    assert mpcnode(*words).out.startswith(added)
    assert Datasets(owner).schema("study").key == "age"
    assert "age" in mpcnode("data", "list", "--dir", owner).out
    assert "age" not in mpcnode("data", "list", "study", "--dir", owner).out  # it is none of the columns


def test_data_add_wants_to_hear_for_whom(mpcnode: Run, owner: Path) -> None:
    sentence = refused(mpcnode("data", "add", "study", "data.csv", "--dir", owner))
    assert "say with --for who may learn results that are computed from study" in sentence
    assert Datasets(owner).entries() == ()


def test_programs_are_approved_one_by_one(mpcnode: Run, owner: Path) -> None:
    """As the hint of `data add` and a node's refusal say."""
    words = ["data", "add", "study", "data.csv", "--dir", owner]
    assert "leave one away" in refused(mpcnode(*words, "--ask", "--for", "analyst"))
    done = mpcnode(*words, "--ask")
    assert "no program may read it until you approve it by its digest" in done.out and done.out.count("\n") == 2
    allow, digest = ["data", "allow", "study", "--dir", owner], "0123456789abcdef" * 4
    assert "say what to allow: --program DIGEST, or --for NAME" in refused(mpcnode(*allow))
    assert "64 hexadecimal digits" in refused(mpcnode(*allow, "--program", digest[:12]))
    assert "there is no dataset other" in refused(mpcnode("data", "allow", "other", "--for", "x", "--dir", owner))
    done = mpcnode(*allow, "--program", digest, "--for", "analyst")
    assert done.out == ("study: what any program computes is for nobody; approved programs: 0123456789ab for analyst\n")
    assert "0123456789ab for analyst" in mpcnode("data", "list", "--dir", owner).out
    assert "is for clinic_b; approved" in mpcnode(*allow, "--for", "clinic_b").out
    assert "no program may read study any more" in mpcnode("data", "forbid", "study", "--dir", owner).out
    assert Datasets(owner).terms()["study"] == Terms(set())


@pytest.mark.parametrize("group", ["old", "=age", "old=", ""])
def test_a_group_is_name_and_columns(mpcnode: Run, owner: Path, group: str) -> None:
    words = ["data", "add", "study", "data.csv", "--dir", owner, "--for", "analyst", "--group", group]
    assert "write NAME=COL,COL" in refused(mpcnode(*words))


def test_data_needs_an_identity(mpcnode: Run) -> None:
    assert "holds no identity: make one with `mpcnode init`" in refused(mpcnode("data", "list"))


# ---- serve and doctor ----------------------------------------------------------------------------------------


class About(node_pb2_grpc.AboutServicer):
    """Tells of itself what a test wants."""

    def __init__(self, cluster: Cluster, info: node_pb2.InfoReply, clock_offset_s: float = 0) -> None:
        self.cluster, self.info, self.clock_offset_s = cluster, info, clock_offset_s

    def Info(self, request: node_pb2.InfoRequest, context: grpc.ServicerContext) -> node_pb2.InfoReply:
        tls.peer_card(context, self.cluster)
        reply = node_pb2.InfoReply()
        reply.CopyFrom(self.info)
        reply.unix_time_ns = time.time_ns() + int(self.clock_offset_s * 1e9)
        return reply


class World:
    """Identities on disk, a cluster.toml, and a server for each member on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members = {name: create_identity(folder / name, name, "127.0.0.1:1") for name in SERVING}
        self.members["analyst"] = create_identity(folder / "analyst", "analyst")
        self.servers: list[grpc.Server] = []
        self.cluster = self.save({})

    def save(self, addresses: dict[str, str], cards: dict[str, Card] | None = None) -> Cluster:
        known = {name: member.card for name, member in self.members.items()} | (cards or {})
        moved = [card.model_copy(update={"address": addresses.get(n, card.address)}) for n, card in known.items()]
        made = Cluster.of(
            "trial", moved, evaluators=["clinic_a", "clinic_b"], coordinator="coordinator", helper="helper"
        )
        made.save(self.folder / "cluster.toml")
        return made

    def info(self, name: str, **changes: object) -> node_pb2.InfoReply:
        told = {"name": name, "version": doctor.version(), "cluster_digest": self.cluster.digest(), "kernels": "native"}
        return node_pb2.InfoReply(**(told | changes))  # type: ignore[arg-type]

    def serve(self, identity: Identity, cluster: Cluster, about: About | None) -> str:
        server = grpc.server(ThreadPoolExecutor(2), options=tls.SERVER_OPTIONS)
        if about is not None:
            node_pb2_grpc.add_AboutServicer_to_server(about, server)
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity, cluster))
        server.start()
        self.servers.append(server)
        return f"127.0.0.1:{port}"

    def serve_well(self, name: str) -> str:
        return self.serve(self.members[name], self.cluster, About(self.cluster, self.info(name)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for server in made.servers:
        server.stop(0).wait(5)


def problems_of(outcome: Outcome) -> list[str]:
    assert outcome.err == ""
    return [line.removeprefix("- ") for line in outcome.out.splitlines() if line.startswith("- ")]


@pytest.mark.parametrize("who", ["analyst", "clinic_a"])
def test_doctor_finds_everybody_well(mpcnode: Run, world: World, who: str) -> None:
    world.save({name: world.serve_well(name) for name in SERVING})
    found = mpcnode("doctor", "--dir", who)
    assert (found.code, problems_of(found)) == (0, [])
    assert found.out.count("well") == 4
    for word in [*SERVING, "evaluator 2", "native", doctor.version(), "ms"]:
        assert word in found.out
    assert "analyst" not in found.out


def test_doctor_tries_some_only(mpcnode: Run, world: World) -> None:
    world.save({"clinic_a": world.serve_well("clinic_a")} | dict.fromkeys(["helper", "clinic_b"], "127.0.0.1:1"))
    found = mpcnode("doctor", "clinic_a", "--dir", "clinic_a")
    assert (found.code, problems_of(found), found.out.count("well")) == (0, [], 1)
    assert mpcnode("doctor", "clinic_a", "helper", "--dir", "clinic_a").code == 1
    for nobody, why in (("mallory", "mallory is not in the cluster"), ("analyst", "analyst has no address")):
        found = mpcnode("doctor", nobody, "--dir", "clinic_a")
        assert found.code == 1 and why in found.err


def test_doctor_compares_what_members_say(mpcnode: Run, world: World) -> None:
    abouts = {
        "helper": About(world.cluster, world.info("helper"), clock_offset_s=-90),
        "clinic_a": About(world.cluster, world.info("clinic_a", version="0.0.9", cluster_digest=b"other")),
        "clinic_b": About(world.cluster, world.info("clinic_c")),
        "coordinator": None,
    }
    world.save({name: world.serve(world.members[name], world.cluster, about) for name, about in abouts.items()})
    found = mpcnode("doctor", "--dir", "analyst")
    assert found.code == 1
    helper, version, digest, name, old = problems_of(found)
    assert helper.startswith("the clock of helper is 90.0 s behind this one")
    assert version.startswith(f"clinic_a runs version 0.0.9, this is {doctor.version()}")
    assert digest.startswith("clinic_a has another cluster.toml")
    assert name.startswith("clinic_b calls itself clinic_c")
    assert old.startswith("coordinator answers at 127.0.0.1:")
    assert "not as this version expects" in old


def test_doctor_compares_certificates(mpcnode: Run, world: World, tmp_path: Path) -> None:
    renewed = create_identity(tmp_path / "renewed", "clinic_b", "127.0.0.1:1")
    # clinic_b has made a new identity that this cluster.toml does not know; helper and clinic_a are mixed up
    other = world.save({}, {"clinic_b": renewed.card})
    addresses = {
        "helper": world.serve_well("clinic_a"),
        "clinic_b": world.serve(renewed, other, None),
        "clinic_a": world.serve_well("helper"),
        "coordinator": world.serve_well("coordinator"),
    }
    world.save(addresses)
    found = mpcnode("doctor", "--dir", "analyst")
    assert found.code == 1
    swapped, swapped_back, unknown = problems_of(found)
    assert swapped == f"clinic_a answers at {addresses['helper']}, the address of helper: correct it in cluster.toml"
    assert swapped_back.startswith("helper answers at")
    assert f"what answers at {addresses['clinic_b']} shows the certificate" in unknown
    assert "ask clinic_b for its current card" in unknown


def test_doctor_says_who_does_not_know_this_identity(mpcnode: Run, world: World, tmp_path: Path) -> None:
    """clinic_a still has an older card of the analyst."""
    older = world.save({}, {"analyst": create_identity(tmp_path / "older", "analyst").card})
    addresses = {name: world.serve_well(name) for name in SERVING}
    addresses["clinic_a"] = world.serve(world.members["clinic_a"], older, About(older, world.info("clinic_a")))
    world.save(addresses)
    (problem,) = problems_of(mpcnode("doctor", "--dir", "analyst"))
    assert problem.startswith(
        "clinic_a refuses the certificate of analyst: does its cluster.toml hold the current card"
    )


def test_doctor_says_why_a_member_cannot_be_reached(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        gone_port = gone.getsockname()[1]
        gone.close()
        plain = grpc.server(ThreadPoolExecutor(1))
        plain_port = plain.add_insecure_port("127.0.0.1:0")
        plain.start()
        world.servers.append(plain)
        addresses = {
            "helper": f"127.0.0.1:{silent.getsockname()[1]}",
            "clinic_a": f"127.0.0.1:{gone_port}",
            "clinic_b": f"127.0.0.1:{plain_port}",
            "coordinator": "nowhere.invalid:7443",
        }
        cluster = world.save(addresses)
        found = [finding.problems for finding in doctor.examine(world.members["analyst"], cluster, deadline_s=0.3)]
    (late,), (away,), (plaintext,), (unknown,) = found
    assert late.startswith(f"helper does not answer at {addresses['helper']} within 0.3 s")
    assert away.startswith(f"clinic_a cannot be reached at {addresses['clinic_a']} (Connection refused)")
    assert plaintext.startswith(f"what answers at {addresses['clinic_b']} does not speak TLS")
    assert unknown.startswith("the host of coordinator, nowhere.invalid, is not known here")


def expired(identity: Identity) -> Card:
    now = datetime.now(UTC)
    certificate = self_signed(identity.name, identity.signing_key, now - timedelta(days=9), now - timedelta(days=1))
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return Card(**{**identity.card.document(), "certificate": pem})


def test_doctor_and_serve_tell_of_an_expired_certificate(mpcnode: Run, world: World) -> None:
    card = expired(world.members["clinic_b"])
    stale = Identity(
        world.folder / "clinic_b", card, world.members["clinic_b"].signing_key, world.members["clinic_b"].seal_private
    )
    old = world.save({}, {"clinic_b": card})
    addresses = {name: world.serve_well(name) for name in SERVING if name != "clinic_b"}
    addresses["clinic_b"] = world.serve(stale, old, About(old, world.info("clinic_b")))
    world.cluster = old
    world.save(addresses, {"clinic_b": card})
    sentences = problems_of(mpcnode("doctor", "--dir", "analyst"))
    assert sentences[0].startswith("the certificate of clinic_b expired on ")
    assert "the certificate of clinic_b is not valid today: it needs a new identity and a new card" in sentences
    assert "the certificate of clinic_b expired on" in refused(mpcnode("serve", "--dir", "clinic_a"))


def test_an_owner_who_does_not_compute_hears_of_its_own_certificate(mpcnode: Run, tmp_path: Path) -> None:
    world, guest = World(tmp_path), create_identity(tmp_path / "guest", "guest", "127.0.0.1:1")
    card = expired(guest)
    (tmp_path / "guest" / "card.toml").write_text(tomli_w.dumps(card.document()))
    (tmp_path / "guest" / "certificate.pem").write_text(card.certificate)
    world.members["guest"] = load_identity(tmp_path / "guest")
    world.save({})
    assert "the certificate of guest expired on" in refused(mpcnode("serve", "--dir", "guest"))
    with pytest.raises(ConfigError, match="the certificate of guest expired on"):
        Client(tmp_path / "guest", tmp_path / "cluster.toml")


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        ("127.0.0.1:7443", "127.0.0.1:7443"),
        ("[::1]:7443", "[::1]:7443"),
        ("localhost:7443", "localhost:7443"),
        ("10.0.0.7:7443", "[::]:7443"),
        ("clinic.example.org:7443", "[::]:7443"),
    ],
)
def test_where_a_node_listens(tmp_path: Path, address: str, listen: str) -> None:
    assert cli.listening_address(create_identity(tmp_path, "a", address).card) == listen


def test_serve_refuses_what_cannot_serve(mpcnode: Run, world: World, tmp_path: Path) -> None:
    assert "the card of analyst has no address" in refused(mpcnode("serve", "--dir", "analyst"))
    listen = ["serve", "--dir", "clinic_a", "--listen", "everywhere"]
    assert "--listen everywhere: an address is HOST:PORT" in refused(mpcnode(*listen))
    create_identity(tmp_path / "stranger", "stranger", "127.0.0.1:1")
    assert "stranger is not in the cluster trial" in refused(mpcnode("serve", "--dir", "stranger"))
    assert "does not exist" in refused(mpcnode("serve", "--dir", "clinic_a", "--cluster", "other.toml"))
