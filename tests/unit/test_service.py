"""One node's server: who may call what, what it agrees to run, and what it says when it does not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
from conftest import Clerk, layer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.lower.builder import Builder
from mpcnode import service, tls
from mpcnode.datasets import Datasets
from mpcnode.doctor import version
from mpcnode.errors import ConfigError
from mpcnode.graph import Graph, Kind, Op, Type
from mpcnode.graph_wire import to_wire
from mpcnode.grpc_links import METHOD
from mpcnode.identity import create_identity
from mpcnode.service import Attempts, NodeService, Refused, Server
from mpcnode.wire import node_pb2, node_pb2_grpc

pytestmark = pytest.mark.usefixtures("wdbc")
Status = grpc.StatusCode


@pytest.fixture
def node(clerk: Clerk) -> Iterator[Server]:
    """clinic_a alone."""
    server = Server(clerk.members["clinic_a"], clerk.cluster, listen=f"{clerk.cluster.card('clinic_a').address}")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def channel(clerk: Clerk, node: Server) -> Iterator[Callable[[str], grpc.Channel]]:
    """Channels to clinic_a, with the certificate of any member."""
    made: list[grpc.Channel] = []

    def make(caller: str) -> grpc.Channel:
        made.append(tls.channel(clerk.members[caller], clerk.cluster, "clinic_a"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """How a call is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    error: Any = refused.value
    return error.code(), error.details()


def request(**change: Any) -> node_pb2.PrepareRequest:
    fields: dict[str, Any] = {
        "job": "job",
        "attempt": 1,
        "protocol": "masked",
        "graph": to_wire(layer()),
        "deadline_s": 5.0,
    }
    return node_pb2.PrepareRequest(**(fields | change))


# ---- who may call what -----------------------------------------------------------------------------------------------
def test_everybody_may_ask_who_it_is(clerk: Clerk, channel: Callable[[str], grpc.Channel]) -> None:
    for caller in ("analyst", "clinic_b", "coordinator"):
        info = node_pb2_grpc.AboutStub(channel(caller)).Info(node_pb2.InfoRequest(), timeout=5)
        assert (info.name, info.version, info.cluster_digest) == ("clinic_a", version(), clerk.cluster.digest())
        assert info.kernels in ("native", "reference")
        health: Any = health_pb2_grpc.HealthStub(channel(caller))
        serving = health_pb2.HealthCheckResponse.SERVING
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == serving
        assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=5)).status == serving


def node_calls(channel: grpc.Channel) -> list[Callable[[], Any]]:
    stub = node_pb2_grpc.NodeStub(channel)
    return [
        lambda: stub.Schemas(node_pb2.SchemasRequest(), timeout=5),
        lambda: stub.Prepare(request(), timeout=5),
        lambda: stub.Start(node_pb2.StartRequest(), timeout=5),
        lambda: next(stub.Watch(node_pb2.WatchRequest(), timeout=5)),
        lambda: stub.Abort(node_pb2.AbortRequest(), timeout=5),
    ]


@pytest.mark.parametrize("caller", ["analyst", "clinic_b", "helper"])
def test_only_the_coordinator_gives_orders(channel: Callable[[str], grpc.Channel], caller: str) -> None:
    for call in node_calls(channel(caller)):
        assert refusal(call) == (Status.PERMISSION_DENIED, f"{caller} has no part in this call")


@pytest.mark.parametrize("caller", ["analyst", "coordinator"])
def test_only_computing_parties_exchange(channel: Callable[[str], grpc.Channel], caller: str) -> None:
    exchange: Any = channel(caller).stream_stream(METHOD)
    code, _ = refusal(lambda: next(exchange(iter([b""]), timeout=5)))
    assert code is Status.PERMISSION_DENIED


def test_a_stranger_gets_no_connection(clerk: Clerk, node: Server, tmp_path: Path) -> None:
    target = clerk.cluster.card("clinic_a")
    namesake = create_identity(tmp_path / "namesake", "coordinator", target.address)  # another key, the same name
    pairs: list[Any] = [(None, None), (namesake.key_pem, namesake.card.certificate.encode())]
    options = [("grpc.ssl_target_name_override", "clinic_a")]
    trusted = [grpc.ssl_channel_credentials(target.certificate.encode(), *pair) for pair in pairs]
    channels = [grpc.secure_channel(f"{target.address}", credentials, options) for credentials in trusted]
    for channel in [*channels, grpc.insecure_channel(f"{target.address}")]:
        about = node_pb2_grpc.AboutStub(channel)
        code, _ = refusal(lambda about=about: about.Info(node_pb2.InfoRequest(), timeout=3))  # type: ignore[misc]
        assert code is Status.UNAVAILABLE
        channel.close()


def test_who_does_not_compute_does_not_serve(clerk: Clerk) -> None:
    with pytest.raises(ConfigError, match="analyst has no part in the jobs of test"):
        Server(clerk.members["analyst"], clerk.cluster, listen="127.0.0.1:0")


