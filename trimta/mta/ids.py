"""Message ids: one for each message, from acceptance to its last delivery."""

from __future__ import annotations

import random
import time
from typing import Final

_DIGITS: Final = "0123456789bcdfghjkmnpqrstvwxyz"  # no vowels: no words; no l: it looks like 1


def new_id() -> str:
    """A short id that sorts by time: microseconds since the epoch, then 20 random bits, in base 30."""
    return _base30(time.time_ns() // 1000).rjust(11, "0") + _base30(random.getrandbits(20)).rjust(5, "0")


def _base30(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
