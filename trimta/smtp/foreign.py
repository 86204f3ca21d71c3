"""Recognition of clients that speak another protocol, by the beginning of a line; their session ends at once.

A web page can make a browser send a request to any port, with a body of its choice.  Read as commands, the body would
be mail.  The request line and the header fields come before the body, so the session ends in time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern
from trimta.smtp.parsing import KNOWN_VERBS, verb_of

if TYPE_CHECKING:
    from trimta.smtp.parsing import CommandLine

_CLIENT_HELLO: Final = pattern(
    rb"\x16\x03"  # RFC 8446 5.1: handshake, legacy_record_version
    rb"|[\x80-\xff].\x01(?:\x03[\x00-\x04]|\x00\x02)",  # RFC 5246 E.2: in a record of SSL 2
    re.DOTALL,
)
# In any case, and behind octets that are no part of a word.
_METHOD: Final = pattern(
    rb"[^!-~]*+(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI)(?P<after>[ \t]|\r?\n|\r?\Z)", re.IGNORECASE
)
_REQUEST: Final = pattern(rb"[ \t](?:HTTP|RTSP|ICAP|SIP)/[0-9](?:\.[0-9])?[ \t\r]*+\Z", re.IGNORECASE)
_FIELD: Final = pattern(rb"[^!-~]*+(?P<name>[!-9;-~]++)(?P<space>[ \t]*+):")


def is_smtp(line: CommandLine) -> bool:
    """Whether a whole line is certainly SMTP, and `foreign_protocol` need not be asked."""
    return line.verb in KNOWN_VERBS and "/" not in line.text


def foreign_protocol(line: bytes, *, whole: bool = True, secret: bool = False) -> str | None:
    """The text of a reply that names the protocol of a line; None if the line may be SMTP.

    `whole`: whether `line` is a whole line, without its line end, and not only the beginning of one.  `secret`: whether
    the line answers a challenge of AUTH, where a single word is Base64.
    """
    if _CLIENT_HELLO.match(line):
        return "this is TLS, and here a client begins in clear: see STARTTLS"
    method = _METHOD.match(line)
    if method is not None and (method["after"] in (b" ", b"\t") or (not secret and (whole or method["after"]))):
        return "this is HTTP, and here is a mail server"
    if whole and _REQUEST.search(line):
        return "this is a request of another protocol, and here is a mail server"
    field = _FIELD.match(line)
    if field is None or (
        field["space"] and verb_of(field["name"].decode("ascii")) in KNOWN_VERBS
    ):  # "NOOP : anything" is SMTP
        return None
    return "this is a header field, where a command is due"
