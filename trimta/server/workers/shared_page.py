"""The shared page: what every process of a server must see at once, in memory that all of them have mapped.

    octets 0 to 7   seconds that the queue's clock is ahead of the machine's, a double in native order
    octet 8         the stages at which a scripted fault may strike, one bit each

Only the first process writes.  A message on a channel would come too late: a client may go on the moment after
`trimta fault add` or `trimta time advance` has returned.
"""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING, Final, Self

from trimta.config.model import FaultStage
from trimta.runtime.queue_clock import QueueClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIZE: Final = mmap.PAGESIZE
_STAGES: Final = 8
_BITS: Final = {stage: 1 << number for number, stage in enumerate(FaultStage)}


class SharedPage:
    """The page, mapped in this process."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is of the file that `shared_file` made; it is no longer needed afterwards."""
        self._memory: mmap.mmap | bytearray = mmap.mmap(descriptor, SIZE)
        self.clock_offset = _offset_in(self._memory)
        """One number: the seconds that the queue's clock is ahead of the machine's."""

    def has_faults(self, stage: FaultStage) -> bool:
        """Whether a scripted fault may strike at a stage."""
        return bool(self._memory[_STAGES] & _BITS[stage])

    def close(self) -> None:
        """Unmap the page, which gives its descriptor back.  What it showed last can still be read."""
        memory = self._memory
        if isinstance(memory, mmap.mmap):
            self._memory = bytearray(memory[: _STAGES + 1])
            self.clock_offset.release()
            self.clock_offset = _offset_in(self._memory)
            memory.close()

    def note_faults(self, stages: Iterable[FaultStage]) -> None:
        """Note the stages at which a scripted fault may strike."""
        self._memory[_STAGES] = sum(_BITS[stage] for stage in frozenset(stages))


def _offset_in(memory: mmap.mmap | bytearray) -> memoryview[float]:
    with memoryview(memory) as whole:
        return whole[:_STAGES].cast("d")


class SharedFile:
    """The file behind a shared page, which has no name: other processes get its descriptor."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._file.truncate(SIZE)
        self.page = SharedPage(self._file.fileno())

    @property
    def descriptor(self) -> int:
        """The file's descriptor in this process."""
        return self._file.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        self._file.close()


class SharedClock(QueueClock):
    """The queue's clock, whose offset is in the shared page."""

    def __init__(self, page: SharedPage, *, wall: Callable[[], float], offset: float | None = None) -> None:
        """`offset` is that of the start, given by the first process."""
        self._page = page
        super().__init__(offset=page.clock_offset[0] if offset is None else offset, wall=wall)

    def now(self) -> float:  # called for each line of a dialogue: without a property
        return self._wall() + self._page.clock_offset[0]

    @property
    def offset(self) -> float:
        """Seconds that this clock is ahead of the wall's."""
        return self._page.clock_offset[0]

    @offset.setter
    def offset(self, seconds: float) -> None:
        self._page.clock_offset[0] = seconds
