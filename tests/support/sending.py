"""What tests of the sending side share: recipients, messages, a resolver that knows its answers, settings."""

from __future__ import annotations

import functools
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import trio

from trimta.config.model import EgressSection, TimeoutsSection
from trimta.mail.address import parse_mailbox
from trimta.mail.body import BodyForm
from trimta.mail.envelope import Envelope, Recipient, Terms
from trimta.mail.status import EnhancedStatus
from trimta.outbound.egress import EgressPolicy
from trimta.outbound.resolver import Host, MxHosts, RoutingFailure
from trimta.outbound.transports.attempt import OutboundMessage
from trimta.outbound.transports.client_settings import ClientSettings, TlsContexts
from trimta.outbound.transports.outbound_content import OutboundContent
from trimta.runtime.disk import InlineDisk
from trimta.runtime.tls import opportunistic_context, verified_context
from trimta.store.spool import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.fake_mx import FakeNet
    from trimta.mail.outcome import Outcome
    from trimta.outbound.resolver import Routing

HEAD = b"Received: from client by here.test; now\n"
BODY = b"Subject: hi\n\n.dot\nbye\n"
WIRE = b"Received: from client by here.test; now\r\nSubject: hi\r\n\r\n.dot\r\nbye\r\n"


def recipient(address: str, **options: Any) -> Recipient:
    mailbox = parse_mailbox(address)
    return Recipient(address=mailbox, original=mailbox, **options)


def envelope(*addresses: str, sender: str | None = "me@here.test", **options: Any) -> Envelope:
    """From `sender`, to these addresses or one default; `options` are further terms."""
    return Envelope(
        terms=Terms(reverse_path=parse_mailbox(sender) if sender else None, **options),
        recipients=tuple(recipient(address) for address in addresses or ("a@x.test",)),
    )


def outbound(*addresses: str, content: bytes | Body = BODY, name: str = "M", **options: Any) -> OutboundMessage:
    """One message with a Received field on top."""
    found = envelope(*addresses, **options)
    body = content if isinstance(content, Body) else Body.of(content, BodyForm.of(found.terms.body))
    return OutboundMessage(id=name, envelope=found, content=OutboundContent(HEAD, body))


@functools.cache
def contexts(ca: Path | None = None) -> TlsContexts:
    return TlsContexts(opportunistic=opportunistic_context(), verifying=verified_context(ca))


def sending(net: FakeNet | None, *, allow: Sequence[str] = ("0.0.0.0/0", "::/0"), **options: Any) -> ClientSettings:
    """Settings for connections that `net` makes, or real ones without it."""
    options.setdefault("timeouts", TimeoutsSection())
    options.setdefault("tls", contexts())
    return ClientSettings(
        hostname="here.test",
        egress=EgressPolicy(EgressSection(allow=tuple(ip_network(network) for network in allow))),
        disk=InlineDisk(),
        dial=net.dial if net is not None else None,
        **options,
    )


class FakeHosts:
    """A resolver: `FakeHosts({"x.test": [("mx.x.test", "192.0.2.1")], "gone.test": "5.1.2"})`."""

    def __init__(self, answers: Mapping[str, Sequence[tuple[str, ...]] | str]) -> None:
        self._answers = dict(answers)
        self.asked: list[str] = []

    async def resolve_mx(self, domain: str, *, port: int = 25) -> Routing:
        return await self._answer(domain, port)

    async def resolve_host(self, name: str, *, port: int = 25) -> Routing:
        return await self._answer(name, port)

    async def _answer(self, name: str, port: int) -> Routing:
        await trio.lowlevel.checkpoint()
        self.asked.append(name)
        answer = self._answers[name]
        if isinstance(answer, str):
            return RoutingFailure(EnhancedStatus.parse(answer), f"{name}: {answer}")
        return MxHosts(
            tuple(
                Host(host, preference, tuple(addresses), port) for preference, (host, *addresses) in enumerate(answer)
            )
        )


def verdicts(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """`{"a@x.test": "Deferred 4.4.2"}`."""
    return {str(outcome.recipient.address): f"{type(outcome).__name__} {outcome.status}" for outcome in outcomes}
