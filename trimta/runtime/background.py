"""A background service: a task that runs as long as a block of code, in a nursery of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@asynccontextmanager
async def background(service: Callable[..., Awaitable[object]], *arguments: object) -> AsyncGenerator[None, None]:
    """Start `service(*arguments)`, run the block, and cancel the service at the block's end.

    The service is an asynchronous function that takes `task_status`, as `trio.Nursery.start` asks.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(service, *arguments)
        yield
        nursery.cancel_scope.cancel()
