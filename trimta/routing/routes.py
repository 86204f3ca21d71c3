"""Routes: where mail for an address goes.  What a route says, and which one an address has; nothing is looked up.

A route is written short ("smtp:127.0.0.1:2600") or as a table with options ({transport = "smtp", host = …}).
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, assert_never

from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_domain, parse_mailbox
from trimta.mail.status import EnhancedStatus
from trimta.routing.mailboxes import maildir_path, template_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SMTP_PORT: Final = 25
SMTPS_PORT: Final = 465  # RFC 8314 7.3
MAX_PORT: Final = 65535

RECIPIENTS: Final = "{recipients}"
"""The word of a command that becomes one argument for each recipient."""

WORDS: Final = frozenset({"nexthop", "sender", "id"})
"""What the other words of a command may hold in braces."""

EXAMPLES: Final = (
    'expected "mx", "smtp:HOST:PORT", "smtps:HOST:PORT", "lmtp:HOST:PORT", "lmtp:unix:PATH", "pipe:COMMAND", '
    '"maildir:PATH", "discard", "reject:550 5.7.1 TEXT", "hold", or a table with transport = …'
)

_BRACES: Final = re.compile(r"\{(\w+)\}")
_NEEDS_NO_QUOTES: Final = re.compile(r"[^\s'\"\\]+")
_REPLY: Final = re.compile(r"(?P<code>[0-9]{3})(?: (?P<status>[0-9]+\.[0-9]+\.[0-9]+))?(?: (?P<text>.*))?", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


class RouteError(ValueError):
    """Not a route, or not a routing table.  The message says what was found and what is expected.

    `key` is the key of the table that is wrong, where it is one of several; `option` the option of a long form.
    """

    def __init__(self, message: str, *, key: str | None = None, option: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.option = option


class TlsPolicy(enum.StrEnum):
    """How much TLS a connection to a next hop needs."""

    NONE = "none"
    MAY = "may"
    """STARTTLS where it is offered and works, else plain text (RFC 7435)."""
    ENCRYPT = "encrypt"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mx:
    """To the domain's own hosts (RFC 5321 5.1)."""

    port: int = SMTP_PORT
    tls: TlsPolicy = TlsPolicy.MAY

    @property
    def manner(self) -> str:
        """What it asks of the hosts beyond the usual: " port=26 tls=verify"."""
        return _options(
            port=str(self.port) if self.port != SMTP_PORT else None,
            tls=self.tls if self.tls is not TlsPolicy.MAY else None,
        )

    def __str__(self) -> str:
        return f"mx{self.manner}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """To one host, without an MX look-up: by TCP (`host`, `port`) or a unix socket (`unix_path`, port 0, no host)."""

    host: str = ""
    """A domain in lower case and A-labels, or an IP address without brackets."""
    port: int = 0
    protocol: Literal["smtp", "lmtp"] = "smtp"
    unix_path: str | None = None
    tls: TlsPolicy = TlsPolicy.MAY
    implicit_tls: bool = False
    """TLS from the first octet (RFC 8314 3.3); then `tls` is ENCRYPT or VERIFY."""
    username: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        if self.unix_path is not None:
            if self.host or self.port or self.implicit_tls:
                raise RouteError("a unix socket has neither host nor port nor implicit TLS")
        elif not self.host or not 1 <= self.port <= MAX_PORT:
            raise RouteError(f"expected a host and a port from 1 to {MAX_PORT}")
        if self.implicit_tls and self.tls in (TlsPolicy.NONE, TlsPolicy.MAY):
            raise RouteError(f'found "{self.tls}" with implicit TLS, expected "encrypt" or "verify"', option="tls")
        if (self.username is None) != (self.password_file is None):
            given, missing = (
                ("username", "password_file") if self.username is not None else ("password_file", "username")
            )
            raise RouteError(f"{given} needs {missing} beside it", option=given)

    @property
    def destination(self) -> str:
        """ "host:port", "[2001:db8::1]:port" or "unix:/path"."""
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def manner(self) -> str:
        """What it asks of the host beyond the usual: " tls=verify username=u"."""
        usual = TlsPolicy.ENCRYPT if self.implicit_tls else _usual_tls(self.unix_path)
        return _options(tls=self.tls if self.tls is not usual else None, username=self.username)

    def __str__(self) -> str:
        return f"{'smtps' if self.implicit_tls else self.protocol}:{self.destination}{self.manner}"


@dataclass(frozen=True, slots=True)
class Pipe:
    """To a command's standard input; argv[0] is an absolute path, and there is no shell."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return "pipe:" + " ".join(word if _NEEDS_NO_QUOTES.fullmatch(word) else shlex.quote(word) for word in self.argv)


