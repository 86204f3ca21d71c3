"""The text for people: what happened to which recipient, what to do, what is still to come."""

from __future__ import annotations

import pytest

from tests.content.dsn.support import (
    ASKED,
    deferred,
    delivered,
    failed,
    groups,
    make,
    parse,
    recipient,
    replied,
)
from trimta.content.dsn.values import DsnKind
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import ByMode, DeliverBy
from trimta.mail.outcome import Delivered, Handover, LocalCause, Outcome
from trimta.mail.status import EnhancedStatus


def test_the_words_say_what_happened_to_whom_and_what_to_do() -> None:
    team = recipient("carol@x.test", original=parse_mailbox("team@dev.test"))
    _, words, _, _ = parse(make(failed(), deferred(team, replied("450 4.2.0 not now"))))
    text = " ".join(words.get_content().split())
    assert "could not be delivered to the 2 recipients below" in text
    assert "<bob@x.test> mx.x.test said: 550 5.1.1 no such user What to do: There is no such mailbox" in text
    assert "<team@dev.test>, which stands for <carol@x.test> mx.x.test said: 450 4.2.0 not now" in text
    assert "not possible in the time allowed" in text


def test_the_last_words_of_a_command_are_told() -> None:
    text = "/usr/bin/command exited with 1: " + "line\n" * 815 + "the reason"
    dsn = make(failed(cause=LocalCause(text, "mx.x.test")))
    assert groups(dsn)[1]["Diagnostic-Code"].endswith("line the reason")
    assert "line the reason" in " ".join(parse(dsn)[1].get_content().split())


def test_the_words_of_a_delay_say_until_when() -> None:
    _, words, _, _ = parse(make(kind=DsnKind.DELAYED))
    text = " ".join(words.get_content().split())
    assert "need not send it again" in text
    assert "tried until Tue, 05 Mar 2024 12:00:00 +0000" in text


@pytest.mark.parametrize("status", ["5.0.0", "5.1.1", "5.1.9", "5.3.0", "5.4.0", "5.7.1", "5.7.99", "5.9.9"])
def test_every_failure_has_advice(status: str) -> None:
    _, words, _, _ = parse(make(failed(status=EnhancedStatus.parse(status))))
    assert "What to do: " in words.get_content()


def relayed(handover: Handover, *, deadline_dropped: bool = False) -> Delivered:
    return delivered(handover=handover, cause=replied("250 2.0.0 ok"), deadline_dropped=deadline_dropped)


@pytest.mark.parametrize(
    ("outcome", "traced", "more", "late"),
    [
        (relayed(Handover.RELAYED), False, False, False),
        (relayed(Handover.RELAYED), True, True, False),
        (relayed(Handover.PASSED_ON), True, True, False),
        (relayed(Handover.PASSED_ON, deadline_dropped=True), False, True, True),
        (relayed(Handover.RELAYED, deadline_dropped=True), False, False, True),
    ],
)
def test_the_words_of_a_relay_say_what_is_still_to_come(
    outcome: Outcome, *, traced: bool, more: bool, late: bool
) -> None:
    by = DeliverBy(ASKED.deadline, ByMode.NOTIFY, traced)
    text = " ".join(parse(make(outcome, kind=DsnKind.RELAYED, deliver_by=by))[1].get_content().split())
    assert ("no further report" not in text) is more
    assert ("the time that you set" in text) is late
