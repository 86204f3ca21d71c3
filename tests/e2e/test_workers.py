"""A server with worker processes keeps its promises: what is acknowledged stays, limits and faults count once."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import ssl
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.e2e.test_crash import ACKNOWLEDGED, ROUNDS, Burst, unsealed
from tests.support.fake_mx import FakeMx
from tests.support.process import TrimtaProcess, eventually
from tests.support.sink import serving
from tests.support.software import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TWO: Final = ("--workers=2",)


def workers(server: TrimtaProcess) -> list[dict[str, Any]]:
    """What `trimta status` says of each worker."""
    found: list[dict[str, Any]] = json.loads(server.command("status", "--json"))["workers"]
    return found


def ready(server: TrimtaProcess, count: int = 2) -> list[int]:
    """The ids of the workers, once there are as many."""

    def look() -> list[int]:
        pids = [worker["pid"] for worker in workers(server)]
        return pids if len(pids) == count else []

    return eventually(look, lambda: f"{count} workers")


def connected(server: TrimtaProcess, stack: ExitStack, kind: str = "smtp") -> smtplib.SMTP:
    return stack.enter_context(smtplib.SMTP("127.0.0.1", server.port_of(kind), timeout=20))


def mx_bodies(mx: FakeMx) -> list[bytes]:
    return [message.body for message in mx.accepted]


def kill_one(server: TrimtaProcess) -> None:
    os.kill(ready(server)[0], signal.SIGKILL)


def kill_all(server: TrimtaProcess) -> None:
    pids = ready(server)
    server.kill()
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended with its server
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_one, kill_all, TrimtaProcess.kill])
def test_whichever_process_is_killed_nothing_acknowledged_is_missing_and_everything_is_whole(
    kill: Callable[[TrimtaProcess], None], tmp_path: Path
) -> None:
    acknowledged: set[str] = set()
    unreachable = f'[routes]\n"queued.test" = "smtp:127.0.0.1:{free_port()}"\n'
    server = TrimtaProcess(tmp_path, unreachable, *TWO)
    for number in range(ROUNDS):
        server.start()
        burst = Burst(server.port, number)
        try:
            burst.wait(ACKNOWLEDGED)
            kill(server)
            if kill is kill_one:
                server.wait_for(r"worker_lost pid=\d+ reason=\"killed by SIGKILL\"")
                ready(server)
                with ExitStack() as stack:  # it has been replaced
                    connected(server, stack).sendmail("me@dev.test", ["dora@dev.test"], "Subject: x\n\nafter\n")
                assert not [*(tmp_path / "var" / "spool").glob("incoming-*")] or burst.acknowledged
        finally:
            server.kill()
        burst.join()
        acknowledged |= burst.acknowledged
    assert len(acknowledged) >= ROUNDS * ACKNOWLEDGED

    mx = FakeMx()
    with serving(mx) as (port,):
        server.configure(unreachable.partition("smtp:")[0] + f'smtp:127.0.0.1:{port}"\n')
        with server:
            assert "damaged" not in server.log
            server.command("queue", "retry", "--all")
            while json.loads(server.command("queue", "list", "--json")):
                pass  # each look takes its time
            for messages in (server.raw_messages("alice"), server.raw_messages("remote"), mx_bodies(mx)):
                tokens = [unsealed(octets) for octets in messages]
                assert set(tokens) >= acknowledged
                assert len(tokens) == len(set(tokens)), "nobody sent anything twice"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrimtaProcess]:
    with TrimtaProcess(tmp_path, "", *TWO) as server:
        ready(server)
        yield server


def test_connections_go_to_the_worker_with_the_fewest(server: TrimtaProcess) -> None:
    with ExitStack() as stack:
        for _ in range(6):
            connected(server, stack).ehlo()
        assert sorted(worker["sessions"] for worker in workers(server)) == [3, 3]
        text = server.command("status")
        assert all(f"worker {worker['pid']}: 3 sessions" in text for worker in workers(server))
    eventually(lambda: not any(worker["sessions"] for worker in workers(server)), lambda: "sessions end")


def test_messages_large_and_small_are_delivered_captured_and_queued(server: TrimtaProcess) -> None:
    to = ["alice@dev.test", "x@far.test"]
    with ExitStack() as stack:
        for size in (10, 400_000):
            connected(server, stack).sendmail("me@dev.test", to, "Subject: hi\r\n\r\n" + "line\r\n" * (size // 6))
    assert [len(server.messages(name)) for name in ("alice", "remote")] == [2, 2]
    assert not [*(server.folder / "var" / "spool").iterdir()]
    message_id = server.wait_for(r"accepted id=(\w+)")[0][1]
    assert "c: mail from" in server.command("log", message_id).lower()


def test_limits_count_over_all_workers(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path, "[limits]\nconnections_per_client = 3", *TWO) as server:
        ready(server)
        with ExitStack() as stack:
            for _ in range(3):
                connected(server, stack).ehlo()
            with pytest.raises(smtplib.SMTPConnectError, match="too many connections from your address"):
                connected(server, stack)
        eventually(lambda: not any(worker["sessions"] for worker in workers(server)), lambda: "sessions end")
        with ExitStack() as stack:
            connected(server, stack).ehlo()


def test_a_client_that_has_said_goodbye_may_come_again_at_once(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path, "[limits]\nconnections_per_client = 1", *TWO) as server:
        ready(server)
        for _ in range(30):
            with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
                client.ehlo()


def test_a_scripted_fault_strikes_as_often_as_it_says_over_all_workers(tmp_path: Path) -> None:
    fault = '[[faults]]\nstage = "rcpt"\nreply = "451 4.3.0 later"\ntimes = 3'
    with TrimtaProcess(tmp_path, fault, *TWO) as server:
        ready(server)
        codes = []
        with ExitStack() as stack:
            for _ in range(8):
                client = connected(server, stack)
                client.ehlo()
                client.mail("me@dev.test")
                codes.append(client.rcpt("alice@dev.test")[0])
        assert codes == [451] * 3 + [250] * 5


def test_a_reload_is_every_worker_s(server: TrimtaProcess) -> None:
    server.configure("[local]\nusers = ['alice']")
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded")
    with ExitStack() as stack:
        for _ in range(4):
            client = connected(server, stack)
            client.ehlo()
            client.mail("me@dev.test")
            assert [client.rcpt(f"{name}@dev.test")[0] for name in ("alice", "bob")] == [250, 550]


def test_the_clock_that_is_moved_is_every_worker_s(server: TrimtaProcess) -> None:
    with ExitStack() as stack:
        clients = [connected(server, stack) for _ in range(2)]
        server.command("time", "advance", "10d")
        for client in clients:
            client.sendmail("me@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
    ten_days = datetime.now(UTC) + timedelta(days=10)
    for message_id in (match[1] for match in server.wait_for(r"accepted id=(\w+)", count=2)):
        assert f"{ten_days:%Y-%m-%d}" in server.command("log", message_id)


def test_tls_has_the_certificate_of_the_server_in_every_worker(tmp_path: Path) -> None:
    listen = '[[listen]]\naddress = "127.0.0.1:0"\ntls = "starttls"\n'
    with TrimtaProcess(tmp_path, listen, *TWO) as server:
        ready(server)
        context = ssl.create_default_context(cafile=server.ca)
        seen = set()
        with ExitStack() as stack:
            for _ in range(4):
                client = stack.enter_context(smtplib.SMTP("localhost", server.port, timeout=20))
                client.starttls(context=context)
                client.ehlo()
                assert isinstance(client.sock, ssl.SSLSocket)
                seen.add(client.sock.getpeercert(binary_form=True))
        assert len(seen) == 1


def test_a_stop_lets_transactions_end_and_tells_the_idle(server: TrimtaProcess) -> None:
    with ExitStack() as stack:
        busy = [connected(server, stack) for _ in range(2)]
        idle = [connected(server, stack) for _ in range(2)]
        for client in (*busy, *idle):
            client.ehlo()
        for client in busy:
            client.mail("me@dev.test")
            client.rcpt("alice@dev.test")
            assert client.docmd("DATA")[0] == 354
        server.signal(signal.SIGTERM)
        for client in idle:
            assert client.getreply()[0] == 421
        for client in busy:
            client.send(b"Subject: hi\r\n\r\nthere\r\n.\r\n")
            assert client.getreply()[0] == 250
        for client in (*busy, *idle):
            client.close()
    assert server.wait() == 0
    assert len(server.messages("alice")) == 2


def test_no_process_outlives_its_server(server: TrimtaProcess) -> None:
    pids = ready(server)
    server.kill()

    def gone() -> bool:
        return not any(alive(pid) for pid in pids)

    eventually(gone, lambda: f"{pids} have ended")


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended; a container's first process may not wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_to_a_worker_leave_it_at_work(server: TrimtaProcess) -> None:
    pids = ready(server)
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    with ExitStack() as stack:
        for _ in range(2):
            connected(server, stack).sendmail("me@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
    assert ready(server) == pids


def test_a_starter_that_is_killed_is_replaced_when_a_worker_is_to_be_started(server: TrimtaProcess) -> None:
    pids = ready(server)
    starter = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (starter, *pids):
        os.kill(pid, signal.SIGKILL)
    server.wait_for("worker_lost pid=", count=2)
    assert not {*ready(server)} & {*pids}
    with ExitStack() as stack:
        connected(server, stack).sendmail("me@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
    assert "can't be started" not in server.log


def test_a_worker_that_hangs_keeps_neither_clients_nor_the_server_waiting(tmp_path: Path) -> None:
    limits = "[limits]\nconnections_per_client = 1000\n"
    with TrimtaProcess(tmp_path, limits, *TWO) as server, ExitStack() as stack:
        hanging, healthy = ready(server)
        os.kill(hanging, signal.SIGSTOP)
        for _ in range(800):  # more than wait for a process that takes none
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        eventually(lambda: sum(worker["sessions"] for worker in workers(server)) == 800, lambda: "all handed over")
        connected(server, stack).sendmail("me@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
        server.configure(limits + "[local]\nusers = ['bob']")
        server.signal(signal.SIGHUP)
        server.wait_for("reloaded")
        os.kill(hanging, signal.SIGCONT)
        assert [worker["pid"] for worker in workers(server)] == [hanging, healthy]
        client = connected(server, stack)  # it has the fewest
        client.ehlo()
        client.mail("me@dev.test")
        assert [client.rcpt(f"{name}@dev.test")[0] for name in ("alice", "bob")] == [550, 250]


def test_a_unix_socket_and_an_odd_client_are_handed_over_too(tmp_path: Path) -> None:
    listen = '[[listen]]\naddress = "127.0.0.1:0"\n[[listen]]\naddress = "unix:lmtp"\nprotocol = "lmtp"\n'
    with TrimtaProcess(tmp_path, listen, *TWO) as server:
        ready(server)
        for _ in range(5):
            socket.create_connection(("127.0.0.1", server.port)).close()  # gone before it is greeted
        with smtplib.LMTP(str(tmp_path / "lmtp")) as client:
            client.sendmail("me@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
        (message,) = server.messages("alice")
        assert "unix socket" in message["Received"]
