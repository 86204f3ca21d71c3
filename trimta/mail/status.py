"""Enhanced mail system status codes (RFC 3463)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

_SYNTAX: Final = re.compile(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class EnhancedStatus:
    """class.subject.detail: `EnhancedStatus(5, 1, 1)` is written 5.1.1."""

    klass: int
    subject: int
    detail: int

    def __post_init__(self) -> None:
        if self.klass not in (2, 4, 5) or not (0 <= self.subject <= 999 and 0 <= self.detail <= 999):
            raise ValueError(f"not an enhanced status code: {self}")

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"

    @classmethod
    @lru_cache(maxsize=1024)  # every reply has one, and there are few
    def parse(cls, text: str) -> Self:
        """Read "5.1.1"; ValueError for anything else."""
        found = _SYNTAX.fullmatch(text)
        if found is None:
            raise ValueError(f"not an enhanced status code: {text!r}")
        return cls(*(int(part) for part in found.groups()))