def test_a_taken_address_is_refused(clerk: Clerk, node: Server) -> None:
    with pytest.raises(ConfigError, match="is not free to listen on"):
        Server(clerk.members["clinic_b"], clerk.cluster, listen=f"{clerk.cluster.card('clinic_a').address}")


# ---- what it agrees to run -------------------------------------------------------------------------------------------
def test_schemas_tell_names_types_and_rows(clerk: Clerk, node: Server) -> None:
    (schema,) = clerk.nodes["clinic_a"].Schemas(node_pb2.SchemasRequest(), timeout=5).schemas
    assert (schema.dataset, schema.rows) == ("wdbc", 8)
    assert [(column.name, column.dtype) for column in schema.columns] == [(name, "float64") for name in "uvw"]


def test_a_program_that_fits_is_accepted_with_its_digest(clerk: Clerk, node: Server) -> None:
    assert clerk.prepare("clinic_a", layer()) == layer().digest()


def graph_with(change: Callable[[Builder], None]) -> Graph:
    b = Builder()
    change(b)
    return b.graph()


def read(b: Builder, **change: Any) -> Any:
    fields: dict[str, Any] = {"owner": "clinic_a", "dataset": "wdbc", "columns": ("u", "v", "w")}
    shape = change.pop("shape", (8, 3))
    return b.emit("input", type=Type(Kind.ARITH, change.pop("frac", 18), shape), **(fields | change))


def job(**change: Any) -> Graph:
    to = change.pop("to", ("analyst",))
    return graph_with(lambda b: b.emit("reveal", read(b, **change), to=to, name="out") and None)


UNFIT: dict[str, tuple[dict[str, Any], grpc.StatusCode, str]] = {
    "no job": ({"job": ""}, Status.FAILED_PRECONDITION, "a job has a name"),
    "a path for a job": ({"job": "../x"}, Status.FAILED_PRECONDITION, "a job has a name"),
    "no attempt": ({"attempt": 0}, Status.FAILED_PRECONDITION, "attempts from 1 on"),
    "a deadline of the past": ({"deadline_s": -1.0}, Status.FAILED_PRECONDITION, "the deadline must be"),
    "no deadline": ({"deadline_s": float("nan")}, Status.FAILED_PRECONDITION, "the deadline must be"),
    "another protocol": (
        {"protocol": "cleartext"},
        Status.FAILED_PRECONDITION,
        "runs the protocol masked, and no other",
    ),
    "an invalid graph": (
        {"graph": to_wire(Graph((Op("add", (0, 0), {}, Type(Kind.ARITH, 18, ())),)))},
        Status.INVALID_ARGUMENT,
        "the program is no valid graph: %0 = add: an argument does not come earlier",
    ),
    "an unknown owner": (
        {"graph": to_wire(job(owner="analyst"))},
        Status.FAILED_PRECONDITION,
        "analyst, who runs no node in test: data comes from clinic_a, clinic_b",
    ),
    "an unknown recipient": (
        {"graph": to_wire(job(to=("mallory",)))},
        Status.FAILED_PRECONDITION,
        "mallory is not in the cluster",
    ),
    "a recipient not allowed": (
        {"graph": to_wire(job(to=("analyst", "helper")))},
        Status.FAILED_PRECONDITION,
        "would go to helper, whom clinic_a does not allow",
    ),
    "an unknown dataset": ({"graph": to_wire(job(dataset="other"))}, Status.FAILED_PRECONDITION, "no such dataset"),
    "an unknown column": (
        {"graph": to_wire(job(columns=("u", "v", "x")))},
        Status.FAILED_PRECONDITION,
        "no column 'x'",
    ),
    "other rows": (
        {"graph": to_wire(job(shape=(9, 3)))},
        Status.FAILED_PRECONDITION,
        "wants 9 rows of clinic_a/wdbc, which has 8",
    ),
    "too fine": ({"graph": to_wire(job(frac=62))}, Status.FAILED_PRECONDITION, "clinic_a/wdbc does not fit"),
}


