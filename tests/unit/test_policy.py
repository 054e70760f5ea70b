"""Taints follow every path from a dataset to an output, and only those; check holds them against the owner's word."""

from collections.abc import Sequence

import numpy as np
import pytest

from mpcnode.errors import PolicyError
from mpcnode.graph import Attr, Graph, Kind, Op, Type
from mpcnode.policy import Terms, check, check_reading, recipients, taints
from mpcnode.verify import infer, verify

A, B, C = ("clinic_a", "wdbc"), ("clinic_b", "wdbc"), ("clinic_c", "wdbc")
SHAPE = Type(Kind.ARITH, 18, (2, 1))


class Builder:
    """Writes a verified graph op by op."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def op(self, op_name: str, /, *args: int, type: Type = SHAPE, **attrs: Attr) -> int:
        op = Op(op_name, args, attrs, type)
        self.ops.append(op._replace(type=infer(op, [self.ops[a] for a in args])))
        return len(self.ops) - 1

    def input(self, source: tuple[str, str]) -> int:
        return self.op("input", owner=source[0], dataset=source[1], columns=("x",))

    def params(self, count: int) -> list[int]:
        return [self.op("param", index=i) for i in range(count)]

    def loop(self, args: Sequence[int], body: Graph, consts: int, carry: int, length: int = 3) -> list[int]:
        loop = self.op("loop", *args, length=length, reverse=0, consts=consts, carry=carry, body=body)
        return [self.op("get", loop, index=i) for i in range(len(body.outputs))]

    def reveal(self, value: int, name: str, *to: str) -> None:
        self.op("reveal", value, to=to or ("analyst",), name=name)

    def graph(self, *outputs: int) -> Graph:
        return Graph(tuple(self.ops), outputs)


def taints_of(builder: Builder) -> dict[str, frozenset[tuple[str, str]]]:
    graph = builder.graph()
    verify(graph)
    return taints(graph)


def test_straight_lines() -> None:
    g = Builder()
    a, b = g.input(A), g.input(B)
    one = g.op("const", value=np.full((2, 1), 1 << 18), type=SHAPE)
    g.reveal(g.op("add", a, b), "sum")
    g.reveal(g.op("neg", b), "b")
    g.reveal(one, "one")
    g.reveal(g.op("select", g.op("sign", a, lo=0), one_arith := g.op("sub", b, b), keep=1), "select")
    g.reveal(one_arith, "zero")
    assert taints_of(g) == {
        "sum": {A, B},
        "b": {B},
        "one": set(),
        "select": {A, B},
        "zero": {B},  # a difference of equals: the analysis sees paths, not values
    }


def test_the_same_dataset_read_twice_is_one_source() -> None:
    g = Builder()
    g.reveal(g.op("add", g.input(A), g.input(A)), "sum")
    assert taints_of(g) == {"sum": {A}}


def test_a_loop_keeps_independent_values_apart() -> None:
    body = Builder()
    p, q = body.params(2)
    step = body.graph(body.op("neg", p), body.op("neg", q))
    g = Builder()
    x, y = g.loop([g.input(A), g.input(B)], step, consts=0, carry=2)
    g.reveal(x, "x")
    g.reveal(y, "y")
    assert taints_of(g) == {"x": {A}, "y": {B}}


def test_what_a_loop_carries_spreads_over_its_steps() -> None:
    """x <- y, y <- z, z <- const + z: z reaches x in the third step, and the constant in the fourth."""
    body = Builder()
    const, _, y, z = body.params(4)
    step = body.graph(y, z, body.op("add", const, z), body.op("neg", y))
    g = Builder()
    const = g.input(("owner", "const"))
    results = g.loop([const, g.input(A), g.input(B), g.input(C)], step, consts=1, carry=3)
    for name, result in zip(["x", "y", "z", "stacked"], results, strict=True):
        g.reveal(result, name)
    rest = {C, ("owner", "const")}
    assert taints_of(g) == {"x": {B, *rest}, "y": rest, "z": rest, "stacked": {B, *rest}}


def test_a_loop_that_forgets_what_it_was_given() -> None:
    body = Builder()
    _, fresh = body.params(2)
    step = body.graph(fresh)
    g = Builder()
    scanned = g.op("broadcast", g.input(B), shape=(3, 2, 1), dims=(1, 2))
    (last,) = g.loop([g.input(A), scanned], step, consts=0, carry=1)
    g.reveal(last, "last")
    assert taints_of(g) == {"last": {B}}


def test_nested_loops() -> None:
    inner = Builder()
    const, carried = inner.params(2)
    inner_step = inner.graph(inner.op("add", const, carried))
    outer = Builder()
    x, y, z = outer.params(3)
    (mixed,) = outer.loop([x, y], inner_step, consts=1, carry=1)
    outer_step = outer.graph(outer.op("neg", x), mixed, z)
    g = Builder()
    for name, result in zip("xyz", g.loop([g.input(A), g.input(B), g.input(C)], outer_step, 0, 3), strict=True):
        g.reveal(result, name)
    assert taints_of(g) == {"x": {A}, "y": {A, B}, "z": {C}}


def test_deep_nests_are_followed_once() -> None:
    """A hostile graph cannot keep the check busy: 8 loops in one another, each shifting 40 values."""
    body = Builder()
    params = body.params(40)
    step = body.graph(*params[1:], params[0])
    for _ in range(7):
        outer = Builder()
        step = outer.graph(*outer.loop(outer.params(40), step, consts=0, carry=40))
    g = Builder()
    results = g.loop([g.input((f"p{i}", "d")) for i in range(40)], step, consts=0, carry=40)
    g.reveal(results[0], "first")
    assert len(taints_of(g)["first"]) == 40


@pytest.mark.parametrize("seed", range(60))
def test_a_loop_is_the_union_of_its_unrollings(seed: int) -> None:
    """Random bodies of constants, carried values and sums, against the loop written out for every number of steps."""
    rng = np.random.default_rng(seed)
    consts, carry = int(rng.integers(0, 3)), int(rng.integers(1, 6))
    count, outputs = consts + carry, carry + 2  # the last two results are stacked ones
    body = Builder()
    values = body.params(count)
    values += [body.op("add", *map(int, rng.choice(values, 2))) for _ in range(int(rng.integers(0, 4)))]
    step = body.graph(*map(int, rng.choice(values, outputs)))

    def unrolled(arguments: list[set[int]]) -> list[set[int]]:
        known: list[set[int]] = []
        for op in step.ops:
            known.append(
                set(arguments[op.integer("index")]) if op.name == "param" else known[op.args[0]] | known[op.args[1]]
            )
        return [known[o] for o in step.outputs]

    state, want = [{i} for i in range(count)], [set[int]() for _ in range(outputs)]
    for _ in range(carry + 1):
        results = unrolled(state)
        state[consts:] = results[:carry]
        want = [w | r for w, r in zip(want, results, strict=True)]

    g = Builder()
    for i, result in enumerate(g.loop([g.input((f"p{i}", "d")) for i in range(count)], step, consts, carry)):
        g.reveal(result, f"r{i}")
    assert taints_of(g) == {f"r{i}": {(f"p{j}", "d") for j in w} for i, w in enumerate(want)}


def test_recipients() -> None:
    g = Builder()
    g.reveal(g.input(A), "x", "analyst", "clinic_b")
    assert recipients(g.graph()) == {"x": ("analyst", "clinic_b")}


TAINTS = {"weights": frozenset({A, B}), "accuracy": frozenset({B})}
PROGRAM, OTHER = "ab" * 32, "cd" * 32


def wdbc(*recipients: str, **programs: set[str]) -> dict[str, Terms]:
    """clinic_a's terms: for whom any program's results are, and whom PROGRAM and OTHER may tell theirs."""
    named = {"program": PROGRAM, "other": OTHER}
    return {"wdbc": Terms(set(recipients), programs={named[name]: whom for name, whom in programs.items()})}


@pytest.mark.parametrize(
    ("to", "allowed"),
    [
        ({"weights": ("analyst",), "accuracy": ("stranger",)}, wdbc("analyst")),
        ({"weights": ("clinic_a",), "accuracy": ("stranger",)}, wdbc("analyst")),  # its own data come home
        ({"weights": ("anybody", "else"), "accuracy": ("stranger",)}, wdbc("anyone")),
        ({"weights": ("analyst", "clinic_b"), "accuracy": ()}, wdbc("analyst", "clinic_b") | {"other": Terms(set())}),
        ({"weights": ("analyst", "clinic_b"), "accuracy": ()}, wdbc(program={"anyone"})),
        ({"weights": ("analyst", "clinic_b"), "accuracy": ()}, wdbc("analyst", program={"clinic_b"})),
    ],
)
def test_allowed_flows(to: dict[str, tuple[str, ...]], allowed: dict[str, Terms]) -> None:
    check(TAINTS, to, allowed, "clinic_a", PROGRAM)


@pytest.mark.parametrize(
    "allowed",
    [
        wdbc("analyst"),
        wdbc("analyst", other={"anyone"}),  # that is another program
        wdbc("analyst", program={"clinic_c"}),  # and this for other recipients
        wdbc(program={"analyst"}),
    ],
)
def test_a_flow_that_the_owner_does_not_allow(allowed: dict[str, Terms]) -> None:
    to = {"weights": ("analyst", "clinic_b"), "accuracy": ("analyst",)}
    with pytest.raises(PolicyError) as caught:
        check(TAINTS, to, allowed, "clinic_a", PROGRAM)
    assert str(caught.value) == (
        "output weights is computed from clinic_a/wdbc and would go to clinic_b, whom clinic_a does not allow: "
        "leave clinic_b out, or ask clinic_a to allow this program alone, `mpcnode data allow wdbc --program "
        f"{PROGRAM} --for clinic_b`, or every program, `mpcnode data allow wdbc --for clinic_b`"
    )


def test_an_owner_speaks_for_its_own_datasets_only() -> None:
    check(TAINTS, {"weights": ("x",), "accuracy": ("y",)}, {}, "clinic_c", PROGRAM)


def test_a_dataset_that_the_owner_does_not_have() -> None:
    with pytest.raises(PolicyError, match="computed from clinic_a/wdbc, and clinic_a has no such dataset"):
        check(TAINTS, {"weights": ("clinic_a",), "accuracy": ()}, {}, "clinic_a", PROGRAM)


def test_what_is_for_no_recipient_is_read_by_approved_programs_only() -> None:
    """Even a program that tells its results to the owner alone, or to nobody."""
    for to in (("clinic_a",), None):
        g = Builder()
        g.input(A)
        g.input(B)
        g.reveal(0 if to else 1, "x", *(to or ("clinic_b",)))
        program = g.graph().digest().hex()
        with pytest.raises(PolicyError) as caught:
            check_reading(g.graph(), wdbc(other={"anyone"}), "clinic_a")
        assert str(caught.value) == (
            "clinic_a has not approved this program, and only those that it has may read clinic_a/wdbc: to approve it, "
            f"`mpcnode data allow wdbc --program {program}` at clinic_a"
        )
        check_reading(g.graph(), {"wdbc": Terms(set(), programs={program: {"clinic_c"}})}, "clinic_a")
        check_reading(g.graph(), wdbc("analyst"), "clinic_a")
        check_reading(g.graph(), {"wdbc": Terms(set())}, "clinic_c")
