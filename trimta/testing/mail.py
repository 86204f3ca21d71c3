"""The messages in a server's Maildirs, as `email.message.EmailMessage`, and the mailboxes that hold them."""

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
    """A content manager that returns a text also if its charset or encoding is wrong, where Python's own raises."""

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
    """A policy that reads fields in UTF-8 (RFC 6532), where Python's own policies show question marks.

    A field that Python's parser can't read is its text.
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
"""The marks of the messages that were returned to tests."""


def mark_of(message: EmailMessage) -> ArrivalMark:
    """The mark of a message that was returned to a test.  Raises ValueError for any other message."""
    mark = _MARKS.get(message)
    if mark is None:
        raise ValueError("after: expected a message that wait_for, mailbox or captured returned, not a copy of it")
    return mark


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """The criteria of `wait_for`; a criterion that is None matches every message.

    Raises ValueError for a `count` below 1, and for an `after` that the server has not returned.
    """

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
        """The criteria for the search in headers.  Raises ValueError for a text that is no address."""
        sender = self.from_ if self.from_ in (None, NULL_PATH) else AddressPattern.parse(self.from_)
        return SearchCriteria(
            to=None if self.to is None else AddressPattern.parse(self.to), sender=sender, subject=self.subject
        )

    def __str__(self) -> str:
        criteria = {"to": self.to, "from": self.from_, "subject": self.subject}
        words = [f" {name} {value!r}" for name, value in criteria.items() if value is not None]
        if self.after is not None:
            words.append(f" after {str(self.after['Subject'] or '')!r}")
        return ",".join(words)


def read(arrival: Arrival) -> EmailMessage:
    """The message of an arrival, also if moved within its Maildir.  Raises FileNotFoundError if it was removed."""
    _, content = arrivals.read(arrival)
    try:
        message = message_from_bytes(content, policy=POLICY)
    except RecursionError:  # body parts nested deeper than Python's parser can follow
        message = BytesHeaderParser(policy=POLICY).parsebytes(content)
    assert isinstance(message, EmailMessage)
    _MARKS[message] = arrival.mark
    return message


def read_all(templates: Iterable[str]) -> list[EmailMessage]:
    """All messages of the Maildirs that the templates name, oldest first."""
    messages = []
    for arrival in MaildirWatch(templates).look():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            messages.append(read(arrival))
    return messages


def in_words(message: EmailMessage) -> str:
    """A line that describes a message: its recipients, return path and subject."""
    to = ", ".join(map(str, message.get_all("Delivered-To", [])))
    return f"to {to} from {message['Return-Path']}, subject {str(message['Subject'] or '')!r}"


class Mailboxes:
    """The mailboxes of one server: local ones, and those of captured mail."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def folder(self, name: str) -> Path:
        """The Maildir of a local user or address, or of an address whose mail is captured.  Raises ValueError."""
        return self._find(name)[0]

    def of(self, name: str) -> list[EmailMessage]:
        """The messages of a local user, or of an address, local or captured, oldest first.  Raises ValueError."""
        folder, address = self._find(name)
        messages = read_all([str(folder)])
        if address is None:
            return messages
        return [message for message in messages if address.lower() in map(str.lower, _delivered_to(message))]

    def everything(self) -> list[EmailMessage]:
        """All messages, oldest first."""
        return read_all(self.templates)

    def captured(self, domain: str | None = None) -> list[EmailMessage]:
        """The messages that `maildir:` routes captured, for one domain or for all, oldest first."""
        messages = read_all(self._policy.maildirs.captures)
        if domain is None:
            return messages
        end = f"@{domain.lower()}"
        return [message for message in messages if any(to.lower().endswith(end) for to in _delivered_to(message))]

    def folders(self) -> Iterator[Path]:
        """All Maildirs that exist."""
        return (path for template in self.templates for path in maildirs_of(template) if path.is_dir())

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates of the Maildirs' paths, with {user} and {domain}."""
        return self._policy.maildirs.templates

    def _find(self, name: str) -> tuple[Path, str | None]:
        """The Maildir of a mailbox, and the address in Delivered-To by which its messages are told from others there.

        The address is None if all messages of the Maildir belong to the mailbox.
        """
        policy = self._policy
        try:
            mailbox = parse_mailbox(name) if "@" in name else Mailbox(name, policy.local.first)
        except AddressError as error:
            raise ValueError(f"{name!r}: {error}") from None
        targets = policy.aliases.expand(mailbox)
        if targets != (mailbox,):
            raise ValueError(f"{name} is an alias: look for {', '.join(map(str, targets))}")
        match policy.destination(mailbox):
            case LocalDestination(mailbox=user, maildir=folder):
                return folder, str(user.address) if "@" in name else None
            case MatchedRoute(route=MaildirRoute() as route):
                return Path(route.path(mailbox.domain_key)), str(mailbox)
            case UnknownUser():
                raise ValueError(f"{name}: there is no such user ([local] users)")
            case MatchedRoute(key=key, route=route):
                raise ValueError(f"{name} has no mailbox here: its mail goes to {route} ([routes] {key!r})")


def _delivered_to(message: EmailMessage) -> list[str]:
    return [str(to) for to in message.get_all("Delivered-To", [])]
