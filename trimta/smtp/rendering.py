"""Rendering: from commands as values to the command lines that a client sends."""

from __future__ import annotations

import base64

from trimta.smtp.commands import Auth, Bdat, Command, Ehlo, Etrn, Expn, Helo, Help, Mail, Rcpt, Vrfy
from trimta.smtp.parameters import mail_words, rcpt_words


def render_command(command: Command, *, smtputf8: bool = False) -> bytes:
    """The octets of a command line, CRLF included.

    `smtputf8`: whether the transaction uses SMTPUTF8; for MAIL its own parameters decide.  Without SMTPUTF8 domains are
    written as A-labels.  Raises ValueError for a local part that needs SMTPUTF8, and for a text with a line end in it.
    """
    line = " ".join(_words(command, smtputf8=smtputf8))
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError("a line end or a NUL in a command")
    return line.encode() + b"\r\n"


def _words(command: Command, *, smtputf8: bool) -> list[str]:
    match command:
        case Helo(domain):
            return ["HELO", domain]
        case Ehlo(domain, lmtp):
            return ["LHLO" if lmtp else "EHLO", domain]
        case Mail(reverse_path, parameters):
            path = "" if reverse_path is None else reverse_path.wire(smtputf8=parameters.smtputf8)
            return ["MAIL", f"FROM:<{path}>", *mail_words(parameters)]
        case Rcpt(forward_path):
            return ["RCPT", f"TO:<{forward_path.wire(smtputf8=smtputf8)}>", *rcpt_words(command, smtputf8=smtputf8)]
        case Bdat(size, last):
            return ["BDAT", str(size), *(["LAST"] if last else [])]
        case Vrfy(string, utf8) | Expn(string, utf8):
            return [type(command).__name__.upper(), string, *(["SMTPUTF8"] if utf8 else [])]
        case Help(topic):
            return ["HELP", topic] if topic else ["HELP"]
        case Etrn(node):
            return ["ETRN", node]
        case Auth(mechanism, None):
            return ["AUTH", mechanism]
        case Auth(mechanism, bytes(initial)):
            return ["AUTH", mechanism, base64.b64encode(initial).decode("ascii") or "="]
        case _:
            return [type(command).__name__.upper()]
