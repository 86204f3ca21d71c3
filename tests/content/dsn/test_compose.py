"""A DSN as a whole: every kind, RET and alphabet, its header, and that nothing can be smuggled into it."""

from __future__ import annotations

import email
import email.policy
import itertools
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.dsn.support import (
    MESSAGE,
    NOW,
    OUTCOMES,
    SENDER,
    UTF8_MESSAGE,
    deferred,
    delivered,
    failed,
    groups,
    make,
    parse,
    recipient,
    replied,
    returned,
)
from trimta.content.downgrade import downgrade
from trimta.content.dsn.values import DsnKind
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import OriginalRecipient, Ret
from trimta.mail.outcome import LocalCause, Outcome

if TYPE_CHECKING:
    from trimta.content.dsn.compose import ComposedDsn


@pytest.mark.parametrize(
    ("kind", "ret", "utf8", "whole"), list(itertools.product(DsnKind, [None, *Ret], [False, True], [False, True]))
)
def test_every_dsn_is_a_complete_report(kind: DsnKind, ret: Ret | None, *, utf8: bool, whole: bool) -> None:
    content = UTF8_MESSAGE if utf8 else MESSAGE
    outcome = OUTCOMES[kind]
    sender = SENDER
    if utf8:
        sender = parse_mailbox("jürgen@dev.test")
        to = recipient("jörg@bücher.test")
        if kind is DsnKind.FAILED:
            outcome = failed(to, replied("550 5.1.1 gibt es nicht: jörg"))
        else:
            outcome = deferred(to) if kind is DsnKind.DELAYED else delivered(to)
    dsn = make(outcome, kind=kind, ret=ret, smtputf8=utf8, addressee=sender, content=content, whole=whole, envid="E1")
    assert dsn.smtputf8 is utf8
    report, words, status, third = parse(dsn)

    assert report.get_content_type() == "multipart/report"
    assert report["Content-Type"].params["report-type"] == "delivery-status"
    assert report["From"] == "Mail Delivery System <MAILER-DAEMON@mail.dev.test>"
    assert f"To: <{sender}>\n".encode() in dsn.content
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["MIME-Version"] == "1.0"
    assert report["Message-ID"] == "<dsn-1@mail.dev.test>"
    assert report["In-Reply-To"] == report["References"] == "<one@dev.test>"
    assert report["Date"].datetime == NOW

    assert words.get_content_type() == "text/plain"
    text = words.get_content()
    assert str(outcome.recipient.address) in text
    assert "mail.dev.test" in text
    assert "Q1" in text

    assert status.get_content_type() == ("message/global-delivery-status" if utf8 else "message/delivery-status")
    about, each = groups(dsn)
    assert about == {
        "Original-Envelope-Id": "E1",
        "Reporting-MTA": "dns; mail.dev.test",
        "Arrival-Date": "Thu, 29 Feb 2024 12:00:00 +0000",
        "X-Trimta-Id": "Q1",
    }
    assert each["Final-Recipient"] == ("utf-8; jörg@bücher.test" if utf8 else f"rfc822; {outcome.recipient.address}")
    assert each["Action"] == kind.value
    assert each["Status"] == str(outcome.status)
    assert each["Diagnostic-Code"].endswith(outcome.cause.diagnostic)
    assert each["Last-Attempt-Date"] == "Thu, 29 Feb 2024 16:00:00 +0000"
    assert each.get("Will-Retry-Until") == ("Tue, 05 Mar 2024 12:00:00 +0000" if kind is DsnKind.DELAYED else None)

    full = kind is DsnKind.FAILED and ret is not Ret.HEADERS and whole
    expected = {
        (False, False): "text/rfc822-headers",
        (False, True): "message/global-headers",
        (True, False): "message/rfc822",
        (True, True): "message/global",
    }
    assert third.get_content_type() == expected[full, utf8]
    assert returned(dsn) == (content if full else content.split(b"\n\n")[0] + b"\n")


def test_a_utf8_address_alone_needs_no_smtputf8() -> None:
    dsn = make(failed(recipient("jörg@x.test")), smtputf8=True)
    _, _, status, _ = parse(dsn)
    assert not dsn.smtputf8
    assert dsn.eight_bit
    assert status.get_content_type() == "message/global-delivery-status"


def test_an_ascii_dsn_is_plain_though_the_message_was_smtputf8() -> None:
    dsn = make(smtputf8=True)
    _, _, status, third = parse(dsn)
    assert (dsn.smtputf8, dsn.eight_bit) == (False, False)
    assert status.get_content_type() == "message/delivery-status"
    assert third.get_content_type() == "message/rfc822"


