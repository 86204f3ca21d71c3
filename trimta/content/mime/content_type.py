"""The values of Content-Type and Content-Transfer-Encoding fields (RFC 2045 5, 6; RFC 2231 3, 4).

Values are octets, unfolded.  They are read as programs for reading mail read them, mistakes included: where such
programs may differ, there is no answer rather than a guess.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from trimta.first_use.pattern import pattern

_TOKEN: Final = rb"[^\x00-\x20\x7f-\xff()<>@,;:\\\"/\[\]?=]+"
_MEDIA_TYPE: Final = pattern(rb"\s*(" + _TOKEN + rb")\s*/\s*(" + _TOKEN + rb")\s*")
_PARAMETER: Final = pattern(
    rb';\s*(?:(?P<name>[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]+)\s*=\s*'
    rb'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\x00-\x20\x7f;"(),]+))\s*)?',
    re.DOTALL,
)
_NUMBERED: Final = pattern(rb"boundary\*(0|[1-9][0-9]{0,2})(\*?)")
_LEXEMES: Final = pattern(rb'"(?:[^"\\]|\\.)*"|\\.|[()]|[^"\\()]+|.', re.DOTALL)

_SPELLINGS: Final = {b"8-bit": b"8bit", b"8bits": b"8bit", b"7-bit": b"7bit", b"7bits": b"7bit", b"": b"7bit"}
"""Misspelt names of transfer encodings, and the names that are meant."""


def without_comments(value: bytes) -> bytes:
    """The value with a space for the end of each comment, nested ones included (RFC 5322 3.2.2).

    A comment that is not closed goes to the end of the value; a ")" that closes nothing is a space.
    """
    kept: list[bytes] = []
    depth = 0
    for lexeme in _LEXEMES.findall(value):
        if lexeme == b"(":
            depth += 1
        elif lexeme == b")":
            depth = max(0, depth - 1)
            kept.append(b" ")
        elif not depth:
            kept.append(lexeme)
    return b"".join(kept)


def transfer_encoding(value: bytes) -> bytes:
    """The name of the transfer encoding in lower case, such as `8bit` or `quoted-printable`, also of one that is not
    known.  An empty value is `7bit`.
    """
    name = without_comments(value).strip().rstrip(b";").strip().strip(b'"').strip().lower()
    return _SPELLINGS.get(name, name)


def content_type(value: bytes) -> tuple[bytes, bytes | None] | None:
    """The media type in lower case, and the boundary of a multipart.

    The boundary is None where there is none, where readers may differ in which it is, and for other types.  A value
    that can't be read is `application/octet-stream`, as RFC 2045 5.2 allows; if it may mean a multipart or a message,
    with other entities inside, the result is None.
    """
    value = without_comments(value)
    match = _MEDIA_TYPE.match(value)
    if match is None:
        may_be_composite = b"multipart" in value.lower() or b"message" in value.lower()
        return None if may_be_composite else (b"application/octet-stream", None)
    media_type = match[1].lower() + b"/" + match[2].lower()
    if not media_type.startswith(b"multipart/"):
        return media_type, None
    return media_type, _boundary(value, match.end())


def _boundary(value: bytes, position: int) -> bytes | None:
    """The parameter `boundary` among the parameters from `position` on; it may come in numbered pieces (RFC 2231 3)."""
    plain: list[bytes] = []
    pieces: dict[int, bytes] = {}
    while position < len(value):
        parameter = _PARAMETER.match(value, position)
        if parameter is None:
            break  # readers ignore what follows
        position = parameter.end()
        name = (parameter["name"] or b"").lower()
        text = parameter["token"]
        if text is None:
            text = re.sub(rb"\\(.)", rb"\1", parameter["quoted"] or b"", flags=re.DOTALL)
        numbered = _NUMBERED.fullmatch(name)
        if name == b"boundary":
            plain.append(text)
        elif name == b"boundary*":
            pieces[0] = unquote_to_bytes(text.rpartition(b"'")[2])
        elif numbered is not None:
            extended = unquote_to_bytes(text.rpartition(b"'")[2]) if numbered[2] else text
            pieces.setdefault(int(numbered[1]), extended)
    if len(set(plain)) > 1:
        return None
    boundary = plain[0] if plain else b"".join(pieces[number] for number in range(len(pieces)) if number in pieces)
    return boundary.rstrip() or None
