"""The messages in a server's Maildirs, as Python's `email` sees them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from email import message_from_bytes
from email.contentmanager import ContentManager, raw_data_manager
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import EmailPolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from trimta.content.display import text
from trimta.content.search_criteria import NULL_PATH, AddressPattern, SearchCriteria
from trimta.mail.address import AddressError, Mailbox, parse_mailbox
from trimta.routing.destination import LocalDestination, UnknownUser
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import MaildirRoute
from trimta.store import arrivals
from trimta.store.arrivals import MaildirWatch, maildirs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from email.message import Message

    from trimta.routing.policy import Policy
    from trimta.store.arrivals import Arrival, ArrivalMark


class _Content(ContentManager):
    """Content as Python's own manager has it, and a text also where it contradicts its charset or encoding."""

    def get_content(self, msg: Message, *args: Any, **options: Any) -> Any:
        try:
            return raw_data_manager.get_content(msg, *args, **options)
        except (LookupError, ValueError):
            if msg.get_content_maintype() != "text":
                raise
            return text(msg)

    def set_content(self, msg: Message, obj: Any, *args: Any, **options: Any) -> None:
        raw_data_manager.set_content(msg, obj, *args, **options)


class _Tolerant(EmailPolicy):
    """Header fields in UTF-8 are what they say (RFC 6532), where Python's own policies show question marks; what its
    parser can't read is the text that is there.
    """

    def header_fetch_parse(self, name: str, value: str) -> Any:
        with contextlib.suppress(UnicodeError):  # characters already, or octets that are no UTF-8
            value = value.encode("ascii", "surrogateescape").decode()
        try:
            return super().header_fetch_parse(name, value)
        except Exception:  # noqa: BLE001 - of odd input it raises IndexError, OverflowError, RecursionError and others
            return "".join(value.splitlines()).encode(errors="surrogateescape").decode(errors="replace")


POLICY: Final = _Tolerant(utf8=True, content_manager=_Content())

_MARKS: Final[WeakKeyDictionary[EmailMessage, ArrivalMark]] = WeakKeyDictionary()
"""Of the messages that tests have been given."""


def mark_of(message: EmailMessage) -> ArrivalMark:
    """When a message came that a server gave to a test.  ValueError for one of another origin."""
    mark = _MARKS.get(message)
    if mark is None:
        raise ValueError("after: expected a message that wait_for, mailbox or captured returned, not a copy of it")
    return mark


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a message is looked for by, as `trimta wait` does; None matches everything."""

    to: str | None = None
    from_: str | None = None
    subject: str | None = None
    count: int = 1
    after: EmailMessage | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: found {self.count}, expected 1 or more")
        if self.after is not None:
            mark_of(self.after)

    def criteria(self) -> SearchCriteria:
        """ValueError where an address is none."""
        sender = self.from_ if self.from_ in (None, NULL_PATH) else AddressPattern.parse(self.from_)
        return SearchCriteria(
            to=None if self.to is None else AddressPattern.parse(self.to), sender=sender, subject=self.subject
        )

    def __str__(self) -> str:
        said = {"to": self.to, "from": self.from_, "subject": self.subject}
        words = [f" {name} {value!r}" for name, value in said.items() if value is not None]
        if self.after is not None:
            words.append(f" after {str(self.after['Subject'] or '')!r}")
        return ",".join(words)


def read(arrival: Arrival) -> EmailMessage:
    """One message, wherever it has been moved meanwhile.  FileNotFoundError if it is gone."""
    _, content = arrivals.read(arrival)
    try:
        message = message_from_bytes(content, policy=POLICY)
    except RecursionError:  # more parts in each other than Python can follow
        message = BytesHeaderParser(policy=POLICY).parsebytes(content)
    assert isinstance(message, EmailMessage)
    _MARKS[message] = arrival.mark
    return message


def read_all(templates: Iterable[str]) -> list[EmailMessage]:
    """All messages of the Maildirs that some templates name, oldest first."""
    messages = []
    for arrival in MaildirWatch(templates).look():
        with contextlib.suppress(FileNotFoundError):  # somebody has just removed it
            messages.append(read(arrival))
    return messages


def in_words(message: EmailMessage) -> str:
    """One line that tells a message from others."""
    to = ", ".join(map(str, message.get_all("Delivered-To", [])))
    return f"to {to} from {message['Return-Path']}, subject {str(message['Subject'] or '')!r}"


class Mailboxes:
    """Where the mail of one server lies."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def folder(self, name: str) -> Path:
        """The Maildir of a local user, or the one that captures an address.  ValueError where there is none."""
        return self._find(name)[0]

    def of(self, name: str) -> list[EmailMessage]:
        """A mailbox: of a local user, or of an address, local or captured."""
        folder, address = self._find(name)
        messages = read_all([str(folder)])
        if address is None:
            return messages
        return [one for one in messages if any(to.lower() == address.lower() for to in _delivered_to(one))]

    def everything(self) -> list[EmailMessage]:
        """All of it, oldest first."""
        return read_all(self.templates)

    def captured(self, domain: str | None = None) -> list[EmailMessage]:
        """What `maildir:` routes took, for one domain or for all."""
        messages = read_all(self._policy.maildirs.captures)
        if domain is None:
            return messages
        end = f"@{domain.lower()}"
        return [one for one in messages if any(to.lower().endswith(end) for to in _delivered_to(one))]

    def folders(self) -> Iterator[Path]:
        """Every Maildir that there is."""
        return (path for template in self.templates for path in maildirs_of(template) if path.is_dir())

    @property
    def templates(self) -> tuple[str, ...]:
        return self._policy.maildirs.templates

    def _find(self, name: str) -> tuple[Path, str | None]:
        """The Maildir, and the address in Delivered-To where it may hold others' mail as well."""
        policy = self._policy
        try:
            mailbox = parse_mailbox(name) if "@" in name else Mailbox(name, policy.local.first)
        except AddressError as error:
            raise ValueError(f"{name!r}: {error}") from None
        targets = policy.aliases.expand(mailbox)
        if targets != (mailbox,):
            raise ValueError(f"{name} is an alias: look for {', '.join(map(str, targets))}")
        match policy.destination(mailbox):
            case LocalDestination(mailbox=found, maildir=folder):
                return folder, str(found.address) if "@" in name else None
            case MatchedRoute(route=MaildirRoute() as route):
                return Path(route.path(mailbox.domain_key)), str(mailbox)
            case UnknownUser():
                raise ValueError(f"{name}: there is no such user ([local] users)")
            case MatchedRoute(key=key, route=route):
                raise ValueError(f"{name} has no mailbox here: its mail goes to {route} ([routes] {key!r})")


def _delivered_to(message: EmailMessage) -> list[str]:
    return [str(to) for to in message.get_all("Delivered-To", [])]
