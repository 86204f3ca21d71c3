"""Ids of messages: each message has an id of its own, from acceptance to its last delivery."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Final

from trimta import real_time

_DIGITS: Final = "0123456789bcdfghjkmnpqrstvwxyz"  # no vowels: no words; no l: it looks like 1
_PAIRS: Final = [first + second for first in _DIGITS for second in _DIGITS]


class _Sequence:
    """A sequence of growing numbers: microseconds since the epoch, or the next number where the clock has not moved."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, real_time.wall_ns() // 1000)
            return self._last


_microseconds: Final = _Sequence()


def new_id() -> str:
    """A new id of 16 characters in base 30, which sorts by time: microseconds since the epoch, then 20 random bits.

    The bits tell apart the ids of processes that run at the same time.
    """
    # Not from `random`, which a program may seed with the same number again and again.
    first, last = divmod(_microseconds.next(), 30**5)
    return _base30(first).rjust(6, "0") + _five_digits(last) + _five_digits(int.from_bytes(os.urandom(3)) >> 4)


@lru_cache(maxsize=1)  # it is the same for 24 seconds
def _base30(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 30)
        digits = _DIGITS[digit] + digits
    return digits


def _five_digits(number: int) -> str:
    """A number below 30**5 in base 30, with leading zeros."""
    number, last = divmod(number, 900)
    first, middle = divmod(number, 900)
    return _DIGITS[first] + _PAIRS[middle] + _PAIRS[last]
