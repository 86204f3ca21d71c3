"""What has come into a server's Maildirs: each message is read once, however often it is asked for."""

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
"""Everything came after it."""


@dataclass(frozen=True, slots=True, order=True)
class _Known:
    arrival: Arrival
    header: bytes = field(compare=False)
    """Of its header what it can be looked for by."""


class Index:
    """May be asked from any thread.  It holds a few hundred octets for each message."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._watch = MaildirWatch(templates)
        self._known: list[_Known] = []
        """Oldest first."""
        self._lock = threading.Lock()

    def find(self, criteria: SearchCriteria, count: int, after: EmailMessage | None) -> list[EmailMessage]:
        """The `count` oldest messages that are meant, of those that came after another; fewer, if there are no more."""
        with self._lock:
            self._look()
            begin = BEGINNING if after is None else self._mark(after)
            found: list[EmailMessage] = []
            gone: list[_Known] = []
            for known in self._known:
                if len(found) == count:
                    break
                if (known.arrival.at, known.arrival.name) > begin and criteria.matches(known.header):
                    try:
                        found.append(read(known.arrival))
                    except FileNotFoundError:
                        gone.append(known)
            for known in gone:
                self._known.remove(known)
            return found

    def _look(self) -> None:
        for arrival in self._watch.look():
            with contextlib.suppress(FileNotFoundError, PermissionError):  # gone, or somebody else's
                path, header = read_header(arrival)
                insort(self._known, _Known(replace(arrival, path=path), _told_apart_by(header)))

    def _mark(self, message: EmailMessage) -> ArrivalMark:
        """When a message came, as it was first seen: somebody may have moved it before the test read it."""
        at, name = mark_of(message)
        seen = (known.arrival.at for known in self._known if known.arrival.name == name)
        return min(seen, default=at), name


def _told_apart_by(header: bytes) -> bytes:
    return b"".join(each.raw for each in fields(header) if each.name in SEARCHED_FIELDS)
