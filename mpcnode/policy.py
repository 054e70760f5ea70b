"""Who may learn what: each owner checks, before a job runs, where its own datasets would flow.

A dataset or a kept value has terms: who may learn what any program makes of it, and which programs, by digest, may do
what they say, and for whom.  `taints` follows every dataset, and every kept value that a job loads, through the graph
to the outputs that depend on it, and `check` holds them against the owner's terms.  Every owner checks for itself, so
nobody needs to trust the coordinator in this.  A dataset that nobody may learn from by way of any program is read by
approved programs only, `check_reading`.

What is kept is told to nobody; but a later job may reveal it, or what it computes from it.  So a dataset says whether
it may go into kept values at all, `check_keeping`; and every evaluator holds terms for each kept value, `check_kept`:
at first nobody and no program, unless the job that kept it named recipients, for each of whom every owner's data then
must be.

A dependence counts however small: an average over a million rows is still "computed from" them.
"""

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from mpcnode.errors import PolicyError
from mpcnode.graph import Graph, Op
from mpcnode.identity import ANYONE

Source: TypeAlias = tuple[str, str]  # owner, dataset; or "", kept value
_Mask: TypeAlias = int  # bit i: depends on source i, or in a loop's body on its parameter i
_Masks: TypeAlias = list[_Mask]


def taints(graph: Graph) -> dict[str, frozenset[Source]]:
    """For each output of a verified graph, the (owner, dataset) pairs that its value depends on."""
    found = _origins(graph)
    return {op.text("name"): found[i] for i, op in enumerate(graph.ops) if op.name == "reveal"}


class Keeping(NamedTuple):
    """What a job would keep under a name: computed from what, and who may learn what is computed from it."""

    sources: frozenset[Source]
    recipients: tuple[str, ...]


def keeps(graph: Graph) -> dict[str, Keeping]:
    """What a verified graph keeps, by name."""
    found = _origins(graph)
    kept: dict[str, Keeping] = {}
    for i, op in enumerate(graph.ops):
        if op.name == "store":
            before = kept.get(op.text("kept"), Keeping(frozenset(), ()))
            kept[op.text("kept")] = Keeping(before.sources | found[i], op.texts("to"))
    return kept


def title(source: Source) -> str:
    """A source, for people."""
    return "/".join(source) if source[0] else f"kept {source[1]}"


def _origins(graph: Graph) -> dict[int, frozenset[Source]]:
    """What each `reveal` and `store` depends on, by its position."""
    inputs = {i: _source(op) for i, op in enumerate(graph.ops) if op.name in ("input", "load")}
    sources = list(dict.fromkeys(inputs.values()))
    bit = {source: 1 << i for i, source in enumerate(sources)}
    masks = _follow(graph, {i: bit[source] for i, source in inputs.items()})
    return {
        i: frozenset(source for source in sources if masks[i] & bit[source])
        for i, op in enumerate(graph.ops)
        if op.name in ("reveal", "store")
    }


