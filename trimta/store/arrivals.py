"""What comes into Maildirs, seen from the files alone: folders are looked at again and again, where they changed."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RACY: Final = 2.0
"""Seconds for which a folder's time of change says nothing: another file may come at what the clock calls the same."""

TICK: Final = 10_000_000
"""Nanoseconds by which the clock that files get their times from may be late."""

_PLACEHOLDER: Final = re.compile(r"\{(?:user|domain|detail)\}")
_OURS: Final = re.compile(r"(\d{1,12})\.(?:M(\d{6})P)?")


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A message's file.  They are in the order in which the messages came."""

    at: int
    """When it came, in nanoseconds since the epoch."""
    name: str
    """The file's name without its flags and size: it stays the same when a reader moves the file to cur/."""
    path: Path


class Watch:
    """Watches all Maildirs that templates such as `mail/{domain}/{user}` may name."""

    def __init__(self, templates: Iterable[str]) -> None:
        self.unreadable: set[Path] = set()
        """Folders that this process may not look into."""
        self._templates = tuple(dict.fromkeys(templates))
        self._unchanged: dict[Path, int] = {}
        """Folders whose content is known, by their time of change."""
        self._seen: set[tuple[Path, str]] = set()

    def look(self) -> list[Arrival]:
        """What has come since the last look, and at the first all there is, oldest first."""
        found: list[Arrival] = []
        maildirs = dict.fromkeys(path for template in self._templates for path in maildirs_of(template))
        for path in maildirs:
            for folder in (path / "new", path / "cur"):
                try:
                    found.extend(self._look_into(folder, path))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except PermissionError:
                    self.unreadable.add(folder)
        return sorted(found)

    def _look_into(self, folder: Path, maildir: Path) -> Iterator[Arrival]:
        changed = folder.stat().st_mtime_ns
        if self._unchanged.get(folder) == changed:
            return
        settled = abs(time.time() - changed / 1e9) > RACY
        with os.scandir(folder) as entries:
            for entry in entries:
                name = unique_name(entry.name)
                if entry.name.startswith(".") or (maildir, name) in self._seen:
                    continue
                try:
                    if not entry.is_file():
                        continue
                    at = arrived(Path(entry.path))
                except FileNotFoundError:  # a reader has just moved it
                    continue
                self._seen.add((maildir, name))
                yield Arrival(at, name, Path(entry.path))
        if settled:
            self._unchanged[folder] = changed


def arrived(path: Path) -> int:
    """When a message came into its Maildir, in nanoseconds since the epoch.

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
    """A message's name without what may change or only describes it: `,S=…` and `:2,…`."""
    return name.partition(":")[0].partition(",")[0]


def maildirs_of(template: str) -> Iterator[Path]:
    """The Maildirs there are of those that a template may name."""
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
