"""Outcomes: what an attempt came to for one recipient, Delivered, Deferred or Failed, each with its cause.

Trouble of an unknown kind is Deferred: a message is given up only where a reply or a rule says so, or its time is over.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from trimta.mail.status import GIVEN_UP

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.mail.envelope import Recipient
    from trimta.mail.reply import Reply
    from trimta.mail.status import EnhancedStatus


@dataclass(frozen=True, slots=True)
class PeerReply:
    """A peer's SMTP reply as the cause of an outcome: Diagnostic-Code type `smtp` of RFC 3464 2.3.6."""

    reply: Reply
    host: str = ""
    """The name of the host that replied: Remote-MTA of RFC 3464; empty: it is not known."""

    @property
    def diagnostic(self) -> str:
        """The reply on one line, with all its codes."""
        return self.reply.diagnostic


@dataclass(frozen=True, slots=True)
class LocalCause:
    """An action or a finding of this server as the cause of an outcome: Diagnostic-Code type `x-trimta`."""

    text: str
    """What happened, for people."""
    host: str = ""
    """The name of the host that was tried: Remote-MTA of RFC 3464; empty: there was none."""

    @property
    def diagnostic(self) -> str:
        """The text, under the name that it has in a PeerReply."""
        return self.text


Cause: TypeAlias = PeerReply | LocalCause


def cause_of(reply: Reply, host: str) -> Cause:
    """The cause that a peer's reply makes.  `host`: the name of the peer.

    A code that is of no class of RFC 5321 4.2.1 (2yz to 5yz) makes a LocalCause: no DSN presents it as an SMTP reply.
    """
    return PeerReply(reply, host) if 2 <= reply.klass <= 5 else LocalCause(reply.diagnostic, host)


class Handover(enum.StrEnum):
    """The handover of a delivered message: who answers for it from here on, and who sends the success DSN (RFC 3461
    5.2.1).
    """

    FINAL = "delivered"
    """The message is in a mailbox, or out of the mail system: this server sends a `delivered` DSN."""

    RELAYED = "relayed"
    """The next hop does not offer DSN: this server sends a `relayed` DSN."""

    PASSED_ON = "passed-on"
    """The next hop has taken the NOTIFY parameter over: it sends the DSN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A delivery: the recipient's copy is in its mailbox, or another host has taken responsibility for it."""

    recipient: Recipient
    status: EnhancedStatus
    """Class 2."""
    cause: Cause
    """The peer's reply, or what this server did."""
    handover: Handover
    maildir: Path | None = None
    """The Maildir that the copy is in; None: the message went elsewhere."""
    deadline_dropped: bool = False
    """Whether a deadline of mode N was still to come when a host without DELIVERBY took the message: a `relayed` DSN is
    due unless the recipient has NOTIFY=NEVER (RFC 2852 4.1.4.2), whatever `handover` says.
    """

    def __post_init__(self) -> None:
        _check(self.status, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """A deferral: the recipient is tried again later."""

    recipient: Recipient
    status: EnhancedStatus
    """Class 4."""
    cause: Cause
    possibly_taken: bool = False
    """Whether the peer may have taken the message over: to try another host at once would make two copies of it.  This
    is about the hosts of one attempt, and the queue does not keep it.
    """

    def __post_init__(self) -> None:
        _check(self.status, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A failure: the recipient is not tried again, and the sender is told."""

    recipient: Recipient
    status: EnhancedStatus
    """Class 5; or 4.4.7 where the lifetime ended before a retry could succeed (RFC 3463 3.5)."""
    cause: Cause
    of_content: bool = False
    """Whether the content is the cause, by its size or its form: the same recipient may take another content."""

    def __post_init__(self) -> None:
        if self.status != GIVEN_UP:
            _check(self.status, 5)


Outcome: TypeAlias = Delivered | Deferred | Failed


def _check(status: EnhancedStatus, klass: int) -> None:
    if status.klass != klass:
        raise ValueError(f"status {status} where class {klass} is meant")
