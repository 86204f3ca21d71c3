"""Command lines of a client: the command on each, and the reply to one that has none."""

from __future__ import annotations

from datetime import UTC, datetime

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
from trimta.smtp.errors import CommandRefusedError
from trimta.smtp.extensions import FutureRelease, MailProtocol, Offer
from trimta.smtp.parsing import CommandLine, chunk_size, parse_command

LIMIT = datetime(2030, 1, 1, tzinfo=UTC)
SMTP = Offer(starttls=True, auth=("PLAIN", "LOGIN"), size_limit=1000, max_recipients=5)
SUBMISSION = Offer(
    protocol=MailProtocol.SUBMISSION, starttls=True, auth=("PLAIN", "LOGIN"), future_release=FutureRelease(1000, LIMIT)
)
LMTP = Offer(protocol=MailProtocol.LMTP)
HELO = Offer(extended=False)

ALICE = Mailbox("alice", "dev.test")
BOB = Mailbox("bob", "partner.test")
JÜRGEN = Mailbox("jürgen", "bücher.test")


def mail(**parameters: object) -> Mail:
    return Mail(ALICE, MailParameters(**parameters))  # type: ignore[arg-type]


def parsed(line: bytes, offer: Offer) -> Command:
    return parse_command(CommandLine(line), offer)


