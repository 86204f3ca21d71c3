"""`run_server`: the same for synchronous code, the server in a thread beside it."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
import tempfile
import threading
import unittest
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trimta.config.errors import ConfigErrors
from trimta.inbound import vrfy_expn_etrn
from trimta.outbound.scheduler import Scheduler
from trimta.server.start import StartError
from trimta.testing import BlockingServer, LeftBehindError, NotArrivedError, ServerEndedError, run_server

if TYPE_CHECKING:
    from trimta.testing import Configuration

DEADLINE = 20.0


class Bug(Exception):  # noqa: N818
    """What no programmer has thought of."""


def send(server: BlockingServer, *to: str, subject: str = "hello") -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "app@app.test", ", ".join(to), subject
    with smtplib.SMTP(server.host, server.port, local_hostname="app.test", timeout=DEADLINE) as client:
        client.send_message(message)


def test_a_user_called_as_the_captured_mail_has_a_mailbox_of_their_own() -> None:
    with run_server() as server:
        (folder,) = (path for path in [server.maildir("someone@example.com")] if path is not None)
        send(server, f"{folder.name}@dev.test", subject="to the user")
        send(server, "bob@example.com", subject="far away")
        assert [message["Subject"] for message in server.mailbox(folder.name)] == ["to the user"]
        assert [message["Subject"] for message in server.captured()] == ["far away"]


def test_a_header_longer_than_any_buffer_is_completed_only_where_it_lacks_something() -> None:
    names = ("From", "Date", "Message-ID")
    fields = "From: shop@dev.test\r\nDate: Thu, 26 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@dev.test>\r\n"
    long = "X-SMTPAPI: {" + "\r\n  x" * 100_000 + "}\r\n"
    with (
        run_server({"listen": [{"protocol": "submission"}]}) as server,
        smtplib.SMTP(server.host, server.port, local_hostname="app.test", timeout=DEADLINE) as client,
    ):
        for content in (f"{long}{fields}\r\nbody\r\n", f"{long}\r\nbody\r\n"):
            client.sendmail("shop@dev.test", ["alice@dev.test"], content)
        for message in server.mailbox("alice"):
            assert [len(message.get_all(name, [])) for name in names] == [1, 1, 1]


def test_a_test_sends_and_reads_in_one_thread() -> None:
    with run_server() as server:
        send(server, "alice@dev.test", "bob@example.com")
        assert [message["Subject"] for message in server.mailbox("alice")] == ["hello"]
        assert [message["Delivered-To"] for message in server.captured("example.com")] == ["bob@example.com"]
        assert server.wait_for(to="bob@example.com")["To"] == "alice@dev.test, bob@example.com"
        assert server.queue == []
        assert "accepted" in {event.name for event in server.events}


def test_waiting_lets_other_threads_work() -> None:
    with run_server() as server:
        sender = threading.Timer(0.01, send, (server, "alice@dev.test"))
        sender.start()
        assert server.wait_for(to="alice", timeout=DEADLINE)["Subject"] == "hello"
        sender.join()


def test_who_waits_in_vain_is_told_what_came_instead() -> None:
    with run_server() as server:
        send(server, "alice@dev.test")
        with pytest.raises(NotArrivedError, match=r"to alice@dev\.test from <app@app\.test>, subject 'hello'"):
            server.wait_for(to="bob", timeout=0.01)


def test_the_queue_its_clock_and_faults_are_in_the_hands_of_the_test() -> None:
    with run_server({"local": {"domains": ["partner.test"]}}) as next_hop:
        next_hop.faults.add(stage="body", reply="452 4.3.1 full", times=2)
        with run_server({"routes": {"*": f"smtp:{next_hop.address}"}, "queue": {"retry": ["1h"]}}) as server:
            send(server, "bob@partner.test")
            server.settle(DEADLINE)
            assert [(entry.attempts, entry.recipients[0].reply) for entry in server.queue] == [(1, "452 4.3.1 full")]
            server.advance(timedelta(hours=1))
            assert [entry.attempts for entry in server.queue] == [2]
            server.queue.retry(server.queue[0].id)
            server.settle(DEADLINE)
            assert server.queue == []
            assert len(next_hop.mailbox("bob")) == 1


def test_many_threads_may_use_one_server() -> None:
    with run_server() as server:
        threads = [threading.Thread(target=send, args=(server, f"user{number}@dev.test")) for number in range(8)]
        for thread in threads:
            thread.start()
        for number in range(8):
            server.wait_for(to=f"user{number}", timeout=DEADLINE)
        for thread in threads:
            thread.join()


async def test_an_asynchronous_test_may_use_it_too() -> None:
    with run_server() as server:
        await trio.to_thread.run_sync(send, server, "alice@dev.test")
        assert server.wait_for(to="alice", timeout=DEADLINE)["Subject"] == "hello"


def test_it_fits_unittest() -> None:
    class Case(unittest.TestCase):
        def setUp(self) -> None:
            self.server = self.enterContext(run_server())

        def test_mail(self) -> None:
            send(self.server, "alice@dev.test")
            assert len(self.server.mailbox("alice")) == 1

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors + result.failures


# The end.


@pytest.mark.parametrize(
    ("config", "error"), [({"colour": "blue"}, ConfigErrors), ({"listen": [{"address": "192.0.2.1:0"}]}, StartError)]
)
def test_what_keeps_it_from_starting_is_raised(config: Configuration, error: type[Exception]) -> None:
    with pytest.raises(error), run_server(config):
        raise AssertionError("it has started")


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("x", [ValueError("y")]), KeyboardInterrupt()])
def test_what_the_block_raises_comes_out_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, run_server():
        raise error
    assert caught.value is error
    assert "trimta" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.one_process
def test_an_error_in_a_session_is_raised_with_its_own_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Bug("here")

    monkeypatch.setattr(vrfy_expn_etrn, "vrfy", broken)
    with pytest.raises(Bug) as caught, run_server() as server, smtplib.SMTP(server.host, server.port) as client:
        assert client.verify("alice")[0] == 421
    assert caught.traceback[-1].name == "broken"


def test_an_error_that_ends_the_server_is_the_reason_for_what_the_block_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def collapse(*_: object) -> float:
        raise Bug("here")

    def wait(server: BlockingServer) -> None:
        monkeypatch.setattr(Scheduler, "_look", collapse)
        server.queue.retry()
        server.wait_for(to="nobody", timeout=DEADLINE)

    with pytest.raises(Bug) as caught, run_server() as server:
        wait(server)
    assert caught.traceback[-1].name == "collapse"
    assert isinstance(caught.value.__cause__, ServerEndedError)


def test_what_is_left_behind_is_reported() -> None:
    def leave(server: BlockingServer) -> None:
        (server.data_dir / "spool").mkdir(exist_ok=True)
        (server.data_dir / "spool" / f"incoming-{os.getpid()}-x").touch()

    with pytest.raises(LeftBehindError, match="incoming-"), run_server() as server:
        leave(server)


def test_nothing_can_be_asked_of_a_server_that_has_ended() -> None:
    with run_server() as server:
        pass
    for ask in (server.settle, server.wait_for, server.check, lambda: server.queue):
        with pytest.raises(ServerEndedError):
            ask()
    assert not server.data_dir.exists()


def test_a_thread_that_waits_is_let_go_when_the_server_ends() -> None:
    caught: list[BaseException] = []

    def wait(server: BlockingServer) -> None:
        try:
            server.wait_for(to="nobody", timeout=3600)
        except ServerEndedError as error:
            caught.append(error)

    with run_server() as server:
        thread = threading.Thread(target=wait, args=(server,))
        thread.start()
    thread.join(DEADLINE)
    assert len(caught) == 1


INTERRUPTED = """
import signal, sys
from trimta.testing import run_server
try:
    with run_server() as server:
        print(server.data_dir, flush=True)
        server.wait_for(to="nobody", timeout=3600)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_leaves_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.parent.parent == Path(tempfile.gettempdir()).resolve()
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, told) == (0, "interrupted\n")
    assert not folder.parent.exists()
