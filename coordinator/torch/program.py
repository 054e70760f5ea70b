"""An nn.Module as a program: exported by torch.export, and read off its graph.  Nothing else imports torch.

Operators without a rule of their own are decomposed to PyTorch's core operators on the way.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from coordinator.foreign.program import Place, Program, Ref, Step, Unsupported
from coordinator.torch.aten import RULES

DROPPED = ("device", "layout", "pin_memory", "memory_format")  # of no meaning here
DTYPES = {
    torch.float64: np.float32, torch.float32: np.float32, torch.float16: np.float32, torch.bfloat16: np.float32,
    torch.int64: np.int32, torch.int32: np.int32, torch.int16: np.int32, torch.int8: np.int32, torch.uint8: np.int32,
    torch.bool: np.bool_,
}  # fmt: skip
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


class Exported(NamedTuple):
    """program: its inputs are parameters and buffers by their names in the module, and "input 0", "input 1", ...;
    its outputs are the module's, then the updated buffers.  updated: their names.  structure: of the module's output.
    """

    program: Program
    updated: tuple[str, ...]
    structure: Any


def export(module: nn.Module, args: Sequence[Any]) -> Exported:
    """The module's program for arguments of these shapes and types.  Raises Unsupported for what cannot be exported."""
    with _quiet():
        try:
            exported = torch.export.export(module, tuple(args)).run_decompositions(_decompositions())
        except Exception as error:
            raise Unsupported(_told(error)) from error
    return _Reader(exported).read()


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy as float32, int32 or bool."""
    if tensor.dtype not in DTYPES:
        raise Unsupported(
            f"a tensor of the module is {tensor.dtype}: real numbers, integers and booleans are supported"
        )
    whole = np.asarray(tensor.detach().cpu().to(torch.float64) if tensor.is_floating_point() else tensor.detach().cpu())
    if whole.dtype.kind == "i":
        whole = np.clip(whole, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
    return whole.astype(DTYPES[tensor.dtype])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, and without the fused kernels that inference alone has."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _decompositions() -> Any:
    table = torch.export.default_decompositions()
    for op in list(table):
        if _name(op) in RULES or _name(op).partition(".")[0] in RULES:
            table.pop(op)
    return table


def _name(target: Any) -> str:
    """relu.default of aten.relu.default; an operator of another library keeps its library's name."""
    return str(target).removeprefix("aten.")


def _told(error: Exception) -> str:
    """What the exporter says, in one sentence, with the last line of the user's that it names."""
    text = str(error)
    place = _user_frame(text)
    line = f"{Path(place[0]).name}:{place[1]}: " if place else ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    depends = "data-dependent" in text or "GuardOnDataDependent" in text
    why = "asks for the value of a tensor (if, .item(), int())" if depends else f"torch.export says: {first}"
    instead = "; choose with torch.where" if depends else ""
    return f"{line}the module cannot be exported: {why}{instead}"


def _user_frame(trace: str) -> tuple[str, int] | None:
    frames = [(m["file"], int(m["line"])) for m in _FRAME.finditer(trace) if not m["file"].startswith(_LIBRARIES)]
    return frames[-1] if frames else None


class _Reader:
    """Reads an exported program."""

    def __init__(self, exported: Any) -> None:
        self.exported = exported
        self.names: dict[str, str] = {}  # of the graph's inputs: their names in the program
        self.constants: dict[str, Any] = {}
        self.parts: dict[str, dict[int, str]] = {}  # of nodes with several results: the name of each that is read

    def read(self) -> Exported:
        graph, signature = self.exported.graph, self.exported.graph_signature
        self._inputs(signature.input_specs)
        for node in graph.nodes:
            if node.op == "call_function" and _name(node.target).startswith("<built-in function getitem"):
                self.parts.setdefault(node.args[0].name, {})[node.args[1]] = node.name
        steps = tuple(self._step(node) for node in graph.nodes if self._counts(node))
        mine, updated = self._outputs(signature.output_specs)
        outputs = (*mine, *updated.values())
        return Exported(Program(steps, self.constants, outputs), tuple(updated), self.exported.call_spec.out_spec)

    def _inputs(self, specs: Iterable[Any]) -> None:
        users = 0
        for spec in specs:
            if spec.kind is InputKind.USER_INPUT:
                self.names[spec.arg.name] = f"input {users}"
                if isinstance(spec.arg, ConstantArgument):
                    self.constants[f"input {users}"] = spec.arg.value
                users += 1
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                self.names[spec.arg.name] = spec.target
            elif spec.kind is InputKind.CONSTANT_TENSOR:
                self.names[spec.arg.name] = f"constant {spec.target}"
                self.constants[f"constant {spec.target}"] = to_numpy(self.exported.constants[spec.target])
            else:
                raise Unsupported(
                    f"the module holds {spec.target or spec.arg}, which is no tensor: keep it out of forward"
                )

    def _outputs(self, specs: Iterable[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The module's outputs, and the updated buffers."""
        mine: list[Any] = []
        updated: dict[str, Any] = {}
        for spec in specs:
            argument = spec.arg.value if isinstance(spec.arg, ConstantArgument) else self._ref(spec.arg.name)
            if spec.kind is OutputKind.USER_OUTPUT:
                mine.append(argument)
            elif spec.kind is OutputKind.BUFFER_MUTATION:
                updated[spec.target] = argument
            elif spec.kind is not OutputKind.USER_INPUT_MUTATION:
                raise Unsupported(f"forward changes {spec.target}, which is no buffer: return it instead")
        return mine, updated

    def _counts(self, node: Any) -> bool:
        """Is the node a step?  Named results are no steps, nor are shape assertions."""
        return node.op == "call_function" and not _name(node.target).startswith("<built-in function getitem")

    def _step(self, node: Any) -> Step:
        parts = self.parts.get(node.name)
        outputs = (node.name,) if parts is None else tuple(parts.get(i, "") for i in range(max(parts) + 1))
        args = tuple(self._argument(value) for value in node.args)
        kwargs = {name: self._argument(value) for name, value in node.kwargs.items() if name not in DROPPED}
        return Step(_name(node.target), args, kwargs, outputs, _place(node))

    def _ref(self, name: str) -> Ref:
        return Ref(self.names.get(name, name))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return self._ref(value.name)
        if isinstance(value, (list, tuple)):
            return tuple(self._argument(item) for item in value)
        if isinstance(value, torch.dtype):
            return DTYPES.get(value, value)
        return value


def _place(node: Any) -> Place:
    """The user's line that a node stems from, and the part of the module: "features.0 (Conv2d)"."""
    file, line = _user_frame(node.meta.get("stack_trace") or "") or ("", 0)
    modules: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    path, kind = list(modules.values())[-1] if modules else ("", "")
    kind = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    return Place(file, line, f"{path} ({kind})" if path else kind)
