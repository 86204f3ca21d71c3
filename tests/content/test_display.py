"""A message as people read it, whatever it is made of."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trimta.content import display

NESTED = 1500


def nested(depth: int, inner: bytes = b"\ndeep\n") -> bytes:
    """A message of so many multiparts in each other."""
    head = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (number, number) for number in range(depth)
    )
    return head + inner + b"".join(b"\n--b%d--\n" % number for number in reversed(range(depth)))


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (b"Content-Type: text/plain; charset=x-unknown\n\ncaf\xc3\xa9\n", "café\n"),
        (b"Content-Type: text/plain; charset=us-ascii\n\ncaf\xc3\xa9\n", "café\n"),
        (b"Content-Type: text/plain; charset=utf-8\n\ncaf\xe9\n", "caf\ufffd\n"),
        (b"Content-Type: text/plain; charset=iso-8859-1\n\ncaf\xe9\n", "café\n"),
        (b"Content-Type: text/plain; charset=hex\n\n6162\n", "6162\n"),
        (b"Content-Type: text/plain; charset=idna\n\n" + b"a" * 80 + b"..b\n", "a" * 80 + "..b\n"),
        (b"Content-Type: text/plain; charset=undefined\n\nx\n", "x\n"),
        (b'Content-Type: text/plain; charset="a\x00b"\n\nx\n', "x\n"),
        (b"Content-Type: text/plain; charset=\n\nx\n", "x\n"),
        (b"Content-Type: text/plain; charset*=x'y'%ff\n\nx\n", "x\n"),
        (b"Content-Type: text/plain; charset=utf-7\n\n+2AA-\n", "?\n"),
        (b"Subject: x\n\nn\x00l\n", "n\x00l\n"),
        (b"Content-Transfer-Encoding: base64\n\naGVs%%%bG8\n", "hello"),
        (b"Content-Transfer-Encoding: x-uuencode\n\nbegin\n", "begin\n"),
        (b"Content-Transfer-Encoding: quoted-printable\n\na=ZZ=\n", "a=ZZ"),
        (b"Content-Type: multipart/mixed\n\nno boundary\n", "no boundary\n"),
        (b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst\n--b\n\nno end", "first"),
        (b"Content-Type: multipart/mixed; boundary=b\n\nno part\n", "no part\n"),
        (b"Content-Type: message/rfc822\n\nSubject: inner\n\nx\n", "x\n"),
        (b"Content-Type: image/png\n\nx\n", ""),
        (b"Content-Type: ;;;\n\nx\n", "x\n"),
        (b"no header at all", "no header at all"),
        (b"", ""),
        (nested(20), "deep\n"),
    ],
)
def test_the_text_is_what_can_be_read_of_it(content: bytes, body: str) -> None:
    assert display.body(display.parse(content)) == body


def test_a_message_nested_too_deep_shows_what_follows_its_header() -> None:
    message = display.parse(nested(NESTED))
    assert "deep" in display.body(message)
    assert display.attachments(message) == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Mon, 1 Jan 2024 12:00:00 +0100", "2024-01-01T12:00:00+01:00"),
        ("Mon, 1 Jan 2024 12:00:00 +99999999999999999999", None),
        ("Mon, 1 Jan 2024 12:00:00 -9999", None),
        ("Mon, 1 Jan 99999999999 12:00:00 +0000", None),
        ("Mon, 99 Foo 2024 12:00:00 +0000", None),
        ("Mon, 1 Jan 2024 99:99:99 +0000", None),
        ("\x00", None),
        ("", None),
        ("soon", None),
    ],
)
def test_a_date_is_one_or_none(value: str, found: str | None) -> None:
    assert display.date(value) == found


@pytest.mark.parametrize(
    ("header", "filename"),
    [
        (b"Content-Disposition: attachment; filename*=utf-8''R%C3%A9sum%C3%A9.pdf", "Résumé.pdf"),
        (b"Content-Disposition: attachment; filename*=x-unknown''a%FFb", None),
        (b"Content-Disposition: attachment; filename*0*=utf-8''a; filename*x=b", None),
        (b'Content-Disposition: attachment; filename="=?x-unknown?q?a?="', "=?x-unknown?q?a?="),
        (b'Content-Disposition: attachment; filename="a\x00b"', None),
        (b"Content-Disposition: attachment", ""),
    ],
)
def test_an_attachment_is_listed_whatever_its_name(header: bytes, filename: str | None) -> None:
    [attachment] = display.attachments(display.parse(header + b"\n\nabc"))
    assert attachment.size == 3
    assert filename is None or attachment.filename == filename


PIECES = [
    *(b"Content-Type: " + value for value in (b"multipart/mixed; boundary=b\n", b"text/plain; charset=")),
    b"Content-Type: message/rfc822\n",
    *(b"Content-Transfer-Encoding: " + value for value in (b"base64\n", b"quoted-printable\n", b"uuencode\n")),
    b"Content-Type: message/delivery-status\n",
    b"Content-Disposition: attachment; filename*=",
    *(b"--b\n", b"--b--\n", b"x-unknown", b"utf-8", b"''%ff", b"begin 666 x\n"),
    *(b"\n", b"\r", b"\0", b"\xff", b"=?", b"?=", b"=", b";", b'"', b" "),
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=30).map(b"".join))
@settings(deadline=None, max_examples=300)
@example(b"Content-Type: text/plain; charset=\x00Content-Type: multipart/mixed; boundary=b\n\x80")
@example(b"Content-Type: text/plain; charset=\x00\nContent-Transfer-Encoding: x\n\n\x80")
def test_nothing_is_raised_whatever_comes(content: bytes) -> None:
    message = display.parse(content)
    display.body(message).encode()
    for attachment in display.attachments(message):
        assert attachment.size >= 0
