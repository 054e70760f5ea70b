"""What passes are made of: a graph written anew, op by op, with rules that replace ops; uses, depths, dead ops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from coordinator.lower.builder import Builder, Value
from mpcnode.graph import TOP, Attr, Graph, Kind, Op
from mpcnode.protocols.comparison import sign_cost

PRODUCTS = ("mul", "square", "dot", "conv", "and", "or")
ROUNDS = dict.fromkeys((*PRODUCTS, "trunc", "rescale", "select", "inject", "onehot", "input"), 1)


class Rewriter:
    """One pass over one graph.  A rule gets the op that stands at `here` in `old`, and its arguments as new values."""

    def __init__(self, old: Graph, frac: int) -> None:
        self.old = old
        self.b = Builder(frac)
        self.uses = uses(old)
        self.here = 0
        self.facts: dict[object, Any] = {}  # what rules remember of this graph
        self._depths: list[int] = []

    def op(self, value: Value) -> Op:
        return self.b.op(value)

    def arg(self, value: Value, i: int = 0) -> Value:
        """An argument of the op that makes a value."""
        number = self.b.op(value).args[i]
        return Value(number, self.b.ops[number].type)

    def alone(self, i: int = 0) -> bool:
        """Is this op the only one that reads its argument i?"""
        return self.uses[self.old.ops[self.here].args[i]] == 1

    def depth(self, value: Value) -> int:
        """Rounds on the longest chain to a value."""
        for op in self.b.ops[len(self._depths) :]:
            before = max((self._depths[a] for a in op.args), default=0)
            self._depths.append(before + rounds(op, [self.b.ops[a] for a in op.args]))
        return self._depths[value.number]


Rule: TypeAlias = Callable[[Rewriter, Op, Sequence[Value]], Value | None]
Rules: TypeAlias = Mapping[str, Rule]


def rounds(op: Op, args: Sequence[Op]) -> int:
    """Rounds of one op (under the default protocol; a loop's, all of its steps)."""
    if op.name == "loop":
        return op.integer("length") * depth(op.body)
    if op.name in PRODUCTS and any(a.type.kind is Kind.PUBLIC for a in args):
        return 0
    if op.name == "sign":
        bits, cuts = (op.integer("lo"), op.integer("top", TOP)), len(op.integers("cuts", (0,)))
        return sign_cost(*bits, args[0].type.size, cuts)[0]
    return ROUNDS.get(op.name, 0)


def depth(graph: Graph) -> int:
    """Rounds on the longest chain of dependent ops."""
    found: list[int] = []
    for op in graph.ops:
        before = max((found[a] for a in op.args), default=0)
        found.append(before + rounds(op, [graph.ops[a] for a in op.args]))
    return max(found, default=0)


def uses(graph: Graph) -> list[int]:
    """How many readers each value has; being an output is one."""
    count = [0] * len(graph.ops)
    for op in graph.ops:
        for a in op.args:
            count[a] += 1
    for o in graph.outputs:
        count[o] += 1
    return count


def rewrite(graph: Graph, rules: Rules, frac: int) -> tuple[Graph, bool]:
    """The graph, loop bodies first, with every op replaced by what its rule returns (None: kept); and whether any was.

    A replacement has the type of what it replaces.
    """
    r, changed = Rewriter(graph, frac), False
    new: list[Value] = []
    for i, op in enumerate(graph.ops):
        r.here, args, current = i, [new[a] for a in op.args], op
        if op.name == "loop":
            body, inner = rewrite(op.body, rules, frac)
            current, changed = op._replace(attrs={**op.attrs, "body": body}), changed or inner
        with r.b.at(op.where, op.most):
            found = rules[op.name](r, current, args) if op.name in rules else None
            changed = changed or found is not None
            if found is None:
                found = r.b.copy(op, *args) if current is op else r.b.again(current, *args)
        assert found.type == op.type, f"{op.name} of type {op.type} became {found.type}"
        new.append(found)
    return r.b.graph([new[o] for o in graph.outputs]), changed


def until_still(graph: Graph, rules: Rules, frac: int, most: int = 20) -> Graph:
    """Rewrite, and drop dead ops, until no rule has anything to say."""
    for _ in range(most):
        graph, changed = rewrite(graph, rules, frac)
        graph = prune(graph)
        if not changed:
            break
    return graph


def plain(graph: Graph) -> Graph:
    """Without the compiler's own notes."""
    ops = (op._replace(most=0) for op in graph.ops)
    bodies = (op._replace(attrs={**op.attrs, "body": plain(op.body)}) if op.name == "loop" else op for op in ops)
    return graph._replace(ops=tuple(bodies))


# ---- dead ops ------------------------------------------------------------------------------------------------------
def prune(graph: Graph) -> Graph:
    """Without ops, and carried or stacked values of loops, that nothing revealed depends on."""
    return _pruned(graph, graph.outputs, ())


def _pruned(graph: Graph, outputs: Sequence[int], params: Sequence[int]) -> Graph:
    """The ops that these outputs need, and these parameters in any case; parameters are renumbered."""
    live, results = _reach(graph, outputs)
    live.update(i for i, op in enumerate(graph.ops) if op.name == "param" and op.integer("index") in params)
    number: dict[int, int] = {}
    ops: list[Op] = []
    index = 0
    for i in sorted(live):
        op = graph.ops[i]
        if op.name == "param":
            op, index = op._replace(attrs={"index": index}), index + 1
        elif op.name == "loop":
            op = _pruned_loop(op, sorted(results[i]))
        elif op.name == "get":
            op = op._replace(attrs={"index": sorted(results[op.args[0]]).index(op.integer("index"))})
        number[i] = len(ops)
        ops.append(op._replace(args=tuple(number[a] for a in op.args)))
    return Graph(tuple(ops), tuple(number[o] for o in outputs))


def _pruned_loop(loop: Op, needed: Sequence[int]) -> Op:
    consts, carry, body = loop.integer("consts"), loop.integer("carry"), loop.body
    kept = _arguments(loop, needed)
    attrs: dict[str, Attr] = {
        **loop.attrs,
        "consts": sum(k < consts for k in kept),
        "carry": sum(consts <= k < consts + carry for k in kept),
        "body": _pruned(body, [body.outputs[o] for o in needed], kept),
    }
    return loop._replace(args=tuple(loop.args[k] for k in kept), attrs=attrs)


def _reach(graph: Graph, outputs: Sequence[int]) -> tuple[set[int], dict[int, set[int]]]:
    """Ops that the outputs and what is revealed depend on; of each loop among them, the results that are needed."""
    live = set(outputs) | {i for i, op in enumerate(graph.ops) if op.name in ("reveal", "store")}
    results: dict[int, set[int]] = {}
    for i in reversed(range(len(graph.ops))):
        op = graph.ops[i]
        if i not in live:
            continue
        if op.name == "get":
            results.setdefault(op.args[0], set()).add(op.integer("index"))
        if op.name == "loop":
            results[i] = _needed(op, results[i])
            live.update(op.args[k] for k in _arguments(op, results[i]))
        else:
            live.update(op.args)
    return live, results


def _needed(loop: Op, picked: set[int]) -> set[int]:
    """The picked results, and the carried values that a step needs to make them."""
    consts, carry = loop.integer("consts"), loop.integer("carry")
    while True:
        carried = {p - consts for p in _params(loop.body, picked) if consts <= p < consts + carry}
        if carried <= picked:
            return picked
        picked = picked | carried


def _params(body: Graph, results: Collection[int]) -> set[int]:
    """Parameters that these results of a loop's body depend on."""
    live, _ = _reach(body, [body.outputs[o] for o in results])
    return {body.ops[i].integer("index") for i in live if body.ops[i].name == "param"}


def _arguments(loop: Op, needed: Collection[int]) -> list[int]:
    """Arguments that the needed results depend on, and the first value of whatever is carried."""
    consts, carry = loop.integer("consts"), loop.integer("carry")
    carried = {consts + n for n in needed if n < carry}
    return sorted(_params(loop.body, needed) - set(range(consts, consts + carry)) | carried)
