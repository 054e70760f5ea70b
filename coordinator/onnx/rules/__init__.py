"""ONNX's operators in jax: one rule per operator, in the file where its relatives are."""

from coordinator.onnx.rules import elementwise, layers, recurrent, reductions, shapes
from coordinator.onnx.rules.registry import RULES

__all__ = ["RULES", "elementwise", "layers", "recurrent", "reductions", "shapes"]
