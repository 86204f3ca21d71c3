"""Shorter forms of a DSN, for a return path whose host refuses what `dsn.compose` made: no body of the message, 7 bits,
few octets.

    FULL   what `compose` made
    BRIEF  the header of the message, encoded; diagnostics cut; as many DSNs as its recipients need
    BARE   no header of the message either
"""

from __future__ import annotations

import binascii
import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.content.dsn.compose import assemble, header_of, part
from trimta.content.dsn.escaping import ascii_only, field, utf8_xtext
from trimta.content.dsn.report import DsnKind
from trimta.content.dsn.words import short_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class ReportForm(enum.StrEnum):
    """How much a DSN holds."""

    FULL = "full"
    BRIEF = "brief"
    BARE = "bare"


_NEXT: Final = {ReportForm.FULL: ReportForm.BRIEF, ReportForm.BRIEF: ReportForm.BARE}

_GROUPS: Final = {ReportForm.BRIEF: 4 * 1024, ReportForm.BARE: 1024}
"""Octets of what is told of recipients in one DSN; one recipient is told of in any case."""
_TEXT: Final = {ReportForm.BRIEF: 600, ReportForm.BARE: 120}
"""Characters of a diagnostic, and of what else came from the network."""
_HEADER: Final = 4 * 1024
"""Octets of the header of the message."""
_ESSENTIAL: Final = re.compile(rb"(?:from|to|cc|subject|date|message-id|in-reply-to|references):", re.IGNORECASE)
"""Fields that are returned of a longer header."""

_ADDRESSES: Final = frozenset({"Original-Recipient", "Final-Recipient", "X-Trimta-Actual-Recipient"})


def shorter(content: bytes, form: ReportForm) -> tuple[ReportForm, list[bytes]] | None:
    """The next shorter form of a DSN that is ours: LF line ends, as `compose` made it or this function.

    Its recipients may need several DSNs; each tells of some of them.  None if there is no shorter form, or `content` is
    no DSN of ours.
    """
    following = _NEXT.get(form)
    report = _read(content)
    if following is None or report is None:
        return None
    return following, [_rebuilt(report, following, number, batch) for number, batch in _batches(report, following)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """A DSN taken apart."""

    fields: tuple[str, ...]
    """Of the header, without those of MIME."""
    about: Mapping[str, str]
    """The fields of the message in the machine's part."""
    groups: tuple[Mapping[str, str], ...]
    """Those of each recipient."""
    is_global: bool
    """They are written as message/global-delivery-status has them (RFC 6533 3)."""
    returned_type: str
    returned: bytes


def _read(content: bytes) -> _Report | None:
    head, _, body = content.partition(b"\n\n")
    found = re.search(rb'\n boundary="([^"\n]+)"', head)
    if found is None:
        return None
    pieces = body.split(b"--" + found[1])
    if len(pieces) != 5:  # before, three parts, behind
        return None
    headers, bodies = zip(*(_split(piece) for piece in pieces[1:4]), strict=True)
    types = [_fields(header.decode("utf-8", "backslashreplace")).get("Content-Type", "") for header in headers]
    about, *groups = [_fields(group) for group in bodies[1].decode("utf-8", "backslashreplace").strip().split("\n\n")]
    if not groups:
        return None
    fields = re.split(r"\n(?![ \t])", head.decode("utf-8", "backslashreplace"))
    return _Report(
        fields=tuple(line for line in fields if not line.startswith(("MIME-Version:", "Content-"))),
        about=about,
        groups=tuple(groups),
        is_global=types[1] == "message/global-delivery-status",
        returned_type=types[2],
        returned=bodies[2],
    )


def _split(piece: bytes) -> tuple[bytes, bytes]:
    header, _, body = piece.lstrip(b"\n").partition(b"\n\n")
    return header, body[:-1]  # the line end before a delimiter is the delimiter's


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.replace("\n ", " ").split("\n"))
    return {name: value.strip() for name, _, value in pairs}


def _batches(report: _Report, form: ReportForm) -> Iterator[tuple[int, list[Mapping[str, str]]]]:
    """The recipients, as many together as one DSN tells of; numbered."""
    number, size = 0, 0
    batch: list[Mapping[str, str]] = []
    for group in report.groups:
        short = _short(report, group, form)
        octets = sum(len(name) + len(value) + 3 for name, value in short.items())
        if batch and size + octets > _GROUPS[form]:
            yield number, batch
            number, size, batch = number + 1, 0, []
        batch.append(short)
        size += octets
    yield number, batch


def _short(report: _Report, group: Mapping[str, str], form: ReportForm) -> dict[str, str]:
    """Values in ASCII; an address whole, in the form of RFC 6533 3, other text cut."""
    found: dict[str, str] = {}
    for name, value in group.items():
        addr_type, _, address = value.partition("; ")
        if name in _ADDRESSES:
            if report.is_global and addr_type.lower() == "utf-8":
                address = utf8_xtext(address)
            found[name] = f"{addr_type}; {ascii_only(address)}"
        else:
            text = ascii_only(value)
            found[name] = text if len(text) <= _TEXT[form] else f"{text[: _TEXT[form]]} ..."
    return found


def _rebuilt(report: _Report, form: ReportForm, number: int, groups: Sequence[Mapping[str, str]]) -> bytes:
    about = _short(report, report.about, form)
    status = [[field(name, value) for name, value in group.items()] for group in (about, *groups)]
    kind = DsnKind(groups[0]["Action"])
    parts = [
        part(
            "text/plain; charset=us-ascii",
            "Notification",
            short_words(kind, about, groups, header=form is ReportForm.BRIEF).encode(),
        ),
        part(
            "message/delivery-status",
            "Delivery report",
            "\n\n".join("\n".join(group) for group in status).encode() + b"\n",
        ),
    ]
    if form is ReportForm.BRIEF:
        parts.append(_returned(report))
    fields = [_numbered(line, f"{form}-{number}") if number else line for line in report.fields]
    return assemble(fields, parts, seed=f"{form} {number} {''.join(report.fields)}")


def _numbered(line: str, number: str) -> str:
    """Each of several DSNs that were one has a Message-ID of its own."""
    return line.replace("@", f".{number}@", 1) if line.startswith("Message-ID:") else line


def _returned(report: _Report) -> bytes:
    header = header_of(report.returned, whole=True)
    if len(header) > _HEADER:
        essential = [line for line in re.split(rb"(?<=\n)(?![ \t])", header) if _ESSENTIAL.match(line)]
        header = b""
        for line in essential:
            if len(header) + len(line) <= _HEADER:
                header += line
    described = "Header of the message"
    if header.isascii():
        return part("text/rfc822-headers", described, header)
    is_global = report.returned_type.startswith("message/global")
    kind = "message/global-headers" if is_global else "text/rfc822-headers"
    quoted = binascii.b2a_qp(header, quotetabs=False, istext=True)
    encoded = binascii.b2a_base64(header, newline=False)
    if len(quoted) <= len(encoded):
        return part(kind, described, quoted, encoding="quoted-printable")
    lines = [encoded[start : start + 76] for start in range(0, len(encoded), 76)]
    return part(kind, described, b"\n".join(lines) + b"\n", encoding="base64")
