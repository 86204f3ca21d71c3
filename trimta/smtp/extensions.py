"""Service extensions (RFC 5321 2.2): those that a listener offers, and those that a peer has offered."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trimta.mail.reply import Reply


class MailProtocol(enum.StrEnum):
    """The protocol of a listener, or of the host that a client talks to."""

    SMTP = "smtp"
    SUBMISSION = "submission"  # RFC 6409
    LMTP = "lmtp"  # RFC 2033


_LMTP: Final = frozenset(
    {"PIPELINING", "SIZE", "8BITMIME", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"}
    | {"STARTTLS", "AUTH"}
)
_SUBMISSION: Final = _LMTP | {"VRFY", "EXPN", "HELP", "LIMITS", "DELIVERBY", "FUTURERELEASE"}
_SMTP: Final = (_SUBMISSION | {"ETRN"}) - {"FUTURERELEASE"}

_MENU: Final = {MailProtocol.SMTP: _SMTP, MailProtocol.SUBMISSION: _SUBMISSION, MailProtocol.LMTP: _LMTP}

_ORDER: Final = (
    *("PIPELINING", "SIZE", "8BITMIME", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"),
    *("VRFY", "EXPN", "ETRN", "DELIVERBY", "FUTURERELEASE", "LIMITS", "STARTTLS", "AUTH", "HELP"),
)

_NEEDS: Final = {
    "BINARYMIME": ("CHUNKING", "8BITMIME"),  # RFC 3030 2: it is of no use without these
    "SMTPUTF8": ("8BITMIME",),  # RFC 6531 3.1(8)
}


@dataclass(frozen=True, slots=True)
class FutureRelease:
    """The longest hold of a message (RFC 4865 2): in seconds, and as the last moment (an aware datetime)."""

    max_interval: int
    max_datetime: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The extensions that a listener offers to a client at one moment, and hence accepts."""

    protocol: MailProtocol = MailProtocol.SMTP
    hide: frozenset[str] = frozenset()
    """The keywords, in any letter case, that are neither offered nor accepted."""
    size_limit: int = 0
    """Octets of a message, at most; 0 for no limit (RFC 1870 4)."""
    max_recipients: int = 0
    """The number of LIMITS RCPTMAX (RFC 9422); 0 if it is not offered."""
    future_release: FutureRelease | None = None
    starttls: bool = False
    """Whether TLS can be started now."""
    auth: tuple[str, ...] = ()
    """The SASL mechanisms that are accepted now."""
    auth_behind_tls: bool = False
    """Whether AUTH is accepted once TLS is active, but not now."""
    extended: bool = True
    """Whether the client may use parameters: it may not after HELO."""

    keywords: frozenset[str] = field(init=False)
    """The keywords of the extensions on offer, in upper case."""

    def __post_init__(self) -> None:
        hidden = {keyword.upper() for keyword in self.hide}
        if not self.starttls:
            hidden.add("STARTTLS")
        if not self.auth:
            hidden.add("AUTH")
        if not self.max_recipients:
            hidden.add("LIMITS")
        if self.future_release is None:
            hidden.add("FUTURERELEASE")
        keywords = _MENU[self.protocol] - hidden
        for keyword, needed in _NEEDS.items():
            if not keywords.issuperset(needed):
                keywords -= {keyword}
        object.__setattr__(self, "keywords", keywords)

    def offers(self, keyword: str) -> bool:
        """Whether an extension (keyword in upper case) is on offer."""
        return keyword in self.keywords

    def lines(self) -> tuple[str, ...]:
        """The lines of the reply to EHLO below the first: `("PIPELINING", "SIZE 1000", ...)`."""
        return tuple(" ".join((keyword, *self._values(keyword))) for keyword in _ORDER if keyword in self.keywords)

    def _values(self, keyword: str) -> tuple[str, ...]:
        match keyword:
            case "SIZE":
                return (str(self.size_limit),)
            case "LIMITS":
                return (f"RCPTMAX={self.max_recipients}",)
            case "AUTH":
                return self.auth
            case "FUTURERELEASE":
                assert self.future_release is not None
                return (str(self.future_release.max_interval), format_datetime(self.future_release.max_datetime))
            case _:
                return ()


