"""The values of Content-Type and Content-Transfer-Encoding: one meaning, or none where programs may differ."""

from __future__ import annotations

import pytest

from trimta.content.mime.content_type import content_type, transfer_encoding, without_comments

OCTETS = (b"application/octet-stream", None)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (b"text/plain", (b"text/plain", None)),
        (b" Text / PLAIN ; charset=utf-8", (b"text/plain", None)),
        (b"text/plain; boundary=b", (b"text/plain", None)),
        (b"multipart/mixed; boundary=b", (b"multipart/mixed", b"b")),
        (b'multipart/mixed; boundary="a \\"b"', (b"multipart/mixed", b'a "b')),
        (b"multipart/mixed (boundary=x); Boundary=b ", (b"multipart/mixed", b"b")),
        (b"multipart/mixed; boundary*0=a; boundary*1=b", (b"multipart/mixed", b"ab")),
        (b"multipart/mixed; boundary*=us-ascii''a%20b", (b"multipart/mixed", b"a b")),
        (b"multipart/mixed; boundary=a; boundary=a", (b"multipart/mixed", b"a")),
        (b"multipart/mixed; boundary=a; boundary=b", (b"multipart/mixed", None)),
        (b"multipart/mixed", (b"multipart/mixed", None)),
        (b"multipart/mixed; boundary=", (b"multipart/mixed", None)),
        (b"text", OCTETS),
        (b"", OCTETS),
        (b"multipart", None),
        (b"Message", None),
    ],
)
def test_a_media_type_has_a_boundary_that_no_program_can_mistake(
    value: bytes, result: tuple[bytes, bytes | None] | None
) -> None:
    assert content_type(value) == result


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (b"8bit", b"8bit"),
        (b" Quoted-Printable (as usual) ", b"quoted-printable"),
        (b'"base64";', b"base64"),
        (b"8-bit", b"8bit"),
        (b"7bits", b"7bit"),
        (b"", b"7bit"),
        (b"x-uuencode", b"x-uuencode"),
    ],
)
def test_a_transfer_encoding_is_known_by_its_name(value: bytes, encoding: bytes) -> None:
    assert transfer_encoding(value) == encoding


@pytest.mark.parametrize(
    ("value", "without"),
    [
        (b"a(b)c", b"a c"),
        (b"a(b(c)d)e", b"a  e"),
        (b'"(a)" b', b'"(a)" b'),
        (b"a\\(b", b"a\\(b"),
        (b"a(b", b"a"),
        (b"a)b", b"a b"),
        (b"a((b)c", b"a "),
    ],
)
def test_a_comment_is_a_space(value: bytes, without: bytes) -> None:
    assert without_comments(value) == without
