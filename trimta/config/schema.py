"""The tables of conf.toml and their keys, each with the parser of its value.

Keys and order are those of the model's fields; a test compares them.
"""

from __future__ import annotations

import pwd
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from trimta.config import address_values, values
from trimta.config.model import (
    Auth,
    BareNewline,
    Dns,
    DnsFail,
    Egress,
    Limits,
    ListenAuth,
    ListenTls,
    Local,
    Protocol,
    Queue,
    Relay,
    Stage,
    Timeouts,
    Tls,
)
from trimta.config.values import wrong

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trimta.config.reader import Schema

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
    "local": Local,
    "relay": Relay,
    "queue": Queue,
    "timeouts": Timeouts,
    "limits": Limits,
    "dns": Dns,
    "egress": Egress,
    "tls": Tls,
    "auth": Auth,
}
"""The tables that are one dataclass each."""

ZONE: Final[Schema] = {
    "mx": values.array(address_values.mx_record, 'texts such as "10 mx.partner.test"'),
    "address": values.array(address_values.ip_address, "IP addresses"),
    "fail": values.choice(DnsFail),
}


def top_schema(base: Path) -> Schema:
    return {"hostname": address_values.hostname, "data_dir": values.path(base), "user": _account}


def section_schemas(base: Path) -> Mapping[str, Schema]:
    duration, count, networks = values.duration(), values.count(), values.array(address_values.network, "networks")
    return {
        "listen": {
            "address": address_values.listen_address(base),
            "protocol": values.choice(Protocol),
            "tls": values.choice(ListenTls),
            "auth": values.choice(ListenAuth),
            "hide": _keywords,
        },
        "local": {
            "domains": values.array(address_values.domain, "domains"),
            "maildir": values.maildir_template(base),
            "users": _users,
            "subaddress": address_values.subaddress,
        },
        "relay": {"networks": networks},
        "queue": {
            "retry": values.retry_steps,
            "lifetime": duration,
            "delay_warning": duration,
            "concurrency": count,
            "per_domain": count,
            "recipients_per_transaction": count,
        },
        "timeouts": {
            **dict.fromkeys((field.name for field in fields(Timeouts)), duration),
            "shutdown": values.duration(0),
        },
        "limits": {
            "message_size": values.size,
            **dict.fromkeys(("recipients", "connections", "connections_per_client", "hops", "errors"), count),
            "bare_newline": values.choice(BareNewline),
        },
        "dns": {
            "nameservers": values.array(address_values.nameserver, "IP addresses"),
            "timeout": duration,
            "zones": read_elsewhere,
        },
        "egress": {"allow": networks},
        "tls": {
            "certificate": values.readable_file(base),
            "key": values.readable_file(base),
            "ca": values.readable_file(base),
        },
        "auth": {"any": values.boolean, "insecure": values.boolean, "users": read_elsewhere},
        "faults": {
            "stage": values.choice(Stage),
            **dict.fromkeys(("recipient", "sender", "client"), values.word('a glob such as "slow-*@dev.test"')),
            "reply": address_values.fault_reply,
            "delay": duration,
            "drop": values.boolean,
            "times": count,
            "probability": values.probability,
            "seed": values.integer,
        },
    }


def homes(base: Path) -> Mapping[str, str]:
    """The table in which each key is at home; empty for the top of the file."""
    inside = {key: name for name, schema in reversed([*section_schemas(base).items()]) for key in schema}
    return {**inside, **dict.fromkeys(top_schema(base), "")}


def read_elsewhere(value: Any) -> None:
    """A parser for a table whose keys are the user's own: it is not the schema that reads it."""


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
