"""Parsers of names and addresses: domains, users, networks, sockets, DNS records and replies.

Like all parsers of `value_parsers`, each takes a value of TOML, and raises BadValueError for one that is wrong.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, Final

from trimta.config.model import FaultReply, InetAddress, MxRecord, Nameserver, UnixAddress
from trimta.config.value_parsers import Parser, path, string, wrong
from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_domain, parse_local_part, parse_mailbox
from trimta.mail.status import EnhancedStatus
from trimta.routing.routes import MAX_PORT

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.config.model import ListenAddress
    from trimta.mail.address import IPAddress
    from trimta.routing.networks import IPNetwork

MAX_UNIX_PATH: Final = 107  # octets: sun_path of Linux, without its NUL

LISTEN: Final = 'an address such as "localhost:2525", "0.0.0.0:25", "[::1]:2525" or "unix:PATH"'


def domain(value: Any) -> str:
    """A domain or address literal; as it was written."""
    return _domain(value, 'a domain such as "dev.test"')


def hostname(value: Any) -> str:
    """This machine's name: a domain, no literal.  One beyond ASCII becomes A-labels, since greeting, EHLO, trace and
    reports have no room for anything else (RFC 6531 3.7.1).
    """
    name = _domain(value, 'a name such as "mail.dev.test"')
    if name.startswith("["):
        raise wrong(value, 'a name such as "mail.dev.test"')
    return name if name.isascii() else parse_domain(name)


def _domain(value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise wrong(value, expected)
    try:
        parse_domain(value)
    except AddressError as error:
        raise wrong(value, expected, error) from None
    return value


def domain_key(value: Any) -> str:
    """A domain in the form in which domains are compared."""
    return parse_domain(domain(value))


def user_name(value: Any) -> str:
    """The local part of a local mailbox, in lower case; its content, without quotes."""
    expected = 'a local part such as "alice"'
    if not isinstance(value, str):
        raise wrong(value, expected)
    if "@" in value and not value.startswith('"'):
        raise wrong(value, f"{expected}, without a domain: that is for [local] domains")
    try:
        return fold_local_part(parse_local_part(value))
    except AddressError as error:
        raise wrong(value, expected, error) from None


def alias_target(value: Any) -> Mailbox | str:
    """A full address; or a local part, as it was written."""
    expected = 'a local part such as "alice" or an address such as "carol@partner.test"'
    if not isinstance(value, str):
        raise wrong(value, expected)
    if value.startswith(("|", "/", ":include:")) and "@" not in value:
        raise wrong(value, f'{expected}; commands and files are routes: "pipe:", "maildir:"')
    try:
        if "@" in value and not (value.startswith('"') and value.endswith('"')):
            return parse_mailbox(value)
        parse_local_part(value)
    except AddressError as error:
        raise wrong(value, expected, error) from None
    return value


def subaddress(value: Any) -> str:
    """The separator of a subaddress; empty turns it off."""
    if isinstance(value, str) and len(value) <= 3 and all(char in "+-_=.#~/!$%&*?^|" for char in value):
        return value
    raise wrong(value, 'a separator such as "+" or "-", or "" for none')


# Networks.


def ip_address(value: Any) -> IPAddress:
    try:
        if isinstance(value, str):
            return ipaddress.ip_address(value)
    except ValueError:
        pass
    raise wrong(value, 'an IP address such as "127.0.0.2" or "::1"')


def network(value: Any) -> IPNetwork:
    """A network, or one address."""
    expected = 'a network such as "127.0.0.0/8" or "::1/128"'
    if not isinstance(value, str):
        raise wrong(value, expected)
    try:
        loose = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise wrong(value, expected) from None
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise wrong(value, f'the network itself, "{loose}"', "an address inside a network") from None


def host_port(text: str) -> tuple[str, int] | None:
    """Split "127.0.0.1:25" or "[::1]:25" into host, without brackets, and port; None where it is neither."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or int(match[3]) > MAX_PORT:
        return None
    if match[1] is not None and ":" not in match[1]:
        return None
    return match[1] or match[2], int(match[3])


def listen_address(base: Path) -> Parser[ListenAddress]:
    """localhost or an IP address, with a port; or a unix socket, its path below `base`."""

    def parse(value: Any) -> ListenAddress:
        if not isinstance(value, str):
            raise wrong(value, LISTEN)
        if value.startswith("unix:"):
            if value == "unix:":
                raise wrong(value, LISTEN)
            socket = path(base)(value.removeprefix("unix:"))
            if len(os.fsencode(socket)) > MAX_UNIX_PATH:
                raise wrong(value, f"a path of at most {MAX_UNIX_PATH} octets", f"{socket} is too long for a socket")
            return UnixAddress(socket)
        split = host_port(value)
        if split is None:
            raise wrong(value, LISTEN)
        host, port = split
        if host.lower() == "localhost":
            return InetAddress("localhost", port)
        try:
            return InetAddress(str(ipaddress.ip_address(host)), port)
        except ValueError:
            raise wrong(value, LISTEN) from None

    return parse


def nameserver(value: Any) -> Nameserver:
    """ "127.0.0.1", "127.0.0.1:5353", "::1" or "[::1]:5353"."""
    expected = 'an IP address, with a port or without, such as "127.0.0.1:5353"'
    if not isinstance(value, str):
        raise wrong(value, expected)
    split = host_port(value)
    host, port = split if split is not None else (value, 53)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise wrong(value, expected) from None
    if port == 0:
        raise wrong(value, expected)
    return Nameserver(address, port)


def mx_record(value: Any) -> MxRecord:
    """ "10 a.partner.test", or "0 ." for a null MX."""
    expected = 'a preference and a host, such as "10 mx.partner.test"; "0 ." is a null MX'
    match = re.fullmatch(r"([0-9]{1,5}) +(\S+)", value, re.ASCII) if isinstance(value, str) else None
    if match is None or int(match[1]) > MAX_PORT:
        raise wrong(value, expected)
    if match[2] == ".":
        return MxRecord(int(match[1]), ".")
    try:
        # An address where a name belongs does occur: what trimta makes of it is to be tried out, too.
        return MxRecord(int(match[1]), parse_domain(match[2].removesuffix(".")))
    except AddressError as error:
        raise wrong(value, expected, error) from None


# Replies.


_REPLY: Final = pattern(r"([245][0-5][0-9])(?: +([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: +(\S.*))?", re.ASCII)


def fault_reply(value: Any) -> FaultReply:
    """A reply code, an enhanced status code or none, a text or none."""
    expected = 'a reply such as "451 4.3.0 try again later"'
    text = string(expected)(value)
    match = _REPLY.fullmatch(text)
    if match is None:
        raise wrong(value, expected)
    code, status, words = match.groups()
    if status is not None and status[0] != code[0]:
        raise wrong(value, expected, f"{code} and {status} are of different classes")
    try:
        return FaultReply(int(code), None if status is None else EnhancedStatus.parse(status), words or "")
    except ValueError as error:
        raise wrong(value, expected, error) from None
