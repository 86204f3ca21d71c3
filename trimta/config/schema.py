"""The tables of conf.toml with all their keys, each a `keys.Key`: how its value is read and written.

Keys and order are those of the model's fields, which hold the defaults; a test compares them.
"""

from __future__ import annotations

import pwd
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from trimta.config import address_parsers, value_parsers
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
from trimta.config.value_parsers import wrong
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
    "mx": Key(value_parsers.array(address_parsers.mx_record, 'texts such as "10 mx.partner.test"')),
    "address": Key(value_parsers.array(address_parsers.ip_address, "IP addresses")),
    "fail": Key(value_parsers.choice(DnsFail)),
}


def top_schema(base: Path) -> Schema:
    """The keys at the top of the file.  Relative paths are below `base`."""
    return {
        "hostname": Key(address_parsers.hostname),
        "data_dir": Key(value_parsers.path(base)),
        "user": Key(_account),
        "workers": Key(value_parsers.workers),
    }


def section_schemas(base: Path) -> Mapping[str, Schema]:
    """The tables whose keys are known, by name.  Relative paths are below `base`."""
    duration = Key(value_parsers.duration(), write_duration)
    count, boolean = Key(value_parsers.count()), Key(value_parsers.boolean)
    glob, file = Key(value_parsers.word('a glob such as "slow-*@dev.test"')), Key(value_parsers.readable_file(base))
    networks = Key(value_parsers.array(address_parsers.network, "networks"))
    return {
        "listen": {
            "address": Key(address_parsers.listen_address(base)),
            "protocol": Key(value_parsers.choice(MailProtocol)),
            "tls": Key(value_parsers.choice(ListenTls)),
            "auth": Key(value_parsers.choice(AuthPolicy)),
            "hide": Key(_keywords),
        },
        "local": {
            "domains": Key(value_parsers.array(address_parsers.domain, "domains")),
            "maildir": Key(value_parsers.maildir_template(base)),
            "users": Key(_users),
            "subaddress": Key(address_parsers.subaddress),
        },
        "relay": {"networks": networks},
        "queue": {
            "retry": Key(value_parsers.retry_steps, write_durations),
            "lifetime": duration,
            "delay_warning": duration,
            "concurrency": count,
            "per_domain": count,
            "recipients_per_transaction": count,
        },
        "timeouts": {
            **dict.fromkeys((field.name for field in fields(TimeoutsSection)), duration),
            "shutdown": Key(value_parsers.duration(0), write_duration),
        },
        "limits": {
            "message_size": Key(value_parsers.size, write_size),
            **dict.fromkeys(("recipients", "connections", "connections_per_client", "hops", "errors"), count),
            "bare_newline": Key(value_parsers.choice(BareNewline)),
        },
        "dns": {
            "nameservers": Key(value_parsers.array(address_parsers.nameserver, "IP addresses")),
            "timeout": duration,
            "zones": Key(_read_elsewhere, _write_zones),
        },
        "egress": {"allow": networks},
        "tls": {"certificate": file, "key": file, "ca": file},
        "auth": {"any": boolean, "insecure": boolean, "users": Key(_read_elsewhere, write_secrets)},
        "faults": {
            "stage": Key(value_parsers.choice(FaultStage)),
            "recipient": glob,
            "sender": glob,
            "client": glob,
            "reply": Key(address_parsers.fault_reply),
            "delay": duration,
            "drop": boolean,
            "times": count,
            "probability": Key(value_parsers.probability),
            "seed": Key(value_parsers.integer),
        },
    }


def homes(base: Path) -> Mapping[str, str]:
    """The table in which each key is at home; empty for the top of the file."""
    inside = {key: name for name, schema in reversed([*section_schemas(base).items()]) for key in schema}
    return {**inside, **dict.fromkeys(top_schema(base), "")}


def _read_elsewhere(value: Any) -> None:
    """The parser of a table whose keys are the user's own, which `entry_parsers` reads."""


def _write_zones(zones: Mapping[str, Zone]) -> dict[str, TomlValue]:
    return {name: _write_zone(zone) for name, zone in zones.items()}


def _write_zone(zone: Zone) -> dict[str, TomlValue]:
    if zone.fail is not None:
        return {"fail": ZONE["fail"].write(zone.fail)}
    addresses = {"address": ZONE["address"].write(zone.address)}
    return {"mx": ZONE["mx"].write(zone.mx), **addresses} if zone.mx else addresses


def _account(value: Any) -> str:
    name = value_parsers.string('the name of an account, or ""')(value)
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
    return frozenset(value_parsers.array(_keyword, "EHLO keywords")(value))


def _users(value: Any) -> Any:
    if value == "any":
        return value
    if not isinstance(value, list):
        raise wrong(value, '"any", or an array of local parts such as ["alice", "bob"]')
    return value_parsers.array(address_parsers.user_name, "local parts")(value)
