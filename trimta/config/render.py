"""The effective configuration as a document of PRODUCT section 4's schema, for people (TOML) and programs (JSON).

Loading it again gives the same Config, but for what is secret: passwords are "***".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trimta.config.reader import key_text, quote
from trimta.config.route_syntax import route_value

if TYPE_CHECKING:
    from trimta.config.model import Config, Dns, Fault, Listen
    from trimta.routing.routes import Route

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value]"
Table: TypeAlias = dict[str, Any]

SECRET: Final = "***"

_DURATIONS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES: Final = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def document(config: Config) -> Table:
    """Every key with its value; those whose absence means something (as [tls] certificate) only where they are set."""
    return {
        "hostname": config.hostname,
        "data_dir": str(config.data_dir),
        "user": config.user,
        "listen": [_listen(listener) for listener in config.listen],
        "local": {
            "domains": list(config.local.domains),
            "maildir": config.local.maildir,
            "users": "any" if config.local.users == "any" else list(config.local.users),
            "subaddress": config.local.subaddress,
        },
        "aliases": {key: [str(target) for target in targets] for key, targets in config.aliases.items()},
        "routes": {key: route_value(route) for key, route in config.routes.items()},
        "relay": {"networks": [str(network) for network in config.relay.networks]},
        "queue": _plain(config.queue, durations=("retry", "lifetime", "delay_warning")),
        "timeouts": _plain(config.timeouts, durations=tuple(field.name for field in fields(config.timeouts))),
        "limits": {**_plain(config.limits), "message_size": size(config.limits.message_size)},
        "dns": _dns(config.dns),
        "egress": {"allow": [str(network) for network in config.egress.allow]},
        "tls": {
            field.name: str(path)
            for field in fields(config.tls)
            if (path := getattr(config.tls, field.name)) is not None
        },
        "auth": {
            "any": config.auth.any,
            "insecure": config.auth.insecure,
            "users": dict.fromkeys(config.auth.users, SECRET),
        },
        "faults": [_fault(fault) for fault in config.faults],
    }


def toml(config: Config) -> str:
    """The document as TOML text."""
    return to_toml(document(config))


def duration(seconds: float) -> str:
    """Seconds as the configuration writes them: 300.0 is "5m", 0.5 is "0.5s"."""
    for unit, name in _DURATIONS:
        if seconds and seconds % unit == 0:
            return f"{int(seconds // unit)}{name}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def size(octets: int) -> str | int:
    """Octets as the configuration writes them: 52428800 is "50 MiB", 1000 is 1000."""
    for unit, name in _SIZES:
        if octets % unit == 0:
            return f"{octets // unit} {name}"
    return octets


def route_text(route: Route) -> str:
    """A route as text that says everything: the short form, or the table as TOML writes it on one line."""
    value = route_value(route)
    return value if isinstance(value, str) else _write(value)


def _listen(listener: Listen) -> Table:
    return {**_plain(listener), "address": str(listener.address), "hide": sorted(listener.hide)}


def _dns(dns: Dns) -> Table:
    table: Table = {
        "nameservers": [str(nameserver) for nameserver in dns.nameservers],
        "timeout": duration(dns.timeout),
        "zones": {},
    }
    for name, zone in dns.zones.items():
        table["zones"][name] = entry = {
            "mx": [str(record) for record in zone.mx],
            "address": [str(address) for address in zone.address],
        }
        if zone.fail is not None:
            table["zones"][name] = {"fail": zone.fail.value}
        elif not zone.mx:
            del entry["mx"]
    return table


def _fault(fault: Fault) -> Table:
    table = {key: value for key, value in _plain(fault).items() if value is not None}
    if fault.reply is not None:
        table["reply"] = str(fault.reply)
    if fault.delay:
        table["delay"] = duration(fault.delay)
    else:
        del table["delay"]
    return table


def _plain(values: Any, durations: tuple[str, ...] = ()) -> Table:
    """The fields of a dataclass, in order."""
    table: Table = {}
    for field in fields(values):
        value = getattr(values, field.name)
        if field.name in durations:
            value = [duration(step) for step in value] if isinstance(value, tuple) else duration(value)
        table[field.name] = value
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
