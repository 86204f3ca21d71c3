"""What all tests with real processes share."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

TEST_DEADLINE: Final = 60
"""Seconds for one test; those that take the longest need five."""


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Nothing that another program does, or leaves undone, keeps the test run."""

    def expired(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {TEST_DEADLINE} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_DEADLINE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
