"""The frame of a DSN."""

from __future__ import annotations

from tests.content.dsn.support import (
    HEADER,
    make,
    parse,
)


def test_a_boundary_does_not_occur_in_the_message() -> None:
    first = make()
    boundary = first.content.split(b'boundary="')[1].split(b'"')[0]
    again = make(content=HEADER + b"\n--" + boundary + b"--\nhi\n")
    parse(again)
    assert again.content.split(b'boundary="')[1].split(b'"')[0] != boundary
