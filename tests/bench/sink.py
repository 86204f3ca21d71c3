"""The next hop: Postfix's smtp-sink, which takes everything and counts it."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Final

from tests.bench.processes import Command, program
from tests.support.software import free_port

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE: Final = 120.0
"""Seconds without an arrival after which a message counts as lost."""

POLL: Final = 0.004
"""Seconds between two looks at the sink's count."""

BACKLOG: Final = 1_000
"""Connections that may wait to be accepted."""

_TAIL: Final = 128
_COUNT: Final = re.compile(rb"mesg=(\d+)\r")


class Sink(Command):
    """A sink on a free port of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__(
            program("smtp-sink"), "-c", *user, f"127.0.0.1:{self.port}", str(BACKLOG), log=folder / "sink.log"
        )

    @property
    def count(self) -> int:
        """The messages that came since the start."""
        with self.log.open("rb") as counters:
            counters.seek(max(0, counters.seek(0, os.SEEK_END) - _TAIL))
            counts = _COUNT.findall(counters.read())
        return int(counts[-1]) if counts else 0

    def wait(self, count: int) -> float:
        """Wait until this many messages came since the start; returns the moment, as time.perf_counter tells it."""
        last, give_up = -1, 0.0
        while (now := self.count) < count:
            if now != last:
                last, give_up = now, time.monotonic() + PATIENCE
            elif time.monotonic() > give_up:
                raise RuntimeError(f"only {now} of {count} messages came to the sink")
            time.sleep(POLL)
        return time.perf_counter()
