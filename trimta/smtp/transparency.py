"""Transparency, line ends and dots: decoders and encoders between wire and content (RFC 5321 4.5.2, RFC 3030).

Inside, text has LF line ends.  On the wire lines end in CRLF (RFC 5321 2.3.8), and after DATA a dot at the start of a
line is doubled.  Decoders and encoders take octets in pieces of any size, with the same result for every way to cut
them, in time linear in the number of octets.  They hold back two octets at most.

Content ends at CRLF.CRLF and at nothing else: a server that takes "\\n.\\r\\n" or "\\n.\\n" for the end reads commands
where the server before it saw content (SMTP smuggling).  The exception is a DATA command that itself ended in a bare
LF: a person typed it, since no server relays such a line as a command.  There a line of one dot that ends in a bare LF
ends the content, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    import re

_BARE_CR: Final = pattern(rb"\r(?!\n)")
_BARE_LF: Final = pattern(rb"(?<!\r)\n")
_DOT_AT_START: Final = pattern(rb"\n\.")
_STUFFED: Final = pattern(rb"\n\.(?!\n)")


class TextDecoder:
    """Decodes text without doubled dots, as in BDAT chunks (RFC 3030): each CRLF or bare LF becomes LF.

    A CRLF may be split over two pieces.  Attributes, which are valid at any time:
    `size`    octets of the content on the wire: dots not doubled, every line end counted as CRLF
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
        """Take octets from the wire and return the content in them, but for a CR at their end: its LF may follow."""
        if self._held:
            data = self._held + data
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        else:
            self._held = b""
        return self._convert(data)

    def finish(self) -> bytes:
        """Return the content that was held back; called once, when no more octets will come."""
        data, self._held = self._held, b""
        return self._convert(data)

    def _convert(self, block: bytes) -> bytes:
        """A block with its CRLFs made LF; the block does not end between CR and LF."""
        # Without a bare CR or LF the block is what its lines make with CRLF.  To write it back and to compare costs a
        # third of looking for what is bare, and to leave out each CR a tenth of replacing two octets by one.
        content = block.replace(b"\r", b"")
        if content.replace(b"\n", b"\r\n") != block:
            return self._convert_with_bare(block)
        self._lines += len(block) - len(content)
        self.size += len(block)
        return content

    def _convert_with_bare(self, block: bytes) -> bytes:
        """What `_convert` does where a CR or LF of the block is bare."""
        if self.bare_cr is None and _BARE_CR.search(block) is not None:
            self.bare_cr = self._line_of(_BARE_CR, block)
        content = block.replace(b"\r\n", b"\n")
        newlines = content.count(b"\n")
        if self.bare_lf is None and newlines != len(block) - len(content):
            self.bare_lf = self._line_of(_BARE_LF, block)
        self._lines += newlines
        self.size += len(content) + newlines
        return content

    def _line_of(self, pattern: re.Pattern[bytes], block: bytes) -> int:
        """The number of the line (from 1) with the first match in a block, which has one."""
        match = pattern.search(block)
        assert match is not None
        return self._lines + block.count(b"\n", 0, match.start()) + 1


