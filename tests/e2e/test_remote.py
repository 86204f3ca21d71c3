"""Mail for other domains: one transaction for each, every recipient with an outcome of its own."""

from __future__ import annotations

import re
import smtplib
from email.message import EmailMessage
from typing import TYPE_CHECKING

from tests.support.fake_mx import STALL, FakeMx
from tests.support.process import TrimtaProcess
from tests.support.sink import serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_mx import Received

MESSAGE = "From: boss@dev.test\nTo: everybody:;\nSubject: hi\n\nthere\n"


def send(server: TrimtaProcess, *recipients: str, sender: str = "boss@dev.test") -> None:
    with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        assert client.sendmail(sender, recipients, MESSAGE) == {}


def recipients(received: Received) -> list[str]:
    """The addresses, without parameters."""
    return [path[1 : path.index(">")] for path in received.rcpts]


def test_ten_recipients_in_four_domains_are_four_transactions(tmp_path: Path) -> None:
    by_domain = {
        "one.test": ["a@one.test", "b@one.test", "c@one.test", "d@one.test"],
        "two.test": ["a@two.test", "b@two.test", "c@two.test"],
        "three.test": ["a@three.test", "b@three.test"],
        "four.test": ["a@four.test"],
    }
    mx = FakeMx()
    with serving(mx) as (port,), TrimtaProcess(tmp_path, f'[routes]\n"*" = "smtp:127.0.0.1:{port}"') as server:
        mixed = sorted(address for addresses in by_domain.values() for address in addresses)
        send(server, *mixed)
        server.wait_for(r" delivered .*host=", count=10)
    assert sorted(map(recipients, mx.transactions)) == sorted(by_domain.values())
    assert {received.mail.split()[0] for received in mx.transactions} == {"<boss@dev.test>"}
    assert all(received.body.endswith(MESSAGE.replace("\n", "\r\n").encode()) for received in mx.transactions)
    assert mx.violations == []


def test_a_4xx_recipient_is_tried_again_alone_and_a_5xx_recipient_is_reported_once(tmp_path: Path) -> None:
    mx = FakeMx(
        {
            "rcpt:later@one.test": ["451 4.2.1 come back later", "250 2.1.5 ok"],
            "rcpt:never@one.test": "550 5.1.1 no such user here",
        }
    )
    with serving(mx) as (port,), TrimtaProcess(tmp_path, f'[routes]\n"*" = "smtp:127.0.0.1:{port}"') as server:
        send(server, "now@one.test", "later@one.test", "never@one.test", "other@two.test")
        server.wait_for(r" deferred .*later@one.test")
        server.wait_for(r" delivered .*boss@dev.test")
        server.command("time", "advance", "10m")
        assert sorted(map(recipients, mx.accepted)) == [["later@one.test"], ["now@one.test"], ["other@two.test"]]
        (report,) = server.messages("boss")
        assert server.command("queue", "list", "--json").strip() == "[]"
    assert report["Return-Path"] == "<>"
    assert report.get_content_type() == "multipart/report"
    human, machine, original = report.iter_parts()
    assert isinstance(human, EmailMessage)
    assert "never@one.test" in human.get_content()
    of_message, of_recipient = machine.iter_parts()
    assert re.fullmatch(r"dns; \S+\.\S+|x-local-hostname; [^.\s]+", of_message["Reporting-MTA"])
    assert of_recipient["Final-Recipient"] == "rfc822; never@one.test"
    assert of_recipient["Action"] == "failed"
    assert of_recipient["Status"] == "5.1.1"
    assert of_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user here"
    assert "Subject: hi" in original.as_string()
    assert mx.violations == []


def test_a_destination_that_says_nothing_costs_its_own_timeout_and_delays_nobody_else(tmp_path: Path) -> None:
    healthy, silent = FakeMx(), FakeMx({"connect": STALL})
    with serving(healthy, silent) as (good, bad):
        configuration = f"""
[timeouts]
greeting = "2s"
[routes]
"good.test" = "smtp:127.0.0.1:{good}"
"bad.test" = "smtp:127.0.0.1:{bad}"
"""
        with TrimtaProcess(tmp_path, configuration) as server:
            send(server, "a@bad.test")
            for _ in range(5):
                send(server, "a@good.test", "a@bad.test")
            server.wait_for(r" delivered .*a@good.test", count=5)
            assert " deferred " not in server.log, "the silent one must still be waited for"
            (deferral,) = server.wait_for(r" deferred .*a@bad.test.* reply=(.*) next_s=")
            assert "greeting" in deferral[1]
    assert len(healthy.accepted) == 5


def test_a_message_waits_in_the_queue_over_a_restart(tmp_path: Path) -> None:
    mx = FakeMx({"rcpt": ["450 4.2.0 not now", "250 2.1.5 ok"]})
    with serving(mx) as (port,), TrimtaProcess(tmp_path, f'[routes]\n"*" = "smtp:127.0.0.1:{port}"') as server:
        send(server, "a@one.test")
        server.wait_for(r" deferred ")
        server.stop()
        server.restart()
        assert "a@one.test" in server.command("queue", "list")
        server.command("queue", "retry", "--all")
        server.wait_for(r" delivered .*a@one.test")
    assert [recipients(received) for received in mx.accepted] == [["a@one.test"]]


def test_two_servers_in_a_row_keep_every_octet(tmp_path: Path) -> None:
    content = (
        b"Subject: octets\r\nContent-Transfer-Encoding: binary\r\n\r\n" + bytes(range(256)) * 2_000 + b"\r.\n.\r\n"
    )
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    with (
        TrimtaProcess(far, '[local]\ndomains = ["far.test"]') as last,
        TrimtaProcess(near, f'[routes]\n"far.test" = "smtp:127.0.0.1:{last.port}"') as first,
        smtplib.SMTP("127.0.0.1", first.port, timeout=10) as client,
    ):
        client.ehlo()
        assert client.mail("boss@dev.test", ["BODY=BINARYMIME"])[0] == 250
        assert client.rcpt("alice@far.test")[0] == 250
        for chunk, last_one in ((content[:300_000], ""), (content[300_000:], " LAST")):
            client.putcmd(f"BDAT {len(chunk)}{last_one}")
            client.send(chunk)
            assert client.getreply()[0] == 250
        first.wait_for(r" delivered .*to=alice@far\.test")
        (octets,) = last.raw_messages("alice")
        trace, _, rest = octets.partition(b"Subject: ")
        assert b"Subject: " + rest == content
        assert trace.count(b"Received: ") == 2
