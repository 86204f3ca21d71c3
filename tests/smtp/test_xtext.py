"""xtext and the UTF-8 address forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.smtp import xtext


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("", ""),
        ("alice@dev.test", "alice@dev.test"),
        ("a b", "a+20b"),
        ("a+b=c", "a+2Bb+3Dc"),
        ("\x00\x7f", "+00+7F"),
        ("ü", "+C3+BC"),
        ("<>", "<>"),
    ],
)
def test_xtext_is_printable_ascii_without_plus_and_equals(text: str, encoded: str) -> None:
    assert xtext.encode(text) == encoded
    assert xtext.decode(encoded) == text


@pytest.mark.parametrize("encoded", ["a b", "a=b", "a+", "a+2", "a+2b", "a+GG", "ü", "\n", "+FF", "+C3", "a\x00"])
def test_what_is_not_xtext_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        xtext.decode(encoded)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("jürgen@dev.test", r"j\x{FC}rgen@dev.test"),
        ("a+b=c\\ d", r"a\x{2B}b\x{3D}c\x{5C}\x{20}d"),
        ("𝄞", r"\x{1D11E}"),
    ],
)
def test_utf8_addresses_have_an_ascii_form(text: str, encoded: str) -> None:
    assert xtext.encode_utf8_address(text) == encoded
    assert xtext.decode_utf8_address(encoded) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("jürgen@dev.test", "jürgen@dev.test"),
        (r"j\x{fc}rgen@dev.test", "jürgen@dev.test"),  # digits in either case
        (r"j\x{Fc}\x{1d11e}@dev.test", "jü𝄞@dev.test"),
        (r"j\x{FC}rgen+40dev.test", "jürgen@dev.test"),  # as xtext, too
        ("a+2Bb@x", "a+b@x"),
        ("a+5Cx{FC}@x", "aü@x"),
    ],
)
def test_utf8_addresses_are_read_as_unitext_and_inside_xtext(given: str, text: str) -> None:
    assert xtext.decode_utf8_address(given) == text


@pytest.mark.parametrize(
    "given",
    [
        *("a=b", r"a\b@x", "a+", "a+2b", "jü+2Bb", "\\", r"\X{FC}"),
        *(r"\x{}", r"\x{F}", r"\x{D800}", r"\x{110000}", r"\x{0FC}", r"\x{1234567}", r"a\b\x{FC}"),
        *(r"\x{0D}\x{0A}", r"\x{85}", r"\x{202E}", r"\x{2028}"),
    ],
)
def test_what_is_no_utf8_address_or_would_not_be_printable_stays_as_it_is(given: str) -> None:
    assert xtext.decode_utf8_address(given) == given


def test_a_utf8_address_that_is_not_printable_is_escaped() -> None:
    assert xtext.decode_utf8_address("ü\x85\u202e@x") == r"ü\x{85}\x{202E}@x"
    assert xtext.decode_utf8_address("a+0D+0A@x") == r"a\x{0D}\x{0A}@x"


TEXT = st.text(st.characters(blacklist_categories=["Cs"]))


@settings(deadline=None, max_examples=100)
@given(TEXT)
def test_any_text_survives(text: str) -> None:
    assert xtext.decode(xtext.encode(text)) == text
    assert xtext.decode_utf8_address(xtext.encode_utf8_address(text)).isprintable()
    if text.isprintable():
        assert xtext.decode_utf8_address(xtext.encode_utf8_address(text)) == text
