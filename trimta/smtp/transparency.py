"""Content on the wire and content as we hold it (RFC 5321 2.3.8, 4.5.2; RFC 3030).

We hold text with LF line ends; the wire has CRLF, and in DATA a dot is doubled at the start of a line.  Decoders and
encoders are fed octets in any pieces and give the same result for all of them, in time linear in their number, holding
back two octets at most.

Data ends at CRLF.CRLF and at nothing else: a server that takes "\\n.\\r\\n" or "\\n.\\n" for the end reads commands
where the server before it saw content (SMTP smuggling).  Only where DATA itself ended in a bare LF, which no server
before us would let through as a command, somebody types, and ends with a lone dot and a bare LF.
"""

from __future__ import annotations

import re
from typing import Final

_BARE_CR: Final = re.compile(rb"\r(?!\n)")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_STUFFED: Final = re.compile(rb"\n\.(?!\n)")


class TextDecoder:
    """Wire text without dot-stuffing, as in BDAT chunks, to content: each CRLF or bare LF becomes LF.

    A CRLF may be split over two chunks.  Attributes, valid at any time:
    `size`    octets of the message as a wire would carry it: unstuffed, every line end counted as CRLF
    `bare_cr` number of the line (from 1) with the first CR that no LF follows, else None; such a CR stays content
    `bare_lf` number of the line that the first LF without a CR before it ends, else None
    """

    def __init__(self) -> None:
        self.size = 0
        self.bare_cr: int | None = None
        self.bare_lf: int | None = None
        self._held = b""
        self._lines = 0

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire; return the content that is certain by now."""
        if self._held:
            data = self._held + data
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        else:
            self._held = b""
        return self._convert(data)

    def finish(self) -> bytes:
        """No more octets will come: return what was held back."""
        data, self._held = self._held, b""
        return self._convert(data)

    def _convert(self, block: bytes) -> bytes:
        """Line ends of a block that does not end between CR and LF."""
        newlines = block.count(b"\n")
        pairs = newlines and block.count(b"\r\n")
        if self.bare_cr is None and block.count(b"\r") != pairs:
            self.bare_cr = self._line_of(_BARE_CR, block)
        if self.bare_lf is None and newlines != pairs:
            self.bare_lf = self._line_of(_BARE_LF, block)
        self._lines += newlines
        content = block.replace(b"\r\n", b"\n") if pairs else block
        self.size += len(content) + newlines
        return content

    def _line_of(self, pattern: re.Pattern[bytes], block: bytes) -> int:
        found = pattern.search(block)
        assert found is not None
        return self._lines + block.count(b"\n", 0, found.start()) + 1


class DataDecoder(TextDecoder):
    """What follows the 354 to DATA, to content: line ends as in TextDecoder, dots unstuffed.

    A dot is removed at the start of any line, after a bare LF too, except where it is the whole line: such a line
    stands for itself, unless CRLF is on both sides, which ends the data.  `done` is True from then on, and `leftover`
    has the octets that came after the end.
    """

    def __init__(self, *, typed: bool = False) -> None:
        """`typed`: DATA ended in a bare LF, so a line of a single dot that ends in a bare LF ends the data as well."""
        super().__init__()
        self._typed = typed
        self.done = False
        self.leftover = b""
        self._at_start = True
        """The next octet begins a line."""
        self._after_crlf = True
        """... and the line before it ended in CRLF, or there is none."""

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire; return the content that is certain by now.  Not to be called once `done`."""
        if self._held:
            data = self._held + data
            self._held = b""
        dot, end = self._find_end(data)
        if dot >= 0:
            self.done = True
            self.leftover = data[end:]
            return self._unstuff(data[:dot])
        # What can't be judged yet is held back: a CR whose LF may follow, a dot whose line may be nothing else.
        keep = len(data)
        if data.endswith(b"\r"):
            keep -= 1
        if data.endswith(b"\n.", 0, keep) or (self._at_start and keep == 1 and data.startswith(b".")):
            keep -= 1
        self._held = data[keep:]
        return self._unstuff(data[:keep])

    def _find_end(self, data: bytes) -> tuple[int, int]:
        """Where the dot that ends the data is, and where its line ends; (-1, -1) if there is none."""
        if self._at_start and self._typed and data.startswith(b".\n"):
            return 0, 2
        if self._at_start and self._after_crlf and data.startswith(b".\r\n"):
            return 0, 3
        found = data.find(b"\r\n.\r\n")
        typed = data.find(b"\n.\n", 0, found if found >= 0 else len(data)) if self._typed else -1
        if typed >= 0:
            return typed + 1, typed + 3
        return (found + 2, found + 5) if found >= 0 else (-1, -1)

    def _unstuff(self, block: bytes) -> bytes:
        if not block:
            return block
        starts_line = self._at_start
        self._at_start = block.endswith(b"\n")
        self._after_crlf = block.endswith(b"\r\n")
        content = self._convert(block)
        before = len(content)
        # A lone dot that is still here does not end the data: it is kept.
        dot = starts_line and content.startswith(b".") and not content.startswith(b".\n")
        if b"\n." in content:
            content = content.replace(b"\n.", b"\n") if b"\n.\n" not in content else _STUFFED.sub(b"\n", content)
        if dot:
            content = content[1:]
        self.size -= before - len(content)
        return content


class DataEncoder:
    """Content with LF line ends to what follows DATA: CRLF, dots doubled, CRLF.CRLF at the end.

    Content is text: a CR in it can't be sent by DATA and raises ValueError, for what a server makes of it nobody knows.
    """

    def __init__(self) -> None:
        self._at_start = True

    def feed(self, content: bytes) -> bytes:
        """Take some content; return its octets on the wire."""
        if not content:
            return b""
        wire = lf_to_crlf(content.replace(b"\n.", b"\n..") if b"\n." in content else content)
        if self._at_start and content.startswith(b"."):
            wire = b"." + wire
        self._at_start = content.endswith(b"\n")
        return wire

    def finish(self) -> bytes:
        """The end of the data; content without a last line end gets one, since DATA has no way to say otherwise."""
        return b".\r\n" if self._at_start else b"\r\n.\r\n"


def lf_to_crlf(content: bytes) -> bytes:
    """Text content as BDAT carries it; works piece by piece.  ValueError if there is a CR in it: that is no text."""
    if b"\r" in content:
        raise ValueError("text content has no CR")
    return content.replace(b"\n", b"\r\n")
