"""The envelope (RFC 5321 2.3.1): who it is from, who it is for, and what the client asked for (RFC 3461, 6152, 3030,
6531, 2852, 4865).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trimta.mail.address import Mailbox

ReversePath: TypeAlias = "Mailbox | None"
"""The return address of MAIL; None is the null reverse-path `<>` (RFC 5321 4.5.5)."""


class BodyKind(enum.StrEnum):
    """What MAIL's BODY parameter declares (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


class Ret(enum.StrEnum):
    """How much of the message a failure DSN returns (RFC 3461 4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(enum.StrEnum):
    """When the sender wants a DSN for a recipient (RFC 3461 4.1).  NEVER stands alone."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT, decoded from xtext (RFC 3461 4.2): `OriginalRecipient("rfc822", "alice@dev.test")`."""

    addr_type: str
    """In the case that was given."""
    address: str
    """Printable.  Of the type utf-8 the escapes of RFC 6533 3 are undone, but for those of other characters; a text
    that is no such address stays as it was given.
    """
    received: str = field(default="", compare=False)
    """What stood behind the `;` on the wire, for hosts that are to get it unchanged (RFC 3461 5.2.1); empty: it did not
    come from there.
    """

    def __str__(self) -> str:
        return f"{self.addr_type};{self.address}"


class ByMode(enum.StrEnum):
    """What happens to a message that is late (RFC 2852 4)."""

    NOTIFY = "N"
    RETURN = "R"


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """DELIVERBY (RFC 2852): a moment (seconds since the epoch, wall clock), a mode, and whether to trace relays."""

    deadline: float
    mode: ByMode
    trace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One recipient: where the message goes now, and what the client said of it at RCPT."""

    address: Mailbox
    """Where it goes: after aliases."""

    original: Mailbox
    """The address of RCPT: before aliases."""

    notify: frozenset[Notify] | None = None
    """None: the client did not say, which means FAILURE and, as we choose, DELAY (RFC 3461 4.1)."""

    orcpt: OriginalRecipient | None = None

    def wants(self, event: Notify) -> bool:
        """Whether a DSN about `event` (SUCCESS, FAILURE or DELAY) is due to the sender of this recipient."""
        if self.notify is None:
            return event in (Notify.FAILURE, Notify.DELAY)
        return event in self.notify


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What MAIL agreed on for a message, whoever its recipients are.

    The envelope, the message in the queue and the report about it hold the same Terms.
    """

    reverse_path: ReversePath
    body: BodyKind = BodyKind.SEVEN_BIT
    smtputf8: bool = False
    """Whether the message may have UTF-8 in its addresses and its header (RFC 6531)."""
    envid: str | None = None
    """ENVID, decoded from xtext (RFC 3461 4.4)."""
    ret: Ret | None = None
    deliver_by: DeliverBy | None = None
    hold_until: float | None = None
    """The end of a hold that the client asked for (FUTURERELEASE, RFC 4865): seconds since the epoch, wall clock; None:
    the message may go at once.
    """
    hold_request: str = ""
    """FUTURERELEASE's parameter as RFC 4865 5.1.2 writes it in a report: `for;3600`, `until;2026-01-31T12:00:00Z`;
    empty: the client asked for no hold.  A request whose hold was over when the message came is kept, too.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A mail transaction's terms and recipients, once all its RCPTs are answered."""

    terms: Terms
    recipients: tuple[Recipient, ...]

    def to(self, recipients: Iterable[Recipient]) -> Self:
        """The same envelope for other recipients."""
        return replace(self, recipients=tuple(recipients))
