"""Every dialogue of tests/dialogues, with a session over memory streams, whole and octet by octet, and with a server
that listens on sockets.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.dialogue import FOLDER, Dialogue, dialogues
from tests.support.receiving import Client, configuration, left_in_spool, open_mta, talk
from trimta.inbound import authentication
from trimta.server.mta_server import MtaServer
from trimta.smtp.extensions import MailProtocol, Offer

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

EVERY = [pytest.param(path, id=path.stem) for path in dialogues()]
OCTET_BY_OCTET = [pytest.param(path, id=path.stem) for path in dialogues() if not Dialogue.read(path).whole_only]
ABOUT_OCTETS_THAT_ARRIVE_TOGETHER = {
    "chunking-size-that-lies",
    "lines-endless",
    "smuggling-bdat",
    "smuggling-data",
    "starttls-misused",
}
"""They say something else octet by octet, where the server answers before the rest has come."""
DEADLINE = 30.0


def test_only_dialogues_about_octets_that_arrive_together_are_not_run_octet_by_octet() -> None:
    assert {path.stem for path in dialogues() if Dialogue.read(path).whole_only} == ABOUT_OCTETS_THAT_ARRIVE_TOGETHER


@pytest.mark.parametrize("path", EVERY)
async def test_a_session_says_what_the_dialogue_says(path: Path, tmp_path: Path, autojump_clock: MockClock) -> None:
    await play(Dialogue.read(path), tmp_path, octet_by_octet=False)


@pytest.mark.parametrize("path", OCTET_BY_OCTET)
async def test_a_session_says_it_octet_by_octet_too(path: Path, tmp_path: Path, autojump_clock: MockClock) -> None:
    await play(Dialogue.read(path), tmp_path, octet_by_octet=True)


async def play(dialogue: Dialogue, tmp_path: Path, *, octet_by_octet: bool) -> None:
    async with open_mta(tmp_path, dialogue.configuration) as mta:
        async with talk(mta, greet=False, octet_by_octet=octet_by_octet) as client:
            await dialogue.play(client, mta)
        assert left_in_spool(mta) == []


@pytest.mark.parametrize("path", EVERY)
async def test_a_server_on_sockets_says_it_too(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "GUESS_DELAY", 0.0)
    dialogue = Dialogue.read(path)
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(tmp_path, dialogue.configuration), cleanup)
            await nursery.start(server.run)
            host, _, port = server.addresses[0].rpartition(":")
            client = Client(await trio.open_tcp_stream(host, int(port)))
            await dialogue.play(client, server.mta)
            await client.close()
            server.stop()
    assert server.bugs == []
    assert left_in_spool(server.mta) == []


@pytest.mark.parametrize(
    "keyword",
    sorted({*Offer(protocol=MailProtocol.SMTP).keywords, "ETRN", "FUTURERELEASE", "LIMITS", "STARTTLS", "AUTH"}),
)
def test_each_extension_has_a_dialogue_that_uses_it_and_one_that_misuses_it(keyword: str) -> None:
    name = keyword.lower()
    assert [path.stem for path in (FOLDER / f"{name}.smtp", FOLDER / f"{name}-misused.smtp") if not path.exists()] == []
