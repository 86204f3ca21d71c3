"""Internationalised headers that travel inside a message, to hosts with SMTPUTF8 and without (RFC 6531, 6532, 6533)."""

from __future__ import annotations

import email
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_mx import FakeMx
from tests.support.lab import open_lab
from trimta.mail.envelope import BodyKind

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

ONE = "192.0.2.1"
TOP = "Subject: hi\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
INNER = "Subject: Grüße\n\nhello\n"
GLOBAL = TOP + "Content-Type: Message/Global (x)\nContent-Transfer-Encoding: 8bit\n\n" + INNER + "\n--b--\n"
HEADERS = GLOBAL.replace("Message/Global (x)", "message/global-headers")
FILE_NAME = TOP + 'Content-Type: text/plain; name="Grüße.txt"\n\nhello\n\n--b--\n'
RFC822 = TOP + "Content-Type: message/rfc822\n\n" + INNER + "\n--b--\n"
BODY_ONLY = TOP + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n\n--b--\n"


@pytest.mark.parametrize("content", [GLOBAL, HEADERS, FILE_NAME, RFC822])
async def test_mail_says_smtputf8_where_it_is_inside(content: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx(extensions=("8BITMIME", "SMTPUTF8"))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(content=content.encode(), smtputf8=True)
        await lab.idle()
        (received,) = mx.accepted
        assert "SMTPUTF8" in received.mail
        assert received.body.endswith(content.replace("\n", "\r\n").encode())


async def test_mail_does_not_say_smtputf8_for_text_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx(extensions=("8BITMIME", "SMTPUTF8"))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(content=BODY_ONLY.encode(), smtputf8=True)
        await lab.idle()
        assert "SMTPUTF8" not in mx.accepted[0].mail


@pytest.mark.parametrize("extensions", [(), ("8BITMIME",), ("8BITMIME", "BINARYMIME", "CHUNKING")])
@pytest.mark.parametrize("content", [GLOBAL, HEADERS])
async def test_without_smtputf8_a_message_global_is_in_seven_bits(
    content: str, extensions: tuple[str, ...], tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=extensions)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(content=content.encode(), smtputf8=True)
        await lab.idle()
        (received,) = mx.accepted
        assert "SMTPUTF8" not in received.mail
        assert received.body.isascii()
        assert INNER.partition("\n")[0].encode() not in received.body
        part = email.message_from_bytes(received.body).get_payload(0)
        assert part["Content-Transfer-Encoding"] in ("quoted-printable", "base64")  # type: ignore[index]


@pytest.mark.parametrize("extensions", [(), ("8BITMIME",), ("8BITMIME", "BINARYMIME", "CHUNKING")])
@pytest.mark.parametrize("beside", ["plain", "a bare \r", "a bare \n", "a \0"])
async def test_without_smtputf8_a_message_global_of_a_raw_body_is_in_seven_bits_too(
    beside: str, extensions: tuple[str, ...], tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = "--b\r\nContent-Type: application/x-data\r\nContent-Transfer-Encoding: binary\r\n\r\n" + beside
    raw = GLOBAL.replace("\n", "\r\n").replace("--b--\r\n", f"{other}\r\n--b--\r\n").encode()
    mx = FakeMx(extensions=extensions)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(content=raw, smtputf8=True, body=BodyKind.BINARY)
        await lab.idle()
        (received,) = mx.accepted
        assert "BINARYMIME" not in received.mail
        assert received.body.isascii()
        message = email.message_from_bytes(received.body)
        assert message.get_payload(0)["Content-Transfer-Encoding"] in ("quoted-printable", "base64")  # type: ignore[index]
        assert message.get_payload(1).get_payload(decode=True) == beside.encode()  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [FILE_NAME, RFC822])
async def test_without_smtputf8_a_header_of_a_part_cannot_go(
    content: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=("8BITMIME",))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(content=content.encode(), smtputf8=True)
        await lab.idle()
        assert mx.transactions == []
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"a@x.test": "failed 5.6.7"}]


@pytest.mark.parametrize("content", [GLOBAL, FILE_NAME, RFC822])
async def test_who_did_not_ask_for_smtputf8_is_taken_at_their_word(
    content: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=("8BITMIME",))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(content=content.encode())
        await lab.idle()
        assert mx.accepted[0].body.endswith(content.replace("\n", "\r\n").encode())
