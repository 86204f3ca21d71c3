"""How the block ends: errors inside the server are raised, what is left is found, and the block's own end is kept."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trimta.control import socket_path
from trimta.inbound import vrfy_expn_etrn
from trimta.outbound.scheduler import Scheduler
from trimta.outbound.transports.client_conversation import ClientConversation
from trimta.outbound.transports.connection import SmtpConnection
from trimta.runtime.connected_socket import ConnectedSocket
from trimta.runtime.wire import Wire
from trimta.store.lock import DataDirLock
from trimta.store.spool import SpoolWriter
from trimta.testing import LeftBehindError, Server, open_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DEADLINE = 20.0


class Bug(Exception):  # noqa: N818
    """What no programmer has thought of."""


def broken(*_: object, **__: object) -> None:
    raise Bug("here")


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vrfy_expn_etrn, "vrfy", broken)


async def say(server: Server, line: bytes) -> bytes:
    """Say one thing, hear everything until the end."""
    with trio.fail_after(DEADLINE):
        async with await trio.open_tcp_stream(server.host, server.port) as stream:
            await stream.receive_some()
            await stream.send_all(line)
            return b"".join([bytes(chunk) async for chunk in stream])


# Errors inside.


@pytest.mark.one_process
async def test_an_error_in_a_session_is_raised_with_its_own_traceback(bug: None) -> None:
    with pytest.raises(Bug) as caught:
        async with open_server() as server:
            await say(server, b"VRFY alice\r\n")
    assert caught.traceback[-1].name == "broken"


@pytest.mark.one_process
async def test_several_are_raised_together(bug: None) -> None:
    with pytest.RaisesGroup(Bug, Bug):
        async with open_server() as server:
            await say(server, b"VRFY alice\r\n")
            await say(server, b"VRFY bob\r\n")


@pytest.mark.one_process
async def test_check_raises_it_at_once_and_only_once(bug: None) -> None:
    async with open_server() as server:
        server.check()
        await say(server, b"VRFY alice\r\n")
        with pytest.raises(Bug):
            server.check()


@pytest.mark.one_process
async def test_the_error_inside_comes_before_what_it_did_to_the_block(bug: None) -> None:
    with pytest.raises(Bug) as caught:
        async with open_server() as server:
            assert b"252" in await say(server, b"VRFY alice\r\n")
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_an_error_that_ends_the_server_ends_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    async def collapse(*_: object) -> float:
        raise Bug("here")

    async def wait() -> None:
        async with open_server() as server:
            monkeypatch.setattr(Scheduler, "_look", collapse)
            server.queue.retry()
            await trio.sleep(DEADLINE)

    with pytest.raises(Bug) as caught:
        await wait()
    assert caught.traceback[-1].name == "collapse"


# The block's own end.


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("x", [ValueError("y")]), KeyboardInterrupt()])
async def test_what_the_block_raises_comes_out_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_server():
            raise error
    assert caught.value is error


async def test_a_block_may_be_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with open_server():
            scope.cancel()
            await trio.lowlevel.checkpoint()
            raise AssertionError("not cancelled")
    assert scope.cancelled_caught


@pytest.mark.one_process
async def test_an_error_inside_is_not_lost_with_a_cancelled_block(bug: None) -> None:
    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            async with open_server() as server:
                await say(server, b"VRFY alice\r\n")
                scope.cancel()
                await trio.lowlevel.checkpoint()

    with pytest.raises(Bug):
        await cancelled()


# What is left.


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def descriptors() -> int:
    return len(names_in(Path("/proc/self/fd")))


async def test_nothing_is_left_also_of_sessions_that_the_test_did_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = descriptors()
    clients = []
    with trio.fail_after(DEADLINE):
        async with open_server() as server:
            for octets in (b"", b"EHLO me\r\n", b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@dev.test>\r\nDATA\r\nabc"):
                stream = await trio.open_tcp_stream(server.host, server.port)
                await stream.send_all(octets)
                await stream.receive_some()
                clients.append(stream)
    for client in clients:  # open still: they are the test's own
        await client.aclose()
    assert names_in(tmp_path) == []
    assert descriptors() == opened


async def leave_a_half_written_copy(server: Server, _: pytest.MonkeyPatch) -> None:
    maildir = server.maildir("alice")
    for folder in ("new", "tmp"):
        (maildir / folder).mkdir(parents=True)
    (maildir / "tmp" / f"1.M2P{os.getpid()}Q3.host").touch()


async def leave_a_spool_file(server: Server, _: pytest.MonkeyPatch) -> None:
    writer = SpoolWriter(server.data_dir / "spool", threshold=1)
    writer.append(b"abc")
    writer.finish()


OPENED: list[int] = []


async def leave_a_file_open(server: Server, _: pytest.MonkeyPatch) -> None:
    OPENED.append(os.open(server.data_dir / "file", os.O_CREAT | os.O_RDWR))


async def leave_a_listener_open(server: Server, _: pytest.MonkeyPatch) -> None:
    OPENED.extend(os.dup(int(fd)) for fd in names_in(Path("/proc/self/fd")) if is_at(int(fd), server.port))


def is_at(fd: int, port: int) -> bool:
    path = Path(f"/proc/self/fd/{fd}")
    if not path.exists() or not str(path.readlink()).startswith("socket:"):
        return False
    with socket.socket(fileno=os.dup(fd)) as found:
        return bool(found.getsockname()[1:2] == (port,))


KEPT: list[object] = []


async def leave_a_session_open(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(wire: Wire) -> bool:
        KEPT.append(wire)
        return True

    monkeypatch.setattr(Wire, "close_now", forget)
    async with await trio.open_tcp_stream(server.host, server.port) as stream:
        await stream.receive_some()


async def leave_a_connection_open(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(connection: SmtpConnection) -> None:
        KEPT.append(connection)

    monkeypatch.setattr(SmtpConnection, "quit", forget)
    text = b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@partner.test>\r\nDATA\r\n\r\n.\r\nQUIT\r\n"
    await say(server, text)
    await server.settle(DEADLINE)


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("leave", "told"),
    [
        (leave_a_half_written_copy, r"the file .*/alice/tmp/1\.M2P"),
        (leave_a_spool_file, r"the file .*/spool/incoming-.* belongs to no message"),
        (leave_a_file_open, r"the open file .*/var/file"),
        (leave_a_listener_open, r"a socket at \('127\.0\.0\.1', \d+\)"),
        (leave_a_session_open, r"a socket at \('127\.0\.0\.1', \d+\)"),
        (leave_a_connection_open, r"a connection to \[127\.0\.0\.1\]:\d+"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_left_behind_is_reported(
    leave: Callable[[Server, pytest.MonkeyPatch], Awaitable[None]], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_server() as next_hop:
        config = {"routes": {"partner.test": f"smtp:{next_hop.address}"}}
        with monkeypatch.context() as patch, pytest.raises(LeftBehindError, match=told):
            async with open_server(config) as server:
                await leave(server, patch)
        clear_away()


def clear_away() -> None:
    while OPENED:
        os.close(OPENED.pop())
    while KEPT:
        match KEPT.pop():
            case SmtpConnection(_conversation=ClientConversation(wire=Wire(_stream=ConnectedSocket() as stream))):
                stream.socket.close()
            case Wire(_stream=ConnectedSocket() as stream):
                stream.socket.close()


async def test_a_control_socket_that_is_left_behind_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_path, "remove", lambda _: None)
    with pytest.raises(LeftBehindError, match=r"the socket .*/control\.sock"):
        async with open_server():
            pass


async def test_a_lock_that_is_left_behind_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    locks: list[DataDirLock] = []
    with monkeypatch.context() as patch:
        patch.setattr(DataDirLock, "release", lambda lock: locks.append(lock))
        with pytest.raises(LeftBehindError, match="the lock of "):
            async with open_server():
                pass
    locks[0].release()


async def test_a_file_that_a_test_reads_is_the_tests_own() -> None:
    async with open_server() as server:
        (server.maildir("alice") / "new").mkdir(parents=True)
        path = server.maildir("alice") / "new" / "x"
        path.write_bytes(b"Subject: x\n\n")
        file = Path(path).open("rb")  # noqa: ASYNC230, SIM115
    file.close()
