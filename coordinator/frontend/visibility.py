"""Which variables of a flat jaxpr are known at compile time: all that follow from known inputs alone.

A loop's carried value is known if it is known before the first step and each step makes it from known values, which
is the greatest fixed point: assume all that can be known is known, and take back what a step makes secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.frontend.flat import Equation, Flat


def known_variables(flat: Flat, inputs: Sequence[bool]) -> set[int]:
    """Numbers of the variables that are known if these inputs are."""
    known = set(flat.constants) | {v for v, k in zip(flat.inputs, inputs, strict=True) if k}
    for e in flat.equations:
        outputs = known_outputs(e, [v in known for v in e.inputs])
        known.update(v for v, k in zip(e.outputs, outputs, strict=True) if k)
    return known


def outputs_of(flat: Flat, inputs: Sequence[bool]) -> list[bool]:
    known = known_variables(flat, inputs)
    return [v in known for v in flat.outputs]


def known_outputs(e: Equation, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs of the equation are known if these inputs are."""
    if all(inputs):
        return [True] * len(e.outputs)
    if e.name == "scan":
        carried = scan_carry(e, inputs)
        consts, carry = e.params["num_consts"], e.params["num_carry"]
        outputs = outputs_of(e.bodies[0], [*inputs[:consts], *carried, *inputs[consts + carry :]])
        return [*carried, *outputs[carry:]]
    if e.name == "while":
        return while_carry(e, inputs)
    if e.name == "cond" and inputs[0]:
        return [all(branch) for branch in zip(*(outputs_of(b, inputs[1:]) for b in e.bodies), strict=True)]
    return [False] * len(e.outputs)


def _fixed_point(body: Flat, before: Sequence[bool], carry: Sequence[bool], after: Sequence[bool]) -> list[bool]:
    known = list(carry)
    while True:
        outputs = outputs_of(body, [*before, *known, *after])[: len(known)]
        step = [k and o for k, o in zip(known, outputs, strict=True)]
        if step == known:
            return known
        known = step


def scan_carry(e: Equation, inputs: Sequence[bool]) -> list[bool]:
    """Which carried values of a scan are known."""
    consts, carry = e.params["num_consts"], e.params["num_carry"]
    return _fixed_point(e.bodies[0], inputs[:consts], inputs[consts : consts + carry], inputs[consts + carry :])


def while_carry(e: Equation, inputs: Sequence[bool]) -> list[bool]:
    """Which carried values of a while loop are known; none when its condition is not."""
    a, b = e.params["cond_nconsts"], e.params["body_nconsts"]
    known = _fixed_point(e.bodies[1], inputs[a : a + b], inputs[a + b :], ())
    counted = outputs_of(e.bodies[0], [*inputs[:a], *known])[0]
    return known if counted else [False] * len(known)
