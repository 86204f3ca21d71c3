"""Addresses: the Mailbox and Path grammar of RFC 5321 4.1.2, with UTF-8 (RFC 6531 3.3) and underscores in domains.

A text that is no address raises AddressError, which says what is wrong.  Nothing is mended but two habits of clients: a
path without angle brackets, and a space before a path.  A percent hack, a bang path or a quoted "@" is an ordinary
local part of the one domain behind the last "@", so none of them names another destination.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import idna

from trimta.first_use.pattern import pattern
from trimta.mail.limits import MAX_DOMAIN, MAX_LABEL, MAX_PATH

POSTMASTER: Final = "postmaster"  # the one forward-path without a domain, in any case: RFC 5321 4.1.1.3

# UTF8-non-ascii of RFC 6531 3.3 without the C1 controls, and without what undecodable octets become (surrogates).  No
# set, since Python would make tables of all characters for it: for 10 ms, longer than all other patterns of a start.
_BEYOND_ASCII: Final = r"(?![\ud800-\udfff])[^\x00-\x9f]"
_ATOM: Final = rf"(?:[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~]++|{_BEYOND_ASCII})++"
_DOT_STRING: Final = pattern(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED_STRING: Final = pattern(rf'"(?:[ !#-\[\]-~]|\\[ -~]|{_BEYOND_ASCII})*+"')
_QUOTED_PAIR: Final = pattern(r"\\(.)")
_NEEDS_ESCAPE: Final = pattern(r'(["\\])')
_LOCAL_CONTENT: Final = pattern(rf"(?:[ -~]++|{_BEYOND_ASCII})*+")
_DOMAIN_TOKEN: Final = pattern(rf"(?:[A-Za-z0-9._\-]++|{_BEYOND_ASCII})*+")
_LITERAL_TOKEN: Final = pattern(r"\[[!-Z^-~]*\]")  # dcontent, RFC 5321 4.1.3
_SNUM: Final = pattern(r"[0-9]{1,3}")
_BARE_PATH: Final = pattern(r'(?:[^ "]|"(?:[^"\\]|\\.)*+"?)*+', re.DOTALL)
_IPV6_TAG: Final = "ipv6:"

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressError(ValueError):
    """A text that is no address.  The message says what is wrong, in printable ASCII, fit for the text of a 501."""


@dataclass(frozen=True, slots=True, eq=False)
class Mailbox:
    """An address: `Mailbox("a b", "dev.test")` is written `"a b"@dev.test`.

    AddressError is raised for a local part or a domain that is not valid.  Two mailboxes are equal if their local parts
    are the same, case included (RFC 5321 2.4), and their domains are the same in DNS.
    """

    local_part: str
    """The local part without quotes and escapes, in the case and Unicode form that the client wrote."""

    domain: str
    """The domain as the client wrote it; an address literal keeps its brackets.  Empty for `<postmaster>` only."""

    domain_key: str = field(init=False, repr=False)
    """The domain for comparing and for DNS: lower case, A-labels; a literal in its shortest form, "[ipv6:::1]"."""

    _text: str = field(init=False, repr=False)
    """The addr-spec: addresses are written more often than made."""

    def __post_init__(self) -> None:
        local, domain = self.local_part, self.domain
        if _DOT_STRING.fullmatch(local) is None:
            if _LOCAL_CONTENT.fullmatch(local) is None:
                raise AddressError(f"{_show(local, _end(_LOCAL_CONTENT, local, 0))} is not allowed in a local part")
            local = quote(local)
        if domain:
            key = _domain_key(domain)
        elif local.lower() == POSTMASTER:
            key = ""
        else:
            raise AddressError("an address needs a domain: local-part@domain")
        object.__setattr__(self, "domain_key", key)
        object.__setattr__(self, "_text", f"{local}@{domain}" if domain else local)
        if len(local.encode()) + len("<@>") + max(len(domain.encode()), len(key)) > MAX_PATH:
            raise AddressError(f"the address is too long: a path has at most {MAX_PATH} octets")

    @property
    def is_literal(self) -> bool:
        """Whether the domain is an address literal (RFC 5321 4.1.3)."""
        return self.domain.startswith("[")

    @property
    def is_ascii(self) -> bool:
        """Whether a host without SMTPUTF8 can take the address: a domain has a form in ASCII, its A-labels, and a local
        part has no other form (RFC 6531 3.2).
        """
        return self.local_part.isascii()

    def wire(self, *, smtputf8: bool) -> str:
        """The address as MAIL and RCPT write it between "<" and ">": with `smtputf8` as the client wrote it, else with
        A-labels.  ValueError without `smtputf8` for a local part beyond ASCII.
        """
        if smtputf8 or self._text.isascii():
            return self._text
        if not self.is_ascii:
            raise ValueError(f"{self} needs SMTPUTF8")
        return f"{quote(self.local_part)}@{self.domain_key}"

    def __str__(self) -> str:
        """The addr-spec; the local part is quoted only if it must be (RFC 5321 4.1.2)."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mailbox):
            return NotImplemented
        return self.local_part == other.local_part and self.domain_key == other.domain_key

    def __hash__(self) -> int:
        return hash((self.local_part, self.domain_key))


