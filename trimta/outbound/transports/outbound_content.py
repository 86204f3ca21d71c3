"""A message on its way out: what it asks of the next hop, and its octets in the form that the hop can take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from trimta.content.downgrade import EIGHT_BIT_LEFT, CannotDowngrade, rewriting_plan
from trimta.content.needs import InternationalizedParts, internationalized_parts, needs_of
from trimta.content.windowed_octets import WindowedOctets
from trimta.mail.body import BodyForm
from trimta.runtime.pieces import Pieces
from trimta.smtp.outbound import ContentFacts
from trimta.smtp.transparency import DataEncoder, lf_to_crlf

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trimta.content.mime.rewriting import RewritingPlan
    from trimta.content.needs import ContentNeeds
    from trimta.runtime.disk import Disk
    from trimta.smtp.extensions import Offered
    from trimta.store.spool import Body

BLOCK: Final = 64 * 1024
"""Octets of content written at once: what `timeouts.data` is for."""


_NOTHING: Final = InternationalizedParts(part_header=False, message_global=False)


@dataclass(frozen=True, slots=True)
class RewrittenBody:
    """A body as a plan has it, made anew from what is kept each time that it is read: it takes no room anywhere."""

    kept: Body
    plan: RewritingPlan
    size: int
    lines: int
    is_ascii: bool

    @classmethod
    def of(cls, kept: Body, *, eight_bit_ok: bool, global_ok: bool = True) -> Self:
        """The body for a host with 8BITMIME (`eight_bit_ok`) or without.  Raises CannotDowngrade, BodyDamagedError.
        Blocks: everything is read several times.
        """
        size = lines = 0
        is_ascii = True
        with kept.reader() as read:
            source = WindowedOctets(kept.size, read)
            plan = rewriting_plan(
                source, binary=kept.form is BodyForm.RAW, eight_bit_ok=eight_bit_ok, global_ok=global_ok
            )
            for piece in plan.render(source):
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
        """Whether reading it never blocks."""
        return self.kept.in_memory

    @property
    def form(self) -> BodyForm:
        """Always text: what is re-encoded has lines."""
        return BodyForm.TEXT

    @property
    def wire_size(self) -> int:
        """Octets on the wire, before dot-stuffing."""
        return self.form.wire_size(self.size, self.lines)

    def chunks(self, size: int) -> Generator[bytes, None, None]:
        """As of a Body; `size` is what it goes by where the octets are new."""
        with self.kept.reader() as read:
            held = bytearray()
            for piece in self.plan.render(WindowedOctets(self.kept.size, read)):
                held += piece
                while len(held) >= size:
                    yield bytes(held[:size])
                    del held[:size]
            if held:
                yield bytes(held)


@dataclass(frozen=True, slots=True)
class Content:
    """Our trace fields with LF line ends, then what the client sent."""

    head: bytes
    body: Body | RewrittenBody

    @property
    def is_raw(self) -> bool:
        """Whether the octets of the body go as they are (BODY=BINARYMIME)."""
        return self.body.form is BodyForm.RAW

    @property
    def wire_size(self) -> int:
        """Octets on the wire, before dot-stuffing."""
        return BodyForm.TEXT.wire_size(len(self.head), self.head.count(b"\n")) + self.body.wire_size

    async def fitted(self, offered: Offered, disk: Disk, *, smtputf8: bool = False) -> tuple[Content, ContentFacts]:
        """The content as a host with these extensions can take it, and what to tell it.  `smtputf8`: the message asked
        for SMTPUTF8, so that what is internationalised inside counts.

        What it offers to take is not touched; else parts are re-encoded.  Raises CannotDowngrade.
        """
        found = await self._needs(disk)
        head = self.head if offered.smtputf8 else self.head.decode().encode("ascii", "backslashreplace")
        content = replace(self, head=head)
        binary = False
        eight_bit = found.eight_bit
        within = await self._inside(disk) if smtputf8 and found.eight_bit_body else _NOTHING
        global_ok = offered.smtputf8 or not within.message_global
        if self.is_raw and offered.binarymime and global_ok:
            binary = True
        elif not global_ok and not self.is_raw:
            body = await self._rewritten(offered, disk, global_ok=False)
            content = Content(head, body)
            eight_bit = not body.is_ascii
        elif self.is_raw or not found.fits(eight_bit_ok=offered.eight_bit_mime):
            if offered.binarymime and not found.bare_cr and found.fits(eight_bit_ok=True, binary_ok=True):
                binary = True  # text with NULs or endless lines is not touched either
            else:
                body = await self._rewritten(offered, disk)
                content = Content(head, body)
                eight_bit = not body.is_ascii
        return content, ContentFacts(
            size=content.wire_size,
            eight_bit=eight_bit or not head.isascii(),
            binary=binary,
            utf8_header=found.eight_bit_header or not head.isascii() or within.part_header,
            utf8_inside=within.message_global,
        )

    async def _needs(self, disk: Disk) -> ContentNeeds:
        def look() -> ContentNeeds:
            return needs_of(self.body.chunks(BLOCK), binary=self.is_raw)

        return look() if self.body.in_memory else await disk.run(look)

    async def _inside(self, disk: Disk) -> InternationalizedParts:
        assert not isinstance(self.body, RewrittenBody)
        kept, binary = self.body, self.is_raw

        def look() -> InternationalizedParts:
            with kept.reader() as read:
                return internationalized_parts(WindowedOctets(kept.size, read), binary=binary)

        return await disk.run(look)

    async def _rewritten(self, offered: Offered, disk: Disk, *, global_ok: bool = True) -> RewrittenBody:
        assert not isinstance(self.body, RewrittenBody)
        return await disk.run(
            RewrittenBody.of,
            self.body,
            eight_bit_ok=offered.eight_bit_mime,
            global_ok=global_ok,
        )

    def for_data(self, disk: Disk) -> Octets:
        """What follows the 354 to DATA: CRLF, dots doubled, the end included.  Text only."""
        encoder = DataEncoder()
        return Octets(self, disk, encoder.feed, encoder.finish)

    def for_bdat(self, disk: Disk) -> Octets:
        """What BDAT chunks carry: CRLF and no dots doubled, or the octets of a raw body; `wire_size` of them."""
        return Octets(self, disk, _as_it_is if self.is_raw else lf_to_crlf, lambda: b"")


class Octets:
    """A content's octets on the wire, a piece at a time and bounded in memory.  Close it after use.

    Raises BodyDamagedError, before the end is reached, for a body whose file is not what it was, and OSError.
    """

    def __init__(
        self, content: Content, disk: Disk, encode: Callable[[bytes], bytes], finish: Callable[[], bytes]
    ) -> None:
        self._encode = encode
        self._finish: Callable[[], bytes] | None = finish
        self._body = Pieces(content.body.chunks(BLOCK), disk, in_memory=content.body.in_memory)
        # The head is LF text before a raw body, too.
        self._ready: deque[bytes] = deque([lf_to_crlf(content.head) if content.is_raw else encode(content.head)])

    async def take(self, size: int | None = None) -> bytes:
        """Some octets, at most `size`; b"" at the end."""
        if await self.at_end():
            return b""
        block = self._ready.popleft()
        if size is not None and size < len(block):
            self._ready.appendleft(block[size:])
            block = block[:size]
        return block

    async def at_end(self) -> bool:
        """Whether there is nothing more."""
        while not self._ready or not self._ready[0]:
            if self._ready:
                self._ready.popleft()
            elif self._finish is None:
                return True
            else:
                await self._refill(self._finish)
        return False

    async def _refill(self, finish: Callable[[], bytes]) -> None:
        found = await self._body.some()
        self._ready.extend(self._encode(block) for block in found)
        if not found:
            self._ready.append(finish())
            self._finish = None

    def close(self) -> None:
        """Close the file, if there is one."""
        self._body.close()


def _as_it_is(block: bytes) -> bytes:
    return block