def refusal(line: bytes, offer: Offer = SMTP) -> str:
    """Code and status of the reply to a bad line."""
    with pytest.raises(CommandRefusedError) as caught:
        parsed(line, offer)
    reply = caught.value.reply
    assert reply.text.isascii()
    return f"{reply.code} {reply.status}"


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("EHLO client.test", Ehlo("client.test")),
        ("ehlo [IPv6:::1]", Ehlo("[IPv6:::1]")),
        ("EHLO under_score", Ehlo("under_score")),
        ("HELO  a ", Helo("a")),
        ("MAIL FROM:<>", Mail(None)),
        ("MAIL FROM:<alice@dev.test>", Mail(ALICE)),
        ("mail from: <alice@dev.test>  ", Mail(ALICE)),
        ("Mail  From:   <alice@DEV.test>", Mail(ALICE)),
        ("MAIL FROM:alice@dev.test", Mail(ALICE)),
        ("MAIL FROM: alice@dev.test  SIZE=1000", mail(size=1000)),
        ("MAIL FROM:jürgen@bücher.test", Mail(JÜRGEN, MailParameters(smtputf8=True))),
        ("RCPT TO:alice@dev.test NOTIFY=NEVER", Rcpt(ALICE, frozenset({Notify.NEVER}))),
        ("RCPT TO: Postmaster", Rcpt(Mailbox("Postmaster", ""))),
        ("MAIL FROM:<alice@dev.test> SIZE=1000", mail(size=1000)),
        ("MAIL FROM:<alice@dev.test>  size=0  body=8bitmime", mail(size=0, body=BodyKind.EIGHT_BIT)),
        ("MAIL FROM:<alice@dev.test> BODY=BINARYMIME", mail(body=BodyKind.BINARY)),
        ("MAIL FROM:<alice@dev.test> SMTPUTF8", mail(smtputf8=True)),
        ("MAIL FROM:<alice@dev.test> RET=hdrs ENVID=a+20b+2B", mail(ret=Ret.HEADERS, envid="a b+")),
        ("MAIL FROM:<alice@dev.test> ENVID=" + "x" * 100, mail(envid="x" * 100)),
        ("MAIL FROM:<alice@dev.test> AUTH=<>", mail(auth="<>")),
        ("MAIL FROM:<alice@dev.test> AUTH=e+3Dmc2@example.com", mail(auth="e=mc2@example.com")),
        ("MAIL FROM:<alice@dev.test> BY=120;R", mail(by=By(120, ByMode.RETURN))),
        ("MAIL FROM:<alice@dev.test> BY=-1;nt", mail(by=By(-1, ByMode.NOTIFY, True))),
        ("MAIL FROM:<alice@dev.test> BY=+0;N", mail(by=By(0, ByMode.NOTIFY))),
        ("MAIL FROM:<jürgen@bücher.test>", Mail(JÜRGEN, MailParameters(smtputf8=True))),
        ("MAIL FROM:<alice@bücher.test>", Mail(Mailbox("alice", "bücher.test"), MailParameters(smtputf8=True))),
        ("MAIL FROM:<@hop.test,@two.test:alice@dev.test>", Mail(ALICE)),
        ('MAIL FROM:<" > "@dev.test> SIZE=1', Mail(Mailbox(" > ", "dev.test"), MailParameters(size=1))),
        ("RCPT TO:<alice@dev.test>", Rcpt(ALICE)),
        ("rcpt to: <Postmaster>", Rcpt(Mailbox("Postmaster", ""))),
        ("RCPT TO:<alice@dev.test> NOTIFY=NEVER", Rcpt(ALICE, frozenset({Notify.NEVER}))),
        ("RCPT TO:<alice@dev.test> notify=delay,Success", Rcpt(ALICE, frozenset({Notify.DELAY, Notify.SUCCESS}))),
        (
            "RCPT TO:<alice@dev.test> ORCPT=rfc822;a+2Bb@c.test",
            Rcpt(ALICE, None, OriginalRecipient("rfc822", "a+b@c.test")),
        ),
        (
            r"RCPT TO:<alice@dev.test> ORCPT=utf-8;j\x{FC}@c.test",
            Rcpt(ALICE, None, OriginalRecipient("utf-8", "jü@c.test")),
        ),
        ("RCPT TO:<alice@dev.test> ORCPT=utf-8;jü@c.test", Rcpt(ALICE, None, OriginalRecipient("utf-8", "jü@c.test"))),
        (
            "RCPT TO:<alice@dev.test> NOTIFY=DELAY,SUCCESS,delay",
            Rcpt(ALICE, frozenset({Notify.DELAY, Notify.SUCCESS})),
        ),
        ("RCPT TO:<jürgen@bücher.test>", Rcpt(JÜRGEN)),
        ("DATA ", Data()),
        ("BDAT 0", Bdat(0)),
        ("bdat 00012  last", Bdat(12, True)),
        ("RSET", Rset()),
        ("NOOP", Noop()),
        ("noop anything at all", Noop()),
        ("quit\t", Quit()),
        ("VRFY alice smith", Vrfy("alice smith")),
        ("VRFY jürgen SMTPUTF8", Vrfy("jürgen", True)),
        ("VRFY jürgen", Vrfy("jürgen")),
        ("VRFY alice smtputf8", Vrfy("alice", True)),
        ("VRFY smtputf8", Vrfy("smtputf8")),
        ("EXPN team", Expn("team")),
        ("HELP", Help()),
        ("HELP mail", Help("mail")),
        ("ETRN dev.test", Etrn("dev.test")),
        ("ETRN @dev.test", Etrn("@dev.test")),
        ("STARTTLS", StartTls()),
        ("AUTH plain", Auth("PLAIN")),
        ("auth PLAIN AGEAYg==", Auth("PLAIN", b"\0a\0b")),
        ("AUTH Login =", Auth("LOGIN", b"")),
    ],
)
def test_a_command_line_is_read(line: str, command: Command) -> None:
    assert parsed(line.encode(), SMTP) == command


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (b"a" * 255, "a" * 255),
        ("ü".encode() * 127, "ü" * 127),
        (b"\xfc" * 255, "?" * 255),
        (b"my own  PC", "my own  PC"),
        ("MÜLLER-PC".encode(), "MÜLLER-PC"),
        (b"M\xdcLLER-PC", "M?LLER-PC"),
        (b"PC.", "PC."),
        (b"-", "-"),
        (b"[", "["),
        (b"<pc>", "<pc>"),
        (b"[IPv6:fe80::1%eth0]", "[IPv6:fe80::1%eth0]"),
        (b"a(b)\\;,@", "a(b)\\;,@"),
        (b"a\x1b[2J\tb\x7f\x80", "a?[2J?b??"),
        ("a\u202eb\u2028".encode(), "a?b?"),
    ],
)
@pytest.mark.parametrize("verb", ["HELO", "EHLO", "LHLO"])
def test_any_name_of_a_client_is_taken(verb: str, given: bytes, name: str) -> None:
    command = parsed(verb.encode() + b" " + given, LMTP if verb == "LHLO" else SMTP)
    assert isinstance(command, Helo | Ehlo)
    assert command.domain == name