def quote(local_part: str) -> str:
    """A local part as Dot-string where the grammar allows it, else as Quoted-string (RFC 5321 4.1.2)."""
    if _DOT_STRING.fullmatch(local_part):
        return local_part
    return '"' + _NEEDS_ESCAPE.sub(r"\\\1", local_part) + '"'


def fold_local_part(local_part: str) -> str:
    """A local part in lower case, for looking it up without case.

    A capital whose small letter belongs to another capital stays as it is: KELVIN SIGN does not become "k", so no
    spelling beyond ASCII reaches the mailbox of an ASCII name.  Nor does the local
    part get longer: the folded address is an address, too.
    """
    return local_part.lower() if local_part.isascii() else "".join(map(_fold_letter, local_part))


def _fold_letter(letter: str) -> str:
    small = letter.lower()
    return small if small.upper() == letter and len(small.encode()) <= len(letter.encode()) else letter


def parse_reverse_path(text: str) -> tuple[Mailbox | None, str]:
    """Read what follows "MAIL FROM:", spaces before the path and missing angle brackets tolerated (see `path_faults`).
    Returns the mailbox, None for `<>`, and the rest of the line, which is empty or begins with a space.  `text` is
    UTF-8 decoded with surrogateescape.
    """
    text = text.lstrip(" ")
    if text.startswith("<>"):
        return None, _rest(text, 2)
    mailbox, rest = _bracketed_path(text) if text.startswith("<") else _bare_path(text)
    if not mailbox.domain:
        raise AddressError("a sender needs a domain: local-part@domain")
    return mailbox, rest


def parse_forward_path(text: str) -> tuple[Mailbox, str]:
    """Read what follows "RCPT TO:", `<postmaster>` included; tolerance, result and `text` as in parse_reverse_path."""
    text = text.lstrip(" ")
    return _bracketed_path(text) if text.startswith("<") else _bare_path(text)


def path_faults(text: str) -> tuple[str, ...]:
    """The faults of a path that parse_reverse_path and parse_forward_path tolerate, in words for the log."""
    path = text.lstrip(" ")
    return (
        *(() if path == text else ("a space before the path",)),
        *(() if path.startswith("<") else ("a path without angle brackets",)),
    )


def parse_mailbox(text: str) -> Mailbox:
    """Read a whole text as one address, with or without "<" and ">": from a configuration, an argument, VRFY.

    Raises AddressError.
    """
    if text.startswith("<"):
        mailbox, rest = parse_forward_path(text)
        if rest:
            raise AddressError("nothing may follow the '>' of an address")
        return mailbox
    mailbox, end = _mailbox(text, 0)
    if end != len(text):
        raise _unexpected(text, end)
    _check_path_length(text, extra=len("<>"))
    return mailbox


def parse_local_part(text: str) -> str:
    """Read a whole text as a Local-part, quoted or not; returns its content."""
    pattern = _QUOTED_STRING if text.startswith('"') else _DOT_STRING
    end = _end(pattern, text, 0)
    if end == 0 or end != len(text):
        raise _bad_local_part(text, end)
    return _content(text)


def parse_domain(text: str) -> str:
    """Read a whole text as a domain or an address literal; returns its domain_key."""
    if not text:
        raise AddressError("the domain is empty")
    return _domain_key(text)


# Reading.  Every function takes the text and a position, and returns what it read and the position behind it.


def _bracketed_path(text: str) -> tuple[Mailbox, str]:
    end = text.find(">") + 1
    if 0 < end <= MAX_PATH and text[end : end + 1] in ("", " "):
        known = _whole_path(text[:end])
        if known is not None:
            return known, text[end:]
    mailbox, end = _path(text, 0)
    return mailbox, _rest(text, end)


@functools.lru_cache(maxsize=128)  # clients name the same few addresses again and again
def _whole_path(path: str) -> Mailbox | None:
    """The mailbox of a path that ends at its first ">"; None for a path that does not, or is none."""
    try:
        return _path(path, 0)[0]
    except AddressError:
        return None


