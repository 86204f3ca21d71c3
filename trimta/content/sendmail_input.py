"""The standard input of sendmail(1) as content: its line ends, and the dot that may end it."""

from __future__ import annotations


class BareCrError(ValueError):
    """The line of this number, counted from 1, has a CR that no LF follows."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} has a carriage return that ends no line")
        self.line = line


class PipedText:
    """Octets that a program pipes in, turned a piece at a time into content with LF line ends; CRLF is a line end, too.

    With `dot_ends` a line that is a lone dot ends the message: then `ended` is true, and what follows is not looked at.
    """

    def __init__(self, *, dot_ends: bool) -> None:
        self.ended = False
        self._dot_ends = dot_ends
        self._kept = b""
        """The last octets so far, if their meaning depends on the next: a CR, a dot at the beginning of a line."""
        self._lines = 0
        self._at_line_start = True

    def feed(self, data: bytes) -> bytes:
        """The content of these octets, and of those held back before, as far as it is certain.  Raises BareCrError."""
        if self.ended:
            return b""
        data = self._kept + data
        self._kept = b""
        if data.endswith(b"\r"):
            data, self._kept = data[:-1], b"\r"
        text = data.replace(b"\r\n", b"\n")
        if self._dot_ends:
            text = self._until_dot(text)
        bare_cr = text.find(b"\r")
        if bare_cr >= 0:
            raise BareCrError(self._lines + text.count(b"\n", 0, bare_cr) + 1)
        self._lines += text.count(b"\n")
        if text:
            self._at_line_start = text.endswith(b"\n")
        return text

    def finish(self) -> bytes:
        """The rest of the content, once the input has ended.  Raises BareCrError."""
        rest, self._kept = self._kept, b""
        if self.ended or rest in (b"", b"."):  # a dot in a last line that does not end is a lone dot, too
            return b""
        raise BareCrError(self._lines + 1)

    def _until_dot(self, text: bytes) -> bytes:
        """The text up to a line that is a lone dot, and without a dot at its end that may be one."""
        start = b"\n" + text if self._at_line_start else text
        shift = len(start) - len(text)
        dot = start.find(b"\n.\n")
        if dot >= 0:
            self.ended = True
            self._kept = b""
            return start[shift : dot + 1]
        if start.endswith(b"\n."):
            self._kept = b"." + self._kept
            return start[shift:-1]
        return text
