"""A deadline on every test, whatever it hangs in: its fixtures, a thread that it joins, an event loop."""

from __future__ import annotations

import faulthandler
import signal
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

LIMIT: Final = 120.0
"""Seconds for one test with its fixtures, on a machine with much else to do; those that take the longest need ten."""

AGAIN: Final = 5.0
"""Seconds after which it is said again: what was raised the first time may have been caught."""


class DeadlineError(Exception):
    """A test has taken too long."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Raise DeadlineError in the main thread of a test that takes longer than its limit; `@pytest.mark.deadline(s)` is
    for one that may take longer, or less.
    """
    mark = item.get_closest_marker("deadline")
    limit = LIMIT if mark is None else float(mark.args[0])

    def expired(_: int, __: FrameType | None) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        raise DeadlineError(f"the test took longer than {limit:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, limit, AGAIN)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