def _bare_path(text: str) -> tuple[Mailbox, str]:
    """A path without its angle brackets ends at the first space that is not quoted."""
    end = _end(_BARE_PATH, text, 0)
    mailbox, read = _path(f"<{text[:end]}>", 0)
    if read != end + len("<>") or text[end : end + 1] not in ("", " "):
        raise AddressError("an address is written between '<' and '>'")
    return mailbox, text[end:]


def _rest(text: str, end: int) -> str:
    if end < len(text) and text[end] != " ":
        raise AddressError(f"a space is expected after '>', not {_show(text, end)}")
    return text[end:]


def _path(text: str, start: int) -> tuple[Mailbox, int]:
    """Path = "<" [ A-d-l ":" ] Mailbox ">", from its "<" on."""
    position = start + 1
    if text.startswith(">", position):
        raise AddressError("the address is empty")
    routed = text.startswith("@", position)
    if routed:
        position = _source_route(text, position)
    mailbox, end = _mailbox(text, position)
    if end == len(text):
        raise AddressError("the '>' after the address is missing")
    if text[end] != ">":
        raise _unexpected(text, end)
    if routed and not mailbox.domain:
        raise AddressError("an address behind a source route needs a domain")
    _check_path_length(text[start : end + 1])
    return mailbox, end + 1


def _source_route(text: str, position: int) -> int:
    """A-d-l ":", read and ignored (RFC 5321 4.1.1.3, appendix C)."""
    while True:
        if not text.startswith("@", position):
            raise AddressError("a source route is written @one.test,@two.test:local-part@domain")
        end = _end(_DOMAIN_TOKEN, text, position + 1)
        parse_domain(text[position + 1 : end])
        position = end + 1
        if text.startswith(":", end):
            return position
        if not text.startswith(",", end):
            raise AddressError("the ':' after a source route is missing")


def _mailbox(text: str, start: int) -> tuple[Mailbox, int]:
    at = _end(_QUOTED_STRING if text.startswith('"', start) else _DOT_STRING, text, start)
    if at == start:
        raise _bad_local_part(text, start)
    given = text[start:at]
    if not text.startswith("@", at):
        if given.lower() == POSTMASTER and text[at : at + 1] in ("", ">"):
            return Mailbox(given, ""), at
        if at == len(text) or text[at] == ">":
            raise AddressError("an address needs a domain: local-part@domain")
        raise _bad_local_part(text, at)
    end = _end(_LITERAL_TOKEN, text, at + 1)
    if end == at + 1:
        if text.startswith("[", end):
            raise AddressError("an address literal is written [192.0.2.1] or [IPv6:2001:db8::1]")
        end = _end(_DOMAIN_TOKEN, text, end)
    domain = text[at + 1 : end]
    if not domain:
        if end == len(text) or text[end] == ">":
            raise AddressError("the domain is empty")
        raise _unexpected(text, end)
    _check_path_length(text[start:end], extra=len("<>"))
    return Mailbox(_content(given), domain), end


