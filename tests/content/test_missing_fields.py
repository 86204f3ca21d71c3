"""Fields that a submission agent adds where they are missing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.content.test_header_summary import LONG, in_pieces
from trimta.content.header_summary import HeaderSummary
from trimta.content.missing_fields import missing_fields
from trimta.mail.address import parse_mailbox

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
FROM = b"From: other@b.test\n"
DATE = b"Date: Thu, 26 Nov 2026 12:00:00 +0000\n"
MESSAGE_ID = b"Message-ID: <y@b.test>\n"


def added(summary: HeaderSummary) -> bytes:
    return missing_fields(summary, author=parse_mailbox("other@b.test"), message_id="y@b.test", date=NOW)


@pytest.mark.parametrize("size", [1000, 65_536, len(LONG) + 1000])
def test_a_field_behind_a_header_of_any_length_is_not_added_again(size: int) -> None:
    content = LONG + b"From: a@b.test\nDate: Thu, 26 Nov 2026 12:00:00 +0000\nMessage-ID: <x@b.test>\n\nbody\n"
    assert added(HeaderSummary.of_pieces(in_pieces(content, size))) == b""


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (b"Subject: x\n\nbody", FROM + DATE + MESSAGE_ID),
        (b"From : a@b.test\n\nbody", DATE + MESSAGE_ID),
        (b"Date: x\nFrom: a@b.test\n\n", MESSAGE_ID),
        (b"Resent-Date: x\nFrom: a@b.test\n\n", MESSAGE_ID),
        (b"MESSAGE-ID: <a@b>\n\nFrom: in the body\n", FROM + DATE),
        (b"\nbody", FROM + DATE + MESSAGE_ID),
        (b"body", FROM + DATE + MESSAGE_ID + b"\n"),
        (b"", FROM + DATE + MESSAGE_ID + b"\n"),
    ],
)
def test_what_is_missing_is_added_and_nothing_else(content: bytes, fields: bytes) -> None:
    assert added(HeaderSummary.of(content)) == fields
