"""The envelope of a message (RFC 5321 2.3.1): its terms, which MAIL sets for the whole message, and its recipients.

The parameters of MAIL and RCPT are those of RFC 3461 (DSN), 6152, 3030, 6531, 2852 (DELIVERBY) and 4865
(FUTURERELEASE).
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
    """The BODY parameter of MAIL (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


class Ret(enum.StrEnum):
    """The RET parameter of MAIL: how much of the message a failure DSN returns (RFC 3461 4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(enum.StrEnum):
    """One word of the NOTIFY parameter of RCPT: when the sender wants a DSN (RFC 3461 4.1).  NEVER stands alone."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT, decoded from xtext (RFC 3461 4.2): `OriginalRecipient("rfc822", "alice@dev.test")`."""

    addr_type: str
    """The address type, in the case that the client wrote."""
    address: str
    """The address in printable characters.  For the type utf-8, escapes of printable characters (RFC 6533 3) are
    undone; a text that is no such address stays as the client wrote it.
    """
    received: str = field(default="", compare=False)
    """The text behind the `;` on the wire, which a next hop gets unchanged (RFC 3461 5.2.1); empty: the value did not
    come by SMTP.
    """

    def __str__(self) -> str:
        return f"{self.addr_type};{self.address}"


class ByMode(enum.StrEnum):
    """The mode of DELIVERBY: the sender of a late message is notified, or gets the message returned (RFC 2852 4)."""

    NOTIFY = "N"
    RETURN = "R"


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """The BY parameter of MAIL (RFC 2852)."""

    deadline: float
    """Seconds since the epoch, wall clock."""
    mode: ByMode
    trace: bool = False
    """Whether each relay sends the sender a `relayed` DSN (RFC 2852 4.1.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A recipient: the address that the message goes to, and the address and parameters of its RCPT."""

    address: Mailbox
    """The address that the message goes to, after aliases."""

    original: Mailbox
    """The address of RCPT, before aliases."""

    notify: frozenset[Notify] | None = None
    """NOTIFY; None: RCPT had no NOTIFY, which means FAILURE and, as this server chooses, DELAY (RFC 3461 4.1)."""

    orcpt: OriginalRecipient | None = None

    number: int | None = field(default=None, compare=False)
    """The recipient's number within its envelope in the queue, which stays when other recipients leave; None: the
    recipient is not in the queue.
    """

    def is_notified_of(self, event: Notify) -> bool:
        """Whether NOTIFY asks for a DSN about `event` (SUCCESS, FAILURE or DELAY)."""
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
        chosen = tuple(recipients)
        return self if chosen == self.recipients else replace(self, recipients=chosen)
