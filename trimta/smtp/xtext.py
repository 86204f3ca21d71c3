"""xtext: any text as one ESMTP parameter value (RFC 3461 4), and its kin for UTF-8 addresses (RFC 6533 3)."""

from __future__ import annotations

import contextlib
import re
from typing import Final

_ENCODED: Final = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ESCAPE: Final = re.compile(rb"\+([0-9A-F]{2})")
_NOT_XCHAR: Final = re.compile(rb"[^!-*,-<>-~]")

_UNITEXT: Final = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\ud7ff\ue000-\U0010ffff]|\\x\{[0-9A-Fa-f]{2,6}\})*")
_POINT: Final = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_NOT_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_UNICHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~\u0080-\ud7ff\ue000-\U0010ffff]")


def encode(text: str) -> str:
    """`"a b=c"` -> `"a+20b+3Dc"`; other characters than ASCII go as the octets of their UTF-8."""
    octets = text.encode()
    return _NOT_XCHAR.sub(lambda found: b"+%02X" % found[0][0], octets).decode("ascii")


def decode(text: str) -> str:
    """The inverse of `encode`; ValueError if `text` is not xtext, or not UTF-8 below it."""
    try:
        octets = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError("xtext is ASCII only") from error
    if _ENCODED.fullmatch(octets) is None:
        raise ValueError("not xtext: an octet is written +HH, with upper-case digits")
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), octets).decode()


def encode_utf8_address(text: str) -> str:
    r"""`"jürgen@dev.test"` -> `"j\x{FC}rgen@dev.test"`: utf-8-addr-xtext, which every server takes as xtext."""
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", text)


def unitext(text: str) -> str:
    r"""`"jürgen+a@dev.test"` -> `"jürgen\x{2B}a@dev.test"`: utf-8-addr-unitext, for servers with SMTPUTF8."""
    return _NOT_UNICHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", text)


def decode_utf8_address(text: str) -> str:
    r"""Read utf-8-addr-xtext, utf-8-addr-unitext, or either inside xtext; the result is printable.

    What is none of these is no reason to refuse the address (RFC 3461 5.1, 6533 3): it stays as it is.  So does the
    escape of a character that is not printable, and such a character without an escape gets one: `\x{85}`.
    """
    if "+" in text:
        with contextlib.suppress(ValueError):
            text = decode(text)
    if _UNITEXT.fullmatch(text) is not None:
        text = _POINT.sub(_character, text)
    return _escape_unprintable(text)


def _character(found: re.Match[str]) -> str:
    digits = found[1]
    point = int(digits, 16)
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF or (len(digits) > 2 and digits[0] == "0"):
        return found[0]
    character = chr(point)
    return character if character.isprintable() else found[0]


def _escape_unprintable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else f"\\x{{{ord(character):02X}}}" for character in text)
