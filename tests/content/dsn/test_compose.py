"""Delivery status notifications: which are due, what they say, and that nothing can be smuggled into them."""

from __future__ import annotations

import email
import email.policy
import itertools
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.content.downgrade import downgrade
from trimta.content.dsn.compose import (
    RETURN_LIMIT,
    ComposedDsn,
    DsnKind,
    Report,
    Returned,
    compose,
    is_due,
    may_be_reported,
    reports_due,
)
from trimta.mail.address import Mailbox, parse_mailbox
from trimta.mail.envelope import ByMode, DeliverBy, Notify, OriginalRecipient, Recipient, Ret, Terms
from trimta.mail.outcome import Cause, Deferred, Delivered, Failed, Handover, LocalCause, Outcome, PeerReply
from trimta.mail.reply import Reply
from trimta.mail.status import NO_ANSWER, NO_SUCH_MAILBOX, EnhancedStatus

ARRIVED: Final = datetime(2024, 2, 29, 12, 0, 0, tzinfo=UTC)
NOW: Final = ARRIVED + timedelta(hours=4)
UNTIL: Final = ARRIVED + timedelta(days=5)
SENDER: Final = parse_mailbox("alice@dev.test")
HEADER: Final = (
    b"Received: from app by localhost;\n Thu, 29 Feb 2024 12:00:00 +0000\nFrom: alice@dev.test\n"
    b"Message-ID: <one@dev.test>\nSubject: hi\n"
)
MESSAGE: Final = HEADER + b"\nHello Bob\n--\nsecret body\n"


def recipient(address: str = "bob@x.test", **rest: Any) -> Recipient:
    mailbox = parse_mailbox(address)
    return Recipient(**{"address": mailbox, "original": mailbox, **rest})


def replied(line: str = "550 5.1.1 no such user", host: str = "mx.x.test") -> PeerReply:
    return PeerReply(Reply.read([line]), host)


def failed(
    to: Recipient | None = None, cause: Cause | None = None, status: EnhancedStatus = NO_SUCH_MAILBOX.permanent
) -> Failed:
    return Failed(recipient=to or recipient(), status=status, cause=cause or replied())


def deferred(to: Recipient | None = None, cause: Cause | None = None) -> Deferred:
    cause = cause or LocalCause("connection refused", "mx.x.test")
    return Deferred(recipient=to or recipient(), status=NO_ANSWER.transient, cause=cause)


LOCALLY: Final = LocalCause("delivered to the mailbox")


def delivered(
    to: Recipient | None = None,
    handover: Handover = Handover.FINAL,
    *,
    cause: Cause = LOCALLY,
    deadline_dropped: bool = False,
) -> Delivered:
    return Delivered(
        recipient=to or recipient(),
        status=EnhancedStatus(2, 1, 5),
        cause=cause,
        handover=handover,
        deadline_dropped=deadline_dropped,
    )


OUTCOMES: Final[dict[DsnKind, Outcome]] = {
    DsnKind.FAILED: failed(),
    DsnKind.DELAYED: deferred(),
    DsnKind.DELIVERED: delivered(),
    DsnKind.RELAYED: delivered(handover=Handover.RELAYED, cause=replied("250 2.0.0 ok")),
    DsnKind.EXPANDED: delivered(recipient("team@dev.test"), cause=LocalCause("sent on to 3 members")),
}


def make(
    *outcomes: Outcome,
    kind: DsnKind = DsnKind.FAILED,
    content: bytes = MESSAGE,
    whole: bool = True,
    addressee: Mailbox = SENDER,
    ret: Ret | None = None,
    smtputf8: bool = False,
    envid: str | None = None,
    deliver_by: DeliverBy | None = None,
    hold_request: str = "",
    **rest: Any,
) -> ComposedDsn:
    outcomes = outcomes or (OUTCOMES[kind],)
    return compose(
        **{
            "kind": kind,
            "reports": [Report(outcome=outcome, last_attempt=NOW, retry_until=UNTIL) for outcome in outcomes],
            "addressee": addressee,
            "terms": Terms(
                reverse_path=SENDER,
                ret=ret,
                smtputf8=smtputf8,
                envid=envid,
                deliver_by=deliver_by,
                hold_request=hold_request,
            ),
            "returned": Returned(head=content, whole=whole),
            "arrived": ARRIVED,
            "now": NOW,
            "hostname": "mail.dev.test",
            "message_id": "dsn-1@mail.dev.test",
            "queue_id": "Q1",
            **rest,
        }
    )


