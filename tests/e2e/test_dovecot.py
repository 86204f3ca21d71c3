"""Dovecot's LMTP as the last hop, on a port and on a unix socket."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Dovecot
from tests.support.process import TrimtaProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as dovecot:
        yield dovecot


@pytest.fixture(scope="module")
def server(dovecot: Dovecot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrimtaProcess]:
    routes = f'[routes]\n"tcp.test" = "lmtp:127.0.0.1:{dovecot.port}"\n"unix.test" = "lmtp:unix:{dovecot.socket}"\n'
    with TrimtaProcess(tmp_path_factory.mktemp("dovecot"), routes) as server:
        yield server


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_each_recipient_has_a_reply_of_its_own(dovecot: Dovecot, server: TrimtaProcess, way: str) -> None:
    body = ".\r\n..\r\nschöne Grüße\r\n".encode()
    with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        recipients = [f"{user}@{way}.test" for user in ("ann", "nobody", "ann+detail")]
        header = f"Subject: by {way}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n".encode()
        client.sendmail("boss@dev.test", recipients, header + body, mail_options=["BODY=8BITMIME"])
    found = dovecot.wait_for_mail("ann", f"by {way}")
    assert found.get_content() == body.replace(b"\r\n", b"\n").decode()
    server.wait_for(rf" delivered .*to=ann@{way}\.test .*status=2\.0\.0")
    server.wait_for(rf" delivered .*to=ann\+detail@{way}\.test .*status=2\.0\.0")
    report = server.wait_for_message("boss", lambda one: f"nobody@{way}.test" in one.as_string())
    _, machine, _ = report.iter_parts()
    _, of_recipient = machine.iter_parts()
    assert of_recipient["Final-Recipient"] == f"rfc822; nobody@{way}.test"
    assert (of_recipient["Action"], of_recipient["Status"]) == ("failed", "5.1.1")
