"""What became of a message at one recipient: Delivered, Deferred or Failed.  Unknown trouble is Deferred."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from trimta.mail.status import GIVEN_UP

if TYPE_CHECKING:
    from trimta.mail.envelope import Recipient
    from trimta.mail.status import EnhancedStatus


class Handover(enum.StrEnum):
    """Who answers for a delivered message from here on (RFC 3461 5.2.1): it decides on a success DSN."""

    FINAL = "delivered"
    """In a mailbox, or out of the mail system: a `delivered` DSN is ours to send."""

    RELAYED = "relayed"
    """Given to a host that knows no DSN: a `relayed` DSN is ours to send."""

    PASSED_ON = "passed-on"
    """Given to a host that took the NOTIFY parameter over: nothing is ours to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The recipient's copy is somebody else's now, or in its mailbox."""

    recipient: Recipient
    status: EnhancedStatus
    """Class 2."""
    diagnostic: str
    """What the peer said, or what we did, in one line."""
    handover: Handover
    host: str = ""
    """The peer's name, where there was one: Remote-MTA of RFC 3464."""
    deadline_dropped: bool = False
    """The message asked for BY=…;N and went, before that deadline, to a host without DELIVERBY, which will not keep it:
    a `relayed` DSN is due unless NOTIFY=NEVER was said (RFC 2852 4.1.4.2), whatever `handover` says.
    """

    def __post_init__(self) -> None:
        _check(self.status, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """Not now: try again."""

    recipient: Recipient
    status: EnhancedStatus
    """Class 4."""
    diagnostic: str
    """What the peer or the system said, for the queue listing and the DSN."""
    host: str = ""
    smtp: bool = False
    """The diagnostic is a peer's SMTP reply (Diagnostic-Code type `smtp`), else a local cause (`x-trimta`)."""

    def __post_init__(self) -> None:
        _check(self.status, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Never: tell the sender."""

    recipient: Recipient
    status: EnhancedStatus
    """Class 5; or 4.4.7 where the lifetime ended before a retry could succeed (RFC 3463 3.5)."""
    diagnostic: str
    host: str = ""
    smtp: bool = False
    of_content: bool = False
    """The content is why, its size or its form: the same recipient may take another one."""

    def __post_init__(self) -> None:
        if self.status != GIVEN_UP:
            _check(self.status, 5)


Outcome: TypeAlias = Delivered | Deferred | Failed


def _check(status: EnhancedStatus, klass: int) -> None:
    if status.klass != klass:
        raise ValueError(f"status {status} where class {klass} is meant")
