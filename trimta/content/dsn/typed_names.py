"""Names of hosts and addresses as the fields of a DSN have them: with their types (RFC 3464 2.1.2, RFC 6533 3)."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, Final

from trimta.content.dsn.escaping import ascii_only, clean, utf8_xtext
from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError, parse_domain

if TYPE_CHECKING:
    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import OriginalRecipient

_ADDR_TYPE: Final = pattern(r"[A-Za-z0-9-]{1,40}", re.ASCII)
_QUALIFIED: Final = pattern(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+\.?", re.ASCII)
_LITERAL: Final = pattern(r"\[[!-Z^-~]+\]", re.ASCII)


def host_name(name: str) -> str:
    """The name of a host in ASCII: with A-labels, or escaped where it is no domain."""
    if not name.isascii():
        with contextlib.suppress(AddressError):
            return parse_domain(name)
    return ascii_only(clean(name))


def mta_name(name: str) -> str:
    """The name of an MTA with its type: `dns; mx.x.test`, `dns; [192.0.2.1]` (RFC 3461 9.3).  Type `dns` is for fully
    qualified names only (RFC 3461 6.3(b)); others have type `x-local-hostname`.
    """
    name = host_name(name)
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        name = f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
    qualified = _QUALIFIED.fullmatch(name) or _LITERAL.fullmatch(name)
    return f"{'dns' if qualified else 'x-local-hostname'}; {name}"


def addr_spec(mailbox: Mailbox, host: str, *, utf8: bool) -> str:
    """The address of a mailbox; a postmaster without a domain is at this host (RFC 5321 4.5.1).  `utf8`: a local part
    beyond ASCII has its domain in UTF-8 as well.
    """
    if not mailbox.domain:
        return f"{mailbox.local_part}@{host}"
    return mailbox.wire(smtputf8=utf8 and not mailbox.is_ascii)


def typed_address(mailbox: Mailbox, host: str, *, utf8: bool) -> str:
    """The address of a mailbox with its type: `rfc822`, or `utf-8` where the local part is beyond ASCII (RFC 6533 3).

    `utf8`: the field may hold UTF-8; else the address is utf-8-addr-xtext.
    """
    if mailbox.is_ascii:
        return f"rfc822; {addr_spec(mailbox, host, utf8=False)}"
    address = addr_spec(mailbox, host, utf8=True)
    return f"utf-8; {address if utf8 else utf8_xtext(address)}"


def typed_orcpt(orcpt: OriginalRecipient, *, utf8: bool) -> str:
    """The value of ORCPT with its type.

    `utf8`: the field may hold UTF-8; else an address of type utf-8 is utf-8-addr-xtext, also where all of it is ASCII
    (RFC 6533 3).
    """
    addr_type = orcpt.addr_type if _ADDR_TYPE.fullmatch(orcpt.addr_type) else "unknown"
    address = orcpt.address
    if not address.isascii() and addr_type.lower() == "rfc822":
        addr_type = "utf-8"
    if not utf8 and (addr_type.lower() == "utf-8" or not address.isascii()):
        address = utf8_xtext(address)
    return f"{addr_type}; {address}"
