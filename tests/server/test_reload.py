"""A reload changes all or nothing, certificates included."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trustme

from tests.support.receiving import configuration, record
from trimta.config.errors import ConfigError, ConfigErrors
from trimta.server.mta_server import MtaServer

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.config.model import Configuration

DEADLINE: Final = 20.0
OWN: Final = """
[[listen]]
tls = "implicit"
[tls]
certificate = "own.pem"
key = "own.key"
"""


def write_certificate(folder: Path, name: str) -> None:
    leaf = trustme.CA().issue_cert(name)
    leaf.cert_chain_pems[0].write_to_path(folder / "own.pem")
    leaf.private_key_pem.write_to_path(folder / "own.key")


async def certificate_of(server: MtaServer) -> bytes:
    """The certificate that a client is shown, in DER form."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    name = server.mta.bound[0].sockets[0].socket.getsockname()
    stream = trio.SSLStream(await trio.open_tcp_stream(*name[:2]), context, https_compatible=True)
    async with stream:
        await stream.do_handshake()
        shown = stream.getpeercert(binary_form=True)
    assert isinstance(shown, bytes)
    return shown


@pytest.mark.parametrize("broken", ["the configuration", "the authorities", "nothing"])
async def test_where_one_thing_cannot_be_read_the_old_certificate_and_configuration_stay(
    broken: str, tmp_path: Path
) -> None:
    write_certificate(tmp_path, "old.test")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")

    def load() -> Configuration:
        if broken == "the configuration":
            raise ConfigErrors("conf.toml", [ConfigError(1, "queue", "retry", "a mistake", "none")])
        config = configuration(tmp_path, f'{OWN}ca = "ca.pem"\n[limits]\nrecipients = 7\n')
        if broken == "the authorities":  # they go between the check of the configuration and their use
            (tmp_path / "ca.pem").unlink()
        return config

    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(tmp_path, OWN), cleanup)
            await nursery.start(server.run)
            told = record(server.mta)
            before = await certificate_of(server)
            write_certificate(tmp_path, "new.test")
            await server.reload(load)
            kept = broken != "nothing"
            assert (await certificate_of(server) == before) is kept
            assert (server.mta.configuration.limits.recipients == 7) is not kept
            assert [event.name for event in told if "reload" in event.name] == ["reload_failed" if kept else "reloaded"]
            nursery.cancel_scope.cancel()


async def test_a_new_data_dir_is_reported_and_nothing_is_made_there(tmp_path: Path) -> None:
    text = '[[listen]]\ntls = "implicit"'
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(tmp_path, text), cleanup)
            await nursery.start(server.run)
            told = record(server.mta)
            before = await certificate_of(server)
            await server.reload(lambda: configuration(tmp_path, f'data_dir = "elsewhere"\n{text}'))
            assert [event.fields["key"] for event in told if event.name == "needs_restart"] == ["data_dir"]
            assert await certificate_of(server) == before
            assert not (tmp_path / "elsewhere").exists()
            nursery.cancel_scope.cancel()
