"""Fallbacks of a client connection (no TLS, no credentials, HELO for EHLO), and which 5yz replies they may have caused.

A 5yz reply to plain text, to HELO or to a client without login is not about the message: with TLS, EHLO or credentials
the next attempt may succeed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern
from trimta.mail.status import Subject
from trimta.smtp.reply_meaning import ReplyStage

if TYPE_CHECKING:
    from trimta.mail.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The fallbacks of one connection; by default there are none."""

    plain: bool = False
    """Whether there is no TLS: it was not offered, has failed, or the route excludes it."""
    anonymous: bool = False
    """Whether the route names this host without credentials."""
    ehlo_refusal: Reply | None = None
    """The refusal of EHLO by a host that knows EHLO, whose extensions are therefore unknown; None without such."""

    def excuses(self, reply: Reply, stage: ReplyStage) -> bool:
        """Whether a 5yz reply may be caused by a fallback, and not by the message."""
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
_ABOUT_TLS: Final = pattern(
    r"\b(?:start)?tls\b|\bssl\b|encrypt|\b(?:plain|clear)[ -]?text\b|secure (?:connection|channel|session)",
    re.IGNORECASE,
)
_ABOUT_AUTH: Final = pattern(r"\bauth\b|authenticat|\blog ?in\b|credentials", re.IGNORECASE)
_ABOUT_EHLO: Final = pattern(r"\behlo\b|\besmtp\b", re.IGNORECASE)
