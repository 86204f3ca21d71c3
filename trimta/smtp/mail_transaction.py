"""The mail transaction (RFC 5321 3.3) as `smtp.server` keeps it: the MAIL and RCPT commands that were accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimta.mail.envelope import BodyKind

if TYPE_CHECKING:
    from trimta.smtp.commands import Mail, Rcpt


@dataclass(slots=True)
class MailTransaction:
    """The accepted commands of a mail transaction, from MAIL on."""

    mail: Mail
    recipients: list[Rcpt] = field(default_factory=list)
    """The accepted RCPT commands, in their order."""
    refused: int = 0
    """The number of RCPT commands that were refused."""

    @property
    def body(self) -> BodyKind:
        """The BODY parameter of MAIL; without it 7BIT (RFC 6152 3)."""
        return self.mail.parameters.body or BodyKind.SEVEN_BIT

    @property
    def smtputf8(self) -> bool:
        """Whether MAIL has SMTPUTF8, or an address of the transaction implies it (RFC 6531)."""
        return self.mail.parameters.smtputf8 or not all(
            rcpt.forward_path.local_part.isascii() and rcpt.forward_path.domain.isascii() for rcpt in self.recipients
        )
