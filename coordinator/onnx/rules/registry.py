"""The rules of ONNX's operators, by name.  Inputs come by place, attributes by name; what was an attribute in an older
version of an operator and is an input now comes either way.
"""

from coordinator.foreign.program import Refusal, Rules

CONTROL = "export the model with its control flow unrolled"
RULES = Rules(
    "ONNX",
    {
        "If": CONTROL,
        "Loop": CONTROL,
        "Scan": CONTROL,
        "NonZero": "choose with Where: a result must not have a shape that depends on the data",
        "Compress": "choose with Where: a result must not have a shape that depends on the data",
        "Unique": "a result must not have a shape that depends on the data",
        "RandomNormal": "let the owner of the data draw the numbers",
        "RandomUniform": "let the owner of the data draw the numbers",
        "QLinearConv": "export the model without quantisation",
        "QLinearMatMul": "export the model without quantisation",
        "QuantizeLinear": "export the model without quantisation",
        "DequantizeLinear": "export the model without quantisation",
    },
)
rule = RULES.rule

__all__ = ["RULES", "Refusal", "rule"]