@pytest.mark.parametrize(
    ("given", "addr_type", "address"),
    [
        ("rfc822;a+40b.test", "rfc822", "a@b.test"),
        ("RFC822;A@B.test", "RFC822", "A@B.test"),
        ("rfc822;no+20address+20at+20all", "rfc822", "no address at all"),
        ("x400;/G=a".replace("=", "+3D"), "x400", "/G=a"),
        (r"utf-8;j\x{fc}@b.test", "utf-8", "jü@b.test"),
        ("UTF-8;jü@b.test", "UTF-8", "jü@b.test"),
        ("utf-8;a+2Bb@x", "utf-8", "a+b@x"),
        (r"utf-8;a\b@x", "utf-8", r"a\b@x"),
        (r"utf-8;\x{D800}", "utf-8", r"\x{D800}"),
        (r"utf-8;a\x{0D}\x{0A}X:y", "utf-8", r"a\x{0D}\x{0A}X:y"),
        ("utf-8;a\x85", "utf-8", r"a\x{85}"),
    ],
)
def test_orcpt_is_taken_whatever_its_address_is_and_kept_as_it_was_given(
    given: str, addr_type: str, address: str
) -> None:
    command = parsed(f"RCPT TO:<alice@dev.test> ORCPT={given}".encode(), SMTP)
    assert isinstance(command, Rcpt)
    orcpt = command.orcpt
    assert orcpt is not None
    assert (orcpt.addr_type, orcpt.address, orcpt.received) == (addr_type, address, given.partition(";")[2])


def test_lhlo_is_the_ehlo_of_lmtp() -> None:
    assert parsed(b"LHLO a", LMTP) == Ehlo("a", lmtp=True)
    assert refusal(b"EHLO a", LMTP) == refusal(b"HELO a", LMTP) == refusal(b"LHLO a", SMTP) == "500 5.5.1"


@pytest.mark.parametrize("line", ["VRFY a", "EXPN a", "ETRN a.test", "HELP"])
def test_lmtp_has_none_of_smtps_extras(line: str) -> None:
    assert refusal(line.encode(), LMTP) == "502 5.5.1"