def parse(dsn: ComposedDsn) -> tuple[EmailMessage, EmailMessage, EmailMessage, EmailMessage]:
    """The DSN and its three parts, without any defect, in the limits of RFC 5322."""
    assert b"\r" not in dsn.content
    assert b"\0" not in dsn.content
    assert max(map(len, dsn.content.split(b"\n"))) <= 998
    assert dsn.eight_bit is not dsn.content.isascii()
    whole = email.message_from_bytes(dsn.content.replace(b"\n", b"\r\n"), policy=email.policy.default)
    assert isinstance(whole, EmailMessage)
    for part in whole.walk():
        assert part.defects == []
    for name, value in whole.items():
        if dsn.smtputf8 is False:
            assert value.defects == (), name
    parts = whole.get_payload()
    assert isinstance(parts, list)
    first, second, third = (part for part in parts if isinstance(part, EmailMessage))
    return whole, first, second, third


def groups(dsn: ComposedDsn) -> list[dict[str, str]]:
    """The fields of the machine's part: of the message, then of each recipient."""
    body = dsn.content.split(b"Content-Description: Delivery report\n")[1].split(b"\n\n", 1)[1].split(b"\n\n--=_")[0]
    result = []
    for group in body.decode().split("\n\n"):
        unfolded = group.strip("\n").replace("\n ", " ").split("\n")
        fields = dict(line.split(": ", 1) for line in unfolded)
        assert len(fields) == len(unfolded)
        result.append(fields)
    return result


def returned(dsn: ComposedDsn) -> bytes:
    """The octets of the third part."""
    boundary = dsn.content.split(b'boundary="')[1].split(b'"')[0]
    part = dsn.content.split(b"\n--" + boundary)[3]
    return part.split(b"\n\n", 1)[1]


# -- what is due -----------------------------------------------------------------------------------------------------

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


def asks(*notify: Notify) -> Recipient:
    return recipient(notify=frozenset(notify))


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
    assert reports_due([outcome], **options) == ({} if kind is None else {kind: (outcome,)})


def test_outcomes_of_one_kind_are_one_dsn() -> None:
    one, two, late = failed(), failed(recipient("carol@x.test")), deferred()
    done = delivered(asks(N.SUCCESS))
    assert reports_due([one, late, done, two], warn=True) == {
        DsnKind.FAILED: (one, two),
        DsnKind.DELAYED: (late,),
        DsnKind.DELIVERED: (done,),
    }


def test_a_message_from_the_null_reverse_path_is_never_reported() -> None:
    assert may_be_reported(SENDER)
    assert not may_be_reported(None)


# -- every kind × RET × alphabet -------------------------------------------------------------------------------------

UTF8_MESSAGE: Final = HEADER.replace(b"hi", "Grüße".encode()) + "\nHallo Jörg\n".encode()


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
    said = words.get_content()
    assert str(outcome.recipient.address) in said
    assert "mail.dev.test" in said
    assert "Q1" in said

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


def test_the_machines_part_is_read_by_pythons_email() -> None:
    _, _, status, _ = parse(make(failed(), failed(recipient("carol@x.test"))))
    blocks = status.get_payload()
    assert isinstance(blocks, list)
    assert [block["Final-Recipient"] for block in blocks if isinstance(block, EmailMessage)] == [
        None,
        "rfc822; bob@x.test",
        "rfc822; carol@x.test",
    ]


