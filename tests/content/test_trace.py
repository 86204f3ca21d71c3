"""Trace fields: each has the grammar of its RFC, whatever a peer sent."""

from __future__ import annotations

import email
import email.policy
import email.utils
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.content.header import fields, split_header
from trimta.content.header_summary import HeaderSummary
from trimta.content.trace import (
    delivered_to_field,
    received_field,
    return_path_field,
    with_protocol,
    x_original_to_field,
)
from trimta.mail.address import Mailbox, parse_mailbox

DATE = datetime(2024, 2, 29, 13, 37, 5, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))


def received(
    *,
    helo: str = "client.test",
    client: str = "127.0.0.1",
    by: str = "host.test",
    protocol: str = "ESMTP",
    id: str = "4f7k2",  # noqa: A002
    for_: Mailbox | None = None,
    date: datetime = DATE,
    cipher_suite: str = "",
) -> str:
    field = received_field(
        helo=helo, client=client, by=by, protocol=protocol, id=id, for_=for_, date=date, cipher_suite=cipher_suite
    )
    return field.decode()


def test_a_received_field_says_from_by_with_id_for_and_date() -> None:
    assert received(for_=parse_mailbox("alice@dev.test")) == (
        "Received: from client.test ([127.0.0.1])\n"
        "\tby host.test with ESMTP id 4f7k2\n"
        "\tfor <alice@dev.test>; Thu, 29 Feb 2024 13:37:05 -0330\n"
    )
    assert received() == (
        "Received: from client.test ([127.0.0.1])\n"
        "\tby host.test with ESMTP id 4f7k2; Thu, 29 Feb 2024 13:37:05 -0330\n"
    )


def test_the_cipher_suite_stands_behind_for_and_before_the_date() -> None:
    assert received(for_=parse_mailbox("alice@dev.test"), cipher_suite="TLS_AES_128_GCM_SHA256").endswith(
        "\tfor <alice@dev.test>\n\ttls TLS_AES_128_GCM_SHA256; Thu, 29 Feb 2024 13:37:05 -0330\n"
    )
    assert received(protocol="SMTP", cipher_suite="0xC02F").endswith(
        "\tby host.test with SMTP id 4f7k2\n\ttls 0xC02F; Thu, 29 Feb 2024 13:37:05 -0330\n"
    )


@pytest.mark.parametrize(
    ("helo", "client", "clause"),
    [
        ("client.test", "127.0.0.1", "client.test ([127.0.0.1])"),
        ("client.test", "[127.0.0.1]", "client.test ([127.0.0.1])"),
        ("client.test", "IPv6:::1", "client.test ([IPv6:::1])"),
        ("client.test", "::1", "client.test ([IPv6:::1])"),
        ("client.test", "fe80::1%eth0", "client.test ([IPv6:fe80::1])"),
        ("client.test", "unix socket", "client.test (unix socket)"),
        ("client.test", "", "client.test"),
        ("[127.0.0.1]", "127.0.0.1", "[127.0.0.1]"),
        ("[192.0.2.1]", "127.0.0.1", "[192.0.2.1] ([127.0.0.1])"),
        ("", "127.0.0.1", "[127.0.0.1]"),
        ("", "unix socket", "unknown (unix socket)"),
        ("", "", "unknown"),
        ("bücher.test", "127.0.0.1", "xn--bcher-kva.test ([127.0.0.1])"),
        ("☃.test", "127.0.0.1", "?.test ([127.0.0.1])"),
        ('a b(c);\\"<>\x00\x1b\u00a0', "127.0.0.1", "a?b?c????????? ([127.0.0.1])"),
        ("a\r\nX-Evil: yes", "127.0.0.1", "a??X-Evil:?yes ([127.0.0.1])"),
        ("c.test", "x)\r\nX-Evil: (", "c.test (x???X-Evil: ?)"),
        ("\udc80.test", "127.0.0.1", "?.test ([127.0.0.1])"),
    ],
)
def test_from_is_what_the_client_said_and_what_is_known(helo: str, client: str, clause: str) -> None:
    assert received(helo=helo, client=client).partition("\n")[0] == f"Received: from {clause}"


def test_what_the_client_said_is_cut() -> None:
    assert max(map(len, received(helo="x" * 10_000).split("\n"))) < 300