FROM, TO = "MAIL FROM:<a@dev.test> ", "RCPT TO:<a@dev.test> "


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("", "500 5.5.1"),
        (" EHLO a", "500 5.5.1"),
        ("FOO", "500 5.5.1"),
        ("MAILFROM:<>", "500 5.5.1"),
        ("EHLO\ta", "500 5.5.1"),
        ("SEND FROM:<a@b>", "502 5.5.1"),
        ("TURN", "502 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("HELO  ", "501 5.5.4"),
        ("HELO " + "a" * 256, "501 5.5.4"),
        ("EHLO " + "ü" * 128, "501 5.5.4"),
        ("EHLO a\rb", "500 5.5.2"),
        ("FÖO", "500 5.5.2"),
        ("NOOP ü", "500 5.5.2"),
        ("HELP ü", "500 5.5.2"),
        ("rſet", "500 5.5.2"),  # a long s, whose upper case is ASCII
        ("MAIL", "501 5.5.4"),
        ("MAIL <a@dev.test>", "501 5.5.4"),
        ("MAIL FROM <a@dev.test>", "501 5.5.4"),
        ("MAIL FROM :<>", "501 5.5.4"),
        ("MAIL TO:<a@dev.test>", "501 5.5.4"),
        ("MAIL FROM:", "501 5.1.7"),
        ("MAIL FROM:a", "501 5.1.7"),
        ("MAIL FROM:a@dev.test>", "501 5.1.7"),
        ("MAIL FROM: Alice <a@dev.test>", "501 5.1.7"),
        ("RCPT TO:a", "501 5.1.3"),
        ("RCPT TO: ", "501 5.1.3"),
        ("MAIL FROM:<a>", "501 5.1.7"),
        ("MAIL FROM:<postmaster>", "501 5.1.7"),
        ("MAIL FROM:<a@dev.test>SIZE=1", "501 5.1.7"),
        ("MAIL FROM:<a@-dev.test>", "501 5.1.7"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a b@dev.test>", "501 5.1.3"),
        ("RCPT TO:<a@dev..test>", "501 5.1.3"),
        ("RCPT FROM:<a@dev.test>", "501 5.5.4"),
        (FROM + "FOO", "555 5.5.4"),
        (FROM + "FOO=bar", "555 5.5.4"),
        (FROM + "NOTIFY=NEVER", "555 5.5.4"),
        (FROM + "HOLDFOR=1", "555 5.5.4"),  # submission only
        (TO + "SIZE=1", "555 5.5.4"),
        (FROM + "=1", "501 5.5.4"),
        (FROM + "SIZE=1=2", "501 5.5.4"),
        (FROM + "-SIZE=1", "501 5.5.4"),
        (FROM + "SIZE=1 size=1", "501 5.5.4"),
        (FROM + "SMTPUTF8 SMTPUTF8", "501 5.5.4"),
        (TO + "NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"),
        (FROM + "SIZE", "501 5.5.4"),
        (FROM + "SIZE=", "501 5.5.4"),
        (FROM + "SIZE=-1", "501 5.5.4"),
        (FROM + "SIZE=1k", "501 5.5.4"),
        (FROM + "SIZE=" + "1" * 21, "501 5.5.4"),
        (FROM + "SIZE=1001", "552 5.3.4"),
        (FROM + "SIZE=" + "9" * 20, "552 5.3.4"),
        (FROM + "BODY", "501 5.5.4"),
        (FROM + "BODY=9BIT", "501 5.5.4"),
        (FROM + "SMTPUTF8=1", "501 5.5.4"),
        (FROM + "RET=ALL", "501 5.5.4"),
        (FROM + "ENVID", "501 5.5.4"),
        (FROM + "ENVID=a+", "501 5.5.4"),
        (FROM + "ENVID=+0A", "501 5.5.4"),
        (FROM + "ENVID=+C3+BC", "501 5.5.4"),
        (FROM + "ENVID=" + "x" * 101, "501 5.5.4"),
        (FROM + "ENVID=ü", "500 5.5.2"),
        (FROM + "AUTH", "501 5.5.4"),
        (FROM + "AUTH=+", "501 5.5.4"),
        (FROM + "BY=0;R", "501 5.5.4"),
        (FROM + "BY=-5;R", "501 5.5.4"),
        (FROM + "BY=5", "501 5.5.4"),
        (FROM + "BY=5;X", "501 5.5.4"),
        (FROM + "BY=1234567890;N", "501 5.5.4"),
        (FROM + "BY=--5;N", "501 5.5.4"),
        (TO + "NOTIFY", "501 5.5.4"),
        (TO + "NOTIFY=", "501 5.5.4"),
        (TO + "NOTIFY=NEVER,DELAY", "501 5.5.4"),
        (TO + "NOTIFY=NEVER,NEVER", "501 5.5.4"),
        (TO + "NOTIFY=DELAY,", "501 5.5.4"),
        (TO + "NOTIFY=RELAYED", "501 5.5.4"),
        (TO + "ORCPT", "501 5.5.4"),
        (TO + "ORCPT=a@b", "501 5.5.4"),
        (TO + "ORCPT=;a@b", "501 5.5.4"),
        (TO + "ORCPT=x400;/G=a", "501 5.5.4"),
        (TO + "ORCPT=rfc822;", "501 5.5.4"),
        (TO + "ORCPT=rfc822;a+zz", "501 5.5.4"),
        (TO + "ORCPT=rfc822;" + "a" * 500, "501 5.5.4"),
        (TO + "ORCPT=rfc822;ü@b", "500 5.5.2"),
        (TO + "NOTIFY=NEVER,ü", "500 5.5.2"),
        ("DATA now", "501 5.5.4"),
        ("RSET x", "501 5.5.4"),
        ("QUIT x", "501 5.5.4"),
        ("STARTTLS x", "501 5.5.4"),
        ("BDAT", "501 5.5.4"),
        ("BDAT LAST", "501 5.5.4"),
        ("BDAT -1", "501 5.5.4"),
        ("BDAT 1 FIRST", "501 5.5.4"),
        ("BDAT 1LAST", "501 5.5.4"),
        ("BDAT 9223372036854775808", "501 5.5.4"),
        ("BDAT " + "0" * 21, "501 5.5.4"),
        ("VRFY", "501 5.5.4"),
        ("EXPN ", "501 5.5.4"),
        ("ETRN", "501 5.5.4"),
        ("ETRN a b", "501 5.5.4"),
        ("ETRN @", "501 5.5.4"),
        ("AUTH", "501 5.5.4"),
        ("AUTH PLAIN a b", "501 5.5.4"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("AUTH PLAIN AAA", "501 5.5.2"),
        ("AUTH PLAIN A*AA", "501 5.5.2"),
        ("RSET\r", "500 5.5.2"),
        ("NOOP a\rb", "500 5.5.2"),
        ("NOOP a\0b", "500 5.5.2"),
    ],
)
def test_a_bad_line_gets_its_reply(line: str, reply: str) -> None:
    assert refusal(line.encode()) == reply


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"VRFY \xff", "500 5.5.2"),
        (b"MAIL FROM:<\xff@dev.test>", "501 5.1.7"),
        (b"RCPT TO:<a@\xc3.test>", "501 5.1.3"),
        (b"RCPT TO:<a@dev.test> ORCPT=utf-8;\xff", "500 5.5.2"),
        (b"\xff\xfe", "500 5.5.2"),
    ],
)
def test_octets_that_are_not_utf8_are_refused(line: bytes, reply: str) -> None:
    assert refusal(line) == reply


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("HOLDFOR=1000", {"hold_for": 1000}),
        ("HOLDUNTIL=2029-12-31T23:59:59Z", {"hold_until": datetime(2029, 12, 31, 23, 59, 59, tzinfo=UTC)}),
    ],
)
def test_submission_holds_messages(parameters: str, expected: dict[str, object]) -> None:
    assert parsed(f"MAIL FROM:<alice@dev.test> {parameters}".encode(), SUBMISSION) == mail(**expected)


