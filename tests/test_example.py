"""maildir-example/ is what trimta writes: its messages, sent again, come out the same."""

from __future__ import annotations

import re
import smtplib
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from trimta.testing import run_server

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted((ROOT / "maildir-example").glob("*/cur/*"))
CHANGING = re.compile(rb"( id |; )[^\n;]+")
"""Of a Received field: the id, and the date."""


def split(octets: bytes) -> tuple[dict[str, str], bytes, bytes]:
    """The envelope as the trace tells it, the trace without what changes, and what the client sent."""
    found = re.match(
        rb"Return-Path: <(?P<sender>[^\n]*)>\n(X-Original-To: (?P<original>[^\n]+)\n)?Delivered-To: (?P<to>[^\n]+)\n"
        rb"Received: from (?P<helo>\S+) [^\n]+\n(\t[^\n]+\n)+",
        octets,
    )
    assert found is not None
    envelope = {name: (value or b"").decode() for name, value in found.groupdict().items()}
    return envelope, CHANGING.sub(rb"\1", found[0]), octets[found.end() :]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parent.parent.name}-{path.name[-16:]}")
def test_an_example_sent_again_comes_out_the_same(example: Path) -> None:
    envelope, trace, content = split(example.read_bytes())
    recipients = [envelope["original"] or envelope["to"]]
    if b"\tfor <" not in trace:
        recipients.append("somebody-else@dev.test")
    aliases = {"team": ["alice", "bob"]}
    with run_server({"hostname": "dev.test", "aliases": aliases}) as server:
        with smtplib.SMTP(server.host, server.port, local_hostname=envelope["helo"]) as client:
            client.sendmail(envelope["sender"], recipients, content.replace(b"\n", b"\r\n"))
        user = envelope["to"].partition("@")[0]
        (written,) = server.maildir(user).glob("new/*")
        assert split(written.read_bytes()) == (envelope, trace, content)


def test_the_examples_are_maildirs_that_any_mua_can_read() -> None:
    for user in ("alice", "bob"):
        folder = ROOT / "maildir-example" / user
        assert {path.name for path in folder.iterdir()} == {"cur", "new", "tmp"}
        assert len([*(folder / "cur").iterdir()]) >= 3
