"""The transfer encodings quoted-printable and base64 (RFC 2045 6) of octets that come in chunks.

Text has LF line ends here.  The memory taken is that of a chunk, or of a line of at most LINE_LIMIT octets.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Final

from trimta.mail.body import BodyForm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_LIMIT: Final = 128 * 1024
"""Octets of one line that are kept until its end comes; a longer line is encoded in pieces of about this size."""

_BASE64_OCTETS: Final = 57  # they are 76 characters, the most that a line may have: RFC 2045 6.8


def lf_text(chunks: Iterable[bytes], form: BodyForm) -> Iterator[bytes]:
    """Content in this form as text with LF line ends, in chunks.  A bare CR stays."""
    if form is BodyForm.TEXT:
        yield from chunks
        return
    held = b""
    for chunk in chunks:
        joined = held + chunk
        held = b"\r" if joined.endswith(b"\r") else b""
        yield joined[: len(joined) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held


def quoted_printable(text: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable (RFC 2045 6.7) of text without CR: a line end stays a line end."""
    held = b""
    for chunk in text:
        joined = held + chunk
        end = joined.rfind(b"\n") + 1
        if end:
            yield binascii.b2a_qp(joined[:end], quotetabs=False, istext=True)
        held = joined[end:]
        if len(held) > LINE_LIMIT:
            yield binascii.b2a_qp(held, quotetabs=False, istext=True) + b"=\n"
            held = b""
    if held:
        yield binascii.b2a_qp(held, quotetabs=False, istext=True)


def base64_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Base64 (RFC 2045 6.8) in lines of 76 characters, without a line end behind the last one."""
    held = b""
    line_end = b""
    for chunk in chunks:
        joined = held + chunk
        whole = (len(joined) - 1) // _BASE64_OCTETS * _BASE64_OCTETS if joined else 0
        if whole > 0:
            yield line_end + _base64(joined[:whole])
            line_end = b"\n"
        held = joined[whole:]
    if held:
        yield line_end + _base64(held)


def base64_size(octets: int) -> int:
    """The octets, line ends included, of the base64 that `base64_lines` makes of so many octets."""
    return (octets + 2) // 3 * 4 + octets // _BASE64_OCTETS


def _base64(data: bytes) -> bytes:
    return b"\n".join(
        binascii.b2a_base64(data[start : start + _BASE64_OCTETS], newline=False)
        for start in range(0, len(data), _BASE64_OCTETS)
    )
