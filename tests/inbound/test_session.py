"""Sessions in time and trouble: what a dialogue file can't show.  MockClock runs the clock."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.support.clock import mock_wall
from tests.support.receiving import (
    LOOPBACK,
    SENT,
    STRANGER,
    Client,
    deliveries,
    left_in_spool,
    mailbox,
    names,
    open_mta,
    record,
    send_message,
    talk,
)
from trimta.config.model import AuthSection
from trimta.inbound.acceptance import Acceptance
from trimta.inbound.client_address import UNIX, ClientAddress
from trimta.runtime.events import as_text
from trimta.runtime.wire import Wire
from trimta.store import durable
from trimta.store.queue.errors import QueueUnavailable
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

IDLE = 300.0


async def elapsed_until(client: Client, start: str) -> float:
    """Seconds of the test's clock until a reply that begins so."""
    before = trio.current_time()
    await client.expect(start)
    return trio.current_time() - before


# Silence.


@pytest.mark.parametrize("said", ["", "EHLO client.test", "EHLO client.test\r\nMAIL FROM:<a@dev.test>"])
async def test_a_silent_client_is_told_so_after_idle(said: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta, greet=False) as client:
        await client.expect("220")
        for line in said.splitlines():
            await client.say(line, "250")
        assert await elapsed_until(client, "421 4.4.2") == pytest.approx(IDLE)
        await client.expect("")


async def test_behind_tls_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta, talk(mta, greet=False) as client:
        await client.start_tls()
        await client.expect("220")
        assert await elapsed_until(client, "421 4.4.2") == pytest.approx(IDLE)


async def test_octets_of_a_command_line_do_not_buy_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta) as client:
        before = trio.current_time()
        for octet in b"NOOP and so on":
            await client.send(bytes([octet]))
            await trio.sleep(IDLE / 10)
        await client.expect("421 4.4.2")
        assert trio.current_time() - before < 2 * IDLE


@pytest.mark.parametrize("command", ["DATA", "BDAT 1000"])
async def test_octets_of_content_do(command: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta) as client:
        await client.say_all(("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<b@dev.test>", "250"))
        await client.say(command, *(["354"] if command == "DATA" else []))
        for _ in range(10):
            await trio.sleep(IDLE - 1)
            await client.send("a line\r\n")
        assert await elapsed_until(client, "421 4.4.2") == pytest.approx(IDLE)
        await client.expect("")
        assert mailbox(tmp_path, "b") == []


async def test_each_command_has_its_own_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta) as client:
        for _ in range(5):
            await trio.sleep(IDLE - 1)
            await client.say("NOOP", "250")


async def test_a_client_that_reads_nothing_is_left_after_idle(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta:
        events = record(mta)
        near, far = trio.testing.lockstep_stream_pair()
        with trio.fail_after(2 * IDLE):
            await mta.session(mta.configuration.listen[0], Wire(far), LOOPBACK).run()
        assert [event.fields.get("reason") for event in events if event.name == "lost"] == ["the client reads nothing"]
        await trio.aclose_forcefully(near)


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_a_handshake_takes_idle_at_most(tls: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, f'[[listen]]\ntls = "{tls}"') as mta, talk(mta, greet=False) as client:
        if tls == "starttls":
            await client.expect("220")
            await client.say_all(("EHLO client.test", "250"), ("STARTTLS", "220"))
        before = trio.current_time()
        await client.expect("")
        assert trio.current_time() - before == pytest.approx(IDLE, abs=2)


async def test_an_implicit_listener_speaks_tls_from_the_start(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta, talk(mta, greet=False) as client:
        await client.start_tls()
        await client.expect("220")
        await client.say("EHLO client.test", "250")
        await send_message(client, "alice@dev.test")
        assert b"with ESMTPS id" in mailbox(tmp_path, "alice")[0]


async def test_plain_text_where_tls_is_due_ends_the_session_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta:
        async with talk(mta, greet=False) as client:
            await client.send("EHLO client.test\r\n")
            with pytest.raises((AssertionError, UnicodeDecodeError)):
                await client.expect("220")
        async with talk(mta, greet=False) as client:
            await client.start_tls()
            await client.expect("220")


# The end of the server.


async def test_an_idle_session_is_told_that_the_server_stops(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta) as client, talk(mta, greet=False) as other:
        await other.expect("220")
        mta.drain.start()
        await client.expect("421 4.3.2")
        await client.expect("")
        await other.expect("421 4.3.2")
        async with talk(mta, greet=False) as late:
            await late.expect("421 4.3.2")


async def test_a_transaction_in_progress_finishes_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path) as mta, talk(mta) as client:
        await client.say("MAIL FROM:<a@dev.test>", "250")
        mta.drain.start()
        await client.say("RCPT TO:<alice@dev.test>", "250")
        await client.say("DATA", "354")
        await client.say("Subject: last\r\n.", "250")
        await client.expect("421 4.3.2")
        assert len(mailbox(tmp_path, "alice")) == 1


async def test_what_is_not_finished_when_the_grace_is_over_is_told_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path) as mta:
        near, far = trio.testing.memory_stream_pair()
        client = Client(near)
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mta.session(mta.configuration.listen[0], Wire(far), LOOPBACK).run)
                await client.expect("220")
                await client.say("EHLO client.test", "250")
                await client.say("MAIL FROM:<a@dev.test>", "250")
                await client.say("RCPT TO:<alice@dev.test>", "250")
                await client.say("DATA", "354")
                await client.send("half")
        await client.expect("421 4.3.2")
        await client.expect("")


