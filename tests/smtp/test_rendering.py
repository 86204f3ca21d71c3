"""Command lines of our own: their octets, which the receiving side reads as the same command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.address import Mailbox
from trimta.mail.envelope import BodyKind, ByMode, Notify, OriginalRecipient, Ret
from trimta.smtp.commands import (
    Auth,
    Bdat,
    By,
    Command,
    Data,
    Ehlo,
    Etrn,
    Expn,
    Helo,
    Help,
    Mail,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from trimta.smtp.extensions import FutureRelease, MailProtocol, Offer
from trimta.smtp.parsing import CommandLine, parse_command
from trimta.smtp.rendering import render_command

LIMIT = datetime(2030, 1, 1, tzinfo=UTC)
SUBMISSION = Offer(
    protocol=MailProtocol.SUBMISSION, starttls=True, auth=("PLAIN", "LOGIN"), future_release=FutureRelease(1000, LIMIT)
)

ALICE = Mailbox("alice", "dev.test")
BOB = Mailbox("bob", "partner.test")
JÜRGEN = Mailbox("jürgen", "bücher.test")


def mail(**parameters: object) -> Mail:
    return Mail(ALICE, MailParameters(**parameters))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "octets"),
    [
        (Ehlo("a"), b"EHLO a\r\n"),
        (Ehlo("a", lmtp=True), b"LHLO a\r\n"),
        (Mail(None), b"MAIL FROM:<>\r\n"),
        (mail(size=5, body=BodyKind.EIGHT_BIT), b"MAIL FROM:<alice@dev.test> SIZE=5 BODY=8BITMIME\r\n"),
        (Mail(Mailbox("a", "bücher.test")), b"MAIL FROM:<a@xn--bcher-kva.test>\r\n"),
        (Mail(JÜRGEN, MailParameters(smtputf8=True)), "MAIL FROM:<jürgen@bücher.test> SMTPUTF8\r\n".encode()),
        (Rcpt(BOB, frozenset({Notify.DELAY, Notify.SUCCESS})), b"RCPT TO:<bob@partner.test> NOTIFY=SUCCESS,DELAY\r\n"),
        (
            Rcpt(BOB, None, OriginalRecipient("utf-8", "jürgen@b.test")),
            b"RCPT TO:<bob@partner.test> ORCPT=utf-8;j\\x{FC}rgen@b.test\r\n",
        ),
        (Auth("PLAIN", b""), b"AUTH PLAIN =\r\n"),
        (Bdat(5, True), b"BDAT 5 LAST\r\n"),
        (StartTls(), b"STARTTLS\r\n"),
    ],
)
def test_a_command_is_rendered(command: Command, octets: bytes) -> None:
    assert render_command(command) == octets


def test_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    with pytest.raises(ValueError, match="SMTPUTF8"):
        render_command(Rcpt(JÜRGEN))
    assert render_command(Rcpt(JÜRGEN), smtputf8=True) == "RCPT TO:<jürgen@bücher.test>\r\n".encode()


@pytest.mark.parametrize("command", [Helo("a\r\nDATA"), Vrfy("a\nb"), Help("\0"), Etrn("a\rb")])
def test_nothing_breaks_out_of_its_line(command: Command) -> None:
    with pytest.raises(ValueError, match="line end"):
        render_command(command)


WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
UTF8 = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zs"]), min_size=1, max_size=20)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)
MAILBOXES = st.builds(
    Mailbox,
    PRINTABLE | st.sampled_from(["jürgen", "用户", 'a"b\\c']),
    st.sampled_from(["dev.test", "[127.0.0.1]", "[IPv6:::1]", "bücher.test", "under_score.test"]),
)
MAILS = st.builds(
    lambda path, parameters: Mail(path, parameters),
    st.none() | MAILBOXES,
    st.builds(
        MailParameters,
        size=st.none() | st.integers(0, 10**19),
        body=st.none() | st.sampled_from(BodyKind),
        smtputf8=st.just(True),
        ret=st.none() | st.sampled_from(Ret),
        envid=st.none() | PRINTABLE,
        auth=st.none() | PRINTABLE,
        by=st.none() | st.builds(By, st.integers(1, 999_999_999), st.sampled_from(ByMode), st.booleans()),
    ),
)
NOTIFIES = st.just({Notify.NEVER}) | st.sets(st.sampled_from([*Notify][1:]), min_size=1)
RCPTS = st.builds(
    Rcpt,
    MAILBOXES,
    st.none() | NOTIFIES.map(frozenset),
    st.none()
    | st.builds(
        OriginalRecipient, st.sampled_from(["rfc822", "utf-8", "x"]), PRINTABLE | st.sampled_from(["jü rgen+"])
    ),
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    MAILS,
    RCPTS,
    st.builds(Helo, WORDS),
    st.builds(Ehlo, WORDS),
    st.builds(Bdat, st.integers(0, 2**63 - 1), st.booleans()),
    st.builds(Vrfy, UTF8.filter(lambda s: s.upper() != "SMTPUTF8"), st.just(True)),
    st.builds(Expn, WORDS.filter(lambda s: s.upper() != "SMTPUTF8"), st.just(False)),
    st.builds(Help, st.just("") | WORDS),
    st.builds(Etrn, WORDS.filter(lambda s: s not in "@#")),
    st.builds(Auth, st.sampled_from(["PLAIN", "LOGIN"]), st.none() | st.binary(max_size=40)),
    st.sampled_from([Data(), Rset(), Noop(), Quit(), StartTls()]),
)


@settings(deadline=None, max_examples=100)
@given(COMMANDS)
def test_what_the_client_renders_the_server_reads(command: Command) -> None:
    offer = Offer(starttls=True, auth=("PLAIN", "LOGIN"))
    line = render_command(command, smtputf8=True)
    assert line.endswith(b"\r\n")
    assert parse_command(CommandLine(line[:-2]), offer) == command


HOLDS = st.integers(1, 1000).map(lambda n: {"hold_for": n}) | st.integers(0, 10**15).map(
    lambda microseconds: {"hold_until": datetime(1990, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)}
)


@settings(deadline=None, max_examples=50)
@given(HOLDS)
def test_holds_survive_the_wire(parameters: dict[str, object]) -> None:
    command = mail(**parameters)
    assert parse_command(CommandLine(render_command(command)[:-2]), SUBMISSION) == command