# -- single fields ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind", "field", "value"),
    [
        (failed(), "failed", "Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
        (failed(cause=LocalCause("exit 67")), "failed", "Diagnostic-Code", "x-trimta; exit 67"),
        (
            failed(cause=LocalCause("no reply at all", "mx.x.test")),
            "failed",
            "Diagnostic-Code",
            "x-trimta; no reply at all",
        ),
        (failed(cause=LocalCause("")), "failed", "Diagnostic-Code", None),
        (failed(), "failed", "Remote-MTA", "dns; mx.x.test"),
        (failed(cause=replied(host="")), "failed", "Remote-MTA", None),
        (failed(), "failed", "Status", "5.1.1"),
        (deferred(cause=replied("450 4.2.0 later")), "failed", "Status", "4.4.7"),
        (deferred(cause=replied("450 4.2.0 later")), "failed", "Action", "failed"),
        (deferred(cause=replied("450 4.2.0 later")), "failed", "Diagnostic-Code", "smtp; 450 4.2.0 later"),
        (deferred(), "delayed", "Status", "4.4.1"),
        (deferred(), "delayed", "Diagnostic-Code", "x-trimta; connection refused"),
        (OUTCOMES[DsnKind.RELAYED], "relayed", "Diagnostic-Code", "smtp; 250 2.0.0 ok"),
        (delivered(), "delivered", "Diagnostic-Code", "x-trimta; delivered to the mailbox"),
        (failed(), "failed", "Original-Recipient", None),
        (
            failed(recipient(orcpt=OriginalRecipient("rfc822", "Bob+tag@list.test"))),
            "failed",
            "Original-Recipient",
            "rfc822; Bob+tag@list.test",
        ),
        (
            failed(recipient(orcpt=OriginalRecipient("x/y\r\n", "z"))),
            "failed",
            "Original-Recipient",
            "unknown; z",
        ),
        (
            failed(recipient(original=parse_mailbox("team@dev.test"))),
            "failed",
            "Original-Recipient",
            None,
        ),
        (
            failed(recipient(original=parse_mailbox("Team@dev.test"))),
            "failed",
            "Final-Recipient",
            "rfc822; Team@dev.test",
        ),
        (
            failed(recipient(original=parse_mailbox("team@dev.test"))),
            "failed",
            "X-Trimta-Actual-Recipient",
            "rfc822; bob@x.test",
        ),
        (failed(), "failed", "X-Trimta-Actual-Recipient", None),
        (failed(cause=replied(host="127.0.0.1")), "failed", "Remote-MTA", "dns; [127.0.0.1]"),
        (failed(cause=replied(host="[127.0.0.1]")), "failed", "Remote-MTA", "dns; [127.0.0.1]"),
        (failed(cause=replied(host="2001:db8::6")), "failed", "Remote-MTA", "dns; [IPv6:2001:db8::6]"),
        (failed(cause=replied(host="mailhog")), "failed", "Remote-MTA", "x-local-hostname; mailhog"),
        (failed(cause=replied(host="bücher.test")), "failed", "Remote-MTA", "dns; xn--bcher-kva.test"),
        (failed(cause=PeerReply(Reply.read(["550-a", "550 b"]))), "failed", "Diagnostic-Code", "smtp; 550-a 550 b"),
        (failed(recipient("<postmaster>")), "failed", "Final-Recipient", "rfc822; postmaster@mail.dev.test"),
        (failed(recipient('"a  b"@x.test')), "failed", "Final-Recipient", 'rfc822; "a  b"@x.test'),
        (failed(recipient("bob@[127.0.0.1]")), "failed", "Final-Recipient", "rfc822; bob@[127.0.0.1]"),
        (failed(recipient("bob@bücher.test")), "failed", "Final-Recipient", "rfc822; bob@xn--bcher-kva.test"),
        (
            failed(recipient("jörg+a@x.test")),
            "failed",
            "Final-Recipient",
            r"utf-8; j\x{F6}rg\x{2B}a@x.test",
        ),
        (
            failed(recipient(orcpt=OriginalRecipient("rfc822", "é@x.test"))),
            "failed",
            "Original-Recipient",
            r"utf-8; \x{E9}@x.test",
        ),
        *(
            (failed(recipient(orcpt=OriginalRecipient("utf-8", given))), "failed", "Original-Recipient", told)
            for given, told in [
                ("a+b@x.test", r"utf-8; a\x{2B}b@x.test"),
                ("a b=c@x.test", r"utf-8; a\x{20}b\x{3D}c@x.test"),
                ("a\\b@x", r"utf-8; a\x{5C}b@x"),
                ("a@x.test", "utf-8; a@x.test"),
            ]
        ),
        (failed(cause=replied("550 café")), "failed", "Diagnostic-Code", r"smtp; 550 caf\xe9"),
    ],
)
def test_a_field_says(outcome: Outcome, kind: str, field: str, value: str | None) -> None:
    dsn = make(outcome, kind=DsnKind(kind))
    _, _, status, _ = parse(dsn)
    assert status.get_content_type() == "message/delivery-status"
    assert groups(dsn)[1].get(field) == value


