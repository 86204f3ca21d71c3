"""One connection: TLS policies, the way to the first MAIL, the wire below, and the door out."""

from __future__ import annotations

import contextlib
import ssl
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from tests.support.fake_mx import DROP, MODERN, PLAIN, STALL, FakeMx, FakeNet, Raw
from tests.support.sending import BODY, HEAD, WIRE, contexts, envelope, sending
from trimta.config.model import EgressSection
from trimta.mail.outcome import Delivered
from trimta.outbound.egress import EgressDeniedError, EgressPolicy
from trimta.outbound.transports.client_conversation import HostUnusableError
from trimta.outbound.transports.client_settings import Endpoint, RouteSettings, TlsContexts
from trimta.outbound.transports.connection import SmtpConnection
from trimta.outbound.transports.outbound_content import OutboundContent
from trimta.routing.routes import TlsPolicy
from trimta.runtime.tls import verified_context
from trimta.runtime.transcript import Transcript
from trimta.runtime.wire import HandshakeError, Wire, WireError
from trimta.smtp.outbound import OutboundTransaction
from trimta.smtp.sasl import Credentials
from trimta.store.spool import Body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from trimta.outbound.transports.client_settings import ClientSettings

ADDRESS = "192.0.2.1"
MX = Endpoint(host="mx.x.test", address=ADDRESS, port=25)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def server_context(ca: trustme.CA, name: str = "mx.x.test") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


async def converse(
    mx: FakeMx, route: RouteSettings, *, endpoint: Endpoint = MX, settings: dict[str, Any] | None = None
) -> tuple[list[str], SmtpConnection]:
    """Open a connection, send one message and quit; returns the transcript."""
    transcript = Transcript()
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, {endpoint.address: mx})
        shared = sending(net, **(settings or {}))
        try:
            connection = await SmtpConnection.open(endpoint, route, shared, transcript)
            await send_one(connection, shared)
            await connection.quit()
        except HostUnusableError as trouble:
            nursery.cancel_scope.cancel()
            kept = trouble
        else:
            nursery.cancel_scope.cancel()
            return [line for _, line in transcript.lines], connection
    raise kept


async def send_one(connection: SmtpConnection, shared: ClientSettings) -> None:
    content = await OutboundContent(HEAD, Body.of(BODY)).fitted(connection.offered, shared.disk)
    await connection.reset()
    transaction = OutboundTransaction(envelope(), content.facts, connection.offered, lmtp=connection.lmtp)
    await connection.perform(transaction, content)
    (outcome,) = transaction.outcomes
    assert isinstance(outcome, Delivered)


STARTTLS = (*MODERN, "STARTTLS")
OFFER = "250-fake.test\n250 STARTTLS"


def want_client_certificate(context: ssl.SSLContext, ca: trustme.CA) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)


@pytest.mark.parametrize(
    ("policy", "extensions", "name", "secure"),
    [
        (TlsPolicy.NONE, STARTTLS, "mx.x.test", False),
        (TlsPolicy.MAY, STARTTLS, "mx.x.test", True),
        (TlsPolicy.MAY, STARTTLS, "other.test", True),
        (TlsPolicy.MAY, MODERN, "mx.x.test", False),
        (TlsPolicy.ENCRYPT, STARTTLS, "other.test", True),
        (TlsPolicy.VERIFY, STARTTLS, "mx.x.test", True),
    ],
)
async def test_tls_is_used_as_the_policy_says(
    policy: TlsPolicy,
    extensions: Sequence[str],
    name: str,
    secure: bool,
    ca: trustme.CA,
    ca_file: Path,
    autojump_clock: MockClock,
) -> None:
    mx = FakeMx(extensions=extensions, tls=server_context(ca, name))
    lines, _ = await converse(mx, RouteSettings(tls=policy), settings={"tls": contexts(ca_file)})
    assert mx.accepted[0].body == WIRE
    assert mx.tls_used == [secure]
    assert [command for command in mx.commands if command.startswith("EHLO")] == ["EHLO here.test"] * (1 + secure)
    assert any(line.startswith("TLSv1.") for line in lines) is secure


