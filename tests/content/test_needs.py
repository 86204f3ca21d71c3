"""What content needs of a host."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.test_downgrade import BINARY, EIGHT, SEVEN_TEXT, TOP, message, multi, soup, text, wire
from trimta.content.needs import ContentNeeds, InternationalizedParts, internationalized_parts, needs_of
from trimta.content.windowed_octets import WindowedOctets
from trimta.mail.body import BodyForm

TEXT = BodyForm.TEXT
RAW = BodyForm.RAW


@settings(deadline=None, max_examples=100)
@given(content=soup, cuts=st.lists(st.integers(1, 7), max_size=40), form=st.sampled_from(BodyForm))
def test_needs_are_the_same_in_any_split(content: bytes, cuts: list[int], form: BodyForm) -> None:
    chunks, position = [], 0
    for cut in cuts:
        chunks.append(content[position : position + cut])
        position += cut
    assert needs_of([*chunks, content[position:]], form) == needs_of(content, form)
    assert needs_of([bytes([octet]) for octet in content], form) == needs_of(content, form)


@pytest.mark.parametrize(
    ("content", "form", "expected"),
    [
        (b"", TEXT, ContentNeeds()),
        (b"\n", TEXT, ContentNeeds()),
        (b"A: b\n\nhi\n", TEXT, ContentNeeds(longest_line=4)),
        (b"A: \xe9\n\nhi\n", TEXT, ContentNeeds(eight_bit_header=True, longest_line=4)),
        (b"A: b\n\n\xe9\n", TEXT, ContentNeeds(eight_bit_body=True, longest_line=4)),
        (b"\n\xe9", TEXT, ContentNeeds(eight_bit_body=True, longest_line=1)),
        (b"A: b\n\n\0\n", TEXT, ContentNeeds(nul=True, longest_line=4)),
        (b"A: b\n\nx\r\n", TEXT, ContentNeeds(bare_cr=True, longest_line=4)),
        (b"A: b\r\n\r\nx\r\n", RAW, ContentNeeds(longest_line=4)),
        (b"A: b\r\n\r\n\xe9\r\n", RAW, ContentNeeds(eight_bit_body=True, longest_line=4)),
        (b"A: b\r\n\r\nx\n", RAW, ContentNeeds(bare_lf=True, longest_line=4)),
        (b"A: b\r\n\r\nx\r", RAW, ContentNeeds(bare_cr=True, longest_line=4)),
        (b"A: b\r\n\r\n12345\r6\r\n", RAW, ContentNeeds(bare_cr=True, longest_line=7)),
        (b"\r\n\xe9", RAW, ContentNeeds(eight_bit_body=True, longest_line=1)),
        (b"A: b\n\n" + b"x" * 998, TEXT, ContentNeeds(longest_line=998)),
        (b"A: b\n\n" + b"x" * 200_000 + b"\ny", TEXT, ContentNeeds(longest_line=200_000)),
    ],
)
def test_needs_are(content: bytes, form: BodyForm, expected: ContentNeeds) -> None:
    assert needs_of(content, form) == expected


@pytest.mark.parametrize(
    ("has", "seven", "eight", "binary"),
    [
        (ContentNeeds(longest_line=998), True, True, True),
        (ContentNeeds(eight_bit_body=True), False, True, True),
        (ContentNeeds(eight_bit_header=True), False, True, True),
        (ContentNeeds(nul=True), False, False, True),
        (ContentNeeds(bare_cr=True), False, False, True),
        (ContentNeeds(bare_lf=True), False, False, True),
        (ContentNeeds(longest_line=999), False, False, True),
    ],
)
def test_content_fits_a_host_that_offers_what_it_needs(
    has: ContentNeeds, *, seven: bool, eight: bool, binary: bool
) -> None:
    assert has.fits(eight_bit_ok=False) is seven
    assert has.fits(eight_bit_ok=True) is eight
    assert has.fits(eight_bit_ok=True, binary_ok=True) is binary


GLOBAL = b"Content-Type: message/global\n" + EIGHT + b"\nSubject: \xc3\xa9\n\nhi\n"
NAMED = b'Content-Type: text/plain; name="\xc3\xa9"\n\nhi\n'


@pytest.mark.parametrize(
    ("content", "part_header", "message_global"),
    [
        (b"", False, False),
        (b"Subject: \xc3\xa9\n\nhi\n", False, False),
        (TOP + text(), False, False),
        (TOP + multi(text(), SEVEN_TEXT), False, False),
        (TOP + multi(SEVEN_TEXT, NAMED), True, False),
        (TOP + multi(multi(NAMED, boundary=b"inner")), True, False),
        (TOP + message(b"Subject: \xc3\xa9\n\nhi\n"), True, False),
        (TOP + message(b"Subject: x\n\n\xc3\xa9\n"), False, False),
        (TOP + GLOBAL, False, True),
        (TOP + multi(GLOBAL, SEVEN_TEXT), False, True),
        (TOP + multi(GLOBAL, NAMED), True, True),
        (TOP + multi(GLOBAL.replace(b"8bit", b"base64")), False, False),
        (TOP + multi(GLOBAL.replace(b"message/global", b"message/global-delivery-status")), False, True),
        (TOP + multi(multi(NAMED, kind=b"signed", boundary=b"inner")), False, False),
        (TOP + b"Content-Type: multipart/mixed\n\n--b\n" + NAMED, False, False),
        (TOP + multi(NAMED + b"\n--bound\nno field", GLOBAL, cte=BINARY), True, True),
    ],
)
def test_internationalized_headers_of_parts_are(content: bytes, *, part_header: bool, message_global: bool) -> None:
    expected = InternationalizedParts(part_header, message_global)
    assert internationalized_parts(WindowedOctets.of(content)) == expected
    assert internationalized_parts(WindowedOctets.of(wire(content)), RAW) == expected
