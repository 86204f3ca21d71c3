"""An outcome has one spelling in the log, wherever it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.store.support import recipient
from tests.support.lab import open_lab
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover, LocalCause, PeerReply
from trimta.mail.reply import Reply
from trimta.mail.status import DELIVERED, NO_ANSWER, NO_SUCH_MAILBOX
from trimta.outbound.outcome_events import emit_outcome
from trimta.runtime.events import Event, Events, FieldValue

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trimta.mail.outcome import Outcome

BOB = recipient("bob", "far.test")
REFUSED = PeerReply(Reply.read(["550 5.1.1 nobody"]), "mx.far.test")


@pytest.mark.parametrize(
    ("outcome", "host", "wait", "name", "fields"),
    [
        (
            Delivered(
                recipient=BOB,
                status=DELIVERED,
                cause=LocalCause("delivered to /mail/bob"),
                handover=Handover.FINAL,
                maildir=Path("/mail/bob"),
            ),
            "",
            None,
            "delivered",
            {"maildir": "/mail/bob", "status": "2.0.0", "reply": "delivered to /mail/bob"},
        ),
        (
            Delivered(
                recipient=BOB,
                status=DELIVERED,
                cause=PeerReply(Reply.read(["250 2.0.0 ok"]), "mx.far.test"),
                handover=Handover.RELAYED,
            ),
            "mx.far.test [192.0.2.1]:25",
            60.0,
            "delivered",
            {"host": "mx.far.test [192.0.2.1]:25", "status": "2.0.0", "reply": "250 2.0.0 ok"},
        ),
        (
            Deferred(recipient=BOB, status=NO_ANSWER.transient, cause=LocalCause("no route", "mx.far.test")),
            "",
            59.6,
            "deferred",
            {"host": "mx.far.test", "status": "4.4.1", "reply": "no route", "next_s": 60},
        ),
        (
            Deferred(recipient=BOB, status=NO_ANSWER.transient, cause=LocalCause("no route")),
            "",
            -1.0,
            "deferred",
            {"status": "4.4.1", "reply": "no route", "next_s": 0},
        ),
        (
            Failed(recipient=BOB, status=NO_SUCH_MAILBOX.permanent, cause=REFUSED),
            "",
            60.0,
            "bounced",
            {"host": "mx.far.test", "status": "5.1.1", "reply": "550 5.1.1 nobody"},
        ),
    ],
)
def test_an_outcome_is_an_event(
    outcome: Outcome, host: str, wait: float | None, name: str, fields: dict[str, FieldValue]
) -> None:
    events, emitted = Events(), list[Event]()
    events.subscribe(emitted.append)
    emit_outcome(events, "m1", outcome, host=host, wait=wait)
    (event,) = emitted
    assert (event.name, event.fields) == (name, {"id": "m1", "to": "bob@far.test", **fields})


async def test_a_copy_has_one_event_before_the_250_and_out_of_the_queue(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, {}, config='[routes]\n"held.test" = "hold"') as lab:
        at_once = await lab.submit("me@here.test")
        held = await lab.submit("you@held.test")
        folder = tmp_path / "captured"
        await lab.steer(lambda queue: queue.operator.release(held, lab.now, via=f"maildir:{folder}"))
        await lab.idle()
        events = {event.fields["id"]: event.fields for event in lab.events if event.name == "delivered"}
    assert [*events[at_once]] == [*events[held]] == ["id", "to", "maildir", "status", "reply"]
    assert events[held]["maildir"] == str(folder)
