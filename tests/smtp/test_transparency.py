"""DATA and BDAT: octets on the wire, content in our hands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import bounded_effort
from trimta.smtp.transparency import DataDecoder, DataEncoder, TextDecoder, lf_to_crlf


def decode(wire: bytes, pieces: int, *, typed: bool = False) -> tuple[bytes, bytes | None, DataDecoder]:
    """The content, and what came after the end (None: no end)."""
    decoder = DataDecoder(typed=typed)
    content = b""
    for start in range(0, len(wire), pieces):
        content += decoder.feed(wire[start : start + pieces])
        if decoder.done:
            return content, decoder.leftover + wire[start + pieces :], decoder
    return content, None, decoder


@pytest.mark.parametrize("trailing", [b"", b"QUIT\r\n", b".\r\n", b"\r\n.\r\n"])
@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\n"),
        (b"a\r\n.\r\n", b"a\n"),
        (b"..\r\n.\r\n", b".\n"),
        (b"...\r\n.\r\n", b"..\n"),
        (b".a\r\n.\r\n", b"a\n"),
        (b"a\r\n..\r\n..b\r\n.c\r\n.\r\n", b"a\n.\n.b\nc\n"),
        (b"a.\r\n.\r\n", b"a.\n"),
        (b"a\x00b\xff\r\n.\r\n", b"a\x00b\xff\n"),
        # a bare LF is a line end, and dots after it are unstuffed
        (b"a\nb\r\n.\r\n", b"a\nb\n"),
        (b"a\n..b\n.c\r\n.\r\n", b"a\n.b\nc\n"),
        # but no end of data: a line of one dot is kept
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\n"),
        (b"a\n.\r\nb\r\n.\r\n", b"a\n.\nb\n"),
        (b"a\r\n.\nb\r\n.\r\n", b"a\n.\nb\n"),
        (b".\nb\r\n.\r\n", b".\nb\n"),
        (b"a\n.\n.\n.\nb\r\n.\r\n", b"a\n.\n.\n.\nb\n"),
        (b"a\n.\r\n.\r\n", b"a\n.\n"),
        (b"\n.\r\n.\r\n", b"\n.\n"),
        (b"a\n\n\n..\n.\r\nMAIL\r\n.\r\n", b"a\n\n\n.\n.\nMAIL\n"),
        # a bare CR is no line end at all
        (b"a\r.\r\nb\r\n.\r\n", b"a\r.\nb\n"),
        (b"a\r.\rb\r\n.\r\n", b"a\r.\rb\n"),
        (b"a\r\n.\rb\r\n.\r\n", b"a\n\rb\n"),
        (b"a\r\r\n.\r\n", b"a\r\n"),
        (b"a\r\n.\r\r\n.\r\n", b"a\n\r\n"),
    ],
)
def test_data_ends_at_crlf_dot_crlf_only(wire: bytes, content: bytes, trailing: bytes) -> None:
    for pieces in (1, 2, 3, 5, 1000):
        got, leftover, decoder = decode(wire + trailing, pieces)
        assert (got, leftover) == (content, trailing)
        assert decoder.size == len(content) + content.count(b"\n")


@pytest.mark.parametrize("trailing", [b"", b"QUIT\n", b".\n", b"\n.\n", b"\r\n.\r\n"])
@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\n", b""),
        (b"\n.\n", b"\n"),
        (b"a\n.\n", b"a\n"),
        (b"..\n.a\n...\n.\n", b".\na\n..\n"),
        # mixed: a lone dot with a bare LF behind it, or CRLF on both sides
        (b"a\r\n.\n", b"a\n"),
        (b"a\r\nb\n.\n", b"a\nb\n"),
        (b".\r\n", b""),
        (b"a\nb\r\n.\r\n", b"a\nb\n"),
        # and nothing else
        (b"a\n.\r\nb\n.\n", b"a\n.\nb\n"),
        (b"a\r.\nb\n.\n", b"a\r.\nb\n"),
        (b"a\n.\rb\n.\n", b"a\n\rb\n"),
        (b"a.\n.\n", b"a.\n"),
        (b"a\n. \n.\n", b"a\n \n"),
    ],
)
def test_typed_data_ends_at_a_lone_dot_with_a_bare_lf_too(wire: bytes, content: bytes, trailing: bytes) -> None:
    for pieces in (1, 2, 3, 5, 1000):
        got, leftover, decoder = decode(wire + trailing, pieces, typed=True)
        assert (got, leftover) == (content, trailing)
        assert decoder.size == len(content) + content.count(b"\n")


@pytest.mark.parametrize(
    "wire", [b"", b".", b".\r", b".\n", b"a\r\n.", b"a\r\n.\r", b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n"]
)
def test_nothing_else_ends_data(wire: bytes) -> None:
    for pieces in (1, 2, 1000):
        assert decode(wire, pieces)[1] is None
        assert decode(wire + b"\nQUIT\r\n", pieces)[1] is None or wire.endswith(b"\r\n.\r") or wire == b".\r"


@pytest.mark.parametrize(
    ("wire", "bare_cr", "bare_lf"),
    [
        (b"a\r\nb\r\n.\r\n", None, None),
        (b"a\rb\r\n.\r\n", 1, None),
        (b"a\r\nb\r\rc\r\n.\r\n", 2, None),
        (b"a\nb\r\nc\rd\r\n.\r\n", 3, 1),
        (b"a\r\n\n.\r\n\r\n.\r\n", None, 2),
        (b"a\r\nb\r\nc\r\r\nd\nd\n\r\n.\r\n", 3, 4),
    ],
)
def test_the_first_line_with_a_fault_is_named(wire: bytes, bare_cr: int | None, bare_lf: int | None) -> None:
    for pieces in (1, 2, 3, 1000):
        decoder = decode(wire, pieces)[2]
        assert (decoder.bare_cr, decoder.bare_lf) == (bare_cr, bare_lf)


@pytest.mark.parametrize(
    ("wire", "content", "bare_cr", "bare_lf"),
    [
        (b"", b"", None, None),
        (b"a\r\n.\r\n..b", b"a\n.\n..b", None, None),
        (b"a\nb", b"a\nb", None, 1),
        (b"a\r\nb\r", b"a\nb\r", 2, None),
        (b"\r\r\n", b"\r\n", 1, None),
    ],
)
def test_bdat_text_has_line_ends_but_no_dots(
    wire: bytes, content: bytes, bare_cr: int | None, bare_lf: int | None
) -> None:
    for pieces in (1, 2, 1000):
        decoder = TextDecoder()
        got = b"".join(decoder.feed(wire[start : start + pieces]) for start in range(0, len(wire), pieces))
        assert got + decoder.finish() == content
        assert (decoder.bare_cr, decoder.bare_lf) == (bare_cr, bare_lf)
        assert decoder.size == len(content) + content.count(b"\n")


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b".\n..\n.a\n\n.", b"..\r\n...\r\n..a\r\n\r\n..\r\n.\r\n"),
        (b"a.\nb", b"a.\r\nb\r\n.\r\n"),
    ],
)
def test_a_leading_dot_is_doubled_on_the_wire(content: bytes, wire: bytes) -> None:
    for pieces in (1, 2, 1000):
        encoder = DataEncoder()
        got = b"".join(encoder.feed(content[start : start + pieces]) for start in range(0, len(content), pieces))
        assert got + encoder.finish() == wire
        assert encoder.feed(b"") == b""


def test_text_with_a_cr_is_not_sent() -> None:
    with pytest.raises(ValueError, match="CR"):
        DataEncoder().feed(b"a\r\n")
    with pytest.raises(ValueError, match="CR"):
        lf_to_crlf(b"a\rb")


LINES = st.lists(st.sampled_from([b".", b"..", b"a", b"\n", b"\n", b"\n.", b"\n.\n", b"\x00", b"\xff"]), max_size=40)
WIRE = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"a", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\n.\r\n"]), max_size=30
)


@settings(deadline=None, max_examples=100)
@given(LINES.map(b"".join), st.integers(1, 20), st.integers(1, 20))
def test_content_survives_the_wire_in_any_pieces(content: bytes, there: int, back: int) -> None:
    encoder = DataEncoder()
    wire = b"".join(encoder.feed(content[i : i + there]) for i in range(0, len(content), there)) + encoder.finish()
    got, leftover, decoder = decode(wire, back)
    assert leftover == b""
    assert got == (content if content.endswith(b"\n") or not content else content + b"\n")
    assert decoder.size == len(got) + got.count(b"\n")
    text = TextDecoder()
    assert text.feed(lf_to_crlf(content)) + text.finish() == content


def reference(wire: bytes, *, typed: bool) -> tuple[bytes, bytes | None]:
    """What the decoder says of itself, line by line and slowly."""
    end = re.search(rb"(?:\A|(?<=\r\n))\.\r\n" + (rb"|(?:\A|(?<=\n))\.\n" if typed else b""), wire)
    body = wire if end is None else wire[: end.start()]
    lines = re.split(rb"\r\n|\n", body)
    unstuffed = [line[1:] if line.startswith(b".") and line != b"." else line for line in lines]
    return b"\n".join(unstuffed), None if end is None else wire[end.end() :]


@settings(deadline=None, max_examples=200)
@given(WIRE.map(b"".join), st.integers(1, 20), st.booleans())
def test_the_decoder_is_its_definition(wire: bytes, pieces: int, typed: bool) -> None:
    wire += b"\r\n.\r\nx"
    got, leftover, _ = decode(wire, pieces, typed=typed)
    assert (got, leftover) == reference(wire, typed=typed)


def test_octet_by_octet_takes_linear_time() -> None:
    with bounded_effort():
        decoder = DataDecoder()
        for octet in (b"x", b".", b"\n", b"\r") * 50_000:
            decoder.feed(octet)
