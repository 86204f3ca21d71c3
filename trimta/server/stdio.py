"""A single SMTP session on standard input and output (`sendmail -bs`), without a server.

Accepted messages are as durable as with a server: local copies are in their Maildirs, all else is in the queue, which
the running server, or the next one, sends.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from trimta.config.model import ListenSection
from trimta.control import asking
from trimta.inbound.client_address import UNIX, ClientAddress
from trimta.outbound.transports.client_settings import TlsContexts
from trimta.runtime.background import background
from trimta.runtime.disk import ThreadDisk
from trimta.runtime.queue_clock import QueueClock
from trimta.runtime.wire import Wire
from trimta.server.wiring import Mta
from trimta.smtp.server_settings import AuthPolicy
from trimta.store.queue.meta import CLOCK_OFFSET, TIME_SCALE

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.config.model import Configuration
    from trimta.runtime.disk import Disk
    from trimta.store.queue.queue import Queue

STANDARD_INPUT: Final = 0
STANDARD_OUTPUT: Final = 1


class _Notifier:
    """Tells the running server that the queue has changed, in a task of its own."""

    def __init__(self, data_dir: Path, disk: Disk) -> None:
        self._data_dir = data_dir
        self._disk = disk
        self._unsaid = trio.Event()

    def wake(self) -> None:
        """Note that the queue has changed."""
        self._unsaid.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell the server of changes until cancelled, and then of those that it was not told of yet."""
        task_status.started()
        try:
            while True:
                await self._unsaid.wait()
                self._unsaid = trio.Event()
                await self._tell()
        finally:
            if self._unsaid.is_set():
                # Else the last message would wait until the server next looks at the queue.  asking.tell has a timeout.
                with trio.CancelScope(shield=True):
                    await self._tell()

    async def _tell(self) -> None:
        await self._disk.run(asking.tell, self._data_dir, {"command": "wake"})


class _Output(trio.abc.SendStream):
    """Standard output, with the error by which it failed."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, OSError):
                self.failure = error.__cause__
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def converse(config: Configuration, queue: Queue) -> OSError | None:
    """Speak SMTP with the program that started this process, until one side ends the session.

    Returns the error by which standard output failed; None if all replies were written.
    """
    disk = ThreadDisk()
    notifier = _Notifier(config.data_dir, disk)
    mta = Mta(
        config,
        queue,
        disk,
        clock=QueueClock(offset=float(queue.meta.get(CLOCK_OFFSET) or 0.0)),
        client_tls=await trio.to_thread.run_sync(TlsContexts.load, config.tls.ca),
        time_scale=float(queue.meta.get(TIME_SCALE) or 1.0),
        wake=notifier.wake,
    )
    # Duplicates, since closing them makes both descriptors blocking again.  The input's is made first and closed last.
    receiving = trio.lowlevel.FdStream(os.dup(STANDARD_INPUT))
    sending = _Output(trio.lowlevel.FdStream(os.dup(STANDARD_OUTPUT)))
    wire = Wire(trio.StapledStream(sending, receiving))
    async with background(mta.serve_batches), background(mta.message_log.serve), background(notifier.run):
        await mta.session(ListenSection(auth=AuthPolicy.NONE), wire, ClientAddress(UNIX)).run()
    return sending.failure
