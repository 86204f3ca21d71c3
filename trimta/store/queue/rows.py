"""The reader of database rows, by which `entries` makes messages and envelopes, as `values` defines them.

A row that the queue can't have written is damage: DamagedEntry is raised, or the damage is shown in a listing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trimta.mail.body import BodyForm
from trimta.store.queue.decoding import load_deferred, load_message, load_recipient
from trimta.store.queue.errors import DamagedEntry
from trimta.store.queue.values import (
    EnvelopeState,
    ListedEnvelope,
    QueuedEnvelope,
    QueuedRecipient,
    StoredMessage,
    is_message_id,
)
from trimta.store.spool import Body

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ENVELOPE: Final = """
    e.seq, e.id, m.id, e.number, e.domain, e.next_hop, e.state, e.hold_reason, e.via, e.released, e.bounce, e.attempts,
    e.next_try, e.last_attempt, e.warn_at, e.warned, e.deadline,
    CASE WHEN e.attempts = 0 AND e.next_try > d.failed THEN 0.0 ELSE coalesce(d.not_before, 0.0) END
"""
"""The columns of an envelope.

The last one is the moment until which its next hop is spared after a failure.
"""
WIDTH: Final = 18
"""The number of columns in ENVELOPE."""
MESSAGE: Final = "m.seq, m.id, m.arrived, m.fields, m.trace, m.size, m.lines, m.spooled"
LISTED: Final = "m.arrived, m.fields, m.size, m.lines"
JOINED: Final = """
    envelopes e LEFT JOIN messages m ON m.seq = e.message LEFT JOIN destinations d ON d.next_hop = e.next_hop
"""

_TYPES: Final = {str: "text", int: "a whole number", float: "a number", bytes: "octets"}


class RowReader:
    """Reads rows of the columns above, with their recipients and content from other tables and from the spool."""

    def __init__(self, connection: sqlite3.Connection, spool: Path) -> None:
        self._connection = connection
        self._spool = spool

    def loaded(self, envelope_id: str, row: Sequence[Any]) -> tuple[StoredMessage, QueuedEnvelope]:
        """The message and the envelope in a row of ENVELOPE and MESSAGE.

        Raises DamagedEntry, which names the message if its part of the row is damaged, else the envelope.
        """
        if row[WIDTH] is None:
            raise DamagedEntry(envelope_id, "its message is missing")
        message = self._message(row[WIDTH:])
        try:
            return message, self._envelope(row[:WIDTH])
        except ValueError as error:
            raise DamagedEntry(envelope_id, str(error)) from error

    def listed(self, row: Sequence[Any]) -> ListedEnvelope:
        """The envelope in a row of ENVELOPE and LISTED, with what a listing shows of its message.

        Damage is shown as the reason of a hold, and not raised: one damaged entry must not hide the others.
        """
        arrived, fields, size, lines = row[WIDTH:]
        try:
            envelope = self._envelope(row[:WIDTH])
            terms = load_message(fields)["terms"]
            wire = BodyForm.of(terms.body).wire_size(_typed(size, int), _typed(lines, int))
            return ListedEnvelope(
                envelope=envelope, arrived=_typed(arrived, float), size=wire, reverse_path=terms.reverse_path
            )
        except ValueError as error:
            return ListedEnvelope(envelope=_unreadable(row, str(error)), arrived=0.0, size=0, reverse_path=None)

    def _message(self, row: Sequence[Any]) -> StoredMessage:
        seq, message_id, arrived, fields, trace, size, lines, spooled = row
        try:
            if not is_message_id(_typed(message_id, str)):
                raise ValueError("its id is not one")
            values = load_message(fields)
            content = self._content(
                seq,
                message_id,
                _typed(size, int),
                _typed(lines, int),
                BodyForm.of(values["terms"].body),
                spooled=bool(spooled),
            )
            return StoredMessage(
                id=message_id,
                arrived=_typed(arrived, float),
                trace=_typed(trace, bytes),
                content=content,
                **values,
            )
        except ValueError as error:
            raise DamagedEntry(str(message_id), str(error)) from error

    def _content(self, seq: int, message_id: str, size: int, lines: int, form: BodyForm, *, spooled: bool) -> Body:
        if not spooled:
            row = self._connection.execute("SELECT data FROM contents WHERE message = ?", (seq,)).fetchone()
            if row is None:
                raise ValueError("its content is missing")
            data = _typed(row[0], bytes)
            if len(data) != size:
                raise ValueError(f"its content has {len(data)} octets where {size} are meant")
            return Body(size, lines, data, form=form)
        path = self._spool / message_id
        try:
            actual_size = path.stat().st_size
        except FileNotFoundError:
            raise ValueError("its spool file is missing") from None
        if actual_size != size:
            raise ValueError(f"its spool file has {actual_size} octets where {size} are meant")
        return Body(size, lines, None, path, form)

    def _envelope(self, row: Sequence[Any]) -> QueuedEnvelope:
        seq, envelope_id, message_id, number, domain, next_hop, state, hold_reason, via = row[:9]
        released, bounce, attempts, next_try, last_attempt, warn_at, warned, deadline, not_before = row[9:]
        recipients = tuple(self._recipients(seq))
        if not recipients:
            raise ValueError("it has no recipients")
        return QueuedEnvelope(
            id=_typed(envelope_id, str),
            message_id=_typed(message_id, str),
            number=_typed(number, int),
            domain=_typed(domain, str),
            next_hop=_typed(next_hop, str),
            state=EnvelopeState(state),
            hold_reason=_typed(hold_reason, str),
            via=_typed(via, str),
            released=bool(released),
            bounce=bool(bounce),
            attempts=_typed(attempts, int),
            next_try=_typed(next_try, float),
            not_before=_typed(not_before, float),
            last_attempt=None if last_attempt is None else _typed(last_attempt, float),
            warn_at=None if warn_at is None else _typed(warn_at, float),
            warned=bool(warned),
            deadline=None if deadline is None else _typed(deadline, float),
            recipients=recipients,
        )

    def _recipients(self, envelope: int) -> Iterator[QueuedRecipient]:
        rows = self._connection.execute(
            "SELECT number, fields, last FROM recipients WHERE envelope = ? ORDER BY number", (envelope,)
        )
        for number, fields, last in rows:
            recipient = load_recipient(fields, _typed(number, int))
            outcome = None if last is None else load_deferred(last, recipient)
            yield QueuedRecipient(recipient=recipient, last_outcome=outcome)


def _typed(value: Any, kind: type) -> Any:
    """`value`, if its type is `kind`; else ValueError: SQLite stores a value of any type in any column."""
    if type(value) is not kind:
        raise ValueError(f"{value!r:.40} where {_TYPES[kind]} is meant")
    return value


def _unreadable(row: Sequence[Any], reason: str) -> QueuedEnvelope:
    """An envelope that stands for a damaged row in a listing."""
    return QueuedEnvelope(
        id=str(row[1]),
        message_id=str(row[2]),
        number=0,
        domain=str(row[4]),
        next_hop=str(row[5]),
        state=EnvelopeState.HELD,
        hold_reason=f"damaged: {reason}",
        via="",
        released=False,
        bounce=False,
        attempts=0,
        next_try=0.0,
        not_before=0.0,
        last_attempt=None,
        warn_at=None,
        warned=False,
        deadline=None,
        recipients=(),
    )
