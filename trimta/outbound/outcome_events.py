"""The events `delivered`, `deferred` and `bounced`: one function announces outcomes for acceptance and settlement."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from trimta.mail.outcome import Deferred, Delivered, Failed

if TYPE_CHECKING:
    from trimta.mail.outcome import Outcome
    from trimta.runtime.events import Events


def emit_outcome(
    events: Events, message_id: str, outcome: Outcome, *, host: str = "", wait: float | None = None
) -> None:
    """Emit the event of one recipient's outcome.

    `host`: the host that was tried, with its address; empty: the name that the cause has.  `wait`: seconds until the
    next try of a deferred recipient.
    """
    to, status, reply = str(outcome.recipient.address), str(outcome.status), outcome.cause.diagnostic
    host = host or outcome.cause.host
    match outcome:
        case Delivered(maildir=maildir):
            path = "" if maildir is None else str(maildir)
            events.emit("delivered", id=message_id, to=to, maildir=path, host=host, status=status, reply=reply)
        case Deferred():
            seconds = None if wait is None else max(0, round(wait))
            events.emit("deferred", id=message_id, to=to, host=host, status=status, reply=reply, next_s=seconds)
        case Failed():
            events.emit("bounced", id=message_id, to=to, host=host, status=status, reply=reply)
        case _:
            assert_never(outcome)
