"""The content of an outgoing message: fitted to a host's extensions, then read block by block as octets on the wire."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from trimta.content.downgrade import EIGHT_BIT_LEFT, CannotDowngrade, rewriting_plan
from trimta.content.needs import InternationalizedParts, internationalized_parts, needs_of
from trimta.content.windowed_octets import WindowedOctets
from trimta.mail.body import BodyForm
from trimta.runtime.body_reader import BodyReader
from trimta.smtp.outbound_commands import ContentFacts
from trimta.smtp.transparency import DataEncoder, lf_to_crlf
from trimta.store.spool import Body

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trimta.content.mime.rewriting import RewritingPlan
    from trimta.content.needs import ContentNeeds
    from trimta.runtime.disk import Disk
    from trimta.smtp.extensions import Offered

BLOCK: Final = 64 * 1024
"""Octets of content that are written at once: `timeouts.data` is the time for them."""

_NONE_INTERNATIONALIZED: Final = InternationalizedParts(part_header=False, message_global=False)


@dataclass(frozen=True, slots=True)
class OutboundContent:
    """The content of a message: the trace fields of this server, then the body as it was received."""

    head: bytes
    """The trace fields, with LF line ends before a raw body too."""
    body: Body

    async def fitted(self, offered: Offered, disk: Disk, *, smtputf8: bool = False) -> FittedContent:
        """The content as a host with the extensions `offered` can take it.  `smtputf8`: the message asked for SMTPUTF8,
        so that internationalized headers of its parts count.

        What the host offers to take is not touched; else parts are re-encoded.  Raises CannotDowngrade where that is
        not possible; BodyDamagedError or OSError if the body can't be read.
        """
        needs = await self._needs(disk)
        parts = await self._parts(disk) if smtputf8 and needs.eight_bit_body else _NONE_INTERNATIONALIZED
        global_ok = offered.smtputf8 or not parts.message_global
        raw = self.body.form is BodyForm.RAW
        fits = global_ok and not raw and needs.fits(eight_bit_ok=offered.eight_bit_mime)
        # BINARYMIME takes text with NULs or endless lines as it is, too, but a CR of text might be half a line end.
        binary = global_ok and offered.binarymime and (raw or not (fits or needs.bare_cr))
        rewritten = not (fits or binary)
        body: Body | RewrittenBody = self.body
        eight_bit = needs.eight_bit
        if rewritten:
            body = await disk.run(RewrittenBody.of, self.body, eight_bit_ok=offered.eight_bit_mime, global_ok=global_ok)
            eight_bit = not body.is_ascii
        head = self.head if offered.smtputf8 else self.head.decode().encode("ascii", "backslashreplace")
        facts = ContentFacts(
            size=BodyForm.TEXT.wire_size(len(head), head.count(b"\n")) + body.wire_size,
            eight_bit=eight_bit or not head.isascii(),
            binary=binary,
            utf8_header=needs.eight_bit_header or not head.isascii() or parts.part_header,
            utf8_inside=parts.message_global,
        )
        return FittedContent(head, body, facts)

    async def _needs(self, disk: Disk) -> ContentNeeds:
        def look() -> ContentNeeds:
            return needs_of(self.body.chunks(BLOCK), self.body.form)

        return look() if self.body.in_memory else await disk.run(look)

    async def _parts(self, disk: Disk) -> InternationalizedParts:
        def look() -> InternationalizedParts:
            with self.body.reader() as read:
                octets = WindowedOctets(self.body.size, read)
                return internationalized_parts(octets, self.body.form)

        return await disk.run(look)


@dataclass(frozen=True, slots=True)
class RewrittenBody:
    """A body whose parts are re-encoded by a plan, each time that it is read, so that the result is stored nowhere.

    Its attributes and methods have the meaning of those of `Body`.
    """

    kept: Body
    """The body as it was received."""
    plan: RewritingPlan
    size: int
    lines: int
    is_ascii: bool
    """Whether no octet is over 127."""

    @classmethod
    def of(cls, kept: Body, *, eight_bit_ok: bool, global_ok: bool = True) -> Self:
        """The body for a host with 8BITMIME (`eight_bit_ok`) or without, and with SMTPUTF8 or with no need of it
        (`global_ok`) or without.  Blocks: the body is read several times.

        Raises CannotDowngrade where it can't be re-encoded; BodyDamagedError or OSError where it can't be read.
        """
        size = lines = 0
        is_ascii = True
        with kept.reader() as read:
            octets = WindowedOctets(kept.size, read)
            plan = rewriting_plan(octets, kept.form, eight_bit_ok=eight_bit_ok, global_ok=global_ok)
            for piece in plan.render(octets):
                if b"\r" in piece:
                    raise CannotDowngrade("a bare CR where nothing may be rewritten")
                size += len(piece)
                lines += piece.count(b"\n")
                is_ascii = is_ascii and piece.isascii()
        if not (is_ascii or eight_bit_ok):
            raise CannotDowngrade(EIGHT_BIT_LEFT)
        return cls(kept, plan, size, lines, is_ascii)

    @property
    def in_memory(self) -> bool:
        """Whether the body can be read without blocking."""
        return self.kept.in_memory

    @property
    def form(self) -> BodyForm:
        """Text, whatever the form of the kept body: re-encoded parts have lines."""
        return BodyForm.TEXT

    @property
    def wire_size(self) -> int:
        """Octets on the wire, before dot-stuffing."""
        return self.form.wire_size(self.size, self.lines)

    def chunks(self, size: int) -> Generator[bytes, None, None]:
        """The octets of the body in pieces of `size`.  Blocks unless `in_memory`.  Raises as `Body.reader`."""
        with self.kept.reader() as read:
            buffer = bytearray()
            for piece in self.plan.render(WindowedOctets(self.kept.size, read)):
                buffer += piece
                while len(buffer) >= size:
                    yield bytes(buffer[:size])
                    del buffer[:size]
            if buffer:
                yield bytes(buffer)


@dataclass(frozen=True, slots=True)
class FittedContent:
    """A content in a form that a certain host can take."""

    head: bytes
    """The trace fields, with LF line ends."""
    body: Body | RewrittenBody
    facts: ContentFacts
    """The properties of the content that MAIL tells the host."""

    def for_data(self, disk: Disk) -> WireOctets:
        """The octets that follow the reply to DATA: CRLF line ends, dots doubled, the end included.  Text only."""
        encoder = DataEncoder()
        return WireOctets(encoder.feed(self.head), self.body, disk, encoder.feed, encoder.finish)

    def for_bdat(self, disk: Disk) -> WireOctets:
        """The octets that BDAT chunks carry, `facts.size` of them: CRLF line ends and no dots doubled, or the octets of
        a raw body as they are.
        """
        encode = _unchanged if self.body.form is BodyForm.RAW else lf_to_crlf
        return WireOctets(lf_to_crlf(self.head), self.body, disk, encode, lambda: b"")


class WireOctets:
    """The octets of a content on the wire, read a block at a time, so that memory is bounded.  To be closed after use.

    The methods raise BodyDamagedError, before the end is reached, for a body whose file is not what it was; OSError.
    """

    def __init__(
        self,
        head: bytes,
        body: Body | RewrittenBody,
        disk: Disk,
        encode: Callable[[bytes], bytes],
        finish: Callable[[], bytes],
    ) -> None:
        """`head`: the first octets, encoded already.  `encode` makes octets on the wire of the body's, and `finish`
        those that follow the last.
        """
        self._encode = encode
        self._finish: Callable[[], bytes] | None = finish
        self._pieces: BodyReader | None = None
        if isinstance(body, Body) and body.data is not None and body.size <= BLOCK:  # as nearly all are
            self._ready = deque([head + encode(body.data) + finish()])
            self._finish = None
        else:
            self._ready = deque([head])
            self._pieces = BodyReader(body.chunks(BLOCK), disk, in_memory=body.in_memory)

    async def take(self, size: int | None = None) -> bytes:
        """The next octets, at most `size`; b"" at the end."""
        if await self.at_end():
            return b""
        block = self._ready.popleft()
        if size is not None and size < len(block):
            self._ready.appendleft(block[size:])
            block = block[:size]
        return block

    async def at_end(self) -> bool:
        """Whether all octets have been taken."""
        while not self._ready or not self._ready[0]:
            if self._ready:
                self._ready.popleft()
            elif self._finish is None or self._pieces is None:
                return True
            else:
                await self._refill(self._pieces, self._finish)
        return False

    async def _refill(self, reader: BodyReader, finish: Callable[[], bytes]) -> None:
        pieces = await reader.some()
        self._ready.extend(self._encode(piece) for piece in pieces)
        if not pieces:
            self._ready.append(finish())
            self._finish = None

    def close(self) -> None:
        """Close the file of the body, if there is one.  Idempotent."""
        if self._pieces is not None:
            self._pieces.close()


def _unchanged(octets: bytes) -> bytes:
    return octets
