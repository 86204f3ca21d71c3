"""Ids of messages: each message has an id of its own, from acceptance to its last delivery."""

from __future__ import annotations

import secrets
import threading
from typing import Final

from trimta import real_time

_DIGITS: Final = "0123456789bcdfghjkmnpqrstvwxyz"  # no vowels: no words; no l: it looks like 1


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
    return _base30(_microseconds.next()).rjust(11, "0") + _base30(secrets.randbits(20)).rjust(5, "0")


def _base30(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
