"""The values that a DSN is made from: its kind, its recipients with their outcomes, the message that it is about."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimta.mail.outcome import Deferred
from trimta.mail.status import GIVEN_UP, EnhancedStatus

if TYPE_CHECKING:
    from datetime import datetime

    from trimta.mail.envelope import Terms
    from trimta.mail.outcome import Outcome


class DsnKind(enum.StrEnum):
    """The kind of a DSN.  The value is that of its Action fields (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientReport:
    """The outcome of a recipient with the moments that a DSN tells.  Moments have a time zone."""

    outcome: Outcome
    """Failed, or Deferred where the lifetime is over, in a DSN of kind FAILED; Deferred in DELAYED; else Delivered."""
    last_attempt: datetime | None = None
    """When the last attempt ended; None: there was none (RFC 3464 2.3.7)."""
    retry_until: datetime | None = None
    """When a delayed message is given up; None: it is held, and not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalMessage:
    """The message that a DSN is about, with its envelope and its arrival at this server."""

    head: bytes
    """The octets that the message begins with, trace fields of this server included, as many as the DSN may return or
    more.  LF line ends; those of a BINARYMIME message as it came.
    """
    whole: bool
    """Whether the message ends with `head`."""
    terms: Terms
    arrived: datetime
    """With a time zone."""
    queue_id: str = ""
    """The id of the message in the log of this server; empty: it has none."""
    received_from: str = ""
    """The HELO name of the client that handed the message over; empty: there was none."""

    @property
    def is_traced(self) -> bool:
        """Whether DELIVERBY asked every relay for a DSN (RFC 2852 4.1.4)."""
        return self.terms.deliver_by is not None and self.terms.deliver_by.trace


def status_of(kind: DsnKind, outcome: Outcome) -> EnhancedStatus:
    """The Status field of a recipient: of a deferral that fails it is 4.4.7, whatever the last reply said."""
    return GIVEN_UP if kind is DsnKind.FAILED and isinstance(outcome, Deferred) else outcome.status
