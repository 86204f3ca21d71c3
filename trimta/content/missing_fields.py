"""Header fields that a message submission agent adds where they are missing (RFC 6409 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta.content.date_time import date_time

if TYPE_CHECKING:
    from datetime import datetime

    from trimta.content.header_summary import HeaderSummary
    from trimta.mail.address import Mailbox


def missing_fields(
    header: HeaderSummary, *, author: Mailbox | None, author_name: str = "", message_id: str, date: datetime
) -> bytes:
    """The fields to put on top of content with such a header: From, Date and Message-ID as far as they are missing.

    `author` is the address for From, None for no From field; `author_name` its display name, empty for none.
    `message_id` is without angle brackets, `date` has a time zone.  The result is octets with LF line ends, and with an
    empty line at the end where the content has no header.
    """
    present = header.names
    added: list[str] = []
    if "from" not in present and author is not None:
        added.append(f"From: {_mailbox(author, author_name)}")
    if "date" not in present and "resent-date" not in present:
        added.append(f"Date: {date_time(date)}")
    if "message-id" not in present:
        added.append(f"Message-ID: <{message_id}>")
    if not added:
        return b""
    if not header.is_there:
        added.append("")
    return "".join(f"{line}\n" for line in added).encode()


def _mailbox(author: Mailbox, name: str) -> str:
    if not name:
        return str(author)
    if name.isascii() and all(character.isalnum() or character in " -_" for character in name):
        return f"{name} <{author}>"
    if not name.isascii():
        from email.header import Header

        encoded = Header(name.encode(errors="replace").decode(), "utf-8", header_name="From").encode()
        return f"{encoded} <{author}>"
    quoted = "".join(f"\\{c}" if c in '"\\' else c for c in name if c.isprintable())
    return f'"{quoted}" <{author}>'
