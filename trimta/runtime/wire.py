"""A wire carries the octets of one connection: a Trio stream that can start TLS (RFC 3207).

All ways in which a connection can break raise WireError.  Timeouts belong to the caller.  One task uses a wire at a
time.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final, cast

import trio

from trimta.runtime.connected_socket import ConnectedSocket
from trimta.smtp.cipher_suites import registered_name

RECEIVE: Final = 64 * 1024
"""Octets taken from the kernel at once, at most."""

CLOSE_LIMIT: Final = 1.0
"""Seconds to send TLS's close_notify; a peer that does not read must not hold up the close."""

ALERT_LIMIT: Final = 1.0
"""Seconds to send the alert that tells the peer why TLS failed, and as many for the peer to close after it."""


class WireError(Exception):
    """The connection is broken; the message says how.  Nothing but `aclose` may be called any more."""


class HandshakeError(WireError):
    """The TLS handshake failed; the message says why."""

    def __init__(self, message: str, *, untrusted: bool) -> None:
        super().__init__(message)
        self.untrusted = untrusted
        """Whether the peer's certificate was the reason."""


class Wire:
    """A connection, with or without TLS.

    A `send_all` that was cancelled leaves it unusable, since it is unknown how much was sent: `usable` is False then,
    sending again raises WireError, and `aclose` does not wait.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._socket = stream if isinstance(stream, ConnectedSocket) else None
        """The stream, where it can be tried without waiting."""
        self._context: _ContextWithAlerts | None = None
        """The TLS context of the last `start_tls`, whether it succeeded or not."""
        self.usable = True
        """Whether octets may be sent."""

    @property
    def tls(self) -> bool:
        """Whether the connection is protected by TLS."""
        return isinstance(self._stream, trio.SSLStream)

    @property
    def tls_version(self) -> str:
        """The version of TLS, as Python names it: `TLSv1.3`; empty without TLS."""
        return str(self._stream.version() or "") if isinstance(self._stream, trio.SSLStream) else ""

    @property
    def tls_cipher(self) -> str:
        """The cipher suite by OpenSSL's name: `ECDHE-RSA-AES128-GCM-SHA256`; empty without TLS."""
        cipher = self._stream.cipher() if isinstance(self._stream, trio.SSLStream) else None
        return str(cipher[0]) if cipher else ""

    @property
    def cipher_suite(self) -> str:
        """The suite by IANA's name: `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`; empty without TLS (RFC 8314 4.3)."""
        if not isinstance(self._stream, trio.SSLStream):
            return ""
        name = self.tls_cipher
        return registered_name(name) or _number(self._stream.context, name)

    def receive_now(self) -> bytes | None:
        """The octets from the peer that `receive_some` would return at once; None if it may have to wait.

        No checkpoint.  Raises WireError.
        """
        if self._socket is None:
            return None
        try:
            return self._socket.receive_now(RECEIVE)
        except trio.BrokenResourceError as error:
            self.usable = False
            raise WireError(_explain(error)) from error

    def send_now(self, data: bytes) -> bytes:
        """Send what can be sent without waiting; returns the rest of `data`.  No checkpoint.  Raises WireError."""
        if self._socket is None or not self.usable:
            return data
        try:
            return data[self._socket.send_now(data) :]
        except trio.BrokenResourceError as error:
            self.usable = False
            raise WireError(_explain(error)) from error

    async def receive_some(self) -> bytes:
        """The next octets from the peer, at most 64 KiB; b"" once the peer has closed.  Raises WireError.

        May be cancelled and called again.
        """
        try:
            return bytes(await self._stream.receive_some(RECEIVE))
        except trio.BrokenResourceError as error:
            self.usable = False
            if self._context is not None:
                await self._context.send_alert(self._stream, error)
            raise WireError(_explain(error)) from error

    async def send_all(self, data: bytes) -> None:
        """Send all octets of `data`.  Raises WireError."""
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
        """Do a TLS handshake over the connection.  Raises HandshakeError, which leaves the wire unusable.

        The caller must have received no octets of the handshake yet.
        """
        # https_compatible: a peer that closes without close_notify gives b"", like a peer without TLS.  SMTP marks the
        # ends of commands, replies and content itself, so that nothing can be cut short unnoticed.
        self.usable = False
        self._socket = None
        self._context = _ContextWithAlerts(context)
        try:
            stream = trio.SSLStream(
                self._stream,
                cast("ssl.SSLContext", self._context),
                server_side=server_side,
                server_hostname=server_hostname,
                https_compatible=True,
            )
        except (ValueError, ssl.SSLError) as error:  # `server_hostname` is a name that no certificate can have
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
        """Close the sending direction, and discard what the peer sends until it closes, for `limit` seconds at most.

        Without this a peer may never read the last reply: TCP resets a connection that is closed with unread octets.
        """
        if self.usable and not self.tls:
            await self._wait_for_close(limit)

    async def _wait_for_close(self, limit: float) -> None:
        with trio.move_on_after(limit), contextlib.suppress(trio.BrokenResourceError):
            await cast("trio.abc.HalfCloseableStream", self._stream).send_eof()
            while await self._stream.receive_some(RECEIVE):
                pass

    def close_now(self) -> bool:
        """Close a connection to which no goodbye is due, at once; False for others, which `aclose` closes."""
        if self._socket is None:
            return False
        self.usable = False
        self._socket.close()
        return True

    async def aclose(self) -> None:
        """Close the connection: with TLS's close_notify if it is usable, within CLOSE_LIMIT seconds."""
        if self.usable:
            self.usable = False
            with trio.move_on_after(CLOSE_LIMIT):
                await self._stream.aclose()
        else:
            await trio.aclose_forcefully(self._stream)


def _number(context: ssl.SSLContext, name: str) -> str:
    """The number of a cipher suite in IANA's registry, as `0xC02F`, for a suite without known name (RFC 8314 4.3)."""
    return next((f"0x{cipher['id'] & 0xFFFF:04X}" for cipher in context.get_ciphers() if cipher["name"] == name), "")


class _ContextWithAlerts:
    """A TLS context for `trio.SSLStream` that keeps the alert of a failed handshake, so that it can be sent.

    The alert tells the peer what was wrong (RFC 8446 6.2); `trio.SSLStream` drops it.  That stream calls nothing of a
    context but `wrap_bio`.
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
        """Send the alert that OpenSSL has left, if `error` came from TLS; returns whether there was an alert."""
        alert = self._outgoing.read()
        if not alert or not isinstance(stream, trio.SSLStream) or not isinstance(error.__cause__, ssl.SSLError):
            return False
        with trio.move_on_after(ALERT_LIMIT), contextlib.suppress(trio.BrokenResourceError):
            await stream.transport_stream.send_all(alert)
        return True


def _explain(error: trio.BrokenResourceError) -> str:
    """The reason of an error, in a few words."""
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