@pytest.mark.parametrize(
    ("policy", "extensions", "script", "status"),
    [
        (TlsPolicy.ENCRYPT, MODERN, {}, "4.7.4"),
        (TlsPolicy.ENCRYPT, STARTTLS, {"starttls": "454 4.7.0 no certificate"}, "4.7.4"),
        (TlsPolicy.ENCRYPT, STARTTLS, {"tls": DROP}, "4.7.4"),
        (TlsPolicy.ENCRYPT, STARTTLS, {"tls": STALL}, "4.7.4"),
        (TlsPolicy.ENCRYPT, STARTTLS, {"tls": Raw(b"not TLS at all, sorry")}, "4.7.4"),
        (TlsPolicy.ENCRYPT, STARTTLS, {"ehlo": "502 what"}, "4.7.4"),
        (TlsPolicy.VERIFY, MODERN, {}, "4.7.5"),
        (TlsPolicy.VERIFY, STARTTLS, {"tls": DROP}, "4.7.5"),
        (TlsPolicy.VERIFY, STARTTLS, {"name": "other.test"}, "4.7.5"),
        (TlsPolicy.VERIFY, STARTTLS, {"authority": "unknown"}, "4.7.5"),
        *(
            (policy, STARTTLS, script, status)
            for policy, status in ((TlsPolicy.ENCRYPT, "4.7.4"), (TlsPolicy.VERIFY, "4.7.5"))
            for script in (
                {"starttls": Raw(b"220 go\r\n250 injected\r\n")},
                {"starttls": DROP},
                {"starttls": STALL},
                {"ehlo": [OFFER, DROP]},
                {"ehlo": [OFFER, STALL]},
                {"client_certificate": True},
            )
        ),
        (TlsPolicy.ENCRYPT, STARTTLS, {"ehlo": [OFFER, "554 5.7.1 not you"], "helo": "554 5.7.1 no"}, "4.7.1"),
    ],
)
async def test_without_the_tls_that_is_wanted_nothing_is_sent(
    policy: TlsPolicy,
    extensions: Sequence[str],
    script: dict[str, Any],
    status: str,
    ca: trustme.CA,
    ca_file: Path,
    autojump_clock: MockClock,
) -> None:
    authority = trustme.CA() if script.get("authority") else ca
    context = server_context(authority, script.get("name", "mx.x.test"))
    if script.get("client_certificate"):
        want_client_certificate(context, ca)
    mx = FakeMx(script, extensions=extensions, tls=context)
    with pytest.raises(HostUnusableError) as caught:
        await converse(mx, RouteSettings(tls=policy), settings={"tls": contexts(ca_file)})
    assert str(caught.value.status) == status
    assert not any(command.startswith("MAIL") for command in mx.commands)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "script",
    [
        {"tls": DROP},
        {"tls": STALL},
        {"tls": Raw(b"not TLS at all, sorry")},
        {"starttls": DROP},
        {"starttls": STALL},
        {"starttls": "421 4.3.2 bye"},
        {"starttls": Raw(b"220 go\r\n250 glued\r\n")},
        {"starttls": Raw(b"220 go\r\nglued")},
        {"starttls": Raw(b"220 go\r\n\r\n")},
        {"ehlo": [OFFER, DROP, "250 fake.test"]},
        {"ehlo": [OFFER, STALL, "250 fake.test"]},
        {"ehlo": [OFFER, Raw(b"\x00" * 100_000), "250 fake.test"]},
        {"ehlo": [OFFER, "554 5.7.1 no", "250 fake.test"], "helo": "554 5.7.1 no"},
        {},  # it wants a certificate of ours, which with TLS 1.3 it says after our last word
    ],
)
async def test_may_does_without_tls_when_it_comes_to_nothing(
    script: dict[str, Any], version: ssl.TLSVersion, ca: trustme.CA, autojump_clock: MockClock
) -> None:
    context = server_context(ca)
    context.maximum_version = version
    if not script:
        want_client_certificate(context, ca)
    mx = FakeMx(script, extensions=STARTTLS, tls=context)
    lines, _ = await converse(mx, RouteSettings(tls=TlsPolicy.MAY))
    assert mx.connections == 2
    assert mx.tls_used == [False]
    assert "trying again without TLS" in lines


