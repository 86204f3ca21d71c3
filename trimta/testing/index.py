"""An index of the messages in a server's Maildirs, so that each header is read once, however often it is searched."""

from __future__ import annotations

import contextlib
import threading
from bisect import insort
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from trimta.content.header import fields
from trimta.content.search_criteria import SEARCHED_FIELDS
from trimta.store.arrivals import MaildirWatch, read_header
from trimta.testing.mail import mark_of, read

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import EmailMessage

    from trimta.content.search_criteria import SearchCriteria
    from trimta.store.arrivals import Arrival, ArrivalMark

BEGINNING: Final[ArrivalMark] = (0, "")
"""The mark before all messages."""


@dataclass(frozen=True, slots=True, order=True)
class _Known:
    arrival: Arrival
    header: bytes = field(compare=False)
    """The fields of the header that a search can ask for."""


class Index:
    """The index of one server's messages: a few hundred octets each.  May be used from any thread."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._watch = MaildirWatch(templates)
        self._known: list[_Known] = []
        """The messages seen so far, oldest first."""
        self._lock = threading.Lock()

    def find(self, criteria: SearchCriteria, count: int, after: EmailMessage | None) -> list[EmailMessage]:
        """The oldest messages that match, `count` at most; with `after`, of those that came after that message."""
        with self._lock:
            self._look()
            begin = BEGINNING if after is None else self._mark(after)
            messages: list[EmailMessage] = []
            gone: list[_Known] = []
            for known in self._known:
                if len(messages) == count:
                    break
                if (known.arrival.at, known.arrival.name) > begin and criteria.matches(known.header):
                    try:
                        messages.append(read(known.arrival))
                    except FileNotFoundError:
                        gone.append(known)
            for known in gone:
                self._known.remove(known)
            return messages

    def _look(self) -> None:
        for arrival in self._watch.look():
            with contextlib.suppress(FileNotFoundError, PermissionError):  # removed meanwhile, or another account's
                path, header = read_header(arrival)
                insort(self._known, _Known(replace(arrival, path=path), _searched_fields(header)))

    def _mark(self, message: EmailMessage) -> ArrivalMark:
        """The mark of a message, by the time at which it was first seen: it may have been moved and touched since."""
        at, name = mark_of(message)
        seen = (known.arrival.at for known in self._known if known.arrival.name == name)
        return min(seen, default=at), name


def _searched_fields(header: bytes) -> bytes:
    return b"".join(each.raw for each in fields(header) if each.name in SEARCHED_FIELDS)
