"""A queue full of deferred envelopes: half of them for one domain, due over the next hours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import Recipient, Terms
from trimta.mail.outcome import Deferred, LocalCause
from trimta.mail.status import EnhancedStatus
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import NewEnvelope, StoredMessage
from trimta.store.spool import Body

if TYPE_CHECKING:
    from pathlib import Path

BIG_DOMAIN: Final = "big.test"
"""The domain of every other envelope."""

_DOMAINS: Final = 2_000
_BATCH: Final = 2_000


def fill(data_dir: Path, count: int) -> None:
    """Put so many deferred envelopes into a queue, of which no server runs."""
    now = time.time()
    content = Body.of(b"Subject: waiting\n\n" + b"x" * 2_000 + b"\n")
    sender = parse_mailbox("me@dev.test")

    def accept(queue: Queue, number: int) -> None:
        domain = BIG_DOMAIN if number % 2 else f"d{number % _DOMAINS}.test"
        mailbox = parse_mailbox(f"user{number}@{domain}")
        recipient = Recipient(address=mailbox, original=mailbox)
        last = Deferred(
            recipient=recipient, status=EnhancedStatus(4, 4, 1), cause=LocalCause("no route to host", f"mx.{domain}")
        )
        queue.accept(
            StoredMessage(
                id=f"backlog{number}",
                arrived=now,
                terms=Terms(reverse_path=sender),
                content=content,
                trace=b"Received: x\n",
            ),
            [
                NewEnvelope(
                    domain=domain,
                    next_hop=domain,
                    recipients=(recipient,),
                    next_try=now + 3_600 + number % 3_600,
                    warn_at=now + 14_400,
                    attempts=1,
                    last_attempt=now,
                    last_outcomes=(last,),
                )
            ],
        )

    with Queue(data_dir) as queue:
        for first in range(0, count, _BATCH):
            with queue.transaction():
                for number in range(first, min(count, first + _BATCH)):
                    accept(queue, number)