@dataclass(frozen=True, slots=True)
class MaildirRoute:
    """Captured in a Maildir; the template may name {domain}."""

    template: str

    def path(self, domain_key: str) -> str:
        """The Maildir for a destination domain."""
        return maildir_path(self.template, "-", domain_key, "")

    def __str__(self) -> str:
        return f"maildir:{self.template}"


@dataclass(frozen=True, slots=True)
class Discard:
    """Accepted, and dropped."""

    def __str__(self) -> str:
        return "discard"


@dataclass(frozen=True, slots=True)
class Reject:
    """Refused at RCPT."""

    code: int
    status: EnhancedStatus | None
    text: str

    def __post_init__(self) -> None:
        if not (400 <= self.code <= 599 and self.code // 10 % 10 <= 5):
            raise RouteError(f"found reply code {self.code}, expected 4xx or 5xx")
        if self.code == 421:
            raise RouteError("found reply code 421, which ends a session; expected another 4xx, or 5xx")
        if self.status is not None and self.status.klass != self.code // 100:
            raise RouteError(f"found status {self.status} with code {self.code}, expected {self.code // 100}.x.x")
        if not self.text or not self.text.isprintable():
            raise RouteError("expected a text of printable characters after the reply code")

    @property
    def reply(self) -> str:
        """ "550 5.7.1 text"."""
        return " ".join(str(part) for part in (self.code, self.status, self.text) if part is not None)

    def __str__(self) -> str:
        return f"reject:{self.reply}"


@dataclass(frozen=True, slots=True)
class Hold:
    """Kept in the queue until the operator releases it."""

    def __str__(self) -> str:
        return "hold"


Route: TypeAlias = Mx | Relay | Pipe | MaildirRoute | Discard | Reject | Hold


def describe(route: Route) -> str:
    """What happens to mail with this route, for people: "captured in maildir-example/remote"."""
    match route:
        case Mx():
            return "sent by MX look-up"
        case Relay(protocol="lmtp"):
            return f"relayed by LMTP to {route.destination}"
        case Relay():
            return f"relayed to {route.destination}"
        case Pipe():
            return f"piped to {route.argv[0]}"
        case MaildirRoute():
            return f"captured in {route.template}"
        case Discard():
            return "discarded"
        case Reject():
            return f"refused with {route.reply}"
        case Hold():
            return "held in the queue"
        case _:
            assert_never(route)


def next_hop(route: Route, domain_key: str) -> str:
    """What `per_domain` counts and a connection serves: the domain for mx, host and port for smtp and lmtp.

    With a manner of its own a route is a hop of its own: a host that cannot do what one asks may serve the others.
    """
    match route:
        case Mx():
            return domain_key + route.manner
        case Relay():
            return route.destination + route.manner
        case Pipe():
            return f"pipe:{route.argv[0]}"
        case MaildirRoute():
            return f"maildir:{route.path(domain_key)}"
        case Discard():
            return "discard"
        case Reject():
            return "reject"
        case Hold():
            return "hold"
        case _:
            assert_never(route)


# Reading a route.


def parse_route(value: str | Mapping[str, Any], base: Path) -> Route:
    """Read a route, short or long; relative paths are below `base`.  RouteError says what is expected."""
    if isinstance(value, str):
        return _short(value, base)
    if isinstance(value, dict):
        return _long(value, base)
    raise RouteError(f"found {value!r}, {EXAMPLES}")


_ALONE: Final[dict[str, Route]] = {"mx": Mx(), "discard": Discard(), "hold": Hold()}


def _short(text: str, base: Path) -> Route:
    transport, colon, rest = text.partition(":")
    if transport in _ALONE:
        if colon:
            raise RouteError(f'found {text!r}, expected "{transport}" alone; options need the form of a table')
        return _ALONE[transport]
    if transport in ("smtp", "smtps", "lmtp", "pipe", "maildir", "reject") and not rest.strip():
        raise RouteError(f"found {text!r}, {EXAMPLES}")
    match transport:
        case "smtp" | "smtps" | "lmtp":
            if rest.startswith("unix:"):
                return _relay(transport, unix_path=_path(rest.removeprefix("unix:"), base))
            host, port = _host_and_port(rest)
            return _relay(transport, host=host, port=port)
        case "pipe":
            return _pipe(rest)
        case "maildir":
            return _maildir(rest, base)
        case "reject":
            return _reject(rest)
        case _:
            raise RouteError(f"found {text!r}{_nearest(transport, _OPTIONS)}, {EXAMPLES}")


_HOST_OPTIONS: Final = ("host", "port", "tls", "username", "password_file")
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "mx": ("port", "tls"),
    "smtp": (*_HOST_OPTIONS, "path"),
    "smtps": _HOST_OPTIONS,
    "lmtp": (*_HOST_OPTIONS, "path"),
    "pipe": ("command",),
    "maildir": ("path",),
    "discard": (),
    "reject": ("reply",),
    "hold": (),
}


