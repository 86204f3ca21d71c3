"""One route as a text: what `release --via` takes and the queue keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tomli

from trimta.routing.routes import RouteError, parse_route

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.routing.routes import Route


def read_route(text: str, base: Path) -> Route:
    """A route from its short form, or from a TOML table on one line: `{ transport = "smtp", host = "a.test" }`.

    Relative paths are below `base`.  RouteError; `render.route_text` is the inverse.
    """
    if not text.lstrip().startswith("{"):
        return parse_route(text, base)
    try:
        document = tomli.loads(f"route = {text}")
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise RouteError(f'found {text!r}: {error}; expected {{ transport = "smtp", host = "…", … }}') from error
    return parse_route(document["route"], base)
