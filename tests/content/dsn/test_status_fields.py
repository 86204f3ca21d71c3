"""The fields for programs: of the message and of each recipient."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from tests.content.dsn.support import (
    ASKED,
    OUTCOMES,
    deferred,
    delivered,
    failed,
    groups,
    make,
    parse,
    recipient,
    replied,
)
from trimta.content.dsn.values import DsnKind, RecipientReport
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import OriginalRecipient
from trimta.mail.outcome import LocalCause, Outcome, PeerReply
from trimta.mail.reply import Reply


def test_the_machines_part_is_read_by_pythons_email() -> None:
    _, _, status, _ = parse(make(failed(), failed(recipient("carol@x.test"))))
    blocks = status.get_payload()
    assert isinstance(blocks, list)
    assert [block["Final-Recipient"] for block in blocks if isinstance(block, EmailMessage)] == [
        None,
        "rfc822; bob@x.test",
        "rfc822; carol@x.test",
    ]


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


def test_the_longest_address_is_not_broken() -> None:
    address = "a" * 64 + "@" + ".".join(["b" * 60] * 3 + ["test"])
    assert groups(make(failed(recipient(address))))[1]["Final-Recipient"] == f"rfc822; {address}"
    assert f"<{address}>\n".encode() in make(failed(recipient(address))).content


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


def test_what_delivery_by_a_time_and_a_hold_asked_for_is_told() -> None:
    """RFC 2852 5, RFC 4865 5.1.2; per-message fields behind Arrival-Date."""
    about = groups(make(deliver_by=ASKED, hold_request="for;3600"))[0]
    assert [*about] == ["Reporting-MTA", "Arrival-Date", "Deliver-By-Date", "Future-Release-Request", "X-Trimta-Id"]
    assert about["Deliver-By-Date"] == "Thu, 29 Feb 2024 13:00:00 +0000"
    assert about["Future-Release-Request"] == "for;3600"


def test_a_moment_of_the_last_attempt_that_is_not_known_is_not_told() -> None:
    (_, each) = groups(make(reports=[RecipientReport(outcome=failed(), last_attempt=None)]))
    assert "Last-Attempt-Date" not in each
