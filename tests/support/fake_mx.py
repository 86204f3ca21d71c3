"""A mail exchanger that does what a script says, and remembers what it was told.

    mx = FakeMx({"rcpt:bob@x.test": "451 4.2.1 later", "body": DROP}, extensions=("PIPELINING", "SIZE 1000"))

The script maps a stage to an action, or to a list of actions for the first, second … time (the last one repeats).

Stages: `connect ehlo helo starttls auth mail rcpt data bdat body rset quit`, and `rcpt:ADDRESS` for one recipient;
`tls` is the handshake, `body` the end of DATA or the last BDAT.  With LMTP `body:ADDRESS` is one recipient's reply.

Actions:
    "451 4.3.0 later"   reply with this; lines of a multi-line reply are separated by "\\n", as they are on the wire
    Raw(b"...")         write these octets instead of a reply
    DROP                close the connection without a reply
    STALL               say nothing, ever
    Late(5, "250 ok")   wait so many seconds of Trio's clock first
    Finally(...)        do this, then close

A body that is being sent can be met too: stage `during`, once some of it has come: DROP, STALL, or a reply and close.

It speaks through `trio.testing` memory streams (`FakeNet`, fit for MockClock) or real sockets (`listen`), and shares no
code with trimta.  What a client does that no server would forgive is in `violations`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
import trio.testing

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from trimta.outbound.transports.client_settings import Endpoint

PLAIN: Final = ("PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES")
MODERN: Final = (*PLAIN, "DSN", "CHUNKING", "BINARYMIME", "SMTPUTF8")


class _Mark:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


DROP: Final = _Mark("DROP")
STALL: Final = _Mark("STALL")


@dataclass(frozen=True, slots=True)
class Raw:
    octets: bytes
    code: int | None = None
    """What the fake itself takes it for; None: the digits that it begins with."""


@dataclass(frozen=True, slots=True)
class Late:
    seconds: float
    then: Action


@dataclass(frozen=True, slots=True)
class Finally:
    first: Action


Action: TypeAlias = "str | _Mark | Raw | Late | Finally"
Script: TypeAlias = "Mapping[str, Action | Sequence[Action]]"


class _ClosedError(Exception):
    """This connection is over."""


@dataclass(slots=True)
class Received:
    """One transaction as the server saw it."""

    mail: str
    """What followed "MAIL FROM:"."""
    rcpts: list[str] = field(default_factory=list)
    """What followed "RCPT TO:" in each that was accepted."""
    body: bytes = b""
    """As DATA or BDAT meant it: dots unstuffed, CRLF."""
    accepted: bool = False
    """The last reply was 2yz."""
    chunks: list[int] = field(default_factory=list)
    """Sizes of the BDATs."""


class FakeMx:
    """One host.  Every connection to it follows the same script, counting on."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        extensions: Sequence[str] = MODERN,
        after_tls: Sequence[str] | None = None,
        lmtp: bool = False,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        passwords: Mapping[str, str] | None = None,
    ) -> None:
        self.script = dict(script or {})
        self.extensions = tuple(extensions)
        self._script = {stage: list(_listed(actions)) for stage, actions in self.script.items()}
        self._after_tls = tuple(extension for extension in extensions if extension != "STARTTLS")
        if after_tls is not None:
            self._after_tls = tuple(after_tls)
        self._lmtp = lmtp
        self._tls = tls
        self._implicit_tls = implicit_tls
        self._passwords = dict(passwords or {})
        self.connections = 0
        self.commands: list[str] = []
        """Every command line, "." for the end of DATA; credentials as they came."""
        self.transactions: list[Received] = []
        """Each that had a body, whatever became of it."""
        self.logins: list[tuple[str, str]] = []
        self.tls_used: list[bool] = []
        """For each transaction with a body: whether it came by TLS."""
        self.violations: list[str] = []

    def __repr__(self) -> str:
        return f"FakeMx({self.script})"

    @property
    def accepted(self) -> list[Received]:
        """The messages that were taken."""
        return [received for received in self.transactions if received.accepted]

    def action(self, *stages: str) -> Action | None:
        """What the script says of the first of these stages that it knows; None: nothing."""
        for stage in stages:
            actions = self._script.get(stage)
            if actions:
                return actions.pop(0) if len(actions) > 1 else actions[0]
        return None

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, to its end."""
        self.connections += 1
        session = _Session(self, stream)
        try:
            await session.run()
        except (_ClosedError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(session.stream)

    async def listen(self, nursery: trio.Nursery, host: str = "127.0.0.1") -> int:
        """Serve on a free port of a real address; returns the port."""
        listeners = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(trio.serve_listeners, self.serve, listeners)
        port: int = listeners[0].socket.getsockname()[1]
        return port


class FakeNet:
    """Connects endpoints with fakes by address: `FakeNet(nursery, {"192.0.2.1": mx, "192.0.2.2": OSError(...)})`.

    An address with STALL never answers the connect; one that is not there refuses it.
    """

    def __init__(self, nursery: trio.Nursery, hosts: Mapping[str, FakeMx | OSError | _Mark]) -> None:
        self._nursery = nursery
        self._hosts = dict(hosts)
        self.tried: list[str] = []
        """The addresses, in the order of the connects."""

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Fit for `ClientSettings.dial`."""
        address = endpoint.address or str(endpoint.path)
        self.tried.append(address)
        await trio.lowlevel.checkpoint()
        match self._hosts.get(address):
            case None:
                raise ConnectionRefusedError(111, "Connection refused")
            case FakeMx() as mx:
                ours, theirs = trio.testing.memory_stream_pair()
                self._nursery.start_soon(mx.serve, theirs)
                return ours
            case OSError() as error:
                raise error
            case _:
                await trio.sleep_forever()
                raise AssertionError


