"""Shorter forms of a DSN, for a return path whose host refuses what `compose` made."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.content.dsn.escaping import ascii_only, header_field, utf8_xtext
from trimta.content.dsn.explanation import short_explanation
from trimta.content.dsn.multipart_report import multipart_report, report_part
from trimta.content.dsn.report_form import ReportForm
from trimta.content.dsn.returned import returned_header
from trimta.content.dsn.status_fields import ACTUAL_RECIPIENT, DELIVERY_STATUS, GLOBAL_DELIVERY_STATUS
from trimta.content.dsn.values import DsnKind
from trimta.content.header import fields, split_header
from trimta.content.mime.structure import Entity, Multipart, read_structure
from trimta.content.windowed_octets import WindowedOctets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trimta.content.header import Field


_NEXT: Final = {ReportForm.FULL: ReportForm.BRIEF, ReportForm.BRIEF: ReportForm.BARE}

_MAX_RECIPIENTS: Final = {ReportForm.BRIEF: 4 * 1024, ReportForm.BARE: 1024}
"""Octets of all per-recipient fields in one DSN; there is one recipient in any case."""
_MAX_TEXT: Final = {ReportForm.BRIEF: 600, ReportForm.BARE: 120}
"""Characters of a diagnostic, and of each other value that is no address."""
_MAX_HEADER: Final = 4 * 1024
"""Octets of the header that is returned."""
_ESSENTIAL: Final = frozenset({"from", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references"})
"""Names, in lower case, of the fields that are returned of a longer header."""

_ADDRESSES: Final = frozenset({"Original-Recipient", "Final-Recipient", ACTUAL_RECIPIENT})


def shorter(content: bytes, form: ReportForm) -> tuple[ReportForm, list[bytes]] | None:
    """The next shorter form after `form`, and the content of each DSN in it: several, each of which tells of some of
    the recipients, where one would be too long.

    `content` is a DSN that `compose` or this function made.  The result is None if there is no shorter form, or if
    `content` is no such DSN.
    """
    following = _NEXT.get(form)
    report = _taken_apart(content)
    if following is None or report is None:
        return None
    batches = _batches(report, following)
    return following, [_rebuilt(report, following, number, batch) for number, batch in enumerate(batches)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """A DSN taken apart."""

    fields: tuple[str, ...]
    """The fields of its header without those of MIME, each without its last line end."""
    message: Mapping[str, str]
    """The per-message fields of the second part."""
    recipients: tuple[Mapping[str, str], ...]
    """The per-recipient fields of each recipient."""
    is_global: bool
    """Whether they are those of a message/global-delivery-status (RFC 6533 4)."""
    returned_type: bytes
    """The media type of the third part, in lower case."""
    returned: bytes
    """The body of the third part."""


def _taken_apart(content: bytes) -> _Report | None:
    """The DSN; None if `content` is no report of three parts."""
    match read_structure(WindowedOctets.of(content)):
        case Entity(body=Multipart(parts=(Entity(), Entity() as status, Entity() as returned), epilogue_start=int())):
            pass
        case _:
            return None
    message, *recipients = _groups(content[status.body_start : status.end])
    if not recipients:
        return None
    return _Report(
        fields=tuple(_text(field) for field in fields(content) if not _is_of_mime(field)),
        message=message,
        recipients=tuple(recipients),
        is_global=status.media_type == GLOBAL_DELIVERY_STATUS.encode(),
        returned_type=returned.media_type,
        returned=content[returned.body_start : returned.end],
    )


def _is_of_mime(field: Field) -> bool:
    return field.name == "mime-version" or field.name.startswith("content-")


def _text(field: Field) -> str:
    return field.raw.decode("utf-8", "backslashreplace").removesuffix("\n")


def _groups(status: bytes) -> list[dict[str, str]]:
    """The fields of each group of a delivery status, by their names: groups are apart by an empty line."""
    groups: list[dict[str, str]] = []
    rest = status.strip(b"\n")
    while rest or not groups:
        group, rest = split_header(rest)
        groups.append({field.written_name: field.value for field in fields(group)})
        if not rest.startswith(b"\n"):
            break
        rest = rest[1:]
    return groups


def _batches(report: _Report, form: ReportForm) -> Iterator[list[Mapping[str, str]]]:
    """The recipients in batches, one for each DSN, with their fields in the shorter form."""
    size = 0
    batch: list[Mapping[str, str]] = []
    for group in report.recipients:
        short = _shortened(report, group, form)
        octets = sum(len(name) + len(value) + 3 for name, value in short.items())
        if batch and size + octets > _MAX_RECIPIENTS[form]:
            yield batch
            size, batch = 0, []
        batch.append(short)
        size += octets
    yield batch


def _shortened(report: _Report, group: Mapping[str, str], form: ReportForm) -> dict[str, str]:
    """The fields of a group in ASCII: an address whole, in the form of RFC 6533 3, other text cut."""
    short: dict[str, str] = {}
    for name, value in group.items():
        addr_type, _, address = value.partition("; ")
        if name in _ADDRESSES:
            if report.is_global and addr_type.lower() == "utf-8":
                address = utf8_xtext(address)
            short[name] = f"{addr_type}; {ascii_only(address)}"
        else:
            text = ascii_only(value)
            limit = _MAX_TEXT[form]
            short[name] = text if len(text) <= limit else f"{text[:limit]} ..."
    return short


def _rebuilt(report: _Report, form: ReportForm, number: int, recipients: Sequence[Mapping[str, str]]) -> bytes:
    """The DSN about these recipients.  `number` is its number among those that the report becomes, from 0."""
    message = _shortened(report, report.message, form)
    kind = DsnKind(recipients[0]["Action"])
    text = short_explanation(kind, message, recipients, returns_header=form is ReportForm.BRIEF)
    groups = ["\n".join(header_field(*field) for field in group.items()) for group in (message, *recipients)]
    parts = [
        report_part("text/plain; charset=us-ascii", "Notification", text.encode()),
        report_part(DELIVERY_STATUS, "Delivery report", "\n\n".join(groups).encode() + b"\n"),
    ]
    if form is ReportForm.BRIEF:
        parts.append(_returned_part(report))
    header = [_numbered(line, f"{form}-{number}") if number else line for line in report.fields]
    return multipart_report(header, parts, seed=f"{form} {number} {''.join(report.fields)}")


def _numbered(line: str, number: str) -> str:
    """A Message-ID field with the number in it, since DSNs that were one need ids of their own; any other as it is."""
    return line.replace("@", f".{number}@", 1) if line.startswith("Message-ID:") else line


def _returned_part(report: _Report) -> bytes:
    """The part with the header of the message, or with its essential fields, in 7 bits."""
    header = returned_header(report.returned, whole=True)
    if len(header) > _MAX_HEADER:
        header = _essential(header)
    described = "Header of the message"
    if header.isascii():
        return report_part("text/rfc822-headers", described, header)
    is_global = report.returned_type.startswith(b"message/global")
    media_type = "message/global-headers" if is_global else "text/rfc822-headers"
    quoted = binascii.b2a_qp(header, quotetabs=False, istext=True)
    encoded = binascii.b2a_base64(header, newline=False)
    if len(quoted) <= len(encoded):
        return report_part(media_type, described, quoted, encoding="quoted-printable")
    lines = [encoded[start : start + 76] for start in range(0, len(encoded), 76)]
    return report_part(media_type, described, b"\n".join(lines) + b"\n", encoding="base64")


def _essential(header: bytes) -> bytes:
    """The essential fields of a header, as many as there is room for."""
    short = b""
    for field in fields(header):
        if field.name in _ESSENTIAL and len(short) + len(field.raw) <= _MAX_HEADER:
            short += field.raw
    return short
