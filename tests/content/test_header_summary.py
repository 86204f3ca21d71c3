"""The summary of a header: it is the same however long the header is and however its content comes."""

from __future__ import annotations

import tracemalloc
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimta.content.header import field_names, fields
from trimta.content.header_summary import MAX_DELIVERED_TO, HeaderSummary
from trimta.content.trace import delivered_to_field
from trimta.mail.address import parse_mailbox

LONG = b"X-SMTPAPI: {" + b"\n  x" * 100_000 + b"\n"


def in_pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 2, 7, 1_000_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", set()),
        (b"\nFrom: in the body", set()),
        (b"From: a@b.test", {"from"}),
        (b"from : a@b.test\nDATE:now\n\nMessage-ID: <in@the.body>", {"from", "date"}),
        (b"Subject: folded\n From: not a field\nMessage-ID: <a@b>\n", {"message-id"}),
        (b"no field\nFrom: behind the header", set()),
        (b">From somebody Thu Nov 26\nResent-Date: x\n\n", {"resent-date"}),
        (b" begins with a blank\nFrom: a@b", set()),
    ],
)
def test_a_summary_has_the_names_of_fields_that_may_be_added(
    content: bytes, names: set[str], size: int, end: bytes
) -> None:
    content = content.replace(b"\n", end)
    assert HeaderSummary.of_pieces(in_pieces(content, size)).names == names
    assert HeaderSummary.of(content).names == names


@pytest.mark.parametrize("first", [LONG, b"From " + b"x" * 200_000 + b"\n"])
def test_loops_are_seen_behind_a_long_field_or_from_line(first: bytes) -> None:
    content = first + b"Received: x\n" * 26 + b"Delivered-To:\n Alice@dev.test\n\n"
    found = HeaderSummary.of_pieces(in_pieces(content, 65_536))
    assert found.received_count == 26
    assert found.was_delivered_to(parse_mailbox("alice@dev.test"))


@pytest.mark.parametrize("start", [[], [b"From ", *[b"z" * 65_536] * 100, b"\n"]], ids=["field", "from line"])
def test_memory_does_not_grow_with_the_header(start: list[bytes]) -> None:
    def pieces() -> list[bytes]:
        return [b"Delivered-To: a@b.test\n" * 2000 + b"x" * 40_000] + [b"y" * 65_536] * 100

    tracemalloc.start()
    try:
        summary = HeaderSummary.of_pieces(chain(start, (piece for _ in range(10) for piece in pieces())))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000
    assert 0 < len(summary.delivered_to) <= MAX_DELIVERED_TO


_LINES = st.sampled_from(
    [b"From: a@b", b"Received: x", b"Delivered-To: a@b.test", b" folded", b"", b"x", b"Date:", b"From x", b">From x"]
)


@given(st.lists(_LINES), st.sampled_from([b"\n", b"\r\n"]), st.integers(1, 40))
def test_a_summary_is_that_of_the_fields_of_the_whole_header(lines: list[bytes], end: bytes, size: int) -> None:
    content = end.join(lines)
    found = [*fields(content)]
    summary = HeaderSummary.of_pieces(in_pieces(content, size))
    names = [field.name for field in found]
    assert field_names(content) == names
    assert summary.received_count == names.count("received")
    assert summary.delivered_to == tuple(field.value for field in found if field.name == "delivered-to")
    assert summary.names == set(names) & {"from", "date", "message-id", "resent-date"}
    assert summary == HeaderSummary.of(content)


@pytest.mark.parametrize("size", [1, 2, 7, 1_000_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("content", "is_there"),
    [
        (b"", False),
        (b"\nbody", True),
        (b"\n", True),
        (b"Subject: x", True),
        (b"Subject: x\n\nbody", True),
        (b"body", False),
        (b" body\n\n", False),
        (b">From somebody\nbody", False),
    ],
)
def test_content_has_a_header_or_has_none(content: bytes, is_there: bool, size: int, end: bytes) -> None:
    content = content.replace(b"\n", end)
    assert HeaderSummary.of_pieces(in_pieces(content, size)).is_there is is_there
    assert HeaderSummary.of(content).is_there is is_there


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
    summary = HeaderSummary.of(header)
    assert summary == HeaderSummary(3, ("Bob@dev.test", "alice@DEV.test"))
    assert summary.was_delivered_to(parse_mailbox("alice@dev.test"))
    assert summary.was_delivered_to(parse_mailbox("BOB@dev.test"))
    assert not summary.was_delivered_to(parse_mailbox("carol@dev.test"))
    assert not HeaderSummary.of(b"Delivered-To: what?\n\n").was_delivered_to(parse_mailbox("alice@dev.test"))


def test_a_loop_is_found_in_what_delivery_wrote() -> None:
    for text in ('"a b"@dev.test', "josé@bücher.test", "postmaster@dev.test"):
        mailbox = parse_mailbox(text)
        assert HeaderSummary.of(delivered_to_field(mailbox) + b"\nbody").was_delivered_to(mailbox)
