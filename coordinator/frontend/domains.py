"""Where values that a calibration met leave what fixed point computes rightly: too large, too small, off a domain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from coordinator.calibration import Problem
from coordinator.frontend.flat import Equation, Flat
from coordinator.frontend.measured import COARSEST, PRODUCTS, places
from coordinator.lower.points import Seen
from mpcnode.ring import LIMIT_BITS

FEW = 4  # bits that a typical number should have
EXP_TOP, LOG_LOW, LOG_HIGH, POWER_TOP = math.exp(14), 2.0**-18, 2.0**24, 2.0**25
WIDE_ROOT, WIDE_DIVISOR = 2.0**36, 2.0**30  # between the largest and a typical number under a root, the least divisor
DIVISION, POWERS = ("div",), ("integer_pow", "pow")


def problems(flat: Flat, seen: Mapping[str, Seen], frac: int, place: str = "") -> Iterator[Problem]:
    """By source line, in the program's order; those that the calibration settles are told too."""
    met = {v: seen[name] for name, v in places(flat, place) if name in seen and flat.variables[v].kind == "f"}
    for i, e in enumerate(flat.equations):
        made, given = met.get(e.outputs[0]) if e.outputs else None, [met.get(v) for v in e.inputs]
        if made is not None and not e.bodies:
            sentence = _lasting(e, made, given)
            if sentence:
                yield Problem(e.where, e.name, sentence, settled=False)
            elif sentence := _by_default(e, made, frac):
                yield Problem(e.where, e.name, sentence, settled=True)
        deeper = e.bodies[1:] if e.name == "while" else e.bodies
        for k, body in enumerate(deeper):
            yield from problems(body, seen, frac, f"{place}{i}/" + (f"{k}/" if e.name == "cond" else ""))


def _lasting(e: Equation, made: Seen, given: list[Seen | None]) -> str:
    """What no binary point mends."""
    x, last = given[0] if given else None, given[-1] if given else None
    if not math.isfinite(made.largest):
        return "is infinite or no number in plain floating point too: look for a division by 0, or a step that diverges"
    if made.room < COARSEST:
        return f"comes to {made.largest:.3g}, which leaves no fraction bits: scale it down"
    if e.name in ("exp", "expm1") and made.largest >= EXP_TOP:
        return f"comes to {made.largest:.3g}, and is e^14 = 1.2e6 at most: subtract the largest exponent first"
    if e.name == "log" and x is not None and (x.least < LOG_LOW or x.largest >= LOG_HIGH):
        return f"of {x.least:.2g} to {x.largest:.2g}, and is right from 2^-18 to 2^24: clip or scale its argument"
    if e.name in POWERS and made.largest >= POWER_TOP and e.params.get("y") != 2:
        return f"comes to {made.largest:.3g}, and powers are right below 2^25: scale what it is taken of"
    if e.name in ("sqrt", "rsqrt") and x is not None and x.largest > WIDE_ROOT * x.typical:
        return f"of numbers from {x.typical:.2g} to {x.largest:.2g}: those below {x.largest / 2**38:.1g} pass for 0"
    if e.name in DIVISION and last is not None and last.largest > WIDE_DIVISOR * last.least:
        low = last.largest / 2**32
        return f"by numbers from {last.least:.2g} to {last.largest:.2g}: those below {low:.1g} pass for {low:.1g}"
    return ""


def _by_default(e: Equation, made: Seen, frac: int) -> str:
    """What goes wrong with the job's own fraction bits everywhere."""
    bits = 2 * frac if e.name in PRODUCTS else frac
    if made.top + bits > LIMIT_BITS:
        return f"comes to {made.largest:.3g}, which overflows with {frac} fraction bits"
    if made.typical < 2.0 ** (FEW - frac):
        return f"is around {made.typical:.2g} at its least, which {frac} fraction bits hold to less than {FEW} bits"
    return ""