def test_the_words_say_what_happened_to_whom_and_what_to_do() -> None:
    team = recipient("carol@x.test", original=parse_mailbox("team@dev.test"))
    _, words, _, _ = parse(make(failed(), deferred(team, replied("450 4.2.0 not now"))))
    said = " ".join(words.get_content().split())
    assert "could not be delivered to the 2 recipients below" in said
    assert "<bob@x.test> mx.x.test said: 550 5.1.1 no such user What to do: There is no such mailbox" in said
    assert "<team@dev.test>, which stands for <carol@x.test> mx.x.test said: 450 4.2.0 not now" in said
    assert "not possible in the time allowed" in said


def test_the_last_words_of_a_command_are_told() -> None:
    said = "/usr/bin/command exited with 1: " + "line\n" * 815 + "the reason"
    dsn = make(failed(cause=LocalCause(said, "mx.x.test")))
    assert groups(dsn)[1]["Diagnostic-Code"].endswith("line the reason")
    assert "line the reason" in " ".join(parse(dsn)[1].get_content().split())


def test_the_words_of_a_delay_say_until_when() -> None:
    _, words, _, _ = parse(make(kind=DsnKind.DELAYED))
    said = " ".join(words.get_content().split())
    assert "need not send it again" in said
    assert "tried until Tue, 05 Mar 2024 12:00:00 +0000" in said


def test_the_longest_address_is_not_broken() -> None:
    address = "a" * 64 + "@" + ".".join(["b" * 60] * 3 + ["test"])
    assert groups(make(failed(recipient(address))))[1]["Final-Recipient"] == f"rfc822; {address}"
    assert f"<{address}>\n".encode() in make(failed(recipient(address))).content


@pytest.mark.parametrize("status", ["5.0.0", "5.1.1", "5.1.9", "5.3.0", "5.4.0", "5.7.1", "5.7.99", "5.9.9"])
def test_every_failure_has_advice(status: str) -> None:
    _, words, _, _ = parse(make(failed(status=EnhancedStatus.parse(status))))
    assert "What to do: " in words.get_content()


def test_a_utf8_address_alone_needs_no_smtputf8() -> None:
    dsn = make(failed(recipient("jörg@x.test")), smtputf8=True)
    _, _, status, _ = parse(dsn)
    assert not dsn.smtputf8
    assert dsn.eight_bit
    assert status.get_content_type() == "message/global-delivery-status"


@pytest.mark.parametrize(
    ("hostname", "told"),
    [
        ("mail.dev.test", "dns; mail.dev.test"),
        ("laptop", "x-local-hostname; laptop"),
        ("bücher.test", "dns; xn--bcher-kva.test"),
        ("[192.0.2.1]", "dns; [192.0.2.1]"),
    ],
)
def test_a_name_is_of_type_dns_if_it_is_fully_qualified(hostname: str, told: str) -> None:
    dsn = make(hostname=hostname, received_from=hostname)
    assert groups(dsn)[0]["Reporting-MTA"] == told
    assert groups(dsn)[0]["Received-From-MTA"] == told
    assert "bücher" not in dsn.content.decode()


ASKED: Final = DeliverBy((ARRIVED + timedelta(hours=1)).timestamp(), ByMode.NOTIFY)


def test_what_delivery_by_a_time_and_a_hold_asked_for_is_told() -> None:
    """RFC 2852 5, RFC 4865 5.1.2; per-message fields behind Arrival-Date."""
    about = groups(make(deliver_by=ASKED, hold_request="for;3600"))[0]
    assert [*about] == ["Reporting-MTA", "Arrival-Date", "Deliver-By-Date", "Future-Release-Request", "X-Trimta-Id"]
    assert about["Deliver-By-Date"] == "Thu, 29 Feb 2024 13:00:00 +0000"
    assert about["Future-Release-Request"] == "for;3600"


