"""A header is read whole, however long it is and however it comes."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimta.content.header import missing_fields
from trimta.content.header_scan import MAX_DELIVERED_TO, HeaderScan
from trimta.content.trace import summarize
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
def test_it_knows_which_fields_are_there(content: bytes, names: set[str], size: int, end: bytes) -> None:
    assert HeaderScan.of(in_pieces(content.replace(b"\n", end), size)).names == names


@pytest.mark.parametrize("size", [1000, 65_536, len(LONG) + 1000])
def test_a_field_behind_a_header_of_any_length_is_not_added_again(size: int) -> None:
    content = LONG + b"From: a@b.test\nDate: Thu, 26 Nov 2026 12:00:00 +0000\nMessage-ID: <x@b.test>\n\nbody\n"
    author = parse_mailbox("other@b.test")
    now = datetime(2026, 11, 26, tzinfo=UTC)
    scan = HeaderScan.of(in_pieces(content, size))
    assert missing_fields(scan, author=author, message_id="y@b.test", date=now) == b""


def test_loops_are_seen_behind_a_long_field() -> None:
    content = LONG + b"Received: x\n" * 26 + b"Delivered-To:\n Alice@dev.test\n\n"
    found = HeaderScan.of(in_pieces(content, 65_536)).summary
    assert found.received_count == 26
    assert found.was_delivered_to(parse_mailbox("alice@dev.test"))


def test_memory_does_not_grow_with_the_header() -> None:
    def pieces() -> list[bytes]:
        return [b"Delivered-To: a@b.test\n" * 2000 + b"x" * 40_000] + [b"y" * 65_536] * 100

    tracemalloc.start()
    try:
        scan = HeaderScan.of(piece for _ in range(10) for piece in pieces())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000
    assert len(scan.summary.delivered_to) <= MAX_DELIVERED_TO


_LINES = st.sampled_from([b"From: a@b", b"Received: x", b"Delivered-To: a@b.test", b" folded", b"", b"x", b"Date:"])


@given(st.lists(_LINES), st.sampled_from([b"\n", b"\r\n"]), st.integers(1, 40))
def test_it_agrees_with_the_reader_of_whole_headers(lines: list[bytes], end: bytes, size: int) -> None:
    content = end.join(lines)
    whole = summarize(content.replace(b"\r\n", b"\n"))
    found = HeaderScan.of(in_pieces(content, size)).summary
    assert found.received_count == whole.received_count
    assert found.was_delivered_to(parse_mailbox("a@b.test")) == whole.was_delivered_to(parse_mailbox("a@b.test"))
