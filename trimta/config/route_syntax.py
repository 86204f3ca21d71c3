"""The syntax of routes: short ("smtp:127.0.0.1:2600"), or a table with options ({ transport = "smtp", host = … })."""

from __future__ import annotations

import ipaddress
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tomli

from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError, parse_domain
from trimta.mail.status import EnhancedStatus
from trimta.routing.maildir_paths import template_fields
from trimta.routing.routes import (
    MAX_PORT,
    PLACEHOLDERS,
    RECIPIENTS,
    SMTP_PORT,
    SMTPS_PORT,
    DiscardRoute,
    HoldRoute,
    HostRoute,
    MaildirRoute,
    MxRoute,
    PipeRoute,
    RejectRoute,
    RouteError,
    TlsPolicy,
    usual_tls,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trimta.routing.routes import Route

_HOST_OPTIONS: Final = ("host", "port", "tls", "username", "password_file")
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
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
"""Each transport with the options of its long form."""

ROUTE_OPTIONS: Final = frozenset({"transport"}.union(*_OPTIONS.values()))
"""The options of long forms, of any transport."""

_ALONE: Final[dict[str, Route]] = {"mx": MxRoute(), "discard": DiscardRoute(), "hold": HoldRoute()}
"""The short forms that are one word."""

_FORMS: Final = (
    'expected "mx", "smtp:HOST:PORT", "smtps:HOST:PORT", "lmtp:HOST:PORT", "lmtp:unix:PATH", "pipe:COMMAND", '
    '"maildir:PATH", "discard", "reject:550 5.7.1 TEXT", "hold", or a table with transport = …'
)

_BRACES: Final = pattern(r"\{(\w+)\}")
_REPLY: Final = pattern(r"(?P<code>[0-9]{3})(?: (?P<status>[0-9]+\.[0-9]+\.[0-9]+))?(?: (?P<text>.*))?", re.ASCII)
_PORT: Final = pattern(r"[0-9]{1,5}", re.ASCII)


def parse_route(value: str | Mapping[str, Any], base: Path) -> Route:
    """Read a route from its short form (a string) or its long form (a table).  Relative paths are below `base`.
    RouteError says what is expected.
    """
    if isinstance(value, str):
        return _short(value, base)
    if isinstance(value, dict):
        return _long(value, base)
    raise RouteError(f"found {value!r}, {_FORMS}")


def read_route(text: str, base: Path) -> Route:
    """Read a route from a text: its short form, or its long form as a TOML table on one line, as
    `{ transport = "smtp", host = "a.test" }`.  Relative paths are below `base`.  RouteError.
    """
    if not text.lstrip().startswith("{"):
        return parse_route(text, base)
    try:
        document = tomli.loads(f"route = {text}")
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise RouteError(f'found {text!r}: {error}; expected {{ transport = "smtp", host = "…", … }}') from error
    return parse_route(document["route"], base)


def route_value(route: Route) -> str | dict[str, Any]:
    """The short form of a route, or its table where the short form leaves something out."""
    match route:
        case MxRoute() if route != MxRoute():
            return {"transport": "mx", "port": route.port, "tls": route.tls.value}
        case HostRoute() if route != parse_route(route.short_form, Path("/")):
            table: dict[str, Any] = {"transport": route.transport}
            if route.unix_path is not None:
                table["path"] = route.unix_path
            else:
                table |= {"host": route.host, "port": route.port}
            table["tls"] = route.tls.value
            if route.username is not None:
                table |= {"username": route.username, "password_file": str(route.password_file)}
            return table
        case HostRoute():
            return route.short_form
        case _:
            return str(route)


def _short(text: str, base: Path) -> Route:
    transport, colon, rest = text.partition(":")
    if transport in _ALONE:
        if colon:
            raise RouteError(f'found {text!r}, expected "{transport}" alone; options need the form of a table')
        return _ALONE[transport]
    if transport in ("smtp", "smtps", "lmtp", "pipe", "maildir", "reject") and not rest.strip():
        raise RouteError(f"found {text!r}, {_FORMS}")
    match transport:
        case "smtp" | "smtps" | "lmtp":
            if rest.startswith("unix:"):
                return _host_route(transport, unix_path=_path(rest.removeprefix("unix:"), base))
            host, port = _host_and_port(rest)
            return _host_route(transport, host=host, port=port)
        case "pipe":
            return _pipe(rest)
        case "maildir":
            return _maildir(rest, base)
        case "reject":
            return _reject(rest)
        case _:
            raise RouteError(f"found {text!r}{_nearest(transport, _OPTIONS)}, {_FORMS}")


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
            return MxRoute(port=_port(table) or SMTP_PORT, tls=_tls(table) or TlsPolicy.MAY)
        case "smtp" | "smtps" | "lmtp":
            path = _text(table, "path")
            host = _text(table, "host")
            if path is not None and (host is not None or "port" in table):
                raise RouteError("path is a unix socket's, and excludes host and port", option="path")
            if path is None and host is None:
                where = "host" if transport == "smtps" else "host, or the path of a unix socket"
                raise RouteError(f"expected {where}", option="host")
            password_file = _text(table, "password_file")
            return _host_route(
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
            return DiscardRoute()
        case _:
            return HoldRoute()


def _host_route(
    transport: str,
    *,
    host: str = "",
    port: int | None = None,
    unix_path: str | None = None,
    tls: TlsPolicy | None = None,
    username: str | None = None,
    password_file: Path | None = None,
) -> HostRoute:
    implicit = transport == "smtps"
    if unix_path is not None and implicit:
        raise RouteError('found a unix socket, expected "smtps:HOST:PORT"')
    if unix_path is None and port is None:
        if transport == "lmtp":  # RFC 2033 5: never port 25
            raise RouteError('lmtp has no usual port, expected "lmtp:HOST:PORT" or "lmtp:unix:PATH"', option="port")
        port = SMTPS_PORT if implicit else SMTP_PORT
    return HostRoute(
        host=host,
        port=port or 0,
        protocol="lmtp" if transport == "lmtp" else "smtp",
        unix_path=unix_path,
        tls=tls or usual_tls(implicit=implicit, unix_path=unix_path),
        implicit_tls=implicit,
        username=username,
        password_file=password_file,
    )


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


def _pipe(command: str | list[str]) -> PipeRoute:
    try:
        argv = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise RouteError(f"found {command!r}: {error}; expected a command as a shell would split it") from error
    if not argv or not argv[0].startswith("/") or _BRACES.search(argv[0]):
        program = argv[0] if argv else command
        raise RouteError(
            f"found command {program!r}, expected its absolute path, as /usr/bin/command", option="command"
        )
    for word in argv:
        if "\0" in word:
            raise RouteError("a command holds no NUL", option="command")
        unknown = [name for name in _BRACES.findall(word) if word != RECIPIENTS and name not in PLACEHOLDERS]
        if RECIPIENTS.strip("{}") in unknown:
            raise RouteError(f"found {word!r}, expected {RECIPIENTS} as a word of its own", option="command")
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in ("recipients", *sorted(PLACEHOLDERS)))
            hint = _nearest(unknown[0], ("recipients", *PLACEHOLDERS))
            raise RouteError(f"found {{{unknown[0]}}}{hint}, expected one of {known}", option="command")
    return PipeRoute(tuple(argv))


def _maildir(text: str, base: Path) -> MaildirRoute:
    unknown = sorted(template_fields(text) - {"domain"})
    if unknown:
        why = ": one captured message may be for several users" if {"user", "detail"} & {*unknown} else ""
        raise RouteError(f"found {{{unknown[0]}}} in {text!r}, expected {{domain}} or none{why}", option="path")
    return MaildirRoute(_path(text, base))


def _reject(text: str) -> RejectRoute:
    match = _REPLY.fullmatch(text.strip())
    if match is None:
        raise RouteError(f'found {text!r}, expected a reply as "550 5.7.1 text"', option="reply")
    try:
        status = EnhancedStatus.parse(match["status"]) if match["status"] else None
    except ValueError as error:
        raise RouteError(f'found {text!r}: {error}; expected a reply as "550 5.7.1 text"', option="reply") from error
    return RejectRoute(int(match["code"]), status, (match["text"] or "").strip() or "mail for this address is refused")


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
    from difflib import get_close_matches

    near = get_close_matches(word, [*known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
