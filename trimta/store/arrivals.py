"""New messages in Maildirs, seen from the files alone: folders are listed again where they have changed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.content.header import HeaderReader
from trimta.real_time import wall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RACY: Final = 2.0
"""Seconds for which a folder's time of change says nothing: another file may come at what the clock calls the same."""

TICK: Final = 10_000_000
"""Nanoseconds by which the clock that files get their times from may be late."""

FOLDERS: Final = ("new", "cur")
"""In the order in which they are listed: readers move files from the first to the second."""

ROUNDS: Final = 50
"""How often a Maildir is listed in one look, if it changes all the while."""

CALM: Final = 5
"""Listings on end that show nothing new, after which a Maildir that changes all the while has shown everything."""

TRIES: Final = 50
"""How often a message that is moved all the while is looked for."""

BLOCK: Final = 64 * 1024
"""Octets of a message that are read at once, in search of the end of its header."""

_PLACEHOLDER: Final = re.compile(r"\{(?:user|domain|detail)\}")
_OURS: Final = re.compile(r"(\d{1,12})\.(?:M(\d{6})P)?")


ArrivalMark: TypeAlias = tuple[int, str]
"""A place in the order in which messages came: `Arrival.at`, then `Arrival.name` where the times are the same."""


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A message's file.  Arrivals compare by the order in which the messages came."""

    at: int
    """When the message came, in nanoseconds since the epoch."""
    name: str
    """The file's name without its flags and size: it stays the same when a reader moves the file to cur/."""
    path: Path

    @property
    def mark(self) -> ArrivalMark:
        """The message's place in the order of arrival."""
        return self.at, self.name


class MaildirWatch:
    """Watches all Maildirs that templates such as `mail/{domain}/{user}` may name."""

    def __init__(self, templates: Iterable[str]) -> None:
        self.unreadable: set[Path] = set()
        """Folders that this process may not look into."""
        self._templates = tuple(dict.fromkeys(templates))
        self._unchanged: dict[Path, int] = {}
        """Folders whose content is known, by their time of change."""
        self._seen: set[tuple[Path, str]] = set()

    def look(self) -> list[Arrival]:
        """Messages that have come since the last look, oldest first; at the first look all that are there."""
        maildirs = dict.fromkeys(path for template in self._templates for path in maildirs_of(template))
        return sorted(arrival for path in maildirs for arrival in self._look_into(path))

    def _look_into(self, maildir: Path) -> list[Arrival]:
        """New messages of one Maildir.  Its folders are listed again while another process moves files there: a
        listing may show such a file in none of them.
        """
        found: list[Arrival] = []
        calm = 0
        for _ in range(ROUNDS):
            before = _FolderTimes.of(maildir)
            new = [arrival for name in FOLDERS for arrival in self._list(maildir / name, maildir)]
            found += new
            calm = 0 if new else calm + 1
            if calm == CALM or (calm and before.lasted(maildir)):
                break
        return found

    def _list(self, folder: Path, maildir: Path) -> list[Arrival]:
        found: list[Arrival] = []
        try:
            changed = folder.stat().st_mtime_ns
            if self._unchanged.get(folder) == changed:
                return found
            settled = abs(wall() - changed / 1e9) > RACY
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = unique_name(entry.name)
                    if entry.name.startswith(".") or (maildir, name) in self._seen:
                        continue
                    with contextlib.suppress(FileNotFoundError):  # somebody has just moved it
                        if entry.is_file():
                            found.append(Arrival(arrived(Path(entry.path)), name, Path(entry.path)))
                            self._seen.add((maildir, name))
        except (FileNotFoundError, NotADirectoryError):
            return found
        except PermissionError:
            self.unreadable.add(folder)
            return found
        if settled:
            self._unchanged[folder] = changed
        return found


@dataclass(frozen=True, slots=True)
class _FolderTimes:
    """Times at which the folders of a Maildir last changed, read at one moment; in nanoseconds since the epoch."""

    times: tuple[int, ...]
    at: int

    @classmethod
    def of(cls, maildir: Path) -> _FolderTimes:
        at = int(wall() * 1e9)
        return cls(tuple(_time_of_change(maildir / name) for name in FOLDERS), at)

    def lasted(self, maildir: Path) -> bool:
        """Whether the folders have not changed since.  Of a folder that had just changed this can't be known: its next
        change may have the same time.
        """
        return all(abs(self.at - time) > TICK for time in self.times) and self.times == self.of(maildir).times


def _time_of_change(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:  # there is none, or it can't be asked
        return -1


def read(arrival: Arrival) -> tuple[Path, bytes]:
    """The path of a message and its octets: another process may have moved the file since, and may do so again.

    Raises FileNotFoundError if the message is gone.
    """
    for path in _places(arrival):
        with contextlib.suppress(FileNotFoundError):
            return path, path.read_bytes()
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(arrival.path))


def read_header(arrival: Arrival) -> tuple[Path, bytes]:
    """The path of a message and its header, however long, with the octets that its last block holds beside.

    Raises FileNotFoundError if the message is gone.
    """
    for path in _places(arrival):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            header = bytearray()
            reader = HeaderReader()
            while not reader.ended and (block := file.read(BLOCK)):
                reader.feed(block)
                header += block
            return path, bytes(header)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(arrival.path))


def _places(arrival: Arrival) -> Iterator[Path]:
    """Paths that a message may be at, to be tried in this order."""
    yield arrival.path
    maildir = arrival.path.parent.parent
    missed = 0
    for _ in range(TRIES):
        before = _FolderTimes.of(maildir)
        found = [path for folder in FOLDERS for path in _named(maildir / folder, arrival.name)]
        yield from found
        missed = 0 if found else missed + 1
        if missed == CALM or (missed and before.lasted(maildir)):
            return


def _named(folder: Path, name: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if unique_name(entry.name) == name]
    except OSError:
        return []


def arrived(path: Path) -> int:
    """The moment at which a message came into its Maildir, in nanoseconds since the epoch.

    The rename into new/ leaves its time in the file.  A reader that moves the file to cur/ leaves another one: there it
    is the time in the name, else that of the last octet, so that it never comes later than it did.
    """
    status = path.stat()
    found = _OURS.match(path.name)
    named = status.st_mtime_ns if found is None else int(found[1]) * 10**9 + int(found[2] or 0) * 1000
    if path.parent.name == "new":
        return max(status.st_ctime_ns, min(named, status.st_ctime_ns + TICK))
    return min(named, status.st_ctime_ns)


def unique_name(name: str) -> str:
    """A message's file name without its size and flags, `,S=…` and `:2,…`, which describe it or may change."""
    return name.partition(":")[0].partition(",")[0]


def maildirs_of(template: str) -> Iterator[Path]:
    """Existing Maildirs of those that a template may name."""
    top, *parts = Path(template).parts
    return _below(Path(top), parts)


def _below(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    part, *rest = parts
    if _PLACEHOLDER.search(part) is None:
        yield from _below(folder / part, rest)
        return
    if part in ("{detail}", ".{detail}"):  # an address without a detail: the folder itself
        yield from _below(folder, rest)
    pattern = re.compile(".*".join(re.escape(text) for text in _PLACEHOLDER.split(part)))
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:  # it is not there yet, or not ours
        return
    for name in names:
        if pattern.fullmatch(name):
            yield from _below(folder / name, rest)
