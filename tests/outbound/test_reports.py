"""DSNs as they arrive: who gets them, what they say, and what of the message they return."""

from __future__ import annotations

import binascii
import email
import email.policy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.fake_mx import MODERN, PLAIN, FakeMx
from tests.support.lab import CONTENT, DAY, MINUTE, open_lab
from tests.support.sending import recipient
from trimta.mail.envelope import ByMode, DeliverBy, Notify, OriginalRecipient, Ret
from trimta.store.spool import SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.lab import Lab

ONE = "192.0.2.1"
TWO = "192.0.2.2"
NO = {"rcpt": "550 5.1.1 who?"}


def returned(lab: Lab, user: str = "me") -> tuple[str, str]:
    """The type and the text of what the one DSN returns."""
    (dsn,) = lab.dsns(user)
    part = list(dsn.message.iter_parts())[2]
    if part.get_content_type() == "message/rfc822":
        (message,) = part.iter_parts()
        return "message/rfc822", message.as_string()
    return part.get_content_type(), part.get_content()


async def test_a_failure_tells_machines_and_people(tmp_path: Path, autojump_clock: MockClock) -> None:
    to = recipient("a@x.test", orcpt=OriginalRecipient("rfc822", "First@x.test"))
    async with open_lab(tmp_path, {ONE: FakeMx(NO)}) as lab:
        message_id = await lab.submit(to, envid="env 1")
        await lab.idle()
        (dsn,) = lab.dsns()
        status = list(dsn.message.iter_parts())[1]
        first, told = status.iter_parts()
        assert first["Reporting-MTA"] == "dns; here.test"
        assert first["Original-Envelope-Id"] == "env 1"
        assert first["Arrival-Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
        assert first["X-Trimta-Id"] == message_id
        assert told["Original-Recipient"] == "rfc822; First@x.test"
        assert told["Final-Recipient"] == "rfc822; a@x.test"
        assert told["Action"] == "failed"
        assert told["Status"] == "5.1.1"
        assert told["Remote-MTA"] == "dns; mx.x.test"
        assert told["Diagnostic-Code"] == "smtp; 550 5.1.1 who?"
        assert told["Last-Attempt-Date"]
        assert "a@x.test" in dsn.text
        assert dsn.message["To"].addresses[0].addr_spec == "me@here.test"
        assert dsn.message["In-Reply-To"] == "<1@here.test>"


async def test_every_line_of_a_refusal_is_told_with_its_code(tmp_path: Path, autojump_clock: MockClock) -> None:
    """RFC 3461 9.2."""
    async with open_lab(tmp_path, {ONE: FakeMx({"rcpt": "550-5.1.1 who?\n550-\n550 5.1.1 ask us"})}) as lab:
        await lab.submit()
        await lab.idle()
        (dsn,) = lab.dsns()
        assert dsn.told[0].diagnostic == "550-5.1.1 who? 550- 550 5.1.1 ask us"
        _, told = list(dsn.message.iter_parts())[1].iter_parts()
        assert told["Diagnostic-Code"] == "smtp; 550-5.1.1 who? 550- 550 5.1.1 ask us"


async def test_a_delay_says_until_when(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"rcpt": "450 4.2.1 later"})}) as lab:
        await lab.submit()
        await lab.advance(DAY)
        (dsn,) = lab.dsns()
        _, told = list(dsn.message.iter_parts())[1].iter_parts()
        assert told["Action"] == "delayed"
        assert told["Will-Retry-Until"] == "Sun, 19 Nov 2023 22:13:20 +0000"


@pytest.mark.parametrize(
    ("ret", "kind"), [(None, "message/rfc822"), (Ret.FULL, "message/rfc822"), (Ret.HEADERS, "text/rfc822-headers")]
)
async def test_ret_decides_what_is_returned(
    ret: Ret | None, kind: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(NO)}) as lab:
        await lab.submit(ret=ret)
        await lab.idle()
        found, text = returned(lab)
        assert found == kind
        assert "Subject: hi" in text
        assert ("hello" in text) == (kind == "message/rfc822")


