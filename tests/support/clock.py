"""A wall clock for tests under MockClock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


def mock_wall(epoch: float = 1_700_000_000.0) -> Callable[[], float]:
    """A wall clock that follows Trio's own."""
    return lambda: epoch + trio.current_time()
