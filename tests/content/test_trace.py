from __future__ import annotations

import email
import email.policy
import email.utils
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import bounded_effort
from trimta.content.trace import (
    HeaderSummary,
    delivered_to_field,
    fields,
    received_field,
    return_path_field,
    split_header,
    summarize,
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
    assert summarize(field) == HeaderSummary(1, ())


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


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (b"A: 1\n", b"\nbody\n"),
        (b"A: 1\nB: 2\n\tfolded\n more\n", b"\nB: no\n"),
        (b"A: 1\r\nB: 2\r\n folded\r\n", b"\r\nbody\r\n"),
        (b"A:\n", b"\n"),
        (b"A :1\nB\t:2\n", b"\n"),
        (b"A: 1\n \n\t\nB: 2\n", b"\nx"),  # a line of white space is folding: RFC 5322 4.2
        (b"A: 1\n", b"no field\nB: 2\n\n"),
        (b"A: 1\n", b": no name\n\n"),
        (b"A: 1\n", b"n\xc3\xa9: no name\n\n"),
        (b"", b"\nA: 1\n"),
        (b"", b"\r\nA: 1\r\n"),
        (b"", b" folded into nothing\nA: 1\n"),
        (b"", b""),
        (b"", b"body"),
        (b"A: no line end", b""),
        (b"A: 1\nB: \x00\xff\r\x80\n", b"\n"),
        (b"From a@b Thu Jan  1 00:00:00 1970\nA: 1\n", b"\nx"),
        (b">From a@b Thu Jan  1 00:00:00 1970\nA: 1\n", b"\nx"),
    ],
)
def test_a_header_ends_before_the_first_line_that_is_no_field(header: bytes, rest: bytes) -> None:
    assert split_header(header + rest) == (header, rest)


def test_a_field_has_a_name_without_case_and_an_unfolded_value() -> None:
    found = list(fields(b"SUBJECT : one\r\n\ttwo\r\nX-B: caf\xc3\xa9 \xff\nEmpty:\n\nno: more\n"))
    assert [(field.name, field.value) for field in found] == [
        ("subject", "one\ttwo"),
        ("x-b", "café \udcff"),
        ("empty", ""),
    ]
    assert found[0].raw == b"SUBJECT : one\r\n\ttwo\r\n"


def test_a_summary_counts_hops_and_names_mailboxes() -> None:
    header = (
        b"Return-Path: <>\n"
        b"delivered-to: Bob@dev.test\n"
        b"Delivered-To:\n\talice@DEV.test\n"
        b"Received: from a\n\tby b\n"
        b"RECEIVED: from c\n"
        b"X-Received: no\n"
        b"Subject: Received: no\n"
        b" Received: no\n"
        b"Received : from d\n"
        b"\nReceived: no\n"
    )
    summary = summarize(header)
    assert summary == HeaderSummary(3, ("Bob@dev.test", "alice@DEV.test"))
    assert summary.was_delivered_to(parse_mailbox("alice@dev.test"))
    assert summary.was_delivered_to(parse_mailbox("BOB@dev.test"))
    assert not summary.was_delivered_to(parse_mailbox("carol@dev.test"))
    assert not summarize(b"Delivered-To: what?\n\n").was_delivered_to(parse_mailbox("alice@dev.test"))


def test_a_loop_is_found_in_what_delivery_wrote() -> None:
    for text in ('"a b"@dev.test', "josé@bücher.test", "postmaster@dev.test"):
        mailbox = parse_mailbox(text)
        assert summarize(delivered_to_field(mailbox) + b"\nbody").was_delivered_to(mailbox)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_octets_have_a_header_and_a_rest(content: bytes) -> None:
    header, rest = split_header(content)
    assert header + rest == content
    assert summarize(content) == summarize(header)
    raw = b"".join(field.raw for field in fields(header))
    assert header.endswith(raw)


@pytest.mark.parametrize(
    "content",
    [
        b"a" * 5_000_000,
        b"a:" + b"\n " * 2_000_000,
        b"a:\n" * 500_000,
        b"a" + b" " * 5_000_000 + b":x",
        b"a: " + b"x" * 5_000_000,
        b"From " * 1_000_000,
    ],
    ids=range(6),
)
def test_large_content_is_summarized_at_once(content: bytes) -> None:
    with bounded_effort():
        split_header(content)
        summarize(content)


def test_pythons_parser_sees_the_same_fields() -> None:
    content = received().encode() + b"Subject: a\n b\nTo: c\n\nbody\n"
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    assert [field.name for field in fields(content)] == [name.lower() for name in message]