async def test_a_bug_is_told_the_client_and_goes_on_to_the_server(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Acceptance, "accept", broken)
    async with open_mta(tmp_path) as mta:
        with pytest.RaisesGroup(
            pytest.RaisesExc(RuntimeError, match="a bug"), allow_unwrapped=True, flatten_subgroups=True
        ):
            async with talk(mta) as client:
                await send_message(client, "alice@dev.test", reply="421 4.3.0")
        async with talk(mta) as client:
            await client.say("NOOP", "250")


# Limits.


async def test_too_many_connections_of_a_client_and_in_all(tmp_path: Path, autojump_clock: MockClock) -> None:
    limits = "[limits]\nconnections_per_client = 2\nconnections = 3"
    async with open_mta(tmp_path, limits) as mta, talk(mta) as one, talk(mta):
        events = record(mta)
        async with talk(mta, greet=False) as third:
            await third.expect("421 4.7.0")
            await third.expect("")
        async with talk(mta, peer=STRANGER), talk(mta, peer=ClientAddress("192.0.2.8"), greet=False) as fourth:
            await fourth.expect("421 4.3.2")
            await fourth.expect("")
        await one.say("QUIT", "221")
        await one.expect("")
        async with talk(mta) as next_one:
            await next_one.say("NOOP", "250")
        assert names(events).count("rejected") == 2
    assert mta.counts.total == 0


async def test_a_wrong_password_costs_more_each_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[auth]\nusers = { alice = "secret" }') as mta, talk(mta) as client:
        waits = []
        for _ in range(5):
            before = trio.current_time()
            await client.say("AUTH PLAIN AGFsaWNlAHdyb25n", "535")
            waits.append(round(trio.current_time() - before))
        assert waits == [1, 2, 4, 8, 8]
        before = trio.current_time()
        await client.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235")
        assert trio.current_time() == before


@pytest.mark.parametrize(
    ("configuration", "peer", "offered", "reply"),
    [
        ("", LOOPBACK, True, "235"),
        ("", ClientAddress(UNIX), True, "235"),
        ("", ClientAddress("::1"), True, "235"),
        ("", STRANGER, False, "538 5.7.11"),
        ('[[listen]]\ntls = "starttls"', STRANGER, False, "530 5.7.0"),
        ("[auth]\ninsecure = true", STRANGER, True, "235"),
    ],
)
async def test_auth_in_clear_is_for_loopback(
    configuration: str, peer: ClientAddress, offered: bool, reply: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    users = 'users = { alice = "secret" }'
    text = f"{configuration}\n{users}" if "[auth]" in configuration else f"[auth]\n{users}\n{configuration}"
    async with open_mta(tmp_path, text) as mta, talk(mta, peer=peer, greet=False) as client:
        await client.expect("220")
        await client.send("EHLO client.test\r\n")
        assert any("AUTH" in line for line in await client.reply()) is offered
        await client.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==", reply)


async def test_a_reload_without_users_opens_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    required = '[[listen]]\nauth = "required"\n[auth]\nusers = { alice = "secret" }'
    async with open_mta(tmp_path, required) as mta:
        mta.apply(replace(mta.configuration, auth=AuthSection()), mta.client_settings.tls)
        async with talk(mta) as client:
            await client.say("MAIL FROM:<a@dev.test>", "530 5.7.0")
            await client.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "535")


