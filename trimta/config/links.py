"""Symbolic links in the paths of Maildirs, resolved to detect two paths to the same folder."""

from __future__ import annotations

import os
import posixpath
from types import MappingProxyType
from typing import TYPE_CHECKING

from trimta.routing.maildir_paths import template_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def links_of(templates: Iterable[str]) -> Mapping[str, str]:
    """Every symbolic link that is on the way to a Maildir of a template now, with the folder that it leads to.

    Templates are absolute paths; so are the links and the folders, none of which goes over another link.  What can't be
    read has none.
    """
    links: dict[str, str] = {}
    for template in templates:
        _collect(links, "/", [step for step in template.split("/") if step not in ("", ".")])
    return MappingProxyType(links)


def _collect(links: dict[str, str], folder: str, steps: list[str]) -> None:
    if not steps:
        return
    step, *rest = steps
    if step == "..":
        _collect(links, posixpath.dirname(folder), rest)
        return
    for path in _named(folder, step, has_more=bool(rest)):
        real = os.path.realpath(path)
        if real != path:
            links[path] = real
        _collect(links, real, rest)


def _named(folder: str, step: str, *, has_more: bool) -> Iterator[str]:
    """The paths that a part of a template may name; where nothing follows it, those of links only."""
    if not template_fields(step):
        yield posixpath.join(folder, step)
        return
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.is_symlink() or (has_more and entry.is_dir(follow_symlinks=False))
            ]
    except OSError:  # it is not there yet, or not ours
        return
    for name in names:
        yield posixpath.join(folder, name)
