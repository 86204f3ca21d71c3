"""Parsers of the entries of tables whose keys are the user's own: [aliases], [routes], [dns.zones], [auth] users."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from trimta.config import address_parsers, value_parsers
from trimta.config.errors import BadValueError, Mistake
from trimta.config.model import Zone
from trimta.config.reader import Reader
from trimta.config.route_syntax import ROUTE_OPTIONS, parse_route
from trimta.config.schema import ZONE
from trimta.config.value_parsers import Parser, show, wrong
from trimta.routing.route_table import RouteTable
from trimta.routing.routes import DiscardRoute, HostRoute, RouteError

if TYPE_CHECKING:
    from pathlib import Path

from trimta.routing.routes import Route


def alias(value: Any) -> str:
    address_parsers.alias_target(value)
    return str(value)


def targets(value: Any) -> tuple[Any, ...]:
    given = value if isinstance(value, list) else [value]
    if not given:
        raise wrong(value, "at least one address")
    try:
        return value_parsers.array(address_parsers.alias_target, "addresses")(given)
    except BadValueError as error:
        if isinstance(value, list):
            raise
        raise BadValueError(*(replace(mistake, at=mistake.at[1:]) for mistake in error.mistakes)) from None


def user_name(value: Any) -> str:
    return value_parsers.word("a name")(value)


def route_key(value: Any) -> str:
    """A key as it was written: RouteTable knows which are the same."""
    key = str(value)
    if key != "*":
        try:
            RouteTable({key: DiscardRoute(), "*": DiscardRoute()})
        except RouteError as error:
            raise BadValueError(_route_mistake(value, error)) from None
    return key


def route(base: Path) -> Parser[Route]:
    def parse(value: Any) -> Route:
        if not isinstance(value, str | dict):
            raise wrong(value, 'a route such as "mx", "smtp:HOST:PORT", "maildir:PATH", or a table with transport = …')
        mistakes: list[Mistake] = []
        left = value
        while True:
            try:
                route = parse_route(left, base)
                break
            except RouteError as error:
                mistakes.append(_route_mistake(value, error))
                # Without what no other option needs, the rest of a table can be judged too.
                if not isinstance(left, dict) or error.option not in left or error.option in _NEEDED_BY_OTHERS:
                    raise BadValueError(*mistakes) from None
                left = {option: inner for option, inner in left.items() if option != error.option}
        if isinstance(route, HostRoute) and route.password_file is not None:
            try:
                value_parsers.check_readable(str(route.password_file), route.password_file)
            except BadValueError as error:
                mistakes += error.inside("password_file")
        if mistakes:
            raise BadValueError(*mistakes)
        return route

    return parse


_NEEDED_BY_OTHERS: Final = ROUTE_OPTIONS - {"tls"}


def _route_mistake(value: object, error: RouteError) -> Mistake:
    """A RouteError's message in two halves; where it doesn't say what was found, the value or the option is that."""
    problem, expected, rest = str(error).partition("expected ")
    at = (error.option,) if error.option is not None and isinstance(value, dict) else ()
    if expected:
        missing = isinstance(value, dict) and error.option is not None and error.option not in value
        nothing = f"found no {error.option}" if missing else f"found {show(value)}"
        return Mistake(problem.rstrip(" ,;:") or nothing, expected + rest, at)
    problem, semicolon, rest = str(error).partition("; ")
    if semicolon:
        return Mistake(problem, rest, at)
    return Mistake(f"found {at[0] if at else show(value)}", str(error), at)


def zone(value: Any) -> Zone:
    reader = Reader({})
    zone = Zone(**reader.table((), value, ZONE))
    if reader.failed():
        raise BadValueError(*reader.mistakes())
    if zone.fail is not None and (zone.mx or zone.address):
        raise BadValueError(Mistake("found fail besides mx or address", "expected the one or the other", ("fail",)))
    if len(zone.mx) > 1 and any(record.host == "." for record in zone.mx):
        raise BadValueError(Mistake("found a null MX among others", 'expected "0 ." alone (RFC 7505)', ("mx",)))
    return zone
