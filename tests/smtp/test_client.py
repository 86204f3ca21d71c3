"""The client core: commands out, replies in, and every way in which a server can break the order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.reply import Reply
from trimta.smtp.client import ClientConnection, PeerClosedError
from trimta.smtp.commands import Data, Ehlo, Helo, Mail, Quit, Rset, StartTls
from trimta.smtp.errors import LocalProtocolError, ProtocolError


def greeted(*octets: bytes) -> ClientConnection:
    """A client that has heard "220 hi", and then these octets."""
    client = ClientConnection()
    client.receive_data(b"220 hi\r\n")
    assert client.next_reply() is not None
    for some in octets:
        client.receive_data(some)
    return client


def test_the_greeting_is_expected_first() -> None:
    client = ClientConnection()
    assert client.unanswered == 1
    assert client.next_reply() is None
    client.receive_data(b"220 mx.test ESM")
    assert client.next_reply() is None
    client.receive_data(b"TP\r\n")
    assert client.next_reply() == Reply(220, ("mx.test ESMTP",))
    assert client.unanswered == 0


def test_replies_come_in_the_order_of_the_commands() -> None:
    client = greeted()
    client.send(Rset())
    client.send(Mail(None))
    client.send(Data())
    client.receive_data(b"250 a\r\n250-b\r\n250 c\r\n354 d\r\n")
    replies = [client.next_reply() for _ in range(3)]
    assert [reply and reply.text for reply in replies] == ["a", "b c", "d"]
    assert client.unanswered == 0


def test_what_ehlo_offers_counts_until_the_next_hello() -> None:
    client = greeted()
    assert not client.offered.pipelining
    client.send(Ehlo("me.test"))
    client.receive_data(b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 STARTTLS\r\n")
    client.next_reply()
    assert client.offered.pipelining
    assert client.offered.size == 1000
    client.send(Helo("me.test"))
    client.receive_data(b"250 mx.test\r\n")
    client.next_reply()
    assert not client.offered.pipelining


def test_nothing_is_offered_by_a_refused_ehlo() -> None:
    client = greeted()
    client.send(Ehlo("me.test"))
    client.receive_data(b"502-no\r\n502 PIPELINING\r\n")
    client.next_reply()
    assert client.offered.keywords == {}


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n" * 20_000,
        b"\r\n" * 50_000,
        b"250-x\r\n" * 20_000,
        b"250 " + b"x" * 100_000,
        b"x" * 100_000,
    ],
)
def test_what_is_no_reply_ends_the_conversation(octets: bytes) -> None:
    client = greeted()
    client.send(Rset())
    client.receive_data(octets)
    with pytest.raises(ProtocolError):
        client.next_reply()
    assert client.closing
    with pytest.raises(LocalProtocolError):
        client.send(Rset())


@pytest.mark.parametrize("surplus", [b"250 again\r\n", b"250 ag", b"hm\r\n250-", b"2", b"999 what\r\n"])
def test_a_reply_that_nothing_asked_for_ends_the_conversation(surplus: bytes) -> None:
    client = greeted()
    client.send(Rset())
    client.receive_data(b"250 ok\r\n" + surplus)
    assert client.next_reply() is not None
    with pytest.raises(ProtocolError, match="unasked"):
        client.send(Rset())
    assert client.closing


@pytest.mark.parametrize("surplus", [b"nonsense\r\n", b"\r\n", b"ask the ow", b"2500 no code\r\nfoo"])
def test_lines_without_a_code_after_a_reply_are_passed_over(surplus: bytes) -> None:
    client = greeted()
    client.send(Rset())
    client.receive_data(b"250 ok\r\n" + surplus)
    assert client.next_reply() is not None
    assert client.ready
    client.send(Rset())
    client.receive_data(b"ner\r\n550 no\r\n")
    assert client.next_reply() == Reply(550, ("no",))


def test_octets_in_the_clear_behind_the_220_to_starttls_are_refused() -> None:
    client = greeted()
    client.send(StartTls())
    client.receive_data(b"220 go\r\n250-mx.test\r\n250 AUTH PLAIN\r\n")
    with pytest.raises(ProtocolError):
        client.next_reply()


def test_octets_that_come_before_the_handshake_are_refused_too() -> None:
    client = greeted()
    client.send(StartTls())
    client.receive_data(b"220 go\r\n")
    client.next_reply()
    client.receive_data(b"2")
    with pytest.raises(ProtocolError):
        client.start_tls_done()


def test_tls_makes_the_client_forget_what_was_offered() -> None:
    client = greeted()
    client.send(Ehlo("me.test"))
    client.receive_data(b"250-mx.test\r\n250 STARTTLS\r\n")
    client.next_reply()
    client.send(StartTls())
    client.receive_data(b"220 go\r\n")
    client.next_reply()
    client.start_tls_done()
    assert not client.offered.starttls


def test_421_ends_the_conversation_whatever_it_answers() -> None:
    client = greeted()
    client.send(Rset())
    client.receive_data(b"421 4.3.2 going down\r\n")
    reply = client.next_reply()
    assert reply is not None
    assert reply.code == 421
    assert client.closing


def test_the_end_of_the_octets_is_an_error_only_when_a_reply_is_missing() -> None:
    client = greeted()
    client.send(Quit())
    client.receive_data(b"221 bye\r\n")
    client.receive_data(b"")
    assert client.next_reply() is not None
    other = greeted()
    other.send(Rset())
    other.receive_data(b"25")
    other.receive_data(b"")
    with pytest.raises(PeerClosedError):
        other.next_reply()


@pytest.mark.parametrize("octets", [b"250 half", b"250-half\r\n"])
def test_of_a_reply_that_the_end_cuts_off_the_code_counts(octets: bytes) -> None:
    client = greeted()
    client.send(Rset())
    client.receive_data(octets)
    client.receive_data(b"")
    assert client.next_reply() == Reply(250, ("half",))
    assert not client.ready
    with pytest.raises(PeerClosedError):
        client.send(Rset())


def test_a_body_may_be_answered_once_for_each_recipient() -> None:
    client = greeted()
    client.expect(3)
    client.receive_data(b"250 a\r\n550 b\r\n250 c\r\n")
    assert [reply.code for _ in range(3) if (reply := client.next_reply())] == [250, 550, 250]


def test_asking_for_a_reply_that_is_not_due_is_a_bug() -> None:
    with pytest.raises(LocalProtocolError):
        greeted().next_reply()


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_octets_raise_anything_but_a_protocol_error(octets: bytes, split: int) -> None:
    client = greeted()
    client.send(Ehlo("me.test"))
    client.expect(5)
    client.receive_data(octets[:split])
    client.receive_data(octets[split:])
    client.receive_data(b"")
    try:
        while client.unanswered:
            client.next_reply()
    except ProtocolError:
        assert client.closing