def test_a_sender_with_a_utf8_domain_is_reached_without_smtputf8() -> None:
    dsn = make(addressee=parse_mailbox("alice@bücher.test"))
    assert not dsn.smtputf8
    assert parse(dsn)[0]["To"] == "alice@xn--bcher-kva.test"


@pytest.mark.parametrize(
    ("field", "reply_to"),
    [
        (b"Message-ID: <a@b>", "<a@b>"),
        (b"message-id:\n <a@b> ", "<a@b>"),
        (b"X: y", None),
        (b"Message-ID: nonsense", None),
        (b"Message-ID: <a b@c>", None),
        (b"Message-ID: <a@b> <c@d>", None),
        (b"Message-ID: <\xe9@b>", None),
        (b"Message-ID: <a@" + b"b" * 500 + b">", None),
        (b"\nMessage-ID: <body@b>", None),
    ],
)
def test_a_sane_message_id_is_referred_to(field: bytes, reply_to: str | None) -> None:
    report, *_ = parse(make(content=b"From: a@b\n" + field + b"\n\nhi\n"))
    assert report["In-Reply-To"] == report["References"] == reply_to


def test_the_same_arguments_give_the_same_dsn() -> None:
    assert make() == make()


@pytest.mark.parametrize("kind", DsnKind)
def test_an_8_bit_dsn_can_be_downgraded(kind: DsnKind) -> None:
    to = recipient("jörg@x.test")
    outcome: Outcome = (
        failed(to) if kind is DsnKind.FAILED else deferred(to) if kind is DsnKind.DELAYED else delivered(to)
    )
    dsn = make(outcome, kind=kind, content=UTF8_MESSAGE, smtputf8=True)
    assert dsn.eight_bit
    after = downgrade(dsn.content)
    assert after.isascii()
    report = email.message_from_bytes(after, policy=email.policy.default)
    assert report.get_content_type() == "multipart/report"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (DsnKind.FAILED, delivered()),
        (DsnKind.DELAYED, failed()),
        (DsnKind.DELAYED, delivered()),
        (DsnKind.DELIVERED, failed()),
        (DsnKind.RELAYED, deferred()),
        (DsnKind.EXPANDED, failed()),
    ],
)
def test_an_outcome_that_does_not_go_with_the_kind_is_refused(kind: DsnKind, outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="does not go with"):
        make(outcome, kind=kind)


def test_a_dsn_about_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="one recipient or more"):
        make(reports=[])


# -- hostile input ---------------------------------------------------------------------------------------------------

INJECTIONS: Final = [
    "x\r\nX-Evil: yes",
    "x\nX-Evil: yes",
    "x\rX-Evil: yes",
    "x\n\nX-Evil: yes",
    "\u2028X-Evil: yes",
    "\x00\x1b[31mred\x7f",
    "\udc80\udcff",
    "\u202eevil",
    "a" * 5000,
    "é" * 5000,
    "word " * 2000,
    "x; " * 2000,
    "x:\n" * 2000,
    "\U0001f600" * 3000,
]


def check_not_injected(dsn: ComposedDsn) -> None:
    report, _, _, _ = parse(dsn)
    assert "X-Evil" not in report
    assert "X-Evil" not in {name for group in groups(dsn) for name in group}
    assert not any(line.lower().startswith(b"x-evil") for line in dsn.content.split(b"\n"))
    assert all(octet >= 32 or octet in b"\n\t" for octet in dsn.content)


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("smtputf8", [False, True])
def test_nothing_from_the_network_adds_a_field_or_a_line(text: str, *, smtputf8: bool) -> None:
    to = recipient(orcpt=OriginalRecipient("rfc822", text))
    dsn = make(
        failed(to, replied("550 " + text, text)),
        envid=text,
        received_from=text,
        queue_id=text,
        smtputf8=smtputf8,
    )
    check_not_injected(dsn)
    assert len(dsn.content) < 250_000


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=300), content=st.binary(max_size=300), smtputf8=st.booleans(), whole=st.booleans())
def test_any_text_and_any_octets_give_a_parsable_dsn(text: str, content: bytes, *, smtputf8: bool, whole: bool) -> None:
    to = recipient(orcpt=OriginalRecipient(text, text))
    dsn = make(
        failed(to, LocalCause(text, text)),
        deferred(cause=replied("450 " + text)),
        envid=text,
        received_from=text,
        smtputf8=smtputf8,
        ret=Ret.HEADERS,
        content=content,
        whole=whole,
    )
    parse(dsn)
    assert len(groups(dsn)) == 3