async def test_what_verifies_waits_with_the_reason_where_the_authorities_of_the_environment_are_gone(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
        settings = {"tls": TlsContexts.load()}
    mx = FakeMx(extensions=STARTTLS, tls=server_context(ca))
    with pytest.raises(HostUnusableError, match=r"SSL_CERT_FILE=.*gone\.pem") as caught:
        await converse(mx, RouteSettings(tls=TlsPolicy.VERIFY), settings=settings)
    assert str(caught.value.status) == "4.7.5"
    await converse(mx, RouteSettings(tls=TlsPolicy.ENCRYPT), settings=settings)
    assert mx.tls_used == [True]


async def test_may_goes_on_when_starttls_is_refused(ca: trustme.CA, autojump_clock: MockClock) -> None:
    mx = FakeMx({"starttls": "454 4.7.0 not now"}, extensions=STARTTLS, tls=server_context(ca))
    await converse(mx, RouteSettings(tls=TlsPolicy.MAY))
    assert mx.connections == 1
    assert mx.tls_used == [False]


async def test_what_was_offered_before_tls_does_not_count(ca: trustme.CA, autojump_clock: MockClock) -> None:
    mx = FakeMx(extensions=STARTTLS, after_tls=("SIZE",), tls=server_context(ca))
    _, connection = await converse(mx, RouteSettings(tls=TlsPolicy.MAY))
    assert set(connection.offered.keywords) == {"SIZE"}


@pytest.mark.parametrize("policy", [TlsPolicy.ENCRYPT, TlsPolicy.VERIFY])
async def test_implicit_tls_comes_before_the_greeting(
    policy: TlsPolicy, ca: trustme.CA, ca_file: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=(*PLAIN, "AUTH PLAIN"), tls=server_context(ca), implicit_tls=True, passwords={"u": "p"})
    route = RouteSettings(tls=policy, implicit_tls=True, credentials=Credentials("u", "p"))
    await converse(mx, route, settings={"tls": contexts(ca_file)})
    assert mx.tls_used == [True]
    assert mx.logins == [("u", "p")]


@pytest.mark.parametrize(
    "script",
    [
        {"auth": "535 5.7.8 no: pass word"},
        {"auth": "535-5.7.8 no: AHUAcGFzcyB3b3Jk\n535 5.7.8 or cGFzcyB3b3Jk"},
        {"auth": Raw(b"535-no\r\nwhat is pass word?\r\n535 go\r\n")},
        {"rcpt": "550 5.7.1 you are u with pass word"},
        {"auth": "235 2.7.0 welcome, pass word", "body": "554 5.7.1 no pass word"},
    ],
)
async def test_a_peer_that_repeats_the_password_does_not_tell_it(
    script: dict[str, Any], autojump_clock: MockClock
) -> None:
    mx = FakeMx(script, extensions=(*PLAIN, "AUTH PLAIN"), passwords={"u": "pass word"})
    transcript, said = Transcript(), ""
    async with trio.open_nursery() as nursery:
        shared = sending(FakeNet(nursery, {"127.0.0.1": mx}))
        try:
            connection = await SmtpConnection.open(
                Endpoint(host="mx.x.test", address="127.0.0.1", port=25),
                RouteSettings(tls=TlsPolicy.NONE, credentials=Credentials("u", "pass word")),
                shared,
                transcript,
            )
            content = await OutboundContent(HEAD, Body.of(BODY)).fitted(connection.offered, shared.disk)
            transaction = OutboundTransaction(envelope(), content.facts, connection.offered)
            await connection.perform(transaction, content)
            (outcome,) = transaction.outcomes
            said = outcome.cause.diagnostic
            await connection.quit()
        except HostUnusableError as trouble:
            said = str(trouble)
        nursery.cancel_scope.cancel()
    assert "***" in said
    for secret in ("pass word", "cGFzcyB3b3Jk", "AHUAcGFzcyB3b3Jk"):
        assert secret not in "\n".join([said, *(line for _, line in transcript.lines)])


async def test_the_first_octet_is_told(autojump_clock: MockClock) -> None:
    heard: list[float] = []
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, {ADDRESS: FakeMx()})
        connection = await SmtpConnection.open(
            MX, RouteSettings(), sending(net), Transcript(), lambda: heard.append(trio.current_time())
        )
        assert heard
        await connection.aclose()
        nursery.cancel_scope.cancel()


