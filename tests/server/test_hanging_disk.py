"""A disk that hangs: nobody waits for it beyond their limit, and what is said of it is true."""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.receiving import configuration, mailbox, record
from trimta.inbound import transaction
from trimta.outbound.transports import maildir_delivery
from trimta.server.mta_server import MtaServer
from trimta.store import durable, maildir
from trimta.store.queue.queue import Queue
from trimta.store.spool import INCOMING, MEMORY_LIMIT, Body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

pytestmark = pytest.mark.one_process

HANGS = 30.0
"""Far beyond any limit of these tests: whoever waits for it is seen."""


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, within: str = "/") -> Iterator[threading.Event]:
    """Every fsync of a file with this in its path hangs; the event is set once one does."""
    hung, freed = threading.Event(), threading.Event()
    fsync = os.fsync

    def hang(fd: int) -> None:
        if within in str(Path(f"/proc/self/fd/{fd}").readlink()):
            hung.set()
            freed.wait(HANGS)
        fsync(fd)

    monkeypatch.setattr(durable, "fsync", hang)
    try:
        yield hung
    finally:
        freed.set()


@asynccontextmanager
async def served(folder: Path, text: str = "") -> AsyncGenerator[MtaServer, None]:
    with trio.fail_after(HANGS / 3):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(folder, text), cleanup)
            await nursery.start(server.run)
            yield server
            nursery.cancel_scope.cancel()


BOTH = (b"alice@dev.test", b"bob@far.test")
"""Somebody local, and somebody far, who is captured."""


