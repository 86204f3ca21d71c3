"""Files of damaged entries in `data_dir/damaged`, for people to look at: `<id>.json` and `<id>.content`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from trimta.first_use.pattern import pattern
from trimta.store import durable
from trimta.store.spool import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNFIT: Final = pattern(r"[^A-Za-z0-9_.-]|^\.")


def write(
    directory: Path, entry_id: str, reason: str, rows: dict[str, list[dict[str, Any]]], content: bytes | Path | None
) -> Path:
    """Write the rows of an entry as JSON and, beside it, its content, both durable; returns the path of the JSON file.

    The id may be damaged, too; the file's name has only its harmless characters.  `content`: octets, or the path of a
    spool file, which gets a second link.  An older file of that name is replaced: it was written in a transaction that
    failed.  Raises OSError.
    """
    durable.make_dirs(directory)
    name = _UNFIT.sub("_", entry_id)[:100] or "_"
    path = directory / f"{name}.json"
    beside = directory / f"{name}.content"
    path.unlink(missing_ok=True)
    beside.unlink(missing_ok=True)
    if isinstance(content, bytes):
        durable.write_file(beside, [content])
    elif content is not None and content.is_file():
        try:
            os.link(content, beside)
        except OSError:  # a file system without links
            durable.write_file(beside, _chunks(content))
    text = json.dumps({"id": entry_id, "reason": reason, **rows}, indent=2, default=_octets)
    durable.write_file(path, [text.encode(), b"\n"])
    durable.fsync_dir(directory)
    return path


def _octets(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk
