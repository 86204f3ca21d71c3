"""The form of a message's body inside trimta, text or raw octets, as a value; the octets are in `store.spool`."""

from __future__ import annotations

import enum
from typing import Self

from trimta.mail.envelope import BodyKind


class BodyForm(enum.Enum):
    """The form of a kept body: how its octets relate to the octets on the wire.  "Body" is what follows the trace
    fields of this server: the header that the client sent, and what comes after the header.
    """

    TEXT = "text"
    """Lines end in LF, and there is no CR: each LF goes out as CRLF (RFC 5321 2.3.8)."""
    RAW = "raw"
    """The octets as they came with BODY=BINARYMIME: lines end in CRLF, a bare CR or LF is data (RFC 3030 3)."""

    @classmethod
    def of(cls, kind: BodyKind) -> Self:
        """The form of a body whose BODY parameter was `kind`."""
        return cls.RAW if kind is BodyKind.BINARY else cls.TEXT

    @property
    def line_end(self) -> bytes:
        """The octets that end a line of a kept body."""
        return b"\r\n" if self is BodyForm.RAW else b"\n"

    def wire_size(self, size: int, lines: int) -> int:
        """Octets on the wire, before dot-stuffing, of a body of `size` octets with `lines` LFs among them."""
        return size if self is BodyForm.RAW else size + lines
