"""`trimta sendmail`: what it puts into the queue, what it refuses, and the programs that call it."""

from __future__ import annotations

import email
import os
import pwd
import re
import shlex
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.process import DEADLINE, TrimtaProcess, run_trimta
from tests.support.software import missing, run
from tests.support.standard_input import standard_input
from trimta.cli import sendmail_flags
from trimta.cli.exits import CommandError
from trimta.cli.main import main
from trimta.cli.sendmail_flags import Flags
from trimta.content.header import decoded
from trimta.mail.envelope import Notify, Ret
from trimta.store.queue.meta import TIME_SCALE
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trimta.store.queue.values import QueuedEnvelope, StoredMessage

CONFIGURATION: Final = """\
hostname = "host.test"
[local]
domains = ["dev.test"]
users = ["alice", "bob", "root"]
[aliases]
team = ["alice", "bob", "carol@partner.test"]
[routes]
"closed.test" = "reject:550 5.7.1 closed"
"later.test" = "hold"
[limits]
message_size = "600 KiB"
hops = 3
"""
LOGIN: Final = pwd.getpwuid(os.getuid()).pw_name


# The command line.


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("a@x.test", Flags(recipients=("a@x.test",))),
        ("-t", Flags(from_header=True)),
        ("-ti", Flags(from_header=True, dot_is_data=True)),
        ("-t -oi", Flags(from_header=True, dot_is_data=True)),
        ("-O IgnoreDots=true", Flags(dot_is_data=True)),
        ("-f a@b", Flags(sender="a@b")),
        ("-fa@b", Flags(sender="a@b")),
        ("-r a@b", Flags(sender="a@b")),
        ("-ra@b c@d", Flags(sender="a@b", recipients=("c@d",))),
        ("-f ''", Flags(sender="")),
        ("-f '<>'", Flags(sender="<>")),
        ("-FCron", Flags(name="Cron")),
        ("-F 'Cron Daemon'", Flags(name="Cron Daemon")),
        ("-tFCron", Flags(from_header=True, name="Cron")),
        ("-B8BITMIME", Flags()),
        ("-B 8BITMIME", Flags()),
        ("-B7bit", Flags()),
        ("-N never", Flags(notify=frozenset({Notify.NEVER}))),
        ("-Nfailure,delay", Flags(notify=frozenset({Notify.FAILURE, Notify.DELAY}))),
        ("-N SUCCESS", Flags(notify=frozenset({Notify.SUCCESS}))),
        ("-R full", Flags(ret=Ret.FULL)),
        ("-Rhdrs", Flags(ret=Ret.HEADERS)),
        ("-V abc=1", Flags(envid="abc=1")),
        ("-bs", Flags(mode="s")),
        ("-b s", Flags(mode="s")),
        ("-bp", Flags(mode="p")),
        ("-bi", Flags(mode="i")),
        ("-I", Flags(mode="i")),
        ("-q", Flags(flush=True)),
        ("-q15m", Flags()),
        ("-h 5 a@b", Flags(recipients=("a@b",))),
        ("-h", Flags(help=True)),
        ("--help", Flags(help=True)),
        ("-c x.toml a@b", Flags(config="x.toml", recipients=("a@b",))),
        ("a@b --config=x.toml", Flags(config="x.toml", recipients=("a@b",))),
        ("a@b --config x.toml", Flags(config="x.toml", recipients=("a@b",))),
        ("-i -- -t a@b", Flags(dot_is_data=True, recipients=("-t", "a@b"))),
        ("a@b -i", Flags(dot_is_data=True, recipients=("a@b",))),
        (
            "-oem -odb -odi -oep -o7 -bm -em -e m -U -v -m -n -G -Ac -C/x.cf -L tag -pSMTP -X /x -x -d0.1 -O T=5 a@b",
            Flags(recipients=("a@b",)),
        ),
    ],
)
def test_flags_are_read_as_sendmail_reads_them(line: str, flags: Flags) -> None:
    assert sendmail_flags.parse(shlex.split(line)) == flags


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-f", "-f wants a value"),
        ("-Z", "unrecognized flag: -Z"),
        ("--frobnicate", "unrecognized argument: --frobnicate"),
        ("--config", "--config wants a value"),
        ("-N sometimes", "-N sometimes: expected never"),
        ("-N never,delay", "expected never"),
        ("-R half", "-R half: expected full or hdrs"),
        ("-V é", "-V: expected"),
        ("-B9BIT", "-B 9BIT: expected"),
        ("-bd", "use `trimta serve`"),
        ("-bt", "use `trimta route"),
        ("-bz", "-bz: no such mode"),
    ],
)
def test_a_wrong_command_line_is_64(line: str, problem: str) -> None:
    with pytest.raises(CommandError) as caught:
        sendmail_flags.parse(shlex.split(line))
    assert caught.value.code == 64
    assert problem in str(caught.value)


