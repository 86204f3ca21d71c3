"""PLAIN and LOGIN, both sides."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.reply import Reply
from trimta.smtp.errors import CommandRefusedError, ProtocolError
from trimta.smtp.sasl import (
    MECHANISMS,
    Challenge,
    Credentials,
    challenge_of,
    client_exchange,
    render_response,
    server_exchange,
)

ALICE = Credentials("alice", "secret")


@pytest.mark.parametrize("response", [b"\0alice\0secret", b"alice\0alice\0secret"])
def test_plain_has_everything_in_one_response(response: bytes) -> None:
    assert server_exchange("PLAIN").step(response) == ALICE
    exchange = server_exchange("PLAIN")
    assert exchange.step(None) == Challenge(b"")
    assert exchange.step(response) == ALICE


ANYTHING = [
    (b"alice", b"secret", Credentials("alice", "secret")),
    (b"", b"", Credentials("", "")),
    (b"", b"secret", Credentials("", "secret")),
    ("jürgen".encode(), "pässword".encode(), Credentials("jürgen", "pässword")),
    ("jürgen".encode("latin-1"), "pässword".encode("latin-1"), Credentials("jürgen", "pässword")),
    (b"\xff", b"\xc3\x28\x80", Credentials("ÿ", "Ã(\x80")),
    (b"a\r\nX: y\x1b", b"\x01", Credentials("a??X: y?", "\x01")),
    (b"n" * 4000, b"p" * 4000, Credentials("n" * 4000, "p" * 4000)),
]


@pytest.mark.parametrize(("name", "password", "credentials"), ANYTHING)
@pytest.mark.parametrize("authorization", [b"", b"alice", b"somebody else", b"\xfc", b"z" * 500])
def test_where_any_credentials_will_do_none_are_refused_for_what_they_are(
    name: bytes, password: bytes, credentials: Credentials, authorization: bytes
) -> None:
    plain = server_exchange("PLAIN", lenient=True)
    assert plain.step(authorization + b"\0" + name + b"\0" + password) == credentials
    login = server_exchange("LOGIN", lenient=True)
    assert login.step(name) == Challenge(b"Password:")
    assert login.step(password) == credentials


@pytest.mark.parametrize("response", [b"", b"alice", b"alice\0secret", b"\0a\0b\0c"])
def test_but_what_is_not_plain_is_refused_there_too(response: bytes) -> None:
    with pytest.raises(CommandRefusedError):
        server_exchange("PLAIN", lenient=True).step(response)


@pytest.mark.parametrize("lenient", [True, False])
def test_another_mechanism_is_not_known(lenient: bool) -> None:
    with pytest.raises(KeyError):
        server_exchange("CRAM-MD5", lenient=lenient)


@pytest.mark.parametrize("initial", [True, False])
def test_login_asks_for_name_and_password(initial: bool) -> None:
    exchange = server_exchange("LOGIN")
    if initial:
        assert exchange.step(b"alice") == Challenge(b"Password:")
    else:
        assert exchange.step(None) == Challenge(b"Username:")
        assert exchange.step(b"alice") == Challenge(b"Password:")
    assert exchange.step(b"secret") == ALICE


@pytest.mark.parametrize(
    ("response", "reply"),
    [
        (b"", "501 5.5.2"),
        (b"alice", "501 5.5.2"),
        (b"alice\0secret", "501 5.5.2"),
        (b"\0\0secret", "501 5.5.2"),
        (b"\0a\0b\0c", "501 5.5.2"),
        (b"\0a\0\xff", "501 5.5.2"),
        (b"root\0alice\0secret", "535 5.7.8"),
    ],
)
def test_what_is_not_plain_is_refused(response: bytes, reply: str) -> None:
    with pytest.raises(CommandRefusedError) as caught:
        server_exchange("PLAIN").step(response)
    assert str(caught.value.reply).startswith(reply)


def test_login_takes_utf8_only() -> None:
    with pytest.raises(CommandRefusedError):
        server_exchange("LOGIN").step(b"\xff")


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(ALICE)


@pytest.mark.parametrize(
    ("offered", "mechanism"),
    [({"LOGIN", "PLAIN"}, "PLAIN"), ({"LOGIN", "XOAUTH2"}, "LOGIN"), ({"CRAM-MD5"}, None), (set(), None)],
)
def test_the_client_takes_the_best_mechanism(offered: set[str], mechanism: str | None) -> None:
    exchange = client_exchange(offered, "alice", "secret")
    assert (exchange and exchange.mechanism) == mechanism


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=40)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(MECHANISMS), TEXT, TEXT)
def test_the_two_sides_understand_each_other(mechanism: str, name: str, password: str) -> None:
    client, server = client_exchange({mechanism}, name, password), server_exchange(mechanism)
    assert client is not None
    step = server.step(client.initial())
    while isinstance(step, Challenge):
        step = server.step(client.respond(step.data))
    assert step == Credentials(name, password)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_server_that_goes_on_asking_gets_no_answer(mechanism: str) -> None:
    client = client_exchange({mechanism}, "alice", "secret")
    assert client is not None
    for _ in range(1 if mechanism == "PLAIN" else 2):
        client.respond(b"")
    with pytest.raises(ProtocolError):
        client.respond(b"")


def test_a_challenge_and_its_answer_are_base64() -> None:
    assert challenge_of(Reply(334, ("VXNlcm5hbWU6",))) == b"Username:"
    assert challenge_of(Reply(334, ("",))) == b""
    assert render_response(b"alice") == b"YWxpY2U=\r\n"
    for text in ("go on", "a", "ü"):
        with pytest.raises(ProtocolError):
            challenge_of(Reply(334, (text,)))
