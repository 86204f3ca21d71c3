"""What a DSN tells of one recipient: values that its parts for people and for machines are made from."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimta.mail.outcome import Deferred
from trimta.mail.status import GIVEN_UP, EnhancedStatus

if TYPE_CHECKING:
    from datetime import datetime

    from trimta.mail.outcome import Outcome


class DsnKind(enum.StrEnum):
    """What a DSN tells; the value is the Action field (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a DSN tells of one recipient.  Moments have a time zone."""

    outcome: Outcome
    """Failed, or Deferred and expired, for FAILED; Deferred for DELAYED; else Delivered."""

    last_attempt: datetime | None = None
    """When the last attempt ended; None: there was none (RFC 3464 2.3.7)."""
    retry_until: datetime | None = None
    """When a delayed message is given up; None: it is held, and nobody tries it."""


def status_of(kind: DsnKind, outcome: Outcome) -> EnhancedStatus:
    """A deferral that fails did so because its time was over, whatever the last reply said."""
    return GIVEN_UP if kind is DsnKind.FAILED and isinstance(outcome, Deferred) else outcome.status
