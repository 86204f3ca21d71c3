"""What `trimta serve` runs: a server, its log on standard error, and signals."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import trio

from trimta.inbound.listener import RESERVED, raise_descriptor_limit
from trimta.runtime.background import background
from trimta.runtime.events import as_json, as_text
from trimta.runtime.log_writer import LogWriter
from trimta.server.mta_server import CROWD_MARGIN, MtaServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trimta.config.model import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How `trimta serve` was called."""

    time_scale: float = 1.0
    json_log: bool = False
    load: Callable[[], Configuration] | None = None
    """Reads the configuration again, for SIGHUP; what it raises is reported, and the old one stays."""


def run(config: Configuration, options: Options, stderr: TextIO) -> None:
    """Serve until SIGTERM or SIGINT.  StartError if that can't begin."""
    # A session may have a body on disk open besides its socket, and so may a delivery.
    raise_descriptor_limit(2 * (config.limits.connections + CROWD_MARGIN + config.queue.concurrency) + RESERVED)
    trio.run(_main, config, options, stderr)


async def _main(config: Configuration, options: Options, stderr: TextIO) -> None:
    # From the beginning: a program that sees the banner may send a signal at once.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        async with AsyncExitStack() as cleanup:
            await _serve(config, options, stderr, received, cleanup)


async def _serve(
    config: Configuration, options: Options, stderr: TextIO, received: AsyncIterator[int], cleanup: AsyncExitStack
) -> None:
    server = await MtaServer.start(config, cleanup, time_scale=options.time_scale)
    print(*server.banner(), sep="\n", file=stderr, flush=True)
    log = LogWriter(stderr, as_json if options.json_log else as_text)
    server.mta.events.subscribe(log)
    async with background(log.serve), trio.open_nursery() as nursery:
        await nursery.start(server.run)
        nursery.start_soon(_obey, server, received, options.load)
        await server.ended.wait()
        nursery.cancel_scope.cancel()


async def _obey(server: MtaServer, signals: AsyncIterator[int], load: Callable[[], Configuration] | None) -> None:
    """Do what signals say."""
    async for number in signals:
        if number != signal.SIGHUP:
            server.stop()
        elif load is not None:
            await server.reload(load)
