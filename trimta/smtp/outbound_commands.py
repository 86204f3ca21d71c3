"""MAIL and RCPT for an envelope, with the parameters that the peer offers, and the failures that its offer causes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimta.mail.envelope import BodyKind, ByMode, Notify
from trimta.mail.status import MESSAGE_TOO_BIG, NOT_CAPABLE, TIME_EXPIRED
from trimta.smtp.commands import By, Mail, MailParameters, Rcpt

if TYPE_CHECKING:
    from trimta.mail.envelope import Recipient, Terms
    from trimta.mail.status import EnhancedStatus
    from trimta.smtp.extensions import Offered


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentFacts:
    """The properties of a content, trace fields included, that decide in which form a peer can get it."""

    size: int
    """Octets on the wire, before dot-stuffing."""
    eight_bit: bool = False
    """Whether an octet is over 127."""
    binary: bool = False
    """Whether the content is raw octets, which need BODY=BINARYMIME and BDAT."""
    utf8_header: bool = False
    """Whether an octet over 127 is in the header or, if the message asked for SMTPUTF8, in that of a body part."""
    utf8_inside: bool = False
    """Whether a message that asked for SMTPUTF8 has internationalized headers inside a message/global."""


class OutboundCommands:
    """The commands MAIL and RCPT of one transaction with one peer."""

    def __init__(
        self,
        terms: Terms,
        facts: ContentFacts,
        offered: Offered,
        *,
        lmtp: bool,
        seconds_left: float | None,
        authenticated: bool,
    ) -> None:
        """`terms` are those of the envelope; the other arguments are as in OutboundTransaction."""
        self._terms = terms
        self._facts = facts
        self._offered = offered
        self._lmtp = lmtp
        self._seconds_left = seconds_left
        self._authenticated = authenticated
        by = terms.deliver_by
        self.deadline_dropped = (
            by is not None
            and by.mode is ByMode.NOTIFY
            and not lmtp  # the delivery itself, by whose success the deadline is met
            and offered.deliver_by is None
            and seconds_left is not None
            and seconds_left > 0
        )
        """Whether the peer does not learn of a deadline of BY that is still ahead (RFC 2852 4.1.4.2)."""

    def unfit(self, peer: str) -> tuple[EnhancedStatus, str] | None:
        """The status and diagnostic of a failure of all recipients that follows from the peer's offer; None without.

        `peer`: the peer's name, for people.
        """
        size, limit = self._facts.size, self._offered.size
        if limit and size > limit:
            return MESSAGE_TOO_BIG.permanent, f"the message has {size} octets, {peer} takes {limit}"
        by = self._terms.deliver_by
        if by is None or by.mode is not ByMode.RETURN:
            return None
        left = math.inf if self._seconds_left is None else math.floor(self._seconds_left)
        # BY=0;R is a syntax error (RFC 2852 4): in its last second a message can no longer be relayed, but delivered.
        if left < 0 or (left == 0 and not self._lmtp):
            return TIME_EXPIRED.permanent, "it could not be delivered by the time asked for"
        if self._lmtp:
            return None  # LMTP is the final delivery: the rules of RFC 2852 for relaying do not apply
        least = self._offered.deliver_by
        if least is None:
            return (
                NOT_CAPABLE.permanent,
                f"{peer} does not offer DELIVERBY, without which mode R forbids relaying",
            )
        if left < least:
            return TIME_EXPIRED.permanent, f"{left} s are left, {peer} takes BY from {least} s"
        return None

    def mail(self, *, smtputf8: bool) -> Mail:
        """MAIL with the parameters that the peer offers; `smtputf8`: whether the transaction uses SMTPUTF8."""
        terms, offered, facts = self._terms, self._offered, self._facts
        body = None
        if facts.binary:
            body = BodyKind.BINARY
        elif facts.eight_bit and offered.eight_bit_mime:
            body = BodyKind.EIGHT_BIT
        by = None
        if terms.deliver_by is not None and offered.deliver_by is not None and self._seconds_left is not None:
            by = By(math.floor(self._seconds_left), terms.deliver_by.mode, terms.deliver_by.trace)
        return Mail(
            terms.reverse_path,
            MailParameters(
                size=facts.size if offered.offers("SIZE") else None,
                body=body,
                smtputf8=smtputf8,
                ret=terms.ret if offered.dsn else None,
                envid=terms.envid if offered.dsn else None,
                auth="<>" if self._authenticated and offered.offers("AUTH") else None,  # RFC 4954 5
                by=by,
            ),
        )

    def rcpt(self, recipient: Recipient) -> Rcpt:
        """RCPT with the parameters that the peer offers."""
        dsn = self._offered.dsn
        return Rcpt(
            recipient.address,
            notify=self._notify(recipient) if dsn else None,
            orcpt=recipient.orcpt if dsn else None,
        )

    def _notify(self, recipient: Recipient) -> frozenset[Notify] | None:
        """NOTIFY as the client gave it, with DELAY added if the deadline is dropped (RFC 2852 4.1.4.2)."""
        asked = recipient.notify
        if not self.deadline_dropped or (asked is not None and Notify.NEVER in asked):
            return asked
        return frozenset({Notify.FAILURE} if asked is None else asked) | {Notify.DELAY}