@pytest.mark.parametrize(
    "parameters",
    [
        *("HOLDFOR", "HOLDFOR=0", "HOLDFOR=-1", "HOLDFOR=1001", "HOLDFOR=1234567890", "HOLDUNTIL=soon", "HOLDUNTIL"),
        *("HOLDUNTIL=2030-01-01T00:00:01Z", "HOLDFOR=1 HOLDUNTIL=2029-12-31T23:59:59Z"),
    ],
)
def test_a_hold_beyond_reason_is_refused(parameters: str) -> None:
    assert refusal((FROM + parameters).encode(), SUBMISSION) == "501 5.5.4"


@pytest.mark.parametrize("parameter", ["SIZE=1", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "BY=1;N", "AUTH=<>"])
def test_after_helo_there_are_no_parameters(parameter: str) -> None:
    assert refusal((FROM + parameter).encode(), HELO) == "555 5.5.4"


@pytest.mark.parametrize(
    ("keyword", "line", "reply"),
    [
        ("SIZE", FROM + "SIZE=1", "555 5.5.4"),
        ("8BITMIME", FROM + "BODY=8BITMIME", "555 5.5.4"),
        ("BINARYMIME", FROM + "BODY=BINARYMIME", "555 5.5.4"),
        ("CHUNKING", FROM + "BODY=BINARYMIME", "555 5.5.4"),
        ("CHUNKING", "BDAT 1 LAST", "502 5.5.1"),
        ("SMTPUTF8", FROM + "SMTPUTF8", "555 5.5.4"),
        ("SMTPUTF8", "MAIL FROM:<jürgen@dev.test>", "550 5.6.7"),
        ("8BITMIME", FROM + "SMTPUTF8", "555 5.5.4"),
        ("8BITMIME", "RCPT TO:<jürgen@dev.test>", "553 5.6.7"),
        ("SMTPUTF8", "RCPT TO:<a@bücher.test>", "553 5.6.7"),
        ("SMTPUTF8", "VRFY jürgen", "553 5.6.7"),
        ("SMTPUTF8", TO + "ORCPT=utf-8;jü", "500 5.5.2"),
        ("DSN", FROM + "RET=FULL", "555 5.5.4"),
        ("DSN", FROM + "ENVID=1", "555 5.5.4"),
        ("DSN", TO + "NOTIFY=NEVER", "555 5.5.4"),
        ("DSN", TO + "ORCPT=rfc822;a", "555 5.5.4"),
        ("DELIVERBY", FROM + "BY=1;N", "555 5.5.4"),
        ("AUTH", FROM + "AUTH=<>", "555 5.5.4"),
        ("AUTH", "AUTH PLAIN", "502 5.5.1"),
        ("STARTTLS", "STARTTLS", "502 5.5.1"),
        ("VRFY", "VRFY a", "502 5.5.1"),
        ("EXPN", "EXPN a", "502 5.5.1"),
        ("ETRN", "ETRN a.test", "502 5.5.1"),
        ("HELP", "HELP", "502 5.5.1"),
    ],
)
def test_what_is_hidden_is_not_accepted(keyword: str, line: str, reply: str) -> None:
    offer = Offer(hide=frozenset({keyword.lower()}), starttls=True, auth=("PLAIN",))
    assert refusal(line.encode(), offer) == reply