class DataDecoder(TextDecoder):
    """Decodes the octets that follow the 354 to DATA: line ends as in TextDecoder, doubled dots made single.

    The dot at the start of a line is removed, after a bare LF too.  A line that is one dot and nothing else ends the
    content if CRLF is on both sides of it; otherwise it is content and stays.  `done` is True once the end has come,
    and `leftover` has the octets behind the end.
    """

    def __init__(self, *, typed: bool = False) -> None:
        """`typed`: the DATA command ended in a bare LF, so that a line of one dot and a bare LF ends content, too."""
        super().__init__()
        self._typed = typed
        self.done = False
        self.leftover = b""
        self._at_start = True
        """Whether the next octet begins a line."""
        self._after_crlf = True
        """Whether the next octet begins a line, and the line before it ended in CRLF or does not exist."""

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire and return the content in them.  Must not be called once `done` is True."""
        if self._held:
            data = self._held + data
            self._held = b""
        first = self._first_dot(data)
        if first >= 0:
            dot, end = self._find_end(data, first)
            if dot >= 0:
                self.done = True
                self.leftover = data[end:]
                return self._unstuff(data[:dot], has_dots=first < dot)
        # Held back until the next octet says what they are: a CR, whose LF may follow, and a dot, which may be a whole
        # line.
        keep = len(data)
        if data.endswith(b"\r"):
            keep -= 1
        if data.endswith(b"\n.", 0, keep) or (self._at_start and keep == 1 and data.startswith(b".")):
            keep -= 1
        self._held = data[keep:]
        return self._unstuff(data[:keep], has_dots=0 <= first < keep)

    def _first_dot(self, data: bytes) -> int:
        """The position of the first dot at the start of a line; -1 without one."""
        if self._at_start and data.startswith(b"."):
            return 0
        dot = _dot_at_start(data)
        return -1 if dot is None else dot.end() - 1

    def _find_end(self, data: bytes, first: int) -> tuple[int, int]:
        """The positions of the dot that ends the content and of the end of its line; (-1, -1) without such a dot.

        `first`: the position of the first dot at the start of a line.
        """
        if self._at_start and self._typed and data.startswith(b".\n"):
            return 0, 2
        if self._at_start and self._after_crlf and data.startswith(b".\r\n"):
            return 0, 3
        end = data.find(b"\r\n.\r\n", max(first - 2, 0))
        typed = data.find(b"\n.\n", 0, end if end >= 0 else len(data)) if self._typed else -1
        if typed >= 0:
            return typed + 1, typed + 3
        return (end + 2, end + 5) if end >= 0 else (-1, -1)

    def _unstuff(self, block: bytes, *, has_dots: bool) -> bytes:
        """A block with its line ends made LF and its doubled dots single; the end of the content is not in it.

        `has_dots`: whether there is a dot at the start of a line.
        """
        if not block:
            return block
        starts_line = self._at_start
        self._at_start = block.endswith(b"\n")
        self._after_crlf = block.endswith(b"\r\n")
        content = self._convert(block)
        if not has_dots:
            return content
        before = len(content)
        # A line of one dot that `_find_end` has passed over does not end the content: the dot stays.
        dot = starts_line and content.startswith(b".") and not content.startswith(b".\n")
        content = content.replace(b"\n.", b"\n") if b"\n.\n" not in content else _STUFFED.sub(b"\n", content)
        if dot:
            content = content[1:]
        self.size -= before - len(content)
        return content


class DataEncoder:
    """Encodes content with LF line ends as the octets that follow DATA: CRLF, dots doubled, CRLF.CRLF at the end.

    A CR in the content raises ValueError: DATA can't carry one, since servers differ in what they make of it.
    """

    def __init__(self) -> None:
        self._at_start = True

    def feed(self, content: bytes) -> bytes:
        """Take a piece of the content and return its octets on the wire.  Raises ValueError for a CR."""
        if not content:
            return b""
        wire = lf_to_crlf(content if _dot_at_start(content) is None else content.replace(b"\n.", b"\n.."))
        if self._at_start and content.startswith(b"."):
            wire = b"." + wire
        self._at_start = content.endswith(b"\n")
        return wire

    def finish(self) -> bytes:
        """The octets that end the content, with the end of its last line if that has none: DATA can't say otherwise."""
        return b".\r\n" if self._at_start else b"\r\n.\r\n"


def _dot_at_start(octets: bytes) -> re.Match[bytes] | None:
    """The first LF that has a dot behind it, and the dot."""
    # Most pieces have none.  One octet is found sooner than two, and Base64 has no dots; an expression takes half the
    # time of bytes.find.
    return _DOT_AT_START.search(octets) if b"." in octets else None


def lf_to_crlf(content: bytes) -> bytes:
    """A piece of text with its line ends as CRLF, as BDAT carries it.  Raises ValueError for a CR: that is no text."""
    if b"\r" in content:
        raise ValueError("text content has no CR")
    return content.replace(b"\n", b"\r\n")
