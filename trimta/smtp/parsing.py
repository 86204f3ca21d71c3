"""Parsing: from the command lines of a client to commands as values (RFC 5321 4.1.1 and the extensions).

A line is checked by itself and against the offer.  The order of commands is checked by the connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError, Mailbox, parse_forward_path, parse_reverse_path, path_faults
from trimta.mail.limits import MAX_DOMAIN
from trimta.smtp.commands import (
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Etrn,
    Expn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from trimta.smtp.errors import CommandRefusedError
from trimta.smtp.extensions import MailProtocol, Offer
from trimta.smtp.lines import printable
from trimta.smtp.parameters import read_mail_parameters, read_rcpt_parameters
from trimta.smtp.sasl import decode_response

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHUNK: Final = 2**63 - 1
"""Octets that BDAT may announce, at most."""


class CommandLine:
    """A command line, read once for all that look at it."""

    __slots__ = ("is_printable", "octets", "text", "verb")

    def __init__(self, octets: bytes) -> None:
        """`octets` are those of the line, without its line end."""
        self.octets = octets
        self.text = text = octets.decode("utf-8", "surrogateescape")
        """The line as UTF-8, decoded with surrogateescape."""
        word = text.partition(" ")[0]
        self.verb = _SPELLINGS.get(word) or verb_of(word)
        """The first word, in upper case; "" if it is not of ASCII letters only."""
        self.is_printable = text.isprintable()
        """Whether all characters are printable: then there is no CR, no NUL, and nothing that is not UTF-8."""


def verb_of(word: str) -> str:
    """The first word of a command line, in upper case; "" if it is not of ASCII letters only."""
    word = word.rstrip("\t")
    return word.upper() if word.isalpha() and word.isascii() else ""


def parse_command(line: CommandLine, offer: Offer) -> Command:
    """The command on a line.  Raises CommandRefusedError, with the reply, for a line that is no command on offer."""
    text, name = line.text, line.verb
    if not line.is_printable and ("\r" in text or "\0" in text):
        raise CommandRefusedError.of(500, "5.5.2", "a bare CR or a NUL in a command line")
    verb = VERBS.get(name)
    if verb is None or (verb.lmtp is not None and not verb.belongs_to(offer.protocol)):
        raise _not_recognized(line)
    if verb.keyword and not verb.is_on(offer):
        raise _not_on_offer(name, offer)
    argument = text[len(name) :].strip(" \t")  # trailing white space is tolerated: RFC 5321 4.1.1
    if not verb.beyond_ascii and not argument.isascii():
        raise _beyond_ascii()
    return verb.parse(argument, offer)


def is_bdat(line: bytes) -> bool:
    """Whether a line, or the beginning of a line, is a BDAT, well formed or not: octets of a chunk follow it."""
    return _BDAT_VERB.match(line) is not None


def chunk_size(line: bytes) -> int | None:
    """The number of octets of the chunk behind a BDAT line, well formed or not; None if the line does not tell it."""
    matched = _BDAT_SIZE.match(line)
    if matched is None:
        return None
    size = int(matched[1])
    return size if size <= MAX_CHUNK else None


# Refusals


def _not_recognized(line: CommandLine) -> CommandRefusedError:
    if not line.octets.isascii():
        return _beyond_ascii()
    if line.verb in _NOT_IMPLEMENTED:
        return CommandRefusedError.of(502, "5.5.1", f"{line.verb} is not implemented")
    return CommandRefusedError.of(500, "5.5.1", "command not recognized")


def _not_on_offer(name: str, offer: Offer) -> CommandRefusedError:
    if name == "AUTH" and offer.auth_behind_tls and "AUTH" not in {keyword.upper() for keyword in offer.hide}:
        if offer.offers("STARTTLS"):
            return CommandRefusedError.of(530, "5.7.0", "must issue a STARTTLS command first")
        return CommandRefusedError.of(538, "5.7.11", "encryption required for AUTH")
    return CommandRefusedError.of(502, "5.5.1", f"{name} is not implemented")


def _beyond_ascii() -> CommandRefusedError:
    return CommandRefusedError.of(500, "5.5.2", "octets beyond ASCII outside of an address")


def _bad_argument(text: str) -> CommandRefusedError:
    return CommandRefusedError.of(501, "5.5.4", text)


def _syntax(name: str) -> CommandRefusedError:
    return _bad_argument(f"syntax: {VERBS[name].syntax}")


# Arguments


def _domain(argument: str, name: str) -> str:
    # Any name is accepted: RFC 5321 4.1.4 forbids to refuse mail because of it, and machines have names of any form.
    if not argument:
        raise _syntax(name)
    if len(argument.encode(errors="surrogateescape")) > MAX_DOMAIN:
        raise _bad_argument(f"a name of at most {MAX_DOMAIN} octets is due")
    return printable(argument)


def _helo(argument: str, _: Offer) -> Command:
    return Helo(_domain(argument, "HELO"))


def _ehlo(argument: str, _: Offer) -> Command:
    return Ehlo(_domain(argument, "EHLO"))


def _lhlo(argument: str, _: Offer) -> Command:
    return Ehlo(_domain(argument, "LHLO"), lmtp=True)


def _mail(argument: str, offer: Offer) -> Command:
    if argument[:5].upper() != "FROM:":
        raise _syntax("MAIL")
    path = argument[5:]
    try:
        reverse_path, rest = parse_reverse_path(path)
    except AddressError as error:
        raise CommandRefusedError.of(501, "5.1.7", str(error)) from error
    smtputf8 = not path.isascii() and _check_ascii(reverse_path, offer, code=550)
    parameters = read_mail_parameters(rest, offer, smtputf8=smtputf8)
    return Mail(reverse_path, parameters, () if path.startswith("<") else path_faults(path))


def _rcpt(argument: str, offer: Offer) -> Command:
    if argument[:3].upper() != "TO:":
        raise _syntax("RCPT")
    path = argument[3:]
    try:
        forward_path, rest = parse_forward_path(path)
    except AddressError as error:
        raise CommandRefusedError.of(501, "5.1.3", str(error)) from error
    if not path.isascii():
        _check_ascii(forward_path, offer, code=553)
    parameters = read_rcpt_parameters(rest, offer) if rest else {}
    return Rcpt(forward_path, tolerated=() if path.startswith("<") else path_faults(path), **parameters)


def _check_ascii(mailbox: Mailbox | None, offer: Offer, *, code: int) -> bool:
    """Whether an address has characters outside ASCII.

    Raises CommandRefusedError if it has and SMTPUTF8 is not on offer, with the code of RFC 6531 3.5 for the command.
    """
    if mailbox is None or (mailbox.local_part.isascii() and mailbox.domain.isascii()):
        return False
    if not offer.offers("SMTPUTF8"):
        raise CommandRefusedError.of(code, "5.6.7", "an address beyond ASCII, but SMTPUTF8 is not offered")
    return True


def _bdat(argument: str, _: Offer) -> Command:
    matched = _BDAT.fullmatch(argument)
    if matched is None or int(matched[1]) > MAX_CHUNK:
        raise _syntax("BDAT")
    return Bdat(int(matched[1]), bool(matched[2]))


def _vrfy(argument: str, offer: Offer) -> Command:
    return Vrfy(*_string_and_smtputf8("VRFY", argument, offer))


def _expn(argument: str, offer: Offer) -> Command:
    return Expn(*_string_and_smtputf8("EXPN", argument, offer))


def _string_and_smtputf8(name: str, argument: str, offer: Offer) -> tuple[str, bool]:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise CommandRefusedError.of(500, "5.5.2", "octets that are not UTF-8") from None
    string, _, last = argument.rpartition(" ")
    smtputf8 = False
    if string and last.upper() == "SMTPUTF8" and offer.extended and offer.offers("SMTPUTF8"):
        argument, smtputf8 = string.rstrip(" "), True
    if not argument:
        raise _syntax(name)
    if not argument.isascii() and not offer.offers("SMTPUTF8"):
        raise CommandRefusedError.of(553, "5.6.7", "an address beyond ASCII, but SMTPUTF8 is not offered")
    return argument, smtputf8


def _help(argument: str, _: Offer) -> Command:
    return Help(argument)


def _etrn(argument: str, _: Offer) -> Command:
    if _WORD.fullmatch(argument) is None or len(argument) > MAX_DOMAIN + 1 or argument in ("@", "#"):
        raise _syntax("ETRN")
    return Etrn(argument)


def _auth(argument: str, offer: Offer) -> Command:
    words = argument.split()
    if not 1 <= len(words) <= 2:
        raise _syntax("AUTH")
    mechanism = words[0].upper()
    if mechanism not in offer.auth:
        raise CommandRefusedError.of(504, "5.5.4", "mechanism not known")
    if len(words) == 1:
        return Auth(mechanism)
    return Auth(mechanism, b"" if words[1] == "=" else decode_response(words[1].encode()))


def _noop(_argument: str, _: Offer) -> Command:
    return Noop()


def _without_argument(name: str, command: Command) -> Callable[[str, Offer], Command]:
    def parse(argument: str, _: Offer) -> Command:
        if argument:
            raise _bad_argument(f"{name} has no argument")
        return command

    return parse


# The verbs


class Verb(NamedTuple):
    """A verb, the first word of a command line, with the parser of its argument."""

    parse: Callable[[str, Offer], Command]
    """Reads the argument, without white space at its ends, as a command.  Raises CommandRefusedError."""
    syntax: str
    """The syntax of the command, for the reply to HELP and for refusals."""
    keyword: str = ""
    """The EHLO keyword of the extension to which the verb belongs; empty for a verb of RFC 5321."""
    beyond_ascii: bool = False
    """Whether the argument may have characters outside ASCII, which `parse` then checks."""
    lmtp: bool | None = None
    """True for a verb of LMTP only, False for a verb of SMTP and submission only, None for a verb of all three."""

    def belongs_to(self, protocol: MailProtocol) -> bool:
        """Whether a protocol has the verb."""
        return self.lmtp is None or self.lmtp is (protocol is MailProtocol.LMTP)

    def is_on(self, offer: Offer) -> bool:
        """Whether the extension to which the verb belongs is on offer."""
        return not self.keyword or self.keyword in offer.keywords


VERBS: Final[dict[str, Verb]] = {
    "HELO": Verb(_helo, "HELO domain", beyond_ascii=True, lmtp=False),
    "EHLO": Verb(_ehlo, "EHLO domain", beyond_ascii=True, lmtp=False),
    "LHLO": Verb(_lhlo, "LHLO domain", beyond_ascii=True, lmtp=True),
    "MAIL": Verb(_mail, "MAIL FROM:<address> [parameters]", beyond_ascii=True),
    "RCPT": Verb(_rcpt, "RCPT TO:<address> [parameters]", beyond_ascii=True),
    "DATA": Verb(_without_argument("DATA", Data()), "DATA"),
    "BDAT": Verb(_bdat, "BDAT size [LAST]", "CHUNKING"),
    "RSET": Verb(_without_argument("RSET", Rset()), "RSET"),
    "NOOP": Verb(_noop, "NOOP [anything]"),
    "QUIT": Verb(_without_argument("QUIT", Quit()), "QUIT"),
    "VRFY": Verb(_vrfy, "VRFY address", "VRFY", beyond_ascii=True),
    "EXPN": Verb(_expn, "EXPN address", "EXPN", beyond_ascii=True),
    "HELP": Verb(_help, "HELP [command]", "HELP"),
    "ETRN": Verb(_etrn, "ETRN domain", "ETRN"),
    "STARTTLS": Verb(_without_argument("STARTTLS", StartTls()), "STARTTLS", "STARTTLS"),
    "AUTH": Verb(_auth, "AUTH mechanism [initial-response]", "AUTH"),
}

KNOWN_VERBS: Final = frozenset(VERBS)

_SPELLINGS: Final = {spelling: verb for verb in VERBS for spelling in (verb, verb.lower(), verb.capitalize())}
"""The verbs by their usual spellings, where a look-up spares `verb_of`."""

_NOT_IMPLEMENTED: Final = frozenset({"SEND", "SOML", "SAML", "TURN"})  # RFC 5321 F.1, F.6

_WORD: Final = pattern(r"[!-~]+", re.ASCII)
_BDAT: Final = pattern(r"([0-9]{1,20})(?: +(LAST))?", re.ASCII | re.IGNORECASE)
_BDAT_VERB: Final = pattern(rb"[Bb][Dd][Aa][Tt](?:[^!-~]|\Z)")
_BDAT_SIZE: Final = pattern(rb"[Bb][Dd][Aa][Tt][ \t]+([0-9]{1,20})(?:[ \t]|\Z)")