@pytest.mark.parametrize(
    ("address", "protocol", "clause"),
    [
        ("Alice+x@Dev.Test", "ESMTP", "for <Alice+x@Dev.Test>;"),
        ("postmaster", "ESMTP", "for <postmaster>;"),
        ('"a;b> (c"@dev.test', "ESMTP", 'for <"a;b> (c"@dev.test>;'),
        ("alice@bücher.test", "ESMTP", "for <alice@xn--bcher-kva.test>;"),
        ("alice@bücher.test", "UTF8SMTP", "for <alice@bücher.test>;"),
        ("josé@dev.test", "UTF8SMTPS", "for <josé@dev.test>;"),
        ("josé@dev.test", "UTF8LMTP", "for <josé@dev.test>;"),
    ],
)
def test_for_is_the_address_of_rcpt(address: str, protocol: str, clause: str) -> None:
    field = received(for_=parse_mailbox(address), protocol=protocol)
    assert f"\n\t{clause} " in field


def test_without_smtputf8_no_trace_is_beyond_ascii() -> None:
    field = received(for_=parse_mailbox("josé@dev.test"))
    assert field.isascii()
    assert "for" not in field


def test_a_date_needs_its_offset() -> None:
    with pytest.raises(ValueError, match="offset"):
        received(date=DATE.replace(tzinfo=None))


def test_one_moment_is_written_with_the_offset_of_its_date() -> None:
    for hours, written in [(0, "+0000"), (1, "+0100"), (0, "+0000")]:
        date = DATE.astimezone(timezone(timedelta(hours=hours)))
        assert received(date=date).endswith(f", 29 Feb 2024 {17 + hours}:07:05 {written}\n")
        assert received(date=date.replace(microsecond=999_999)) == received(date=date)


def test_python_reads_the_date_back() -> None:
    for date in (DATE, datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)):
        assert email.utils.parsedate_to_datetime(received(date=date).rpartition("; ")[2]) == date


@given(
    st.text(max_size=60),
    st.text(max_size=30),
    st.text(max_size=30),
    st.one_of(st.none(), st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30)),
)
@settings(deadline=None, max_examples=100)
def test_nothing_that_a_peer_says_adds_a_field(helo: str, client: str, id: str, local_part: str | None) -> None:  # noqa: A002
    for_ = None if local_part is None else Mailbox(local_part, "dev.test")
    field = received_field(helo=helo, client=client, by="host.test", protocol="UTF8SMTP", id=id, for_=for_, date=DATE)
    assert b"\r" not in field
    assert b"\0" not in field
    assert field.endswith(b" -0330\n")
    assert [each.name for each in fields(field)] == ["received"]
    assert split_header(field + b"\nbody") == (field, b"\nbody")
    assert HeaderSummary.of(field) == HeaderSummary(1, ())


@pytest.mark.parametrize(
    ("esmtp", "lmtp", "tls", "auth", "utf8", "name"),
    [
        (False, False, False, False, False, "SMTP"),
        (False, False, True, False, False, "SMTP"),
        (True, False, False, False, False, "ESMTP"),
        (True, False, True, False, False, "ESMTPS"),
        (True, False, False, True, False, "ESMTPA"),
        (True, False, True, True, False, "ESMTPSA"),
        (True, True, False, False, False, "LMTP"),
        (True, True, True, False, False, "LMTPS"),
        (False, True, False, True, False, "LMTPA"),
        (True, True, True, True, False, "LMTPSA"),
        (True, False, False, False, True, "UTF8SMTP"),
        (True, False, True, False, True, "UTF8SMTPS"),
        (True, False, False, True, True, "UTF8SMTPA"),
        (True, False, True, True, True, "UTF8SMTPSA"),
        (True, True, False, False, True, "UTF8LMTP"),
        (True, True, True, True, True, "UTF8LMTPSA"),
    ],
)
def test_the_protocol_has_its_registered_name(
    esmtp: bool, lmtp: bool, tls: bool, auth: bool, utf8: bool, name: str
) -> None:
    assert with_protocol(esmtp=esmtp, lmtp=lmtp, tls=tls, auth=auth, utf8=utf8) == name


def test_delivery_adds_its_fields() -> None:
    alice, jose = parse_mailbox('"a b"@dev.test'), parse_mailbox("josé@bücher.test")
    assert return_path_field(None) == b"Return-Path: <>\n"
    assert return_path_field(alice) == b'Return-Path: <"a b"@dev.test>\n'
    assert delivered_to_field(alice) == b'Delivered-To: "a b"@dev.test\n'
    assert delivered_to_field(alice, jose) == 'Delivered-To: "a b"@dev.test\nDelivered-To: josé@bücher.test\n'.encode()
    assert x_original_to_field(parse_mailbox("Postmaster")) == b"X-Original-To: Postmaster\n"


def test_pythons_parser_sees_the_same_fields() -> None:
    content = received().encode() + b"Subject: a\n b\nTo: c\n\nbody\n"
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    assert [field.name for field in fields(content)] == [name.lower() for name in message]
