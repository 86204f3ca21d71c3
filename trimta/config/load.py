"""The loader of conf.toml makes a Configuration, or reports every mistake of the file at once, each with its line."""

from __future__ import annotations

import re
import socket
import sys
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import tomli

from trimta.config import address_parsers, checks, entry_parsers, value_parsers
from trimta.config.build_policy import local_maildirs
from trimta.config.errors import EX_NOPERM, BadValueError, ConfigError, ConfigErrors, ConfigFileError
from trimta.config.find import state_folder
from trimta.config.links import links_of
from trimta.config.locate import locate
from trimta.config.model import Configuration, Fault, FaultStage, ListenSection, LocalSection
from trimta.config.reader import Reader
from trimta.config.route_syntax import ROUTE_OPTIONS, parse_route
from trimta.config.schema import SECTIONS, TABLES, ZONE, homes, section_schemas, top_schema
from trimta.config.syntax import STATEMENT, explain

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.config.keys import Schema

DEFAULT_DATA_DIR: Final = "var"
DEFAULT_MAILDIR: Final = "maildir-example/{user}"
DEFAULT_ROUTE: Final = "maildir:maildir-example/remote"


def load(path: Path | None) -> Configuration:
    """The configuration of a file; with None the built-in defaults, all state under the user's state folder.

    Raises ConfigErrors with every mistake of the file, ConfigFileError where there is no file to read.
    """
    if path is None:
        return replace(parse("", base=state_folder(), file="built-in defaults"), source=None)
    text = read(path)
    source = path.absolute()  # not resolve(): paths are relative to the folder of a link, not of what it leads to
    return replace(parse(text, base=source.parent, file=str(path)), source=source)


def read(path: Path) -> str:
    """The text of a configuration file.  ConfigFileError where it can't be read, ConfigErrors where it is no text."""
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        raise ConfigFileError(f"{path}: no such configuration file; `trimta init` writes one") from None
    except PermissionError as error:
        raise ConfigFileError(f"{path}: the configuration file can't be read: {error.strerror}", EX_NOPERM) from None
    except OSError as error:
        raise ConfigFileError(f"{path}: the configuration file can't be read: {error.strerror}") from None
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        problem = f"found the octet 0x{octets[error.start]:02X}"
        raise ConfigErrors(str(path), [ConfigError(line, "", "", problem, "expected text in UTF-8")]) from None


def parse(text: str, *, base: Path, file: str) -> Configuration:
    """The configuration of a TOML text.  Paths in it are relative to `base`, an absolute path; `file` is its name for
    errors.  Raises ConfigErrors.
    """
    return build(document(text, file=file), base=base, file=file, text=text)


def build(tables: dict[str, Any], *, base: Path, file: str, text: str = "") -> Configuration:
    """The configuration of a document that was parsed already; other parameters and errors as with `parse`.

    `text` is the document's text, in which the lines of its keys are looked up.
    """
    reader = Reader(homes(base))
    config = _config(reader, tables, base)
    if reader.failed():
        raise ConfigErrors(file, reader.errors(locate(text.replace("\r\n", "\n"))))
    return config


def document(text: str, *, file: str) -> dict[str, Any]:
    """The tables of a TOML text.  Raises ConfigErrors if it is not TOML."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigErrors(file, [explain(error)]) from None
    except RecursionError:
        line, problem = 1, "arrays, tables or keys that are nested too deep"
    except ValueError:
        # Python reads no number of that many digits (sys.set_int_max_str_digits).
        digits = re.search(rf"[0-9_]{{{sys.get_int_max_str_digits()},}}", text)
        line, problem = text.count("\n", 0, digits.start() if digits else 0) + 1, "a number that is too long"
    raise ConfigErrors(file, [ConfigError(line, "", "", f"not TOML: {problem}", STATEMENT)])


def _config(reader: Reader, tables: dict[str, Any], base: Path) -> Configuration:
    """The Configuration of the tables; without meaning if the reader has noted a mistake."""
    sections = section_schemas(base)
    top = top_schema(base)
    listen_schema = sections["listen"]
    parsed: dict[str, Any] = {
        "hostname": default_hostname(),
        "data_dir": value_parsers.path(base)(DEFAULT_DATA_DIR),
        "local": LocalSection(maildir=str(base / DEFAULT_MAILDIR)),
        "routes": {},
    }
    for key, value in tables.items():
        if key in top:
            result = reader.value((), (key,), value, top[key].parse)
            if result is not None:
                parsed[key] = result
        elif key == "listen":
            parsed[key] = tuple(
                ListenSection(**reader.table((key, index), table, listen_schema))
                for index, table in enumerate(reader.tables((key,), value))
            )
        elif key == "faults":
            parsed[key] = _faults(reader, value, sections[key])
        elif key == "aliases":
            parsed[key] = reader.mapping((key,), value, entry_parsers.alias, entry_parsers.targets)
        elif key == "routes":
            route = entry_parsers.route(base)
            parsed[key] = reader.mapping((key,), value, entry_parsers.route_key, route, ROUTE_OPTIONS)
        elif key in SECTIONS:
            section = reader.table((key,), value, sections[key])
            if key == "dns" and isinstance(value, dict) and "zones" in value:
                zones = reader.mapping(
                    ("dns", "zones"), value["zones"], address_parsers.domain_key, entry_parsers.zone, tuple(ZONE)
                )
                section["zones"] = zones
            if key == "auth" and isinstance(value, dict) and "users" in value:
                section["users"] = reader.mapping(
                    ("auth", "users"), value["users"], entry_parsers.user_name, value_parsers.password
                )
            if key == "local":
                section.setdefault("maildir", str(base / DEFAULT_MAILDIR))
            parsed[key] = SECTIONS[key](**section)
        else:
            reader.unknown((), key, value, (*top, *TABLES))
    if "*" not in parsed["routes"]:
        parsed["routes"] = {**parsed["routes"], "*": parse_route(DEFAULT_ROUTE, base)}
    parsed["routes"] = MappingProxyType(dict(parsed["routes"]))
    config = Configuration(**parsed)
    checks.check_listeners(reader, config)
    checks.check_tls(reader, config)
    checks.check_aliases(reader, config)
    checks.check_routes(reader, config)
    return replace(config, links=links_of(local_maildirs(config).templates))


def default_hostname() -> str:
    """This machine's name, or "localhost" where that is no domain."""
    name = socket.gethostname()
    try:
        return address_parsers.hostname(name)
    except BadValueError:
        return "localhost"


def _faults(reader: Reader, value: object, schema: Schema) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    for index, table in enumerate(reader.tables(("faults",), value)):
        path = ("faults", index)
        values = reader.table(path, table, schema)
        if not isinstance(table, dict):
            continue
        checks.check_fault(reader, path, table, values)
        if "stage" in values:
            fault = Fault(**values)
            lost = fault.stage is FaultStage.COMMITTED and fault.reply is None and not fault.delay
            faults.append(replace(fault, drop=True) if lost else fault)  # the reply is lost: what the stage is for
    return tuple(faults)
