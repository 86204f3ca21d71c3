"""Real waits pass in real time, whatever a test has done to its own."""

from __future__ import annotations

import random
import smtplib
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.frozen import FUTURE, PAST, each_library
from trimta import real_time
from trimta.testing import NotArrivedError, open_server, run_server

if TYPE_CHECKING:
    from tests.support.frozen import Freeze
    from trimta.testing import BlockingServer, Server

DEADLINE = 20.0


def send(server: BlockingServer | Server, to: str = "alice@dev.test", context: ssl.SSLContext | None = None) -> None:
    with smtplib.SMTP(server.host, server.port, local_hostname="app.test", timeout=DEADLINE) as client:
        if context is not None:
            client.starttls(context=context)
        client.sendmail("app@app.test", [to], "Subject: hello\r\n\r\nhi\r\n")


@pytest.mark.parametrize("moment", [PAST, FUTURE])
@each_library
def test_a_server_runs_from_start_to_end_under_frozen_time(freeze: Freeze, moment: str) -> None:
    began = real_time.monotonic()
    with freeze(moment), run_server() as server:
        with pytest.raises(NotArrivedError):
            server.wait_for(to="alice", timeout=0.05)
        send(server)
        first = server.wait_for(to="alice")
        send(server)
        assert server.wait_for(to="alice", after=first) is not first
        assert len(server.wait_for(to="alice", count=2)) == 2
        server.faults.add(stage="rcpt", delay=0.05, times=1)
        send(server)
        server.settle()
        assert abs(server.now.timestamp() - real_time.wall()) < DEADLINE
    assert real_time.monotonic() - began < DEADLINE


@each_library
def test_time_that_is_frozen_while_a_server_runs_holds_nothing_up(freeze: Freeze) -> None:
    with run_server({"queue": {"retry": ["1h"]}, "routes": {"*": "smtp:127.0.0.1:1"}}) as server:
        with freeze(PAST):
            send(server, "bob@far.test")
            server.settle()
            assert [entry.attempts for entry in server.queue] == [1]
        with freeze(FUTURE):
            assert [entry.attempts for entry in server.queue] == [1]
            server.advance("1h")
            assert [entry.attempts for entry in server.queue] == [2]


@each_library
def test_the_block_ends_under_frozen_time_with_sessions_still_open(freeze: Freeze) -> None:
    client = smtplib.SMTP()
    began = real_time.monotonic()
    with freeze(PAST), run_server() as server:
        client = smtplib.SMTP(server.host, server.port, timeout=DEADLINE)
        client.docmd("MAIL FROM:<>")
        client.docmd("RCPT TO:<alice@dev.test>")
        client.docmd("DATA")  # its end does not come
    client.close()
    assert real_time.monotonic() - began < DEADLINE


@pytest.mark.parametrize("moment", [PAST, FUTURE])
@each_library
def test_a_certificate_made_under_frozen_time_is_valid(freeze: Freeze, moment: str) -> None:
    with freeze(moment), run_server({"listen": [{"tls": "starttls"}]}) as server:
        assert server.ca is not None
        send(server, context=ssl.create_default_context(cafile=server.ca))
        server.wait_for(to="alice")


IMPORT = "from trimta.testing import run_server"
FREEZES = {
    "freezegun": "import freezegun; frozen = freezegun.freeze_time('2012-01-01')",
    "time-machine": "import time_machine; frozen = time_machine.travel('2012-01-01', tick=False)",
}
CERTIFICATES = """
import datetime, smtplib, ssl

CONFIG = {"listen": [{"tls": "starttls"}]}

def send_over_tls():
    from trimta.testing import run_server

    with run_server(CONFIG) as server, smtplib.SMTP(server.host, server.port) as client:
        client.starttls(context=ssl.create_default_context(cafile=server.ca))
        client.sendmail("app@app.test", ["alice@dev.test"], "Subject: hello")
        server.wait_for(to="alice")

with frozen:
    before = datetime.datetime
    send_over_tls()
    assert datetime.datetime is before
    assert datetime.datetime.now().year == 2012
send_over_tls()
with frozen:
    send_over_tls()

from cryptography import x509  # as a program under test may use it

import trustme
assert type(x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes()).not_valid_before_utc) is datetime.datetime
"""


@pytest.mark.parametrize("library", FREEZES)
@pytest.mark.parametrize("imported", ["before", "inside"])
def test_frozen_time_at_the_first_certificate_of_a_process_spoils_no_later_one(library: str, imported: str) -> None:
    script = [FREEZES[library], CERTIFICATES]
    if imported == "before":
        script.insert(0, IMPORT)
    subprocess.run([sys.executable, "-c", "\n".join(script)], check=True, timeout=DEADLINE)


@each_library
async def test_in_trio_the_servers_waits_pass_though_the_tests_do_not(freeze: Freeze) -> None:
    with freeze(PAST):
        async with open_server() as server:
            with pytest.raises(NotArrivedError):
                await server.wait_for(to="alice", timeout=0.05)
            await trio.to_thread.run_sync(send, server)
            await server.wait_for(to="alice")
            await server.settle()
            server.clear()
            assert server.mailbox("alice") == []


async def test_under_a_mock_clock_the_server_is_not_hurried(autojump_clock: trio.testing.MockClock) -> None:
    async with open_server() as server:
        server.faults.add(stage="rcpt", delay=0.05)
        await trio.to_thread.run_sync(send, server)
        assert (await server.wait_for(to="alice"))["Subject"] == "hello"


def test_no_two_messages_share_an_id_however_random_is_seeded() -> None:
    with run_server() as server:
        for _ in range(5):
            random.seed(0)
            send(server)
        assert len(server.wait_for(to="alice", count=5)) == 5
