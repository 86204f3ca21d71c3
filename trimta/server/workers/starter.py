"""The starter of worker processes: a process that has loaded the program, and forks a worker whenever it is asked.

    first process ── asks, with a worker's descriptors ──>  starter ── fork ──> worker
                  <── "started" and "ended", with ids ──

A process with threads, as the first one has, can't fork safely; and a new Python could be another version by then, or
be kept from its files once the rights of root are given up.  So the starter is begun before that, gives them up as the
first process does, starts no thread, and ends when the first process does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trimta.runtime import garbage, privileges

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

STARTED: Final = 1
ENDED: Final = 2

DESCRIPTORS: Final = 3
"""Descriptors that a worker is given: its channel, the way on which connections are handed over, the shared page."""

_REPORT: Final = struct.Struct(">Bii")
"""STARTED or ENDED; the worker's process id, or for one that could not be started the error's number, negative; and
its return code, or 0.
"""

_PROGRAM: Final = (
    "import gc, sys; gc.disable(); sys.path[:] = {path!r}; from trimta.server.workers.starter import main; main()"
)


class StarterGoneError(Exception):
    """The starter has ended: no worker can be started any more."""


class WorkerStarter:
    """The starter, as the first process of the server sees it."""

    def __init__(self, process: trio.Process, way: socket.socket) -> None:
        self._process = process
        self._way = way
        way.setblocking(False)
        self._started: list[int] = []
        self._ended: dict[int, int] = {}
        """Return codes of workers that have ended, by process id."""
        self._starting = trio.Lock()
        self._reading: trio.Event | None = None
        """Set once the task that reads has read a report; None if no task reads."""

    async def start(self, *descriptors: int) -> int:
        """Fork a worker with copies of these descriptors; returns its process id.  StarterGoneError; OSError if
        the system has no room for a process.
        """
        async with self._starting:  # else a report could be taken for that of another worker
            try:
                socket.send_fds(self._way, [b"w"], descriptors)
            except OSError as error:
                raise StarterGoneError("the starter has ended") from error
            while not self._started:
                await self._read()
            pid = self._started.pop(0)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    async def ended(self, pid: int) -> int:
        """Wait for a worker's end: its return code, as `subprocess` has it.  StarterGoneError."""
        while pid not in self._ended:
            await self._read()
        return self._ended.pop(pid)

    async def _read(self) -> None:
        """Read one report, or wait until another task has read one."""
        if self._reading is not None:
            await self._reading.wait()
            return
        self._reading = has_read = trio.Event()
        try:
            octets = await self._next_report()
        finally:  # also when cancelled: then another task is to read
            self._reading = None
            has_read.set()
        if not octets:
            raise StarterGoneError("the starter has ended")
        kind, pid, code = _REPORT.unpack(octets)
        if kind == STARTED:
            self._started.append(pid)
        else:
            self._ended[pid] = code

    async def _next_report(self) -> bytes:
        """The next report; empty if the starter has ended."""
        while True:
            try:
                return self._way.recv(_REPORT.size, socket.MSG_WAITALL)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._way)
            except OSError:
                return b""

    async def aclose(self) -> None:
        """Have the starter end, and wait for that."""
        with suppress(OSError):  # it has gone
            self._way.shutdown(socket.SHUT_RDWR)  # closing is not enough where a forked child has a copy
        self._way.close()
        with trio.CancelScope(shield=True):  # it does nothing else by then
            await self._process.wait()


async def begin(user: str, cleanup: AsyncExitStack) -> WorkerStarter:
    """Begin a starter, which becomes the account `user` if this process is root's; `cleanup` ends it."""
    ours, theirs = socket.socketpair()
    with theirs:
        arguments = [str(theirs.fileno()), user if privileges.is_root() else ""]
        command = [sys.executable, "-c", _PROGRAM.format(path=sys.path), *arguments]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    starter = WorkerStarter(process, ours)
    cleanup.push_async_callback(starter.aclose)
    return starter


def main() -> None:
    """Run a starter, or, in the processes that it forks, a worker.  The program's arguments are the starter's
    descriptor and the account to become.
    """
    from trimta.server.workers import worker_main  # what is loaded here, no worker has to load

    # Signals of a terminal, or of a service manager, go to all processes: it is the first that obeys them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.argv[2]:
        privileges.become(sys.argv[2], [])
    garbage.settle()  # memory that is shared with all workers stays so
    ending, ended = socket.socketpair()
    for end in (ending, ended):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ending.fileno())
    with socket.socket(fileno=int(sys.argv[1])) as way, ending, ended:
        descriptors = _fork_workers(way, ended)
        signal.set_wakeup_fd(-1)
    if descriptors is not None:
        worker_main.run(*descriptors)


def _fork_workers(way: socket.socket, ended: socket.socket) -> list[int] | None:
    """Fork workers until the first process ends: None.  In a worker, its descriptors.

    `ended` can be read once a worker has ended.
    """
    while True:
        readable, _, _ = select.select([way, ended], [], [])
        if ended in readable:
            ended.recv(4096)
        _report_ended(way)
        if way not in readable:
            continue
        try:
            octets, descriptors, _, _ = socket.recv_fds(way, 1, DESCRIPTORS)
        except ConnectionResetError:  # the first process has gone, and has not read all reports
            return None
        if not octets:
            return None
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            return descriptors
        for descriptor in descriptors:
            os.close(descriptor)
        _report(way, STARTED, pid)


def _report_ended(way: socket.socket) -> None:
    with suppress(ChildProcessError):  # there are none
        while (status := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            _report(way, ENDED, status[0], os.waitstatus_to_exitcode(status[1]))


def _report(way: socket.socket, kind: int, pid: int, code: int = 0) -> None:
    with suppress(OSError):  # the first process has gone: that is heard of in a moment
        way.sendall(_REPORT.pack(kind, pid, code))
