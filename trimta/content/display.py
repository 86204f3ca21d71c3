"""A message in the form in which people read it: its text, its attachments, its date.

Nothing is raised for any octets: what can't be read is left out or shown as it is.
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
    """The message with its parts; one that is nested deeper than Python can follow is a header and a text."""
    try:
        return email.message_from_bytes(content)
    except RecursionError:
        return BytesHeaderParser().parsebytes(content)


def body(message: Message) -> str:
    """The text for people: the first part of text/plain, else of text/html, that is no attachment.  Of a message whose
    parts can't be told apart, all that follows the header.
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
    """The characters of a part without parts, as its charset says, else as UTF-8, what is neither as U+FFFD."""
    octets = _octets(part)
    try:
        found = octets.decode(part.get_content_charset("utf-8"))
    except (LookupError, ValueError):  # no such charset, one that is none of text, or other octets than it has
        found = octets.decode(errors="replace")
    return found.encode(errors="replace").decode()  # some charsets can say half a surrogate pair


def attachments(message: Message) -> list[Attachment]:
    """The parts of the message that are files."""
    return [
        Attachment(decoded(_filename(part)), part.get_content_type(), len(_octets(part)))
        for part in _parts(message)
        if _is_attachment(part)
    ]


def date(value: str) -> str | None:
    """A Date field as ISO 8601 has it; None if it is no date, or none that there ever will be."""
    try:
        return email.utils.parsedate_to_datetime(value).isoformat()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _parts(message: Message) -> Iterator[Message]:
    """message.walk(), however deep."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        payload = part.get_payload() if part.is_multipart() else None  # of a text it is decoded, and that may fail
        if isinstance(payload, list):
            waiting.extend(inner for inner in reversed(payload) if not isinstance(inner, str))


def _octets(part: Message) -> bytes:
    try:
        octets = part.get_payload(decode=True)
    except (ValueError, LookupError):  # an encoding that its text contradicts
        octets = None
    if isinstance(octets, bytes):
        return octets
    try:
        payload = part.get_payload()
    except (ValueError, LookupError):  # a charset whose name is none
        return b""
    return payload.encode(errors="surrogateescape") if isinstance(payload, str) else b""


def _is_attachment(part: Message) -> bool:
    return not part.is_multipart() and (part.get_content_disposition() == "attachment" or bool(_filename(part)))


def _filename(part: Message) -> str:
    try:
        return part.get_filename() or ""
    except (ValueError, LookupError):  # RFC 2231's octets are none of its charset
        return ""
