"""Mail for a local mailbox is in new/ at the 250, as every reader of Maildirs sees it."""

from __future__ import annotations

import re
import shlex
import smtplib
import socket
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.process import TrimtaProcess, read_by_mailbox
from tests.support.software import require, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MUTTRC: Final = """\
set folder="."
set pager="cp %s shown.txt"
set prompt_after=no
set wait_key=no
set quit=yes
push "<display-message><exit>"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrimtaProcess]:
    """A server that swaks has just sent a message to."""
    require("swaks")
    with TrimtaProcess(tmp_path_factory.mktemp("local")) as server:
        swaks(server, "--to", "alice@dev.test", "--h-Subject", "café and croissants", "--body", "Bonjour, Alice.")
        yield server


def swaks(server: TrimtaProcess, *arguments: str) -> None:
    run(server.folder, "swaks", "--from", "bob@dev.test", "--server", f"127.0.0.1:{server.port}", *arguments)


def test_a_message_is_in_new_the_moment_swaks_has_its_250(server: TrimtaProcess) -> None:
    maildir = server.maildir("alice")
    (path,) = (maildir / "new").iterdir()
    writers = "|".join(map(str, server.writers()))
    assert re.fullmatch(rf"\d+\.M\d+P({writers})Q\d+\.[^,]+,S={path.stat().st_size}", path.name)
    assert path.stat().st_mode & 0o777 == 0o600
    modes = {folder.name: folder.stat().st_mode & 0o777 for folder in maildir.iterdir()}
    assert modes == {"cur": 0o700, "new": 0o700, "tmp": 0o700}
    assert not list((maildir / "tmp").iterdir())


def test_pythons_mailbox_reads_it(server: TrimtaProcess) -> None:
    (message,) = read_by_mailbox(server.maildir("alice"))
    assert message.get_subdir() == "new"
    assert message.keys()[:3] == ["Return-Path", "Delivered-To", "Received"]
    assert message["Return-Path"] == "<bob@dev.test>"
    assert message["Delivered-To"] == "alice@dev.test"


def test_mutt_shows_it(server: TrimtaProcess, tmp_path: Path) -> None:
    require("mutt")
    (tmp_path / "muttrc").write_text(MUTTRC)
    command = shlex.join(["mutt", "-n", "-R", "-F", "muttrc", "-f", str(server.maildir("alice"))])
    size = {"TERM": "vt100", "LINES": "40", "COLUMNS": "100"}
    run(tmp_path, "script", "-qec", command, "/dev/null", environment=size)  # mutt shows mail to terminals only
    status, _, shown = (tmp_path / "shown.txt").read_text().partition("\n")
    assert re.match(r"-N +- 1/1: .*café and croissants", status)
    assert "Bonjour, Alice." in shown


def test_mblaze_shows_it(server: TrimtaProcess, tmp_path: Path) -> None:
    own = {"MBLAZE": str(tmp_path)}
    listed = run(tmp_path, "mlist", server.maildir("alice"), environment=own).splitlines()
    assert listed == [str(path) for path in (server.maildir("alice") / "new").iterdir()]
    assert "Bonjour, Alice." in run(tmp_path, "mshow", *listed, environment=own)
    assert "café and croissants" in run(tmp_path, "mscan", *listed, environment=own)


def test_every_recipient_has_a_maildir_under_the_root(tmp_path: Path) -> None:
    table = {
        "Alice@DEV.test": "alice",
        "bob+lists@dev.test": "bob",
        "carol@localhost": "carol",
        '"../../etc/passwd"@dev.test': "%2E.%2F..%2Fetc%2Fpasswd",
        "postmaster": "postmaster",
        "someone@example.com": "remote",
    }
    with TrimtaProcess(tmp_path) as server, smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        for recipient, mailbox in table.items():
            client.sendmail("bob@dev.test", [recipient], "Subject: hi\n\nthere\n")
            assert len(server.messages(mailbox)) == 1
        assert {path.name for path in (tmp_path / "maildir-example").iterdir()} == set(table.values())


def test_ipv6(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path, '[[listen]]\naddress = "localhost:0"') as server:
        assert set(server.addresses) == {f"127.0.0.1:{server.port}", f"[::1]:{server.port}"}
        for host in ("127.0.0.1", "::1"):
            with smtplib.SMTP(host, server.port, timeout=10) as client:
                client.sendmail("bob@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
        received = [message["Received"] for message in server.messages("alice")]
        assert ["[IPv6:::1]" in field for field in received] == [False, True]


def test_a_unix_socket(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path, '[[listen]]\naddress = "unix:smtp.sock"') as server:
        assert list(server.addresses) == [f"unix:{tmp_path / 'smtp.sock'}"]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(tmp_path / "smtp.sock"))
            client = smtplib.SMTP(timeout=10)
            client.sock = connection
            assert client.getreply()[0] == 220
            client.sendmail("bob@dev.test", ["alice@dev.test"], "Subject: hi\n\nthere\n")
            client.quit()
        assert len(server.messages("alice")) == 1
    assert not (tmp_path / "smtp.sock").exists()