class _Session:
    def __init__(self, mx: FakeMx, stream: trio.abc.Stream) -> None:
        self.mx = mx
        self.stream = stream
        self.buffer = b""
        self.current: Received | None = None
        self.binary = False
        self.tls = False

    # Octets.

    async def more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise _ClosedError
        self.buffer += data

    async def line(self) -> str:
        while b"\r\n" not in self.buffer:
            await self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode()

    async def octets(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.more()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    async def act(self, action: Action) -> int:
        """Carry it out; the code of the reply that was given, 0 for none."""
        match action:
            case Late(seconds, then):
                await trio.sleep(seconds)
                return await self.act(then)
            case Finally(first):
                await self.act(first)
                raise _ClosedError
            case Raw(octets, code):
                await self.stream.send_all(octets)
                if code is not None:
                    return code
                return int(octets[:3]) if octets[:3].isdigit() else 0
            case str():
                await self.stream.send_all(action.replace("\n", "\r\n").encode() + b"\r\n")
                return int(action[:3])
        if action is STALL:
            await trio.sleep_forever()
        raise _ClosedError

    async def answer(self, default: str, *stages: str) -> int:
        if "PIPELINING" not in self.offered and self.buffer and stages[-1] not in ("body", "quit"):
            self.mx.violations.append(f"pipelined after {stages[-1]} without PIPELINING")
        return await self.act(self.mx.action(*stages) or default)

    @property
    def offered(self) -> tuple[str, ...]:
        return self.mx._after_tls if self.tls else self.mx.extensions

    # The dialogue.

    async def run(self) -> None:
        if self.mx._implicit_tls:
            await self.start_tls()
        if await self.answer("220 fake.test ESMTP", "connect") // 100 not in (0, 2):
            self.mx.commands.append(await self.line())
            raise _ClosedError
        while True:
            line = await self.line()
            self.mx.commands.append(line)
            verb, _, argument = line.partition(" ")
            handler = getattr(self, f"do_{verb.lower()}", None)
            if handler is None:
                await self.answer("500 5.5.1 what?", "unknown")
            else:
                await handler(argument)

    async def do_ehlo(self, argument: str) -> None:
        lines = ["fake.test", *self.offered]
        last = len(lines) - 1
        text = "\n".join(f"250{' ' if number == last else '-'}{line}" for number, line in enumerate(lines))
        await self.answer(text, "ehlo")

    async def do_lhlo(self, argument: str) -> None:
        if not self.mx._lmtp:
            self.mx.violations.append("LHLO to SMTP")
        await self.do_ehlo(argument)

    async def do_helo(self, argument: str) -> None:
        await self.answer("250 fake.test", "helo")

    async def do_starttls(self, argument: str) -> None:
        if await self.answer("220 2.0.0 go ahead", "starttls") != 220:
            return
        if self.buffer:
            self.mx.violations.append("pipelined past STARTTLS")
        await self.start_tls()

    async def start_tls(self) -> None:
        action = self.mx.action("tls")
        if action is not None:
            await self.act(action)
        assert self.mx._tls is not None
        self.stream = trio.SSLStream(self.stream, self.mx._tls, server_side=True, https_compatible=True)
        await self.stream.do_handshake()
        self.tls = True

    async def do_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        if mechanism == "PLAIN":
            if not initial:
                await self.stream.send_all(b"334 \r\n")
                initial = await self.line()
            _, name, password = base64.b64decode(initial).decode().split("\0")
        else:
            await self.stream.send_all(b"334 VXNlcm5hbWU6\r\n")
            name = base64.b64decode(await self.line()).decode()
            await self.stream.send_all(b"334 UGFzc3dvcmQ6\r\n")
            password = base64.b64decode(await self.line()).decode()
        self.mx.logins.append((name, password))
        good = self.mx._passwords.get(name) == password
        await self.answer("235 2.7.0 welcome" if good else "535 5.7.8 no", "auth")

    async def do_mail(self, argument: str) -> None:
        if self.current is not None:
            self.mx.violations.append("MAIL inside a transaction")
        if await self.answer("250 2.1.0 ok", "mail") == 250:
            self.current = Received(argument.removeprefix("FROM:"))
            self.binary = "BODY=BINARYMIME" in argument

    async def do_rcpt(self, argument: str) -> None:
        path = argument.removeprefix("TO:")
        found = re.match(r"<(.*)>", path)
        if self.current is None:
            await self.act("503 5.5.1 MAIL first")
        elif await self.answer("250 2.1.5 ok", f"rcpt:{found[1] if found else path}", "rcpt") // 100 == 2:
            self.current.rcpts.append(path)

    async def do_data(self, argument: str) -> None:
        if self.buffer:
            self.mx.violations.append("pipelined past DATA")
        if self.binary:
            self.mx.violations.append("DATA with BODY=BINARYMIME")
        valid = self.current is not None and self.current.rcpts
        if await self.answer("354 go ahead" if valid else "554 5.5.1 no recipients", "data") != 354:
            return
        received = self.current or Received("")
        received.body = await self.data()
        self.mx.commands.append(".")
        await self.finish(received)

    async def data(self) -> bytes:
        during = self.mx.action("during")
        if during is not None:
            await self.more()
            await self.act(during)
            raise _ClosedError
        while not self.buffer.startswith(b".\r\n") and b"\r\n.\r\n" not in self.buffer:
            await self.more()
        if self.buffer.startswith(b".\r\n"):
            self.buffer = self.buffer[3:]
            return b""
        raw, self.buffer = self.buffer.split(b"\r\n.\r\n", 1)
        return re.sub(rb"(?m)^\.", b"", raw + b"\r\n")

    async def do_bdat(self, argument: str) -> None:
        size, _, last = argument.partition(" ")
        during = self.mx.action("during")
        if during is not None:
            await self.more()
            await self.act(during)
            raise _ClosedError
        chunk = await self.octets(int(size))
        if self.current is None or not self.current.rcpts:
            await self.act("503 5.5.1 no recipients")
            return
        self.current.body += chunk
        self.current.chunks.append(int(size))
        if last:
            await self.finish(self.current)
        elif await self.answer("250 2.0.0 more", "bdat") != 250:
            self.current.rcpts.clear()

    async def finish(self, received: Received) -> None:
        if not received.rcpts:
            await self.answer("554 5.5.1 nobody wanted it", "body")
            self.current = None
            return
        self.mx.transactions.append(received)
        self.mx.tls_used.append(self.tls)
        self.current = None
        if self.mx._lmtp:
            for path in received.rcpts:
                address = path[1 : path.index(">")]
                code = await self.answer(f"250 2.1.5 {address} has it", f"body:{address}", "body")
                received.accepted = received.accepted or code == 250
        else:
            received.accepted = await self.answer("250 2.0.0 queued as FAKE", "body") == 250

    async def do_rset(self, argument: str) -> None:
        self.current = None
        await self.answer("250 2.0.0 forgotten", "rset")

    async def do_quit(self, argument: str) -> None:
        await self.answer("221 2.0.0 bye", "quit")
        raise _ClosedError


def _listed(actions: Action | Sequence[Action]) -> Sequence[Action]:
    return actions if isinstance(actions, list | tuple) else [actions]  # type: ignore[list-item]
