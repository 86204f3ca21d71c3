"""Durations and sizes as the commands print them for people, and JSON for programs."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any, Final

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_SIZES: Final = ("", "K", "M", "G")


def duration(seconds: float) -> str:
    """A duration in seconds as text, in two units at most, rounded: `45s`, `12m`, `3h05m`, `2d04h`."""
    for (unit, size), (below, below_size) in pairwise(_UNITS):
        whole = round(seconds / below_size) * below_size
        if whole >= size:
            rest = whole % size // below_size
            return f"{whole // size}{unit}" + (f"{rest:02}{below}" if rest else "")
    return f"{max(0, round(seconds))}s"


def octets(count: int) -> str:
    """A number of octets as text, in units of 1024: `812`, `1.4K`, `23M`."""
    amount = float(count)
    for unit in _SIZES:
        if amount < 999.5 or unit == _SIZES[-1]:
            break
        amount /= 1024
    return f"{amount:.1f}{unit}" if unit and amount < 9.95 else f"{amount:.0f}{unit}"


def print_json(document: Any) -> None:
    """Print a JSON document on one line."""
    sys.stdout.write(json.dumps(document) + "\n")
