"""Trace fields (RFC 5321 4.4): made on top of a message, and counted in one.

Fields are made of octets with LF line ends.  Nothing that a peer said can end one early: what is no part of its place
becomes "?".
"""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_domain, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from trimta.mail.envelope import ReversePath

MAX_HELO: Final = 255  # octets shown; a domain has no more: RFC 5321 4.5.3.1.2

_NOT_DOMAIN: Final = re.compile(r"[^A-Za-z0-9._:\[\]\-]")
_NOT_COMMENT: Final = re.compile(r"[^ !-'*-\[\]-~]")  # ctext and spaces, without "\": RFC 5322 3.2.2
_NOT_ATOM: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]")
_FIELD: Final = re.compile(rb"(?P<name>[!-9;-~]++)[ \t]*+:(?P<value>[^\n]*+(?:\n[ \t][^\n]*+)*+)\n?")
_FROM_LINE: Final = re.compile(rb">?From [^\n]*\n")  # of an mbox, which some programs pass on


@dataclass(frozen=True, slots=True)
class Field:
    """One header field as it stands, folding included."""

    name: str
    """In lower case."""
    raw: bytes
    """All its octets, with the last line end."""

    @property
    def value(self) -> str:
        """Unfolded (RFC 5322 2.2.3), without white space around it; octets that are not UTF-8 are surrogates."""
        value = self.raw.partition(b":")[2].replace(b"\r\n", b"").replace(b"\n", b"")
        return value.decode(errors="surrogateescape").strip(" \t")


@dataclass(frozen=True, slots=True)
class HeaderSummary:
    """What a header says of the way behind the message."""

    received_count: int
    delivered_to: tuple[str, ...]
    """Values of Delivered-To, topmost first."""
    _mailboxes: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Read once: a header has room for thousands, and is asked for each of a thousand recipients.
        object.__setattr__(self, "_mailboxes", frozenset(_mailboxes(self.delivered_to)))

    def was_delivered_to(self, mailbox: Mailbox) -> bool:
        """Whether the message has been in this mailbox: a loop if it comes again."""
        return _folded(mailbox) in self._mailboxes


def received_field(
    *,
    helo: str,
    client: str,
    by: str,
    protocol: str,
    id: str,  # noqa: A002 - the name of the clause
    for_: Mailbox | None,
    date: datetime,
    cipher_suite: str = "",
) -> bytes:
    """The Received field of RFC 5321 4.4.

    `helo` is what the client called itself, perhaps nothing; `client` the text of its address ("127.0.0.1",
    "IPv6:::1" or "::1"), or words ("unix socket"); `by` this host's name; `for_` the single recipient, if there is one;
    `date` an aware datetime; `cipher_suite` the registered name of the TLS session's cipher suite, which the clause
    `tls` shows (RFC 8314 4.3), empty without TLS.  UTF-8 appears only in `for_`, with one of the UTF8 protocols
    (RFC 6531 3.7.3).
    """
    if date.tzinfo is None:
        raise ValueError("a date without its offset from UTC")
    lines = [
        f"Received: from {_extended_domain(helo, client)}",
        f"\tby {_domain(by)} with {_NOT_ATOM.sub('?', protocol)} id {_NOT_ATOM.sub('?', id)}",
    ]
    utf8 = protocol.startswith("UTF8")
    if for_ is not None and (utf8 or for_.is_ascii):
        lines.append(f"\tfor <{for_.wire(smtputf8=utf8)}>")
    if cipher_suite:
        lines.append(f"\ttls {_NOT_ATOM.sub('?', cipher_suite)}")
    lines[-1] += f"; {email.utils.format_datetime(date)}\n"
    return "\n".join(lines).encode()