@pytest.mark.parametrize(("change", "code", "why"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_is_refused_in_a_sentence(
    clerk: Clerk, node: Server, change: dict[str, Any], code: grpc.StatusCode, why: str
) -> None:
    found, sentence = refusal(lambda: clerk.nodes["clinic_a"].Prepare(request(**change), timeout=10))
    assert found is code
    assert why in sentence
    assert "\n" not in sentence
    clerk.prepare("clinic_a", layer())  # and nothing is left of it


def test_data_that_changed_is_refused(clerk: Clerk, node: Server, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", np.ones((8, 3)), delimiter=",", header="u,v,w", comments="")
    _, sentence = refusal(lambda: clerk.prepare("clinic_a", layer()))
    assert "has changed since it was added" in sentence


def test_a_group_of_columns_is_no_column_of_a_program(clerk: Clerk, node: Server, tmp_path: Path) -> None:
    Datasets(clerk.members["clinic_a"].folder).add("wdbc", tmp_path / "x.csv", ["analyst"], label="w", replace=True)
    graph = job(columns=("features",), shape=(8, 1))
    _, sentence = refusal(lambda: clerk.prepare("clinic_a", graph))
    assert "wants 1 columns of clinic_a/wdbc, and names 2" in sentence


# ---- attempts --------------------------------------------------------------------------------------------------------
def test_an_attempt_is_never_accepted_twice(clerk: Clerk, node: Server) -> None:
    clerk.prepare("clinic_a", layer())
    code, sentence = refusal(lambda: clerk.prepare("clinic_a", layer()))
    assert (code, sentence) == (
        Status.ALREADY_EXISTS,
        "clinic_a has had job, attempt 1 already: an attempt never runs twice",
    )


def test_one_attempt_at_a_time(clerk: Clerk, node: Server) -> None:
    clerk.prepare("clinic_a", layer())
    clerk.start("clinic_a")  # and it waits for its peers
    code, sentence = refusal(lambda: clerk.prepare("clinic_a", layer(), "other"))
    assert (code, sentence) == (
        Status.FAILED_PRECONDITION,
        "clinic_a is busy with job, attempt 1: it computes one job at a time",
    )
    code, sentence = refusal(lambda: clerk.start("clinic_a"))
    assert (code, sentence) == (Status.FAILED_PRECONDITION, "job, attempt 1 was started before, or has ended")
    clerk.nodes["clinic_a"].Abort(node_pb2.AbortRequest(job="job", attempt=1, cause="enough"), timeout=10)
    assert clerk.last("clinic_a").failed.cause == "enough"
    clerk.prepare("clinic_a", layer(), "other")


def test_what_was_prepared_and_never_started_makes_room(clerk: Clerk, node: Server) -> None:
    clerk.prepare("clinic_a", layer())
    clerk.prepare("clinic_a", layer(), attempt=2)
    assert clerk.last("clinic_a").failed.cause == "clinic_a was given job, attempt 2 instead"


def test_an_abort_before_the_start_ends_it(clerk: Clerk, node: Server) -> None:
    clerk.prepare("clinic_a", layer())
    clerk.nodes["clinic_a"].Abort(node_pb2.AbortRequest(job="job", attempt=1), timeout=10)
    assert clerk.last("clinic_a").failed.cause == "the coordinator ended it"
    assert refusal(lambda: clerk.start("clinic_a"))[0] is Status.FAILED_PRECONDITION
    clerk.nodes["clinic_a"].Abort(node_pb2.AbortRequest(job="job", attempt=1), timeout=10)  # once more does no harm


def test_an_unknown_attempt_is_not_found(clerk: Clerk, node: Server) -> None:
    node_ = clerk.nodes["clinic_a"]
    sentence = "clinic_a knows nothing of attempt 3 at 'job'"
    assert refusal(lambda: clerk.start("clinic_a", attempt=3)) == (Status.NOT_FOUND, sentence)
    assert refusal(lambda: clerk.last("clinic_a", attempt=3)) == (Status.NOT_FOUND, sentence)
    call = node_pb2.AbortRequest(job="job", attempt=3)
    assert refusal(lambda: node_.Abort(call, timeout=5)) == (Status.NOT_FOUND, sentence)


def test_old_records_are_dropped(clerk: Clerk, node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RECORDS", 2)
    for attempt in (1, 2, 3):
        clerk.prepare("clinic_a", layer(), attempt=attempt)
    assert refusal(lambda: clerk.last("clinic_a"))[0] is Status.NOT_FOUND
    assert clerk.last("clinic_a", attempt=2).HasField("failed")
    assert refusal(lambda: clerk.prepare("clinic_a", layer()))[0] is Status.ALREADY_EXISTS  # but not forgotten


class Caller:
    """A call that nobody gives up."""

    def is_active(self) -> bool:
        return True


def test_watchers_are_limited(clerk: Clerk) -> None:
    attempts = Attempts(clerk.members["clinic_a"], clerk.cluster, 10.0)
    attempts.prepare(request(), lambda: True)
    attempts.get("job", 1).abort("enough")
    assert attempts.get("job", 1).ended.wait(10)
    node, caller, call = (
        NodeService(clerk.members["clinic_a"], attempts),
        Caller(),
        node_pb2.WatchRequest(job="job", attempt=1),
    )
    watching = [node.Watch(call, cast(Any, caller)) for _ in range(service.WATCHERS)]
    for one in watching:
        assert next(one).failed.cause == "enough"
    with pytest.raises(Refused, match="8 calls watch already"):
        next(node.Watch(call, cast(Any, caller)))
    assert list(watching[0]) == []
    assert next(node.Watch(call, cast(Any, caller))).failed.cause == "enough"


def test_the_log_holds_no_secret(clerk: Clerk, node: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        clerk.prepare("clinic_a", layer(), deadline_s=0.2)
        clerk.start("clinic_a")
        clerk.last("clinic_a")
    lines = [record.getMessage() for record in caplog.records if record.name == "mpcnode"]
    assert lines
    assert all("\n" not in line for line in lines)
