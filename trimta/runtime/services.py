"""Services: what the configuration of this moment decides.  A reload replaces the whole value, never a part of it."""

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
    """The configuration, and what is derived from it."""

    configuration: Configuration
    policy: Policy
    authenticator: Authenticator


CurrentServices: TypeAlias = Callable[[], Services]
"""Returns the services of this moment.  A task that needs them to stay the same keeps what it was given."""