@pytest.mark.parametrize(
    ("networks", "peer", "may"),
    [
        ('"127.0.0.0/8", "::1/128"', LOOPBACK, True),
        ('"127.0.0.0/8", "::1/128"', ClientAddress("127.9.9.9"), True),
        ('"127.0.0.0/8", "::1/128"', ClientAddress("::1"), True),
        ('"127.0.0.0/8", "::1/128"', ClientAddress(UNIX), True),
        ('"::1/128"', ClientAddress(UNIX), True),
        ('"::1/128"', LOOPBACK, False),
        ('"127.0.0.0/8", "::1/128"', STRANGER, False),
        ('"127.0.0.0/8", "::1/128"', ClientAddress("2001:db8::1"), False),
        ('"192.0.2.0/29"', STRANGER, True),
        ('"192.0.2.0/29"', LOOPBACK, False),
        ("", LOOPBACK, False),
        ("", ClientAddress(UNIX), False),
    ],
)
async def test_who_may_relay(
    networks: str, peer: ClientAddress, may: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path, f"[relay]\nnetworks = [{networks}]") as mta, talk(mta, peer=peer) as client:
        await client.say("MAIL FROM:<a@dev.test>", "250")
        await client.say("RCPT TO:<x@example.com>", "250 2.1.5" if may else "550 5.7.1")
        await client.say("RCPT TO:<alice@dev.test>", "250 2.1.5")


@pytest.mark.parametrize(
    ("name", "client", "trace"),
    [
        (("127.0.0.1", 1), "127.0.0.1", "127.0.0.1"),
        (("::1", 1, 0, 0), "::1", "IPv6:::1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1", "192.0.2.1"),
        (("fe80::1%lo", 1, 0, 1), "fe80::1", "IPv6:fe80::1"),
    ],
)
def test_a_peer_is_an_address_and_a_mapped_one_is_ipv4(name: tuple[object, ...], client: str, trace: str) -> None:
    class Connected:
        family = 2

        def getpeername(self) -> tuple[object, ...]:
            return name

    peer = ClientAddress.of(Connected())  # type: ignore[arg-type]
    assert (peer.host, peer.trace) == (client, trace)


