"""TLS contexts: those of the server, with a certificate of its own or a development certificate, and of the client.

All functions here block (files, key generation) and know no trio: at the start they run before any nursery, on SIGHUP
in a thread.

The development CA and certificate live in data_dir/tls and are made by trustme on the first need:

    ca.pem       the CA's certificate, to be trusted by clients      0644
    ca-key.pem   the CA's key, so that the CA stays when cert.pem is made again   0600
    cert.pem     the certificate, for localhost, the hostname, 127.0.0.1 and ::1   0644
    key.pem      the certificate's key                               0600

A certificate that expires soon, that is for another hostname, or that does not fit its key or CA is made again; so are
files that a crash left half written.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import idna

from trimta import real_time
from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cryptography import x509
    from trustme import CA

FOLDER: Final = "tls"
LIFETIME: Final = timedelta(days=397)
"""The lifetime of a certificate: Apple's systems accept 825 days at most, browsers 398."""
RENEWAL: Final = timedelta(days=30)
"""The time that a certificate must still have at a start or reload: a server may run for weeks."""
PUBLIC_FILE: Final = 0o644
PUBLIC_DIR: Final = 0o755
WHAT_TO_INSTALL: Final = "pip install 'trimta[tls]'"


class TlsError(Exception):
    """A certificate can't be used; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The settings that decide on the server's certificate.  Without `certificate`, a development one is used."""

    hostname: str
    data_dir: Path
    certificate: Path | None = None
    """A file in PEM form with the server's certificate and then those of intermediate CAs."""
    key: Path | None = None
    """A file in PEM form with the key, not encrypted; None if `certificate` holds it."""


@dataclass(frozen=True, slots=True)
class _Development:
    """The files of the development CA and certificate, in data_dir/tls."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.folder / "ca-key.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """A certificate with its key, in PEM form, as one process of a server gives them to another.  Never logged."""

    certificate: bytes
    key: bytes = field(default=b"", repr=False)
    """Empty if `certificate` holds it."""


class ServerTls:
    """The TLS of the server's listeners.  A reload replaces `context`: read it anew for each handshake."""

    def __init__(self, settings: TlsSettings, *, now: Callable[[], datetime] = real_time.now) -> None:
        """Reads the certificate, or makes a development certificate.  Raises TlsError."""
        self._now = now
        self._settings = settings
        self._context, self._material = self._load(settings)

    @property
    def context(self) -> ssl.SSLContext:
        """The context with the present certificate."""
        return self._context

    @property
    def material(self) -> TlsMaterial:
        """The present certificate and its key."""
        return self._material

    @property
    def ca(self) -> Path | None:
        """The file with the development CA's certificate; None with a certificate from the configuration."""
        return None if self._settings.certificate else _Development(self._settings.data_dir / FOLDER).ca

    def prepare(self, settings: TlsSettings | None = None) -> Callable[[], str]:
        """Read the files again, with other settings if given, and return a function that puts the result in place.

        That function returns "", or why the present certificate stays: a server that was root at its start may lack the
        right to read the same files again.  Raises TlsError for every other trouble, and then changes nothing.
        """
        settings = settings or self._settings
        problem = ""
        try:
            context, material = self._load(settings)
        except TlsError as error:
            same = (settings.certificate, settings.key) == (self._settings.certificate, self._settings.key)
            if not same or not isinstance(error.__cause__, PermissionError):
                raise
            context, material, problem = self._context, self._material, str(error)

        def swap() -> str:
            self._context, self._material, self._settings = context, material, settings
            return problem

        return swap

    def reload(self, settings: TlsSettings | None = None) -> None:
        """Read the files again and put the result in place at once.  Raises TlsError."""
        self.prepare(settings)()

    def describe(self) -> tuple[str, ...]:
        """The lines of the banner that name the certificate and say how clients come to trust it."""
        if self.ca is None:
            return (f"TLS certificate {self._settings.certificate}",)
        return (
            f"TLS with a development certificate for {', '.join(identities(self._settings.hostname))}",
            f"to trust it: its CA is {self.ca} (for one program: SSL_CERT_FILE={self.ca}; "
            "for all on Debian: copy it to /usr/local/share/ca-certificates/trimta.crt, run update-ca-certificates)",
        )

    def _load(self, settings: TlsSettings) -> tuple[ssl.SSLContext, TlsMaterial]:
        if settings.certificate is not None:
            return _server_context(settings.certificate, settings.key)
        files = _Development(settings.data_dir / FOLDER)
        try:
            _ensure(files, identities(settings.hostname), self._now())
        except OSError as error:
            raise TlsError(f"can't keep a development certificate in {files.folder}: {error}") from error
        return _server_context(files.certificate, files.key)


