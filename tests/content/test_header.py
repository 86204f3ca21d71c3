"""The reader of header fields: whole, piece by piece, and the positions of fields in an entity."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import bounded_effort
from trimta.content.header import (
    MAX_KEPT,
    AmbiguousHeaderError,
    Field,
    HeaderReader,
    decoded,
    field_spans,
    fields,
    possible_headers,
    split_header,
    without_from_lines,
)
from trimta.content.header_summary import HeaderSummary
from trimta.content.windowed_octets import WindowedOctets


def read(content: bytes, size: int) -> tuple[list[Field], int]:
    """The fields of content that comes in pieces of a size, and the size of its header."""
    reader = HeaderReader()
    found: list[Field] = []
    for start in range(0, len(content), size):
        found += reader.feed(content[start : start + size])
        if reader.ended:
            break
    found += reader.finish()
    assert reader.ended
    assert reader.finish() == reader.feed(b"Subject: late\n\n") == []
    return found, reader.size


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
        (b"From : a@b.test\nA: 1\n", b"\nx"),  # a field in the obsolete syntax: RFC 5322 4.5
        (b"From a@b\n", b"From b@c\nA: 1\n"),
        (b"From " + b"a" * 5000 + b"\nA: 1\n", b"\nx"),
        (b">From " + b" " * 5000 + b":\nA: 1\n", b"\nx"),
        (b"", b"From " + b"a" * 5000),
        (b"", b"From a@b"),
        (b"", b">>From a@b\nA: 1\n"),
        (b"a" * 998 + b": b\n", b"\n"),
        (b"", b"a" * 999 + b": b\n"),
    ],
)
def test_a_header_ends_before_the_first_line_that_is_no_field(header: bytes, rest: bytes) -> None:
    assert split_header(header + rest) == (header, rest)
    for size in (1, 2, 7, 1000):
        assert read(header + rest, size) == ([*fields(header)], len(header))


def test_a_field_has_a_name_without_case_and_an_unfolded_value() -> None:
    found = list(fields(b"SUBJECT : one\r\n\ttwo\r\nX-B: caf\xc3\xa9 \xff\nEmpty:\n\nno: more\n"))
    assert [(field.name, field.value) for field in found] == [
        ("subject", "one\ttwo"),
        ("x-b", "café \udcff"),
        ("empty", ""),
    ]
    assert found[0].raw == b"SUBJECT : one\r\n\ttwo\r\n"


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_octets_have_a_header_and_a_rest(content: bytes) -> None:
    header, rest = split_header(content)
    assert header + rest == content
    assert [*fields(content)] == [*fields(header)]
    raw = b"".join(field.raw for field in fields(header))
    assert header.endswith(raw)


_TOKENS = st.sampled_from(
    [
        *(
            b"From: a@b",
            b"Received:",
            b" ",
            b"\t",
            b"",
            b"\n",
            b"\n",
            b"\n",
            b"\r\n",
            b"\r",
            b":",
            b"From ",
            b">From x",
            b"From " + b"w" * 3000,
            b"From" + b" " * 998,
        ),
        *(b"\0", b"\xe9", b"\n folded", b"y" * 999, b"A: " + b"z" * 3000, b"\n  q" * 900),
    ]
)


@settings(deadline=None)
@given(st.lists(_TOKENS, max_size=14).map(b"".join), st.integers(1, 5000))
def test_a_header_in_pieces_has_the_same_fields_as_the_whole(content: bytes, size: int) -> None:
    size = max(size, len(content) // 200)
    found, octets = read(content, size)
    assert [(field.name, field.raw[:MAX_KEPT]) for field in found] == [
        (field.name, field.raw[:MAX_KEPT]) for field in fields(content)
    ]
    assert octets == len(split_header(content)[0])


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"X-Long: {", b"y" * 10_000), (b"X-Long: {", b"\n  y" * 3000), (b"Subject: x\n\n", b"y" * 10_000)],
)
def test_memory_does_not_grow_with_a_field(begin: bytes, more: bytes) -> None:
    reader = HeaderReader()
    reader.feed(begin)
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert reader.feed(more) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
    if reader.ended:
        assert reader.size == len(b"Subject: x\n")
    else:
        (field,) = reader.feed(b"}\nSubject: x\n\n")[:1]
        assert len(field.raw) == MAX_KEPT
        assert reader.size == len(begin) + 1000 * len(more) + len(b"}\nSubject: x\n")


A, B = (b"a", b"A: 1\n", b" 1\n"), (b"b", b"B:\n 2\n", b"\n 2\n")


@pytest.mark.parametrize(
    ("content", "names_and_values", "header", "body"),
    [
        (b"", [], b"", b""),
        (b"\nbody", [], b"", b"body"),
        (b"A: 1\nB:\n 2\n\nbody\n", [A, B], b"A: 1\nB:\n 2\n", b"body\n"),
        (b"A: 1\nB: 2", [A, (b"b", b"B: 2", b" 2")], b"A: 1\nB: 2", b""),
        (b"A: 1\n", [A], b"A: 1\n", b""),
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_positions_of_fields_are(
    content: bytes, names_and_values: list[tuple[bytes, bytes, bytes]], header: bytes, body: bytes, line_end: bytes
) -> None:
    octets = content.replace(b"\n", line_end)
    found = field_spans(WindowedOctets.of(octets), 0, len(octets), line_end=line_end)
    assert [
        (field.name, octets[field.start : field.end], octets[field.value_start : field.end]) for field in found.fields
    ] == [tuple(part.replace(b"\n", line_end) for part in field) for field in names_and_values]
    assert octets[: found.end] == header.replace(b"\n", line_end)
    assert octets[found.body_start :] == body.replace(b"\n", line_end)


@pytest.mark.parametrize(
    "content", [b"A : 1\n", b" A: 1\n", b"A: 1\nbody\n", b"From a@b\nA: 1\n", b"a" * 998 + b": 1\n", b"A: 1\n: 2\n"]
)
def test_an_entity_whose_header_readers_may_see_in_two_ways_has_no_positions(content: bytes) -> None:
    with pytest.raises(AmbiguousHeaderError):
        field_spans(WindowedOctets.of(content), 0, len(content), line_end=b"\n")


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        (b"A: 1", True),
        (b"A:", True),
        (b"A \t: 1", True),
        (b" A: 1", False),
        (b": 1", False),
        (b"A", False),
        (b"", False),
    ],
)
def test_a_line_begins_a_field_or_does_not(line: bytes, begins: bool) -> None:
    assert bool([*fields(line)]) is begins


def test_a_field_keeps_the_case_of_its_name() -> None:
    assert [(field.name, field.written_name) for field in fields(b"X-Case : 1\nx-case: 2\n")] == [
        ("x-case", "X-Case"),
        ("x-case", "x-case"),
    ]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", []),
        (b"\nA: 1\n", []),
        (b"A: 1\n\nB: 2\n", [b"A: 1\n"]),
        (b"A: 1\n\n--b\nB: 2\n C: 3\n\nx\n\n--b--\n", [b"A: 1\n", b"B: 2\n C: 3\n"]),
        (b"A: 1\n\n--b\nno field\nB: 2\n", [b"A: 1\n"]),
        (b"A: 1\n\n--b\nB: 2\nno field\nC: 3", [b"A: 1\n", b"B: 2\nno field\nC: 3"]),
        (b"no field\nA: 1\n\n", [b"no field\nA: 1\n"]),
        (b"A: 1\n--b\nB: 2\n\n--c: 3\nD: 4\n", [b"A: 1\n--b\nB: 2\n", b"D: 4\n"]),
    ],
)
def test_headers_are_looked_for_where_a_part_may_begin(content: bytes, headers: list[bytes]) -> None:
    assert [*possible_headers(content)] == headers


@pytest.mark.parametrize(
    ("content", "without"),
    [
        (b"From a@x.test Mon Jan  1 00:00:00 2024\nSubject: s\n\n", b"Subject: s\n\n"),
        (b">From a\nFrom b\nSubject: s\n", b"Subject: s\n"),
        (b"From: a@x.test\n\nFrom the body\n", b"From: a@x.test\n\nFrom the body\n"),
        (b"\nFrom here\n", b"\nFrom here\n"),
        (b"From a@b\n>>From b\nA: 1\n", b"A: 1\n"),
        (b"From : a@b\nA: 1\n", b"From : a@b\nA: 1\n"),
        (b"From: a@b\n", b"From: a@b\n"),
        (b"A: 1\nFrom a@b\n", b"A: 1\nFrom a@b\n"),
        (b"From a@b", b"From a@b"),
        (b"From " + b"a" * 5000 + b"\nA: 1\n", b"A: 1\n"),
    ],
)
def test_from_lines_of_an_mbox_are_taken_away(content: bytes, without: bytes) -> None:
    assert without_from_lines(content) == without


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("=?utf-8?b?w6k=?=", "é"),
        ("=?iso-8859-1?q?=E9?= plain", "é plain"),
        ("=?no-such?q?=E9?=", "=?no-such?q?=E9?="),
        ("=?utf-8?b?w?=", "=?utf-8?b?w?="),
        ("raw é", "raw é"),
        ("octet \udcff", "octet \ufffd"),
    ],
)
def test_encoded_words_are_decoded_and_nothing_raises(value: str, text: str) -> None:
    assert decoded(value) == text


@pytest.mark.parametrize(
    "content",
    [
        b"a" * 5_000_000,
        b"a:" + b"\n " * 2_000_000,
        b"a:\n" * 500_000,
        b"a" + b" " * 5_000_000 + b":x",
        b"a: " + b"x" * 5_000_000,
        b"From " * 1_000_000,
        b"--\nA: b\n" * 100_000,
    ],
    ids=range(7),
)
def test_large_content_is_read_at_once(content: bytes) -> None:
    with bounded_effort():
        split_header(content)
        HeaderSummary.of(content)
        read(content, 65_536)
        assert sum(map(len, possible_headers(content))) <= len(content)
