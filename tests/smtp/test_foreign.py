"""What speaks another protocol is hung up on at its first line, wherever in a conversation that is."""

from __future__ import annotations

import base64
import re

import pytest

from tests.smtp.support import Peer
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.foreign import foreign_protocol, is_smtp
from trimta.smtp.parsing import KNOWN_VERBS, CommandLine
from trimta.smtp.server_events import BadInput
from trimta.smtp.server_settings import AuthPolicy

MAIL = b"HELO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nSubject: spam\r\n\r\nbody\r\n.\r\nQUIT\r\n"
CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(range(40)) + b"\n\r\n" * 9

FOREIGN: list[bytes] = [
    b"POST / HTTP/1.1\r\n",
    b"GET /?q=1 HTTP/1.1\r\n",
    b"get / http/1.1\r\n",
    b"GET /\r\n",  # HTTP 0.9
    b"GET\t/\n",
    b"GET\r\n",
    b"HEAD / HTTP/1.0\n",
    b"Put /x HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT mx.test:25 HTTP/1.1\r\n",
    b"DELETE /\r\n",
    b"TRACE / HTTP/1.1\r\n",
    b"PATCH /x HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PROPFIND / HTTP/1.1\r\n",
    b"x-any-token!#$ / HTTP/1.1 \r\n",
    b"HELO / HTTP/1.1\r\n",
    b"NOOP / HTTP/1.1\n",
    b"OPTIONS rtsp://x/ RTSP/1.0\r\n",
    b"INVITE sip:a@b.test SIP/2.0\r\n",
    b"\t GET / HTTP/1.1\r\n",
    b"\xef\xbb\xbfPOST / HTTP/1.1\r\n",
    b"\x00POST / HTTP/1.1\r\n",
    b"POST /\r HTTP/1.1\r\n",
    b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\n",
    b" " * 300 + b"POST / HTTP/1.1\r\n",
    b"Host: localhost:2525\r\n",
    b"host:localhost\n",
    b"Host:\r\n",
    b"Host : x\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"X_y.z'!: \r\n",
    b"X-Long: " + b"x" * 20_000 + b"\r\n",
    b"Cookie: " + b"\xff" * 9 + b"\r\n",
    b"From: a@x.test\r\n",
    b"Content-Type: text/plain\r\n",
    b"NOOP: x\r\n",
    CLIENT_HELLO,
    b"\x16\x03\x03\x00\x05",
    bytes.fromhex("802e0103010015000000200000050000"),
]

MIDDLES: dict[str, bytes] = {
    "at the start": b"",
    "after an empty line": b"\r\n",
    "after EHLO": b"EHLO c\r\n",
    "after LHLO": b"LHLO c\r\n",
    "in a transaction": b"EHLO c\r\nMAIL FROM:<a@dev.test>\r\nRCPT TO:<b@dev.test>\r\n",
    "between chunks": b"EHLO c\r\nMAIL FROM:<a@dev.test>\r\nRCPT TO:<b@dev.test>\r\nBDAT 2\r\nx\n",
    "after a message": b"EHLO c\r\nMAIL FROM:<a@dev.test>\r\nRCPT TO:<b@dev.test>\r\nDATA\r\n.\r\n",
    "after a refused AUTH": b"EHLO c\r\nAUTH FOO\r\n",
    "in an AUTH exchange": b"EHLO c\r\nAUTH LOGIN\r\n",
}


@pytest.mark.parametrize("protocol", list(MailProtocol))
@pytest.mark.parametrize("middle", MIDDLES)
@pytest.mark.parametrize("pieces", [0, 1, 7])
def test_another_protocol_is_hung_up_on_at_once(protocol: MailProtocol, middle: str, pieces: int) -> None:
    for line in FOREIGN:
        if middle == "in an AUTH exchange" and line == b"GET\r\n":
            continue  # a word alone is Base64 there
        peer = Peer(protocol=protocol, auth=AuthPolicy.OPTIONAL, auth_in_clear=True)
        peer.say(MIDDLES[middle]) if MIDDLES[middle] else None
        before = len(peer.events)
        assert peer.say(line + MAIL, pieces) == ["421 4.7.0"], (line[:40], middle)
        assert peer.closed
        assert [type(event) for event in peer.events[before:]] == [BadInput]


@pytest.mark.parametrize("line", [line for line in FOREIGN if line.find(b"\n") > 300 or b"\n" not in line])
def test_the_end_of_a_long_line_is_not_waited_for(line: bytes) -> None:
    peer = Peer()
    assert peer.say(line[:250], 1) == ["421 4.7.0"] or line.startswith(b"   ")


@pytest.mark.parametrize(
    "line",
    [
        *("MAIL FROM:<a@dev.test>", "rcpt to: <a@dev.test>", "MAIL FROM:a:b@dev.test", "NOOP : x", "HELP :", "vrfy :a"),
        *("EHLO [IPv6:::1]", "EHLO a:b", "HELO x http", "EHLO :", "GETAWAY", "POSTMASTER", "GE", "", "   ", "PRIV"),
        *("HTTP/1.1", "NOOP HTTP/x", "NOOP x/HTTP/1.1", "DATA", "QUIT", "ETRN #a:b", "AUTH PLAIN AGEAYg=="),
    ],
)
def test_smtp_is_none_of_these(line: str) -> None:
    assert foreign_protocol(line.encode()) is None
    for end in range(len(line)):
        assert foreign_protocol(line[:end].encode(), whole=False) is None


def test_a_line_that_is_certainly_smtp_is_no_other_protocol() -> None:
    certain = 0
    starts = [*(verb.encode() for verb in KNOWN_VERBS), *(line.rstrip(b"\r\n") for line in FOREIGN)]
    rests = [
        b"",
        b" ",
        b"\t",
        b":",
        b" :",
        b"\t:",
        b" x: y",
        b" * HTTP/1.1",
        b" x HTTP/1.1 ",
        b" <a@dev.test>",
        b"\x16\x03",
    ]
    for line in (start + rest for start in starts for rest in rests):
        if is_smtp(CommandLine(line)):
            certain += 1
            assert foreign_protocol(line) is None, line
    assert certain >= 5 * len(KNOWN_VERBS)


def test_a_password_that_is_a_word_of_http_is_no_http() -> None:
    for word in (b"POST", b"HEAD"):
        assert base64.b64decode(word, validate=True)
        peer = Peer(auth=AuthPolicy.OPTIONAL, auth_in_clear=True)
        assert peer.say(b"EHLO c\r\nAUTH PLAIN\r\n" + word + b"\r\n", 1)[-1] == "235 2.7.0"


@pytest.mark.parametrize("command", ["DATA\r\n", "BDAT 57 LAST\r\n"])
def test_content_may_be_anything(command: str) -> None:
    content = b"GET / HTTP/1.1\r\nHost: localhost:2525\r\nFrom: a\r\n\r\nPOST /\r\n"
    assert len(content) == 57
    peer = Peer()
    peer.say("EHLO c\r\nMAIL FROM:<a@dev.test>\r\nRCPT TO:<b@dev.test>\r\n" + command)
    peer.say(content, 1)
    if command == "DATA\r\n":
        peer.say(".\r\n")
    assert peer.messages == [content.replace(b"\r\n", b"\n")]


def test_a_credential_is_not_shown_as_another_protocol() -> None:
    peer = Peer(auth=AuthPolicy.OPTIONAL, auth_in_clear=True)
    assert peer.say("EHLO c\r\nAUTH LOGIN\r\nuser: secret\r\n")[-1] == "421 4.7.0"
    assert re.search("secret|user", peer.connection.line) is None
