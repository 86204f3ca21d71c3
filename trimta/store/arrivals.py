"""Arrivals: new messages in Maildirs, found by listing again the folders that have changed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.content.header import HeaderReader
from trimta.first_use.pattern import pattern
from trimta.real_time import wall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RACY: Final = 2.0
"""Seconds after a folder's change for which its modification time proves nothing: a later change may have the same."""

TICK: Final = 10_000_000
"""Nanoseconds by which the clock of the file system may be behind."""

FOLDERS: Final = ("new", "cur")
"""The folders of a Maildir in the order of their listing: readers move files from the first to the second."""

ROUNDS: Final = 50
"""Listings of a Maildir in one look, at most, if it keeps changing."""

CALM: Final = 5
"""Consecutive listings without a new message that end the look at a Maildir that keeps changing."""

TRIES: Final = 50
"""Searches for a message that is being moved, at most."""

BLOCK: Final = 64 * 1024
"""Octets of a message that are read at once to find the end of its header."""

_PLACEHOLDER: Final = pattern(r"\{(?:user|domain|detail)\}")
_OURS: Final = pattern(r"(\d{1,12})\.(?:M(\d{6})P)?")


ArrivalMark: TypeAlias = tuple[int, str]
"""A place in the order of arrival: `Arrival.at`, then `Arrival.name` for equal times."""


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """The file of a message.  Arrivals compare by the order in which the messages came."""

    at: int
    """The moment of the message's arrival, in nanoseconds since the epoch."""
    name: str
    """The file's name without flags and size, which does not change when a reader moves the file to cur/."""
    path: Path

    @property
    def mark(self) -> ArrivalMark:
        """The message's place in the order of arrival."""
        return self.at, self.name


class MaildirWatch:
    """Watches all Maildirs that templates such as `mail/{domain}/{user}` may name."""

    def __init__(self, templates: Iterable[str]) -> None:
        self.unreadable: set[Path] = set()
        """Folders that this process has no permission to list."""
        self._templates = tuple(dict.fromkeys(templates))
        self._unchanged: dict[Path, int] = {}
        """Folders whose content is known, each with its modification time."""
        self._seen: set[tuple[Path, str]] = set()

    def look(self) -> list[Arrival]:
        """The messages that have come since the last look, oldest first; at the first look, all messages."""
        maildirs = dict.fromkeys(path for template in self._templates for path in maildirs_of(template))
        return sorted(arrival for path in maildirs for arrival in self._look_into(path))

    def _look_into(self, maildir: Path) -> list[Arrival]:
        """The new messages of one Maildir.

        Its folders are listed again while another process moves files: one listing may show such a file in no folder.
        """
        arrivals: list[Arrival] = []
        calm = 0
        for _ in range(ROUNDS):
            before = _FolderTimes.of(maildir)
            new = [arrival for name in FOLDERS for arrival in self._list(maildir / name, maildir)]
            arrivals += new
            calm = 0 if new else calm + 1
            if calm == CALM or (calm and before.lasted(maildir)):
                break
        return arrivals

    def _list(self, folder: Path, maildir: Path) -> list[Arrival]:
        arrivals: list[Arrival] = []
        try:
            changed = folder.stat().st_mtime_ns
            if self._unchanged.get(folder) == changed:
                return arrivals
            settled = abs(wall() - changed / 1e9) > RACY
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = unique_name(entry.name)
                    if entry.name.startswith(".") or (maildir, name) in self._seen:
                        continue
                    try:
                        if entry.is_file():
                            arrivals.append(Arrival(arrived(Path(entry.path)), name, Path(entry.path)))
                            self._seen.add((maildir, name))
                    except FileNotFoundError:  # moved or removed meanwhile
                        pass
                    except PermissionError:
                        self.unreadable.add(folder)
                        return arrivals
                    except OSError as error:  # links that go round hide no other message; trouble may pass
                        settled = settled and error.errno == errno.ELOOP
        except PermissionError:
            self.unreadable.add(folder)
            return arrivals
        except OSError:  # the folder is not there, or no folder
            return arrivals
        if settled:
            self._unchanged[folder] = changed
        return arrivals


@dataclass(frozen=True, slots=True)
class _FolderTimes:
    """The modification times of a Maildir's folders, and the moment `at` of reading them, in nanoseconds."""

    times: tuple[int, ...]
    at: int

    @classmethod
    def of(cls, maildir: Path) -> _FolderTimes:
        at = int(wall() * 1e9)
        return cls(tuple(_time_of_change(maildir / name) for name in FOLDERS), at)

    def lasted(self, maildir: Path) -> bool:
        """Whether the folders are certain not to have changed since.

        A folder that had just changed is never certain: its next change may have the same time.
        """
        return all(abs(self.at - time) > TICK for time in self.times) and self.times == self.of(maildir).times


def _time_of_change(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:  # the folder is missing, or can't be read
        return -1


def read(arrival: Arrival) -> tuple[Path, bytes]:
    """The present path of a message, which may have been moved meanwhile, and its octets.

    Raises FileNotFoundError if the message is gone.
    """
    for path in _places(arrival):
        with contextlib.suppress(FileNotFoundError):
            return path, path.read_bytes()
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(arrival.path))


def read_header(arrival: Arrival) -> tuple[Path, bytes]:
    """The present path of a message and its header, with some octets of the body behind it.

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
    """The paths at which a message may be, to be tried in this order."""
    yield arrival.path
    maildir = arrival.path.parent.parent
    missed = 0
    for _ in range(TRIES):
        before = _FolderTimes.of(maildir)
        paths = [path for folder in FOLDERS for path in _named(maildir / folder, arrival.name)]
        yield from paths
        missed = 0 if paths else missed + 1
        if missed == CALM or (missed and before.lasted(maildir)):
            return


def _named(folder: Path, name: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if unique_name(entry.name) == name]
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that go round
        return False


def arrived(path: Path) -> int:
    """The moment at which a message came into its Maildir, in nanoseconds since the epoch.

    In new/ it is the time of the rename into that folder (ctime).  A reader that moves the file to cur/ changes that
    time; there the time in the file's name counts, or the time of its last write (mtime), if it is earlier.
    """
    status = path.stat()
    match = _OURS.match(path.name)
    named = status.st_mtime_ns if match is None else int(match[1]) * 10**9 + int(match[2] or 0) * 1000
    if path.parent.name == "new":
        return max(status.st_ctime_ns, min(named, status.st_ctime_ns + TICK))
    return min(named, status.st_ctime_ns)


def unique_name(name: str) -> str:
    """The part of a message's file name that never changes: without size and flags, `,S=…` and `:2,…`."""
    return name.partition(":")[0].partition(",")[0]


def maildirs_of(template: str) -> Iterator[Path]:
    """The existing Maildirs among those that a template may name."""
    top, *components = Path(template).parts
    return _below(Path(top), components)


def _below(folder: Path, components: Sequence[str]) -> Iterator[Path]:
    if not components:
        yield folder
        return
    component, *rest = components
    if _PLACEHOLDER.search(component) is None:
        yield from _below(folder / component, rest)
        return
    if component in ("{detail}", ".{detail}"):  # an address without a detail: the folder itself
        yield from _below(folder, rest)
    pattern = re.compile(".*".join(re.escape(text) for text in _PLACEHOLDER.split(component)))
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_folder(entry)]
    except OSError:  # it is not there yet, or not ours
        return
    for name in names:
        if pattern.fullmatch(name):
            yield from _below(folder / name, rest)