@dataclass(frozen=True, slots=True)
class Offered:
    """The extensions in a peer's reply to EHLO or LHLO.

    Without arguments there are none: before EHLO, after HELO, and from STARTTLS to the next EHLO.
    """

    host: str = ""
    """The peer's name for itself."""
    keywords: Mapping[str, str] = field(default_factory=dict)
    """The parameters of each extension, as one text, by its keyword in upper case."""

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """The extensions in the 250 reply to EHLO.  Lines without a keyword are ignored."""
        keywords: dict[str, str] = {}
        for line in reply.lines[1:]:
            parts = _KEYWORD.fullmatch(line.strip())
            if parts is None:
                continue
            keyword, values = parts[1].upper(), (parts[2] or "").strip()
            if keyword not in keywords:
                keywords[keyword] = values
            elif keyword == "AUTH":  # some servers also have "AUTH=PLAIN", for very old clients
                keywords[keyword] = f"{keywords[keyword]} {values}".strip()
        first = reply.lines[0].split() if reply.lines else []
        return cls(first[0] if first else "", keywords)

    def offers(self, keyword: str) -> bool:
        """Whether the peer offers an extension; `keyword` in upper case."""
        return keyword in self.keywords

    @property
    def size(self) -> int | None:
        """The octets of the largest message that the peer takes; 0 for no limit, None without SIZE (RFC 1870)."""
        if not self.offers("SIZE"):
            return None
        value = self.keywords["SIZE"]
        return int(value) if _SIZE.fullmatch(value) else 0

    @property
    def pipelining(self) -> bool:
        """Whether the peer offers PIPELINING (RFC 2920)."""
        return self.offers("PIPELINING")

    @property
    def eight_bit_mime(self) -> bool:
        """Whether the peer offers 8BITMIME (RFC 6152)."""
        return self.offers("8BITMIME")

    @property
    def chunking(self) -> bool:
        """Whether the peer offers CHUNKING (RFC 3030)."""
        return self.offers("CHUNKING")

    @property
    def binarymime(self) -> bool:
        """Whether the peer offers BINARYMIME together with CHUNKING, which it needs (RFC 3030)."""
        return self.offers("BINARYMIME") and self.chunking

    @property
    def dsn(self) -> bool:
        """Whether the peer offers DSN (RFC 3461)."""
        return self.offers("DSN")

    @property
    def smtputf8(self) -> bool:
        """Whether the peer offers SMTPUTF8 (RFC 6531)."""
        return self.offers("SMTPUTF8")

    @property
    def starttls(self) -> bool:
        """Whether the peer offers STARTTLS (RFC 3207)."""
        return self.offers("STARTTLS")

    @property
    def auth(self) -> frozenset[str]:
        """The SASL mechanisms that the peer offers with AUTH, in upper case (RFC 4954)."""
        return frozenset(self.keywords.get("AUTH", "").upper().split())

    @property
    def deliver_by(self) -> int | None:
        """The least by-time of DELIVERBY in seconds; 0 if none is given, None without DELIVERBY (RFC 2852).

        Text behind a comma is ignored, as the RFC asks.
        """
        if not self.offers("DELIVERBY"):
            return None
        value = self.keywords["DELIVERBY"].partition(",")[0].strip()
        return int(value) if _NUMBER.fullmatch(value) else 0

    @property
    def limits(self) -> dict[str, int]:
        """The limits that the peer offers with LIMITS: `{"RCPTMAX": 100}` (RFC 9422).

        A limit whose value is not a number of one to six digits, without a leading zero, is ignored.
        """
        if "LIMITS" not in self.keywords:
            return {}
        pairs = (word.partition("=") for word in self.keywords["LIMITS"].upper().split())
        return {name: int(value) for name, _, value in pairs if _LIMIT.fullmatch(value)}


_KEYWORD: Final = pattern(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ \t=](.*))?", re.ASCII)
_NUMBER: Final = pattern(r"[0-9]{1,9}", re.ASCII)
_LIMIT: Final = pattern(r"[1-9][0-9]{0,5}", re.ASCII)  # RFC 9422 4
_SIZE: Final = pattern(r"[0-9]{1,20}", re.ASCII)

_DATETIME: Final = pattern(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def format_datetime(moment: datetime) -> str:
    """An aware datetime as RFC 3339 date-time in UTC: `2026-01-31T12:00:00Z`."""
    moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def zoned_datetime(moment: datetime) -> str:
    """An aware datetime as RFC 3339 date-time in its own zone, with its fraction of a second, if any."""
    return moment.isoformat().replace("+00:00", "Z")


def parse_datetime(text: str) -> datetime:
    """The aware datetime of an RFC 3339 date-time, in the zone given there.  Raises ValueError for any other text.

    A leap second is read as the second before it.
    """
    parts = _DATETIME.fullmatch(text)
    if parts is None:
        raise ValueError("not a date-time of RFC 3339: 2026-01-31T12:00:00Z")
    date, time, seconds, fraction, zone = parts.groups(default="")
    try:
        moment = datetime.fromisoformat(
            f"{date}T{time}:{'59' if seconds == '60' else seconds}{fraction[:7]}{zone.upper()}"
        )
        moment.astimezone(UTC)  # raises OverflowError for a moment outside Python's calendar
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such date or time: {error}") from error
    return moment
