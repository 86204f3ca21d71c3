"""A disk that hangs: nobody waits for it beyond their limit, and what is said of it is true."""

from __future__ import annotations

import os
import threading
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.receiving import configuration, record
from trimta.mta import session
from trimta.mta.serve import Server
from trimta.store import durable
from trimta.store.spool import MEMORY_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

HANGS = 30.0
"""Far beyond any limit of these tests: whoever waits for it is seen."""


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every fsync of a file hangs; the event is set once one does."""
    hung, freed = threading.Event(), threading.Event()
    fsync = os.fsync

    def hang(fd: int) -> None:
        hung.set()
        freed.wait(HANGS)
        fsync(fd)

    monkeypatch.setattr(durable, "fsync", hang)
    try:
        yield hung
    finally:
        freed.set()


@asynccontextmanager
async def served(folder: Path, text: str = "") -> AsyncGenerator[Server, None]:
    with trio.fail_after(HANGS / 3):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await Server.start(configuration(folder, text), cleanup)
            await nursery.start(server.run)
            yield server
            nursery.cancel_scope.cancel()


async def sent(server: Server, content: bytes) -> trio.SocketStream:
    """A connection over which a whole message was sent, for somebody local and somebody far."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.site.bound[0].sockets[0].socket.getsockname()[1])
    recipients = b"".join(b"RCPT TO:<%s>\r\n" % name for name in (b"alice@dev.test", b"bob@far.test"))
    await stream.send_all(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n" + recipients + b"DATA\r\n" + content + b".\r\n")
    return stream


@pytest.mark.parametrize("size", [100, MEMORY_LIMIT + 1], ids=["in memory", "spooled"])
async def test_the_limit_of_taking_a_message_over_holds(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ACKNOWLEDGE_LIMIT", 0.3)
    line = b"x" * 70 + b"\r\n"
    async with served(tmp_path) as server:
        told = record(server.site)
        with hanging(monkeypatch):
            stream = await sent(server, line * (size // len(line) + 1))
            received = bytearray()
            while chunk := await stream.receive_some():
                received += chunk
            assert b"250 2.6.0" not in received, "nothing is acknowledged that is not done"
            await stream.aclose()
            troubles = [event.fields["reason"] for event in told if event.name == "disk_trouble"]
            assert [str(reason)[:20] for reason in troubles] == ["not stored within 0."]
            server.stop()
            server.stop()
            await server.ended.wait()


async def test_two_signals_end_the_server_whatever_the_disk_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as server:
        with hanging(monkeypatch) as hung:
            stream = await sent(server, b"x\r\n")
            await trio.to_thread.run_sync(hung.wait, HANGS, abandon_on_cancel=True)
            server.stop()
            server.stop()
            await server.ended.wait()
            await stream.aclose()


async def test_so_does_one_signal_once_its_grace_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, '[timeouts]\nshutdown = "1s"') as server:
        with hanging(monkeypatch) as hung:
            stream = await sent(server, b"x\r\n")
            await trio.to_thread.run_sync(hung.wait, HANGS, abandon_on_cancel=True)
            server.stop()
            await server.ended.wait()
            await stream.aclose()
