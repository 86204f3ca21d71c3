"""The look-up tables that a configuration makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta.mail.aliases import AliasTable
from trimta.mail.mailboxes import LocalDomains
from trimta.mail.routing import RouteTable

if TYPE_CHECKING:
    from trimta.config.model import Config


def local_domains(config: Config) -> LocalDomains:
    """Which addresses are local, and whose mailboxes they mean."""
    local = config.local
    return LocalDomains(local.domains, config.hostname, local.users, local.subaddress)


def alias_table(config: Config) -> AliasTable:
    """[aliases].  A Config that `load` returned has no cycle in them."""
    return AliasTable(dict(config.aliases), local_domains(config))


def route_table(config: Config) -> RouteTable:
    """[routes]."""
    return RouteTable(dict(config.routes))
