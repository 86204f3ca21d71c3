"""Time that no test library freezes or moves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.frozen import FUTURE, PAST, each_library
from trimta import real_time

if TYPE_CHECKING:
    from tests.support.frozen import Freeze

MOMENT = 2.0
"""Seconds that the same thing, asked twice, may differ by."""


def test_it_is_the_time_of_the_system() -> None:
    assert abs(real_time.wall() - time.time()) < MOMENT
    assert abs(real_time.now().timestamp() - time.time()) < MOMENT
    assert abs(real_time.monotonic() - time.monotonic()) < MOMENT


@pytest.mark.parametrize("moment", [PAST, FUTURE])
@each_library
def test_it_passes_while_python_s_own_is_frozen(freeze: Freeze, moment: str) -> None:
    wall, monotonic = real_time.wall(), real_time.monotonic()
    with freeze(moment):
        assert abs(time.time() - wall) > MOMENT
        before = real_time.monotonic()
        while real_time.monotonic() == before:  # bounded by the test's deadline
            pass
        assert 0 <= real_time.wall() - wall < MOMENT
        assert 0 <= real_time.now().timestamp() - wall < MOMENT
        assert 0 < real_time.monotonic() - monotonic < MOMENT


def test_without_linux_s_clocks_it_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_time, "_HAS_TAI", False)
    assert abs(real_time.wall() - time.time()) < MOMENT
