"""The messages in a server's Maildirs, as Python's `email` sees them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import EmailPolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trimta.mail.address import AddressError, Mailbox, parse_mailbox
from trimta.mail.matching import NULL_PATH, Address, Criteria
from trimta.mail.routing import MaildirRoute
from trimta.policy import Local, Routed, UnknownUser
from trimta.store.arrivals import Watch, maildirs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trimta.policy import Policy


class _Utf8Policy(EmailPolicy):
    """Header fields in UTF-8 are what they say (RFC 6532), where Python's own policies show question marks."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        with contextlib.suppress(UnicodeError):  # characters already, or octets that are no UTF-8
            value = value.encode("ascii", "surrogateescape").decode()
        return super().header_fetch_parse(name, value)


POLICY: Final = _Utf8Policy(utf8=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a message is looked for by, as `trimta wait` does; None matches everything."""

    to: str | None = None
    from_: str | None = None
    subject: str | None = None

    def criteria(self) -> Criteria:
        """ValueError where an address is none."""
        sender = self.from_ if self.from_ in (None, NULL_PATH) else Address.parse(self.from_)
        return Criteria(to=None if self.to is None else Address.parse(self.to), sender=sender, subject=self.subject)

    def __str__(self) -> str:
        said = {"to": self.to, "from": self.from_, "subject": self.subject}
        return ",".join(f" {name} {value!r}" for name, value in said.items() if value is not None)


def read(path: Path) -> EmailMessage:
    """One message."""
    message = message_from_bytes(path.read_bytes(), policy=POLICY)
    assert isinstance(message, EmailMessage)
    return message


def read_all(templates: Iterable[str]) -> list[EmailMessage]:
    """All messages of the Maildirs that some templates name, oldest first."""
    return [read(arrival.path) for arrival in Watch(templates).look()]


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
        return read_all(self._templates)

    def find(self, criteria: Criteria) -> EmailMessage | None:
        """The oldest message that is meant."""
        for arrival in Watch(self._templates).look():
            if criteria.matches(arrival.path.read_bytes()):
                return read(arrival.path)
        return None

    def captured(self, domain: str | None = None) -> list[EmailMessage]:
        """What `maildir:` routes took, for one domain or for all."""
        messages = read_all(self._captures)
        if domain is None:
            return messages
        end = f"@{domain.lower()}"
        return [one for one in messages if any(to.lower().endswith(end) for to in _delivered_to(one))]

    def folders(self) -> Iterator[Path]:
        """Every Maildir that there is."""
        return (path for template in self._templates for path in maildirs_of(template) if path.is_dir())

    @property
    def _captures(self) -> list[str]:
        return [route.template for route in self._policy.config.routes.values() if isinstance(route, MaildirRoute)]

    @property
    def _templates(self) -> list[str]:
        return [self._policy.config.local.maildir, *self._captures]

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
            case Local(mailbox=found, maildir=folder):
                return folder, str(found.address) if "@" in name else None
            case Routed(route=MaildirRoute() as route):
                return Path(route.path(mailbox.domain_key)), str(mailbox)
            case UnknownUser():
                raise ValueError(f"{name}: there is no such user ([local] users)")
            case Routed(key=key, route=route):
                raise ValueError(f"{name} has no mailbox here: its mail goes to {route} ([routes] {key!r})")


def _delivered_to(message: EmailMessage) -> list[str]:
    return [str(to) for to in message.get_all("Delivered-To", [])]
