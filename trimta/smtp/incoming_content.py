"""Content on its way in, by DATA or by BDAT: from octets of the connection to pieces of content, with its faults.

The method `next` of each class takes its octets out of those that were received.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from trimta.mail.reply import Reply
from trimta.smtp.server_events import BadInput, ContentEnd, ContentPiece
from trimta.smtp.transparency import DataDecoder, TextDecoder

if TYPE_CHECKING:
    from trimta.smtp.lines import LineBuffer


class IncomingContent(abc.ABC):
    """The content of one message, and the faults for which it must be refused."""

    def __init__(self, decoder: TextDecoder | None, *, size_limit: int, reject_bare_lf: bool) -> None:
        """Without a decoder the content is raw octets (BODY=BINARYMIME).  `size_limit`: octets on the wire; 0: none."""
        self._text = decoder
        self._size_limit = size_limit
        self._reject_bare_lf = reject_bare_lf
        self._octets = 0
        """Octets of chunks that were received."""
        self._announced = 0
        """Octets of chunks that BDAT has announced, received or not."""

    @abc.abstractmethod
    def next(self, received: LineBuffer) -> ContentPiece | ContentEnd | None:
        """The next piece, or the end; None if more octets are needed.  After a fault there are no more pieces."""

    @property
    def _size(self) -> int:
        return self._octets if self._text is None else self._text.size

    @property
    def _is_too_large(self) -> bool:
        limit = self._size_limit
        return bool(limit) and (self._announced > limit or self._size > limit)

    @property
    def _is_refused(self) -> bool:
        text = self._text
        if text is not None and (text.bare_cr is not None or (self._reject_bare_lf and text.bare_lf is not None)):
            return True
        return self._is_too_large

    def _end(self, *, last: bool) -> ContentEnd:
        # Size first, wherever the other fault is: the reply must not depend on how the octets were split.
        if self._is_too_large:
            too_large = Reply.of(552, "5.3.4", f"the message is larger than {self._size_limit} octets")
            return ContentEnd(last, self._size, too_large)
        fault = self._text_fault() if last else None
        bare_lf = self._text.bare_lf if self._text is not None and last else None
        return ContentEnd(last, self._size if last else self._octets, fault, bare_lf)

    def _text_fault(self) -> Reply | None:
        text = self._text
        if text is None:
            return None
        if text.bare_cr is not None:
            return Reply.of(550, "5.6.0", f"line {text.bare_cr} has a CR without LF")
        if self._reject_bare_lf and text.bare_lf is not None:
            return Reply.of(550, "5.6.0", f"line {text.bare_lf} ends in LF without CR")
        return None


class DataContent(IncomingContent):
    """The content of a message that comes by DATA (RFC 5321 4.1.1.4)."""

    def __init__(self, *, typed: bool, size_limit: int, reject_bare_lf: bool) -> None:
        """`typed`: as for DataDecoder."""
        self._decoder = DataDecoder(typed=typed)
        super().__init__(self._decoder, size_limit=size_limit, reject_bare_lf=reject_bare_lf)

    def next(self, received: LineBuffer) -> ContentPiece | ContentEnd | None:
        """The next piece, or the end, as in IncomingContent.  Octets behind the end stay in `received`."""
        decoder = self._decoder
        if not decoder.done:
            octets = received.take()
            if not octets:
                return None
            content = decoder.feed(octets)
            if decoder.leftover:
                received.give_back(decoder.leftover)
            if content and not self._is_refused:
                return ContentPiece(content)
            if not decoder.done:
                return None
        return self._end(last=True)


class ChunkedContent(IncomingContent):
    """The content of a message that comes by BDAT (RFC 3030 2), chunk by chunk."""

    def __init__(self, *, binary: bool, size_limit: int, reject_bare_lf: bool) -> None:
        """`binary`: whether the content is raw octets (BODY=BINARYMIME)."""
        super().__init__(None if binary else TextDecoder(), size_limit=size_limit, reject_bare_lf=reject_bare_lf)
        self._left = 0
        """Octets of the present chunk that were not received yet."""
        self._last = False
        self._finished = False

    def begin_chunk(self, size: int, *, last: bool) -> None:
        """Note that `size` octets of a chunk follow; `last`: whether its BDAT has LAST."""
        self._announced += size
        self._left = size
        self._last = last

    def next(self, received: LineBuffer) -> ContentPiece | ContentEnd | None:
        """The next piece, or the end of the chunk, as in IncomingContent."""
        if self._left:
            octets = received.take(self._left)
            if not octets:
                return None
            self._left -= len(octets)
            self._octets += len(octets)
            content = octets if self._text is None else self._text.feed(octets)
            if content and not self._is_refused:
                return ContentPiece(content)
            if self._left:
                return None
        if self._last and not self._finished:
            self._finished = True
            content = b"" if self._text is None else self._text.finish()
            if content and not self._is_refused:
                return ContentPiece(content)
        return self._end(last=self._last)


class DiscardedChunk:
    """The chunk of a refused BDAT, whose octets are read and dropped before the reply (RFC 3030 2)."""

    def __init__(self, size: int, refusal: Reply) -> None:
        self._left = size
        self._refusal = refusal

    def next(self, received: LineBuffer) -> BadInput | None:
        """The refusal, once the whole chunk was received; None if more octets are needed."""
        self._left -= len(received.take(self._left))
        return None if self._left else BadInput(self._refusal)