def _long(table: Mapping[str, Any], base: Path) -> Route:
    transport = table.get("transport")
    expected = ", ".join(f'"{name}"' for name in _OPTIONS)
    if transport is None:
        raise RouteError(f"transport is missing, expected one of {expected}", option="transport")
    if not isinstance(transport, str) or transport not in _OPTIONS:
        hint = _nearest(transport, _OPTIONS) if isinstance(transport, str) else ""
        raise RouteError(f"found transport = {transport!r}{hint}, expected one of {expected}", option="transport")
    known = _OPTIONS[transport]
    for option in table:
        if option != "transport" and option not in known:
            allowed = ", ".join(known) if known else "none"
            hint = _nearest(option, known)
            raise RouteError(f"{option!r} is not an option of {transport}{hint}; it has: {allowed}", option=option)
    match transport:
        case "mx":
            return Mx(port=_port(table) or SMTP_PORT, tls=_tls(table) or TlsPolicy.MAY)
        case "smtp" | "smtps" | "lmtp":
            path = _text(table, "path")
            host = _text(table, "host")
            if path is not None and (host is not None or "port" in table):
                raise RouteError("path is a unix socket's, and excludes host and port", option="path")
            if path is None and host is None:
                where = "host" if transport == "smtps" else "host, or the path of a unix socket"
                raise RouteError(f"expected {where}", option="host")
            password_file = _text(table, "password_file")
            return _relay(
                transport,
                host="" if host is None else _host(_unbracket(host)),
                port=_port(table),
                unix_path=None if path is None else _path(path.removeprefix("unix:"), base),
                tls=_tls(table),
                username=_text(table, "username"),
                password_file=None if password_file is None else Path(_path(password_file, base)),
            )
        case "pipe":
            command = table.get("command")
            if isinstance(command, list) and all(isinstance(word, str) for word in command):
                return _pipe(command)
            return _pipe(_required(table, "command", '"/usr/bin/command {recipients}"'))
        case "maildir":
            return _maildir(_required(table, "path", "the folder of a Maildir"), base)
        case "reject":
            return _reject(_required(table, "reply", '"550 5.7.1 text"'))
        case "discard":
            return Discard()
        case _:
            return Hold()


