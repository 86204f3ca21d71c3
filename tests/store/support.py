"""Messages and envelopes for the queue's tests."""

from __future__ import annotations

from typing import Any

from trimta.mail.address import Mailbox
from trimta.mail.body import BodyForm
from trimta.mail.envelope import BodyKind, Recipient, Terms
from trimta.mail.outcome import Deferred, LocalCause
from trimta.mail.status import EnhancedStatus
from trimta.store.queue.values import EnvelopeState, NewEnvelope, StoredMessage
from trimta.store.spool import Body

NOW = 1_700_000_000.0
ALICE = Mailbox("alice", "dev.test")


def recipient(name: str, domain: str = "far.test") -> Recipient:
    return Recipient(address=Mailbox(name, domain), original=Mailbox(name, domain))


def message(
    message_id: str,
    content: bytes | Body = b"Subject: hi\n\nhello\n",
    sender: Mailbox | None = ALICE,
    body: BodyKind = BodyKind.SEVEN_BIT,
    **terms: Any,
) -> StoredMessage:
    """A message as it is handed to the queue; `terms` are those beside the sender and the kind of its body."""
    return StoredMessage(
        id=message_id,
        arrived=NOW,
        terms=Terms(reverse_path=sender, body=body, **terms),
        content=content if isinstance(content, Body) else Body.of(content, BodyForm.of(body)),
        trace=b"Received: x\n",
    )


def envelope(
    *names: str,
    domain: str = "far.test",
    next_hop: str | None = None,
    next_try: float = NOW,
    state: EnvelopeState = EnvelopeState.QUEUED,
    attempts: int = 0,
) -> NewEnvelope:
    return NewEnvelope(
        domain=domain,
        next_hop=domain if next_hop is None else next_hop,
        recipients=tuple(recipient(name, domain) for name in names or ("bob",)),
        next_try=next_try,
        state=state,
        attempts=attempts,
    )


def deferred(text: str = "try again later", to: Recipient | None = None) -> Deferred:
    return Deferred(
        recipient=to or recipient("bob"),
        status=EnhancedStatus(4, 3, 0),
        cause=LocalCause(text, "mx.far.test"),
    )
