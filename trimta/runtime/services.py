"""Services: the configuration and the values derived from it, as one frozen value that a reload replaces as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from trimta.config.build_policy import policy_of
from trimta.config.passwords import Authenticator

if TYPE_CHECKING:
    from trimta.config.model import Configuration
    from trimta.routing.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The configuration, with the policy and the authenticator that follow from it."""

    configuration: Configuration
    policy: Policy
    authenticator: Authenticator


def services_of(configuration: Configuration, *, time_scale: float) -> Services:
    """The services that follow from a configuration.  `time_scale` is the factor by which the queue's waits pass faster
    than configured.
    """
    return Services(
        configuration=configuration,
        policy=policy_of(configuration, time_scale=time_scale),
        authenticator=Authenticator(configuration.auth.users, any=configuration.auth.any),
    )


CurrentServices: TypeAlias = Callable[[], Services]
"""A function that returns the services of this moment, for tasks that outlive a reload.

A task that must not see a reload, as a session, is given a `Services` value.
"""
