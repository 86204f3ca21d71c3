"""The settings of a listener for one client, and the offer of extensions that they make."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimta.mail.reply import Reply
from trimta.smtp.extensions import MailProtocol, Offer
from trimta.smtp.sasl import MECHANISMS

if TYPE_CHECKING:
    from trimta.smtp.extensions import FutureRelease


class AuthPolicy(enum.StrEnum):
    """The use of AUTH at a listener (RFC 4954)."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class BareNewline(enum.StrEnum):
    """The answer to content in which a line ends in LF alone."""

    ACCEPT = "accept"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of a listener for one client."""

    hostname: str
    protocol: MailProtocol = MailProtocol.SMTP
    size_limit: int = 0
    """Octets of a message on the wire, at most; 0 for no limit."""
    max_recipients: int = 0
    """Recipients of a transaction, at most, for LIMITS (RFC 9422); 0: LIMITS is not offered.  The session holds it."""
    starttls: bool = False
    """Whether STARTTLS is configured."""
    auth: AuthPolicy = AuthPolicy.NONE
    auth_in_clear: bool = False
    """Whether this client may use AUTH without TLS."""
    mechanisms: tuple[str, ...] = MECHANISMS
    future_release: FutureRelease | None = None
    """The longest hold for FUTURERELEASE, which only submission has; None: not offered.

    The core reads no clock, so it accepts a HOLDUNTIL in the past.
    """
    hide: frozenset[str] = frozenset()
    """EHLO keywords, in any case, that are neither offered nor accepted."""
    bare_newline: BareNewline = BareNewline.ACCEPT

    _offers: dict[tuple[bool, bool], Offer] = field(default_factory=dict, init=False, repr=False, compare=False)
    _ehlo_replies: dict[bool, Reply] = field(default_factory=dict, init=False, repr=False, compare=False)
    # What `offer` and `ehlo_reply` have made: many sessions share these settings, and ask more than once.

    def hides(self, keyword: str) -> bool:
        """Whether an EHLO keyword, given in upper case, is hidden."""
        return keyword in {hidden.upper() for hidden in self.hide}

    def offer(self, *, tls: bool, extended: bool) -> Offer:
        """The offer to the client.

        `tls`: whether TLS is active.  `extended`: whether MAIL and RCPT may have parameters: not after HELO.
        """
        offer = self._offers.get((tls, extended))
        if offer is None:
            offer = self._offers[tls, extended] = self._offer(tls=tls, extended=extended)
        return offer

    def ehlo_reply(self, *, tls: bool) -> Reply:
        """The reply to EHLO or LHLO: 250, the server's name, the extensions.  `tls`: whether TLS is active."""
        reply = self._ehlo_replies.get(tls)
        if reply is None:
            lines = self.offer(tls=tls, extended=True).lines()
            reply = self._ehlo_replies[tls] = Reply.of(250, "", self.hostname, *lines)
        return reply

    def _offer(self, *, tls: bool, extended: bool) -> Offer:
        has_auth = self.auth is not AuthPolicy.NONE
        in_reach = tls or self.auth_in_clear
        return Offer(
            protocol=self.protocol,
            hide=self.hide,
            size_limit=self.size_limit,
            max_recipients=self.max_recipients,
            future_release=self.future_release,
            starttls=self.starttls and not tls,
            auth=self.mechanisms if has_auth and in_reach else (),
            auth_behind_tls=has_auth and not in_reach,
            extended=extended,
        )