async def test_of_a_large_message_only_the_header_is_returned(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(NO)}) as lab:
        writer = SpoolWriter(lab.mta.spool, threshold=10)
        writer.append(CONTENT + b"0123456789\n" * 500_000)
        await lab.submit(content=writer.finish())
        await lab.idle()
        kind, text = returned(lab)
        assert kind == "text/rfc822-headers"
        assert "0123456789" not in text


async def test_output_of_a_command_is_in_the_report(tmp_path: Path, autojump_clock: MockClock) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nprintf 'one\\ntwo\\033[31m\\n\\nReporting-MTA: forged\\n'\nexit 67\n")
    script.chmod(0o700)
    autojump_clock.autojump_threshold = float("inf")  # a real command takes real time
    autojump_clock.rate = 1
    async with open_lab(tmp_path, config=f'[routes]\n"*" = "pipe:{script}"') as lab:
        with trio.fail_after(20):
            await lab.submit()
            await lab.idle()
        (dsn,) = lab.dsns()
        assert dsn.verdicts == {"a@x.test": "failed 5.1.1"}
        diagnostic = dsn.told[0].diagnostic
        assert "one" in diagnostic
        assert "two" in diagnostic
        assert "\x1b" not in dsn.message.as_string()


@pytest.mark.parametrize(
    ("extensions", "notify", "traced", "told"),
    [
        (PLAIN, frozenset({Notify.SUCCESS}), False, ["relayed"]),
        (MODERN, frozenset({Notify.SUCCESS}), False, []),
        ((*MODERN, "DELIVERBY"), None, True, ["relayed"]),
        ((*MODERN, "DELIVERBY"), frozenset({Notify.NEVER}), True, []),
        (PLAIN, None, False, []),
    ],
)
async def test_success_is_told_by_who_knows_last(
    extensions: tuple[str, ...],
    notify: frozenset[Notify] | None,
    traced: bool,
    told: list[str],
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(extensions=extensions)}) as lab:
        by = DeliverBy(lab.now + DAY, ByMode.NOTIFY, trace=True) if traced else None
        await lab.submit(recipient("a@x.test", notify=notify), deliver_by=by)
        await lab.idle()
        assert [dsn.told[0].action for dsn in lab.dsns()] == told


async def test_local_delivery_is_told_once_whether_at_once_or_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path) as lab:
        to = [recipient(f"{user}@here.test", notify=frozenset({Notify.SUCCESS})) for user in ("bob", "carol")]
        await lab.submit(*to)
        await lab.idle()
        (dsn,) = lab.dsns()
        assert dsn.verdicts == {"bob@here.test": "delivered 2.0.0", "carol@here.test": "delivered 2.0.0"}
        await lab.submit(to[0], hold_until=lab.now + MINUTE)
        await lab.advance(2 * MINUTE)
        assert [dsn.verdicts for dsn in lab.dsns()[1:]] == [{"bob@here.test": "delivered 2.0.0"}]


