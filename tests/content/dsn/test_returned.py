"""The returned part: the message or its header, and the media type that it has."""

from __future__ import annotations

from typing import Final

import pytest

from tests.content.dsn.support import (
    HEADER,
    MESSAGE,
    make,
    parse,
    returned,
)
from trimta.content.dsn.returned import RETURN_LIMIT
from trimta.mail.envelope import Ret


@pytest.mark.parametrize(
    ("content", "whole", "part"),
    [
        (MESSAGE, True, MESSAGE),
        (MESSAGE, False, HEADER),
        (HEADER + b"\n" + b"x\n" * RETURN_LIMIT, True, HEADER),
        (HEADER + b"\n\0\n", True, HEADER),
        (HEADER + b"\n" + b"x" * 999 + b"\n", True, HEADER),
        (MESSAGE.replace(b"\n", b"\r\n"), True, MESSAGE),
        (MESSAGE.replace(b"\n", b"\r\n") + b"a\rb", True, HEADER),
        (HEADER + b"\nno last line end", True, HEADER + b"\nno last line end"),
        (HEADER + "\ncafé\n".encode(), True, HEADER + "\ncafé\n".encode()),
        (HEADER + b"\nlatin \xe9\n", True, HEADER + b"\nlatin \xe9\n"),
        (HEADER + b"Subject: cut in the mid", False, HEADER),
        (HEADER + b"this is no field\nsecret\n", False, HEADER),
        (b"\nonly a body\n", False, b""),
        (b"From a@b Thu Jan  1 00:00:00 1970\n" + HEADER + b"\nhi", False, HEADER),
        (b" folded\nA: b\n\n", False, b""),
        (b"A: b\0c\rd\n\nhi\n", True, b"A: b?c?d\n"),
        (b"A: " + b"x" * 1500 + b"\n\nhi", True, b"A: " + b"x" * 994 + b"\n " + b"x" * 506 + b"\n"),
        (b"", True, b""),
    ],
)
def test_the_returned_part_is_the_message_or_its_header(content: bytes, part: bytes, *, whole: bool) -> None:
    dsn = make(content=content, whole=whole)
    parse(dsn)
    assert returned(dsn) == part


def test_the_limit_bounds_header_and_message() -> None:
    content = b"".join(b"Field-%d: value\n" % n for n in range(10_000)) + b"\nhi\n"
    part = returned(make(content=content, limit=1000))
    assert 900 < len(part) <= 1000
    assert content.startswith(part)
    assert part.endswith(b"value\n")
    assert returned(make(content=MESSAGE, limit=len(MESSAGE))) == MESSAGE
    assert returned(make(content=MESSAGE, limit=len(MESSAGE) - 1)) == HEADER


def test_a_long_utf8_header_line_is_not_cut_within_a_character() -> None:
    content = b"Subject: " + "é".encode() * 2000 + b"\n\nhi\n"
    dsn = make(content=content, smtputf8=True, ret=Ret.HEADERS)
    parse(dsn)
    assert returned(dsn).decode().replace("\n ", "").count("é") == 2000


MIXED: Final = HEADER + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"


@pytest.mark.parametrize(
    ("content", "smtputf8", "kind"),
    [
        (MIXED + b"Content-Type: a/b; name=%s\n\nx\n--b--\n", True, 1),
        (MIXED + b"Content-Type: a/b; name=%s\n\nx\n--b--\n", False, 0),
        (MIXED + b"Content-Type: a/b;\n name=%s\n\nx\n--b--\n", True, 1),
        (MIXED + b"Content-Type: a/b\n\n%s\n--b--\n", True, 0),
        (HEADER + b"\nhello\n-- \n%s\n", True, 0),
    ],
)
def test_utf8_in_the_header_of_a_part_makes_it_message_global(content: bytes, kind: int, *, smtputf8: bool) -> None:
    dsn = make(content=content.replace(b"%s", "ä".encode()), smtputf8=smtputf8)
    assert parse(dsn)[3].get_content_type() == ("message/rfc822", "message/global")[kind]
    assert dsn.smtputf8 is bool(kind)
