"""The commands of SMTP, LMTP and their extensions, as frozen values.

`parsing.parse_command` makes them of a client's lines, `rendering.render_command` makes lines of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import BodyKind, ByMode, Notify, OriginalRecipient, Ret


@dataclass(frozen=True, slots=True)
class Helo:
    """HELO (RFC 5321 4.1.1.1)."""

    domain: str
    """The client's name for itself, of any form: printable characters, with "?" for each other character and for each
    octet that is not UTF-8.
    """


@dataclass(frozen=True, slots=True)
class Ehlo:
    """EHLO (RFC 5321 4.1.1.1), or with `lmtp` LHLO (RFC 2033 4.1); `domain` as in Helo."""

    domain: str
    lmtp: bool = False


class By(NamedTuple):
    """The BY parameter of MAIL (RFC 2852 4)."""

    seconds: int
    """Seconds from MAIL to the deadline; 0 or less if it has passed."""
    mode: ByMode
    trace: bool = False
    """Whether the sender asks for a DSN from each relay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailParameters:
    """The ESMTP parameters of MAIL; None: not given.  `parameters.MAIL_PARAMETERS` has how each is written."""

    size: int | None = None
    """SIZE: octets of the message, as the client announces them (RFC 1870)."""
    body: BodyKind | None = None
    smtputf8: bool = False
    """Whether SMTPUTF8 was given, or an address with characters outside ASCII implies it (RFC 6531)."""
    ret: Ret | None = None
    envid: str | None = None
    """ENVID, decoded from xtext: 1 to 100 printable ASCII characters (RFC 3461 4.4)."""
    auth: str | None = None
    """AUTH, decoded from xtext: a mailbox, or "<>" (RFC 4954 5)."""
    by: By | None = None
    hold_for: int | None = None
    """HOLDFOR: seconds (RFC 4865)."""
    hold_until: datetime | None = None
    """HOLDUNTIL: an aware datetime (RFC 4865)."""


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL (RFC 5321 4.1.1.2)."""

    reverse_path: Mailbox | None
    """The reverse-path; None is the null reverse-path, `<>`."""
    parameters: MailParameters = field(default_factory=MailParameters)
    tolerated: tuple[str, ...] = field(default=(), compare=False)
    """The mistakes in the path as the client wrote it, in words for the log."""


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT (RFC 5321 4.1.1.3), with its parameters (RFC 3461 4.1, 4.2); None: not given."""

    forward_path: Mailbox
    notify: frozenset[Notify] | None = None
    orcpt: OriginalRecipient | None = None
    tolerated: tuple[str, ...] = field(default=(), compare=False)
    """The mistakes in the path, as in Mail."""


@dataclass(frozen=True, slots=True)
class Data:
    """DATA (RFC 5321 4.1.1.4)."""


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT (RFC 3030 2): `size` octets of content follow the line."""

    size: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Rset:
    """RSET (RFC 5321 4.1.1.5)."""


@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP (RFC 5321 4.1.1.9), whose argument has no meaning."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT (RFC 5321 4.1.1.10)."""


@dataclass(frozen=True, slots=True)
class Vrfy:
    """VRFY (RFC 5321 4.1.1.6)."""

    string: str
    smtputf8: bool = False
    """Whether the command has SMTPUTF8, so that the reply may have UTF-8 in it (RFC 6531 3.7.4.2)."""


@dataclass(frozen=True, slots=True)
class Expn:
    """EXPN (RFC 5321 4.1.1.7); `smtputf8` as in Vrfy."""

    string: str
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Help:
    """HELP (RFC 5321 4.1.1.8)."""

    topic: str = ""


@dataclass(frozen=True, slots=True)
class Etrn:
    """ETRN (RFC 1985 5)."""

    node: str
    """A domain; "@" and a domain for its subdomains, too; or "#" and the name of a queue."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS (RFC 3207 4)."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH (RFC 4954 4)."""

    mechanism: str
    """The SASL mechanism, in upper case."""
    initial: bytes | None = None
    """The initial response, decoded from Base64; None without one."""


Command: TypeAlias = (
    Helo | Ehlo | Mail | Rcpt | Data | Bdat | Rset | Noop | Quit | Vrfy | Expn | Help | Etrn | StartTls | Auth
)
