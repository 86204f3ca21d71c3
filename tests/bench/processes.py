"""Programs that run as long as a block does, and what their process trees cost, from /proc."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PATIENCE: Final = 30.0
"""Seconds for a program to start or to end."""

MB: Final = 1_000_000

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")
_SYSTEM: Final = ("/usr/sbin", "/sbin", "/usr/lib/postfix/sbin")


class UnavailableError(Exception):
    """A program or a server that is not here, with the reason; what is measured of it is left out."""


def program(name: str) -> str:
    """The path of a program of this machine.  Raises UnavailableError."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM]))
    if path is None:
        raise UnavailableError(f"{name} is not installed")
    return path


class Command:
    """A program in a process group of its own, which gets SIGTERM at the end of the block, and SIGKILL if need be."""

    def __init__(self, *command: str, log: Path) -> None:
        self._command = command
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):  # what it started and left
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The process id; also that of the group."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """True when the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a process tree, in octets."""

    resident: int
    """Pages in memory (RSS), those that processes share counted in each."""
    proportional: int
    """The same with shared pages divided among those who share them (PSS); RSS where that can't be read."""


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """A process with all its descendants."""

    pid: int

    def processor_time(self) -> float:
        """Seconds of processor time used up to now, also by children that have ended and were waited for."""
        return sum(_processor_time(pid) for pid in self.pids())

    def memory(self) -> Memory:
        """The memory in use at this moment."""
        parts = [_memory(pid) for pid in self.pids()]
        return Memory(sum(part.resident for part in parts), sum(part.proportional for part in parts))

    def pids(self) -> list[int]:
        """The process ids, the root first."""
        children = defaultdict(list)
        for pid, parent in _parents():
            children[parent].append(pid)
        pids = [self.pid]
        for pid in pids:  # grows while it is walked
            pids.extend(children[pid])
        return pids


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir(_PROC):
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            yield int(entry.name), int(fields[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, from the state on (proc(5)); none if the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _processor_time(pid: int) -> float:
    return sum(map(int, _stat(pid)[11:15])) / _TICKS  # utime, stime, cutime, cstime


def _memory(pid: int) -> Memory:
    try:
        resident = _kilobytes(_PROC / str(pid) / "status", "VmRSS")
    except (FileNotFoundError, ProcessLookupError):
        return Memory(0, 0)
    try:
        return Memory(resident, _kilobytes(_PROC / str(pid) / "smaps_rollup", "Pss"))
    except OSError:
        return Memory(resident, resident)


def _kilobytes(path: Path, name: str) -> int:
    """The octets that a line of a file in /proc tells in kB; 0 where there is no such line."""
    line = re.search(rf"^{name}:\s*(\d+) kB", path.read_text(), re.MULTILINE)
    return int(line[1]) * 1024 if line else 0
