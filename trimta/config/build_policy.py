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
    """The local domains and users of a configuration."""
    local = config.local
    return LocalDomains(local.domains, config.hostname, local.users, local.subaddress)


REPORTER: Final = "mailer-daemon"
"""The local part of From in DSNs, in lower case.

A reply to a DSN must reach a human (RFC 3464 2): postmaster gets it, unless the configuration gives the name to a user,
an alias or a route.
"""


def alias_table(config: Configuration) -> AliasTable:
    """The aliases of a configuration, with one for REPORTER.  `load` has refused aliases with a cycle."""
    entries, local = dict(config.aliases), local_domains(config)
    is_user = local.users != "any" and REPORTER in map(fold_local_part, local.users)
    if not is_user and not any(key.lower().startswith(f"{REPORTER}@") for key in config.routes):
        with contextlib.suppress(AliasError):  # REPORTER is an alias already, or postmaster is an alias of REPORTER
            return AliasTable({REPORTER: (POSTMASTER,), **entries}, local)
    return AliasTable(entries, local)


def local_maildirs(config: Configuration) -> LocalMaildirs:
    """The look-up of Maildirs of local mailboxes, apart from those into which routes capture mail."""
    captures = dict.fromkeys(route.template for route in config.routes.values() if isinstance(route, MaildirRoute))
    return LocalMaildirs(config.local.maildir, tuple(captures), config.links)


def route_table(config: Configuration) -> RouteTable:
    """The routes of a configuration, whose Maildirs are apart from those of local mailboxes."""
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
    """The policy of a configuration.  `time_scale`: the factor by which the queue's waits are shortened."""
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
