"""Starting, being told to change, and ending: the exit codes, signals and words of `trimta serve`."""

from __future__ import annotations

import os
import pwd
import re
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.store.support import envelope, message
from tests.support.process import TrimtaProcess, command_environment, run_trimta
from tests.support.software import require_root
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_second_server_on_the_same_data_dir_says_so_and_exits_75(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path) as server:
        for address in ("127.0.0.1:0", f"127.0.0.1:{server.port}"):
            second = run_trimta(tmp_path, "serve", "-c", "conf.toml", "--listen", address)
            assert second.returncode == os.EX_TEMPFAIL
            assert second.stderr.count("\n") == 1
            assert str(tmp_path / "var") in second.stderr
            assert str(server.pid) in second.stderr
        assert "127.0.0.1" in server.command("status")


def test_without_a_configuration_a_reload_reads_the_defaults_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trimta", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=command_environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if " started " in line:
                    server.send_signal(signal.SIGHUP)
                elif "reload" in line:
                    assert 'reloaded file="built-in defaults"' in line
                    break
        finally:
            server.kill()


def test_a_port_in_use_is_named_and_exits_69(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_trimta(tmp_path, "serve", "--listen", address)
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr.count("\n") == 1
    assert address in done.stderr


@pytest.mark.parametrize(
    ("configuration", "exit_code", "says"),
    [
        (None, os.EX_NOINPUT, "missing.toml"),
        ("[queue]\nretri = 1\n", os.EX_CONFIG, "missing.toml:2: [queue] retri: "),
        ("hostname = \n", os.EX_CONFIG, "missing.toml:1"),
        ('[[listen]]\ntls = "implicit"\n[tls]\ncertificate = "no.pem"', os.EX_CONFIG, "no.pem"),
        ('data_dir = "missing.toml"\n', os.EX_CANTCREAT, "data_dir"),
    ],
)
def test_a_start_that_fails_says_why_on_one_line(
    tmp_path: Path, configuration: str | None, exit_code: int, says: str
) -> None:
    if configuration is not None:
        (tmp_path / "missing.toml").write_text(configuration)
    done = run_trimta(tmp_path, "serve", "--config", "missing.toml", "--listen", "127.0.0.1:0")
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("table", ["meta", "messages", "envelopes", "destinations"])
def test_a_database_that_cannot_be_read_is_named_and_exits_75(tmp_path: Path, table: str) -> None:
    with Queue(tmp_path / "var") as queue:
        queue.accept(message("m1"), [envelope()])
        (page,) = queue._connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    database = tmp_path / "var" / FILE
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    (tmp_path / "conf.toml").write_text('[[listen]]\naddress = "127.0.0.1:0"\n')
    done = run_trimta(tmp_path, "serve", "-c", "conf.toml")
    assert done.returncode == os.EX_TEMPFAIL
    assert done.stderr.count("\n") == 1
    assert str(database) in done.stderr


def test_the_banner_says_where_mail_goes(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path) as server:
        assert re.search(r"^listening on 127\.0\.0\.1:\d+ \(smtp\)$", server.log, re.MULTILINE)
        assert str(tmp_path / "maildir-example" / "{user}") in server.log
        assert "nothing leaves this machine" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    with TrimtaProcess(tmp_path) as server, smtplib.SMTP("127.0.0.1", server.port, timeout=10) as idle:
        idle.ehlo()
        server.signal(number)
        code, text = idle.getreply()
        assert (code, text[:5]) == (421, b"4.3.2")
        idle.close()
        assert server.wait() == 0


def test_a_message_under_way_at_sigterm_is_finished(tmp_path: Path) -> None:
    server = TrimtaProcess(tmp_path).start()
    try:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
            client.ehlo()
            client.mail("bob@dev.test")
            client.rcpt("alice@dev.test")
            assert client.docmd("DATA")[0] == 354
            client.send(b"Subject: a long one\r\n\r\nfirst half\r\n")
            server.signal(signal.SIGTERM)
            server.wait_for(r" stopping ")
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", server.port), timeout=10)
            client.send(b"second half\r\n.\r\n")
            assert client.getreply()[0] == 250
            assert client.getreply()[0] == 421
            client.close()
        assert server.wait() == 0
    finally:
        server.kill()
    (message,) = server.messages("alice")
    assert message.get_content() == "first half\nsecond half\n"


def test_a_client_that_hangs_keeps_a_stop_no_longer_than_the_grace(tmp_path: Path) -> None:
    with (
        TrimtaProcess(tmp_path, '[timeouts]\nshutdown = "1s"') as server,
        smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client,
    ):
        client.ehlo()
        client.mail("bob@dev.test")
        client.rcpt("alice@dev.test")
        client.docmd("DATA")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        client.close()
        assert server.messages("alice") == []


def test_a_configuration_that_can_t_be_read_to_its_end_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path) as server:
        (tmp_path / "conf.toml").unlink()
        os.mkfifo(tmp_path / "conf.toml")
        for _ in range(3):
            server.signal(signal.SIGHUP)
        with (tmp_path / "conf.toml").open("wb"):  # from here on it is being read
            server.signal(signal.SIGTERM)
            assert server.wait() == 0


