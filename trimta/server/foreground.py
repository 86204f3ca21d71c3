"""The process of `trimta serve`: a server in the foreground, its log on standard error, and its signals."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import trio

from trimta.inbound.listener import RESERVED, raise_descriptor_limit
from trimta.runtime import garbage
from trimta.runtime.background import background
from trimta.runtime.events import as_json, as_text
from trimta.runtime.log_writer import LogWriter
from trimta.server.mta_server import CROWD_MARGIN, MtaServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trimta.config.model import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of `trimta serve` that are not part of the configuration."""

    time_scale: float = 1.0
    json_log: bool = False
    load: Callable[[], Configuration] | None = None
    """A function that reads the configuration again, at SIGHUP; if it raises, the present configuration stays."""


def run(config: Configuration, options: ServeOptions, stderr: TextIO) -> None:
    """Run a server until SIGTERM or SIGINT.  Raises StartError if it can't start."""
    # A session may have a spool file open beside its socket, and so may a delivery.
    raise_descriptor_limit(2 * (config.limits.connections + CROWD_MARGIN + config.queue.concurrency) + RESERVED)
    trio.run(_main, config, options, stderr)


async def _main(config: Configuration, options: ServeOptions, stderr: TextIO) -> None:
    # Before the start: a program that sees the banner may send a signal at once.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        async with AsyncExitStack() as cleanup:
            await _serve(config, options, stderr, received, cleanup)


async def _serve(
    config: Configuration, options: ServeOptions, stderr: TextIO, received: AsyncIterator[int], cleanup: AsyncExitStack
) -> None:
    server = await MtaServer.start(config, cleanup, time_scale=options.time_scale)
    garbage.settle()
    print(*server.banner(), sep="\n", file=stderr, flush=True)
    log = LogWriter(stderr, as_json if options.json_log else as_text)
    server.mta.events.subscribe(log)
    async with background(log.serve), trio.open_nursery() as nursery:
        await nursery.start(server.run)
        nursery.start_soon(_obey, server, received, options.load)
        await server.ended.wait()
        nursery.cancel_scope.cancel()


async def _obey(server: MtaServer, signals: AsyncIterator[int], load: Callable[[], Configuration] | None) -> None:
    """Stop the server at SIGTERM and SIGINT, and reload its configuration at SIGHUP."""
    ask, asked = trio.open_memory_channel[None](1)
    async with trio.open_nursery() as nursery:
        if load is not None:
            nursery.start_soon(_reload, server, asked, load)
        async for number in signals:
            if number != signal.SIGHUP:
                server.stop()
            else:
                with suppress(trio.WouldBlock):  # the reload that waits will see this change, too
                    ask.send_nowait(None)


async def _reload(server: MtaServer, asked: AsyncIterator[None], load: Callable[[], Configuration]) -> None:
    """Reload the configuration whenever that is asked for; in a task of its own, since a disk may hang."""
    async for _ in asked:
        await server.reload(load)
