"""What a 250 stands for: which copies are in which Maildirs, what is in the queue, and what is on top of each copy."""

from __future__ import annotations

import errno
import re
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.clock import mock_wall
from tests.support.receiving import (
    LOOPBACK,
    STRANGER,
    configuration,
    deliveries,
    fields,
    left_in_spool,
    mailbox,
    names,
    open_mta,
    record,
    send_message,
    talk,
)
from trimta.inbound.client_address import UNIX, ClientAddress
from trimta.mail.address import Mailbox, parse_mailbox
from trimta.store import durable
from trimta.store.queue.errors import QueueUnavailable
from trimta.store.spool import MEMORY_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from trimta.server.wiring import Mta
    from trimta.store.queue.values import ListedEnvelope

AUTH = '[auth]\nusers = { alice = "secret" }\n'
LOG_IN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="


async def queued(mta: Mta) -> list[ListedEnvelope]:
    return await mta.queue.run(lambda queue: list(queue.entries.list_envelopes()))


async def recipients_in_queue(mta: Mta) -> list[list[str]]:
    return [[str(one.recipient.address) for one in listed.envelope.recipients] for listed in await queued(mta)]


def block(folder: Path, user: str) -> None:
    """Make a Maildir that can't be written, for root neither."""
    (folder / "maildir-example").mkdir(exist_ok=True)
    (folder / "maildir-example" / user).write_text("no folder")


# The trace.


