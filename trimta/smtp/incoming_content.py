"""A message that is coming in, by DATA or by BDAT: its octets to content, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimta.mail.reply import Reply
from trimta.smtp.events import ContentEnd

if TYPE_CHECKING:
    from trimta.smtp.transparency import TextDecoder


@dataclass(slots=True)
class IncomingChunk:
    """A chunk of BDAT that is coming in."""

    left: int
    last: bool
    refusal: Reply | None = None
    finished: bool = False


class IncomingContent:
    """A message that is coming in, and what is wrong with it."""

    def __init__(self, decoder: TextDecoder | None, limit: int, reject_bare_lf: bool) -> None:
        """Without a decoder its octets are taken as they are."""
        self.decoder = decoder
        self._limit = limit
        self._reject_bare_lf = reject_bare_lf
        self._raw = 0
        self._announced = 0

    def announce(self, octets: int) -> None:
        """So many octets will come by BDAT."""
        self._announced += octets

    def feed(self, data: bytes) -> bytes:
        """Octets of a chunk to content; none if the message can't be taken."""
        self._raw += len(data)
        content = data if self.decoder is None else self.decoder.feed(data)
        return b"" if self.unfit else content

    def finish(self) -> bytes:
        """What is left of the content after the last chunk."""
        content = b"" if self.decoder is None else self.decoder.finish()
        return b"" if self.unfit else content

    @property
    def size(self) -> int:
        return self._raw if self.decoder is None else self.decoder.size

    @property
    def _too_large(self) -> bool:
        return bool(self._limit) and max(self.size, self._announced) > self._limit

    @property
    def unfit(self) -> bool:
        """There is no use in giving content out: the fault will be reported at the end."""
        return self._too_large or self._content_fault() is not None

    def end(self, *, last: bool) -> ContentEnd:
        # Size first, wherever in the octets the other fault is: the answer must not depend on how they were split.
        if self._too_large:
            return ContentEnd(
                last, self.size, Reply.of(552, "5.3.4", f"the message is larger than {self._limit} octets")
            )
        fault = self._content_fault() if last else None
        bare_lf = self.decoder.bare_lf if self.decoder is not None and last else None
        return ContentEnd(last, self.size if last else self._raw, fault, bare_lf)

    def _content_fault(self) -> Reply | None:
        if self.decoder is None:
            return None
        if self.decoder.bare_cr is not None:
            return Reply.of(550, "5.6.0", f"line {self.decoder.bare_cr} has a CR without LF")
        if self._reject_bare_lf and self.decoder.bare_lf is not None:
            return Reply.of(550, "5.6.0", f"line {self.decoder.bare_lf} ends in LF without CR")
        return None
