"""The effective configuration as a document, for people (TOML) and programs (JSON).

Loading it again gives the same Configuration, but for what is secret: passwords are "***".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from trimta.config.keys import write
from trimta.config.reader import key_text, quote
from trimta.config.route_syntax import route_value
from trimta.config.schema import SECTIONS, section_schemas, top_schema

if TYPE_CHECKING:
    from trimta.config.keys import Schema
    from trimta.config.model import Configuration, Fault
    from trimta.routing.routes import Route

Table: TypeAlias = dict[str, Any]


def document(config: Configuration) -> Table:
    """Every key with its value; those whose absence means something (as [tls] certificate) only where they are set."""
    schemas = section_schemas(config.data_dir)
    return {
        **_table(config, top_schema(config.data_dir)),
        "listen": [_table(listener, schemas["listen"]) for listener in config.listen],
        "local": _table(config.local, schemas["local"]),
        "aliases": {key: write(targets) for key, targets in config.aliases.items()},
        "routes": {key: route_value(route) for key, route in config.routes.items()},
        **{name: _table(getattr(config, name), schemas[name]) for name in SECTIONS if name != "local"},
        "faults": [_fault(fault, schemas["faults"]) for fault in config.faults],
    }


def toml(config: Configuration) -> str:
    """The document as TOML text."""
    return to_toml(document(config))


def route_text(route: Route) -> str:
    """A route as text that says everything: the short form, or the table as TOML writes it on one line."""
    value = route_value(route)
    return value if isinstance(value, str) else _write(value)


def _table(values: object, schema: Schema) -> Table:
    return {name: key.write(value) for name, key in schema.items() if (value := getattr(values, name)) is not None}


def _fault(fault: Fault, schema: Schema) -> Table:
    table = _table(fault, schema)
    if not fault.delay:
        del table["delay"]
    return table


# TOML.


def to_toml(document: Table) -> str:
    """A document as TOML: plain keys first, then a section for each table."""
    lines: list[str] = []
    _write_table(lines, (), document)
    return "\n".join(lines).strip("\n") + "\n"


def _write_table(lines: list[str], path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    inner: list[tuple[str, Any]] = []
    for key, value in table.items():
        if _is_section(path, value):
            inner.append((key, value))
        else:
            lines.append(f"{key_text((key,))} = {_write(value)}")
    for key, value in inner:
        name = key_text((*path, key))
        if isinstance(value, list):
            for item in value:
                lines += ["", f"[[{name}]]"]
                _write_table(lines, (*path, key), item)
        else:
            # A table of nothing but tables needs no header of its own.
            if not value or not all(_is_section((*path, key), item) for item in value.values()):
                lines += ["", f"[{name}]"]
            _write_table(lines, (*path, key), value)


def _is_section(path: tuple[str, ...], value: object) -> bool:
    """Whether a value gets a [header]; tables inside of [routes] and the like stay on their line."""
    if isinstance(value, Mapping):
        return not path or path[0] == "dns"
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _write(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quote(str(value))
        case int() | float():
            return str(value)
        case list() | tuple():
            return f"[{', '.join(_write(item) for item in value)}]"
        case _ if not value:
            return "{}"
        case _:
            return f"{{ {', '.join(f'{key_text((key,))} = {_write(item)}' for key, item in value.items())} }}"
