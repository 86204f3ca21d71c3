"""Services: the configuration and the values derived from it, as one frozen value that a reload replaces as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from trimta.config.model import Configuration
    from trimta.config.passwords import Authenticator
    from trimta.routing.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The configuration, with the policy and the authenticator that follow from it."""

    configuration: Configuration
    policy: Policy
    authenticator: Authenticator


CurrentServices: TypeAlias = Callable[[], Services]
"""A function that returns the services of this moment, for tasks that outlive a reload.

A task that must not see a reload, as a session, is given a `Services` value.
"""
