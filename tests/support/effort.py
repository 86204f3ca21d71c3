"""Effort that grows with the input, not with its square."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Final = 20.0
"""Seconds of this thread's own processor time: an input of megabytes takes a fraction of one in linear time, on any
machine, and hours in quadratic time.
"""


@contextmanager
def bounded_effort() -> Iterator[None]:
    """Fails if the block took quadratic effort; how busy the machine is does not matter."""
    start = time.thread_time()
    yield
    assert time.thread_time() - start < LIMIT
