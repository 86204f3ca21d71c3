"""The means that a connection does without (TLS, credentials, EHLO), and the refusals that may come of that.

A host that says 5yz to plain text, to HELO or to a client without login has not said it to the message: with TLS, EHLO
or credentials the next attempt may fare better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.mail.status import Subject
from trimta.smtp.reply_meaning import ReplyStage

if TYPE_CHECKING:
    from trimta.mail.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The means that a connection does without; nothing given: none."""

    plain: bool = False
    """There is no TLS: it was not offered, it failed, or the route does not want it."""
    anonymous: bool = False
    """The route names this host and no credentials for it."""
    ehlo_refusal: Reply | None = None
    """The reply to an EHLO that was refused, and not because the host does not know EHLO: its extensions are not known.
    """

    def excuses(self, reply: Reply, stage: ReplyStage) -> bool:
        """Whether a 5yz reply is, or may be, about a means that was done without, and not about the message."""
        if stage not in (ReplyStage.MAIL, ReplyStage.RCPT, ReplyStage.DATA):
            return False
        if reply.status is not None and reply.status.subject in _OF_ADDRESSES:
            return False
        text = reply.text
        if self.plain and (reply.code in _NEEDS_TLS or _ABOUT_TLS.search(text)):
            return True
        if self.anonymous and (reply.code in _NEEDS_AUTH or _ABOUT_AUTH.search(text)):
            return True
        return self.ehlo_refusal is not None and _ABOUT_EHLO.search(text) is not None


_OF_ADDRESSES: Final = (Subject.ADDRESS, Subject.MAILBOX)
_NEEDS_TLS: Final = (523, 530, 538)  # RFC 3207 4, RFC 4954 4 and 6; 523 was proposed there
_NEEDS_AUTH: Final = (530, 534, 535, 538)
_ABOUT_TLS: Final = re.compile(
    r"\b(?:start)?tls\b|\bssl\b|encrypt|\b(?:plain|clear)[ -]?text\b|secure (?:connection|channel|session)",
    re.IGNORECASE,
)
_ABOUT_AUTH: Final = re.compile(r"\bauth\b|authenticat|\blog ?in\b|credentials", re.IGNORECASE)
_ABOUT_EHLO: Final = re.compile(r"\behlo\b|\besmtp\b", re.IGNORECASE)
