"""What is piped into sendmail: its end, its line ends, and the recipients that its header names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.address import AddressError
from trimta.mail.submission import (
    BadRecipient,
    BareCr,
    PipedText,
    addresses,
    named_recipients,
    without_from_line,
)


def read(octets: bytes, *, dot_ends: bool, step: int = 0) -> tuple[bytes, bool]:
    """The content, taken in pieces of `step` octets, and whether it ended itself."""
    text = PipedText(dot_ends=dot_ends)
    pieces = [octets[place : place + step] for place in range(0, len(octets), step)] if step else [octets]
    content = b"".join(map(text.feed, pieces)) + text.finish()
    return content, text.ended


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("octets", "content", "ended"),
    [
        (b"", b"", False),
        (b"a\nb\n", b"a\nb\n", False),
        (b"a\nb", b"a\nb", False),
        (b"a\r\nb\r\n", b"a\nb\n", False),
        (b"a\r\nb\nc\r\n", b"a\nb\nc\n", False),
        (b"a\0b\n", b"a\0b\n", False),
        (b"a\n.\nb\n", b"a\n", True),
        (b"a\r\n.\r\nb\r\n", b"a\n", True),
        (b".\nb\n", b"", True),
        (b"a\n.", b"a\n", False),
        (b".", b"", False),
        (b"a\n..\nb\n", b"a\n..\nb\n", False),
        (b"a\n.b\n", b"a\n.b\n", False),
        (b"a\n. \n", b"a\n. \n", False),
        (b"a.\nb.\n", b"a.\nb.\n", False),
        (b"a\n.\nb\rc\n", b"a\n", True),
    ],
)
def test_a_lone_dot_ends_and_crlf_is_a_line_end(octets: bytes, content: bytes, ended: bool, step: int) -> None:
    assert read(octets, dot_ends=True, step=step) == (content, ended)


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("octets", [b"a\n.\nb\n", b"a\r\n.\r\nb\r\n", b".\n", b"a\n."])
def test_with_i_a_lone_dot_is_a_line(octets: bytes, step: int) -> None:
    assert read(octets, dot_ends=False, step=step) == (octets.replace(b"\r\n", b"\n"), False)


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize(
    ("octets", "line"), [(b"a\rb\n", 1), (b"a\nb\r\r\n", 2), (b"a\n\nb\r", 3), (b"\r", 1), (b"a\n.\rb\n", 2)]
)
def test_a_cr_that_ends_no_line_is_refused(octets: bytes, line: int, step: int) -> None:
    with pytest.raises(BareCr) as caught:
        read(octets, dot_ends=True, step=step)
    assert caught.value.line == line


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([b"a", b".", b"\n", b"\r\n", b"\0"]), max_size=30), st.integers(1, 7), st.booleans())
def test_it_does_not_matter_where_the_octets_are_split(parts: list[bytes], step: int, dot_ends: bool) -> None:
    octets = b"".join(parts)
    assert read(octets, dot_ends=dot_ends, step=step) == read(octets, dot_ends=dot_ends)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("alice@dev.test", ["alice@dev.test"]),
        ("<alice@dev.test>", ["alice@dev.test"]),
        ("alice", ["alice@local.test"]),
        ("<alice>", ["alice@local.test"]),
        ("postmaster", ["postmaster@local.test"]),
        ("Alice <alice@dev.test>, bob@dev.test", ["alice@dev.test", "bob@dev.test"]),
        ('"Doe, Alice" <alice@dev.test>', ["alice@dev.test"]),
        ('"a \\" , b" <alice@dev.test>', ["alice@dev.test"]),
        ("=?utf-8?q?Caf=C3=A9=2C?= <cafe@dev.test>", ["cafe@dev.test"]),
        ("Müller <m@dev.test>", ["m@dev.test"]),
        ("M\udcfcller <m@dev.test>", ["m@dev.test"]),
        ("alice@dev.test (Alice (the first, really))", ["alice@dev.test"]),
        ("(Bob) bob(x)@(y)dev.test", ["bob@dev.test"]),
        ("a . b @ dev . test", ["a.b@dev.test"]),
        ('"a b"@dev.test', ['"a b"@dev.test']),
        ('"a@b"@dev.test', ['"a@b"@dev.test']),
        ('"just quoted"', ['"just quoted"@local.test']),
        ("a@[127.0.0.1], b@[IPv6:::1]", ["a@[127.0.0.1]", "b@[IPv6:::1]"]),
        ("undisclosed-recipients:;", []),
        ("undisclosed recipients: ;", []),
        ("team: alice@dev.test, Bob <bob@dev.test>;, carol@x.test", ["alice@dev.test", "bob@dev.test", "carol@x.test"]),
        ("one: a@x.test; two: b@x.test;", ["a@x.test", "b@x.test"]),
        ("a@x.test; b@x.test", ["a@x.test", "b@x.test"]),
        (",a@x.test,,b@x.test,", ["a@x.test", "b@x.test"]),
        ("<@one.test,@two.test:a@x.test>", ["a@x.test"]),
        ("jürgen@bücher.test", ["jürgen@bücher.test"]),
        ("a%b@x.test, a!b@x.test", ["a%b@x.test", "a!b@x.test"]),
    ],
)
def test_an_address_list_is_its_mailboxes(text: str, found: list[str]) -> None:
    assert [str(mailbox) for mailbox in addresses(text, "local.test")] == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alice bob@dev.test", "a space"),
        ("<>", "empty"),
        ("Alice <alice@dev.test", "'>'"),
        ("<a@x.test> <b@x.test>", "a comma is missing"),
        ("<a@x.test> b@x.test", "a comma is missing"),
        ("(never closed", "a comment is not closed"),
        ('"never closed', "not closed"),
        ("a@x@y.test", "a second '@'"),
        ("a@", "empty"),
        ("@x.test", "empty"),
        ("a..b@x.test", "dot"),
        ("a@-x.test", "hyphen"),
        ("a\udcff@x.test", "0xFF"),
        ("a@x.test: b@x.test", "':'"),
        (".", ""),
    ],
)
def test_what_is_no_address_is_named(text: str, problem: str) -> None:
    with pytest.raises(AddressError) as caught:
        [*addresses(text, "local.test")]
    assert problem in str(caught.value)
    assert str(caught.value).isascii()


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from('ab@.<>,;:()"[]\\ \n\té'), max_size=40))
def test_any_text_is_addresses_or_an_error(text: str) -> None:
    try:
        found = [*addresses(text, "local.test")]
    except AddressError:
        return
    assert all(mailbox.domain for mailbox in found)


@pytest.mark.parametrize(
    ("header", "kept", "recipients"),
    [
        (
            b"To: a@x.test\nCc: b@x.test\nBcc: c@x.test\nSubject: s\n",
            b"To: a@x.test\nCc: b@x.test\nSubject: s\n",
            "a b c",
        ),
        (
            b"To: a@x.test,\n b@x.test\nBCC:\n c@x.test,\n\td@x.test\nX: y\n",
            b"To: a@x.test,\n b@x.test\nX: y\n",
            "a b c d",
        ),
        (b"to: a@x.test\nTo: b@x.test\nBcc: c@x.test\nBcc: d@x.test\n", b"to: a@x.test\nTo: b@x.test\n", "a b c d"),
        (b"To: a@x.test, A <a@x.test>\nCc: a@x.test\n", b"To: a@x.test, A <a@x.test>\nCc: a@x.test\n", "a"),
        (b"To: undisclosed-recipients:;\nBcc: a@x.test\n", b"To: undisclosed-recipients:;\n", "a"),
        (b"Bcc:\nTo: a@x.test\n", b"To: a@x.test\n", "a"),
        (b"Subject: Bcc: no\nReply-To: b@x.test\n", b"Subject: Bcc: no\nReply-To: b@x.test\n", ""),
        (
            b"Resent-To: r@x.test\nResent-Bcc: s@x.test\nTo: a@x.test\nBcc: b@x.test\n",
            b"Resent-To: r@x.test\nTo: a@x.test\n",
            "r s",
        ),
        (b"Resent-From: f@x.test\nTo: a@x.test\n", b"Resent-From: f@x.test\nTo: a@x.test\n", "a"),
        (b"", b"", ""),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"\n", b"\nBcc: not@a.field\n"])
def test_the_header_names_recipients_and_blind_ones_leave_it(
    header: bytes, kept: bytes, recipients: str, rest: bytes
) -> None:
    named = named_recipients(header + rest, "local.test")
    assert named.content == kept + rest
    assert [mailbox.local_part for mailbox in named.recipients] == recipients.split()


def test_a_bad_address_is_told_with_its_field() -> None:
    with pytest.raises(BadRecipient, match=r"^Cc: 'b b@x\.test': a space"):
        named_recipients(b"To: a@x.test\nCc: b b@x.test\n\n", "local.test")


@pytest.mark.parametrize(
    ("content", "without"),
    [
        (b"From a@x.test Mon Jan  1 00:00:00 2024\nSubject: s\n\n", b"Subject: s\n\n"),
        (b">From a\nFrom b\nSubject: s\n", b"Subject: s\n"),
        (b"From: a@x.test\n\nFrom the body\n", b"From: a@x.test\n\nFrom the body\n"),
        (b"\nFrom here\n", b"\nFrom here\n"),
    ],
)
def test_the_line_of_an_mbox_is_no_part_of_the_message(content: bytes, without: bytes) -> None:
    assert without_from_line(content) == without
