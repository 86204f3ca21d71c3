"""Values of Content-Type and Content-Transfer-Encoding, read as readers of mail do (RFC 2045 5, 6; RFC 2231 3, 4)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

_TOKEN: Final = rb"[^\x00-\x20\x7f-\xff()<>@,;:\\\"/\[\]?=]+"
_MEDIA_TYPE: Final = re.compile(rb"\s*(" + _TOKEN + rb")\s*/\s*(" + _TOKEN + rb")\s*")
_PARAMETER: Final = re.compile(
    rb';\s*(?:(?P<name>[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]+)\s*=\s*'
    rb'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\x00-\x20\x7f;"(),]+))\s*)?',
    re.DOTALL,
)
_NUMBERED: Final = re.compile(rb"boundary\*(0|[1-9][0-9]{0,2})(\*?)")
_LEXEMES: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|\\.|[()]|[^"\\()]+|.', re.DOTALL)

_SPELLINGS: Final = {b"8-bit": b"8bit", b"8bits": b"8bit", b"7-bit": b"7bit", b"7bits": b"7bit", b"": b"7bit"}


def without_comments(value: bytes) -> bytes:
    """The value with a space in place of each comment (RFC 5322 3.2.2); a parenthesis without its partner ends it."""
    found: list[bytes] = []
    depth = 0
    for lexeme in _LEXEMES.findall(value):
        if lexeme == b"(":
            depth += 1
        elif lexeme == b")":
            depth = max(0, depth - 1)
            found.append(b" ")
        elif not depth:
            found.append(lexeme)
    return b"".join(found)


def transfer_encoding(value: bytes) -> bytes:
    """The name of a Content-Transfer-Encoding in lower case: `8bit`, `quoted-printable`, or what else is there."""
    name = without_comments(value).strip().rstrip(b";").strip().strip(b'"').strip().lower()
    return _SPELLINGS.get(name, name)


def content_type(value: bytes) -> tuple[bytes, bytes | None] | None:
    """The media type in lower case, and the boundary of a multipart: None without one, and where readers may differ in
    which it is.  What cannot be read is a leaf of no known type, unless it might be a composite: then None.
    """
    value = without_comments(value)
    match = _MEDIA_TYPE.match(value)
    if match is None:
        might_be = b"multipart" in value.lower() or b"message" in value.lower()
        return None if might_be else (b"application/octet-stream", None)
    media_type = match[1].lower() + b"/" + match[2].lower()
    if not media_type.startswith(b"multipart/"):
        return media_type, None  # of no other type is a parameter asked
    return media_type, _boundary(value, match.end())


def _boundary(value: bytes, position: int) -> bytes | None:
    plain: list[bytes] = []
    pieces: dict[int, bytes] = {}
    while position < len(value):
        parameter = _PARAMETER.match(value, position)
        if parameter is None:
            break  # what follows is for no reader
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
    found = plain[0] if plain else b"".join(pieces[number] for number in range(len(pieces)) if number in pieces)
    return found.rstrip() or None
