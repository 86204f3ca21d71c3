"""The header of what sendmail takes: the recipients that it names, and what is passed on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.content.sendmail_header import has_whole_header, header_recipients, passed_on


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
    named = header_recipients(header + rest, "local.test")
    assert passed_on(header + rest, "local.test") == kept + rest
    assert [mailbox.local_part for mailbox in named.recipients] == recipients.split()
    assert named.problems == ()


@pytest.mark.parametrize(
    ("header", "recipients", "problems"),
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
    header: bytes, recipients: str, problems: list[str]
) -> None:
    named = header_recipients(header + b"\n", "local.test")
    assert [mailbox.local_part for mailbox in named.recipients] == recipients.split()
    assert len(named.problems) == len(problems)
    assert all(problem.startswith(expected) for problem, expected in zip(named.problems, problems, strict=True))


@pytest.mark.parametrize(
    ("content", "result"),
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
def test_a_header_is_passed_on_as_sendmail_does(content: bytes, result: bytes) -> None:
    assert passed_on(content, "local.test") == result


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
    assert passed_on(field + b"\nFrom: body\n", "local.test") == name + b": " + qualified + b"\n\nFrom: body\n"


def test_other_fields_stay_as_they_are() -> None:
    content = b"Subject: root\nX-From: root\nReferences: root\nList-Id: root\n\n"
    assert passed_on(content, "local.test") == content


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
        (b"From " + b"x" * 999, False),
        (b"Subject: s\nFrom " + b"x" * 999, True),
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
def test_a_header_that_was_passed_on_stays_as_it_is_and_the_text_is_kept(parts: list[bytes]) -> None:
    content = b"".join(parts)
    once = passed_on(content, "local.test")
    assert passed_on(once, "local.test") == once
