"""Checks of values that must fit together, made after each value was checked by itself.

A value in which the reader has found a mistake already is left out, so that a mistake is reported once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trimta.config.build_policy import local_domains
from trimta.config.model import FaultStage, InetAddress, UnixAddress
from trimta.config.value_parsers import show, was_readable
from trimta.routing.aliases import AliasCycle, AliasError, AliasTable
from trimta.routing.route_table import RouteTable
from trimta.routing.routes import RouteError
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.server_settings import AuthPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trimta.config.locate import KeyPath
    from trimta.config.model import Configuration, ListenSection
    from trimta.config.reader import Reader

_ANY_ADDRESS: Final = {"0.0.0.0": 4, "::": 6}


def check_listeners(reader: Reader, config: Configuration) -> None:
    """[[listen]]: at least one, no two on the same address, each with what it needs."""
    if not config.listen:
        if not reader.failed("listen"):
            reader.mistake((), ("listen",), "found no listener", "expected at least one [[listen]]")
        return
    for index, listener in enumerate(config.listen):
        path = ("listen", index)
        for earlier, other in enumerate(config.listen[:index]):
            if _collide(listener, other) and not reader.failed(*path) and not reader.failed("listen", earlier):
                problem = f'found "{listener.address}", which "{other.address}" above has already'
                reader.mistake(path, ("address",), problem, "expected another address or port")
                break
        if (
            listener.auth is AuthPolicy.REQUIRED
            and not config.auth.users
            and not config.auth.any
            and not reader.failed("auth")
        ):
            expected = "expected names in [auth] users, or [auth] any = true"
            reader.mistake(path, ("auth",), 'found "required" where nobody could log in', expected)
        if listener.auth is AuthPolicy.REQUIRED and "AUTH" in listener.hide:
            reader.mistake(path, ("hide",), 'found "AUTH" with auth = "required"', "expected the one or the other")
        if listener.protocol is MailProtocol.LMTP and getattr(listener.address, "port", None) == 25:
            reader.mistake(path, ("address",), "found port 25 for LMTP", "expected another port (RFC 2033 section 5)")


def _collide(listener: ListenSection, other: ListenSection) -> bool:
    match listener.address, other.address:
        case UnixAddress(path), UnixAddress(other_path):
            return path == other_path
        case InetAddress(port=port) as address, InetAddress(port=other_port) as other_address:
            return port == other_port != 0 and any(
                host == other_host or _any_covers(host, other_host) or _any_covers(other_host, host)
                for host in address.hosts
                for other_host in other_address.hosts
            )
        case _:
            return False


def _any_covers(host: str, other: str) -> bool:
    """Whether `host` is the address of all interfaces, and `other` one of the same family."""
    return host in _ANY_ADDRESS and (6 if ":" in other else 4) == _ANY_ADDRESS[host]


def check_tls(reader: Reader, config: Configuration) -> None:
    """[tls]: a certificate with its own key."""
    if reader.failed("tls"):
        return
    certificate, key = config.tls.certificate, config.tls.key
    if certificate is not None and key is not None:
        import ssl

        try:
            # An empty passphrase, else OpenSSL asks for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            was_read = isinstance(error, PermissionError) and was_readable(certificate) and was_readable(key)
            if not was_read:
                problem = f"found {show(str(certificate), 200)} with {show(str(key), 200)}: {_ssl_reason(error)}"
                expected = "expected a PEM certificate and its key, not encrypted"
                reader.mistake(("tls",), ("certificate",), problem, expected)
    elif certificate is not None:
        reader.mistake(("tls",), ("certificate",), "found certificate without key", "expected both or none")
    elif key is not None:
        reader.mistake(("tls",), ("key",), "found key without certificate", "expected both or none")
    if config.tls.ca is not None:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(config.tls.ca)
        except (OSError, ValueError) as error:
            problem = f"found {show(str(config.tls.ca), 200)}: {_ssl_reason(error)}"
            reader.mistake(("tls",), ("ca",), problem, "expected certificates in PEM")


def _ssl_reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else "not in PEM"


def check_aliases(reader: Reader, config: Configuration) -> None:
    """[aliases]: no name twice, no cycle."""
    if reader.failed("aliases") or reader.failed("local"):
        return
    entries = dict(config.aliases)
    while True:
        try:
            AliasTable(entries, local_domains(config))
        except AliasError as error:
            problem, _, rest = str(error).partition("expected ")
            if isinstance(error, AliasCycle):
                expected = "expected every alias to lead to an address in the end"
            else:
                expected = f"expected {rest}" if rest else "expected each only once"
            reader.mistake(("aliases",), (error.key,), f"found {problem.rstrip(' ,;:') or 'no address'}", expected)
            del entries[error.key]  # and check the others
        else:
            return


def check_routes(reader: Reader, config: Configuration) -> None:
    """[routes]: no key twice."""
    if reader.failed("routes"):
        return
    entries = dict(config.routes)
    while True:
        try:
            RouteTable(entries)
        except RouteError as error:
            if error.key is None:
                raise
            reader.mistake(("routes",), (error.key,), f"found {error}", "expected each only once")
            del entries[error.key]
        else:
            return


# A fault with a glob on a value that is not known yet at its stage could never strike.
_UNKNOWN_AT: Final[Mapping[str, tuple[str, ...]]] = {
    FaultStage.CONNECT: ("recipient", "sender"),
    FaultStage.HELO: ("recipient", "sender"),
    FaultStage.MAIL: ("recipient",),
}


def check_fault(reader: Reader, path: KeyPath, table: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """One of [[faults]]: `table` as it is written, `values` what is right in it."""
    if "stage" not in table:
        reader.mistake(path, ("stage",), "found no stage", f"expected one of {', '.join(FaultStage)}")
    happens = (
        table.keys() & {"reply", "delay"} or table.get("drop", False) or table.get("stage") == FaultStage.COMMITTED
    )
    if not happens:
        reader.mistake(path, (), "found nothing that happens", "expected reply, delay or drop = true")
    reply = values.get("reply")
    if reply is not None and reply.code < 400 and values.get("stage") in (FaultStage.DATA, FaultStage.BODY):
        reader.mistake(path, ("reply",), f'found "{reply}"', 'expected a refusal, or stage "committed"')
    if "seed" in table and "probability" not in table:
        reader.mistake(path, ("seed",), "found seed without probability", "expected both")
    for key in _UNKNOWN_AT.get(values.get("stage", ""), ()):
        if key in values:
            stage = values["stage"].value
            reader.mistake(path, (key,), f'found {key} with stage "{stage}"', f"expected a stage that has a {key}")
