"""Builds the routing policy, and the look-up tables that it is made of, from a configuration."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trimta.mail.address import POSTMASTER, fold_local_part
from trimta.routing.aliases import AliasError, AliasTable
from trimta.routing.local_maildirs import LocalMaildirs
from trimta.routing.mailboxes import LocalDomains
from trimta.routing.policy import Policy
from trimta.routing.retry_schedule import RetrySchedule
from trimta.routing.route_table import RouteTable
from trimta.routing.routes import MaildirRoute

if TYPE_CHECKING:
    from trimta.config.model import Configuration


def local_domains(config: Configuration) -> LocalDomains:
    """Which addresses are local, and whose mailboxes they mean."""
    local = config.local
    return LocalDomains(local.domains, config.hostname, local.users, local.subaddress)


REPORTER: Final = "mailer-daemon"
"""The local part of From in DSNs, in lower case.  A reply to a DSN reaches a human (RFC 3464 2): postmaster, unless
the configuration gives the name to a user, an alias or a route.
"""


def alias_table(config: Configuration) -> AliasTable:
    """[aliases], and an alias for REPORTER.  The aliases of a Configuration that `load` returned have no cycle."""
    entries, local = dict(config.aliases), local_domains(config)
    is_user = local.users != "any" and REPORTER in map(fold_local_part, local.users)
    if not is_user and not any(key.lower().startswith(f"{REPORTER}@") for key in config.routes):
        with contextlib.suppress(AliasError):  # it is an alias already, or postmaster's mail goes there
            return AliasTable({REPORTER: (POSTMASTER,), **entries}, local)
    return AliasTable(entries, local)


def local_maildirs(config: Configuration) -> LocalMaildirs:
    """The Maildirs of local mailboxes, apart from those that routes capture into."""
    captures = dict.fromkeys(route.template for route in config.routes.values() if isinstance(route, MaildirRoute))
    return LocalMaildirs(config.local.maildir, tuple(captures), config.links)


def route_table(config: Configuration) -> RouteTable:
    """[routes], apart from the Maildirs of local mailboxes."""
    maildirs = local_maildirs(config)
    return RouteTable(
        {
            key: replace(route, labels_apart=maildirs.may_meet(route.template))
            if isinstance(route, MaildirRoute)
            else route
            for key, route in config.routes.items()
        }
    )


def policy_of(config: Configuration, *, time_scale: float = 1.0) -> Policy:
    """The routing policy.  `time_scale`: how many times faster than configured the queue's waits pass."""
    return Policy(
        local=local_domains(config),
        aliases=alias_table(config),
        routes=route_table(config),
        relay_networks=config.relay.networks,
        maildirs=local_maildirs(config),
        retry=RetrySchedule(
            steps=tuple(step / time_scale for step in config.queue.retry),
            lifetime=config.queue.lifetime / time_scale,
            delay_warning=config.queue.delay_warning / time_scale,
        ),
    )