def recipients(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each output of a verified graph, who learns it."""
    return {op.text("name"): op.texts("to") for op in graph.ops if op.name == "reveal"}


class Terms(NamedTuple):
    """What this node allows of a dataset or a kept value.  recipients: who may learn what any program computes from it;
    keep: it may go into kept values; programs: by digest, to whom it may tell what it says (ANYONE: whomever it names).
    """

    recipients: Set[str]
    keep: bool = False
    programs: Mapping[str, Set[str]] = MappingProxyType({})

    def permit(self, program: str, recipient: str) -> bool:
        """Whether the recipient may learn what the program computes from it."""
        return bool({recipient, ANYONE} & (self.recipients | self.programs.get(program, frozenset())))


def check_reading(graph: Graph, datasets: Mapping[str, Terms], me: str) -> None:
    """Refuse a program that reads a dataset of `me` which is for approved programs only, and is none of them."""
    program = graph.digest().hex()
    for op in graph.ops:
        if op.name != "input" or op.text("owner") != me or op.text("dataset") not in datasets:
            continue
        name = op.text("dataset")
        terms = datasets[name]
        if not terms.recipients and program not in terms.programs:
            raise PolicyError(
                f"{me} has not approved this program, and only those that it has may read {me}/{name}: to approve it, "
                f"`mpcnode data allow {name} --program {program}` at {me}"
            )


def check(
    taints: Mapping[str, Set[Source]],
    recipients: Mapping[str, tuple[str, ...]],
    datasets: Mapping[str, Terms],
    me: str,
    program: str,
) -> None:
    """Refuse a program, by its digest, that tells somebody something computed from a dataset of `me` that is not meant
    for them; `me` itself may learn all.  PolicyError names the first output, dataset and recipient that do not fit.
    """
    for output, sources in taints.items():
        for owner, dataset in sorted(sources):
            if owner != me:
                continue
            if dataset not in datasets:
                raise PolicyError(f"output {output} is computed from {me}/{dataset}, and {me} has no such dataset")
            for recipient in recipients[output]:
                if recipient != me and not datasets[dataset].permit(program, recipient):
                    raise PolicyError(
                        f"output {output} is computed from {me}/{dataset} and would go to {recipient}, whom {me} does "
                        f"not allow: leave {recipient} out, or ask {me} to allow this program alone, "
                        f"`mpcnode data allow {dataset} --program {program} --for {recipient}`, or every program, "
                        f"`mpcnode data allow {dataset} --for {recipient}`"
                    )


def check_keeping(keeping: Mapping[str, Keeping], datasets: Mapping[str, Terms], me: str, program: str) -> None:
    """Refuse a program that keeps something computed from a dataset of `me` which may not be kept, or on wider
    terms.
    """
    for name, (sources, recipients) in keeping.items():
        for owner, dataset in sorted(sources):
            if owner != me or dataset not in datasets:
                continue
            terms = datasets[dataset]
            if not terms.keep:
                raise PolicyError(
                    f"the job would keep {name}, which is computed from {me}/{dataset}, and {me} does not allow that: "
                    f"ask {me} to register {dataset} anew with `--replace --keep`"
                )
            for recipient in recipients:
                if not terms.permit(program, recipient):
                    raise PolicyError(
                        f"the job would keep {name} for {recipient}, and it is computed from {me}/{dataset}, which is "
                        f"not for {recipient}: leave {recipient} out, or ask {me} to allow it, "
                        f"`mpcnode data allow {dataset} --for {recipient}`"
                    )


def check_kept(graph: Graph, kept: Mapping[str, Terms], me: str) -> None:
    """Refuse a job that reveals something computed from a kept value to whom this node has not allowed that, by
    recipient or by program; or keeps it anew on wider terms.
    """
    program = graph.digest().hex()
    told = [(f"output {name}", sources, recipients(graph)[name]) for name, sources in taints(graph).items()]
    told += [(f"{name}, to be kept,", keeping.sources, keeping.recipients) for name, keeping in keeps(graph).items()]
    for what, sources, whom in told:
        for owner, name in sorted(sources):
            for recipient in whom if not owner else ():
                if not kept[name].permit(program, recipient):
                    raise PolicyError(
                        f"{what} is computed from the kept {name} and would go to {recipient}, which {me} does not "
                        f"allow: to allow this program alone, `mpcnode kept allow {name} --program {program}` at {me}"
                    )


def _source(op: Op) -> Source:
    return ("", op.text("kept")) if op.name == "load" else (op.text("owner"), op.text("dataset"))


def _follow(graph: Graph, inputs: Mapping[int, _Mask]) -> _Masks:
    """The mask of every op, given those of the inputs or parameters; 0 stands for a loop, whose results differ."""
    masks: _Masks = []
    results: dict[int, _Masks] = {}  # of a loop: what each result depends on
    for i, op in enumerate(graph.ops):
        if op.name == "loop":
            arguments = [masks[a] for a in op.args]
            results[i] = [_spread(mask, arguments) for mask in _through_loop(op)]
            masks.append(0)
        elif op.name == "get":
            masks.append(results[op.args[0]][op.integer("index")])
        else:
            mask = inputs.get(i, 0)
            for a in op.args:
                mask |= masks[a]
            masks.append(mask)
    return masks


def _through_loop(loop: Op) -> _Masks:
    """For each result of the loop, the mask of the loop's arguments that it depends on after any number of steps.

    The body is followed once.  A result of one step that depends on a carried value depends in the next on all that
    this value depends on: the transitive closure over carried values (Warshall 1962).
    """
    body, consts, carry = loop.body, loop.integer("consts"), loop.integer("carry")
    masks = _follow(body, {i: 1 << op.integer("index") for i, op in enumerate(body.ops) if op.name == "param"})
    reach = [masks[output] for output in body.outputs]
    for k in range(carry):
        carried = 1 << (consts + k)
        reach = [mask | reach[k] if mask & carried else mask for mask in reach]
    return reach


def _spread(mask: _Mask, arguments: _Masks) -> _Mask:
    """The union of the arguments' masks whose bits are set in `mask`."""
    union = 0
    for i, argument in enumerate(arguments):
        if mask >> i & 1:
            union |= argument
    return union
