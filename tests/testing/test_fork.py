"""Forked children: what they inherit of a server holds nothing of it up, and they may outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from trimta.store.lock import DataDirLock, locked_by
from trimta.testing import ForkedError, run_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trimta.testing import BlockingServer

DEADLINE = 20.0


def send(server: BlockingServer, subject: str = "hello") -> None:
    with smtplib.SMTP(server.host, server.port, local_hostname="app.test", timeout=DEADLINE) as client:
        client.sendmail("app@app.test", ["alice@dev.test"], f"Subject: {subject}\r\n\r\nhi\r\n")


@contextlib.contextmanager
def child(work: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """A forked child that does something and stays until the block is over; called, the value waits for the work, and
    returns 0 if that raised nothing.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - nothing of the child gets into pytest
            print(repr(error), file=sys.stderr)
        finally:
            os.write(write, bytes([code]))
            signal.pause()
    os.close(write)
    try:
        yield lambda: os.read(read, 1)[0]
    finally:
        os.close(read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_child_that_outlives_the_server_leaves_it_clean() -> None:
    with contextlib.ExitStack() as children:
        with run_server() as server:
            address = (server.host, server.port)
            done = children.enter_context(child(lambda: None))
            assert done() == 0
            send(server)
            server.wait_for(to="alice")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=DEADLINE)
        assert not server.data_dir.parent.exists()


def test_a_session_that_a_child_has_inherited_is_closed_when_the_server_closes_it() -> None:
    with run_server() as server, socket.create_connection((server.host, server.port), timeout=DEADLINE) as client:
        lines = client.makefile("rb")
        lines.readline()
        with child(lambda: None) as done:
            assert done() == 0
            client.sendall(b"QUIT\r\n")
            assert lines.readline().startswith(b"221")
            assert lines.readline() == b""


def test_a_child_may_send_mail_and_read_it() -> None:
    def use() -> None:
        send(server, "from the child")
        assert server.wait_for(to="alice", subject="from the child", timeout=DEADLINE)
        assert len(server.mailbox("alice")) == 1

    with run_server() as server, child(use) as done:
        assert done() == 0
        assert server.wait_for(to="alice")["Subject"] == "from the child"


def test_a_child_is_told_what_it_can_not_do() -> None:
    def use() -> None:
        for ask in (server.settle, server.check, server.clear, lambda: server.queue, lambda: server.events):
            with pytest.raises(ForkedError, match=f"runs in process {os.getppid()}"):
                ask()
        with pytest.raises(AssertionError, match="no message to 'bob'"):
            server.wait_for(to="bob", timeout=0)

    with run_server() as server, child(use) as done:
        assert done() == 0


def test_a_child_that_leaves_the_block_takes_nothing_away() -> None:
    def leave() -> None:
        running.__exit__(None, None, None)
        atexit_functions()

    def atexit_functions() -> None:
        import atexit

        atexit._run_exitfuncs()

    running = run_server()
    with running as server, child(leave) as done:
        assert done() == 0
        assert server.data_dir.exists()
        send(server)
        assert len(server.mailbox("alice")) == 1


def test_a_lock_that_a_child_has_inherited_does_not_count(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    with child(lambda: None) as done:
        assert done() == 0
        assert locked_by(tmp_path) == os.getpid()
        lock.release()
        assert locked_by(tmp_path) is None
