"""Server and client TLS contexts, and the development certificate."""

from __future__ import annotations

import os
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from trimta.outbound.transports import client_settings
from trimta.outbound.transports.client_settings import TlsContexts
from trimta.runtime.tls import (
    LIFETIME,
    ServerTls,
    TlsError,
    TlsSettings,
    identities,
    opportunistic_context,
    verified_context,
)

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("ca.pem", "ca-key.pem", "cert.pem", "key.pem")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """The client's side of a handshake in memory; ssl.SSLError if it fails on either side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [here, there]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            return here
    raise AssertionError("the handshake makes no progress")


@pytest.fixture(name="settings")
def settings_fixture(tmp_path: Path) -> TlsSettings:
    return TlsSettings(hostname="box.test", data_dir=tmp_path / "var")


def contents(settings: TlsSettings) -> dict[str, bytes]:
    return {name: (settings.data_dir / "tls" / name).read_bytes() for name in FILES}


def changed(settings: TlsSettings, before: dict[str, bytes]) -> set[str]:
    return {name for name, data in contents(settings).items() if data != before[name]}


def own_certificate(folder: Path, name: str = "mail.test") -> tuple[trustme.CA, Path, Path]:
    ca = trustme.CA()
    leaf = ca.issue_cert(name)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    return ca, certificate, key


@pytest.mark.parametrize("name", ["localhost", "box.test", "127.0.0.1", "::1"])
def test_the_development_certificate_is_verified_under_each_of_its_names(settings: TlsSettings, name: str) -> None:
    server = ServerTls(settings)
    assert server.ca == settings.data_dir / "tls" / "ca.pem"
    assert handshake(server.context, verified_context(server.ca), name).version() == "TLSv1.3"


@pytest.mark.parametrize("name", ["other.test", "sub.box.test", "127.0.0.2"])
def test_it_is_good_for_no_other_name(settings: TlsSettings, name: str) -> None:
    server = ServerTls(settings)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server.context, verified_context(server.ca), name)


def test_nobody_trusts_it_without_its_ca(settings: TlsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ServerTls(settings).context, verified_context(), "localhost")


def test_an_opportunistic_client_takes_any_certificate(settings: TlsSettings) -> None:
    assert handshake(ServerTls(settings).context, opportunistic_context(), "wrong.test").cipher()


def test_keys_are_private_and_certificates_are_not(settings: TlsSettings) -> None:
    before = os.umask(0o022)
    try:
        ServerTls(settings)
    finally:
        os.umask(before)
    folder = settings.data_dir / "tls"
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}
    assert modes == {"ca.pem": "0o644", "ca-key.pem": "0o600", "cert.pem": "0o644", "key.pem": "0o600"}


def test_it_is_made_once(settings: TlsSettings) -> None:
    ServerTls(settings)
    before = contents(settings)
    ServerTls(settings).reload()
    assert not changed(settings, before)


def test_it_is_made_again_when_the_hostname_changes_and_the_ca_stays(settings: TlsSettings) -> None:
    ServerTls(settings)
    before = contents(settings)
    other = TlsSettings(hostname="other.test", data_dir=settings.data_dir)
    server = ServerTls(other)
    assert changed(settings, before) == {"cert.pem", "key.pem"}
    assert handshake(server.context, verified_context(server.ca), "other.test")


@pytest.mark.parametrize(
    ("later", "again"), [(timedelta(days=1), False), (LIFETIME - timedelta(days=10), True), (LIFETIME * 3, True)]
)
def test_it_is_made_again_before_it_expires_and_the_ca_stays(
    settings: TlsSettings, later: timedelta, again: bool
) -> None:
    ServerTls(settings)
    before = contents(settings)
    ServerTls(settings, now=lambda: datetime.now(UTC) + later)
    assert changed(settings, before) == ({"cert.pem", "key.pem"} if again else set())


@pytest.mark.parametrize(
    ("damaged", "content", "remade"),
    [
        ("key.pem", None, {"cert.pem", "key.pem"}),
        ("key.pem", b"", {"cert.pem", "key.pem"}),
        ("cert.pem", b"nonsense", {"cert.pem", "key.pem"}),
        ("ca.pem", None, set(FILES)),
        ("ca.pem", b"nonsense", set(FILES)),
        ("ca-key.pem", None, {"ca-key.pem"}),
        ("ca-key.pem", b"nonsense", {"ca-key.pem"}),
    ],
)
def test_what_is_missing_or_damaged_is_made_again(
    settings: TlsSettings, damaged: str, content: bytes | None, remade: set[str]
) -> None:
    ServerTls(settings)
    before = contents(settings)
    path = settings.data_dir / "tls" / damaged
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    server = ServerTls(settings)
    if remade == {"ca-key.pem"}:  # the certificate is still good: nothing to sign
        assert before["ca.pem"] == (settings.data_dir / "tls" / "ca.pem").read_bytes()
    else:
        assert changed(settings, before) == remade
    assert handshake(server.context, verified_context(server.ca), "localhost")


def test_a_ca_whose_key_is_lost_is_replaced_only_when_it_has_to_sign(settings: TlsSettings) -> None:
    ServerTls(settings)
    before = contents(settings)
    (settings.data_dir / "tls" / "ca-key.pem").unlink()
    ServerTls(TlsSettings(hostname="other.test", data_dir=settings.data_dir))
    assert changed(settings, before) == set(FILES)


def test_a_left_over_of_a_crash_does_no_harm(settings: TlsSettings) -> None:
    folder = settings.data_dir / "tls"
    folder.mkdir(parents=True)
    (folder / "key.pem.new").write_text("half")
    ServerTls(settings)
    assert {path.name for path in folder.iterdir()} == set(FILES)


def test_without_the_extra_the_error_says_what_to_install(
    settings: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(TlsError, match=r"pip install 'trimta\[tls\]'"):
        ServerTls(settings)


def test_a_data_dir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(TlsError, match="var/tls"):
        ServerTls(TlsSettings(hostname="box.test", data_dir=tmp_path / "var"))


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("box.test", ("localhost", "box.test", "127.0.0.1", "::1")),
        ("localhost", ("localhost", "127.0.0.1", "::1")),
        ("Box.Test.", ("localhost", "box.test", "127.0.0.1", "::1")),
        ("bücher.test", ("localhost", "xn--bcher-kva.test", "127.0.0.1", "::1")),
        ("my_box", ("localhost", "127.0.0.1", "::1")),
        ("192.0.2.1", ("localhost", "192.0.2.1", "127.0.0.1", "::1")),
        ("", ("localhost", "127.0.0.1", "::1")),
    ],
)
def test_the_names_of_the_certificate(hostname: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    assert identities(hostname) == expected
    settings = TlsSettings(hostname=hostname, data_dir=tmp_path)
    ServerTls(settings)
    before = contents(settings)
    ServerTls(settings)
    assert not changed(settings, before)


def test_the_banner_says_where_the_ca_is_and_how_to_trust_it(settings: TlsSettings) -> None:
    text = "\n".join(ServerTls(settings).describe())
    assert f"SSL_CERT_FILE={settings.data_dir}/tls/ca.pem" in text
    assert "localhost, box.test, 127.0.0.1, ::1" in text
    assert "update-ca-certificates" in text


def test_an_own_certificate_is_used_and_nothing_is_made(tmp_path: Path) -> None:
    ca, certificate, key = own_certificate(tmp_path)
    settings = TlsSettings(hostname="box.test", data_dir=tmp_path / "var", certificate=certificate, key=key)
    server = ServerTls(settings)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    assert handshake(server.context, client, "mail.test")
    assert server.ca is None
    assert server.describe() == (f"TLS certificate {certificate}",)
    assert not (tmp_path / "var").exists()


def test_certificate_and_key_may_be_one_file(tmp_path: Path) -> None:
    _, certificate, key = own_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    server = ServerTls(TlsSettings(hostname="box.test", data_dir=tmp_path, certificate=both))
    assert handshake(server.context, opportunistic_context(), None)


@pytest.mark.parametrize(
    ("breakage", "complaint"),
    [
        ("no certificate", r"mail.test.pem: No such file"),
        ("no key", r"mail.test.key: No such file"),
        ("a folder", r"mail.test.key: Is a directory"),
        ("garbage", r"mail.test.pem, .*not a certificate and its key in PEM form"),
        ("another key", r"mail.test.key: the key is not that of the certificate"),
        ("encrypted", r"mail.test.key: the key is encrypted"),
    ],
)
def test_a_broken_certificate_is_told_and_a_reload_keeps_the_old_one(
    breakage: str, complaint: str, tmp_path: Path
) -> None:
    _, certificate, key = own_certificate(tmp_path)
    server = ServerTls(TlsSettings(hostname="box.test", data_dir=tmp_path, certificate=certificate, key=key))
    old = server.context
    match breakage:
        case "no certificate":
            certificate.unlink()
        case "no key":
            key.unlink()
        case "a folder":
            key.unlink()
            key.mkdir()
        case "garbage":
            certificate.write_text("hello")
        case "another key":
            own_certificate(tmp_path, "other.test")[2].rename(key)
        case "encrypted":
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            key.write_bytes(
                loaded.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"hunter2"),
                )
            )
    with pytest.raises(TlsError, match=complaint):
        server.reload()
    assert server.context is old
    assert handshake(server.context, opportunistic_context(), None)


def test_a_reload_takes_the_new_certificate_and_other_settings(tmp_path: Path, settings: TlsSettings) -> None:
    server = ServerTls(settings)
    ca, certificate, key = own_certificate(tmp_path)
    server.reload(TlsSettings(hostname="box.test", data_dir=settings.data_dir, certificate=certificate, key=key))
    client = ssl.create_default_context()
    ca.configure_trust(client)
    assert handshake(server.context, client, "mail.test")
    assert server.ca is None


def test_tls_1_1_is_refused(settings: TlsSettings) -> None:
    old = opportunistic_context()
    old.set_ciphers("ALL:@SECLEVEL=0")  # so that the client's own OpenSSL would do it
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|VERSION"):
        handshake(ServerTls(settings).context, old, None)
    for context in (ServerTls(settings).context, opportunistic_context(), verified_context(ServerTls(settings).ca)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_ssl_cert_file_is_honoured_but_not_over_the_configuration(
    settings: TlsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ServerTls(settings)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
    assert handshake(server.context, verified_context(), "localhost")
    other = tmp_path / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server.context, verified_context(other), "localhost")


@pytest.mark.parametrize("named", [False, True])
async def test_authorities_are_read_once_and_only_when_a_certificate_is_verified(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if named:
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    read: list[ssl.SSLContext] = []

    def noted() -> ssl.SSLContext:
        read.append(verified_context())
        return read[-1]

    monkeypatch.setattr(client_settings, "verified_context", noted)
    contexts = TlsContexts.load()
    assert not read
    assert [await contexts.verifying(), await contexts.verifying()] == 2 * read
    assert len(read) == 1
    assert contexts.trouble == ""


async def test_authorities_that_are_gone_when_they_are_needed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    contexts = TlsContexts.load()
    path.unlink()
    assert (await contexts.verifying()).cert_store_stats()["x509"] == 0
    assert str(path) in contexts.trouble
    trustme.CA().cert_pem.write_to_path(path)
    assert (await contexts.verifying()).cert_store_stats()["x509"] == 1, "a failure that has passed is not kept"
    assert contexts.trouble == ""


@pytest.mark.parametrize("content", [None, "no certificate in here"])
@pytest.mark.parametrize("by_environment", [True, False])
async def test_a_ca_file_that_is_no_use_is_told(
    content: str | None, by_environment: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    if by_environment:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    if by_environment:
        contexts = TlsContexts.load(None)
        assert str(path) in contexts.trouble
        assert (await contexts.verifying()).cert_store_stats()["x509"] == 0
    else:
        with pytest.raises(TlsError):
            TlsContexts.load(path)
    with pytest.raises(TlsError, match=r"SSL_CERT_FILE=.*ca.pem" if by_environment else r"tls.ca .*ca.pem"):
        verified_context(None if by_environment else path)