def test_auth_in_clear_is_told_to_start_tls() -> None:
    assert refusal(b"AUTH PLAIN", Offer(auth_behind_tls=True, starttls=True)) == "530 5.7.0"
    assert refusal(b"AUTH PLAIN", Offer(auth_behind_tls=True)) == "538 5.7.11"
    assert refusal(b"AUTH PLAIN", Offer(auth_behind_tls=True, hide=frozenset({"AUTH"}))) == "502 5.5.1"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"BDAT 5", 5),
        (b"bdat  5 LAST", 5),
        (b"BDAT 5x", None),
        (b"BDAT 5 \r\0", 5),
        (b"BDAT 9223372036854775807", 2**63 - 1),
        (b"BDAT 9223372036854775808", None),
        (b"BDAT " + b"1" * 30, None),
        (b"BDAT", None),
        (b"BDAT x", None),
    ],
)
def test_the_size_of_a_chunk_is_known_also_where_the_line_is_bad(line: bytes, size: int | None) -> None:
    assert chunk_size(line) == size


PIECES = st.sampled_from(
    [
        *(b"MAIL FROM:<", b"RCPT TO:<", b"a@b.test", b">", b" ", b"SIZE=", b"BODY=", b"NOTIFY=", b"ORCPT=", b"utf-8;"),
        *(b"BY=", b";R", b"HOLDUNTIL=", b"AUTH ", b"VRFY ", b"SMTPUTF8", b"BDAT ", b"LAST", b"EHLO ", b"\xc3\xbc"),
        *(b"\xff", b"ENVID=", b"+", b"\\x{", b"}", b"=", b"\0", b"\r", b"\t", b"1", b","),
    ]
)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60) | st.lists(PIECES, max_size=10).map(b"".join))
def test_any_line_is_a_command_or_gets_a_reply(line: bytes) -> None:
    for offer in (SMTP, SUBMISSION, LMTP, HELO):
        reply = None
        try:
            parsed(line, offer)
        except CommandRefusedError as error:
            reply = error.reply
        assert reply is None or (reply.klass == 5 and reply.status and reply.render().isascii())


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        *(
            (spelling, "MAIL")
            for spelling in ("MAIL", "mail", "Mail", "mAiL", "MAIL x", "mail\t", "mAIL\t x", "Mail  x")
        ),
        *((text, "") for text in ("", " MAIL", "MAIL:", "MAIL1", "\tMAIL", "MA\u0130L", "m\u00e4il", "MAIL\tx")),
        *(("ma", "MA"), ("starttls", "STARTTLS"), ("x\t\t y", "X"), ("\u017foml", "")),
    ],
)
def test_a_verb_is_the_first_word_in_any_case(line: str, verb: str) -> None:
    assert CommandLine(line.encode()).verb == verb
