"""`trimta wait`: the message that is meant, at once or as soon as it comes, from the files alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.content.test_display import NESTED, nested
from tests.support.frozen import PAST, each_library
from tests.support.process import DEADLINE, TrimtaProcess, command_environment
from trimta.cli import wait
from trimta.cli.main import main
from trimta.cli.wait import _arrivals
from trimta.content.trace import delivered_to_field, return_path_field
from trimta.mail.address import parse_mailbox
from trimta.store.maildir import Delivery, deliver
from trimta.store.spool import Body

if TYPE_CHECKING:
    from tests.support.frozen import Freeze

CONFIGURATION: Final = """\
[local]
maildir = "mail/{domain}/{user}"
[routes]
"partner.test" = "maildir:captured/partner"
"*" = "maildir:captured/all/{domain}"
"""

MESSAGE: Final = """\
From: Bob <bob@x.test>
To: alice@dev.test
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Mon, 1 Jan 2024 12:00:00 +0100
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: multipart/alternative; boundary=c

--c
Content-Type: text/html; charset=utf-8

<p>no</p>
--c
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=FC=DFe, Alice.
--c--
--b
Content-Type: application/pdf
Content-Disposition: attachment; filename*=utf-8''R%C3%A9sum%C3%A9.pdf
Content-Transfer-Encoding: base64

UERGIQ==
--b--
"""


class Folder:
    """A configuration and its Maildirs, without a server."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.configuration = path / "conf.toml"
        self.configuration.write_text(CONFIGURATION)
        self._capture = capture

    def deliver(self, maildir: str, to: str, content: str = "Subject: s\n\nbody\n", sender: str = "bob@x.test") -> Path:
        head = return_path_field(parse_mailbox(sender) if sender else None) + delivered_to_field(parse_mailbox(to))
        return deliver(Delivery(self.path / maildir, head, Body.of(content.encode())))

    def wait(self, *arguments: str, timeout: str = "0s") -> str:
        assert main(["-c", str(self.configuration), "wait", *arguments, "--timeout", timeout]) == 0
        captured = self._capture.readouterr()
        assert captured.err == ""
        return captured.out.removesuffix("\n")

    def wait_in_vain(self, *arguments: str, timeout: str = "0s") -> str:
        assert main(["-c", str(self.configuration), "wait", *arguments, "--timeout", timeout]) == 75
        captured = self._capture.readouterr()
        assert captured.out == ""
        return captured.err


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


def test_a_message_that_is_there_is_found_in_any_maildir(folder: Folder) -> None:
    alice = folder.deliver("mail/dev.test/alice", "alice@dev.test")
    partner = folder.deliver("captured/partner", "p@partner.test")
    other = folder.deliver("captured/all/x.test", "o@x.test")
    assert folder.wait("--to", "alice@dev.test") == str(alice)
    assert folder.wait("--to", "P@Partner.test") == str(partner)
    assert folder.wait("--to", "o") == str(other)


def test_of_several_the_first_that_matches_is_printed(folder: Folder) -> None:
    folder.deliver("mail/dev.test/alice", "alice@dev.test", "Subject: other\n\n")
    first = folder.deliver("mail/dev.test/bob", "bob@dev.test", "Subject: Welcome, Bob\n\n", sender="shop@x.test")
    time.sleep(0.02)  # more than a tick of the clock that files get their times from
    folder.deliver("mail/dev.test/alice", "alice@dev.test", "Subject: welcome, Alice\n\n", sender="shop@x.test")
    assert folder.wait("--subject", "welcome*", "--from", "shop@x.test") == str(first)


def test_nothing_in_time_is_75_and_one_line(folder: Folder) -> None:
    folder.deliver("mail/dev.test/alice", "alice@dev.test")
    assert folder.wait_in_vain("--to", "bob@dev.test", timeout="0.06s") == (
        "trimta wait: no such message within 0.06 s\n"
    )


@pytest.mark.parametrize("what", ["mark", "path"])
def test_since_a_mark_every_message_comes_once_in_order(folder: Folder, what: str) -> None:
    sent = [folder.deliver("mail/dev.test/alice", "alice@dev.test", f"Subject: {number}\n\n") for number in range(5)]
    seen = []
    since: list[str] = []
    for _ in sent:
        seen.append(folder.wait(*since))
        since = ["--since", folder.wait("--print", what, *since)]
    assert sorted(seen) == sorted(map(str, sent))
    folder.wait_in_vain(*since)
    last = folder.deliver("captured/partner", "p@partner.test")
    assert folder.wait(*since) == str(last)


def test_a_mark_outlives_a_reader_that_moves_messages(folder: Folder) -> None:
    path = folder.deliver("mail/dev.test/alice", "alice@dev.test")
    mark = folder.wait("--print", "mark")
    path.rename(path.parent.parent / "cur" / f"{path.name}:2,S")
    folder.wait_in_vain("--since", mark)
    folder.wait_in_vain("--since", str(path))


def test_since_now_what_is_there_does_not_count(folder: Folder) -> None:
    folder.deliver("mail/dev.test/alice", "alice@dev.test")
    time.sleep(0.02)  # more than a tick of the clock that files get their times from
    folder.wait_in_vain("--since", "now")


