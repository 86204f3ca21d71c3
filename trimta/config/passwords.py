"""Who may log in: names with a password or its hash, compared in a time that tells nothing (RFC 4616, RFC 4954).

A secret is the password itself, or a PHC string: `$scrypt$ln=17,r=8,p=1$salt$hash` or
`$argon2id$v=19$m=65536,t=3,p=4$salt$hash` (base64 without padding; argon2id needs the extra `tls`).  Passwords and
names are compared after NFKC, in place of SASLprep.  Everything here is plain computing that may take a second: run
it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MEMORY: Final = 256 * 1024 * 1024
"""Octets that one hash may take; RFC 9106 and OWASP recommend 64 and 128 MiB."""
MAX_WORK: Final = 2 * 1024 * 1024 * 1024
"""Memory times passes and lanes: some seconds on any machine."""
MAX_PASSWORD: Final = 1024
"""Characters; a longer one is wrong without being hashed."""

_HASH: Final = re.compile(r"\$([A-Za-z0-9][A-Za-z0-9-]{0,31})\$")
_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,4}),p=([0-9]{1,4})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_ARGON2: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,4})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)


class SecretError(ValueError):
    """A secret that can't be used; the message says why, without repeating it."""


@dataclass(frozen=True, slots=True)
class _ScryptCost:
    ln: int
    r: int
    p: int
    length: int

    def derive(self, password: bytes, salt: bytes) -> bytes:
        return hashlib.scrypt(
            password,
            salt=salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            dklen=self.length,
            maxmem=MAX_MEMORY + 64 * 1024 * 1024,  # OpenSSL counts a little more than N, r and p say
        )


@dataclass(frozen=True, slots=True)
class _Argon2Cost:
    memory: int
    """KiB."""
    passes: int
    lanes: int
    length: int

    def derive(self, password: bytes, salt: bytes) -> bytes:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # an optional dependency

        return Argon2id(
            salt=salt, length=self.length, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory
        ).derive(password)


_Cost: TypeAlias = _ScryptCost | _Argon2Cost


@dataclass(frozen=True, slots=True, repr=False)
class _Hashed:
    cost: _Cost
    salt: bytes
    digest: bytes


@dataclass(frozen=True, slots=True, repr=False)
class _Plain:
    password: bytes


_Secret: TypeAlias = _Hashed | _Plain


def check_secret(text: str) -> str | None:
    """What is wrong with a secret from the configuration, without repeating it; None if it can be used."""
    try:
        secret = _parse(text)
    except SecretError as error:
        return str(error)
    if (
        isinstance(secret, _Hashed)
        and isinstance(secret.cost, _Argon2Cost)
        and importlib.util.find_spec("cryptography") is None
    ):
        return "an argon2id hash needs: pip install 'trimta[tls]'"
    return None


class Authenticator:
    """Verifies names and passwords.  Raises SecretError for a secret that `check_secret` would refuse.

    The time that `verify` takes is the same whether the name is known or not and whether its secret is a hash or
    plain: each cost that occurs among the users is paid once, with the user's own salt or with a made-up one.
    """

    def __init__(self, users: Mapping[str, str], *, any: bool = False) -> None:  # noqa: A002 - as in [auth]
        self._any = any
        self._users: dict[str, _Secret] = {_prepared(name): _parse(secret) for name, secret in users.items()}
        self._costs = tuple(
            dict.fromkeys(secret.cost for secret in self._users.values() if isinstance(secret, _Hashed))
        )

    def verify(self, name: str, password: str) -> bool:
        """Whether `password` is that of `name`.  Blocks for as long as hashing takes."""
        if self._any:
            return True
        if (
            len(password) > MAX_PASSWORD or "\0" in password
        ):  # RFC 4616 has no NUL, and HMAC takes trailing ones for none
            return False
        given = _octets(password)
        secret = self._users.get(_prepared(name))
        good = isinstance(secret, _Plain) & _same(given, secret.password if isinstance(secret, _Plain) else b"")
        for cost in self._costs:
            if isinstance(secret, _Hashed) and secret.cost == cost:
                good |= hmac.compare_digest(cost.derive(given, secret.salt), secret.digest)
            else:
                cost.derive(given, b"nobody's salt...")
        return good


def _prepared(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _octets(text: str) -> bytes:
    return _prepared(text).encode("utf-8", "surrogatepass")


def _same(one: bytes, other: bytes) -> bool:
    """Compare without telling the length: digests have one."""
    return hmac.compare_digest(hashlib.sha256(one).digest(), hashlib.sha256(other).digest())


def _parse(text: str) -> _Secret:
    if not text:
        raise SecretError("is empty")
    kind = _HASH.match(text)
    if kind is None:
        if len(text) > MAX_PASSWORD:
            raise SecretError(f"is longer than {MAX_PASSWORD} characters")
        if "\0" in text:
            raise SecretError("has a NUL in it, which no client can send")
        return _Plain(_octets(text))
    match kind[1]:
        case "scrypt":
            return _parse_scrypt(text)
        case "argon2id":
            return _parse_argon2(text)
        case other:
            raise SecretError(f"is a hash of the kind ${other}$; known are $argon2id$ and $scrypt$")


def _parse_scrypt(text: str) -> _Hashed:
    found = _SCRYPT.fullmatch(text)
    if found is None:
        raise SecretError("is not a scrypt hash of the form $scrypt$ln=17,r=8,p=1$salt$hash")
    ln, r, p = (int(number) for number in found.groups()[:3])
    if ln < 1 or r < 1 or p < 1 or ln >= 16 * r:  # RFC 7914 6
        raise SecretError("is a scrypt hash with impossible parameters")
    _check_cost(memory=128 * r << ln, times=p)
    salt, digest = _decoded(found[4], 0), _decoded(found[5], 16)
    return _Hashed(_ScryptCost(ln, r, p, len(digest)), salt, digest)


def _parse_argon2(text: str) -> _Hashed:
    found = _ARGON2.fullmatch(text)
    if found is None:
        raise SecretError("is not an argon2id hash of the form $argon2id$v=19$m=65536,t=3,p=4$salt$hash")
    memory, passes, lanes = (int(number) for number in found.groups()[:3])
    if passes < 1 or lanes < 1 or memory < 8 * lanes:  # RFC 9106 3.1
        raise SecretError("is an argon2id hash with impossible parameters")
    if lanes > 64:
        raise SecretError("is an argon2id hash with more than 64 lanes")
    _check_cost(memory=memory * 1024, times=passes)
    salt, digest = _decoded(found[4], 8), _decoded(found[5], 16)
    return _Hashed(_Argon2Cost(memory, passes, lanes, len(digest)), salt, digest)


def _check_cost(*, memory: int, times: int) -> None:
    if memory > MAX_MEMORY:
        raise SecretError(
            f"is a hash that takes {memory >> 20} MiB of memory for each log-in; at most {MAX_MEMORY >> 20} are allowed"
        )
    if memory * times > MAX_WORK:
        raise SecretError("is a hash that takes too long to compute for each log-in")


def _decoded(text: str, least: int) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise SecretError("is a hash whose salt or digest is not base64") from None
    if not least <= len(data) <= 128:
        raise SecretError(f"is a hash whose salt or digest is not {least} to 128 octets long")
    return data