def opportunistic_context() -> ssl.SSLContext:
    """The client's context for `tls = "may"` and `"encrypt"`, which accepts any certificate (RFC 7435).

    It protects from eavesdroppers, not from a peer that pretends to be another.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def verified_context(ca: Path | None = None) -> ssl.SSLContext:
    """The client's context for `tls = "verify"`, which accepts only certificates for the name `server_hostname`.

    They must come from a CA in the file `ca` or, if that is None, from a CA that the system or $SSL_CERT_FILE names.
    Raises TlsError if such a file is missing or holds no certificate: OpenSSL would trust no CA, and refuse every peer.
    """
    named = os.environ.get("SSL_CERT_FILE") if ca is None else None
    origin = f"SSL_CERT_FILE={named}" if named else f"tls.ca {ca}"
    try:
        context = ssl.create_default_context(cafile=ca)  # without a file: the CAs that OpenSSL trusts by default
        if named:
            context.load_verify_locations(named)  # loaded above already, but without an error where it is of no use
    except ssl.SSLError as error:
        raise TlsError(f"{origin}: holds no certificate in PEM form") from error
    except OSError as error:
        raise TlsError(f"{origin}: {error.strerror}") from error
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    return context


def first_authority_is_good() -> bool:
    """Whether the file that $SSL_CERT_FILE names, if any, begins with a certificate that can be read.

    All that are in it take as long to read as the rest of a server's start.
    """
    named = os.environ.get("SSL_CERT_FILE")
    if not named:
        return True
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        before, delimiter, rest = Path(named).read_text("ascii", "replace").partition(begin)
        certificate = delimiter + rest.partition(end)[0] + end
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
    except (OSError, ValueError):  # also ssl.SSLError
        return False
    return "-----BEGIN" not in before


def trusting_nobody() -> ssl.SSLContext:
    """The client's context for use where no CA can be loaded: it refuses every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def identities(hostname: str) -> tuple[str, ...]:
    """The names and addresses in the development certificate of the host `hostname`.

    A hostname that no certificate can hold, for example with an underscore in it, is left out.
    """
    names = ["localhost", hostname.lower().removesuffix("."), "127.0.0.1", "::1"]
    try:
        ip_address(names[1])
    except ValueError:
        try:
            names[1] = idna.encode(names[1], uts46=True).decode("ascii")
        except idna.IDNAError:
            del names[1]
    return tuple(dict.fromkeys(names))


def context_of(material: TlsMaterial) -> ssl.SSLContext:
    """The server's context with a certificate that another process has read.  Blocking: OpenSSL reads files only."""
    with tempfile.TemporaryDirectory(prefix="trimta-") as folder:  # which only this account can enter
        certificate, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        certificate.write_bytes(material.certificate)
        key.write_bytes(material.key)
        return _server_context(certificate, key if material.key else None)[0]


def _server_context(certificate: Path, key: Path | None) -> tuple[ssl.SSLContext, TlsMaterial]:
    octets = []
    for path in (certificate, key):
        if path is not None:
            try:
                octets.append(path.read_bytes())
            except OSError as error:  # OpenSSL's own error would not say which file
                raise TlsError(f"{path}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    encrypted: list[bool] = []

    def passphrase() -> str:  # else OpenSSL asks for it on the terminal
        encrypted.append(True)
        return "-"

    try:
        context.load_cert_chain(certificate, key, password=passphrase)
    except ssl.SSLError as error:
        if encrypted:
            raise TlsError(
                f"{key or certificate}: the key is encrypted; trimta needs one without passphrase"
            ) from error
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key or certificate}: the key is not that of the certificate {certificate}") from error
        raise TlsError(
            f"{certificate}, {key or certificate}: not a certificate and its key in PEM form "
            f"({error.reason or 'not PEM'})"
        ) from error
    return context, TlsMaterial(*octets)


def _ensure(files: _Development, names: tuple[str, ...], now: datetime) -> None:
    """Make the development CA and certificate if they are missing or no longer good.

    Raises OSError, or TlsError if trustme is not installed.
    """
    try:
        import trustme
    except ImportError as error:
        raise TlsError(
            f"a listener with TLS needs [tls] certificate and key, or a development certificate: {WHAT_TO_INSTALL}"
        ) from error

    if _is_good(files, names, now):
        return
    durable.make_dirs(files.folder.parent)
    durable.make_dirs(files.folder, PUBLIC_DIR)
    ca = _kept_ca(files)
    if ca is None:
        ca = trustme.CA(
            path_length=0, organization_name="trimta", organization_unit_name=f"development CA {secrets.token_hex(4)}"
        )
        durable.replace_file(files.ca_key, ca.private_key_pem.bytes())
        durable.replace_file(files.ca, ca.cert_pem.bytes(), PUBLIC_FILE)
    leaf = ca.issue_cert(
        *names,
        organization_name="trimta",
        organization_unit_name="development certificate",
        not_before=now - timedelta(days=1),  # clocks of clients differ
        not_after=now + LIFETIME,
    )
    durable.replace_file(files.key, leaf.private_key_pem.bytes())
    durable.replace_file(files.certificate, b"".join(blob.bytes() for blob in leaf.cert_chain_pems), PUBLIC_FILE)


def _is_good(files: _Development, names: tuple[str, ...], now: datetime) -> bool:
    """Whether certificate, key and CA fit together, and the certificate has the names and is valid long enough."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import ExtensionNotFound, load_pem_x509_certificate

    try:
        ca = load_pem_x509_certificate(files.ca.read_bytes())
        certificate = load_pem_x509_certificate(files.certificate.read_bytes())
        key = load_pem_private_key(files.key.read_bytes(), password=None)
        certificate.verify_directly_issued_by(ca)
        return (
            key.public_key() == certificate.public_key()
            and _names(certificate) == set(names)
            and certificate.not_valid_before_utc <= now
            and certificate.not_valid_after_utc > now + RENEWAL
        )
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, ExtensionNotFound):
        return False


def _names(certificate: x509.Certificate) -> set[str]:
    from cryptography.x509 import DNSName, IPAddress, SubjectAlternativeName

    value = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    addresses = value.get_values_for_type(IPAddress)
    return {*value.get_values_for_type(DNSName), *(str(address) for address in addresses)}


def _kept_ca(files: _Development) -> CA | None:
    """The CA of an earlier start, which clients may trust already; None if it is missing or does not fit its key."""
    import trustme
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate, key = files.ca.read_bytes(), files.ca_key.read_bytes()
        fit = load_pem_x509_certificate(certificate).public_key() == load_pem_private_key(key, None).public_key()
        return trustme.CA.from_pem(certificate, key) if fit else None
    except (FileNotFoundError, ValueError, TypeError):
        return None
