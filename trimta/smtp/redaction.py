"""Redaction of command lines for transcripts: credentials are left out, unprintable octets are escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.smtp.parsing import KNOWN_VERBS
from trimta.smtp.sasl import MECHANISMS

if TYPE_CHECKING:
    from trimta.smtp.parsing import CommandLine

SECRET: Final = "***"


class Redaction:
    """The redaction of one session's lines: whether a line has credentials may depend on the line before it."""

    def __init__(self) -> None:
        self._after_auth = False

    def command(self, line: CommandLine) -> str:
        """A command line as the transcript shows it."""
        # A client that does not wait for replies sends its password also after an AUTH that is refused.
        self._after_auth = line.text[:4].upper() == "AUTH" or (self._after_auth and line.verb not in KNOWN_VERBS)
        return line.text if line.is_printable and not self._after_auth else self.beginning(line.octets)

    def beginning(self, octets: bytes) -> str:
        """The beginning of a line, or a line that is no command, as the transcript shows it."""
        text = octets.decode(errors="backslashreplace")
        if self._after_auth:
            text = _without_credentials(text)
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _without_credentials(text: str) -> str:
    words = text.split()
    shown = 0
    if words[:1] and words[0].upper() == "AUTH":  # the mechanism is shown, unless it may be a password
        shown = 2 if len(words) > 1 and words[1].upper() in (words[1], *MECHANISMS) else 1
    return " ".join([*words[:shown], *([SECRET] if len(words) > shown else [])])
