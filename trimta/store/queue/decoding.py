"""JSON texts of the queue's values, written and read.  A text that the queue did not write raises ValueError."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from trimta.content.dsn.report_form import ReportForm
from trimta.mail.address import Mailbox
from trimta.mail.envelope import BodyKind, ByMode, DeliverBy, Notify, OriginalRecipient, Recipient, Ret, Terms
from trimta.mail.outcome import Deferred, LocalCause, PeerReply, cause_of
from trimta.mail.reply import Reply
from trimta.mail.status import EnhancedStatus

if TYPE_CHECKING:
    from trimta.mail.envelope import ReversePath
    from trimta.mail.outcome import Cause
    from trimta.store.queue.values import StoredMessage


def dump_message(message: StoredMessage) -> str:
    """The JSON text of a message: the attributes that have no column of their own."""
    terms = message.terms
    fields: dict[str, Any] = {"from": _mailbox(terms.reverse_path), "body": terms.body.value}
    if terms.smtputf8:
        fields["smtputf8"] = True
    if terms.envid is not None:
        fields["envid"] = terms.envid
    if terms.ret is not None:
        fields["ret"] = terms.ret.value
    if terms.deliver_by is not None:
        fields["by"] = [terms.deliver_by.deadline, terms.deliver_by.mode.value, terms.deliver_by.trace]
    if terms.hold_until is not None:
        fields["hold_until"] = terms.hold_until
    if terms.hold_request:
        fields["hold_request"] = terms.hold_request
    if message.origin:
        fields["origin"] = message.origin
    if message.helo:
        fields["helo"] = message.helo
    if message.report is not None:
        fields["report"] = message.report.value
    return _dump(fields)


def load_message(text: object) -> dict[str, Any]:
    """The keyword arguments of StoredMessage in a text of dump_message(): `terms`, `origin`, `helo`, `report`."""
    fields = _load(text)
    try:
        report = fields.get("report")
        return {
            "terms": _read_terms(fields),
            "origin": _text(fields.get("origin", "")),
            "helo": _text(fields.get("helo", "")),
            "report": None if report is None else ReportForm(report),
        }
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"message fields: {error!r}") from error


def _read_terms(fields: dict[str, Any]) -> Terms:
    by, ret, hold_until = fields.get("by"), fields.get("ret"), fields.get("hold_until")
    return Terms(
        reverse_path=_read_mailbox(fields["from"]),
        body=BodyKind(fields["body"]),
        smtputf8=bool(fields.get("smtputf8", False)),
        envid=_optional_text(fields.get("envid")),
        ret=None if ret is None else Ret(ret),
        deliver_by=None if by is None else DeliverBy(float(by[0]), ByMode(by[1]), bool(by[2])),
        hold_until=None if hold_until is None else float(hold_until),
        hold_request=_text(fields.get("hold_request", "")),
    )


def dump_recipient(recipient: Recipient) -> str:
    """The JSON text of a recipient; its number has a column of its own."""
    fields: dict[str, Any] = {"to": _mailbox(recipient.address)}
    if recipient.original != recipient.address or recipient.original.domain != recipient.address.domain:
        fields["original"] = _mailbox(recipient.original)
    if recipient.notify is not None:
        fields["notify"] = sorted(notify.value for notify in recipient.notify)
    if recipient.orcpt is not None:
        orcpt = recipient.orcpt
        fields["orcpt"] = [orcpt.addr_type, orcpt.address, *([orcpt.received] if orcpt.received else [])]
    return _dump(fields)


def load_recipient(text: object, number: int | None = None) -> Recipient:
    """The recipient that a text of dump_recipient() holds, with its number."""
    fields = _load(text)
    try:
        address = _read_mailbox(fields["to"])
        original = _read_mailbox(fields.get("original", fields["to"]))
        notify, orcpt = fields.get("notify"), fields.get("orcpt")
        if address is None or original is None:
            raise ValueError("a recipient has an address")
        return Recipient(
            address=address,
            original=original,
            notify=None if notify is None else frozenset(Notify(word) for word in notify),
            orcpt=None if orcpt is None else OriginalRecipient(*map(_text, orcpt)),
            number=number,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"recipient fields: {error!r}") from error


def dump_deferred(deferred: Deferred) -> str:
    """The JSON text of a recipient's last deferral: status, diagnostic, host, and whether the cause is a reply."""
    cause = deferred.cause
    return _dump([str(deferred.status), cause.diagnostic, cause.host, isinstance(cause, PeerReply)])


def load_deferred(text: object, recipient: Recipient) -> Deferred:
    """The recipient's deferral that a text of dump_deferred() holds."""
    if not isinstance(text, str):
        raise ValueError("an outcome that is no text")
    try:
        status, diagnostic, host, is_reply = json.loads(text)
        return Deferred(
            recipient=recipient,
            status=EnhancedStatus.parse(status),
            cause=_read_cause(_text(diagnostic), _text(host), is_reply=bool(is_reply)),
        )
    except (TypeError, RecursionError) as error:
        raise ValueError(f"outcome fields: {error!r}") from error


def _read_cause(diagnostic: str, host: str, *, is_reply: bool) -> Cause:
    if is_reply:
        # Older versions have marked so what is no reply, too.
        with contextlib.suppress(ValueError):
            return cause_of(Reply.read([diagnostic]), host)
    return LocalCause(diagnostic, host)


def path_text(mailbox: ReversePath) -> str:
    """The text of a path that filters compare: in lower case, "<>" for the null path."""
    return "<>" if mailbox is None else str(mailbox).lower()


def _mailbox(mailbox: ReversePath) -> list[str] | None:
    return None if mailbox is None else [mailbox.local_part, mailbox.domain]


def _read_mailbox(fields: Any) -> ReversePath:
    if fields is None:
        return None
    local_part, domain = fields
    return Mailbox(_text(local_part), _text(domain))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is meant")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


_dump: Final = json.JSONEncoder(separators=(",", ":")).encode
"""ASCII: stray surrogates from the network are escaped, and come back."""


def _load(text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        raise ValueError("fields that are no text")
    try:
        fields = json.loads(text)
    except RecursionError as error:
        raise ValueError("fields nested too deep") from error
    if not isinstance(fields, dict):
        raise ValueError("fields that are no table")
    return fields
