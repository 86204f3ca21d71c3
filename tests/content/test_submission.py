"""What is piped into sendmail: its end, its line ends, and the recipients that its header names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.content.submission import (
    BareCr,
    PipedText,
    addresses,
    has_whole_header,
    mended,
    named_recipients,
)
from trimta.mail.address import AddressError


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
    assert mended(header + rest, "local.test") == kept + rest
    assert [mailbox.local_part for mailbox in named.recipients] == recipients.split()
    assert named.bad == ()


@pytest.mark.parametrize(
    ("header", "recipients", "bad"),
    [
        (b"To: a@x.test\nCc: b b@x.test\n", "a", ["Cc: 'b b@x.test': a space"]),
        (b"To: Joe :) <j@x.test>, a@x.test\n", "a", ["To: 'Joe :) <j@x.test>': a ')' is not closed"]),
        (b"To: a@x.test, Joe :) <j@x.test>\nCc: b@x.test\n", "a b", ["To: 'Joe :) <j@x.test>'"]),
        (b"To: a@x.test,\n Joe :) <j@x.test>,\n\tb@x.test\n", "a b", ["To: 'Joe :) <j@x.test>'"]),
        (b'To: "never closed <j@x.test>, a@x.test\n', "a", ["To: '\"never closed <j@x.test>'"]),
        (b"To: (never closed, a@x.test, b@x.test\n", "a b", ["To: '(never closed'"]),
        (b"To: <j@x.test, a@x.test\n", "a", ["To: '<j@x.test'"]),
        (b'To: "A, b" <a@x.test>, c@@x.test\n', "a", ["To: 'c@@x.test'"]),
        (b"To: team: a@x.test, b b@x.test, c@x.test;\n", "a c", ["To: 'b b@x.test'"]),
        (b"To: a@x.test b@x.test\nBcc: c@x.test\n", "c", ["To: 'a@x.test b@x.test'"]),
        (b"To: J\xfcrgen <a@x.test>, \xff@x.test\n", "a", ["To: '\\udcff@x.test'"]),
        (b"Resent-To: r@x.test, @@\nTo: a@x.test\n", "r", ["Resent-To: '@@'"]),
        (b"To: @, <>\nCc: .\n", "", ["To: '@'", "To: '<>'", "Cc: '.'"]),
        (b"To: " + b"a@x.test, " * 20_000 + b":)\n", "a", ["To: ':)'"]),
        (b"To: " + b'"(<' * 20_000 + b",a@x.test\n", "a", ["To: "]),
    ],
)
def test_one_odd_element_does_not_keep_the_others_from_being_recipients(
    header: bytes, recipients: str, bad: list[str]
) -> None:
    named = named_recipients(header + b"\n", "local.test")
    assert [mailbox.local_part for mailbox in named.recipients] == recipients.split()
    assert len(named.bad) == len(bad)
    assert all(problem.startswith(expected) for problem, expected in zip(named.bad, bad, strict=True))


@pytest.mark.parametrize(
    ("content", "passed_on"),
    [
        # The empty line behind the header.
        (b"Subject: s\n\nbody\n", b"Subject: s\n\nbody\n"),
        (b"Subject: s\nbody\n", b"Subject: s\n\nbody\n"),
        (b"Subject: s\nX: y\n z\nbody: yes\nno field\n", b"Subject: s\nX: y\n z\nbody: yes\n\nno field\n"),
        (b"Subject: s\n.\n", b"Subject: s\n\n.\n"),
        (b"Subject: s\n: no name\n", b"Subject: s\n\n: no name\n"),
        (b"Subject: s\nbody without end", b"Subject: s\n\nbody without end"),
        (b"Subject: s\n\xe4\xf6: no name either\n", b"Subject: s\n\n\xe4\xf6: no name either\n"),
        (b"Subject: s\n", b"Subject: s\n"),
        (b"Subject: s", b"Subject: s"),
        (b"only text\n", b"only text\n"),
        (b"\nonly text\n", b"\nonly text\n"),
        (b" leading space\nSubject: s\n", b" leading space\nSubject: s\n"),
        (b"", b""),
        # What others must not see.
        (b"Bcc: x@x.test\nSubject: s\n\nBcc: body\n", b"Subject: s\n\nBcc: body\n"),
        (b"bcc : x@x.test,\n y@x.test\n\tz@x.test\nSubject: s\ntext\n", b"Subject: s\n\ntext\n"),
        (b"Resent-Bcc: x@x.test\nBcc: y@x.test\ntext\n", b"\ntext\n"),
        (b"Return-Path: <x@x.test>\nSubject: s\n\n", b"Subject: s\n\n"),
        (b"From x Mon\n>From y Tue\nSubject: s\ntext\n", b"Subject: s\n\ntext\n"),
    ],
)
def test_a_header_is_passed_on_as_sendmail_does(content: bytes, passed_on: bytes) -> None:
    assert mended(content, "local.test") == passed_on


@pytest.mark.parametrize("name", [b"From", b"to", b"CC", b"Reply-To", b"Sender", b"Resent-From", b"Resent-To"])
@pytest.mark.parametrize(
    ("value", "qualified"),
    [
        (b"root (Cron Daemon)", b"root@local.test (Cron Daemon)"),
        (b"root", b"root@local.test"),
        (b"<root>", b"<root@local.test>"),
        (b"Root <root>", b"Root <root@local.test>"),
        (b'"Root, the" <root>, bob', b'"Root, the" <root@local.test>, bob@local.test'),
        (b"J\xc3\xbcrgen <juergen>", b"J\xc3\xbcrgen <juergen@local.test>"),
        (b"J\xfcrgen <juergen>", b"J\xfcrgen <juergen@local.test>"),
        (b"a . b (x (y)) , c@x.test,d", b"a . b@local.test (x (y)) , c@x.test,d@local.test"),
        (b"team: alice, bob@x.test;, carol", b"team: alice@local.test, bob@x.test;, carol@local.test"),
        (b"undisclosed-recipients:;", b"undisclosed-recipients:;"),
        (b"alice,\n bob,\n\tcarol", b"alice@local.test,\n bob@local.test,\n\tcarol@local.test"),
        (b'"a b"', b'"a b"@local.test'),
        (b"a@x.test, b@y.test", b"a@x.test, b@y.test"),
        (b"<@route.test:a@x.test>", b"<@route.test:a@x.test>"),
        (b"Two Words, bob", b"Two Words, bob@local.test"),
        (b"<>", b"<>"),
        (b"", b""),
        (b"root (never closed", b"root (never closed"),
        (b"Joe :) <joe>", b"Joe :) <joe>"),
    ],
)
def test_an_address_without_a_domain_gets_one(name: bytes, value: bytes, qualified: bytes) -> None:
    field = name + b": " + value + b"\n"
    assert mended(field + b"\nFrom: body\n", "local.test") == name + b": " + qualified + b"\n\nFrom: body\n"


def test_other_fields_stay_as_they_are() -> None:
    content = b"Subject: root\nX-From: root\nReferences: root\nList-Id: root\n\n"
    assert mended(content, "local.test") == content


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"", False),
        (b"Subject", False),
        (b"Subject: s\n", False),
        (b"Subject: s\n X", False),
        (b"Subject: s\ntext", False),
        (b"Subject: s\n\n", True),
        (b"Subject: s\ntext\n", True),
        (b"From x\n", False),
        (b"\n", True),
        (b"x" * 999, True),
        (b"Subject: " + b"x" * 9999, False),
    ],
)
def test_a_header_is_whole_when_nothing_more_can_belong_to_it(content: bytes, whole: bool) -> None:
    assert has_whole_header(content) is whole


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from([b"To: a", b"Bcc: b", b"x", b":", b" ", b"\n", b"\n\n", b"(", b'"', b"From "]), max_size=12
    )
)
def test_a_mended_header_stays_as_it_is_and_the_text_is_kept(parts: list[bytes]) -> None:
    content = b"".join(parts)
    once = mended(content, "local.test")
    assert mended(once, "local.test") == once
