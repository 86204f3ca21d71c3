"""What a client asks for by time, as it is queued and as it is told: BY, HOLDFOR, HOLDUNTIL; and its own name."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from tests.support.clock import mock_wall
from tests.support.fake_mx import MODERN, PLAIN, FakeMx
from tests.support.lab import DAY, open_lab, read_dsn
from tests.support.receiving import SENT, Client, deliveries, mailbox, open_mta, talk
from tests.support.sending import recipient
from trimta.mail.envelope import ByMode, DeliverBy, Notify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from trimta.server.wiring import Mta
    from trimta.store.queue.values import QueuedEnvelope, StoredMessage

ONE: Final = "192.0.2.1"
HOLD: Final = '[routes]\n"*" = "hold"\n[[listen]]\nprotocol = "submission"\n'
REJECT: Final = '[routes]\n"*" = "hold"\n"no.test" = "reject:550 5.7.1 no"\n[aliases]\nteam = "a@no.test"\n'
SLOW: Final = 30.0
"""Seconds that a client takes with each step."""


async def queued(mta: Mta) -> tuple[StoredMessage, QueuedEnvelope]:
    """The one message that waits."""
    (item,) = await mta.queue.run(lambda queue: list(queue.entries.list_envelopes()))
    found = await mta.queue.run(lambda queue: queue.entries.load(item.envelope.id))
    assert found is not None
    return found


async def by_data(client: Client) -> None:
    await client.say("DATA", "354")
    for line in SENT.splitlines():
        await trio.sleep(SLOW)
        await client.send(f"{line}\r\n")
    await client.say(".", "250")


async def by_bdat(client: Client) -> None:
    await client.send("BDAT 4\r\n")
    await trio.sleep(SLOW)
    await client.send("A: b")
    await client.expect("250")
    await trio.sleep(SLOW)
    await client.send("BDAT 4 LAST\r\n\r\nhi")
    await client.expect("250")


@pytest.mark.parametrize("content", [by_data, by_bdat])
@pytest.mark.parametrize("parameters", [" BY=3600;N", " BY=+3600;r", " BY=-5;NT", " HOLDFOR=3600"])
async def test_intervals_count_from_mail(
    tmp_path: Path, autojump_clock: MockClock, content: Any, parameters: str
) -> None:
    """RFC 2852 4; RFC 4865 5.2.2 compares both at MAIL."""
    async with open_mta(tmp_path, HOLD, wall=mock_wall()) as mta, talk(mta) as client:
        await trio.sleep(SLOW)
        await client.say("MAIL FROM:<other@dev.test>", "250")  # an earlier transaction counts for nothing
        await client.say("RSET", "250")
        await trio.sleep(SLOW)
        begun = mta.clock.now()
        await client.say(f"MAIL FROM:<me@dev.test>{parameters}", "250")
        await trio.sleep(SLOW)
        await client.say("RCPT TO:<a@x.test>", "250")
        await content(client)
        message, envelope = await queued(mta)
        assert message.arrived > begun + 2 * SLOW
        if "HOLD" in parameters:
            assert message.terms.hold_until == envelope.next_try == pytest.approx(begun + 3600)
        else:
            assert message.terms.deliver_by is not None
            seconds = -5 if "-5" in parameters else 3600
            assert message.terms.deliver_by.deadline == envelope.deadline == pytest.approx(begun + seconds)


async def test_a_hold_that_is_over_at_the_end_of_the_data_is_none(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_mta(tmp_path, HOLD, wall=mock_wall()) as mta, talk(mta) as client:
        await client.say("MAIL FROM:<me@dev.test> HOLDFOR=30", "250")
        await client.say("RCPT TO:<bob@localhost>", "250")
        await by_data(client)
        assert len(mailbox(tmp_path, "bob")) == 1


def _until(moment: float, zone: str) -> str:
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None, microsecond=0).isoformat() + zone


@pytest.mark.parametrize(
    ("zone", "told"), [("Z", "Z"), ("+02:00", "+02:00"), ("-05:30", "-05:30"), (".25Z", ".250000Z"), ("z", "Z")]
)
async def test_holduntil_is_kept_in_the_zone_that_was_given(
    tmp_path: Path, autojump_clock: MockClock, zone: str, told: str
) -> None:
    async with open_mta(tmp_path, HOLD, wall=mock_wall()) as mta, talk(mta) as client:
        moment = _until(mta.clock.now() + DAY, zone)
        await client.say(f"MAIL FROM:<me@dev.test> HOLDUNTIL={moment}", "250")
        await client.say("RCPT TO:<a@x.test>", "250")
        await by_data(client)
        message, _ = await queued(mta)
        assert message.terms.hold_request == f"until;{moment.removesuffix(zone)}{told}"


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (" HOLDFOR=60", "for;60"),
        (" HOLDUNTIL=2023-11-14T22:14:20Z", "until;2023-11-14T22:14:20Z"),
        (" HOLDUNTIL=2023-11-14T23:14:20+01:00", "until;2023-11-14T23:14:20+01:00"),
        ("", None),
    ],
)
async def test_a_report_tells_of_the_request_as_it_was_given(
    tmp_path: Path, autojump_clock: MockClock, parameters: str, told: str | None
) -> None:
    """RFC 4865 5.1.2; for mail of an alias that its route refuses, and whose sender is local."""
    config = REJECT + '[[listen]]\nprotocol = "submission"\n'
    async with open_mta(tmp_path, config, wall=mock_wall()) as mta, deliveries(mta), talk(mta) as client:
        await client.say(f"MAIL FROM:<me@localhost>{parameters}", "250")
        await client.say("RCPT TO:<Team@localhost>", "250")
        await client.say("DATA", "354")
        await client.send(SENT)
        await client.say(".", "250")
        await trio.sleep(120)
        about, group = await _report(tmp_path)
        assert about["Future-Release-Request"] == told
        assert about["Arrival-Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
        assert about["Received-From-MTA"] == "dns; client.test"
        assert group["Final-Recipient"] == "rfc822; Team@localhost"
        assert group["X-Trimta-Actual-Recipient"] == "rfc822; a@no.test"
        assert group["Original-Recipient"] is None


async def _report(folder: Path) -> tuple[Any, Any]:
    (octets,) = mailbox(folder, "me")
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    about, group = list(read_dsn(message).message.iter_parts())[1].iter_parts()
    return about, group


@pytest.mark.parametrize(
    ("helo", "told"),
    [
        ("EHLO client.test", "dns; client.test"),
        ("HELO laptop", "x-local-hostname; laptop"),
        ("EHLO [192.0.2.7]", "dns; [192.0.2.7]"),
        ("EHLO [IPv6:2001:db8::7]", "dns; [IPv6:2001:db8::7]"),
    ],
)
async def test_a_report_tells_what_the_client_called_itself(
    tmp_path: Path, autojump_clock: MockClock, helo: str, told: str
) -> None:
    async with (
        open_mta(tmp_path, REJECT, wall=mock_wall()) as mta,
        deliveries(mta),
        talk(mta, greet=False) as client,
    ):
        await client.expect("220")
        await client.say(helo, "250")
        await client.say("MAIL FROM:<me@localhost>", "250")
        await client.say("RCPT TO:<team@localhost>", "250")
        await client.say("DATA", "354")
        await client.send(SENT)
        await client.say(".", "250")
        await trio.sleep(5)
        about, _ = await _report(tmp_path)
        assert about["Received-From-MTA"] == told


# DELIVERBY at the next hop, and the report about it (RFC 2852 4.1.4).

DSN_HOST: Final = MODERN
BOTH: Final = (*MODERN, "DELIVERBY")
TIMED: Final = (*PLAIN, "DELIVERBY")


@pytest.mark.parametrize(
    ("extensions", "notify", "seconds", "trace", "told"),
    [
        *(
            (extensions, notify, 60, False, [] if notify is not None and Notify.NEVER in notify else ["relayed"])
            for extensions in (PLAIN, DSN_HOST)
            for notify in (None, *(frozenset({word}) for word in Notify))
        ),
        (PLAIN, None, -60, False, []),  # it is late already: the host has nothing to keep
        (DSN_HOST, None, -60, False, []),
        (BOTH, None, 60, False, []),
        (TIMED, None, 60, False, []),
        (TIMED, frozenset({Notify.SUCCESS}), 60, False, ["relayed"]),
        (BOTH, None, 60, True, ["relayed"]),
        (BOTH, frozenset({Notify.NEVER}), 60, True, []),
    ],
)
async def test_who_hands_mode_n_to_a_host_without_deliverby_says_so(
    tmp_path: Path,
    autojump_clock: MockClock,
    extensions: Sequence[str],
    notify: frozenset[Notify] | None,
    seconds: float,
    trace: bool,
    told: list[str],
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(extensions=extensions)}) as lab:
        by = DeliverBy(lab.now + seconds, ByMode.NOTIFY, trace)
        await lab.submit(recipient("a@x.test", notify=notify), deliver_by=by)
        await lab.idle()
        assert [dsn.told[0].action for dsn in lab.dsns()] == told
        for dsn in lab.dsns():
            about, _ = list(dsn.message.iter_parts())[1].iter_parts()
            assert about["Deliver-By-Date"]
            assert ("the time that you set" in " ".join(dsn.text.split())) is ("DELIVERBY" not in extensions)


async def test_who_hands_mode_n_on_by_lmtp_has_delivered_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    config = f'[routes]\n"*" = "lmtp:{ONE}:24"'
    async with open_lab(tmp_path, {ONE: FakeMx(extensions=PLAIN, lmtp=True)}, config=config) as lab:
        await lab.submit(deliver_by=DeliverBy(lab.now + 60, ByMode.NOTIFY))
        await lab.idle()
        assert lab.dsns() == []
