"""From a resolved job and its function to the graph that the parties run, with every stage on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from coordinator.jobfile import Plan
from mpcnode.errors import ConfigError
from mpcnode.graph import Graph


class Compiled(NamedTuple):
    """A job that is ready to be submitted."""

    plan: Plan
    stages: dict[str, Graph]  # by name, in the order of the passes
    source: str  # the job file, for the record

    @property
    def graph(self) -> Graph:
        """What the parties run: the last stage."""
        return list(self.stages.values())[-1]

    def stage(self, name: str) -> Graph:
        """One stage by name; ConfigError lists the names there are."""
        if name not in self.stages:
            raise ConfigError(f"there is no stage {name!r}; there is {', '.join(self.stages)}")
        return self.stages[name]


def compile_job(plan: Plan, function: Callable[..., Any], source: str) -> Compiled:
    """Trace `function` on the inputs of `plan` and lower it.  Raises MpcError for what cannot be compiled."""
    try:
        from coordinator.frontend import trace
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"compiling needs {error.name}, which is not installed: pip install 'mpcnode[train]'"
        ) from error
    from coordinator.lower.passes import compile as lower

    traced = trace(
        function,
        plan.inputs,
        plan.outputs,
        plan.frac,
        plan.calibration,
        assume=plan.assume_ranges,
        kept=plan.kept,
        keeps=plan.keeps,
    )
    return Compiled(plan, lower(traced.graph, plan.frac, assume=plan.assume_ranges), source)