@pytest.mark.parametrize("command", ["DATA", "BDAT", "BDAT in two", "BDAT of raw octets"])
@pytest.mark.parametrize("size", [0, 1 << 19], ids=["in memory", "spooled"])
async def test_a_body_that_is_queued_knows_how_many_lines_it_has(
    command: str, size: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = b"A: b\r\n\r\n.\r\n..\r\n.x\r\n" + b"0123456789abcd\r\n" * (size // 16) + b"\r\n"
    raw = " BODY=BINARYMIME" if "raw" in command else ""
    async with open_mta(tmp_path, '[routes]\n"far.test" = "hold"') as mta, talk(mta) as client:
        await client.say_all((f"MAIL FROM:<a@dev.test>{raw}", "250"), ("RCPT TO:<b@far.test>", "250"))
        if command == "DATA":
            await client.say("DATA", "354")
            await client.send(content.replace(b"\n.", b"\n.."))
            await client.say(".", "250")
        else:
            if command == "BDAT in two":
                await client.send(b"BDAT 7\r\n" + content[:7])
                await client.expect("250")
            rest = content[7:] if command == "BDAT in two" else content
            await client.send(b"BDAT %d LAST\r\n%b" % (len(rest), rest))
            await client.expect("250")
        (listed,) = await mta.queue.run(lambda queue: list(queue.entries.list_envelopes()))
        found = await mta.queue.run(lambda queue: queue.entries.load(listed.envelope.id))
        assert found is not None
        body = found[0].content
        assert body.in_memory == (not size)
        assert (body.lines, body.wire_size) == (content.count(b"\n"), len(content))


# A disk that fails.


@pytest.mark.parametrize("command", ["DATA", "BDAT"])
async def test_a_full_disk_while_content_comes_is_452(
    command: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with open_mta(tmp_path) as mta, talk(mta) as client:
        await client.say_all(("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<alice@dev.test>", "250"))
        with monkeypatch.context() as patch:
            patch.setattr(durable, "write_all", full)
            content = b"0123456789abcd\r\n" * 65536
            if command == "DATA":
                await client.say("DATA", "354")
                await client.send(content)
                await client.say(".", "452 4.3.1")
            else:
                await client.send(b"BDAT %d LAST\r\n%b" % (len(content), content))
                await client.expect("452 4.3.1")
        assert left_in_spool(mta) == []
        await send_message(client, "alice@dev.test")
        assert len(mailbox(tmp_path, "alice")) == 1


async def test_a_spool_file_that_cannot_be_synced_is_452_and_gone(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with open_mta(tmp_path) as mta, talk(mta) as client:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "fsync", broken)
            await send_message(client, "alice@dev.test", content=b"0123456789abcd\r\n" * 65536, reply="452 4.3.1")
        assert left_in_spool(mta) == []
        assert mailbox(tmp_path, "alice") == []


@pytest.mark.parametrize("size", [16, 1 << 20])
async def test_a_queue_that_takes_nothing_is_452_and_no_copy_is_seen(
    size: int, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise QueueUnavailable("disk full")

    async with open_mta(tmp_path, '[routes]\n"later.test" = "hold"') as mta, talk(mta) as client:
        events = record(mta)
        with monkeypatch.context() as patch:
            patch.setattr(Queue, "accept", full)
            content = b"0123456789abcd\r\n" * (size // 16)
            await send_message(client, "alice@dev.test", "x@later.test", content=content, reply="452 4.3.1")
        await client.say("NOOP", "250")  # the content goes after the reply
        assert mailbox(tmp_path, "alice") == []
        assert [*(tmp_path / "maildir-example/alice/tmp").iterdir()] == []
        assert left_in_spool(mta) == []
        assert "accepted" not in names(events)
        await send_message(client, "alice@dev.test", "x@later.test")
        assert len(mailbox(tmp_path, "alice")) == 1


async def test_memory_does_not_grow_with_a_message(tmp_path: Path, autojump_clock: MockClock) -> None:
    size = 40 << 20
    block = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n" * 1024
    async with open_mta(tmp_path, '[routes]\n"later.test" = "hold"') as mta, talk(mta) as client:
        await client.say_all(("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<alice@dev.test>", "250"))
        await client.say_all(("RCPT TO:<x@later.test>", "250"), ("DATA", "354"))
        tracemalloc.start()
        try:
            for _ in range(size // len(block)):
                await client.send(block)
                await trio.testing.wait_all_tasks_blocked()
            await client.say(".", "250")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20
        assert left_in_spool(mta) == []
        (found,) = (tmp_path / "maildir-example/alice/new").iterdir()
        assert found.stat().st_size > (size // len(block)) * (len(block) - 1024)
        assert found.name.endswith(f",S={found.stat().st_size}")


async def test_replies_that_are_not_read_do_not_pile_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    members = ", ".join(f'"member{number}"' for number in range(1000))
    async with open_mta(tmp_path, f"[aliases]\na = [{members}]") as mta:
        near, far = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mta.session(mta.configuration.listen[0], Wire(far), LOOPBACK).run)
            await Client(near).expect("220")
            tracemalloc.start()
            try:
                await near.send_all(b"EXPN a\r\n" * 500)
                await trio.testing.wait_all_tasks_blocked()
                assert tracemalloc.get_traced_memory()[1] < 1 << 20
            finally:
                tracemalloc.stop()
            await near.aclose()


async def test_recipients_that_are_large_aliases_share_their_members(tmp_path: Path, autojump_clock: MockClock) -> None:
    members = ", ".join(f'"member{number}"' for number in range(1000))
    async with open_mta(tmp_path, f"[aliases]\na = [{members}]") as mta, talk(mta) as client:
        await client.say("MAIL FROM:<>", "250")
        tracemalloc.start()
        try:
            for spelling in range(100):
                await client.say(f"RCPT TO:<a+{spelling}@dev.test>", "250")
            assert tracemalloc.get_traced_memory()[1] < 6 << 20
        finally:
            tracemalloc.stop()


async def test_recipients_that_are_refused_leave_nothing_behind(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, "[local]\nusers = ['alice']") as mta, talk(mta) as client:
        await client.say("MAIL FROM:<>", "250")
        await client.say("RCPT TO:<nobody@dev.test>", "550 5.1.1")
        tracemalloc.start()
        kept = []
        try:
            for number in range(500):
                await client.say(f"RCPT TO:<nobody{number}@dev.test>", "550 5.1.1")
                if number in (249, 499):
                    ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/trimta/*")])
                    kept.append(sum(trace.size for trace in ours.traces))
        finally:
            tracemalloc.stop()
        assert kept[0] < 200_000  # caches and the transcript, which are full now
        assert kept[1] - kept[0] < 20_000


async def test_the_address_that_is_delivered_to_is_that_of_the_accepted_rcpt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    later = '[[faults]]\nstage = "rcpt"\nreply = "450 4.2.1 later"\ntimes = 1\n'
    async with open_mta(tmp_path, later) as mta, talk(mta) as client:
        await client.say("MAIL FROM:<>", "250")
        await client.say("RCPT TO:<bob@EXAMPLE.org>", "450")
        await client.say("RCPT TO:<bob@example.org>", "250")
        await client.say("DATA", "354")
        await client.say("hi\r\n.", "250")
        (message,) = mailbox(tmp_path, "remote")
        assert b"Delivered-To: bob@example.org" in message


async def test_whether_there_is_room_is_seen_at_the_greeting_and_not_before_tls(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    configuration = '[limits]\nconnections_per_client = 1\n[[listen]]\ntls = "implicit"'
    async with (
        open_mta(tmp_path, configuration) as mta,
        talk(mta, greet=False) as first,
        talk(mta, greet=False) as second,
    ):
        await trio.testing.wait_all_tasks_blocked()
        await first.close()
        await trio.testing.wait_all_tasks_blocked()
        await second.start_tls()
        await second.expect("220")


# Passwords.


async def test_hashed_passwords_are_as_good(tmp_path: Path, autojump_clock: MockClock) -> None:
    digest = hashlib.scrypt(b"secret", salt=b"0123456789abcdef", n=2, r=1, p=1, dklen=32)
    encoded = [base64.b64encode(part).rstrip(b"=").decode() for part in (b"0123456789abcdef", digest)]
    users = f'[auth]\nusers = {{ alice = "$scrypt$ln=1,r=1,p=1${"$".join(encoded)}" }}'
    async with open_mta(tmp_path, users) as mta, talk(mta) as client:
        await client.say("AUTH PLAIN AGFsaWNlAHdyb25n", "535")
        await client.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235")


async def test_no_password_is_in_any_event_or_history(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    async with open_mta(tmp_path, '[auth]\nusers = { alice = "secret" }') as mta:
        monkeypatch.setattr(mta.message_log, "note_dialogue", lambda _, lines: notes.extend(line for _, line in lines))
        events = record(mta)
        async with talk(mta) as client:
            await client.say("AUTH PLAIN AGFsaWNlAHdyb25n", "535")
            await client.say("AUTH\tPLAIN\tAGFsaWNlAHNlY3JldA==", "500")
            await client.say("AUTH CRAM-MD5", "504")
            await client.say("c2VjcmV0", "500")
            await client.say("AUTH LOGIN YWxpY2U=", "334")
            await client.say("c2VjcmV0", "235")
            await send_message(client, "bob@dev.test")
    said = "\n".join([*notes, *(str(event) for event in events)])
    assert "AUTH LOGIN ***" in said
    for secret in ("secret", "c2VjcmV0", "AGFsaWNlAHNlY3JldA", "AGFsaWNlAHdyb25n"):
        assert secret not in said


# Other protocols.


@pytest.mark.parametrize("first", ["POST / HTTP/1.1", "Host: localhost:2525", "PRI * HTTP/2.0"])
async def test_a_web_page_cannot_send_mail(first: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, '[routes]\n"*" = "mx"') as mta:
        events = record(mta)
        async with talk(mta, greet=False) as client:
            await client.expect("220")
            await client.send(
                f"{first}\r\nOrigin: https://page.test\r\n\r\nHELO x\r\nMAIL FROM:<a@dev.test>\r\n"
                f"RCPT TO:<alice@dev.test>\r\nRCPT TO:<victim@far.test>\r\nDATA\r\n{SENT}.\r\n"
            )
            assert (await client.rest()).startswith(b"421 4.7.0 ")
        assert await mta.queue.run(lambda queue: queue.entries.count()) == 0
        assert mailbox(tmp_path, "alice") == []
        assert [event.fields["client"] for event in events if event.name == "rejected"] == [str(LOOPBACK)]


# Names.


@pytest.mark.parametrize("verb", ["EHLO", "HELO", "LHLO"])
@pytest.mark.parametrize(
    "name",
    [
        *(b"M\xdcLLER-PC", "MÜLLER-PC".encode(), b"my own PC", b"[pc", b"<pc>", b"a(b;c)", b"x" * 255),
        *(b"a\x1b[2Jb\x07", "a\u202eb.test".encode(), b"\xff"),
    ],
)
async def test_a_client_may_call_itself_anything(
    verb: str, name: bytes, tmp_path: Path, autojump_clock: MockClock
) -> None:
    protocol = "lmtp" if verb == "LHLO" else "smtp"
    text = f'[routes]\n"far.test" = "hold"\n[[listen]]\nprotocol = "{protocol}"'
    async with open_mta(tmp_path, text) as mta:
        events = record(mta)
        async with talk(mta, greet=False) as client:
            await client.expect("220")
            await client.send(verb.encode() + b" " + name + b"\r\n")
            await client.expect("250")
            await client.say_all(
                ("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<alice@dev.test>", "250"), ("RCPT TO:<b@far.test>", "250")
            )
            await client.say("DATA", "354")
            await client.send(SENT)
            await client.say(".", *(["250", "250"] if verb == "LHLO" else ["250"]))
        header, _, _ = mailbox(tmp_path, "alice")[0].partition(b"\n\n")
        assert header.isascii()
        assert header.replace(b"\n", b"").replace(b"\t", b"").decode().isprintable()
        assert b"([127.0.0.1])" in header
        assert b"\nFrom: me" in header
        await mta.message_log.flush()
        (accepted,) = [str(event.fields["id"]) for event in events if event.name == "accepted"]
        message, _ = await mta.queue.run(lambda queue: queue.entries.show(accepted))
        assert message.origin.isprintable()
        assert message.helo.isprintable()
        lines = [line for _, line in await mta.queue.run(lambda queue: queue.log.read(message.id))]
        assert any(line.startswith(f"C: {verb} ") for line in lines)
        assert all(line.isprintable() for line in lines)
        assert all(as_text(event).isprintable() for event in events)


# What is tolerated.


@pytest.mark.parametrize("protocol", ["smtp", "submission", "lmtp"])
async def test_a_path_without_brackets_is_logged_as_the_clients_fault(
    protocol: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path, f'[[listen]]\nprotocol = "{protocol}"') as mta:
        events = record(mta)
        async with talk(mta) as client:
            await client.say_all(
                ("MAIL FROM: a@dev.test", "250"), ("RCPT TO:<bob@dev.test>", "250"), ("RCPT TO:alice@dev.test", "250")
            )
            await client.say("DATA", "354")
            await client.send(SENT)
            await client.say(".", *["250"] * (2 if protocol == "lmtp" else 1))
        assert b"Return-Path: <a@dev.test>\n" in mailbox(tmp_path, "alice")[0]
    assert [
        (event.fields["client"], event.fields["problem"], event.fields["command"])
        for event in events
        if event.name == "client_fault"
    ] == [
        (str(LOOPBACK), "a space before the path", "MAIL FROM: a@dev.test"),
        (str(LOOPBACK), "a path without angle brackets", "MAIL FROM: a@dev.test"),
        (str(LOOPBACK), "a path without angle brackets", "RCPT TO:alice@dev.test"),
    ]


# Any credentials.


def coded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


@pytest.mark.parametrize("helo", ["EHLO", "HELO"])
@pytest.mark.parametrize("protocol", ["smtp", "submission"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(
    ("authorization", "name", "password"),
    [
        (b"root", b"j\xfcrgen", b"p\xe4ss"),
        (b"", b"", b""),
        (b"\xfc", "jürgen".encode(), b"\xff" * 2000),
        (b"", b"alice", b"wrong"),
    ],
)
async def test_any_means_any(
    helo: str,
    protocol: str,
    mechanism: str,
    authorization: bytes,
    name: bytes,
    password: bytes,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    text = (
        '[auth]\nany = true\nusers = { alice = "secret" }\n[relay]\nnetworks = []\n[routes]\n"*" = "hold"\n'
        f'[[listen]]\nprotocol = "{protocol}"\nauth = "required"'
    )
    async with open_mta(tmp_path, text) as mta:
        events = record(mta)
        async with talk(mta, greet=False) as client:
            await client.expect("220")
            await client.say(f"{helo} client.test", "250")
            if mechanism == "PLAIN":
                await client.say(f"AUTH PLAIN {coded(authorization + bytes(1) + name + bytes(1) + password)}", "235")
            else:
                await client.say("AUTH LOGIN", "334")
                await client.say(coded(name), "334")
                await client.say(coded(password), "235")
            await send_message(client, "far@far.test", sender="bob@dev.test")
        (accepted,) = [str(event.fields["id"]) for event in events if event.name == "accepted"]
        message, _ = await mta.queue.run(lambda queue: queue.entries.show(accepted))
        assert b"SMTPA id" in message.trace or helo == "HELO"
        assert message.origin.isprintable()


# What depends on the time of MAIL.


@pytest.mark.parametrize(("hold", "reply"), [(59, "250"), (60, "250"), (61, "501 5.5.4"), (-10, "250")])
@pytest.mark.parametrize("mode", ["N", "R"])
async def test_a_hold_ends_before_the_deadline(
    hold: int, reply: str, mode: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    begun = 1_900_000_000
    text = '[[listen]]\nprotocol = "submission"'
    async with open_mta(tmp_path, text, wall=lambda: float(begun)) as mta, talk(mta) as client:
        until = datetime.fromtimestamp(begun + hold, timezone(timedelta(hours=2))).isoformat()
        await client.say(f"MAIL FROM:<a@dev.test> BY=60;{mode} HOLDUNTIL={until}", reply)


# What counts as a mistake.


@pytest.mark.parametrize(
    ("command", "reply", "counted"),
    [
        ("XYZZY", "500", True),
        ("MAIL FROM:<a>", "501", True),
        ("RCPT TO:<a>", "501", True),
        ("BDAT 3 FIRST\r\nx", "501", True),
        ("SEND FROM:<a@dev.test>", "502", True),
        ("DATA", "503", True),
        ("RCPT TO:<a@dev.test>", "503", True),
        ("HELP XYZZY", "504", True),
        ("AUTH FOO", "504", True),
        ("MAIL FROM:<scripted@dev.test>", "521", True),
        ("AUTH PLAIN " + coded(b"\0alice\0wrong"), "535", True),
        ("MAIL FROM:<a@dev.test> FOO=1", "555", True),
        ("VRFY nobody@dev.test", "550", False),
        ("MAIL FROM:<a@dev.test> SIZE=99999999999", "552", False),
        ("NOOP", "250", False),
    ],
)
async def test_a_mistake_counts(
    command: str, reply: str, counted: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    text = (
        '[limits]\nerrors = 3\n[local]\nusers = ["alice"]\n[auth]\nusers = { alice = "secret" }\n'
        '[[faults]]\nstage = "mail"\nsender = "scripted@*"\nreply = "521 5.3.2 no mail"'
    )
    async with open_mta(tmp_path, text) as mta, talk(mta) as client:
        await client.say(command, reply)
        await client.say(command, reply)
        await client.say(command, "421 4.7.0 too many errors" if counted else reply)


async def test_authentication_that_is_required_counts_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    text = '[limits]\nerrors = 2\n[auth]\nusers = { alice = "secret" }\n[[listen]]\nauth = "required"'
    async with open_mta(tmp_path, text) as mta, talk(mta) as client:
        await client.say_all(("MAIL FROM:<a@dev.test>", "530"), ("MAIL FROM:<a@dev.test>", "421 4.7.0"))


@pytest.mark.parametrize("stage", ["route", "fault"])
@pytest.mark.parametrize("code", [500, 503, 521, 530, 535, 550, 555])
async def test_a_refused_recipient_does_not(stage: str, code: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    said = f"{code} 5.7.1 no"
    text = (
        f'[routes]\n"x.test" = "reject:{said}"' if stage == "route" else f'[[faults]]\nstage = "rcpt"\nreply = "{said}"'
    )
    async with open_mta(tmp_path, f"[limits]\nerrors = 2\n{text}") as mta, talk(mta) as client:
        await client.say("MAIL FROM:<a@dev.test>", "250")
        for _ in range(5):
            await client.say("RCPT TO:<a@x.test>", said)


# The log of a message.


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
async def test_each_line_of_the_dialogue_has_its_own_time(
    protocol: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_mta(tmp_path, f'[[listen]]\nprotocol = "{protocol}"', wall=mock_wall()) as mta:
        begun = mta.clock.now()
        events = record(mta)
        async with talk(mta) as client:
            await trio.sleep(10)
            await client.say("MAIL FROM:<a@dev.test>", "250")
            await trio.sleep(10)
            await client.say("RCPT TO:<alice@dev.test>", "250")
            mta.clock.advance_to(mta.clock.now() + 3600)
            await client.say("DATA", "354")
            await trio.sleep(10)
            await client.send(SENT)
            await client.say(".", "250")
        (accepted,) = [str(event.fields["id"]) for event in events if event.name == "accepted"]
        await mta.message_log.flush()
        log = await mta.queue.run(lambda queue: queue.log.read(accepted))
    times = {line.split()[1]: round(at - begun) for at, line in log if line.startswith("C: ")}
    helo = "LHLO" if protocol == "lmtp" else "EHLO"
    assert times == {helo: 0, "MAIL": 10, "RCPT": 20, "DATA": 3620, f"({len(SENT)}": 3630}
    answers = [round(at - begun) for at, line in log if line.startswith("S: ")]
    assert answers == [0, 0, 10, 20, 3620, 3630]


# The server's own name.


async def test_a_hostname_beyond_ascii_is_an_a_label_on_the_wire_in_the_header_and_in_reports(tmp_path: Path) -> None:
    text = """hostname = "bücher.test"
[routes]
"far.test" = "reject:550 5.7.1 no"
[aliases]
far = "x@far.test"
[[listen]]
protocol = "submission"
"""
    async with open_mta(tmp_path, text) as mta, deliveries(mta), talk(mta, greet=False) as client:
        await client.expect("220 xn--bcher-kva.test ")
        await client.send("EHLO client.test\r\n")
        assert (await client.reply())[0] == "250-xn--bcher-kva.test"
        await send_message(client, "alice@dev.test", "far@bücher.test", sender="alice@xn--bcher-kva.test")
        await client.say("QUIT", "221 2.0.0 xn--bcher-kva.test")
    message, report = sorted(mailbox(tmp_path, "alice"), key=len)
    assert b"by xn--bcher-kva.test with" in message
    assert b"@xn--bcher-kva.test>\n" in message.partition(b"Message-ID: ")[2]
    assert b"MAILER-DAEMON@xn--bcher-kva.test" in report
    assert b"Reporting-MTA: dns; xn--bcher-kva.test\n" in report
    for one in (message, report.partition(b"\n\n")[0]):
        assert one.isascii()
