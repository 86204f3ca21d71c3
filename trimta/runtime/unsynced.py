"""The log of file systems whose folders can't be synced, each of them once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trimta.store import durable

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.runtime.events import Events


async def tell_of_unsynced(events: Events, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Log each file system whose folders can't be synced, once, until cancelled."""
    loop = trio.lowlevel.current_trio_token()

    def tell(folder: Path, cause: OSError) -> None:  # called in any thread
        reason = f"{cause.strerror}: a power failure may lose new files on this file system"
        with suppress(trio.RunFinishedError):
            loop.run_sync_soon(lambda: events.emit("folders_not_synced", folder=str(folder), reason=reason))

    forget = durable.on_unsynced(tell)
    task_status.started()
    try:
        await trio.sleep_forever()
    finally:
        forget()