def _relay(
    transport: str,
    *,
    host: str = "",
    port: int | None = None,
    unix_path: str | None = None,
    tls: TlsPolicy | None = None,
    username: str | None = None,
    password_file: Path | None = None,
) -> Relay:
    implicit = transport == "smtps"
    if unix_path is not None and implicit:
        raise RouteError('found a unix socket, expected "smtps:HOST:PORT"')
    if unix_path is None and port is None:
        if transport == "lmtp":  # RFC 2033 5: never port 25
            raise RouteError('lmtp has no usual port, expected "lmtp:HOST:PORT" or "lmtp:unix:PATH"', option="port")
        port = SMTPS_PORT if implicit else SMTP_PORT
    return Relay(
        host=host,
        port=port or 0,
        protocol="lmtp" if transport == "lmtp" else "smtp",
        unix_path=unix_path,
        tls=tls or (TlsPolicy.ENCRYPT if implicit else _usual_tls(unix_path)),
        implicit_tls=implicit,
        username=username,
        password_file=password_file,
    )


def _usual_tls(unix_path: str | None) -> TlsPolicy:
    return TlsPolicy.MAY if unix_path is None else TlsPolicy.NONE  # a unix socket leaves nothing to listen to


def _host_and_port(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT, an IPv6 address bare (then without a port) or [IPV6]:PORT."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise RouteError(f'found {text!r}, expected "[ADDRESS]:PORT"')
        host += bracket
        port, colon = rest[1:], bool(rest)
    elif text.count(":") > 1:
        host, port, colon = text, "", False
    else:
        host, separator, port = text.partition(":")
        colon = bool(separator)
    if not colon:
        return _host(_unbracket(host)), None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= MAX_PORT:
        raise RouteError(f"found port {port!r} in {text!r}, expected 1 to {MAX_PORT}")
    return _host(_unbracket(host)), int(port)


def _unbracket(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        key = parse_domain(text)
    except AddressError as error:
        raise RouteError(f"found host {text!r}: {error}; expected a name or an IP address", option="host") from error
    if key.startswith("["):
        raise RouteError(f"found host {text!r}, expected a name or an IP address", option="host")
    return key


def _pipe(command: str | list[str]) -> Pipe:
    try:
        argv = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise RouteError(f"found {command!r}: {error}; expected a command as a shell would split it") from error
    if not argv or not argv[0].startswith("/") or _BRACES.search(argv[0]):
        found = argv[0] if argv else command
        raise RouteError(f"found command {found!r}, expected its absolute path, as /usr/bin/command", option="command")
    for word in argv:
        if "\0" in word:
            raise RouteError("a command holds no NUL", option="command")
        unknown = [name for name in _BRACES.findall(word) if word != RECIPIENTS and name not in WORDS]
        if RECIPIENTS.strip("{}") in unknown:
            raise RouteError(f"found {word!r}, expected {RECIPIENTS} as a word of its own", option="command")
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in ("recipients", *sorted(WORDS)))
            hint = _nearest(unknown[0], ("recipients", *WORDS))
            raise RouteError(f"found {{{unknown[0]}}}{hint}, expected one of {known}", option="command")
    return Pipe(tuple(argv))


def _maildir(text: str, base: Path) -> MaildirRoute:
    unknown = sorted(template_fields(text) - {"domain"})
    if unknown:
        why = ": one captured message may be for several users" if {"user", "detail"} & {*unknown} else ""
        raise RouteError(f"found {{{unknown[0]}}} in {text!r}, expected {{domain}} or none{why}", option="path")
    return MaildirRoute(_path(text, base))


def _reject(text: str) -> Reject:
    found = _REPLY.fullmatch(text.strip())
    if found is None:
        raise RouteError(f'found {text!r}, expected a reply as "550 5.7.1 text"', option="reply")
    try:
        status = EnhancedStatus.parse(found["status"]) if found["status"] else None
    except ValueError as error:
        raise RouteError(f'found {text!r}: {error}; expected a reply as "550 5.7.1 text"', option="reply") from error
    return Reject(int(found["code"]), status, (found["text"] or "").strip() or "mail for this address is refused")


def _path(text: str, base: Path) -> str:
    if not text or "\0" in text:
        raise RouteError(f"found {text!r}, expected a path", option="path")
    if text.startswith("~"):
        raise RouteError(f"found {text!r}, expected a path without '~', which is not expanded here", option="path")
    return str(base / text)


def _text(table: Mapping[str, Any], option: str) -> str | None:
    value = table.get(option)
    if value is not None and (not isinstance(value, str) or not value):
        raise RouteError(f"found {option} = {value!r}, expected a text", option=option)
    return value


def _required(table: Mapping[str, Any], option: str, example: str) -> str:
    value = _text(table, option)
    if value is None:
        raise RouteError(f"{option} is missing, expected {example}", option=option)
    return value


def _port(table: Mapping[str, Any]) -> int | None:
    value = table.get("port")
    if value is not None and (type(value) is not int or not 1 <= value <= MAX_PORT):
        raise RouteError(f"found port = {value!r}, expected a number from 1 to {MAX_PORT}", option="port")
    return value


def _tls(table: Mapping[str, Any]) -> TlsPolicy | None:
    value = table.get("tls")
    if value is None:
        return None
    if not isinstance(value, str) or value not in set(TlsPolicy):
        expected = ", ".join(f'"{policy}"' for policy in TlsPolicy)
        raise RouteError(f"found tls = {value!r}, expected one of {expected}", option="tls")
    return TlsPolicy(value)


def _nearest(word: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, [*known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _options(**options: str | None) -> str:
    return "".join(f" {name}={value}" for name, value in options.items() if value is not None)


# The table.


@dataclass(frozen=True, slots=True)
class RouteTable:
    """`RouteTable({"partner.test": …, ".corp.test": …, "*": …})`.

    A key is a full address, a domain or address literal, a ".suffix", which holds for every domain below it but not for
    itself, or "*", which must be there.  Looking up ignores case.  RouteError, with its `key`, for any other key, and
    for two that are the same.
    """

    routes: Mapping[str, Route]
    _addresses: dict[tuple[str, str], str] = field(init=False, repr=False, compare=False)
    _domains: dict[str, str] = field(init=False, repr=False, compare=False)
    """Domains, suffixes with their dot, and "*", each to its key as written."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_addresses", {})
        object.__setattr__(self, "_domains", {})
        for key in self.routes:
            name = _table_key(key)
            same = self._domains.get(name) if isinstance(name, str) else self._addresses.get(name)
            if same is not None:
                raise RouteError(f"{key!r} is the same as {same!r}", key=key)
            if isinstance(name, str):
                self._domains[name] = key
            else:
                self._addresses[name] = key
        if "*" not in self._domains:
            raise RouteError('"*" is missing: where mail for every other domain goes', key="*")

    def lookup(self, mailbox: Mailbox) -> tuple[str, Route]:
        """The key as written and its route: full address, else exact domain, else longest suffix, else "*"."""
        found = self.specific(mailbox)
        if found is not None:
            return found
        key = next(self._domains[name] for name in _suffixes(mailbox) if name in self._domains)
        return key, self.routes[key]

    def specific(self, mailbox: Mailbox) -> tuple[str, Route] | None:
        """The same among full addresses and exact domains only, which come before local domains; else None."""
        key = self._addresses.get((fold_local_part(mailbox.local_part), mailbox.domain_key))
        if key is None:
            key = self._domains.get(mailbox.domain_key)
        return None if key is None else (key, self.routes[key])


def _table_key(key: str) -> str | tuple[str, str]:
    try:
        if key == "*":
            return key
        if key.startswith("."):
            suffix = parse_domain(key[1:])
            if suffix.startswith("["):
                raise AddressError("an address literal has no domains below it")
            return f".{suffix}"
        if "@" in key:
            mailbox = parse_mailbox(key)
            return fold_local_part(mailbox.local_part), mailbox.domain_key
        return parse_domain(key)
    except AddressError as error:
        expected = 'expected an address, a domain, a ".suffix" or "*"'
        hint = f' (did you mean "{key[1:]}"?)' if key.startswith("*.") else ""
        raise RouteError(f"found {key!r}: {error}; {expected}{hint}", key=key) from error


def _suffixes(mailbox: Mailbox) -> Iterator[str]:
    """ "a.b.test" has the suffixes ".b.test", ".test" and "*"; a literal, whose dots are no hierarchy, only "*"."""
    if not mailbox.is_literal:
        rest = mailbox.domain_key
        while "." in rest:
            rest = rest.partition(".")[2]
            yield "." + rest
    yield "*"
