"""Which DSNs are due for which outcomes."""

from __future__ import annotations

from typing import Final

import pytest

from tests.content.dsn.support import (
    SENDER,
    asks,
    deferred,
    delivered,
    failed,
    recipient,
)
from trimta.content.dsn.due import dsns_due, is_due, may_be_reported
from trimta.content.dsn.values import DsnKind
from trimta.mail.envelope import Notify
from trimta.mail.outcome import Handover, Outcome

N: Final = Notify


@pytest.mark.parametrize(
    ("notify", "kinds"),
    [
        (None, {DsnKind.FAILED, DsnKind.DELAYED}),
        ({N.NEVER}, set()),
        ({N.FAILURE}, {DsnKind.FAILED}),
        ({N.DELAY}, {DsnKind.DELAYED}),
        ({N.SUCCESS}, {DsnKind.DELIVERED, DsnKind.RELAYED, DsnKind.EXPANDED}),
        ({N.SUCCESS, N.FAILURE, N.DELAY}, set(DsnKind)),
    ],
)
def test_notify_decides_which_kinds_are_due(notify: set[Notify] | None, kinds: set[DsnKind]) -> None:
    to = recipient(notify=None if notify is None else frozenset(notify))
    assert {kind for kind in DsnKind if is_due(kind, to)} == kinds


@pytest.mark.parametrize(
    ("outcome", "options", "kind"),
    [
        (failed(), {}, DsnKind.FAILED),
        (failed(asks(N.FAILURE)), {}, DsnKind.FAILED),
        (failed(asks(N.NEVER)), {}, None),
        (failed(asks(N.SUCCESS, N.DELAY)), {}, None),
        (deferred(), {}, None),
        (deferred(), {"warn": True}, DsnKind.DELAYED),
        (deferred(asks(N.FAILURE)), {"warn": True}, None),
        (deferred(asks(N.DELAY)), {"warn": True}, DsnKind.DELAYED),
        (deferred(), {"expired": True}, DsnKind.FAILED),
        (deferred(), {"expired": True, "warn": True}, DsnKind.FAILED),
        (deferred(asks(N.DELAY)), {"expired": True, "warn": True}, None),
        (delivered(), {}, None),
        (delivered(asks(N.SUCCESS)), {}, DsnKind.DELIVERED),
        (delivered(asks(N.SUCCESS), Handover.RELAYED), {}, DsnKind.RELAYED),
        (delivered(asks(N.SUCCESS), Handover.PASSED_ON), {}, None),
        (delivered(asks(N.FAILURE), Handover.RELAYED), {}, None),
        (delivered(None, Handover.PASSED_ON), {"traced": True}, DsnKind.RELAYED),
        (delivered(asks(N.FAILURE), Handover.RELAYED), {"traced": True}, DsnKind.RELAYED),
        (delivered(asks(N.NEVER), Handover.PASSED_ON), {"traced": True}, None),
        (delivered(None, Handover.FINAL), {"traced": True}, None),
        *(
            (delivered(None if notify is None else asks(notify), handover, deadline_dropped=True), {}, kind)
            for handover in (Handover.PASSED_ON, Handover.RELAYED)
            for notify, kind in [
                (None, DsnKind.RELAYED),
                (N.SUCCESS, DsnKind.RELAYED),
                (N.FAILURE, DsnKind.RELAYED),
                (N.DELAY, DsnKind.RELAYED),
                (N.NEVER, None),
            ]
        ),
    ],
)
def test_an_outcome_is_reported_when_the_sender_asked(
    outcome: Outcome, options: dict[str, bool], kind: DsnKind | None
) -> None:
    assert dsns_due([outcome], **options) == ({} if kind is None else {kind: (outcome,)})


def test_outcomes_of_one_kind_are_one_dsn() -> None:
    one, two, late = failed(), failed(recipient("carol@x.test")), deferred()
    done = delivered(asks(N.SUCCESS))
    assert dsns_due([one, late, done, two], warn=True) == {
        DsnKind.FAILED: (one, two),
        DsnKind.DELAYED: (late,),
        DsnKind.DELIVERED: (done,),
    }


def test_a_message_from_the_null_reverse_path_is_never_reported() -> None:
    assert may_be_reported(SENDER)
    assert not may_be_reported(None)
