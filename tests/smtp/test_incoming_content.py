"""Content on its way in, by itself: whole, octet by octet, and with octets of the next command behind it."""

from __future__ import annotations

import pytest

from trimta.mail.reply import Reply
from trimta.smtp.incoming_content import ChunkedContent, DataContent, DiscardedChunk, IncomingContent
from trimta.smtp.lines import LineBuffer
from trimta.smtp.server_events import BadInput, ContentEnd, ContentPiece

BEHIND = b"QUIT\r\n"


def taken(content: IncomingContent, octets: bytes, pieces: int) -> tuple[bytes, ContentEnd, bytes]:
    """The content and the end that some octets are, and the octets that are left over."""
    received = LineBuffer()
    found = b""
    for start in range(0, len(octets), pieces):
        received.feed(octets[start : start + pieces])
        while True:
            match content.next(received):
                case ContentPiece(data):
                    found += data
                case ContentEnd() as end:
                    return found, end, received.take() + octets[start + pieces :]
                case None:
                    break
    raise AssertionError("the content has no end")


@pytest.mark.parametrize("pieces", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("octets", "content", "size"),
    [
        (b".\r\n", b"", 0),
        (b"a\r\n.\r\n", b"a\n", 3),
        (b"..\r\n.\r\n", b".\n", 3),
        (b"a\nb\r\n.\r\n", b"a\nb\n", 6),
    ],
)
def test_data_ends_at_its_dot(octets: bytes, content: bytes, size: int, pieces: int) -> None:
    data = DataContent(typed=False, size_limit=0, reject_bare_lf=False)
    found, end, left = taken(data, octets + BEHIND, pieces)
    assert (found, end.size, end.last, end.fault, left) == (content, size, True, None, BEHIND)


@pytest.mark.parametrize("pieces", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("binary", "octets", "content"),
    [
        (False, b"a\r\n.\r\n", b"a\n.\n"),
        (True, b"a\r\n\0\r", b"a\r\n\0\r"),
    ],
)
def test_a_chunk_ends_at_its_size(binary: bool, octets: bytes, content: bytes, pieces: int) -> None:
    chunks = ChunkedContent(binary=binary, size_limit=0, reject_bare_lf=False)
    chunks.begin_chunk(len(octets), last=True)
    found, end, left = taken(chunks, octets + BEHIND, pieces)
    assert (found, end.size, end.last, end.fault, left) == (content, len(octets), True, None, BEHIND)


@pytest.mark.parametrize("pieces", [1, 2, 3, 1000])
def test_a_refused_chunk_is_answered_behind_its_octets(pieces: int) -> None:
    refusal = Reply.of(503, "5.5.1", "MAIL first")
    chunk, received = DiscardedChunk(4, refusal), LineBuffer()
    octets = b"QUIT" + BEHIND
    for start in range(0, len(octets), pieces):
        received.feed(octets[start : start + pieces])
        event = chunk.next(received)
        assert (event is None) is (start + pieces < 4)
        if event is not None:
            assert event == BadInput(refusal)
            assert received.take() + octets[start + pieces :] == BEHIND
            return