def submitted_field(*, by: str, user_id: int, id: str, date: datetime) -> bytes:  # noqa: A002 - as above
    """The Received field of a message that came from a local program instead of a client (RFC 5321 4.4: "from" and
    "with" are left out): whose program, by its numeric user id.
    """
    if date.tzinfo is None:
        raise ValueError("a date without its offset from UTC")
    return (
        f"Received: by {_domain(by)} (trimta sendmail, from userid {user_id})\n"
        f"\tid {_NOT_ATOM.sub('?', id)}; {email.utils.format_datetime(date)}\n"
    ).encode()


def with_protocol(*, esmtp: bool, lmtp: bool, tls: bool, auth: bool, utf8: bool) -> str:
    """The name of the protocol after "with": RFC 3848, and RFC 6531 4.3 where SMTPUTF8 was used."""
    if not (esmtp or lmtp or utf8):
        return "SMTP"
    kind = "LMTP" if lmtp else "SMTP" if utf8 else "ESMTP"
    return f"{'UTF8' if utf8 else ''}{kind}{'S' if tls else ''}{'A' if auth else ''}"


def return_path_field(reverse_path: ReversePath) -> bytes:
    """The Return-Path field, which final delivery adds (RFC 5321 4.4)."""
    return f"Return-Path: <{'' if reverse_path is None else reverse_path}>\n".encode()


def delivered_to_field(*mailboxes: Mailbox) -> bytes:
    """A Delivered-To field (RFC 9228) for each mailbox."""
    return b"".join(f"Delivered-To: {mailbox}\n".encode() for mailbox in mailboxes)


def x_original_to_field(*mailboxes: Mailbox) -> bytes:
    """An X-Original-To field for each mailbox: the address of RCPT."""
    return b"".join(f"X-Original-To: {mailbox}\n".encode() for mailbox in mailboxes)


def split_header(content: bytes) -> tuple[bytes, bytes]:
    """The header's fields, and all the rest from the empty line on; together they are the content.

    Lines end in LF or CRLF.  A header without an empty line ends where the fields do; a From_ line of an mbox on top
    belongs to it.
    """
    end = _header_start(content)
    while found := _FIELD.match(content, end):
        end = found.end()
    return content[:end], content[end:]


def fields(header: bytes) -> Iterator[Field]:
    """The fields of a header, topmost first; what follows the header is not looked at."""
    position = _header_start(header)
    while found := _FIELD.match(header, position):
        yield Field(found["name"].decode("ascii").lower(), found[0])
        position = found.end()


def summarize(header: bytes) -> HeaderSummary:
    """What a header says of the way behind the message; for whole content, of its header."""
    received = 0
    delivered_to: list[str] = []
    for each in fields(header):
        if each.name == "received":
            received += 1
        elif each.name == "delivered-to":
            delivered_to.append(each.value)
    return HeaderSummary(received, tuple(delivered_to))


def _header_start(content: bytes) -> int:
    found = _FROM_LINE.match(content)
    return 0 if found is None else found.end()


def _mailboxes(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The mailboxes among texts, for comparing."""
    for text in texts:
        with contextlib.suppress(AddressError):
            yield _folded(parse_mailbox(text))


def _folded(mailbox: Mailbox) -> tuple[str, str]:
    return fold_local_part(mailbox.local_part), mailbox.domain_key


def _extended_domain(helo: str, client: str) -> str:
    """Extended-Domain: what the client called itself, then what is known of it (RFC 5321 4.1.3, 4.4)."""
    address = _literal(client)
    known = address or _NOT_COMMENT.sub("?", client)
    name = _domain(helo)
    if not name:
        name = address or "unknown"
    return f"{name} ({known})" if known and name != known else name


def _domain(text: str) -> str:
    """A domain or address literal as given, in ASCII."""
    if text.isascii():
        return _NOT_DOMAIN.sub("?", text[:MAX_HELO])
    try:
        return parse_domain(text)
    except AddressError:
        return _NOT_DOMAIN.sub("?", text[:MAX_HELO])


def _literal(client: str) -> str:
    text = client.strip("[]")
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