@pytest.mark.parametrize(
    ("configuration", "protocol"),
    [
        ("", "ESMTP"),
        ('[[listen]]\ntls = "implicit"', "ESMTPS"),
        ('[[listen]]\ntls = "starttls"', "ESMTPS"),
        (AUTH, "ESMTPA"),
        (f'[[listen]]\ntls = "starttls"\n{AUTH}', "ESMTPSA"),
        ('[[listen]]\nprotocol = "lmtp"', "LMTP"),
        (f'[[listen]]\nprotocol = "lmtp"\ntls = "starttls"\n{AUTH}', "LMTPSA"),
        ('[[listen]]\nprotocol = "submission"', "ESMTP"),
    ],
)
@pytest.mark.parametrize("utf8", [False, True], ids=["ascii", "utf8"])
async def test_received_says_with_what(
    configuration: str, protocol: str, utf8: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    greeting = "LHLO c.test" if "lmtp" in configuration else "EHLO c.test"
    async with open_mta(tmp_path, configuration) as mta, talk(mta, greet=False) as client:
        if "implicit" in configuration:
            await client.start_tls()
        await client.expect("220")
        await client.say(greeting, "250")
        if "starttls" in configuration:
            await client.say("STARTTLS", "220")
            await client.start_tls()
            await client.say(greeting, "250")
        if "[auth]" in configuration:
            await client.say(LOG_IN, "235")
        await send_message(client, "alice@dev.test", parameters=" SMTPUTF8" if utf8 else "")
    (message,) = mailbox(tmp_path, "alice")
    expected = f"UTF8{protocol.replace('ESMTP', 'SMTP')}" if utf8 else protocol
    assert f" with {expected} id ".encode() in message


@pytest.mark.parametrize(
    ("version", "registered"),
    [
        (ssl.TLSVersion.TLSv1_2, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (ssl.TLSVersion.TLSv1_3, "TLS_AES_256_GCM_SHA384"),
    ],
)
@pytest.mark.parametrize("greeting", ["EHLO c.test", "HELO c.test"])
async def test_received_names_the_cipher_suite_as_iana_does(
    greeting: str, version: ssl.TLSVersion, registered: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """RFC 8314 4.3; a client that says HELO behind TLS is told of by the clause alone."""
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta, talk(mta, greet=False) as client:
        await client.start_tls(version)
        await client.expect("220")
        await client.say(greeting, "250")
        await send_message(client, "alice@dev.test")
    (message,) = mailbox(tmp_path, "alice")
    assert f"\n\ttls {registered}; ".encode() in message


async def test_helo_is_smtp(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta, greet=False) as client:
        await client.expect("220")
        await client.say("HELO c.test", "250")
        await send_message(client, "alice@dev.test")
    assert b" with SMTP id " in mailbox(tmp_path, "alice")[0]


@pytest.mark.parametrize(
    ("peer", "trace"),
    [
        (LOOPBACK, "from client.test ([127.0.0.1])"),
        (ClientAddress("::1"), "from client.test ([IPv6:::1])"),
        (ClientAddress(UNIX), "from client.test (unix socket)"),
    ],
)
async def test_received_says_from_whom(
    peer: ClientAddress, trace: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path) as mta, talk(mta, peer=peer) as client:
        await send_message(client, "Alice+x@dev.test")
    (message,) = mailbox(tmp_path, "alice")
    found = re.search(
        rb"^Received: (.*?)\n\tby mx\.dev\.test with ESMTP id (\S+)\n\tfor <(.*?)>; (.*)$", message, re.MULTILINE
    )
    assert found is not None
    assert found[1].decode() == trace
    assert found[3] == b"Alice+x@dev.test"


@pytest.mark.parametrize(
    ("recipients", "says_for"),
    [
        (["alice@dev.test"], True),
        (["team@dev.test"], True),
        (["alice@dev.test", "bob@dev.test"], False),
        (["alice@dev.test", "x@example.com"], False),
    ],
)
async def test_for_is_there_for_a_single_recipient(
    recipients: list[str], says_for: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        open_mta(tmp_path, '[aliases]\nteam = ["alice", "bob"]') as mta,
        talk(mta) as client,
    ):
        await send_message(client, *recipients)
    (message,) = mailbox(tmp_path, "alice")
    assert (f"\tfor <{recipients[0]}>;".encode() in message) is says_for


TRACE = ["Return-Path", "Delivered-To", "Received"]
WITH_ORIGINAL = ["Return-Path", "X-Original-To", "Delivered-To", "Received"]


@pytest.mark.parametrize(
    ("recipient", "user", "top", "delivered_to"),
    [
        ("alice@dev.test", "alice", TRACE, "alice@dev.test"),
        ("Alice@dev.test", "alice", WITH_ORIGINAL, "alice@dev.test"),
        ("alice@DEV.TEST", "alice", WITH_ORIGINAL, "alice@dev.test"),
        ("alice+lists@dev.test", "alice", WITH_ORIGINAL, "alice@dev.test"),
        ("boss@dev.test", "alice", WITH_ORIGINAL, "alice@dev.test"),
        ("postmaster", "postmaster", WITH_ORIGINAL, "postmaster@mx.dev.test"),
        ("x@example.com", "remote", TRACE, "x@example.com"),
    ],
)
async def test_trace_fields_stand_in_this_order(
    recipient: str, user: str, top: list[str], delivered_to: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path, '[aliases]\nboss = ["alice"]') as mta, talk(mta) as client:
        await send_message(client, recipient, sender="Bob@Dev.test")
    (message,) = mailbox(tmp_path, user)
    assert fields(message) == [*top, "From", "Subject"]
    lines = message.decode().split("\n")
    assert lines[0] == "Return-Path: <Bob@Dev.test>"
    assert f"Delivered-To: {delivered_to}" in lines
    if "X-Original-To" in top:
        assert lines[1] == f"X-Original-To: {recipient}"


async def test_a_submission_gets_what_it_lacks_below_received(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[[listen]]\nprotocol = "submission"') as mta, talk(mta) as client:
        await send_message(client, "alice@dev.test", content="Subject: hi\r\n\r\nbody\r\n")
        await send_message(
            client, "bob@dev.test", content="Date: d\r\nMessage-ID: <m>\r\nFrom: f\r\n\r\nbody\r\n", sender=""
        )
    assert fields(mailbox(tmp_path, "alice")[0]) == [*TRACE, "From", "Date", "Message-ID", "Subject"]
    assert fields(mailbox(tmp_path, "bob")[0]) == [*TRACE, "Date", "Message-ID", "From"]


# Who gets a copy.

ALIASES = """
[aliases]
all = ["team", "bob", "x@later.test"]
team = ["alice", "Bob", "carol@partner.test", "y@later.test"]
"boss@elsewhere.test" = ["alice"]
alice2 = ["alice+two"]
[routes]
"later.test" = "hold"
"""


@pytest.mark.parametrize(
    ("recipients", "copies", "in_queue"),
    [
        (["all@dev.test"], {"alice": 1, "bob": 1, "remote": 1}, [["x@later.test", "y@later.test"]]),
        (["team@dev.test", "all@dev.test"], {"alice": 1, "bob": 1, "remote": 1}, [["x@later.test", "y@later.test"]]),
        (["alice@dev.test", "team@dev.test"], {"alice": 1, "bob": 1, "remote": 1}, [["y@later.test"]]),
        (["alice@dev.test", "ALICE@dev.test", "alice@dev.test"], {"alice": 1}, []),
        (["alice@dev.test", "alice2@dev.test"], {"alice": 2}, []),
        (["boss@elsewhere.test"], {"alice": 1}, []),
        (["a@one.test", "b@one.test", "c@two.test"], {"remote": 2}, []),
        (["a@later.test", "b@LATER.test", "a@later.test"], {}, [["a@later.test", "b@LATER.test"]]),
        (["alice@localhost", "alice@dev.test"], {"alice": 2}, []),
    ],
)
async def test_each_recipient_gets_one_copy_and_each_domain_one_envelope(
    recipients: list[str], copies: dict[str, int], in_queue: list[list[str]], tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path, ALIASES) as mta:
        async with talk(mta) as client:
            await send_message(client, *recipients, sender="owner@dev.test")
        waiting = await recipients_in_queue(mta)
    assert [sorted(one) for one in waiting] == in_queue
    assert {user: len(found) for user in ("alice", "bob", "remote") if (found := mailbox(tmp_path, user))} == copies
    for user in copies:
        for message in mailbox(tmp_path, user):
            assert message.startswith(b"Return-Path: <owner@dev.test>\n"), "an alias does not change who it is from"


async def test_a_captured_message_is_one_file_a_domain_that_names_all_its_recipients(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path) as mta, talk(mta) as client:
        await send_message(client, "a@one.test", "b@one.test", "c@two.test", "alice@dev.test")
    found = sorted(
        [line for line in message.decode().split("\n") if line.startswith("Delivered-To")]
        for message in mailbox(tmp_path, "remote")
    )
    assert found == [["Delivered-To: a@one.test", "Delivered-To: b@one.test"], ["Delivered-To: c@two.test"]]


async def test_captured_members_of_a_list_share_one_field_that_says_what_it_was(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    aliases = '[aliases]\nteam = ["a@one.test", "b@one.test"]\nsolo = "c@one.test"'
    async with open_mta(tmp_path, aliases) as mta, talk(mta) as client:
        await send_message(client, "team@dev.test", "solo@dev.test", "d@one.test")
    (captured,) = mailbox(tmp_path, "remote")
    assert captured.decode().split("\n")[1:7] == [
        "X-Original-To: team@dev.test",
        "X-Original-To: solo@dev.test",
        *(f"Delivered-To: {name}@one.test" for name in "abcd"),
    ]


async def test_addresses_with_a_route_of_their_own_share_an_envelope_if_it_is_the_same_route(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    held = ("a@one.test", "b@one.test", "alice@dev.test", "postmaster@mx.dev.test")
    routes = "[routes]\n" + "\n".join(f'"{address}" = "hold"' for address in held)
    async with open_mta(tmp_path, routes) as mta, talk(mta) as client:
        await send_message(client, "a@one.test", "b@one.test", "c@one.test", "Alice@dev.test", "postmaster")
        waiting = await recipients_in_queue(mta)
    assert sorted(waiting) == [["Alice@dev.test"], ["a@one.test", "b@one.test"], ["postmaster"]]
    assert len(mailbox(tmp_path, "remote")) == 1


# What can't be written.


async def test_a_maildir_that_cannot_be_written_is_deferred_and_the_others_get_theirs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    block(tmp_path, "bob")
    async with open_mta(tmp_path, wall=mock_wall()) as mta:
        events = record(mta)
        async with talk(mta) as client:
            await send_message(client, "alice@dev.test", "bob@dev.test", "carol@dev.test")
        assert len(mailbox(tmp_path, "alice")) == len(mailbox(tmp_path, "carol")) == 1
        (waiting,) = await queued(mta)
        assert waiting.envelope.attempts == 1
        assert waiting.envelope.recipients[0].status == "4.2.0"
        assert "maildir-example/bob" in waiting.envelope.recipients[0].reply
        (deferral,) = [event.fields for event in events if event.name == "deferred"]
        assert [*deferral] == ["id", "to", "status", "reply", "next_s"]
        assert (deferral["to"], deferral["status"]) == ("bob@dev.test", "4.2.0")
        assert deferral["next_s"] == round(waiting.envelope.due - mta.clock.now())
        (tmp_path / "maildir-example/bob").unlink()
        mta.clock.advance_to(waiting.envelope.due)
        async with deliveries(mta):
            pass
        assert len(mailbox(tmp_path, "bob")) == 1
        assert await queued(mta) == []
    assert fields(mailbox(tmp_path, "bob")[0])[: len(TRACE)] == TRACE


@pytest.mark.parametrize("size", [10, 400_000])
async def test_with_remote_envelopes_too(size: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    block(tmp_path, "bob")
    async with open_mta(tmp_path, '[routes]\n"later.test" = "hold"') as mta, talk(mta) as client:
        await send_message(client, "alice@dev.test", "bob@dev.test", "x@later.test", content=f"\r\n{'a' * size}\r\n")
        assert sorted(await recipients_in_queue(mta)) == [["bob@dev.test"], ["x@later.test"]]
        assert left_in_spool(mta) == []
    assert len(mailbox(tmp_path, "alice")) == 1


async def test_a_new_folder_without_permission_is_found_before_anything_is_promised(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_mta(tmp_path, '[routes]\n"later.test" = "hold"') as mta, talk(mta) as client:
        await send_message(client, "alice@dev.test")
        monkeypatch.setattr("trimta.store.maildir.os.access", lambda path, _: "alice" not in str(path))
        await send_message(client, "alice@dev.test", "bob@dev.test", "x@later.test")
        assert sorted(await recipients_in_queue(mta)) == [["alice@dev.test"], ["x@later.test"]]
    assert len(mailbox(tmp_path, "bob")) == 1
    assert [*(tmp_path / "maildir-example/alice/tmp").iterdir()] == []


async def test_lmtp_leaves_it_to_the_client(tmp_path: Path, autojump_clock: MockClock) -> None:
    block(tmp_path, "bob")
    configuration = '[[listen]]\nprotocol = "lmtp"\n[aliases]\nteam = ["alice", "bob"]'
    async with open_mta(tmp_path, configuration) as mta, talk(mta) as client:
        await client.say("MAIL FROM:<a@dev.test>", "250")
        for name in ("alice", "bob", "carol", "BOB", "team"):
            await client.say(f"RCPT TO:<{name}@dev.test>", "250")
        await client.say("DATA", "354")
        replies = ["250 2.6.0 <alice@", "451 4.2.0 <bob@", "250 2.6.0 <carol@", "451 4.2.0 <BOB@", "451 4.2.0 <team@"]
        await client.say("hello\r\n.", *replies)
        await client.say("NOOP", "250")
        assert await queued(mta) == []
    assert len(mailbox(tmp_path, "alice")) == len(mailbox(tmp_path, "carol")) == 1


# Loops, reports, and what comes later.


@pytest.mark.parametrize("header", ["Delivered-To: alice@dev.test", "delivered-to: <Alice@DEV.test>"])
async def test_a_message_that_was_here_before_is_accepted_and_then_fails(
    header: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path, wall=mock_wall()) as mta:
        async with talk(mta) as client:
            content = f"{header}\r\nSubject: again\r\n\r\nbody\r\n"
            await send_message(client, "alice@dev.test", "bob@dev.test", content=content)
        async with deliveries(mta):
            pass
        assert await queued(mta) == []
    assert mailbox(tmp_path, "alice") == []
    assert len(mailbox(tmp_path, "bob")) == 1
    (report,) = mailbox(tmp_path, "sender")
    assert b"\nStatus: 5.4.6\n" in report
    assert report.startswith(b"Return-Path: <>\n")


async def test_where_a_message_has_been_is_read_once_however_many_it_is_for(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def parse(text: str) -> Mailbox:
        read.append(text)
        return parse_mailbox(text)

    monkeypatch.setattr("trimta.content.header_summary.parse_mailbox", parse)
    async with open_mta(tmp_path) as mta, talk(mta) as client:
        content = "".join(f"Delivered-To: x{number}@dev.test\r\n" for number in range(50))
        await send_message(client, *(f"user{number}@dev.test" for number in range(20)), content=content)
    assert len(read) == 50


@pytest.mark.parametrize(
    ("recipients", "notify", "reports"),
    [
        (["alice@dev.test"], "SUCCESS", [b"Action: delivered"]),
        (["alice@dev.test"], "SUCCESS,FAILURE", [b"Action: delivered"]),
        (["alice@dev.test"], "FAILURE,DELAY", []),
        (["alice@dev.test"], "NEVER", []),
        (["team@dev.test"], "SUCCESS", [b"Action: expanded"]),
        (["team@dev.test"], "FAILURE", []),
        (["x@blackhole.test"], "SUCCESS", [b"Action: delivered"]),
        (["x@example.com"], "SUCCESS", [b"Action: delivered"]),
        (["member@dev.test"], "FAILURE", [b"Action: failed"]),
        (["member@dev.test"], "NEVER", []),
    ],
)
async def test_notify_decides_on_reports(
    recipients: list[str], notify: str, reports: list[bytes], tmp_path: Path, autojump_clock: MockClock
) -> None:
    configuration = """
[aliases]
team = ["alice", "bob"]
member = ["x@closed.test"]
[routes]
"closed.test" = "reject:550 5.7.1 no"
"blackhole.test" = "discard"
"""
    async with open_mta(tmp_path, configuration, wall=mock_wall()) as mta:
        async with talk(mta) as client:
            await send_message(client, *recipients, parameters=" ENVID=e1", notify=f" NOTIFY={notify}")
        async with deliveries(mta):
            pass
    found = mailbox(tmp_path, "sender")
    assert [next(line for line in message.split(b"\n") if line.startswith(b"Action")) for message in found] == reports
    for message in found:
        assert b"\nOriginal-Envelope-Id: e1\n" in message


async def test_nobody_reports_to_the_null_sender(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, wall=mock_wall()) as mta:
        async with talk(mta) as client:
            await send_message(client, "alice@dev.test", sender="", notify=" NOTIFY=SUCCESS")
        async with deliveries(mta):
            pass
        assert await queued(mta) == []
    assert len(mailbox(tmp_path, "alice")) == 1


async def test_no_room_for_a_success_report_is_no_reason_to_have_the_message_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise QueueUnavailable("disk full")

    async with open_mta(tmp_path) as mta, talk(mta) as client:
        events = record(mta)
        monkeypatch.setattr("trimta.store.queue.queue.Queue.accept", full)
        await send_message(client, "alice@dev.test", notify=" NOTIFY=SUCCESS")
        assert "queue_trouble" in names(events)
    assert len(mailbox(tmp_path, "alice")) == 1


async def test_a_large_message_whose_content_cannot_be_synced_is_refused_whole(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with open_mta(tmp_path, '[routes]\n"later.test" = "hold"') as mta, talk(mta) as client:
        monkeypatch.setattr(durable, "fsync_file", broken)
        content = b"Subject: large\r\n\r\n" + b"x" * 998 + b"\r\n" * MEMORY_LIMIT
        await send_message(client, "alice@dev.test", "x@later.test", content=content, reply="452")
        assert await queued(mta) == []
        assert left_in_spool(mta) == []
    assert mailbox(tmp_path, "alice") == []


async def test_a_held_message_waits_for_local_recipients_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[[listen]]\nprotocol = "submission"', wall=mock_wall()) as mta:
        start = mta.clock.now()
        async with talk(mta) as client:
            await send_message(client, "alice@dev.test", "x@example.com", parameters=" HOLDFOR=3600")
        async with deliveries(mta):
            pass
        assert mailbox(tmp_path, "alice") == mailbox(tmp_path, "remote") == []
        assert {listed.envelope.due - start for listed in await queued(mta)} == {3600}
        mta.clock.advance_to(start + 3600)
        async with deliveries(mta):
            pass
        assert await queued(mta) == []
    assert len(mailbox(tmp_path, "alice")) == len(mailbox(tmp_path, "remote")) == 1


async def test_a_message_that_is_late_comes_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    block(tmp_path, "bob")
    async with open_mta(tmp_path, wall=mock_wall()) as mta:
        async with talk(mta) as client:
            await send_message(client, "bob@dev.test", parameters=" BY=120;R")
        mta.clock.advance_to(mta.clock.now() + 121)
        async with deliveries(mta):
            pass
        assert await queued(mta) == []
    (report,) = mailbox(tmp_path, "sender")
    assert b"\nStatus: 5.4.7\n" in report


async def test_the_configuration_of_a_session_holds_to_its_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta, peer=STRANGER) as client:
        await client.say_all(("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<alice@dev.test>", "250"), ("DATA", "354"))
        mta.apply(configuration(tmp_path, '[local]\ndomains = []\n[routes]\n"*" = "hold"'), mta.client_settings.tls)
        await client.say("hello\r\n.", "250")
        assert await queued(mta) == []
    assert len(mailbox(tmp_path, "alice")) == 1
