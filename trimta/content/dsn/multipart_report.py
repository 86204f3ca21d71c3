"""The frame of a DSN: a multipart/report of type delivery-status (RFC 6522 3)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PREAMBLE: Final = "This is a delivery report in MIME format (RFC 3464)."
"""The text before the first part, which only a reader without MIME shows."""


def multipart_report(fields: Sequence[str], parts: Sequence[bytes], *, seed: str) -> bytes:
    """The octets of a multipart/report: `fields`, each without its last line end, then those of MIME, then `parts`.

    The boundary is made of `seed`, so that the same arguments give the same octets.  Lines end in LF.
    """
    boundary = _boundary(seed, parts)
    mime = [
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\n boundary="{boundary}"',
    ]
    if not all(part.isascii() for part in parts):
        mime.append("Content-Transfer-Encoding: 8bit")
    delimiter = f"--{boundary}".encode()
    return b"".join(
        [
            "\n".join([*fields, *mime, "", PREAMBLE, "", ""]).encode(),
            *(delimiter + b"\n" + part + b"\n" for part in parts),
            delimiter + b"--\n",
        ]
    )


def report_part(media_type: str, description: str, body: bytes, *, encoding: str = "") -> bytes:
    """The octets of one part.  `media_type` may have parameters; `encoding` is the transfer encoding that `body` is in
    already, empty for none.
    """
    encoding = encoding or ("7bit" if body.isascii() else "8bit")
    header = (
        f"Content-Type: {media_type}\nContent-Description: {description}\nContent-Transfer-Encoding: {encoding}\n\n"
    )
    return header.encode() + body


def _boundary(seed: str, parts: Sequence[bytes]) -> str:
    """A boundary that occurs in no part."""
    import hashlib

    seeds = (f"{count} {seed}".encode("utf-8", "backslashreplace") for count in itertools.count())
    boundaries = (f"=_trimta_{hashlib.sha256(octets).hexdigest()[:24]}" for octets in seeds)
    return next(boundary for boundary in boundaries if not any(boundary.encode() in part for part in parts))
