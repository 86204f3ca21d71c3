"""Trace fields (RFC 5321 4.4), which this server puts on top of a message.

A field is octets with LF line ends.  Text from a peer cannot end a field, or a clause of it, early: characters that do
not belong there become "?".
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from trimta.content.date_time import date_time
from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError, parse_domain
from trimta.mail.limits import MAX_DOMAIN

if TYPE_CHECKING:
    from datetime import datetime

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import ReversePath

_NOT_DOMAIN: Final = pattern(r"[^A-Za-z0-9._:\[\]\-]")
_NOT_COMMENT: Final = pattern(r"[^ !-'*-\[\]-~]")  # ctext and spaces, without "\": RFC 5322 3.2.2
_NOT_ATOM: Final = pattern(r"[^A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]")


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
    """The Received field of RFC 5321 4.4 for a message from a client.

    `helo` is the name that the client gave, empty if it gave none; `client` the text of its address ("127.0.0.1",
    "IPv6:::1" or "::1"), or words ("unix socket"); `by` the name of this host; `protocol` the result of
    `with_protocol`; `id` the id of the message; `for_` the recipient, None if there are several; `date` has a time
    zone; `cipher_suite` is the registered name of the TLS session's cipher suite for the clause `tls` (RFC 8314 4.3),
    empty without TLS.  UTF-8 appears only in the clause `for`, with one of the UTF8 protocols (RFC 6531 3.7.3).

    Raises ValueError for a date without a time zone.
    """
    if date.tzinfo is None:
        raise ValueError("a date without its offset from UTC")
    lines = [f"{_from_and_by(helo, client, by, protocol)} id {_NOT_ATOM.sub('?', id)}"]
    utf8 = protocol.startswith("UTF8")
    if for_ is not None and (utf8 or for_.is_ascii):
        lines.append(f"\tfor <{for_.wire(smtputf8=utf8)}>")
    if cipher_suite:
        lines.append(f"\ttls {_NOT_ATOM.sub('?', cipher_suite)}")
    lines[-1] += f"; {_written(date)}\n"
    return "\n".join(lines).encode()


def submitted_field(*, by: str, user_id: int, id: str, date: datetime) -> bytes:  # noqa: A002 - as above
    """The Received field of a message from a local program, without the clauses "from" and "with" (RFC 5321 4.4).

    `by` is the name of this host, `user_id` the numeric user id of the program.  Raises ValueError for a date without
    a time zone.
    """
    if date.tzinfo is None:
        raise ValueError("a date without its offset from UTC")
    return (
        f"Received: by {_domain(by)} (trimta sendmail, from userid {user_id})\n"
        f"\tid {_NOT_ATOM.sub('?', id)}; {_written(date)}\n"
    ).encode()


def with_protocol(*, esmtp: bool, lmtp: bool, tls: bool, auth: bool, utf8: bool) -> str:
    """The name of the protocol for the clause "with": that of RFC 3848, or of RFC 6531 4.3 where SMTPUTF8 was used."""
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
    """An X-Original-To field for each mailbox, which is an address that RCPT had."""
    return b"".join(f"X-Original-To: {mailbox}\n".encode() for mailbox in mailboxes)


def _written(date: datetime) -> str:
    """A date as header fields have it (RFC 5322 3.3), to the second."""
    return _written_second(date.replace(microsecond=0, tzinfo=None), date.utcoffset() or timedelta(0))


@lru_cache(maxsize=16)  # a busy server has many messages in each
def _written_second(local: datetime, offset: timedelta) -> str:
    return date_time(local.replace(tzinfo=timezone(offset)))


@lru_cache  # clients send more than one message
def _from_and_by(helo: str, client: str, by: str, protocol: str) -> str:
    """The clauses "from", "by" and "with" of a Received field."""
    return f"Received: from {_extended_domain(helo, client)}\n\tby {_domain(by)} with {_NOT_ATOM.sub('?', protocol)}"


def _extended_domain(helo: str, client: str) -> str:
    """Extended-Domain (RFC 5321 4.4): the name that the client gave, then its address as a comment."""
    address = _literal(client)
    known = address or _NOT_COMMENT.sub("?", client)
    name = _domain(helo)
    if not name:
        name = address or "unknown"
    return f"{name} ({known})" if known and name != known else name


def _domain(text: str) -> str:
    """A domain or an address literal in ASCII, with "?" for characters that neither has."""
    if text.isascii():
        return _NOT_DOMAIN.sub("?", text[:MAX_DOMAIN])
    try:
        return parse_domain(text)
    except AddressError:
        return _NOT_DOMAIN.sub("?", text[:MAX_DOMAIN])


@lru_cache  # clients send more than one message
def _literal(client: str) -> str:
    """The address literal (RFC 5321 4.1.3) of the text of an address; empty for other text."""
    text = client.strip("[]")
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