def test_sighup_reads_the_configuration_again(tmp_path: Path) -> None:
    with (
        TrimtaProcess(tmp_path, '[local]\nusers = ["alice"]') as server,
        smtplib.SMTP("127.0.0.1", server.port, timeout=10) as before,
    ):
        before.ehlo()

        def answer(user: str) -> int:
            with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
                client.ehlo()
                client.mail("x@dev.test")
                return client.rcpt(f"{user}@dev.test")[0]

        assert (answer("alice"), answer("bob")) == (250, 550)
        server.configure('[local]\nusers = ["bob"]')
        server.signal(signal.SIGHUP)
        server.wait_for(r" reloaded ")
        assert (answer("alice"), answer("bob")) == (550, 250)
        before.mail("x@dev.test")
        assert before.rcpt("alice@dev.test")[0] == 250, "a session goes on as it began"


@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        ("[queue]\nretri = 1", r"conf\.toml:2: \[queue\] retri: "),
        ("hostname =", r"conf\.toml:1"),
        ('[[listen]]\naddress = "127.0.0.1:1"', r"key=listen"),
        ('data_dir = "elsewhere"', r"key=data_dir"),
    ],
)
def test_sighup_reports_what_it_cannot_do_and_serves_on(tmp_path: Path, configuration: str, says: str) -> None:
    with TrimtaProcess(tmp_path) as server:
        (tmp_path / "conf.toml").write_text(configuration)
        server.signal(signal.SIGHUP)
        server.wait_for(says)
        with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
            client.sendmail("bob@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
        assert len(server.messages("alice")) == 1
        assert not (tmp_path / "elsewhere").exists()


def test_a_crowd_that_only_sits_there_leaves_descriptors_for_mail(tmp_path: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh")
    body = "Subject: on disk\r\n\r\n" + "x" * 300_000
    with TrimtaProcess(tmp_path, wrapper=few) as server:
        with ExitStack() as crowd:
            address = ("127.0.0.1", server.port)
            first = crowd.enter_context(smtplib.SMTP(*address, timeout=10))
            for _ in range(80):
                crowd.enter_context(socket.create_connection(address, timeout=10))
            server.wait_for(r" connect ", count=20)
            assert first.sendmail("bob@dev.test", ["alice@dev.test", "x@example.com"], body) == {}
            assert [len(server.messages(name)) for name in ("alice", "remote")] == [1, 1]
        with smtplib.SMTP(*address, timeout=10) as later:
            assert later.sendmail("bob@dev.test", ["alice@dev.test"], body) == {}
        assert len(server.messages("alice")) == 2


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users can get to, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_started_as_root_it_becomes_the_configured_account(reachable: Path) -> None:
    require_root("becoming somebody else")
    nobody = pwd.getpwnam("nobody")
    with TrimtaProcess(reachable, 'user = "nobody"') as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert re.search(rf"^Uid:(\t{nobody.pw_uid}){{4}}$", status, re.MULTILINE)
        assert re.search(rf"^Gid:(\t{nobody.pw_gid}){{4}}$", status, re.MULTILINE)
        assert "running as root" not in server.log
        with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
            client.sendmail("bob@dev.test", ["alice@dev.test", "x@example.com"], "Subject: hi\n\nthere\n")
        (path,) = (server.maildir("alice") / "new").iterdir()
        assert (path.stat().st_uid, path.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid)
        assert len(server.messages("remote")) == 1


def test_a_key_that_only_root_can_read_and_a_socket_in_a_folder_of_roots(reachable: Path) -> None:
    require_root("becoming somebody else")
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(reachable / "key.pem")
    (reachable / "key.pem").chmod(0o600)
    certificate.cert_chain_pems[0].write_to_path(reachable / "cert.pem")
    configuration = """
        user = "nobody"
        [[listen]]
        address = "127.0.0.1:0"
        tls = "starttls"
        [[listen]]
        address = "unix:lmtp.sock"
        protocol = "lmtp"
        [tls]
        certificate = "cert.pem"
        key = "key.pem"
    """
    for _ in range(2):  # the socket's name stays behind, and is in nobody's way
        with (
            TrimtaProcess(reachable, configuration) as server,
            smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client,
        ):
            assert client.starttls()[0] == 220
            server.signal(signal.SIGHUP)  # nobody can read the key now: all the rest is read again
            server.wait_for(r" reloaded ")
            assert " certificate_kept " in server.log
            assert "reload_failed" not in server.log
            with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as another:
                assert another.starttls()[0] == 220


@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_queue_that_is_gone_is_told_at_the_start(how: str, reachable: Path) -> None:
    database = reachable / "var" / "queue.sqlite3"
    with TrimtaProcess(reachable) as server:
        assert "is gone" not in server.log
    database.unlink() if how == "deleted" else database.write_bytes(b"")
    assert "is gone" in run_trimta(reachable, "queue", "list").stderr
    with TrimtaProcess(reachable) as server:
        server.wait_for(r" queue_lost ")
        assert f"WARNING: the queue that was in {database} is gone" in server.log
    with TrimtaProcess(reachable) as server:
        assert "is gone" not in server.log


def test_authorities_of_the_environment_that_are_gone_hinder_only_what_verifies(reachable: Path) -> None:
    with TrimtaProcess(reachable, environment={"SSL_CERT_FILE": str(reachable / "gone.pem")}) as server:
        assert f"warning: SSL_CERT_FILE={reachable / 'gone.pem'}" in server.log


def test_a_data_dir_that_the_account_cannot_use_is_named_with_what_to_do(reachable: Path) -> None:
    require_root("becoming somebody else")
    (reachable / "var").mkdir(0o700)
    (reachable / "conf.toml").write_text('user = "nobody"\n[[listen]]\naddress = "127.0.0.1:0"\n')
    result = run_trimta(reachable, "serve")
    assert result.returncode == os.EX_NOPERM
    assert f"data_dir {reachable / 'var'}: Permission denied for nobody; chown -R nobody it" in result.stderr
