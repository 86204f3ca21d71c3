"""Passwords: plain or hashed, compared in constant time, hashes of bounded cost."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.config import passwords
from trimta.config.passwords import Authenticator, SecretError, check_secret


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def scrypt(password: str, *, ln: int = 4, r: int = 8, p: int = 1, length: int = 32) -> str:
    salt = b"0123456789abcdef"
    digest = hashlib.scrypt(password.encode(), salt=salt, n=1 << ln, r=r, p=p, dklen=length)
    return f"$scrypt$ln={ln},r={r},p={p}${encoded(salt)}${encoded(digest)}"


# the test vector of RFC 7914 12: scrypt("pleaseletmein", "SodiumChloride", N=16384, r=8, p=1, 64)
RFC_7914 = "$scrypt$ln=14,r=8,p=1$" + encoded(b"SodiumChloride") + "$" + encoded(
    bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
)  # fmt: skip

# from the tests of the reference implementation (phc-winner-argon2): "password", "somesalt", t=2, m=256 KiB, p=1
ARGON2 = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

USERS = {
    "alice": "secret",
    "bob": scrypt("bob's"),
    "carol": RFC_7914,
    "dave": ARGON2,
    "émile": "pässword",
    "dollar": "$ecret",
}


@pytest.mark.parametrize(
    ("name", "password", "good"),
    [
        ("alice", "secret", True),
        ("alice", "Secret", False),
        ("alice", "secret ", False),
        ("alice", "", False),
        ("Alice", "secret", False),
        ("", "", False),
        ("", "secret", False),
        ("nobody", "", False),
        ("nobody", "secret", False),
        ("bob", "bob's", True),
        ("bob", "secret", False),
        ("bob", USERS["bob"], False),
        ("carol", "pleaseletmein", True),
        ("carol", "pleaseletmein\0", False),
        ("dave", "password", True),
        ("dave", "passwort", False),
        ("dave", ARGON2, False),
        ("émile", "pässword", True),
        ("e\u0301mile", "pa\u0308ssword", True),
        ("émile", "passwort", False),
        ("dollar", "$ecret", True),
        ("alice", "secret" * 1000, False),
        ("alice", "\udcff\ud800", False),
        ("\udcff", "secret", False),
    ],
)
def test_a_password_is_right_or_wrong(name: str, password: str, good: bool) -> None:
    assert Authenticator(USERS).verify(name, password) is good


@pytest.mark.parametrize(("name", "password"), [("", ""), ("anybody", "anything"), ("alice", "wrong")])
def test_any_takes_any_name_and_password(name: str, password: str) -> None:
    assert Authenticator({"alice": "secret"}, any=True).verify(name, password)


def test_without_users_nobody_gets_in() -> None:
    assert not Authenticator({}).verify("", "")


@pytest.mark.parametrize("name", ["plain", "one", "two", "weak", "nobody"])
def test_every_log_in_computes_the_same_hashes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"plain": "secret", "one": scrypt("1"), "two": scrypt("2"), "weak": scrypt("3", ln=2)}
    computed: list[int] = []
    real = passwords._ScryptCost.derive

    def derive(self: passwords._ScryptCost, password: bytes, salt: bytes) -> bytes:
        computed.append(self.ln)
        return real(self, password, salt)

    monkeypatch.setattr(passwords._ScryptCost, "derive", derive)
    Authenticator(users).verify(name, "guess")
    assert sorted(computed) == [2, 4]


def salted(prefix: str, *, salt: str = "c29tZXNhbHQ", digest: str = "A" * 43) -> str:
    return f"{prefix}${salt}${digest}"


@pytest.mark.parametrize(
    "secret",
    [
        "secret",
        "$ecret",
        "$",
        "$$",
        "$5 a month",
        "päss wörd",
        scrypt("x"),
        RFC_7914,
        ARGON2,
        salted("$scrypt$ln=17,r=8,p=1"),
        salted("$argon2id$v=19$m=65536,t=3,p=4"),
        salted("$argon2id$v=19$m=262144,t=1,p=4"),
    ],
)
def test_a_good_secret(secret: str) -> None:
    assert check_secret(secret) is None


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        ("", "is empty"),
        ("x" * 1025, "longer than 1024"),
        ("sec\0ret", "NUL"),
        ("$2b$12$abcdefghijklmnopqrstuv", "of the kind $2b$"),
        ("$6$salt$hash", "of the kind $6$"),
        ("$pbkdf2-sha256$29000$N2$hash", "of the kind $pbkdf2-sha256$"),
        (salted("$argon2i$v=19$m=65536,t=3,p=4"), "of the kind $argon2i$"),
        (salted("$argon2id$m=65536,t=3,p=4"), "of the form $argon2id$"),
        (salted("$argon2id$v=16$m=65536,t=3,p=4"), "of the form $argon2id$"),
        ("$argon2id$", "of the form $argon2id$"),
        ("$scrypt$", "of the form $scrypt$"),
        (scrypt("x") + "\n", "of the form $scrypt$"),
        (salted("$scrypt$ln=17,r=8"), "of the form $scrypt$"),
        (salted("$scrypt$ln=20,r=8,p=1"), "takes 1024 MiB"),
        (salted("$scrypt$ln=99,r=9999,p=1"), "takes"),
        (salted("$scrypt$ln=18,r=8,p=9"), "too long"),
        (salted("$scrypt$ln=0,r=8,p=1"), "impossible"),
        (salted("$scrypt$ln=4,r=0,p=1"), "impossible"),
        (salted("$scrypt$ln=16,r=1,p=1"), "impossible"),
        (salted("$argon2id$v=19$m=2097152,t=1,p=4"), "takes 2048 MiB"),
        (salted("$argon2id$v=19$m=65536,t=999999999,p=4"), "too long"),
        (salted("$argon2id$v=19$m=65536,t=0,p=4"), "impossible"),
        (salted("$argon2id$v=19$m=8,t=3,p=4"), "impossible"),
        (salted("$argon2id$v=19$m=65536,t=3,p=65"), "64 lanes"),
        (salted("$scrypt$ln=4,r=8,p=1", digest="AAAAA"), "not base64"),
        (salted("$scrypt$ln=4,r=8,p=1", digest="AAAA"), "16 to 128 octets"),
        (salted("$scrypt$ln=4,r=8,p=1", digest="A" * 400), "16 to 128 octets"),
        (salted("$argon2id$v=19$m=65536,t=3,p=4", salt="AAAA"), "8 to 128 octets"),
    ],
)
def test_a_bad_secret_is_told_without_repeating_it(secret: str, complaint: str) -> None:
    said = check_secret(secret)
    assert said is not None
    assert complaint in said
    assert "AAAA" not in said
    with pytest.raises(SecretError):
        Authenticator({"alice": secret})


def test_argon2_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert check_secret(ARGON2) == "an argon2id hash needs: pip install 'trimta[tls]'"
    assert check_secret(scrypt("x")) is None


def test_secrets_are_not_in_a_repr() -> None:
    authenticator = Authenticator({"alice": "hunter2"})
    assert "hunter2" not in repr(vars(authenticator))


@given(st.text(min_size=1, max_size=40).filter(lambda text: check_secret(text) is None), st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_a_plain_password_lets_itself_in(password: str, other: str) -> None:
    authenticator = Authenticator({"alice": password})
    assert authenticator.verify("alice", password)
    if "\0" in other or passwords._prepared(other) != passwords._prepared(password):
        assert not authenticator.verify("alice", other)


@given(st.from_regex(r"\$(scrypt|argon2id|[a-z]+)\$[a-z0-9=,$+/]*", fullmatch=True))
@settings(deadline=None, max_examples=100)
def test_any_text_is_a_secret_or_told(text: str) -> None:
    check_secret(text)
