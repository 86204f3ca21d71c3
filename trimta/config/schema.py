"""The tables of conf.toml and their keys: how each value is read and written.

Keys and order are those of the model's fields, which hold the defaults; a test compares them.
"""

from __future__ import annotations

import pwd
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from trimta.config import address_values, values
from trimta.config.keys import Key, write_duration, write_durations, write_secrets, write_size
from trimta.config.model import (
    AuthSection,
    DnsFail,
    DnsSection,
    EgressSection,
    FaultStage,
    LimitsSection,
    ListenTls,
    LocalSection,
    QueueSection,
    RelaySection,
    TimeoutsSection,
    TlsSection,
    Zone,
)
from trimta.config.values import wrong
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.server_settings import AuthPolicy, BareNewline

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trimta.config.keys import Schema, TomlValue

TABLES: Final = (
    "listen",
    "local",
    "aliases",
    "routes",
    "relay",
    "queue",
    "timeouts",
    "limits",
    "dns",
    "egress",
    "tls",
    "auth",
    "faults",
)
"""All tables, in the order of the documentation."""

SECTIONS: Final[Mapping[str, type]] = {
    "local": LocalSection,
    "relay": RelaySection,
    "queue": QueueSection,
    "timeouts": TimeoutsSection,
    "limits": LimitsSection,
    "dns": DnsSection,
    "egress": EgressSection,
    "tls": TlsSection,
    "auth": AuthSection,
}
"""The tables that are one dataclass each."""

ZONE: Final[Schema] = {
    "mx": Key(values.array(address_values.mx_record, 'texts such as "10 mx.partner.test"')),
    "address": Key(values.array(address_values.ip_address, "IP addresses")),
    "fail": Key(values.choice(DnsFail)),
}


def top_schema(base: Path) -> Schema:
    """The keys at the top of the file.  Relative paths are below `base`."""
    return {"hostname": Key(address_values.hostname), "data_dir": Key(values.path(base)), "user": Key(_account)}


def section_schemas(base: Path) -> Mapping[str, Schema]:
    """The tables whose keys are known, by name.  Relative paths are below `base`."""
    duration, count, boolean = Key(values.duration(), write_duration), Key(values.count()), Key(values.boolean)
    glob, file = Key(values.word('a glob such as "slow-*@dev.test"')), Key(values.readable_file(base))
    networks = Key(values.array(address_values.network, "networks"))
    return {
        "listen": {
            "address": Key(address_values.listen_address(base)),
            "protocol": Key(values.choice(MailProtocol)),
            "tls": Key(values.choice(ListenTls)),
            "auth": Key(values.choice(AuthPolicy)),
            "hide": Key(_keywords),
        },
        "local": {
            "domains": Key(values.array(address_values.domain, "domains")),
            "maildir": Key(values.maildir_template(base)),
            "users": Key(_users),
            "subaddress": Key(address_values.subaddress),
        },
        "relay": {"networks": networks},
        "queue": {
            "retry": Key(values.retry_steps, write_durations),
            "lifetime": duration,
            "delay_warning": duration,
            "concurrency": count,
            "per_domain": count,
            "recipients_per_transaction": count,
        },
        "timeouts": {
            **dict.fromkeys((field.name for field in fields(TimeoutsSection)), duration),
            "shutdown": Key(values.duration(0), write_duration),
        },
        "limits": {
            "message_size": Key(values.size, write_size),
            **dict.fromkeys(("recipients", "connections", "connections_per_client", "hops", "errors"), count),
            "bare_newline": Key(values.choice(BareNewline)),
        },
        "dns": {
            "nameservers": Key(values.array(address_values.nameserver, "IP addresses")),
            "timeout": duration,
            "zones": Key(_read_elsewhere, _write_zones),
        },
        "egress": {"allow": networks},
        "tls": {"certificate": file, "key": file, "ca": file},
        "auth": {"any": boolean, "insecure": boolean, "users": Key(_read_elsewhere, write_secrets)},
        "faults": {
            "stage": Key(values.choice(FaultStage)),
            "recipient": glob,
            "sender": glob,
            "client": glob,
            "reply": Key(address_values.fault_reply),
            "delay": duration,
            "drop": boolean,
            "times": count,
            "probability": Key(values.probability),
            "seed": Key(values.integer),
        },
    }


def homes(base: Path) -> Mapping[str, str]:
    """The table in which each key is at home; empty for the top of the file."""
    inside = {key: name for name, schema in reversed([*section_schemas(base).items()]) for key in schema}
    return {**inside, **dict.fromkeys(top_schema(base), "")}


def _read_elsewhere(value: Any) -> None:
    """The parser of a table whose keys are the user's own, which `entries` reads."""


def _write_zones(zones: Mapping[str, Zone]) -> dict[str, TomlValue]:
    return {name: _write_zone(zone) for name, zone in zones.items()}


def _write_zone(zone: Zone) -> dict[str, TomlValue]:
    if zone.fail is not None:
        return {"fail": ZONE["fail"].write(zone.fail)}
    addresses = {"address": ZONE["address"].write(zone.address)}
    return {"mx": ZONE["mx"].write(zone.mx), **addresses} if zone.mx else addresses


def _account(value: Any) -> str:
    name = values.string('the name of an account, or ""')(value)
    if name:
        try:
            pwd.getpwnam(name)
        except KeyError:
            raise wrong(value, 'an account of this machine, or ""') from None
    return name


EHLO_KEYWORDS: Final = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "CHUNKING",
    "BINARYMIME",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "SMTPUTF8",
    "VRFY",
    "EXPN",
    "ETRN",
    "HELP",
    "LIMITS",
    "DELIVERBY",
    "STARTTLS",
    "AUTH",
    "FUTURERELEASE",
)


def _keyword(value: Any) -> str:
    if isinstance(value, str) and value.upper() in EHLO_KEYWORDS:
        return value.upper()
    raise wrong(value, f"one of {', '.join(EHLO_KEYWORDS)}")


def _keywords(value: Any) -> frozenset[str]:
    return frozenset(values.array(_keyword, "EHLO keywords")(value))


def _users(value: Any) -> Any:
    if value == "any":
        return value
    if not isinstance(value, list):
        raise wrong(value, '"any", or an array of local parts such as ["alice", "bob"]')
    return values.array(address_values.user_name, "local parts")(value)
