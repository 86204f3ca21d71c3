"""The receiving core, spoken to in octets: whole, octet by octet, and with more behind."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.smtp.support import BAD_ORDER, DONE, GREETING, MAIL, OK, QUEUED, RCPT, Peer, in_transaction, started
from tests.support.effort import bounded_effort
from trimta.mail.envelope import BodyKind
from trimta.mail.reply import Reply
from trimta.smtp.commands import (
    Auth,
    Data,
    Ehlo,
    Mail,
    Noop,
    Rcpt,
)
from trimta.smtp.errors import LocalProtocolError
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.server import ServerConnection
from trimta.smtp.server_events import CLOSED, NEED_DATA, AuthResponse, BadInput, ContentEnd, ContentPiece
from trimta.smtp.server_settings import AuthPolicy, BareNewline, ServerSettings
from trimta.smtp.state import SessionState

# A whole conversation


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 7])
def test_a_pipelined_conversation(pieces: int) -> None:
    peer = Peer()
    body = b"Subject: x\r\n\r\n..dot\r\nbye\r\n.\r\n"
    said = b"EHLO c\r\n" + (MAIL + RCPT + RCPT + "DATA\r\n").encode() + body + b"NOOP\nQUIT\r\nNOOP\r\n"
    assert peer.say(said, pieces) == ["250", DONE, DONE, DONE, "354", QUEUED, DONE, "221 2.0.0"]
    assert peer.messages == [b"Subject: x\n\n.dot\nbye\n"]
    assert peer.ends == [ContentEnd(last=True, size=25)]
    assert peer.closed


def test_the_ehlo_reply_has_our_name_and_the_extensions() -> None:
    peer = Peer(size_limit=1000)
    peer.connection.receive_data(b"EHLO c\r\n")
    assert isinstance(peer.connection.next_event(), Ehlo)
    peer.connection.reply(peer.connection.ehlo_reply())
    lines = peer.connection.data_to_send().decode().split("\r\n")
    assert lines[0] == "250-mx.dev.test"
    assert "250-SIZE 1000" in lines
    assert lines[-2] == "250 HELP"


def test_after_helo_again_nothing_of_ehlo_is_left() -> None:
    peer = started()
    assert peer.say("HELO d\r\nMAIL FROM:<a@dev.test> SIZE=1\r\n") == ["250", "555 5.5.4"]
    assert (peer.connection.helo, peer.connection.esmtp) == ("d", False)
    assert peer.say("EHLO e\r\nMAIL FROM:<a@dev.test> SIZE=1\r\n") == ["250", DONE]


def test_replies_are_joined_until_more_is_needed() -> None:
    peer = started()
    peer.connection.receive_data((MAIL + RCPT).encode())
    for _ in range(2):
        peer.answer(peer.connection.next_event())
    assert peer.connection.next_event() is NEED_DATA
    assert peer.connection.data_to_send() == OK.render() * 2
    assert peer.connection.data_to_send() == b""


def test_no_event_overtakes_a_reply() -> None:
    connection = ServerConnection(ServerSettings(hostname="h"))
    with pytest.raises(LocalProtocolError):
        connection.next_event()
    connection.reply(GREETING)
    connection.receive_data(b"NOOP\r\nNOOP\r\n")
    assert connection.next_event() == Noop()
    with pytest.raises(LocalProtocolError):
        connection.next_event()
    connection.reply(OK)
    with pytest.raises(LocalProtocolError):
        connection.reply(OK)


@pytest.mark.parametrize(
    "said", ["", "EHLO c\r\nMA", "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\nx\r\n.\r"]
)
def test_the_end_of_the_octets_is_the_end(said: str) -> None:
    peer = Peer()
    if said:
        peer.say(said)
    peer.connection.receive_data(b"")
    assert peer.connection.next_event() is CLOSED
    assert peer.connection.next_event() is CLOSED
    assert not peer.messages


@pytest.mark.parametrize("code", [421, 554])
def test_a_greeting_that_is_none_ends_the_conversation(code: int) -> None:
    connection = ServerConnection(ServerSettings(hostname="h"))
    connection.reply(Reply.of(code, "", "no"))
    assert connection.next_event() is CLOSED


def test_a_421_may_be_said_at_any_time() -> None:
    peer = started()
    peer.connection.reply(Reply.of(421, "4.4.2", "idle"))
    assert peer.replies() == ["421 4.4.2"]
    assert peer.connection.next_event() is CLOSED
    peer = started(policy=lambda event: Reply.of(421, "4.7.0", "x") if isinstance(event, BadInput) else None)
    assert peer.say("FOO\r\nNOOP\r\n") == ["421 4.7.0"]
    assert peer.closed


# The mail transaction


@pytest.mark.parametrize("reset", ["RSET", "EHLO d", "HELO d"])
@pytest.mark.parametrize("body", ["", "BDAT 3\r\nabc"])
def test_a_transaction_is_forgotten(reset: str, body: str) -> None:
    peer = in_transaction()
    peer.say(f"{body}{reset}\r\n")
    assert peer.connection.transaction is None
    peer.body = b""
    assert peer.say(RCPT + "DATA\r\n") == [BAD_ORDER, BAD_ORDER]
    assert peer.say(MAIL + RCPT + "DATA\r\nx\r\n.\r\n") == [DONE, DONE, "354", QUEUED]
    assert peer.messages == [b"x\n"]


def test_accepted_recipients_are_kept_and_others_counted() -> None:
    refused = Reply.of(550, "5.1.1", "no such user")
    peer = started(
        policy=lambda event: refused if isinstance(event, Rcpt) and "no" in str(event.forward_path) else None
    )
    assert peer.say(MAIL + "RCPT TO:<no@dev.test>\r\nDATA\r\n") == [DONE, "550 5.1.1", "554 5.5.1"]
    assert peer.say("RCPT TO:<a@dev.test>\r\nRCPT TO:<no@dev.test>\r\nRCPT TO:<b@dev.test>\r\n")[0] == DONE
    transaction = peer.connection.transaction
    assert transaction is not None
    assert [str(rcpt.forward_path) for rcpt in transaction.recipients] == ["a@dev.test", "b@dev.test"]
    assert transaction.refused == 2


def test_data_that_is_refused_leaves_the_transaction() -> None:
    peer = in_transaction(policy=lambda event: Reply.of(451, "4.3.0", "later") if isinstance(event, Data) else None)
    assert peer.say("DATA\r\n") == ["451 4.3.0"]
    peer.policy = None
    assert peer.say("DATA\r\nx\r\n.\r\n") == ["354", QUEUED]


# Lines


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"NOOP\n", DONE),
        (b"NOOP\r\r\n", "500 5.5.2"),
        (b"NO\rOP\r\n", "500 5.5.2"),
        (b"NOOP \0\r\n", "500 5.5.2"),
        (b"\r\n", "500 5.5.1"),
        (b"NOOP " + b"x" * (12 * 1024 - 7) + b"\r\n", DONE),
        (b"NOOP " + b"x" * (12 * 1024 - 6) + b"\r\n", "500 5.5.6"),
        (b"x" * 1_000_000 + b"\n", "500 5.5.6"),
    ],
    ids=lambda value: repr(value[:12]) + str(len(value)),
)
def test_a_line_is_judged_when_its_end_has_come(line: bytes, reply: str) -> None:
    for pieces in (0, 1) if len(line) < 20_000 else (0, 4096, 65_521):
        peer = started()
        assert peer.say(line[:-1], pieces) == []
        assert peer.say(line[-1:] + b"RSET\r\n") == [reply, DONE]


def test_a_line_without_end_ends_the_conversation() -> None:
    for pieces in (0, 4096, 65_536):
        for end in (b"", b"\r\nNOOP\r\n"):
            peer = started()
            assert peer.say(b"x" * 1_050_000 + end, pieces) == ["421 4.7.0"]
            assert peer.closed


@pytest.mark.parametrize("pieces", [0, 1, 4096])
def test_a_bdat_that_is_too_long_ends_the_conversation_since_its_chunk_has_no_length(pieces: int) -> None:
    peer = in_transaction()
    assert peer.say(b"BDAT 6" + b" " * 13_000 + b"LAST\r\nNOOP\r\n", pieces) == ["500 5.5.6"]
    assert peer.closed


def test_a_line_without_end_is_not_kept() -> None:
    peer = started()
    for _ in range(15):
        peer.connection.receive_data(b"x" * 65_536)
        assert peer.connection.next_event() is NEED_DATA
        assert len(peer.connection._input) <= 12 * 1024


@pytest.mark.parametrize("line", ["DATA", "BDAT 5 LAST"])
def test_content_behind_a_bare_lf_is_smuggling(line: str) -> None:
    peer = in_transaction()
    assert peer.say(f"{line}\nMAIL FROM:<>\r\n") == ["503 5.5.0"]
    assert peer.closed
    peer = in_transaction()
    peer.say(f"{line}\n")
    assert peer.say("hello" if line != "DATA" else "x\r\n.\r\n") == [QUEUED]


@pytest.mark.parametrize("protocol", list(MailProtocol))
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_data_that_began_with_a_bare_lf_ends_with_one(protocol: MailProtocol, pieces: int) -> None:
    peer = in_transaction(protocol=protocol)
    assert peer.say("DATA\n") == ["354"]
    assert peer.say("a\n..b\n.\nNOOP\n", pieces) == [QUEUED, DONE]
    assert peer.messages == [b"a\n.b\n"]
    peer.say(MAIL + RCPT)
    assert peer.say("DATA\r\n") == ["354"]  # the next one is judged by its own line
    assert peer.say("a\n.\nNOOP\n", pieces) == []
    assert peer.say("\r\n.\r\n", pieces) == [QUEUED]
    assert peer.messages[1:] == [b"a\n.\nNOOP\n\n"]
    peer.say(MAIL.replace("\r", "") + RCPT.replace("\r", ""))
    assert peer.say("DATA \t\n", pieces) == ["354"]
    assert peer.say(".\n", pieces) == [QUEUED]


def test_typed_data_ends_where_bare_line_ends_are_refused_as_well() -> None:
    peer = in_transaction(bare_newline=BareNewline.REJECT)
    assert peer.say("DATA\n") == ["354"]
    assert peer.say("a\n.\n") == ["550 5.6.0"]
    assert peer.say("NOOP\n") == [DONE]


def test_the_last_line_is_known_without_credentials() -> None:
    peer = started(auth=AuthPolicy.OPTIONAL, auth_in_clear=True)
    peer.say(b"NOOP \x1b\xc3\xbc\xff\r\n")
    assert peer.connection.line == "NOOP \\x1bü\\xff"
    peer.say("AUTH PLAIN AGEAYg== x\r\n")
    assert peer.connection.line == "AUTH PLAIN ***"
    peer.say("AUTH LOGIN\r\nc2VjcmV0\r\n")
    assert peer.connection.line == "***"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("AUTH AGEAYg==", "AUTH ***"),
        ("AUTH=AGEAYg==", "***"),
        ("AUTHPLAIN AGEAYg==", "***"),
        ("auth login YQ==", "auth login ***"),
        ("AUTH CRAM-MD5 YQ==", "AUTH CRAM-MD5 ***"),
    ],
)
def test_credentials_where_they_do_not_belong_are_not_shown_either(line: str, shown: str) -> None:
    peer = started(auth=AuthPolicy.OPTIONAL, auth_in_clear=True)
    peer.say(f"{line}\r\n")
    assert peer.connection.line == shown


# Parameters and addresses


def test_utf8_in_an_address_means_smtputf8() -> None:
    peer = started()
    peer.say("MAIL FROM:<jürgen@dev.test>\r\n")
    assert peer.connection.transaction is not None
    assert peer.connection.transaction.smtputf8
    peer = started()
    peer.say(MAIL)
    assert peer.connection.transaction is not None
    assert not peer.connection.transaction.smtputf8
    peer.say("RCPT TO:<a@bücher.test>\r\n")
    assert peer.connection.transaction.smtputf8


def test_replies_are_ascii_but_to_vrfy_and_expn_with_smtputf8() -> None:
    peer = started()
    peer.policy = lambda event: None if isinstance(event, Mail) else Reply.of(250, "2.1.5", "jürgen")
    for said, utf8 in [
        ("VRFY a\r\n", False),
        ("VRFY ü\r\n", False),
        ("VRFY a SMTPUTF8\r\n", True),
        ("NOOP\r\n", False),
        ("EXPN ü smtputf8\r\n", True),
        ("EXPN ü\r\n", False),
        ("RSET\r\nMAIL FROM:<ü@dev.test> SMTPUTF8\r\n" + RCPT, False),
        ("RCPT TO:<ü@dev.test>\r\n", False),
        ("VRFY a SMTPUTF8\r\n", True),
        ("BDAT 0 LAST\r\n", False),
    ]:
        peer.connection.receive_data(said.encode())
        peer.run()
        found = peer.connection.data_to_send()
        assert found.endswith(("jürgen\r\n".encode()) if utf8 else b"j\\xfcrgen\r\n"), said
        assert utf8 or found.isascii()


def test_hidden_enhanced_codes_are_not_said() -> None:
    peer = started(hide=frozenset({"ENHANCEDSTATUSCODES"}))
    assert peer.say(MAIL + "FOO\r\n") == ["250", "500"]


def test_hidden_pipelining_is_only_not_offered() -> None:
    peer = started(hide=frozenset({"PIPELINING"}))
    assert not peer.connection.offer.offers("PIPELINING")
    assert peer.say(MAIL + RCPT) == [DONE, DONE]


# DATA


@pytest.mark.parametrize(
    ("wire", "reply", "kw"),
    [
        (b"a\rb\r\n.\r\n", "550 5.6.0", {}),
        (b"a\nb\r\n.\r\n", QUEUED, {}),
        (b"a\nb\r\n.\r\n", "550 5.6.0", {"bare_newline": BareNewline.REJECT}),
        (b"12345678\r\n.\r\n", QUEUED, {"size_limit": 10}),
        (b"123456789\r\n.\r\n", "552 5.3.4", {"size_limit": 10}),
        (b"..2345678\r\n.\r\n", QUEUED, {"size_limit": 10}),
        (b"123456789\n.\r\n\r\n.\r\n", "552 5.3.4", {"size_limit": 10}),
        (b"1\r345678901234\r\n.\r\n", "552 5.3.4", {"size_limit": 10}),
        (b"\xff\x00\r\n.\r\n", QUEUED, {}),
    ],
)
def test_a_fault_of_the_data_is_said_at_its_end(wire: bytes, reply: str, kw: dict[str, Any]) -> None:
    for pieces in (0, 1, 2, 5):
        peer = in_transaction(**kw)
        assert peer.say(b"DATA\r\n") == ["354"]
        assert peer.say(wire + b"NOOP\r\n", pieces) == [reply, DONE]
        assert len(peer.messages) == (reply == QUEUED)
        assert peer.connection.transaction is None


def test_a_fault_names_its_line() -> None:
    peer = in_transaction()
    peer.say(b"DATA\r\na\r\nb\rc\r\n.\r\n")
    assert peer.ends[0].fault is not None
    assert "line 2" in peer.ends[0].fault.text
    peer = in_transaction()
    peer.say(b"DATA\r\na\r\nb\nc\r\n.\r\n")
    assert peer.ends[0].bare_lf == 2


def test_no_positive_reply_to_a_fault() -> None:
    peer = in_transaction()
    peer.say("DATA\r\n")
    peer.policy = lambda event: OK if isinstance(event, ContentEnd) else None
    with pytest.raises(LocalProtocolError):
        peer.say("\r.\r\n.\r\n")


# BDAT


@pytest.mark.parametrize("pieces", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("said", "replies", "messages"),
    [
        ("BDAT 3 LAST\r\na\r\n", [QUEUED], [b"a\n"]),
        ("BDAT 0 LAST\r\n", [QUEUED], [b""]),
        ("BDAT 1\r\naBDAT 0\r\nBDAT 1 LAST\r\nb", [QUEUED] * 3, [b"ab"]),
        ("BDAT 2\r\na\rBDAT 5 LAST\r\n\n.\r\n.", [QUEUED] * 2, [b"a\n.\n."]),  # a CRLF over two chunks
        ("BDAT 2\r\na\rBDAT 0 LAST\r\n", [QUEUED, "550 5.6.0"], []),
        ("BDAT 3\r\na\rbBDAT 0 LAST\r\n", [QUEUED, "550 5.6.0"], []),
        ("BDAT 3\r\na\nbBDAT 0 LAST\r\n", [QUEUED] * 2, [b"a\nb"]),
        ("BDAT 6 LAST\r\nQUIT\r\n", [QUEUED], [b"QUIT\n"]),
        # what follows a BDAT is never a command, whatever the BDAT gets
        ("BDAT 6 FIRST\r\nQUIT\r\n", ["501 5.5.4"], []),
        ("BDAT 6 LAST LAST\r\nQUIT\r\n", ["501 5.5.4"], []),
        ("RSET\r\nBDAT 6 LAST\r\nQUIT\r\n", [DONE, BAD_ORDER], []),
        ("BDAT 1\r\nxDATA\r\nBDAT 1 LAST\r\ny", [QUEUED, BAD_ORDER, QUEUED], [b"xy"]),
        ("BDAT 1\r\nx" + RCPT + "BDAT 0 LAST\r\n", [QUEUED, BAD_ORDER, QUEUED], [b"x"]),
        ("BDAT 1\r\nxNOOP\r\nBDAT 0 LAST\r\n", [QUEUED, DONE, QUEUED], [b"x"]),
    ],
)
def test_chunks_make_a_message(said: str, replies: list[str], messages: list[bytes], pieces: int) -> None:
    peer = in_transaction()
    assert peer.say(said + "NOOP\r\n", pieces) == [*replies, DONE]
    assert peer.messages == messages
    assert not peer.closed


@pytest.mark.parametrize(
    "line",
    [
        *(
            "BDAT 9223372036854775808",
            "BDAT " + "1" * 30,
            "BDAT -1 LAST",
            "BDAT +1",
            "BDAT x",
            "BDAT",
            "bdat ",
            "BDAT\t",
        ),
        *("BDAT LAST", "BDAT 1.5", "BDAT 1,5 LAST", "BDAT 1e3", "BDAT 0x10", "BDAT 10k", 'BDAT "10"', "BDAT 5LAST"),
        *("BDAT 1_000", "BDAT 10/LAST", "BDAT =5", "BDAT FIRST 5"),
    ],
)
@pytest.mark.parametrize("protocol", list(MailProtocol))
@pytest.mark.parametrize("pieces", [0, 1])
def test_a_chunk_of_no_known_size_ends_the_conversation_at_once(line: str, protocol: MailProtocol, pieces: int) -> None:
    for peer in (in_transaction(protocol=protocol), Peer(protocol=protocol)):
        assert peer.say(f"{line}\r\n", pieces) == ["501 5.5.4"]  # without an octet more
        assert peer.closed
    assert in_transaction(protocol=protocol).say(f"{line}\r\nQUIT\r\nNOOP\r\n", pieces) == ["501 5.5.4"]


@pytest.mark.parametrize(
    ("line", "reply", "kw"),
    [
        (b"BDAT 6\xb2", "500 5.5.2", {}),
        (b"BDAT \xd9\xa5", "500 5.5.2", {}),
        (b"BDAT 6\r5 LAST", "500 5.5.2", {}),
        (b"BDAT\x006", "500 5.5.2", {}),
        (b"BDAT 6" + b" " * 13_000, "500 5.5.6", {}),
        (b"BDAT 1.5", "502 5.5.1", {"hide": frozenset({"CHUNKING"})}),
        (b"BDAT 1.5", "530 5.7.0", {"auth": AuthPolicy.REQUIRED}),
    ],
)
def test_so_does_one_that_is_refused_for_another_reason(line: bytes, reply: str, kw: dict[str, Any]) -> None:
    peer = started(**kw)
    assert peer.say(line + b"\r\n") == [reply]
    assert peer.closed


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("BDAT 6 FIRST", "501 5.5.4"),
        ("BDAT 6 LAST now", "501 5.5.4"),
        ("BDAT 6\tLAST", "501 5.5.4"),
        ("BDAT\t6", "500 5.5.1"),
        ("BDAT 6 \xff", "500 5.5.2"),
        ("BDAT 6 L\0ST", "500 5.5.2"),
    ],
)
@pytest.mark.parametrize("pieces", [0, 1])
def test_where_the_size_is_known_its_octets_are_taken_first(line: str, reply: str, pieces: int) -> None:
    peer = in_transaction()
    assert peer.say(f"{line}\r\nQUIT\r", pieces) == []
    assert peer.say("\nNOOP\r\n", pieces) == [reply, DONE]


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_the_chunk_that_passes_the_limit_says_so(pieces: int) -> None:
    peer = in_transaction(size_limit=10)
    said = "BDAT 6\r\n123456BDAT 5\r\n78901BDAT 1 LAST\r\n2NOOP\r\n"
    assert peer.say(said, pieces) == [QUEUED, "552 5.3.4", BAD_ORDER, DONE]
    assert peer.messages == []
    assert peer.say(MAIL + RCPT + "BDAT 2 LAST\r\nxy") == [DONE, DONE, QUEUED]
    assert peer.messages == [b"xy"]


def test_a_chunk_that_lies_is_waited_for_and_dropped() -> None:
    peer = in_transaction(size_limit=10)
    assert peer.say("BDAT 9000000000000000000 LAST\r\n") == []
    for _ in range(10):
        assert peer.say(b"x" * 65_536) == []
    assert peer.body == b""
    assert len(peer.connection._input) == 0


def test_a_refused_chunk_takes_the_transaction_with_it() -> None:
    peer = in_transaction(
        policy=lambda event: Reply.of(452, "4.3.1", "full") if isinstance(event, ContentEnd) else None
    )
    assert peer.say("BDAT 1\r\nxBDAT 1 LAST\r\ny") == ["452 4.3.1", BAD_ORDER]


def test_bdat_needs_recipients() -> None:
    peer = started()
    assert peer.say(MAIL + "BDAT 4 LAST\r\nQUIT") == [DONE, BAD_ORDER]
    assert peer.say("NOOP\r\n") == [DONE]


def test_hidden_chunking_does_not_know_bdat_but_drops_its_octets() -> None:
    peer = in_transaction(hide=frozenset({"CHUNKING"}))
    assert peer.say("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n") == ["502 5.5.1", DONE]


def test_after_helo_there_is_no_bdat() -> None:
    peer = started("HELO c\r\n")
    assert peer.say(MAIL + RCPT + "BDAT 6 LAST\r\nQUIT\r\n") == [DONE, DONE, BAD_ORDER]


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_binary_content_is_kept_octet_by_octet(pieces: int) -> None:
    content = b"a\rb\nc\r\n.\r\n\0\xff\r"
    peer = in_transaction(" BODY=BINARYMIME")
    assert peer.connection.transaction is not None
    assert peer.connection.transaction.body is BodyKind.BINARY
    assert peer.say("DATA\r\n") == [BAD_ORDER]
    assert (
        peer.say(b"BDAT 4\r\n" + content[:4] + b"BDAT %d LAST\r\n" % (len(content) - 4) + content[4:], pieces)
        == [QUEUED] * 2
    )
    assert peer.messages == [content]
    assert peer.ends[-1] == ContentEnd(last=True, size=len(content))


# LMTP


def test_lmtp_answers_for_each_recipient() -> None:
    peer = in_transaction(protocol=MailProtocol.LMTP)
    peer.say(RCPT + RCPT)
    assert peer.say("DATA\r\nx\r\n.\r\nNOOP\r\n") == ["354", QUEUED, QUEUED, QUEUED, DONE]
    peer.say(MAIL + RCPT + RCPT)
    assert peer.say("BDAT 1\r\nxBDAT 1 LAST\r\ny") == [QUEUED, QUEUED, QUEUED]
    peer.say(MAIL + RCPT + RCPT)
    assert peer.say("DATA\r\n\r.\r\n.\r\n") == ["354", "550 5.6.0", "550 5.6.0"]
    assert peer.say(MAIL + "DATA\r\n") == [DONE, BAD_ORDER]


def test_lmtp_replies_come_in_the_order_of_the_recipients() -> None:
    connection = in_transaction(protocol=MailProtocol.LMTP).connection
    connection.receive_data(RCPT.encode() + b"BDAT 0 LAST\r\n")
    connection.next_event()
    connection.reply(OK)
    connection.next_event()
    connection.data_to_send()
    with pytest.raises(LocalProtocolError):
        connection.reply_each([OK])
    connection.reply_each([Reply.of(451, "4.2.0", "later"), OK])
    assert connection.data_to_send() == b"451 4.2.0 later\r\n250 2.0.0 ok\r\n"
    assert connection.state is SessionState.READY


def test_lmtp_says_lhlo_only() -> None:
    peer = Peer(protocol=MailProtocol.LMTP)
    assert peer.say("EHLO c\r\nHELO c\r\n" + MAIL + "LHLO c\r\n") == ["500 5.5.1", "500 5.5.1", BAD_ORDER, "250"]
    assert Peer().say("LHLO c\r\n") == ["500 5.5.1"]


# TLS


def test_starttls_forgets_everything() -> None:
    peer = started(starttls=True, auth=AuthPolicy.OPTIONAL, auth_in_clear=True)
    assert peer.say("AUTH PLAIN AGEAYg==\r\n") == ["235 2.7.0"]
    assert peer.say("STARTTLS\r\n") == ["220 2.0.0"]
    connection = peer.connection
    assert connection.tls
    assert (connection.identity, connection.helo, connection.esmtp) == (None, "", False)
    assert peer.say(MAIL) == [BAD_ORDER]
    assert peer.say("EHLO c\r\nSTARTTLS\r\n") == ["250", BAD_ORDER]
    assert not connection.offer.offers("STARTTLS")


@pytest.mark.parametrize("more", ["EHLO c\r\n", "x", "\r\n"])
def test_octets_behind_starttls_are_refused(more: str) -> None:
    peer = started(starttls=True)
    assert peer.say("STARTTLS\r\n" + more) == [BAD_ORDER]
    assert peer.closed
    assert not peer.connection.tls


def test_starttls_is_refused_where_it_is_out_of_place() -> None:
    assert started().say("STARTTLS\r\n") == ["502 5.5.1"]
    assert started(starttls=True).say("STARTTLS now\r\n") == ["501 5.5.4"]
    assert started(tls=True).say("STARTTLS\r\n") == [BAD_ORDER]
    assert in_transaction(starttls=True).say("STARTTLS\r\n") == [BAD_ORDER]
    assert started("HELO c\r\n", starttls=True).say("STARTTLS\r\n") == [BAD_ORDER]


def test_between_starttls_and_the_handshake_nothing_is_read() -> None:
    connection = started(starttls=True).connection
    connection.receive_data(b"STARTTLS\r\n")
    connection.next_event()
    connection.reply(Reply.of(220, "2.0.0", "go on"))
    assert connection.state is SessionState.TLS
    with pytest.raises(LocalProtocolError):
        connection.receive_data(b"x")
    with pytest.raises(LocalProtocolError):
        connection.next_event()


# AUTH


def test_auth_comes_after_helo_too() -> None:
    peer = started("HELO c\r\n", auth=AuthPolicy.REQUIRED, auth_in_clear=True)
    assert peer.say(MAIL) == ["530 5.7.0"]
    assert peer.say("AUTH PLAIN AGEAYg==\r\n" + MAIL) == ["235 2.7.0", DONE]


AUTH: dict[str, Any] = {"auth": AuthPolicy.OPTIONAL, "auth_in_clear": True}


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize(
    ("said", "replies"),
    [
        ("AUTH plain AGEAYg==\r\n", ["235 2.7.0"]),
        ("AUTH PLAIN =\r\n", ["235 2.7.0"]),
        ("AUTH LOGIN\r\nYQ==\r\n", ["334", "235 2.7.0"]),
        ("AUTH LOGIN\r\n\r\n", ["334", "235 2.7.0"]),
        ("AUTH LOGIN\r\n*\r\nNOOP\r\n", ["334", "501 5.7.0", DONE]),
        ("AUTH LOGIN\r\n=\r\nNOOP\r\n", ["334", "501 5.5.2", DONE]),
        ("AUTH LOGIN\r\nabc\r\nNOOP\r\n", ["334", "501 5.5.2", DONE]),
        ("AUTH LOGIN\r\nQUIT \0\r\nNOOP\r\n", ["334", "501 5.5.2", DONE]),
        ("AUTH LOGIN\r\n" + "A" * 12284 + "\r\nNOOP\r\n", ["334", "235 2.7.0", DONE]),
        ("AUTH LOGIN\r\n" + "A" * 12288 + "\r\nNOOP\r\n", ["334", "500 5.5.6", DONE]),
        ("AUTH CRAM-MD5\r\n", ["504 5.5.4"]),
        ("AUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGEAYg==\r\n", ["235 2.7.0", BAD_ORDER]),
        (MAIL + "AUTH PLAIN AGEAYg==\r\n", [DONE, BAD_ORDER]),
    ],
    ids=lambda value: str(value)[:60] + str(len(value)),
)
def test_auth(said: str, replies: list[str], pieces: int) -> None:
    assert started(**AUTH).say(said, pieces) == replies


def test_a_response_comes_decoded() -> None:
    peer = started(**AUTH)
    peer.say("AUTH LOGIN\r\n" + base64.b64encode(b"alice").decode() + "\r\n")
    assert peer.events[-2:] == [Auth("LOGIN"), AuthResponse(b"alice")]
    assert peer.connection.identity == "alice"


def test_a_refused_password_leaves_no_identity() -> None:
    peer = started(policy=lambda event: Reply.of(535, "5.7.8", "no") if isinstance(event, Auth) else None, **AUTH)
    assert peer.say("AUTH PLAIN AGEAYg==\r\n" + MAIL) == ["535 5.7.8", DONE]
    assert peer.connection.identity is None


def test_nobody_is_welcomed_without_a_name() -> None:
    peer = started(policy=lambda event: Reply.of(235, "2.7.0", "hi") if isinstance(event, Auth) else None, **AUTH)
    with pytest.raises(LocalProtocolError):
        peer.say("AUTH PLAIN AGEAYg==\r\n")


def test_auth_waits_for_tls() -> None:
    peer = started(starttls=True, auth=AuthPolicy.OPTIONAL)
    assert not peer.connection.offer.offers("AUTH")
    assert peer.say("AUTH PLAIN AGEAYg==\r\n") == ["530 5.7.0"]
    assert peer.say("STARTTLS\r\n") == ["220 2.0.0"]
    assert peer.say("EHLO c\r\nAUTH PLAIN AGEAYg==\r\n") == ["250", "235 2.7.0"]
    assert started(auth=AuthPolicy.OPTIONAL, tls=True).say("AUTH PLAIN AGEAYg==\r\n") == ["235 2.7.0"]


@pytest.mark.parametrize(
    "verb", ["MAIL FROM:<>", "RCPT TO:<a@b.test>", "DATA", "VRFY a", "EXPN a", "ETRN a.test", "BDAT 0"]
)
def test_required_auth_stands_before_everything(verb: str) -> None:
    peer = started(auth=AuthPolicy.REQUIRED, auth_in_clear=True)
    assert peer.say(verb + "\r\n") == ["530 5.7.0"]
    assert peer.say("BDAT 6 LAST\r\nQUIT\r\n") == ["530 5.7.0"]


def test_required_auth_leaves_a_way_in() -> None:
    peer = Peer(auth=AuthPolicy.REQUIRED, auth_in_clear=True, starttls=True)
    assert peer.say("NOOP\r\nRSET\r\nHELP\r\nHELO c\r\nEHLO c\r\n") == [DONE, DONE, "214 2.0.0", "250", "250"]
    assert peer.say("FOO\r\nAUTH PLAIN AGEAYg==\r\n" + MAIL) == ["500 5.5.1", "235 2.7.0", DONE]
    assert peer.say("QUIT\r\n") == ["221 2.0.0"]


# Any octets

PIECES = st.sampled_from(
    [
        *(
            b"EHLO c\r\n",
            b"HELO c\r\n",
            b"LHLO c\r\n",
            b"RSET\r\n",
            b"DATA\r\n",
            b"DATA\n",
            b"STARTTLS\r\n",
            b"QUIT\r\n",
        ),
        *(
            MAIL.encode(),
            RCPT.encode(),
            b"BDAT 5\r\n",
            b"BDAT 3 LAST\r\n",
            b"hello",
            b"\r\n.\r\n",
            b"\n.\n",
            b"\r",
            b"\n",
        ),
        *(
            b"AUTH LOGIN\r\n",
            b"AUTH PLAIN AGEAYg==\r\n",
            b"*\r\n",
            b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n",
            b"\0",
            b"\xff",
        ),
    ]
)
OCTETS = st.lists(PIECES | st.binary(max_size=8), max_size=25).map(b"".join)
LISTENERS = st.sampled_from(
    [
        {"starttls": True, "auth": AuthPolicy.OPTIONAL, "auth_in_clear": True},
        {"protocol": MailProtocol.LMTP, "size_limit": 8},
        {"protocol": MailProtocol.SUBMISSION, "auth": AuthPolicy.REQUIRED, "auth_in_clear": True},
        {"bare_newline": BareNewline.REJECT, "hide": frozenset({"CHUNKING", "DSN"})},
    ]
)


@settings(deadline=None, max_examples=100)
@given(OCTETS, LISTENERS, st.integers(1, 40))
def test_any_octets_are_survived(octets: bytes, listener: dict[str, Any], pieces: int) -> None:
    peer = Peer(**listener)
    peer.say(b"EHLO c\r\n" + octets, pieces)
    assert peer.connection.state in SessionState
    assert len(peer.connection._input) <= 12 * 1024


@settings(deadline=None, max_examples=100)
@given(OCTETS, LISTENERS, st.integers(1, 40))
def test_replies_do_not_depend_on_how_octets_are_split(octets: bytes, listener: dict[str, Any], pieces: int) -> None:
    # But for what looks at the octets waiting behind a line: STARTTLS, and DATA or BDAT ended by a bare LF.
    octets = octets.replace(b"STARTTLS", b"NOOP").replace(b"DATA\n", b"")
    octets = b"EHLO c\r\n" + (MAIL + RCPT).encode() + octets.replace(b"BDAT 5\n", b"").replace(b"BDAT 3 LAST\n", b"")
    whole, split = Peer(**listener), Peer(**listener)
    assert whole.say(octets) == split.say(octets, pieces)
    assert whole.messages == split.messages
    assert whole.ends == split.ends


def test_a_large_message_takes_linear_time() -> None:
    with bounded_effort():
        peer = in_transaction()
        peer.policy = None
        peer.say("DATA\r\n")
        block = b"x" * 76 + b"\r\n"
        for _ in range(300):
            peer.connection.receive_data(block * 840)
            while isinstance(event := peer.connection.next_event(), ContentPiece):
                assert event.data
        assert peer.say(b".\r\n") == [QUEUED]
        assert peer.ends[0].size == len(block) * 840 * 300


def test_a_command_octet_by_octet_takes_linear_time() -> None:
    with bounded_effort():
        peer = started()
        assert peer.say(b"NOOP " + b"x" * 200_000 + b"\r\n", 1) == ["500 5.5.6"]
        assert peer.say(b"NOOP\r\n" * 10_000) == [DONE] * 10_000
