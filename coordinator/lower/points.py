"""Binary points for numbers whose sizes a calibration has met.

A number that came to |x| < 2^top is given room for 2^MARGIN times as much: with F fraction bits it stays below 2^62 as
long as F <= room = 62 - MARGIN - top, and so does a product that is truncated later.  Within that, F is so large that
- 24 bits stand below the largest number: a product of two such numbers has room,
- 16 bits stand below a typical one (the geometric mean, where it is least), up to 40 bits below the largest,
and no smaller than the job's own fraction bits, if these have room.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mpcnode.ring import LIMIT_BITS

MARGIN = 4  # a number may come to 2^MARGIN times the largest that was met
MANTISSA, WIDEST = 24, 40  # bits below the largest number: as a rule, and at most
FINE = 16  # bits below a typical number
FINEST, MOST = 63, 126  # fraction bits of a number, and of a product


class Seen(NamedTuple):
    """What a calibration met of one value, over all steps of the loops around it; of its numbers that are not 0.

    largest: absolute value; typical: the geometric mean of absolute values, in the step where it is least; least: the
    smallest absolute value.
    """

    largest: float
    typical: float
    least: float

    @property
    def top(self) -> int:
        """|x| < 2^top."""
        return math.frexp(self.largest)[1]

    @property
    def room(self) -> int:
        """The most fraction bits."""
        return max(1, min(MOST, LIMIT_BITS - MARGIN - self.top))

    @property
    def bound(self) -> float:
        """What is taken as certain where ranges are assumed."""
        return 2.0 ** (self.top + MARGIN)

    def point(self, frac: int) -> int:
        """Fraction bits, in a job of numbers with `frac`."""
        fine = max(MANTISSA - self.top, FINE - math.frexp(self.typical)[1])
        return max(1, min(max(frac, min(fine, WIDEST - self.top)), self.room, FINEST))