def test_what_is_printed(folder: Folder) -> None:
    path = folder.deliver("mail/dev.test/alice", "alice@dev.test", MESSAGE)
    assert folder.wait("--print", "path") == str(path)
    assert folder.wait("--print", "body") == "Grüße, Alice."
    headers = folder.wait("--print", "headers")
    assert headers.startswith("Return-Path: <bob@x.test>\nDelivered-To: alice@dev.test\nFrom: Bob <bob@x.test>\n")
    assert headers.endswith("boundary=b")
    document: dict[str, Any] = json.loads(folder.wait("--print", "json"))
    assert json.loads(folder.wait("--json")) == document
    assert document.pop("headers")["subject"] == ["Grüße"]
    assert document == {
        "path": str(path),
        "mark": folder.wait("--print", "mark"),
        "return_path": "<bob@x.test>",
        "delivered_to": ["alice@dev.test"],
        "from": "Bob <bob@x.test>",
        "to": "alice@dev.test",
        "subject": "Grüße",
        "date": "2024-01-01T12:00:00+01:00",
        "body": "Grüße, Alice.",
        "attachments": [{"filename": "Résumé.pdf", "content_type": "application/pdf", "size": 4}],
    }


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ("\nplain\n", "plain\n"),
        ("Content-Type: text/html\n\n<p>x</p>\n", "<p>x</p>\n"),
        ("Content-Type: text/plain; charset=no-such\n\nx é\n", "x é\n"),
        ("Content-Type: text/plain; charset=us-ascii\n\nx é\n", "x é\n"),
        ("Content-Type: image/png\n\nx\n", ""),
        ("Content-Type: multipart/mixed\n\nno boundary\n", "no boundary\n"),
        ("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n%%%\n", None),
        ("no header at all", "no header at all"),
        ("", ""),
    ],
)
def test_any_message_has_a_body_to_print(folder: Folder, content: str, body: str | None) -> None:
    folder.deliver("mail/dev.test/alice", "alice@dev.test", content)
    printed = folder.wait("--print", "body")
    assert body is None or printed == body.removesuffix("\n")
    assert json.loads(folder.wait("--print", "json"))["date"] is None


@pytest.mark.parametrize("what", ["path", "mark", "headers", "body", "json"])
@pytest.mark.parametrize(
    "content",
    [
        "Date: Mon, 1 Jan 2024 12:00:00 +99999999999999999999\nContent-Type: text/plain; charset=x-unknown\n\nhello\n",
        "Content-Type: text/plain; charset=idna\n\nhello.." + "a" * 80,
        nested(NESTED, b"\nhello\n").decode(),
        "Subject: \0\n\nhello\0\n",
    ],
    ids=["charset and date", "a charset that refuses", "nested", "NUL"],
)
def test_what_can_be_printed_of_a_broken_message_is(folder: Folder, content: str, what: str) -> None:
    path = folder.deliver("mail/dev.test/alice", "alice@dev.test", content)
    printed = folder.wait("--to", "alice@dev.test", "--print", what)
    if what == "body":
        assert "hello" in printed
    if what == "json":
        document = json.loads(printed)
        assert document["path"] == str(path)
        assert "hello" in document["body"]


def test_a_message_that_a_reader_moves_while_it_is_looked_at_is_found(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.deliver("mail/dev.test/alice", "alice@dev.test")
    target = path.parent.parent / "cur" / f"{path.name}:2,S"

    def listed_then_moved(*arguments: Any, **options: Any) -> Any:
        found = _arrivals(*arguments, **options)
        path.rename(target)
        return found

    monkeypatch.setattr(wait, "_arrivals", listed_then_moved)
    assert folder.wait("--to", "alice@dev.test") == str(target)


@each_library
def test_its_time_is_up_also_where_time_is_frozen(folder: Folder, freeze: Freeze) -> None:
    with freeze(PAST):
        folder.wait_in_vain(timeout="0.06s")
        folder.wait_in_vain("--since", "now", timeout="0s")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--to", "a b"],
        ["--from", "a@b@c"],
        ["--timeout", "soon"],
        ["--since", "yesterday"],
        ["--since", "/no/such/file"],
        ["--print", "all"],
        ["extra"],
    ],
)
def test_wrong_usage_is_64(folder: Folder, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        folder.wait(*arguments)
    assert caught.value.code == 64
    assert capsys.readouterr().err.count("\n") == 1


def test_a_message_that_comes_later_is_awaited(folder: Folder) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "trimta", "wait", "--to", "alice@dev.test", "--since", "now", "--timeout", "30"],
        cwd=folder.path,
        env=command_environment(folder.path),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + DEADLINE
        while waiting.poll() is None and time.monotonic() < deadline:  # whenever it began, one comes after it
            path = folder.deliver("mail/dev.test/alice", "alice@dev.test")
            time.sleep(0.02)
        printed, _ = waiting.communicate(timeout=DEADLINE)
    finally:
        waiting.kill()
    assert waiting.returncode == 0
    assert Path(printed.strip()).parent == path.parent


def test_it_waits_for_what_a_server_delivers(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path, CONFIGURATION) as server:
        server.command("sendmail", "-f", "a@dev.test", "z@far.test", text="Subject: hello\n\nworld\n")
        arguments = ("--to", "z@far.test", "--timeout", f"{DEADLINE:g}s", "--print", "body")
        assert server.command("wait", *arguments) == "world\n"
