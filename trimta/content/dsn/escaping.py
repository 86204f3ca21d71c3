"""Text of a DSN: nothing that came from the network (replies, ENVID, ORCPT, HELO, addresses) can add a field or a line.

Control characters are escaped, long words are broken, so that every line can be folded within the limits of RFC 5322.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import textwrap
from typing import TYPE_CHECKING, Final

from trimta.mail.address import AddressError, parse_domain

if TYPE_CHECKING:
    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import OriginalRecipient

_MAX_TEXT: Final = 6 * 1024  # characters of a diagnostic: 4 KiB of what a command said, and which one it was
_MAX_WORD: Final = 900  # octets: a longer one is broken, so that every line can be folded; no address is as long
_WIDTH: Final = 76
_ADDR_TYPE: Final = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
_NOT_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 3
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+\.?", re.ASCII)
_LITERAL: Final = re.compile(r"\[[!-Z^-~]+\]", re.ASCII)


def clean(text: str) -> str:
    """Free text as one line: white space becomes single spaces, then as `escape`."""
    return escape(" ".join(text[: _MAX_TEXT + 1].split()))


def escape(text: str) -> str:
    """One line of printable characters, not over _MAX_TEXT of the input; what is not printable (controls, direction
    marks, lone surrogates) is escaped.
    """
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + " ..."
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text


def ascii_only(text: str) -> str:
    """Characters beyond ASCII as Python's escapes."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def utf8_xtext(address: str) -> str:
    """utf-8-addr-xtext of RFC 6533 3."""
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)


def wrap(text: str, indent: str = "") -> list[str]:
    """Lines of plain text."""
    return textwrap.wrap(
        " ".join(_breakable(text)),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def field(name: str, value: str) -> str:
    """A field of clean text, without its last line end; folded at spaces (RFC 5322 2.2.3), but not behind a type as in
    `rfc822; address`.
    """
    line, lines = f"{name}:", []
    for index, word in enumerate(_breakable(value)):
        may_fold = index > 1 or (index == 1 and len(line) > _WIDTH // 2)
        if may_fold and word and line.strip() and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\n".join([*lines, line])


def _breakable(text: str) -> list[str]:
    """The words between single spaces, none over _MAX_WORD octets."""
    words: list[str] = []
    for word in text.split(" "):
        if len(word.encode()) <= _MAX_WORD:
            words.append(word)
        else:
            step = _MAX_WORD if word.isascii() else _MAX_WORD // 4
            words += [word[start : start + step] for start in range(0, len(word), step)]
    return words


# -- names and addresses --------------------------------------------------------------------------------------------


def host_name(name: str) -> str:
    """The name of a host in ASCII: A-labels, or escaped where it is no name."""
    if not name.isascii():
        with contextlib.suppress(AddressError):
            return parse_domain(name)
    return ascii_only(clean(name))


def mta_name(name: str) -> str:
    """An MTA with its type: `dns; mx.x.test`, `dns; [192.0.2.1]` (RFC 3461 9.3); type `dns` is for fully qualified
    names only (RFC 3461 6.3(b)), others are `x-local-hostname`.
    """
    name = host_name(name)
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        name = f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
    qualified = _QUALIFIED.fullmatch(name) or _LITERAL.fullmatch(name)
    return f"{'dns' if qualified else 'x-local-hostname'}; {name}"


def addr_spec(mailbox: Mailbox, host: str, *, utf8: bool) -> str:
    """The address; the bare postmaster is at this host (RFC 5321 4.5.1)."""
    if not mailbox.domain:
        return f"{mailbox.local_part}@{host}"
    return mailbox.wire(smtputf8=utf8 and not mailbox.is_ascii)


def typed_address(mailbox: Mailbox, host: str, *, utf8: bool) -> str:
    """An address with its type: `rfc822`, or `utf-8` where its local part is (RFC 6533 3)."""
    if mailbox.is_ascii:
        return f"rfc822; {addr_spec(mailbox, host, utf8=False)}"
    address = addr_spec(mailbox, host, utf8=True)
    return f"utf-8; {address if utf8 else utf8_xtext(address)}"


def typed_orcpt(orcpt: OriginalRecipient, *, utf8: bool) -> str:
    """ORCPT with its type; of type utf-8 in message/delivery-status as utf-8-addr-xtext, also where all of it is ASCII
    (RFC 6533 3).
    """
    addr_type = orcpt.addr_type if _ADDR_TYPE.fullmatch(orcpt.addr_type) else "unknown"
    address = orcpt.address
    if not address.isascii() and addr_type.lower() == "rfc822":
        addr_type = "utf-8"
    if not utf8 and (addr_type.lower() == "utf-8" or not address.isascii()):
        address = utf8_xtext(address)
    return f"{addr_type}; {address}"
