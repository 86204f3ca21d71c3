"""The settings of an SMTP client: those that all connections share, those of one route, and the endpoint of one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import trio

from trimta.routing.routes import TlsPolicy
from trimta.runtime.tls import (
    TlsError,
    first_authority_is_good,
    opportunistic_context,
    trusting_nobody,
    verified_context,
)

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from trimta.config.model import TimeoutsSection
    from trimta.outbound.egress import EgressPolicy
    from trimta.runtime.disk import Disk
    from trimta.smtp.sasl import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a host: an IP address and a TCP port, or a unix socket."""

    host: str
    """The host's name: for TLS, logs and DSNs."""
    address: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether the connection stays on this machine, where nobody listens in between."""
        return self.path is not None or ipaddress.ip_address(self.address.partition("%")[0]).is_loopback

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        address = f"[{self.address}]:{self.port}"
        return address if self.host == self.address else f"{self.host} {address}"


class Dial(Protocol):
    """A way to make a connection."""

    async def __call__(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Connect.  Raises OSError if nobody answers; a cancelled call leaves nothing open."""


class TlsContexts:
    """The TLS contexts of a client, one for each answer to the question whether the host's certificate is verified."""

    def __init__(
        self, *, opportunistic: ssl.SSLContext, verifying: ssl.SSLContext | None = None, trouble: str = ""
    ) -> None:
        """`verifying`: None for one that trusts the authorities of the environment, read when it is first needed."""
        self.opportunistic = opportunistic
        """Accepts every certificate."""
        self.trouble = trouble
        """Why the verifying context trusts no authority, in words for people: the file or folder that the environment
        names is of no use.  Empty if it does.
        """
        self._verifying = verifying
        self._reader = trio.CapacityLimiter(1)
        """Of its own: a disk that hangs keeps the thread, and Trio's default limiter is shared."""

    @classmethod
    def load(cls, ca: Path | None = None) -> Self:
        """Read the certificates of the authorities: those of the configuration's file `ca`.  Blocks.  Those of the
        environment or the system are only looked at, and read when they are needed: most servers never do.

        Raises TlsError if `ca` can't be read.  Others may be missing, since mail whose route asks for no verification
        can go out without them.
        """
        opportunistic = opportunistic_context()
        if ca is not None:
            return cls(opportunistic=opportunistic, verifying=verified_context(ca))
        contexts = cls(opportunistic=opportunistic)
        if not first_authority_is_good():  # told at the start, and true until the next reload
            contexts._verifying = contexts._read()
        return contexts

    async def verifying(self) -> ssl.SSLContext:
        """The context that accepts certificates which an authority has signed.  The caller limits the time."""
        if self._verifying is not None:
            return self._verifying
        return await trio.to_thread.run_sync(self._read, abandon_on_cancel=True, limiter=self._reader)

    def _read(self) -> ssl.SSLContext:
        """Read the certificates that the environment names, or the system's.  Blocks.

        A failure is not kept: descriptors may have been short, and the next connection tries again.
        """
        if self._verifying is None:
            try:
                self._verifying = verified_context()
            except TlsError as cause:
                self.trouble = str(cause)
                return trusting_nobody()
            self.trouble = ""
        return self._verifying


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The settings that all connections of a server to other hosts share."""

    hostname: str
    """The name in EHLO (RFC 5321 4.1.1.1)."""
    timeouts: TimeoutsSection
    egress: EgressPolicy
    tls: TlsContexts
    disk: Disk
    dial: Dial | None = None
    """How connections are made once `egress` has allowed them; None: over TCP and unix sockets."""

    async def connect(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Connect to an endpoint.  Raises EgressDeniedError before any packet if `egress` does not allow it, OSError if
        nobody answers.  The timeout is the caller's.
        """
        if endpoint.path is None:
            self.egress.check(endpoint.host, endpoint.address, endpoint.port)
        if self.dial is not None:
            return await self.dial(endpoint)
        if endpoint.path is not None:
            return await self.egress.connect_unix(endpoint.path)
        return await self.egress.connect(endpoint.host, endpoint.address, endpoint.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """The settings that a route has for the connections to its hosts."""

    lmtp: bool = False
    tls: TlsPolicy = TlsPolicy.MAY
    implicit_tls: bool = False
    """TLS begins at once (RFC 8314 3.3), not by STARTTLS."""
    credentials: Credentials | None = None
    """For AUTH; None: no AUTH."""
    smarthost: bool = False
    """The route names the host, so that an AUTH which the host requires is for the route to give."""
