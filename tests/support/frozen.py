"""The libraries that freeze or move the time that a test sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

freezegun: Final = pytest.importorskip("freezegun")
time_machine: Final = pytest.importorskip("time_machine")


def freezegun_at(moment: str) -> AbstractContextManager[object]:
    """Time as freezegun stops it."""
    frozen: AbstractContextManager[object] = freezegun.freeze_time(moment)
    return frozen


def time_machine_at(moment: str) -> AbstractContextManager[object]:
    """Time as time-machine stops it."""
    frozen: AbstractContextManager[object] = time_machine.travel(moment, tick=False)
    return frozen


Freeze: TypeAlias = "Callable[[str], AbstractContextManager[object]]"

each_library = pytest.mark.parametrize("freeze", [freezegun_at, time_machine_at], ids=["freezegun", "time-machine"])
"""For a test with an argument `freeze`: a function of a moment such as "2012-01-01"."""

PAST: Final = "2012-01-01"
FUTURE: Final = "2040-01-01"
