"""SASL exchanges (RFC 4422, 4954): PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), both sides.

Exchanges take and give decoded octets: the connection does Base64 and lines.  The caller verifies passwords.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from trimta.smtp.errors import CommandRefusedError, ProtocolError
from trimta.smtp.lines import printable

if TYPE_CHECKING:
    from collections.abc import Collection

    from trimta.mail.reply import Reply

MECHANISMS: Final = ("PLAIN", "LOGIN")
"""The mechanisms of this module, the preferred first."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge of the server, not in Base64."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """The name and password that a client claims to have, to be verified."""

    name: str
    password: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password in every form in which the wire may have it, and in clear, the longest first."""
        if not self.password:
            return ()
        plain = f"\0{self.name}\0{self.password}".encode()
        return (_base64(plain), _base64(self.password.encode()), self.password)


ExchangeStep: TypeAlias = Challenge | Credentials


class ServerExchange(Protocol):
    """The server's side of one AUTH command."""

    def step(self, response: bytes | None) -> ExchangeStep:
        """Take the initial response (None if there is none), or the client's answer to the last challenge.

        Raises CommandRefusedError, with the reply, for a malformed response, which ends the exchange.
        """


class PlainServer:
    """PLAIN, with name and password in one response (RFC 4616).  `lenient` as in server_exchange."""

    def __init__(self, *, lenient: bool = False) -> None:
        self._lenient = lenient

    def step(self, response: bytes | None) -> ExchangeStep:
        """See ServerExchange."""
        if response is None:
            return Challenge(b"")
        fields = response.split(b"\0")
        if len(fields) != 3 or not (fields[1] or self._lenient):
            raise CommandRefusedError.of(501, "5.5.2", "PLAIN needs [authorization] NUL name NUL password")
        if self._lenient:
            return Credentials(_lenient_name(fields[1]), _lenient_text(fields[2]))
        authorization, name, password = (_text(octets) for octets in fields)
        if authorization not in ("", name):
            raise CommandRefusedError.of(535, "5.7.8", "nobody may act for somebody else here")
        return Credentials(name, password)


class LoginServer:
    """LOGIN: the name, which may be the initial response, then the password.  `lenient` as in server_exchange."""

    def __init__(self, *, lenient: bool = False) -> None:
        self._lenient = lenient
        self._name: str | None = None

    def step(self, response: bytes | None) -> ExchangeStep:
        """See ServerExchange."""
        if response is None:
            return Challenge(b"Username:")
        if self._name is None:
            self._name = _lenient_name(response) if self._lenient else _text(response)
            return Challenge(b"Password:")
        return Credentials(self._name, _lenient_text(response) if self._lenient else _text(response))


def server_exchange(mechanism: str, *, lenient: bool = False) -> ServerExchange:
    """A new exchange for one of MECHANISMS.  Raises KeyError for another mechanism.

    `lenient`: whether any credentials are accepted, so that a name, password or authorization identity may also be
    empty, not UTF-8 (read as Latin-1 then), or another user's.
    """
    match mechanism:
        case "PLAIN":
            return PlainServer(lenient=lenient)
        case "LOGIN":
            return LoginServer(lenient=lenient)
        case _:
            raise KeyError(mechanism)


class ClientExchange(Protocol):
    """The client's side of one AUTH command."""

    mechanism: str

    def initial(self) -> bytes | None:
        """The initial response to send with AUTH; None without one."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge.

        Raises ProtocolError for a challenge that the mechanism does not have; the caller then cancels AUTH.
        """


class PlainClient:
    """PLAIN, with name and password as initial response (RFC 4616)."""

    mechanism = "PLAIN"

    def __init__(self, name: str, password: str) -> None:
        self._response = b"\0" + name.encode() + b"\0" + password.encode()
        self._asked = False

    def initial(self) -> bytes | None:
        """See ClientExchange."""
        return self._response

    def respond(self, challenge: bytes) -> bytes:
        """The answer to one empty challenge, with which a server may ask for the initial response again."""
        if challenge or self._asked:
            raise ProtocolError("PLAIN has no challenge")
        self._asked = True
        return self._response


class LoginClient:
    """LOGIN, with name and password as answers to two challenges, whose texts differ among servers and don't count."""

    mechanism = "LOGIN"

    def __init__(self, name: str, password: str) -> None:
        self._answers = [password.encode(), name.encode()]

    def initial(self) -> bytes | None:
        """See ClientExchange."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """See ClientExchange."""
        if not self._answers:
            raise ProtocolError(f"LOGIN has two challenges, this is a third: {challenge[:40]!r}")
        return self._answers.pop()


def client_exchange(offered: Collection[str], name: str, password: str) -> ClientExchange | None:
    """An exchange with the preferred mechanism among those offered (in upper case); None without a known one."""
    if "PLAIN" in offered:
        return PlainClient(name, password)
    return LoginClient(name, password) if "LOGIN" in offered else None


def challenge_of(reply: Reply) -> bytes:
    """The decoded challenge of a 334 reply.  Raises ProtocolError if it is not Base64."""
    try:
        return base64.b64decode("".join(reply.lines).strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("a challenge that is not Base64") from error


def decode_response(octets: bytes) -> bytes:
    """A client's response, decoded from Base64 (RFC 4954 4).  Raises CommandRefusedError (501) if it is not Base64."""
    try:
        return base64.b64decode(octets, validate=True)
    except binascii.Error as error:
        raise CommandRefusedError.of(501, "5.5.2", "not Base64") from error


def render_response(response: bytes) -> bytes:
    """The octets of the line that answers a 334, CRLF included."""
    return base64.b64encode(response) + b"\r\n"


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise CommandRefusedError.of(501, "5.5.2", "names and passwords are UTF-8") from None


def _lenient_text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _lenient_name(octets: bytes) -> str:
    return printable(_lenient_text(octets))  # for display only: a lenient name is not compared
