"""Verification of passwords for AUTH (RFC 4954, RFC 4616), in a time that does not tell which names exist.

A user's secret is the password itself, or a PHC string: `$scrypt$ln=17,r=8,p=1$salt$hash` or
`$argon2id$v=19$m=65536,t=3,p=4$salt$hash` (base64 without padding; argon2id needs the extra `tls`).  Passwords and
names are compared after Unicode normalization to NFKC, in place of SASLprep.  Hashing may take a second: call these
functions in a thread.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MEMORY: Final = 256 * 1024 * 1024
"""Octets of memory that one hash may take; RFC 9106 and OWASP recommend 64 and 128 MiB."""
MAX_WORK: Final = 2 * 1024 * 1024 * 1024
"""Octets of memory times the number of passes over them: some seconds of computing on any machine."""
MAX_PASSWORD: Final = 1024
"""Characters of a password; a longer password is wrong, and is not hashed."""

_HASH: Final = pattern(r"\$([A-Za-z0-9][A-Za-z0-9-]{0,31})\$")
_SCRYPT: Final = pattern(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,4}),p=([0-9]{1,4})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_ARGON2: Final = pattern(
    r"\$argon2id\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,4})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)


class SecretError(ValueError):
    """A secret that can't be used; the message says why, and does not contain the secret."""


@dataclass(frozen=True, slots=True)
class _ScryptCost:
    ln: int
    r: int
    p: int
    length: int

    def derive(self, password: bytes, salt: bytes) -> bytes:
        import hashlib

        return hashlib.scrypt(
            password,
            salt=salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            dklen=self.length,
            maxmem=MAX_MEMORY + 64 * 1024 * 1024,  # OpenSSL counts a little more than follows from N, r and p
        )


@dataclass(frozen=True, slots=True)
class _Argon2Cost:
    memory: int
    """In KiB."""
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
    """The problem with a secret of the configuration, in words that do not contain the secret; None if it is good."""
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
    """Verifies the names and passwords that clients send with AUTH.

    `users` maps names to secrets; with `any`, every name and password is good.  Raises SecretError for a secret that
    can't be parsed.  `verify` takes the same time whether the name exists or not, and whether its secret is a hash or
    plain text: every hash function and cost that any user has is computed once, with that user's salt or a made-up one.
    """

    def __init__(self, users: Mapping[str, str], *, any: bool = False) -> None:  # noqa: A002 - as in [auth]
        self._any = any
        self._users: dict[str, _Secret] = {_prepared(name): _parse(secret) for name, secret in users.items()}
        self._costs = tuple(
            dict.fromkeys(secret.cost for secret in self._users.values() if isinstance(secret, _Hashed))
        )

    def verify(self, name: str, password: str) -> bool:
        """Whether `password` is the password of the user `name`.  Blocks while hashes are computed."""
        import hmac

        if self._any:
            return True
        # A password has no NUL in it (RFC 4616); HMAC would ignore NULs at its end.
        if len(password) > MAX_PASSWORD or "\0" in password:
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


def _same(given: bytes, expected: bytes) -> bool:
    """Whether two texts are equal, in a time that does not depend on their lengths: their digests are compared."""
    import hashlib
    import hmac

    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(expected).digest())


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
    parts = _SCRYPT.fullmatch(text)
    if parts is None:
        raise SecretError("is not a scrypt hash of the form $scrypt$ln=17,r=8,p=1$salt$hash")
    ln, r, p = (int(number) for number in parts.groups()[:3])
    if ln < 1 or r < 1 or p < 1 or ln >= 16 * r:  # RFC 7914 6
        raise SecretError("is a scrypt hash with impossible parameters")
    _check_cost(memory=128 * r << ln, times=p)
    salt, digest = _decoded(parts[4], 0), _decoded(parts[5], 16)
    return _Hashed(_ScryptCost(ln, r, p, len(digest)), salt, digest)


def _parse_argon2(text: str) -> _Hashed:
    parts = _ARGON2.fullmatch(text)
    if parts is None:
        raise SecretError("is not an argon2id hash of the form $argon2id$v=19$m=65536,t=3,p=4$salt$hash")
    memory, passes, lanes = (int(number) for number in parts.groups()[:3])
    if passes < 1 or lanes < 1 or memory < 8 * lanes:  # RFC 9106 3.1
        raise SecretError("is an argon2id hash with impossible parameters")
    if lanes > 64:
        raise SecretError("is an argon2id hash with more than 64 lanes")
    _check_cost(memory=memory * 1024, times=passes)
    salt, digest = _decoded(parts[4], 8), _decoded(parts[5], 16)
    return _Hashed(_Argon2Cost(memory, passes, lanes, len(digest)), salt, digest)


def _check_cost(*, memory: int, times: int) -> None:
    if memory > MAX_MEMORY:
        raise SecretError(
            f"is a hash that takes {memory >> 20} MiB of memory for each log-in; at most {MAX_MEMORY >> 20} are allowed"
        )
    if memory * times > MAX_WORK:
        raise SecretError("is a hash that takes too long to compute for each log-in")


def _decoded(text: str, least: int) -> bytes:
    """The octets of base64 without padding; SecretError unless they are `least` to 128."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise SecretError("is a hash whose salt or digest is not base64") from None
    if not least <= len(data) <= 128:
        raise SecretError(f"is a hash whose salt or digest is not {least} to 128 octets long")
    return data