async def sent(server: MtaServer, content: bytes, *to: bytes) -> trio.SocketStream:
    """A connection over which a whole message was sent."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.mta.bound[0].sockets[0].socket.getsockname()[1])
    recipients = b"".join(b"RCPT TO:<%s>\r\n" % name for name in to or BOTH)
    await stream.send_all(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n" + recipients + b"DATA\r\n" + content + b".\r\n")
    return stream


async def send_again(stream: trio.SocketStream) -> None:
    recipients = b"".join(b"RCPT TO:<%s>\r\n" % name for name in BOTH)
    await stream.send_all(b"MAIL FROM:<a@b.test>\r\n" + recipients + b"DATA\r\nx\r\n.\r\n")
    await replied(stream, b"250 2.6.0")


async def ask_for_all_threads(server: MtaServer) -> None:
    """Return when every thread that was left alone has come back."""
    together = threading.Barrier(maildir_delivery.THREADS)
    for disk in (server.mta.maildirs.alone, server.mta.maildirs.batches):
        async with trio.open_nursery() as nursery:
            for _ in range(maildir_delivery.THREADS):
                nursery.start_soon(disk.run, together.wait, HANGS)


async def replied(stream: trio.SocketStream, start: bytes) -> None:
    """Wait for a reply that begins so."""
    received = bytearray()
    while not any(line.startswith(start) for line in received.split(b"\n")[:-1]):
        chunk = await stream.receive_some()
        assert chunk, f"the connection ended; {start!r} is not in {bytes(received)!r}"
        received += chunk


@pytest.mark.parametrize("size", [100, MEMORY_LIMIT * 3], ids=["in memory", "spooled"])
async def test_what_is_not_stored_in_time_is_refused_and_does_not_come_later(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "ACKNOWLEDGE_LIMIT", 0.3)
    line = b"x" * 70 + b"\r\n"
    async with served(tmp_path) as server:
        told = record(server.mta)
        with hanging(monkeypatch):
            stream = await sent(server, line * (size // len(line) + 1))
            await replied(stream, b"452 4.3.1")
            troubles = [event.fields["reason"] for event in told if event.name == "disk_trouble"]
            assert [str(reason)[:20] for reason in troubles] == ["not stored within 0."]
        # The disk is back, and what hung is done or not before what comes now.
        await stream.send_all(b"RSET\r\n")
        await replied(stream, b"250 2.0.0")
        await ask_for_all_threads(server)
        assert mailbox(tmp_path, "alice") == []
        assert mailbox(tmp_path, "remote") == []
        assert await server.mta.queue.run(lambda queue: queue.entries.count()) == 0
        assert [event.name for event in told if event.name in ("accepted", "delivered")] == []
        monkeypatch.setattr(transaction, "ACKNOWLEDGE_LIMIT", HANGS)
        await send_again(stream)
        assert len(mailbox(tmp_path, "alice")) == len(mailbox(tmp_path, "remote")) == 1
        await stream.aclose()


async def test_a_commit_that_hangs_until_its_client_was_refused_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "ACKNOWLEDGE_LIMIT", 0.3)
    async with served(tmp_path, '[routes]\n"far.test" = "hold"') as server:
        freed = threading.Event()
        accept = Queue.accept

        def hang(queue: Queue, *arguments: Any) -> Any:
            freed.wait(HANGS)
            return accept(queue, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Queue, "accept", hang)
            stream = await sent(server, b"x\r\n")
            await replied(stream, b"452 4.3.1")
            freed.set()
            assert await server.mta.queue.run(lambda queue: queue.entries.count()) == 0
        assert mailbox(tmp_path, "alice") == []
        await stream.aclose()


async def test_what_was_queued_beside_a_copy_whose_rename_hangs_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "ACKNOWLEDGE_LIMIT", 0.3)
    async with served(tmp_path, '[routes]\n"far.test" = "hold"') as server:
        told = record(server.mta)
        hung, freed, over = threading.Event(), threading.Event(), threading.Event()
        commit_all = maildir.commit_all

        def hang(pending: Any) -> Any:
            if not pending:
                return commit_all(pending)
            hung.set()
            freed.wait(HANGS)
            try:
                return commit_all(pending)
            finally:
                over.set()

        with monkeypatch.context() as patch:
            patch.setattr(maildir, "commit_all", hang)
            stream = await sent(server, b"x\r\n")
            await replied(stream, b"452 4.3.1")
            assert hung.is_set(), "the envelope for far.test had been queued"
            assert await server.mta.queue.run(lambda queue: queue.entries.count()) == 0
            freed.set()
            await trio.to_thread.run_sync(over.wait, HANGS, abandon_on_cancel=True)
        assert mailbox(tmp_path, "alice") == [], "nor does the copy become visible later"
        assert [event.name for event in told if event.name in ("accepted", "delivered")] == []
        await send_again(stream)
        assert await server.mta.queue.run(lambda queue: queue.entries.count()) == 1
        assert len(mailbox(tmp_path, "alice")) == 1
        await stream.aclose()


@pytest.mark.parametrize("size", [100, MEMORY_LIMIT * 3], ids=["in memory", "spooled"])
async def test_a_maildir_that_hangs_holds_up_its_own_mail_only(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BATCH_LIMIT", "SPOOLED_LIMIT", "ALONE_LIMIT"):
        monkeypatch.setattr(maildir_delivery, name, 1.0)
    line = b"x" * 70 + b"\r\n"
    async with served(tmp_path) as server:
        told = record(server.mta)
        with hanging(monkeypatch, within="/alice/"):
            # Far more than there are threads.
            for number in range(2 * maildir_delivery.THREADS):
                stream = await sent(server, line * (size // len(line) + 1), b"alice@dev.test", b"bob@dev.test")
                await replied(stream, b"250 2.6.0")
                await stream.aclose()
                assert len(mailbox(tmp_path, "bob")) == number + 1, "before the 250"
                assert mailbox(tmp_path, "alice") == []
            assert await server.mta.queue.run(lambda queue: queue.entries.count()) == 2 * maildir_delivery.THREADS
        deferred = [str(event.fields["reply"]) for event in told if event.name == "deferred"]
        assert len(deferred) == 2 * maildir_delivery.THREADS
        assert deferred[0].endswith("no answer within 1 s")
        assert deferred[-1].endswith("it has not answered for a while")
        await ask_for_all_threads(server)
        monkeypatch.setattr(maildir_delivery, "ALONE_LIMIT", HANGS)
        stream = await sent(server, b"the disk is back\r\n", b"alice@dev.test")
        await replied(stream, b"250 2.6.0")
        await stream.aclose()
        assert len(mailbox(tmp_path, "alice")) == 1, "and nothing of what is queued"


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


@pytest.mark.parametrize("route", ["pipe:/bin/cat", "smtp:127.0.0.1:{port}"])
async def test_nor_does_a_delivery_that_reads_from_it(
    route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, freed = threading.Event(), threading.Event()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def next_hop(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"220 there\r\n")
            while await stream.receive_some():
                await stream.send_all(b"250 ok\r\n")

    def hang(body: Body, size: int = 0) -> Iterator[bytes]:
        if body.path is not None and not body.path.name.startswith(INCOMING):  # in the queue
            hung.set()
            freed.wait(HANGS)
        yield from chunks(body)

    chunks = Body.chunks
    text = f'[routes]\n"far.test" = "{route.format(port=listener.socket.getsockname()[1])}"'
    async with trio.open_nursery() as hops:
        hops.start_soon(trio.serve_listeners, next_hop, [listener])
        async with served(tmp_path, text) as server:
            monkeypatch.setattr(Body, "chunks", hang)
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(freed.set)
                stream = await sent(server, b"x" * 70 + b"\r\n" * MEMORY_LIMIT, b"bob@far.test")
                await trio.to_thread.run_sync(hung.wait, HANGS, abandon_on_cancel=True)
                server.stop()
                server.stop()
                await server.ended.wait()
                await stream.aclose()
        hops.cancel_scope.cancel()


async def test_so_does_one_signal_once_its_grace_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, '[timeouts]\nshutdown = "1s"') as server:
        with hanging(monkeypatch) as hung:
            stream = await sent(server, b"x\r\n")
            await trio.to_thread.run_sync(hung.wait, HANGS, abandon_on_cancel=True)
            server.stop()
            await server.ended.wait()
            await stream.aclose()
