"""xtext, the encoding of text in an ESMTP parameter (RFC 3461 4), and the forms of UTF-8 addresses (RFC 6533 3)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    import re

_ENCODED: Final = pattern(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ESCAPE: Final = pattern(rb"\+([0-9A-F]{2})")
_NOT_XCHAR: Final = pattern(rb"[^!-*,-<>-~]")

_UNITEXT: Final = pattern(r"(?:[!-*,-<>-\[\]-~\u0080-\ud7ff\ue000-\U0010ffff]|\\x\{[0-9A-Fa-f]{2,6}\})*")
_POINT: Final = pattern(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_NOT_QCHAR: Final = pattern(r"[^!-*,-<>-\[\]-~]")
_NOT_UNICHAR: Final = pattern(r"[^!-*,-<>-\[\]-~\u0080-\ud7ff\ue000-\U0010ffff]")


def encode(text: str) -> str:
    """Text as xtext: `"a b=c"` -> `"a+20b+3Dc"`.  A character outside ASCII is encoded as the octets of its UTF-8."""
    octets = text.encode()
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], octets).decode("ascii")


def decode(text: str) -> str:
    """The text that xtext encodes.  Raises ValueError if `text` is not xtext, or its octets are not UTF-8."""
    try:
        octets = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError("xtext is ASCII only") from error
    if _ENCODED.fullmatch(octets) is None:
        raise ValueError("not xtext: an octet is written +HH, with upper-case digits")
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), octets).decode()


def encode_utf8_address(text: str) -> str:
    r"""An address as utf-8-addr-xtext, which is ASCII: `"jürgen@dev.test"` -> `"j\x{FC}rgen@dev.test"`."""
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def unitext(text: str) -> str:
    r"""An address as utf-8-addr-unitext, for SMTPUTF8: `"jürgen+a@dev.test"` -> `"jürgen\x{2B}a@dev.test"`."""
    return _NOT_UNICHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def decode_utf8_address(text: str) -> str:
    r"""The address that utf-8-addr-xtext, utf-8-addr-unitext, or either of them inside xtext encodes.

    Text in none of these forms is returned as it is, and is no reason to refuse the recipient (RFC 3461 5.1, 6533 3).
    The result is printable: a character that is not has an escape in it, `\x{85}`, as received or added.
    """
    if "+" in text:
        with contextlib.suppress(ValueError):
            text = decode(text)
    if _UNITEXT.fullmatch(text) is not None:
        text = _POINT.sub(_character, text)
    return _escape_unprintable(text)


def _character(match: re.Match[str]) -> str:
    digits = match[1]
    point = int(digits, 16)
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF or (len(digits) > 2 and digits[0] == "0"):
        return match[0]
    character = chr(point)
    return character if character.isprintable() else match[0]


def _escape_unprintable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else f"\\x{{{ord(character):02X}}}" for character in text)