# What is queued.


@dataclass(frozen=True)
class Sender:
    """`trimta sendmail` in this process, while no server runs."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, arguments: str | Sequence[str], content: bytes = b"Subject: s\n\nbody\n") -> str:
        """Send; returns what it wrote on stderr, behind its exit code."""
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        with standard_input(content):
            code = main(["-c", str(self.folder / "conf.toml"), "sendmail", *words])
        captured = self.capture.readouterr()
        assert captured.out == ""
        return f"{code} {captured.err}".strip()

    def queued(self) -> list[tuple[StoredMessage, tuple[QueuedEnvelope, ...]]]:
        with Queue(self.folder / "var") as queue:
            ids = dict.fromkeys(listed.envelope.message_id for listed in queue.entries.list_envelopes())
            return [queue.entries.show(message_id) for message_id in ids]

    @property
    def message(self) -> StoredMessage:
        [(message, _)] = self.queued()
        return message

    @property
    def recipients(self) -> list[str]:
        """Of all envelopes: after aliases."""
        [(_, envelopes)] = self.queued()
        return [str(one.recipient.address) for envelope in envelopes for one in envelope.recipients]


@pytest.fixture
def send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sender:
    (tmp_path / "conf.toml").write_text(CONFIGURATION)
    return Sender(tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "header", "recipients"),
    [
        ("alice@dev.test", "To: bob@dev.test", "alice@dev.test"),
        ("alice", "", "alice@dev.test"),
        ("alice bob@dev.test 'C <c@x.test>, d@x.test'", "", "alice@dev.test bob@dev.test c@x.test d@x.test"),
        ("-t", "To: alice@dev.test\nCc: bob\nBcc: c@x.test", "alice@dev.test bob@dev.test c@x.test"),
        ("-t bob@dev.test", "To: alice@dev.test", "bob@dev.test alice@dev.test"),
        ("-t alice@dev.test", "To: alice@dev.test", "alice@dev.test"),
        ("-t", "To: undisclosed-recipients:;\nBcc: alice", "alice@dev.test"),
        ("-t", "Resent-To: bob\nTo: alice", "bob@dev.test"),
        ("-t", "To: jürgen@bücher.test", "jürgen@bücher.test"),
        ("nobody@dev.test", "", "nobody@dev.test"),
        ("x@closed.test", "", "x@closed.test"),
        ("team", "", "alice@dev.test bob@dev.test carol@partner.test"),
        ("-- -x@x.test", "", "-x@x.test"),
    ],
)
def test_who_gets_it(send: Sender, arguments: str, header: str, recipients: str) -> None:
    assert send(arguments, f"{header}\nSubject: s\n\nbody\n".lstrip("\n").encode()) == "0"
    assert send.recipients == recipients.split()
    assert send.message.terms.smtputf8 == (not recipients.isascii())


@pytest.mark.parametrize(
    ("arguments", "sender"),
    [
        ("", f"{LOGIN}@host.test"),
        ("-f a@x.test", "a@x.test"),
        ("-f bob", "bob@dev.test"),
        ("-f 'A <a@x.test>'", "a@x.test"),
        ("-f <>", ""),
        ("-f ''", ""),
        ("-r a@x.test", "a@x.test"),
        ("-F Cron", f"{LOGIN}@host.test"),
    ],
)
def test_who_it_is_from(send: Sender, arguments: str, sender: str) -> None:
    assert send(f"{arguments} alice") == "0"
    assert str(send.message.terms.reverse_path or "") == sender
    assert (
        f"From: {'Cron <' if 'Cron' in arguments else ''}{sender or f'{LOGIN}@host.test'}"
        in send.message.trace.decode()
    )


def test_date_message_id_and_from_are_added_where_they_are_missing(send: Sender) -> None:
    assert send("-F 'Zoë B' alice", b"Subject: s\n\nbody\n") == "0"
    added = email.message_from_bytes(send.message.trace)
    assert added.keys() == ["Received", "From", "Date", "Message-ID"]
    assert added["Received"].startswith(
        f"by host.test (trimta sendmail, from userid {os.getuid()})\n\tid {send.message.id};"
    )
    assert added["Message-ID"] == f"<{send.message.id}@host.test>"
    assert added["From"].isascii()
    assert decoded(added["From"]) == f"Zoë B <{LOGIN}@host.test>"
    assert abs(parsedate_to_datetime(added["Date"]).timestamp() - send.message.arrived) < 2


def test_what_is_there_is_not_added_again(send: Sender) -> None:
    content = b"from: a@x.test\nDATE: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <1@x.test>\n\nbody"
    assert send("alice", content) == "0"
    assert email.message_from_bytes(send.message.trace).keys() == ["Received"]
    assert send.message.content.read() == content


@pytest.mark.parametrize(
    ("arguments", "given", "kept"),
    [
        ("", b"Subject: s\r\n\r\nbody\r\n", b"Subject: s\n\nbody\n"),
        ("", b"Subject: s\n\none\n.\ntwo\n", b"Subject: s\n\none\n"),
        ("-i", b"Subject: s\n\none\n.\ntwo\n", b"Subject: s\n\none\n.\ntwo\n"),
        ("-oi", b"Subject: s\n\none\n.\ntwo\n", b"Subject: s\n\none\n.\ntwo\n"),
        ("", b"Subject: s\n\nno end", b"Subject: s\n\nno end"),
        ("", b"Subject: s\n\nn\0l and \xff\xfe\n", b"Subject: s\n\nn\0l and \xff\xfe\n"),
        ("", b"", b""),
        ("", b"\nonly a body\n", b"\nonly a body\n"),
        ("", b"From a@x.test Mon Jan  1 00:00:00 2024\nSubject: s\n\n", b"Subject: s\n\n"),
        ("", b"Bcc: gone@x.test\n\n", b"\n"),
        ("", b"Subject: s\nBcc: gone@x.test,\n\tand@x.test\ntext\n", b"Subject: s\n\ntext\n"),
        ("", b"Subject: s\ntext: no\nlonger header\n", b"Subject: s\ntext: no\n\nlonger header\n"),
        ("", b"Subject: s\r\ntext\r\n", b"Subject: s\n\ntext\n"),
        ("-t", b"To: bob\ntext\n", b"To: bob@dev.test\n\ntext\n"),
        ("", b"From: root (Cron Daemon)\nTo: root\n\n", b"From: root@dev.test (Cron Daemon)\nTo: root@dev.test\n\n"),
        (
            "",
            b"X-SMTPAPI: " + b"x" * 300_000 + b"\nBcc: gone\nFrom: a\n\n",
            b"X-SMTPAPI: " + b"x" * 300_000 + b"\nFrom: a@dev.test\n\n",
        ),
        ("-i", b"x" * 300_000, b"x" * 300_000),
        ("-t", b"Subject: s\nBcc: gone@x.test\nTo: bob\n\nBcc: kept\n", b"Subject: s\nTo: bob@dev.test\n\nBcc: kept\n"),
    ],
)
def test_the_content_is_kept(send: Sender, arguments: str, given: bytes, kept: bytes) -> None:
    assert send(f"{arguments} alice", given) == "0"
    assert send.message.content.read() == kept


@pytest.mark.parametrize(
    ("arguments", "header", "recipients", "named"),
    [
        ("alice a@-x.test bob", "To: x@@y", "alice@dev.test bob@dev.test", "recipient: 'a@-x.test': a label"),
        ("'alice, Joe :) <a@x.test>, bob'", "", "alice@dev.test bob@dev.test", "recipient: 'Joe :) <a@x.test>': a ')'"),
        ("alice ''", "", "alice@dev.test", "recipient: '' is no address"),
        ("-t @", "To: bob", "bob@dev.test", "recipient: '@': "),
        ("-t alice @", "To: c@@x.test", "alice@dev.test", "; bad recipient in To: 'c@@x.test'"),
        ("-t alice", "To: bob\nCc: c@@x.test", "alice@dev.test bob@dev.test", "recipient in Cc: 'c@@x.test'"),
        ("-t", "To: Joe :) <a@x.test>, bob@dev.test", "bob@dev.test", "To: 'Joe :) <a@x.test>'"),
        ("-t", "To: bob, c d\nBcc: alice, @", "bob@dev.test alice@dev.test", "To: 'c d': a space"),
        ("-t", "Resent-To: bob, @\nTo: alice", "bob@dev.test", "Resent-To: '@'"),
    ],
)
def test_the_good_recipients_get_it_and_the_bad_ones_are_named(
    send: Sender, arguments: str, header: str, recipients: str, named: str
) -> None:
    told = send(arguments, f"{header}\nSubject: s\n\nbody\n".encode())
    assert told.startswith("65 trimta sendmail: bad recipient")
    assert named in told
    assert told.endswith("; the others get the message")
    assert told.count("\n") == 0
    assert send.recipients == recipients.split()


def test_large_content_is_spooled(send: Sender) -> None:
    content = b"Subject: large\n\n" + b"0123456789abcde\n" * (500 * 64)
    assert send("-i alice", content.replace(b"\n", b"\r\n")) == "0"
    assert not send.message.content.in_memory
    assert send.message.content.read() == content
    assert len([*(send.folder / "var" / "spool").iterdir()]) == 1


def test_the_dsn_parameters_are_kept(send: Sender) -> None:
    assert send("-N success,delay -R hdrs -V env-1 alice bob@x.test") == "0"
    [(message, envelopes)] = send.queued()
    assert (message.terms.ret, message.terms.envid) == (Ret.HEADERS, "env-1")
    wanted = {one.recipient.notify for envelope in envelopes for one in envelope.recipients}
    assert wanted == {frozenset({Notify.SUCCESS, Notify.DELAY})}


@pytest.mark.parametrize(("scale", "hours"), [(None, 4.0), ("8.0", 0.5)])
def test_the_delay_warning_is_due_by_the_clock_of_the_server(send: Sender, scale: str | None, hours: float) -> None:
    if scale is not None:
        with Queue(send.folder / "var") as queue:  # what `serve --time-scale 8` leaves there
            queue.meta.set(TIME_SCALE, scale)
    assert send("far@x.test") == "0"
    [(message, [envelope])] = send.queued()
    assert envelope.warn_at == message.arrived + hours * 3600


def test_an_alias_for_many_is_reported_expanded_to_who_wants_success(send: Sender) -> None:
    assert send("-f bob@dev.test -N success team") == "0"
    (dsn, [report]), (message, _) = sorted(send.queued(), key=lambda pair: pair[0].terms.reverse_path is not None)
    assert str(report.recipients[0].recipient.address) == "bob@dev.test"
    assert b"\nAction: expanded\n" in dsn.content.read()
    assert message.terms.reverse_path is not None


def test_a_hold_route_holds_it(send: Sender) -> None:
    assert send("x@later.test") == "0"
    [(_, [envelope])] = send.queued()
    assert (envelope.state, envelope.hold_reason) == ("held", "by its route")


# What is refused: nothing is queued then.


@pytest.mark.parametrize(
    ("arguments", "content", "code", "problem"),
    [
        ("", b"", 64, "no recipients: name them behind the flags"),
        ("-i", b"To: alice\n\n", 64, "no recipients"),
        ("-t", b"Subject: s\n\nTo: alice\n", 64, "no recipients: there are none in To, Cc and Bcc"),
        ("-t", b"To: undisclosed-recipients:;\n\n", 64, "no recipients"),
        ("'a b@x.test'", b"", 65, "bad recipient: 'a b@x.test': a space"),
        ("a@-x.test", b"", 65, "bad recipient: 'a@-x.test': a label of a domain neither begins nor ends with a hyphen"),
        ("a@-x.test 'b c'", b"", 65, "hyphen; 'b c': a space"),
        ("-t @", b"Subject: s\n\n", 65, "bad recipient: '@': "),
        ("-t @", b"To: c@@x.test\n\n", 65, "bad recipient: '@': "),
        ("''", b"", 65, "bad recipient: '' is no address"),
        ("<>", b"", 65, "bad recipient: '<>'"),
        ("-t", b"To: c@@x.test, :)\n\n", 65, "To: ':)': a ')' is not closed; nothing was sent"),
        ("alice", b"X: y\n" * 300_000, 65, ""),
        ("-f a@b@c alice", b"", 65, "bad sender"),
        ("-f 'a@x.test, b@x.test' alice", b"", 65, "bad sender: 'a@x.test, b@x.test' is not one address"),
        ("alice", b"Subject: s\n\na\rb\n", 65, "line 3 has a carriage return"),
        ("alice", b"Received: x\n" * 4 + b"\n", 65, "4 Received fields: this message is in a loop"),
        ("-i alice", b"\n" + b"x" * 79 * 1024 * 8, 65, "larger than limits.message_size (614400 octets)"),
        ("-t", b"X: y\n" * 300_000, 65, ""),
    ],
)
def test_what_can_not_be_sent_is_not(send: Sender, arguments: str, content: bytes, code: int, problem: str) -> None:
    told = send(arguments, content)
    assert told.startswith(f"{code} trimta sendmail: ")
    assert problem in told
    assert told.count("\n") == 0
    if (send.folder / "var").exists():
        assert send.queued() == []
        assert [*(send.folder / "var").glob("spool/*")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_no_permission_for_the_queue_is_77(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "conf.toml").write_text(CONFIGURATION)
        send = Sender(folder, capsys)
        assert send("alice") == "0"
        os.seteuid(65534)
        try:
            assert send("alice").startswith("77 trimta sendmail: no permission for the queue in ")
        finally:
            os.seteuid(0)


def test_a_queue_that_is_none_is_75(send: Sender) -> None:
    (send.folder / "var").mkdir()
    (send.folder / "var" / "queue.sqlite3").write_bytes(b"no database" * 100)
    told = send("alice")
    assert told.startswith("75 trimta sendmail: ")
    assert "queue.sqlite3" in told


def test_no_room_is_75_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "conf.toml").write_text(CONFIGURATION)
    assert run_trimta(tmp_path, "sendmail", "alice", text="\n").returncode == 0
    limited = f"ulimit -f 300; exec {sys.executable} -m trimta sendmail -i alice"  # units of 512 or 1024 octets
    told = run(tmp_path, "sh", "-c", limited, text="\n" + "x" * 500_000, exit_code=75)
    assert "nothing was sent" in told
    assert [*(tmp_path / "var" / "spool").iterdir()] == []


def test_a_closed_standard_input_is_no_message(tmp_path: Path) -> None:
    (tmp_path / "conf.toml").write_text(CONFIGURATION)
    told = run(tmp_path, "sh", "-c", f"exec {sys.executable} -m trimta sendmail alice <&-", exit_code=74)
    assert told == "trimta sendmail: standard input is closed; nothing was sent\n"


def test_newaliases_has_nothing_to_do(send: Sender) -> None:
    assert send("-bi") == "0"
    assert not (send.folder / "var").exists()


# With the server.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrimtaProcess]:
    with TrimtaProcess(tmp_path_factory.mktemp("sendmail"), CONFIGURATION) as running:
        yield running


@pytest.fixture(scope="module")
def sendmail(server: TrimtaProcess) -> Path:
    """A program called sendmail, as an installation would link it."""
    path = server.folder / "bin" / "sendmail"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom trimta.cli.main import main\nsys.exit(main())\n")
    path.chmod(0o755)
    return path


def awaited(server: TrimtaProcess, *criteria: str) -> email.message.Message:
    """The message that `trimta wait` finds."""
    path = server.command("wait", "--timeout", f"{DEADLINE:g}s", *criteria).strip()
    return email.message_from_bytes(Path(path).read_bytes())


def test_a_message_queued_while_the_server_is_down_goes_out_when_it_starts(tmp_path: Path) -> None:
    server = TrimtaProcess(tmp_path, CONFIGURATION)
    for arguments, text in (
        (("-f", "bob@dev.test", "alice"), "Subject: early\n\n"),
        (("-f", "bob@dev.test", "nobody@dev.test"), "Subject: unknown\n\n"),
        (("-f", "bob@dev.test", "x@closed.test"), "Subject: closed\n\n"),
    ):
        assert run_trimta(tmp_path, "-c", "conf.toml", "sendmail", *arguments, text=text).returncode == 0
    assert server.raw_messages("alice") == []
    with server:
        assert awaited(server, "--subject", "early")["Return-Path"] == "<bob@dev.test>"
        reports = [awaited(server, "--to", "bob", "--from", "<>")]
        mark = server.command("wait", "--to", "bob", "--from", "<>", "--print", "mark").strip()
        reports.append(awaited(server, "--to", "bob", "--from", "<>", "--since", mark))
    assert sorted(re.findall(r"^Status: (.*)$", "".join(map(str, reports)), re.MULTILINE)) == ["5.1.1", "5.7.1"]


def test_a_running_server_delivers_at_once_and_says_so(server: TrimtaProcess) -> None:
    server.command("sendmail", "-f", "bob@dev.test", "alice+x@dev.test", "far@ex.test", text="Subject: at once\n\n")
    [accepted] = server.wait_for(r"accepted id=(\S+) sender=<bob@dev\.test> to=alice\+x@dev\.test,far@ex\.test")
    server.wait_for(rf"delivered id={accepted[1]}", count=2)
    message = awaited(server, "--to", "alice", "--subject", "at once")
    assert (message["X-Original-To"], message["Delivered-To"]) == ("alice+x@dev.test", "alice@dev.test")
    assert awaited(server, "--to", "far@ex.test", "--subject", "at once")["Delivered-To"] == "far@ex.test"


def test_bs_speaks_smtp_and_at_the_250_it_is_there(server: TrimtaProcess) -> None:
    dialogue = """\
        EHLO client.test
        MAIL FROM:<bob@dev.test>
        RCPT TO:<alice@dev.test>
        RCPT TO:<x@later.test>
        RCPT TO:<nobody@dev.test>
        DATA
        Subject: by -bs

        ..dot
        .
        QUIT
        """
    said = server.command("sendmail", "-bs", text=textwrap.dedent(dialogue).replace("\n", "\r\n"))
    codes = [line[:3] for line in said.splitlines() if line[3:4] == " "]
    assert codes == ["220", "250", "250", "250", "250", "550", "354", "250", "221"]
    [message] = [one for one in server.messages("alice") if one["Subject"] == "by -bs"]
    assert message.get_content() == ".dot\n"
    with Queue(server.folder / "var") as queue:
        [held] = [one for one in queue.entries.list_envelopes() if one.envelope.domain == "later.test"]
    assert said.splitlines()[-2] == f"250 2.6.0 queued as {held.envelope.message_id}"


def test_bs_wakes_the_server_for_what_it_queued(server: TrimtaProcess) -> None:
    dialogue = "HELO c\r\nMAIL FROM:<bob@dev.test>\r\nRCPT TO:<r@closed.test>\r\n"
    said = server.command(
        "sendmail", "-bs", text=dialogue + "RCPT TO:<team@dev.test>\r\nDATA\r\nSubject: t\r\n\r\n.\r\n"
    )
    assert "550 5.7.1 closed" in said
    assert "250 2.6.0" in said
    awaited(server, "--to", "carol@partner.test", "--subject", "t")


def test_mail_of_cron(server: TrimtaProcess, sendmail: Path) -> None:
    job = (
        "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> backup\nAuto-Submitted: auto-generated\n\ndone\n"
    )
    run(server.folder, str(sendmail), "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root", text=job)
    message = awaited(server, "--subject", "cron*backup")
    assert (message["Return-Path"], message["Delivered-To"]) == ("<root@dev.test>", "root@dev.test")
    assert (message["From"], message["To"]) == ("root@dev.test (Cron Daemon)", "root@dev.test")


def test_mail_of_php(server: TrimtaProcess, sendmail: Path) -> None:
    script = """
        $headers = ["From" => "shop@dev.test", "Bcc" => "bob@dev.test", "MIME-Version" => "1.0",
            "Content-Type" => "text/plain; charset=utf-8", "Content-Transfer-Encoding" => "8bit"];
        exit(mail("Alice <alice@dev.test>", "From PHP", "Grüße\n.\nvon PHP", $headers, "-f shop@dev.test") ? 0 : 1);
    """
    path = f"sendmail_path={sendmail} -t -i"
    run(server.folder, "php", "-n", "-d", path, "-r", script)
    message = awaited(server, "--to", "alice", "--subject", "from php")
    assert message.get_payload(decode=True).decode() == "Grüße\n.\nvon PHP\n"  # type: ignore[union-attr]
    assert "Bcc" not in message
    assert awaited(server, "--to", "bob", "--subject", "from php")["Return-Path"] == "<shop@dev.test>"


def test_mail_of_git_send_email(server: TrimtaProcess, sendmail: Path, tmp_path: Path) -> None:
    if not (Path(run(tmp_path, "git", "--exec-path").strip()) / "git-send-email").exists():
        missing("git send-email is not installed")
    identity = {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "TRIMTA_CONF": str(server.folder / "conf.toml")}
    (tmp_path / "gitconfig").write_text("[user]\nname = Bob Ö\nemail = bob@dev.test\n")
    (tmp_path / "file").write_text("one\n")
    run(tmp_path, "git", "init", "-q", environment=identity)
    run(tmp_path, "git", "add", "file", environment=identity)
    run(tmp_path, "git", "commit", "-q", "-m", "Add a file", environment=identity)
    run(
        tmp_path, "git", "send-email", "--root", "HEAD", "--to", "alice@dev.test", "--cc", "Carol <carol@ex.test>",
        "--confirm=never", "--envelope-sender=bob@dev.test", f"--sendmail-cmd={sendmail}", environment=identity,
    )  # fmt: skip
    message = awaited(server, "--to", "alice", "--subject", "[[]PATCH] Add a file")
    assert b"\n+one\n" in message.get_payload(decode=True)
    assert awaited(server, "--to", "carol@ex.test", "--from", "bob@dev.test")["Message-Id"] == message["Message-Id"]


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (
            "mutt",
            ["-n", "-F", "/dev/null", "-e", "set sendmail='{sendmail} -oem -oi' from=bob@dev.test use_envelope_from"],
        ),
        ("s-nail", ["-:/", "-S", "mta={sendmail}", "-S", "from=bob@dev.test", "-r", "bob@dev.test"]),
    ],
)
def test_mail_of_user_agents(server: TrimtaProcess, sendmail: Path, program: str, arguments: list[str]) -> None:
    words = [word.format(sendmail=sendmail) for word in arguments]
    blind = ["-b", "bob@dev.test"]
    run(server.folder, program, *words, "-s", f"by {program}", *blind, "alice@dev.test", text="one\n.\ntwo\n")
    message = awaited(server, "--to", "alice", "--subject", f"by {program}")
    assert message["Return-Path"] == "<bob@dev.test>"
    assert "one\n.\ntwo\n" in message.as_string()
    assert awaited(server, "--to", "bob", "--subject", f"by {program}")["Message-ID"] == message["Message-ID"]


def test_bp_shows_the_queue(server: TrimtaProcess, sendmail: Path) -> None:
    server.command("sendmail", "someone@later.test", text="Subject: held\n\n")
    assert "someone@later.test" in run(server.folder, str(sendmail), "-bp")