def test_a_moment_of_the_last_attempt_that_is_not_known_is_not_told() -> None:
    (_, each) = groups(make(reports=[Report(outcome=failed(), last_attempt=None)]))
    assert "Last-Attempt-Date" not in each


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
    said = " ".join(parse(make(outcome, kind=DsnKind.RELAYED, deliver_by=by))[1].get_content().split())
    assert ("no further report" not in said) is more
    assert ("the time that you set" in said) is late


MIXED: Final = HEADER + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"


@pytest.mark.parametrize(
    ("content", "smtputf8", "kind"),
    [
        (MIXED + b"Content-Type: a/b; name=%s\n\nx\n--b--\n", True, 1),
        (MIXED + b"Content-Type: a/b; name=%s\n\nx\n--b--\n", False, 0),
        (MIXED + b"Content-Type: a/b;\n name=%s\n\nx\n--b--\n", True, 1),
        (MIXED + b"Content-Type: a/b\n\n%s\n--b--\n", True, 0),
        (HEADER + b"\nhello\n-- \n%s\n", True, 0),
    ],
)
def test_utf8_in_the_header_of_a_part_makes_it_message_global(content: bytes, kind: int, *, smtputf8: bool) -> None:
    dsn = make(content=content.replace(b"%s", "ä".encode()), smtputf8=smtputf8)
    assert parse(dsn)[3].get_content_type() == ("message/rfc822", "message/global")[kind]
    assert dsn.smtputf8 is bool(kind)


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


# -- the returned part -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "whole", "part"),
    [
        (MESSAGE, True, MESSAGE),
        (MESSAGE, False, HEADER),
        (HEADER + b"\n" + b"x\n" * RETURN_LIMIT, True, HEADER),
        (HEADER + b"\n\0\n", True, HEADER),
        (HEADER + b"\n" + b"x" * 999 + b"\n", True, HEADER),
        (MESSAGE.replace(b"\n", b"\r\n"), True, MESSAGE),
        (MESSAGE.replace(b"\n", b"\r\n") + b"a\rb", True, HEADER),
        (HEADER + b"\nno last line end", True, HEADER + b"\nno last line end"),
        (HEADER + "\ncafé\n".encode(), True, HEADER + "\ncafé\n".encode()),
        (HEADER + b"\nlatin \xe9\n", True, HEADER + b"\nlatin \xe9\n"),
        (HEADER + b"Subject: cut in the mid", False, HEADER),
        (HEADER + b"this is no field\nsecret\n", False, HEADER),
        (b"\nonly a body\n", False, b""),
        (b" folded\nA: b\n\n", False, b""),
        (b"A: b\0c\rd\n\nhi\n", True, b"A: b?c?d\n"),
        (b"A: " + b"x" * 1500 + b"\n\nhi", True, b"A: " + b"x" * 994 + b"\n " + b"x" * 506 + b"\n"),
        (b"", True, b""),
    ],
)
def test_the_returned_part_is_the_message_or_its_header(content: bytes, part: bytes, *, whole: bool) -> None:
    dsn = make(content=content, whole=whole)
    parse(dsn)
    assert returned(dsn) == part


def test_the_limit_bounds_header_and_message() -> None:
    content = b"".join(b"Field-%d: value\n" % n for n in range(10_000)) + b"\nhi\n"
    part = returned(make(content=content, limit=1000))
    assert 900 < len(part) <= 1000
    assert content.startswith(part)
    assert part.endswith(b"value\n")
    assert returned(make(content=MESSAGE, limit=len(MESSAGE))) == MESSAGE
    assert returned(make(content=MESSAGE, limit=len(MESSAGE) - 1)) == HEADER


def test_a_long_utf8_header_line_is_not_cut_within_a_character() -> None:
    content = b"Subject: " + "é".encode() * 2000 + b"\n\nhi\n"
    dsn = make(content=content, smtputf8=True, ret=Ret.HEADERS)
    parse(dsn)
    assert returned(dsn).decode().replace("\n ", "").count("é") == 2000


def test_a_boundary_does_not_occur_in_the_message() -> None:
    first = make()
    boundary = first.content.split(b'boundary="')[1].split(b'"')[0]
    again = make(content=HEADER + b"\n--" + boundary + b"--\nhi\n")
    parse(again)
    assert again.content.split(b'boundary="')[1].split(b'"')[0] != boundary


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


# -- impossible ones -------------------------------------------------------------------------------------------------


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
