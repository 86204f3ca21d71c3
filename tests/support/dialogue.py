r"""Dialogue files: a configuration, and what a client and a server say under it.

    # What it shows, in one line.
    [limits]                        conf.toml; the host name is mx.dev.test, the listener any free port
    recipients = 1
    ----
    S: 220 ...                      what the server says: "..." stands for anything
    C: EHLO client.test             what the client says; lines that follow each other go out in one piece
    S: 250+ SIZE !ETRN              a reply of many lines, with this keyword and without that
    C: RCPT TO:<alice@dev.test>
    C~ no line end here             octets
    S: (closed)                     the server hangs up; C: (closes) for the client
    C: (TLS)                        the client's half of the handshake
    M: alice 1                      so many messages are in a Maildir
    M: alice has Subject: hi        and one of them has this line
    M: alice ends a\x00b            or these octets at its end
    Q: 1                            so many envelopes wait in the queue

In what the client says `\r \n \t \0 \\ \xHH` mean octets, `{a*500}` the same 500 times, `{base64:...}` what it says.
A first line `#! whole` is for dialogues about octets that arrive together: they are not run octet by octet.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.receiving import mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.receiving import Client
    from trimta.server.wiring import Mta

FOLDER: Final = Path(__file__).parent.parent / "dialogues"

_RULE: Final = "----\n"
_REPEAT: Final = re.compile(r"\{([^{}]+?)\*(\d+)\}")
_BASE64: Final = re.compile(r"\{base64:([^}]*)\}")
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([rnt0\\]))")
_ESCAPES: Final = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One file, read."""

    name: str
    configuration: str
    lines: tuple[tuple[int, str, str], ...]
    """Number, kind ("C:", "C~", "S:", "M:", "Q:") and text of each line."""
    whole_only: bool

    @classmethod
    def read(cls, path: Path) -> Dialogue:
        """ValueError for a line of no known kind."""
        text = path.read_text()
        configuration, rule, _ = text.rpartition(_RULE)
        first = configuration.count("\n") + 1 if rule else 0
        lines = []
        for number, line in enumerate(text.split("\n")[first:], start=first + 1):
            if line and not line.startswith("#"):
                kind, content = line[:2], line[2:].removeprefix(" ")
                if kind not in ("C:", "C~", "S:", "M:", "Q:"):
                    raise ValueError(f"{path.name}:{number}: {line!r} is no line of a dialogue")
                lines.append((number, kind, content))
        return cls(path.stem, configuration, tuple(lines), text.startswith("#! whole"))

    async def play(self, client: Client, mta: Mta) -> None:
        """Speak the client's part and compare the server's."""
        octets = b""
        for number, kind, text in self.lines:
            where = f"{self.name}.smtp:{number}"
            if kind == "C:" and text not in ("(TLS)", "(closes)"):
                octets += _octets(text) + b"\r\n"
            elif kind == "C~":
                octets += _octets(text)
            else:
                if octets:
                    await client.send(octets)
                    octets = b""
                match kind, text:
                    case "C:", "(TLS)":
                        await client.start_tls()
                    case "C:", _:
                        await client.close()
                    case "S:", _ if text[3:4] == "+":
                        _compare_reply(where, text, await client.reply())
                    case "S:", _:
                        _compare(where, "" if text == "(closed)" else text, await client.line())
                    case "M:", _:
                        _compare_mailbox(where, text, mta)
                    case "Q:", _:
                        found = await mta.queue.run(lambda queue: queue.entries.count())
                        assert found == int(text), f"{where}: {found} envelopes in the queue"
        assert not octets, f"{self.name}: the last word is the server's"


def dialogues() -> Iterator[Path]:
    """All files there are."""
    yield from sorted(FOLDER.glob("*.smtp"))


def _octets(text: str) -> bytes:
    text = _REPEAT.sub(lambda found: found[1] * int(found[2]), text)
    text = _BASE64.sub(lambda found: base64.b64encode(_unescaped(found[1])).decode(), text)
    return _unescaped(text)


def _unescaped(text: str) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else _ESCAPES[found[2]], text.encode())


def _compare(where: str, pattern: str, found: str) -> None:
    expected = ".*".join(re.escape(part) for part in pattern.split("..."))
    assert re.fullmatch(expected, found), f"{where}: expected {pattern!r}, got {found!r}"


def _compare_reply(where: str, pattern: str, found: list[str]) -> None:
    code, *words = pattern.replace("+", " ", 1).split()
    assert all(line.startswith(code) for line in found), f"{where}: expected {pattern!r}, got {found}"
    said = {word for line in found for word in (line[4:], line[4:].partition(" ")[0])}
    for word in words:
        if word.startswith("!"):
            assert word[1:] not in said, f"{where}: expected no {word[1:]}, got {found}"
        else:
            assert word.replace("_", " ") in said, f"{where}: expected {word}, got {found}"


def _compare_mailbox(where: str, text: str, mta: Mta) -> None:
    user, what, *rest = text.split(" ", 2)
    found = mailbox(mta.configuration.data_dir.parent, user)
    if what == "has":
        lines = [line.decode(errors="replace") for message in found for line in message.split(b"\n")]
        assert rest[0] in lines, f"{where}: none of the lines {lines}"
    elif what == "ends":
        assert any(message.endswith(_unescaped(rest[0])) for message in found), f"{where}: {found}"
    else:
        assert len(found) == int(what), f"{where}: {len(found)} messages for {user}"
