"""The rule that says which DSNs are due: what NOTIFY (RFC 3461 4.1, 5.2) and BY (RFC 2852 4.1) asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from trimta.content.dsn.values import DsnKind
from trimta.mail.envelope import Notify
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trimta.mail.envelope import Recipient, ReversePath
    from trimta.mail.outcome import Outcome

_NOTIFY: Final = {
    DsnKind.FAILED: Notify.FAILURE,
    DsnKind.DELAYED: Notify.DELAY,
    DsnKind.DELIVERED: Notify.SUCCESS,
    DsnKind.RELAYED: Notify.SUCCESS,
    DsnKind.EXPANDED: Notify.SUCCESS,
}
"""The keyword of NOTIFY that asks for each kind."""


def may_be_reported(reverse_path: ReversePath) -> bool:
    """Whether a message has a sender who can be told: not one from `<>`, such as a DSN (RFC 5321 4.5.5)."""
    return reverse_path is not None


def is_due(kind: DsnKind, recipient: Recipient) -> bool:
    """Whether the sender asked for DSNs of this kind about this recipient."""
    return recipient.is_notified_of(_NOTIFY[kind])


def dsns_due(
    outcomes: Iterable[Outcome], *, expired: bool = False, warn: bool = False, traced: bool = False
) -> dict[DsnKind, tuple[Outcome, ...]]:
    """The kinds of DSN that are due, each with the outcomes that one DSN of this kind reports.

    `expired`: the lifetime of the message is over, so that a deferral is a failure.  `warn`: the delay warning about
    deferrals is due, and was not sent before.  `traced`: DELIVERBY asked for a `relayed` DSN at every relay.  That DSN,
    and the one about a host that does not keep the deadline, only NOTIFY=NEVER forbids (RFC 2852 4.1.4).

    No outcome is of kind EXPANDED: the code that expands an alias reports the expansion.
    """
    due: dict[DsnKind, list[Outcome]] = {}
    for outcome in outcomes:
        kind = _kind(outcome, expired=expired, warn=warn, traced=traced)
        if kind is None:
            continue
        if is_due(kind, outcome.recipient) or _is_owed(kind, outcome, traced=traced):
            due.setdefault(kind, []).append(outcome)
    return {kind: tuple(reported) for kind, reported in due.items()}


def _kind(outcome: Outcome, *, expired: bool, warn: bool, traced: bool) -> DsnKind | None:
    """The kind of DSN that tells of an outcome; None where there is nothing to tell yet."""
    match outcome:
        case Failed():
            return DsnKind.FAILED
        case Deferred():
            if expired:
                return DsnKind.FAILED
            return DsnKind.DELAYED if warn else None
        case Delivered(handover=Handover.FINAL):
            return DsnKind.DELIVERED
        case Delivered(handover=Handover.RELAYED) | Delivered(deadline_dropped=True):
            return DsnKind.RELAYED
        case Delivered():
            return DsnKind.RELAYED if traced else None
        case _:
            assert_never(outcome)


def _is_owed(kind: DsnKind, outcome: Outcome, *, traced: bool) -> bool:
    """Whether DELIVERBY makes a `relayed` DSN due that NOTIFY did not ask for."""
    if kind is not DsnKind.RELAYED or not isinstance(outcome, Delivered):
        return False
    asked = outcome.recipient.notify
    return (traced or outcome.deadline_dropped) and (asked is None or Notify.NEVER not in asked)
