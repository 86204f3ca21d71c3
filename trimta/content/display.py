"""A message as people read it: its text, its attachments, its date.

The functions raise nothing for any octets: a part that can't be read is left out or shown as it is.
"""

from __future__ import annotations

import email
import email.utils
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from trimta.content.header import decoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is a file."""

    filename: str
    """Empty where it has no name."""
    content_type: str
    size: int
    """Octets, decoded."""


def parse(content: bytes) -> Message:
    """The message with its parts.  If parts are nested too deep for Python, it has a header and a text only."""
    try:
        return email.message_from_bytes(content)
    except RecursionError:
        return BytesHeaderParser().parsebytes(content)


def body(message: Message) -> str:
    """The text for people: that of the first part of text/plain, else of another text type, that is no attachment; of a
    multipart whose parts can't be told apart, all octets behind the header.
    """
    parts = list(_parts(message))
    texts = [part for part in parts if part.get_content_maintype() == "text" and not _is_attachment(part)]
    texts.sort(key=lambda part: part.get_content_type() != "text/plain")
    if texts:
        return text(texts[0])
    if message.get_content_maintype() == "multipart" and not message.is_multipart():
        return text(message)
    return ""


def text(part: Message) -> str:
    """The text of a part without parts, decoded by its charset or, if that fails, as UTF-8 with U+FFFD for errors."""
    octets = _octets(part)
    try:
        decoded_text = octets.decode(part.get_content_charset("utf-8"))
    except (LookupError, ValueError):  # the charset does not exist, is none of text, or has no such octets
        decoded_text = octets.decode(errors="replace")
    return decoded_text.encode(errors="replace").decode()  # some charsets have half a surrogate pair


def attachments(message: Message) -> list[Attachment]:
    """The parts of the message that are files."""
    return [
        Attachment(decoded(_filename(part)), part.get_content_type(), len(_octets(part)))
        for part in _parts(message)
        if _is_attachment(part)
    ]


def date(value: str) -> str | None:
    """The value of a Date field in the form of ISO 8601; None if it is no date, or one that no calendar has."""
    try:
        return email.utils.parsedate_to_datetime(value).isoformat()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _parts(message: Message) -> Iterator[Message]:
    """All parts in the order of `message.walk()`, however deep they are nested."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        payload = (
            part.get_payload() if part.is_multipart() else None
        )  # the payload of a text is decoded, which may fail
        if isinstance(payload, list):
            waiting.extend(inner for inner in reversed(payload) if not isinstance(inner, str))


def _octets(part: Message) -> bytes:
    try:
        octets = part.get_payload(decode=True)
    except (ValueError, LookupError):  # octets that the transfer encoding does not have
        octets = None
    if isinstance(octets, bytes):
        return octets
    try:
        payload = part.get_payload()
    except (ValueError, LookupError):  # a charset that does not exist
        return b""
    return payload.encode(errors="surrogateescape") if isinstance(payload, str) else b""


def _is_attachment(part: Message) -> bool:
    return not part.is_multipart() and (part.get_content_disposition() == "attachment" or bool(_filename(part)))


def _filename(part: Message) -> str:
    try:
        return part.get_filename() or ""
    except (ValueError, LookupError):  # a name of RFC 2231 whose octets its charset does not have
        return ""