def _content(local_part: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", local_part[1:-1]) if local_part.startswith('"') else local_part


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Where a match of the pattern at the position ends; the position itself where there is none."""
    match = pattern.match(text, position)
    return position if match is None else match.end()


# Domains.


def _domain_key(domain: str) -> str:
    # Before anything that costs more than reading once, and before a cache entry.
    if len(domain) > MAX_DOMAIN or (not domain.isascii() and len(domain.encode(errors="surrogatepass")) > MAX_DOMAIN):
        raise AddressError(f"the domain is too long: at most {MAX_DOMAIN} octets")
    return _short_domain_key(domain)


@functools.lru_cache(maxsize=4096)  # a server sees the same few domains again and again
def _short_domain_key(domain: str) -> str:
    if domain.startswith("["):
        address = _literal_address(domain)
        return f"[{_IPV6_TAG}{_compressed(address)}]" if address.version == 6 else f"[{address}]"
    position = _end(_DOMAIN_TOKEN, domain, 0)
    if position != len(domain):
        raise _unexpected(domain, position)
    if domain.endswith(".") and domain != ".":
        raise AddressError("a domain does not end with a dot")
    key = ".".join(_label_key(label) for label in domain.split("."))
    if len(key) > MAX_DOMAIN:
        raise AddressError(f"the domain is too long: at most {MAX_DOMAIN} octets as A-labels")
    return key


def _label_key(label: str) -> str:
    """sub-domain = Let-dig [Ldh-str], or a U-label: lower case, as A-label."""
    if not label:
        raise AddressError("a label of the domain is empty")
    if label[0] == "-" or label[-1] == "-":
        raise AddressError("a label of a domain neither begins nor ends with a hyphen")
    if not label.isascii():
        return _a_label(label)
    if len(label) > MAX_LABEL:
        raise AddressError(f"a label of the domain is too long: at most {MAX_LABEL} octets")
    return label.lower()


def _a_label(label: str) -> str:
    """The A-label of a U-label (RFC 5891 4, mapped by UTS 46 first).  Characters that are mapped to a dot are no
    dots here: RFC 5321's only separator is ".".
    """
    try:
        return idna.alabel(idna.uts46_remap(label, std3_rules=True)).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        if "too long" in str(error):
            raise AddressError(f"a label of the domain is too long: at most {MAX_LABEL} octets as A-label") from error
        raise AddressError(f"{_shorten(label)} is not a label of an internationalized domain (RFC 5891)") from error


def _literal_address(domain: str) -> IPAddress:
    """IPv4-address-literal or IPv6-address-literal (RFC 5321 4.1.3).  Leading zeros are decimal, as Snum says."""
    if len(domain) < 2 or domain[-1] != "]":
        raise AddressError("the ']' of an address literal is missing")
    content = domain[1:-1]
    if content[: len(_IPV6_TAG)].lower() == _IPV6_TAG:
        return _ipv6(content[len(_IPV6_TAG) :])
    if ":" in content:
        raise AddressError("an address literal with ':' is written [IPv6:2001:db8::1]; no other tag is known")
    return ipaddress.IPv4Address(_ipv4(content))


def _compressed(address: ipaddress.IPv6Address) -> str:
    """Its shortest form.  Python 3.13 writes an IPv4 address in it with dots; keys are to outlive a Python."""
    if address.ipv4_mapped is None:
        return str(address)
    number = int(address.ipv4_mapped)
    return f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}"


def _ipv4(text: str) -> str:
    """Snum 3("." Snum), without leading zeros in the result."""
    numbers = text.split(".")
    if len(numbers) != 4 or not all(_SNUM.fullmatch(number) and int(number) <= 255 for number in numbers):
        raise AddressError("an IPv4 address literal is written [192.0.2.1]")
    return ".".join(str(int(number)) for number in numbers)


def _ipv6(text: str) -> ipaddress.IPv6Address:
    """IPv6-full, IPv6-comp, IPv6v4-full or IPv6v4-comp: no zone, and "::" stands for two groups or more, which
    ipaddress sees otherwise.
    """
    bad = AddressError("an IPv6 address literal is written [IPv6:2001:db8::1]")
    front, _, last = text.rpartition(":")
    head, double_colon, tail = text.partition("::")
    groups = [*(head.split(":") if head else ()), *(tail.split(":") if tail else ())]
    used = len(groups) + ("." in last)  # an IPv4 address is two
    if "%" in text or (used > 6 if double_colon else used != 8):
        raise bad
    try:
        return ipaddress.IPv6Address(f"{front}:{_ipv4(last) if '.' in last else last}")
    except ipaddress.AddressValueError:
        raise bad from None


# What is wrong.


def _check_path_length(text: str, *, extra: int = 0) -> None:
    length = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if length + extra > MAX_PATH:
        raise AddressError(f"the address is too long: a path has at most {MAX_PATH} octets")


def _bad_local_part(text: str, position: int) -> AddressError:
    """Why no Local-part is read at, or goes on after, the position."""
    if position == len(text) or text[position] == ">":
        return AddressError("the address is empty")
    match text[position]:
        case '"' if position and text[position - 1] not in "<:":
            return AddressError("a local part is quoted as a whole or not at all")
        case '"':
            return AddressError("the quoted local part is not closed, or has a character that may not be quoted")
        case ".":
            return AddressError("a local part has no dot at its ends nor two in a row, unless it is quoted")
        case "@":
            return AddressError("the local part is empty")
        case _:
            return AddressError(f"{_show(text, position)} is not allowed in a local part that is not quoted")


def _unexpected(text: str, position: int) -> AddressError:
    if text[position] == "@":
        return AddressError("a second '@': one in a local part is quoted")
    return AddressError(f"{_show(text, position)} is not allowed in a domain")


def _show(text: str, position: int) -> str:
    """A character for an error's message, in printable ASCII."""
    character = text[position]
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape
        return f"octet 0x{number - 0xDC00:02X}, which is not UTF-8,"
    if character == " ":
        return "a space"
    return f"'{character}'" if character.isascii() and character.isprintable() else f"U+{number:04X}"


def _shorten(text: str) -> str:
    return ascii(text if len(text) <= 20 else text[:19] + "…")