async def test_a_slow_quit_is_not_waited_for(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await converse(FakeMx({"quit": STALL}), RouteSettings())
    assert trio.current_time() - began <= 1.0


async def test_a_peer_that_does_not_read_is_given_up(autojump_clock: MockClock) -> None:
    """The lockstep stream takes nothing until the other side reads."""

    async def answer(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"220 hi\r\n")
        await stream.receive_some()
        await stream.send_all(b"250 mx.x.test\r\n")
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await stream.receive_some()
            await stream.send_all(reply)
        await trio.sleep_forever()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        class Net:
            async def dial(self, _: Endpoint) -> trio.abc.Stream:
                await trio.lowlevel.checkpoint()
                ours, theirs = trio.testing.lockstep_stream_pair()
                nursery.start_soon(answer, theirs)
                return ours

        shared = sending(Net())  # type: ignore[arg-type]
        connection = await SmtpConnection.open(MX, RouteSettings(), shared, Transcript())
        with pytest.raises(HostUnusableError, match="nothing could be sent for 180 s") as caught:
            await send_one(connection, shared)
        assert str(caught.value.status) == "4.4.2"
        assert not connection.healthy
        await connection.quit()
        assert trio.current_time() - began <= 182
        nursery.cancel_scope.cancel()


# The wire.


async def test_a_cancelled_send_leaves_the_wire_unusable(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    wire = Wire(ours)
    with trio.move_on_after(1):
        await wire.send_all(b"x" * 100)
    assert not wire.usable
    with pytest.raises(WireError):
        await wire.send_all(b"y")
    await wire.aclose()
    await theirs.aclose()


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours)
    with trio.move_on_after(1):
        await wire.receive_some()
    assert wire.usable
    await theirs.send_all(b"hello")
    assert await wire.receive_some() == b"hello"
    await theirs.aclose()
    assert await wire.receive_some() == b""
    await wire.aclose()


async def test_tls_can_be_started_on_either_side(ca: trustme.CA, ca_file: Path) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    client, server = Wire(ours), Wire(theirs)
    assert not client.tls
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: server.start_tls(server_context(ca), server_side=True))
        await client.start_tls(verified_context(ca_file), server_hostname="mx.x.test")
    assert client.tls
    assert client.tls_version == server.tls_version != ""
    assert client.tls_cipher != ""
    await server.send_all(b"secret")
    assert await client.receive_some() == b"secret"
    await server.aclose()
    assert await client.receive_some() == b""
    await client.aclose()


async def test_a_handshake_says_whether_the_certificate_was_the_reason(ca: trustme.CA, ca_file: Path) -> None:
    for name, untrusted in (("other.test", True), ("", False)):
        ours, theirs = trio.testing.memory_stream_pair()
        client, server = Wire(ours), Wire(theirs)

        async def serve(server: Wire = server, name: str = name) -> None:
            if name:
                with contextlib.suppress(WireError):
                    await server.start_tls(server_context(ca, name), server_side=True)
                    await server.receive_some()
            await server.aclose()

        async with trio.open_nursery() as nursery:
            if name:
                nursery.start_soon(serve)
            else:
                await theirs.aclose()
            with pytest.raises(HandshakeError) as caught:
                await client.start_tls(verified_context(ca_file), server_hostname="mx.x.test")
            assert caught.value.untrusted is untrusted
            assert not client.usable
            await client.aclose()


# The door out.


async def test_real_connections_pass_the_policy_and_carry_a_message() -> None:
    mx = FakeMx()
    async with trio.open_nursery() as nursery:
        port = await mx.listen(nursery)
        shared = sending(None, allow=["127.0.0.0/8"])
        connection = await SmtpConnection.open(
            Endpoint(host="localhost", address="127.0.0.1", port=port), RouteSettings(), shared, Transcript()
        )
        await send_one(connection, shared)
        await connection.quit()
        with pytest.raises(EgressDeniedError) as caught:
            await SmtpConnection.open(
                Endpoint(host="far.test", address=ADDRESS, port=25), RouteSettings(), shared, Transcript()
            )
        assert str(caught.value) == "egress.allow has no room for far.test [192.0.2.1]:25"
        nursery.cancel_scope.cancel()
    assert mx.accepted[0].body == WIRE


async def test_nothing_listening_is_no_connection(tmp_path: Path) -> None:
    shared = sending(None)
    with pytest.raises(HostUnusableError) as caught:
        await SmtpConnection.open(
            Endpoint(host="localhost", path=tmp_path / "none"), RouteSettings(), shared, Transcript()
        )
    assert str(caught.value.status) == "4.4.1"


def test_the_policy_names_what_it_denies() -> None:
    policy = EgressPolicy(EgressSection(allow=(ip_network("127.0.0.0/8"),)))
    policy.check("localhost", "127.0.0.1", 25)
    with pytest.raises(EgressDeniedError, match=r"\[::1\]:25"):
        policy.check("::1", "::1", 25)


def test_a_transcript_is_bounded_and_printable() -> None:
    moments = iter(range(100))
    transcript = Transcript(lambda: next(moments), first=2, last=2)
    for number in range(10):
        transcript.server(f"{number}\r\n\x1b" + "x" * 1000)
    assert [(at, line[:7]) for at, line in transcript.lines] == [
        (0, "S: 0???"),
        (1, "S: 1???"),
        (8, "… (6 li"),
        (8, "S: 8???"),
        (9, "S: 9???"),
    ]
    assert all(len(line) < 510 for _, line in transcript.lines)
