"""One connection's octets: a Trio stream that can turn into a TLS one, with one exception for all the ways it breaks.

Timeouts belong to the caller.  One task uses a wire at a time.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final, cast

import trio

from trimta.smtp.cipher_suites import registered_name

RECEIVE: Final = 64 * 1024
"""Octets taken from the kernel at once."""

CLOSE_LIMIT: Final = 1.0
"""Seconds for TLS to say goodbye: a peer that does not read must not keep us."""

ALERT_LIMIT: Final = 1.0
"""Seconds for the alert that says what was wrong with the peer's TLS, and for the peer to close after it."""


class WireError(Exception):
    """The connection is broken, and only `aclose` is left; the message says how."""


class HandshakeError(WireError):
    """The TLS handshake failed."""

    def __init__(self, message: str, *, untrusted: bool) -> None:
        super().__init__(message)
        self.untrusted = untrusted
        """The peer's certificate was the reason."""


class Wire:
    """A connected stream.

    A `send_all` that is cancelled leaves it unusable, since nobody knows how much was sent: `usable` is False then,
    sending again raises WireError, and `aclose` does not wait.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._context: _ContextWithAlerts | None = None
        """What TLS, present or attempted, was made with."""
        self.usable = True
        """Octets may be sent."""

    @property
    def tls(self) -> bool:
        return isinstance(self._stream, trio.SSLStream)

    @property
    def tls_version(self) -> str:
        """`TLSv1.3`; empty without TLS."""
        return str(self._stream.version() or "") if isinstance(self._stream, trio.SSLStream) else ""

    @property
    def tls_cipher(self) -> str:
        """`TLS_AES_256_GCM_SHA384`; empty without TLS."""
        found = self._stream.cipher() if isinstance(self._stream, trio.SSLStream) else None
        return str(found[0]) if found else ""

    @property
    def cipher_suite(self) -> str:
        """The same by its name in IANA's registry: `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`; empty without TLS."""
        if not isinstance(self._stream, trio.SSLStream):
            return ""
        name = self.tls_cipher
        return registered_name(name) or _number(self._stream.context, name)

    async def receive_some(self) -> bytes:
        """Some octets, at most 64 KiB; b"" when the peer sends no more.  May be cancelled and called again."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE))
        except trio.BrokenResourceError as error:
            self.usable = False
            if self._context is not None:
                await self._context.send_alert(self._stream, error)
            raise WireError(_explain(error)) from error

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""
        if not self.usable:
            raise WireError("the connection is broken")
        self.usable = False
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise WireError(_explain(error)) from error
        self.usable = True

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
    ) -> None:
        """Do the TLS handshake over what is there.  HandshakeError if it fails; the wire is unusable then.

        Octets that the caller has received already must be no part of it: there must be none.
        """
        # https_compatible: a peer that closes without close_notify gives b"", like one without TLS.  SMTP says itself
        # where its commands, replies and bodies end, so that nothing can be cut short unnoticed.
        self.usable = False
        self._context = _ContextWithAlerts(context)
        try:
            stream = trio.SSLStream(
                self._stream,
                cast("ssl.SSLContext", self._context),
                server_side=server_side,
                server_hostname=server_hostname,
                https_compatible=True,
            )
        except (ValueError, ssl.SSLError) as error:  # a name that no certificate can have
            raise HandshakeError(f"{server_hostname}: {error}", untrusted=True) from error
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            untrusted = isinstance(error.__cause__, ssl.SSLCertVerificationError)
            if await self._context.send_alert(stream, error) and server_side:
                await self._wait_for_close(ALERT_LIMIT)
            raise HandshakeError(_explain(error), untrusted=untrusted) from error
        self._stream = stream
        self.usable = True

    async def linger(self, limit: float) -> None:
        """Say that nothing more comes, and pass over what the peer still sends until it closes, `limit` seconds at
        most: a socket closed with unread octets in it takes our last reply away from the peer.
        """
        if self.usable and not self.tls:
            await self._wait_for_close(limit)

    async def _wait_for_close(self, limit: float) -> None:
        with trio.move_on_after(limit), contextlib.suppress(trio.BrokenResourceError):
            await cast("trio.abc.HalfCloseableStream", self._stream).send_eof()
            while await self._stream.receive_some(RECEIVE):
                pass

    async def aclose(self) -> None:
        """Close it, politely if it is usable and for a second at most."""
        if self.usable:
            self.usable = False
            with trio.move_on_after(CLOSE_LIMIT):
                await self._stream.aclose()
        else:
            await trio.aclose_forcefully(self._stream)


def _number(context: ssl.SSLContext, name: str) -> str:
    """A cipher suite without a name here: its number in the registry, as `0xC02F` (RFC 8314 4.3)."""
    return next((f"0x{cipher['id'] & 0xFFFF:04X}" for cipher in context.get_ciphers() if cipher["name"] == name), "")


class _ContextWithAlerts:
    """A context for `trio.SSLStream`, which drops what OpenSSL has left to say when it fails: the alert by which the
    peer learns what was wrong (RFC 8446 6.2).  Nothing but `wrap_bio` is ever asked of it.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._outgoing = ssl.MemoryBIO()

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, server_side: bool, server_hostname: str | None
    ) -> ssl.SSLObject:
        self._outgoing = outgoing
        return self._context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=server_hostname)

    async def send_alert(self, stream: trio.abc.Stream, error: trio.BrokenResourceError) -> bool:
        """Send what is left, if TLS itself is what `error` tells of; whether there was anything."""
        alert = self._outgoing.read()
        if not alert or not isinstance(stream, trio.SSLStream) or not isinstance(error.__cause__, ssl.SSLError):
            return False
        with trio.move_on_after(ALERT_LIMIT), contextlib.suppress(trio.BrokenResourceError):
            await stream.transport_stream.send_all(alert)
        return True


def _explain(error: trio.BrokenResourceError) -> str:
    """What is known of the reason, in a few words."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or str(cause)).replace("_", " ").lower()
    if isinstance(cause, trio.BrokenResourceError):
        return _explain(cause)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "connection lost"
