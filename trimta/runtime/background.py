"""A service that runs beside a block of code, in a nursery of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@asynccontextmanager
async def background(service: Callable[..., Awaitable[object]], *arguments: object) -> AsyncGenerator[None, None]:
    """Start a service, run the block, and cancel the service at the end.  It takes `task_status`."""
    async with trio.open_nursery() as nursery:
        await nursery.start(service, *arguments)
        yield
        nursery.cancel_scope.cancel()