async def test_a_report_is_sent_to_a_remote_sender_without_asking_for_reports(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    two = FakeMx()
    zones: dict[str, Any] = {"x.test": ONE, "two.test": TWO}
    async with open_lab(tmp_path, {ONE: FakeMx(NO), TWO: two}, zones=zones) as lab:
        await lab.submit(sender="who@two.test")
        await lab.idle()
        (received,) = two.accepted
        assert received.mail.startswith("<>")
        assert received.rcpts == ["<who@two.test> NOTIFY=NEVER"]
        assert b"Content-Type: multipart/report" in received.body


# A report that can always be sent.

EIGHT_BIT_HEADER = CONTENT.replace(b"hi", "Grüße".encode())
SIGNED = CONTENT.replace(
    b"\n\nhello", b"\nContent-Type: multipart/signed; boundary=b\n\n--b\n\nh\xc3\xa4llo\n--b\n\nx\n--b--"
)
LONG = CONTENT + b"0123456789\n" * 5000


@dataclass(frozen=True, kw_only=True)
class Refusing:
    """A return path's host, and the size of what it takes in the end."""

    id: str
    script: Mapping[str, Any] = field(default_factory=dict)
    extensions: Sequence[str] = PLAIN
    content: bytes = CONTENT
    options: Mapping[str, Any] = field(default_factory=dict)
    lmtp: bool = False
    parts: int = 3
    """Of the report that arrives; 2: not even a header."""


TAKEN = "250 2.0.0 taken"
SMALL = ("PIPELINING", "SIZE 20000", "8BITMIME", "ENHANCEDSTATUSCODES")


@pytest.mark.parametrize(
    "case",
    [
        Refusing(id="no 8BITMIME, 8-bit header", extensions=("PIPELINING", "SIZE"), content=EIGHT_BIT_HEADER),
        Refusing(id="no 8BITMIME, signed 8-bit body", extensions=("PIPELINING", "SIZE"), content=SIGNED),
        Refusing(id="HELO only", script={"ehlo": "500 what"}, content=EIGHT_BIT_HEADER),
        Refusing(id="SIZE of 20 kB", extensions=SMALL, content=LONG),
        Refusing(id="SIZE of 20 kB, RET=FULL", extensions=SMALL, content=LONG, options={"ret": Ret.FULL}),
        Refusing(id="SIZE of 3 kB", extensions=("SIZE 3000",), content=CONTENT + b"x\n" * 2000),
        Refusing(id="552 at MAIL", script={"mail": ["552 5.3.4 too big", "250 ok"]}),
        Refusing(id="552 at RCPT", script={"rcpt": ["552 5.2.3 too big", "250 ok"]}),
        Refusing(id="a parameter refused", script={"mail": ["555 5.5.4 BODY?", "250 ok"]}, content=EIGHT_BIT_HEADER),
        Refusing(id="552 at the end of the data", script={"body": ["552 5.3.4 too big", TAKEN]}),
        Refusing(id="554 at the end of the data", script={"body": ["554 5.7.1 spam", TAKEN]}),
        Refusing(id="554 without an enhanced code", script={"body": ["554 no", TAKEN]}),
        Refusing(id="554 to DATA", script={"data": ["554 5.7.1 no", "354 go"]}),
        Refusing(id="552 to a chunk", script={"body": ["552 no", TAKEN]}, extensions=MODERN),
        Refusing(id="twice", script={"body": ["554 5.7.1 spam", "554 5.7.1 spam", TAKEN]}, parts=2),
        Refusing(id="LMTP", script={"body": ["552 5.2.2 full", TAKEN]}, lmtp=True),
    ],
    ids=lambda case: case.id,
)
async def test_a_report_that_is_too_much_for_the_senders_host_is_sent_in_a_shorter_form(
    case: Refusing, tmp_path: Path, autojump_clock: MockClock
) -> None:
    protocol = "lmtp" if case.lmtp else "smtp"
    two = FakeMx(case.script, extensions=case.extensions, lmtp=case.lmtp)
    config = f'[routes]\n"two.test" = "{protocol}:{TWO}:24"\n"*" = "smtp:{ONE}"'
    hosts = {ONE: FakeMx(NO), TWO: two}
    async with open_lab(tmp_path, hosts, config=config) as lab:
        message_id = await lab.submit(sender="who@two.test", content=case.content, **case.options)
        await lab.idle()
        (received,) = two.accepted
        message = email.message_from_bytes(received.body, policy=email.policy.default)
        assert received.body.isascii()
        assert message.get_content_type() == "multipart/report"
        parts = list(message.iter_parts())
        assert len(parts) == case.parts
        _, group = parts[1].iter_parts()
        assert (group["Final-Recipient"], group["Status"]) == ("rfc822; a@x.test", "5.1.1")
        assert b"hello" not in received.body
        assert b"0123456789" not in received.body
        assert (b"Message-ID: <1@here.test>" in received.body) is (case.parts == 3)
        assert message["In-Reply-To"] == "<1@here.test>"
        assert message_id.encode() in received.body
        assert lab.dsns("postmaster") == []
        assert await lab.queue() == []
        assert lab.mta.events.counters["report"] == 1


@pytest.mark.parametrize(
    ("script", "tries"),
    [({"body": "554 5.7.1 never"}, 3), ({"rcpt": NO["rcpt"]}, 1), ({"mail": "550 5.7.1 no bounces"}, 1)],
)
async def test_postmaster_is_told_of_a_report_only_when_its_shortest_form_is_refused(
    script: Mapping[str, str], tries: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    two = FakeMx(script)
    async with open_lab(tmp_path, {ONE: FakeMx(NO), TWO: two}, zones={"x.test": ONE, "two.test": TWO}) as lab:
        await lab.submit(sender="who@two.test")
        await lab.idle()
        assert sum(line.startswith("MAIL") for line in two.commands) == tries
        (dsn,) = lab.dsns("postmaster")
        assert [told.address for told in dsn.told] == ["who@two.test"]
        assert await lab.queue() == []


async def test_postmasters_report_is_shortened_before_it_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Two hosts: the sender's refuses all reports, postmaster's the long ones."""
    one, two = FakeMx(NO), FakeMx({"body": ["552 5.3.4 too big", TAKEN]})
    config = f'[aliases]\npostmaster = "p@two.test"\n[routes]\n"two.test" = "smtp:{TWO}"\n"*" = "smtp:{ONE}"'
    async with open_lab(tmp_path, {ONE: one, TWO: two}, config=config) as lab:
        await lab.submit("a@x.test", sender="who@x.test")
        await lab.idle()
        (received,) = two.accepted
        assert b"Final-Recipient: rfc822; who@x.test" in received.body
        assert await lab.queue() == []


async def test_a_report_of_another_server_is_not_touched(tmp_path: Path, autojump_clock: MockClock) -> None:
    one, two = FakeMx(NO), FakeMx({"body": "554 5.7.1 spam"})
    zones: dict[str, Any] = {"x.test": ONE, "two.test": TWO}
    async with open_lab(tmp_path, {ONE: one, TWO: two}, zones=zones) as lab:
        await lab.submit("b@two.test", sender=None)
        await lab.idle()
        assert sum(line.startswith("MAIL") for line in two.commands) == 1
        assert [told.address for dsn in lab.dsns("postmaster") for told in dsn.told] == ["b@two.test"]


async def test_a_shortened_report_survives_a_restart_as_what_it_is(tmp_path: Path, autojump_clock: MockClock) -> None:
    zones: dict[str, Any] = {"x.test": ONE, "two.test": TWO}
    slow = FakeMx({"rcpt": "451 4.3.0 later"}, extensions=SMALL)
    async with open_lab(tmp_path, {ONE: FakeMx(NO), TWO: slow}, zones=zones) as lab:
        await lab.submit(sender="who@two.test", content=LONG)
        await lab.idle()
        assert await lab.waiting() == {"who@two.test": "4.3.0"}
    two = FakeMx({"body": ["554 5.7.1 spam", TAKEN]}, extensions=SMALL)
    async with open_lab(tmp_path, {TWO: two}, zones=zones) as lab:
        await lab.advance(2 * MINUTE)
        (received,) = two.accepted
        assert b"Content-Description: Header" not in received.body
        assert lab.dsns("postmaster") == []


async def test_a_loop_of_reports_is_impossible(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Sender, postmaster and recipient are all refused everywhere."""
    config = f'[aliases]\npostmaster = "p@two.test"\n[routes]\n"*" = "smtp:{ONE}"'
    async with open_lab(tmp_path, {ONE: FakeMx(NO)}, config=config) as lab:
        await lab.submit(sender="who@two.test")
        await lab.advance(20 * DAY)
        assert lab.mta.events.counters["report"] == 2
        assert lab.mta.events.counters["dropped"] == 1
        assert await lab.queue() == []


# UTF-8 in a report: the host of the return path gets it in a form that it can take (RFC 6531 3.4, RFC 6533 4.5).

UTF8_MESSAGE = CONTENT.replace(b"hi", "Grüße".encode())
GLOBAL_TYPES = ["text/plain", "message/global-delivery-status", "message/global"]
HEADERS_TYPES = [*GLOBAL_TYPES[:2], "message/global-headers"]


def parts_of(octets: bytes) -> list[tuple[str, str, str]]:
    """Of each part of a report its type, its transfer encoding and its text, decoded."""
    message = email.message_from_bytes(octets)
    _, *pieces = octets.split(b"\r\n--" + message.get_boundary("").encode())
    found = []
    for piece in pieces[:3]:
        header, _, body = piece.lstrip(b"\r\n").partition(b"\r\n\r\n")
        part = email.message_from_bytes(header + b"\r\n\r\n")
        encoding = str(part["Content-Transfer-Encoding"])
        match encoding:
            case "base64":
                body = binascii.a2b_base64(body)
            case "quoted-printable":
                body = binascii.a2b_qp(body)
        found.append((part.get_content_type(), encoding, body.decode()))
    return found


@pytest.mark.parametrize(("ret", "types"), [(Ret.FULL, GLOBAL_TYPES), (Ret.HEADERS, HEADERS_TYPES)])
@pytest.mark.parametrize(
    ("extensions", "parameters", "eight_bit"),
    [
        (("8BITMIME", "SMTPUTF8"), {"BODY=8BITMIME", "SMTPUTF8"}, {"text/plain", *GLOBAL_TYPES, *HEADERS_TYPES}),
        (MODERN, {"BODY=8BITMIME", "SMTPUTF8"}, {"text/plain", *GLOBAL_TYPES, *HEADERS_TYPES}),
        (PLAIN, {"BODY=8BITMIME"}, {"text/plain"}),
        (("8BITMIME", "CHUNKING", "BINARYMIME"), {"BODY=8BITMIME"}, {"text/plain"}),
        (("PIPELINING", "SIZE"), set(), set()),
        ((), set(), set()),
    ],
)
async def test_utf8_in_a_report_goes_out_as_the_host_of_its_sender_can_take_it(
    extensions: tuple[str, ...],
    parameters: set[str],
    eight_bit: set[str],
    ret: Ret,
    types: list[str],
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    two = FakeMx(extensions=extensions)
    hosts = {ONE: FakeMx(NO, extensions=MODERN), TWO: two}
    async with open_lab(tmp_path, hosts, zones={"x.test": ONE, "two.test": TWO}) as lab:
        await lab.submit("jürgen@x.test", sender="who@two.test", content=UTF8_MESSAGE, ret=ret)
        await lab.idle()
        (received,) = two.accepted
        words = received.mail.split()
        assert words[0] == "<>"
        assert {word for word in words[1:] if not word.startswith("SIZE=")} - {"RET=HDRS"} == parameters
        parts = parts_of(received.body)
        assert [part[0] for part in parts] == types
        assert {media_type for media_type, encoding, _ in parts if encoding == "8bit"} == eight_bit & set(types)
        assert received.body.isascii() is (not eight_bit)
        told, status, returned_text = (part[2] for part in parts)
        assert "<jürgen@x.test>" in told
        assert "Final-Recipient: utf-8; jürgen@x.test" in status
        assert "Subject: Grüße" in returned_text
        assert lab.dsns("postmaster") == []
        assert await lab.queue() == []


async def test_a_report_to_a_utf8_address_whose_host_has_no_smtputf8_is_told_to_postmaster(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    two = FakeMx(extensions=PLAIN)
    hosts = {ONE: FakeMx(NO, extensions=MODERN), TWO: two}
    async with open_lab(tmp_path, hosts, zones={"x.test": ONE, "two.test": TWO}) as lab:
        await lab.submit(sender="jürgen@two.test")
        await lab.idle()
        assert two.accepted == []
        assert [dsn.verdicts for dsn in lab.dsns("postmaster")] == [{"jürgen@two.test": "failed 5.6.7"}]
        assert await lab.queue() == []
