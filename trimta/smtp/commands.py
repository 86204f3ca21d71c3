"""Commands: a line of octets to a value and back (RFC 5321 4.1.1 and the extensions).

`parse_command` is the server's half, `render_command` the client's; each reads what the other writes.  Everything that
needs only the line and the offer is judged here; what depends on commands before it is the connection's.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from trimta.mail.address import AddressError, Mailbox, parse_forward_path, parse_reverse_path, path_faults
from trimta.mail.envelope import BodyKind, ByMode, Notify, OriginalRecipient, Ret
from trimta.mail.limits import MAX_DOMAIN, MAX_ENVID, MAX_ORCPT
from trimta.mail.reply import Reply
from trimta.smtp import xtext
from trimta.smtp.errors import CommandError
from trimta.smtp.extensions import MailProtocol, Offer, format_datetime, parse_datetime
from trimta.smtp.lines import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

MAX_CHUNK: Final = 2**63 - 1  # octets that BDAT may announce


@dataclass(frozen=True, slots=True)
class Helo:
    """HELO."""

    domain: str
    """What the client calls itself, whatever that is: printable, "?" for what is not, octets outside of UTF-8 too."""


@dataclass(frozen=True, slots=True)
class Ehlo:
    """EHLO, or LHLO if `lmtp`; `domain` as in Helo."""

    domain: str
    lmtp: bool = False


class By(NamedTuple):
    """BY of MAIL (RFC 2852): seconds from now (zero and less: late already), what then, whether to trace relays."""

    seconds: int
    mode: ByMode
    trace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MailParameters:
    """The ESMTP parameters of MAIL; None: not given."""

    size: int | None = None
    body: BodyKind | None = None
    smtputf8: bool = False
    """Said, or implied by an address that has other characters than ASCII."""
    ret: Ret | None = None
    envid: str | None = None
    """Decoded from xtext: 1 to 100 printable ASCII characters."""
    auth: str | None = None
    """Decoded from xtext: a mailbox, or "<>" (RFC 4954 5)."""
    by: By | None = None
    hold_for: int | None = None
    """Seconds (RFC 4865)."""
    hold_until: datetime | None = None
    """A moment, aware (RFC 4865)."""


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL; None is the null reverse-path."""

    reverse_path: Mailbox | None
    parameters: MailParameters = field(default_factory=MailParameters)
    tolerated: tuple[str, ...] = field(default=(), compare=False)
    """What is wrong with how the path was written, in words for the log."""


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT; a `notify` or `orcpt` of None: not given (RFC 3461 4.1, 4.2)."""

    forward_path: Mailbox
    notify: frozenset[Notify] | None = None
    orcpt: OriginalRecipient | None = None
    tolerated: tuple[str, ...] = field(default=(), compare=False)
    """As in Mail."""


@dataclass(frozen=True, slots=True)
class Data:
    """DATA."""


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT: `size` octets follow the line (RFC 3030)."""

    size: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Rset:
    """RSET."""


@dataclass(frozen=True, slots=True)
class Noop:
    """NOOP; its argument is ignored (RFC 5321 4.1.1.9)."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


@dataclass(frozen=True, slots=True)
class Vrfy:
    """VRFY; `smtputf8`: the reply may have UTF-8 (RFC 6531 3.7.4.2), whatever the argument has."""

    string: str
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Expn:
    """EXPN; `smtputf8` as for VRFY."""

    string: str
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Help:
    """HELP."""

    topic: str = ""


@dataclass(frozen=True, slots=True)
class Etrn:
    """ETRN (RFC 1985 5): a domain, or one behind "@" (subdomains too) or "#" (a queue)."""

    node: str


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS (RFC 3207)."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH (RFC 4954): the mechanism in upper case, the decoded initial response; None: there is none."""

    mechanism: str
    initial: bytes | None = None


Command: TypeAlias = (
    Helo | Ehlo | Mail | Rcpt | Data | Bdat | Rset | Noop | Quit | Vrfy | Expn | Help | Etrn | StartTls | Auth
)


# Parsing


def verb_of(line: bytes) -> str:
    """The first word of a command line, in upper case; empty if it is not made of ASCII letters."""
    word = line.split(b" ", 1)[0].rstrip(b"\t")
    return word.decode("ascii").upper() if word.isalpha() and word.isascii() else ""


def parse_command(line: bytes, offer: Offer) -> Command:
    """Read one command line, without its line end.  CommandError carries the reply to a bad one."""
    if b"\r" in line or b"\0" in line:
        raise _error(500, "5.5.2", "a bare CR or a NUL in a command line")
    verb = verb_of(line)
    known = _VERBS.get(verb)
    lmtp = offer.protocol is MailProtocol.LMTP
    if known is None or (verb in ("HELO", "EHLO") and lmtp) or (verb == "LHLO" and not lmtp):
        if not line.isascii():
            raise _error(500, "5.5.2", "octets beyond ASCII outside of an address")
        if verb in _NOT_IMPLEMENTED:
            raise _error(502, "5.5.1", f"{verb} is not implemented")
        raise _error(500, "5.5.1", "command not recognized")
    if known.keyword and known.keyword not in offer.keywords:
        if verb == "AUTH" and offer.auth_behind_tls and "AUTH" not in {keyword.upper() for keyword in offer.hide}:
            if offer.offers("STARTTLS"):
                raise _error(530, "5.7.0", "must issue a STARTTLS command first")
            raise _error(538, "5.7.11", "encryption required for AUTH")
        raise _error(502, "5.5.1", f"{verb} is not implemented")
    # Trailing white space is tolerated: RFC 5321 4.1.1.
    argument = line[len(verb) :].strip(b" \t").decode(errors="surrogateescape")
    if not known.beyond_ascii and not argument.isascii():
        raise _error(500, "5.5.2", "octets beyond ASCII outside of an address")
    return known.parse(argument, offer)


def is_bdat(line: bytes) -> bool:
    """Whether a line, or its beginning, is a BDAT, well formed or not: octets that are no commands follow it."""
    return _BDAT_VERB.match(line) is not None


def chunk_size(line: bytes) -> int | None:
    """How many octets of a chunk follow a BDAT line, well formed or not; None: nobody can say."""
    found = _BDAT_SIZE.match(line)
    if found is None:
        return None
    size = int(found[1])
    return size if size <= MAX_CHUNK else None


def help_text(offer: Offer, topic: str = "") -> Reply:
    """The reply to HELP: the commands on offer, or the syntax of one; 504 for a topic that is none."""
    lmtp = offer.protocol is MailProtocol.LMTP
    on_offer = {
        name: verb
        for name, verb in _VERBS.items()
        if (not verb.keyword or verb.keyword in offer.keywords)
        and not (name in ("HELO", "EHLO") and lmtp)
        and not (name == "LHLO" and not lmtp)
    }
    wanted = topic.strip().upper()
    if not wanted:
        return Reply.of(214, "2.0.0", "commands: " + " ".join(on_offer), "HELP and one of these shows its syntax")
    if wanted not in on_offer:
        return Reply.of(504, "5.5.4", "no help on that")
    return Reply.of(214, "2.0.0", on_offer[wanted].syntax)


def _error(code: int, status: str, *lines: str) -> CommandError:
    return CommandError(Reply.of(code, status, *lines))


def _bad(text: str) -> CommandError:
    """The argument of a command, or the value of a parameter, is wrong."""
    return _error(501, "5.5.4", text)


def _helo_domain(argument: str, verb: str) -> str:
    # Any name is taken: RFC 5321 4.1.4 forbids to refuse mail for what a client calls itself, and machines are called
    # what their owners like.
    if not argument:
        raise _bad(f"syntax: {_VERBS[verb].syntax}")
    if len(argument.encode(errors="surrogateescape")) > MAX_DOMAIN:
        raise _bad(f"a name of at most {MAX_DOMAIN} octets is due")
    return printable(argument)


def _helo(argument: str, _: Offer) -> Command:
    return Helo(_helo_domain(argument, "HELO"))


def _ehlo(argument: str, offer: Offer) -> Command:
    lmtp = offer.protocol is MailProtocol.LMTP
    return Ehlo(_helo_domain(argument, "LHLO" if lmtp else "EHLO"), lmtp)


def _mail(argument: str, offer: Offer) -> Command:
    if argument[:5].upper() != "FROM:":
        raise _bad(f"syntax: {_VERBS['MAIL'].syntax}")
    try:
        reverse_path, rest = parse_reverse_path(argument[5:])
    except AddressError as error:
        raise _error(501, "5.1.7", str(error)) from error
    beyond_ascii = _check_ascii(reverse_path, offer, code=550)
    given = _parameters(rest)
    _check_known(given, _MAIL_PARAMETERS, offer)
    values: dict[str, object] = {}
    for keyword, value in given.items():
        name, _, read = _MAIL_PARAMETERS[keyword]
        values[name] = read(value, offer)
    if beyond_ascii:
        values["smtputf8"] = True
    if "hold_for" in values and "hold_until" in values:
        raise _bad("HOLDFOR and HOLDUNTIL exclude each other")
    parameters = MailParameters(**values)  # type: ignore[arg-type]  # names and types: _MAIL_PARAMETERS
    return Mail(reverse_path, parameters, path_faults(argument[5:]))


def _rcpt(argument: str, offer: Offer) -> Command:
    if argument[:3].upper() != "TO:":
        raise _bad(f"syntax: {_VERBS['RCPT'].syntax}")
    try:
        forward_path, rest = parse_forward_path(argument[3:])
    except AddressError as error:
        raise _error(501, "5.1.3", str(error)) from error
    _check_ascii(forward_path, offer, code=553)
    given = _parameters(rest)
    _check_known(given, _RCPT_PARAMETERS, offer)
    notify = _notify(given["NOTIFY"]) if "NOTIFY" in given else None
    orcpt = _orcpt(given["ORCPT"], offer) if "ORCPT" in given else None
    return Rcpt(forward_path, notify, orcpt, path_faults(argument[3:]))


def _check_ascii(mailbox: Mailbox | None, offer: Offer, *, code: int) -> bool:
    """Whether an address has other characters than ASCII; where SMTPUTF8 is not on offer it is refused with the code
    that RFC 6531 3.5 has for the command.
    """
    if mailbox is None or (mailbox.local_part.isascii() and mailbox.domain.isascii()):
        return False
    if not offer.offers("SMTPUTF8"):
        raise _error(code, "5.6.7", "an address beyond ASCII, but SMTPUTF8 is not offered")
    return True


def _parameters(rest: str) -> dict[str, str]:
    """`" SIZE=1 SMTPUTF8"` to `{"SIZE": "1", "SMTPUTF8": ""}`."""
    given: dict[str, str] = {}
    for word in rest.split(" "):
        if not word:
            continue
        found = _PARAMETER.fullmatch(word)
        if found is None:
            if not word.isascii():
                raise _error(500, "5.5.2", "octets beyond ASCII outside of an address")
            raise _bad("a parameter is written KEYWORD or KEYWORD=value")
        keyword, value = found[1].upper(), found[2]
        if not word.isascii() and keyword != "ORCPT":
            raise _error(500, "5.5.2", "octets beyond ASCII outside of an address")
        if keyword in given:
            raise _bad(f"{keyword[:40]} is given twice")
        given[keyword] = value or ""
    return given


def _check_known(given: dict[str, str], table: dict[str, _Parameter], offer: Offer) -> None:
    for keyword in given:
        known = table.get(keyword)
        if known is None or not offer.extended or known.extension not in offer.keywords:
            raise _error(555, "5.5.4", f"{keyword[:40]} is not known")


def _size(value: str, offer: Offer) -> int:
    if not value or len(value) > 20 or not value.isdigit():
        raise _bad("SIZE is a number of octets, of at most 20 digits")
    size = int(value)
    if offer.size_limit and size > offer.size_limit:
        raise _error(552, "5.3.4", f"the message is larger than {offer.size_limit} octets")
    return size


def _body(value: str, offer: Offer) -> BodyKind:
    try:
        body = BodyKind(value.upper())
    except ValueError:
        raise _bad("BODY is 7BIT, 8BITMIME or BINARYMIME") from None
    if body is BodyKind.BINARY and not offer.offers("BINARYMIME"):
        raise _error(555, "5.5.4", "BODY=BINARYMIME is not known")
    return body


def _smtputf8(value: str, _: Offer) -> bool:
    if value:
        raise _bad("SMTPUTF8 has no value")
    return True


def _ret(value: str, _: Offer) -> Ret:
    try:
        return Ret(value.upper())
    except ValueError:
        raise _bad("RET is FULL or HDRS") from None


def _envid(value: str, _: Offer) -> str:
    text = _xtext("ENVID", value)
    if not 0 < len(text) <= MAX_ENVID or _PRINTABLE.fullmatch(text) is None:
        raise _bad(f"ENVID is 1 to {MAX_ENVID} printable ASCII characters, as xtext")
    return text


def _auth_parameter(value: str, _: Offer) -> str:
    text = _xtext("AUTH", value)
    if not text:
        raise _bad("AUTH is a mailbox as xtext, or <>")
    return text


def _by(value: str, _: Offer) -> By:
    found = _BY.fullmatch(value)
    if found is None:
        raise _bad("BY is a number of seconds, ';', N or R, and perhaps T")
    by = By(int(found[1]), ByMode(found[2].upper()), bool(found[3]))
    if by.mode is ByMode.RETURN and by.seconds <= 0:
        raise _bad("BY with mode R needs more than 0 seconds")
    return by


def _hold_for(value: str, offer: Offer) -> int:
    if _HOLD_FOR.fullmatch(value) is None:
        raise _bad("HOLDFOR is a number of seconds, of at most 9 digits, more than 0")
    seconds = int(value)
    if offer.future_release is not None and seconds > offer.future_release.max_interval:
        raise _bad(f"HOLDFOR is at most {offer.future_release.max_interval}")
    return seconds


def _hold_until(value: str, offer: Offer) -> datetime:
    try:
        moment = parse_datetime(value)
    except ValueError as error:
        raise _bad(f"HOLDUNTIL: {error}") from error
    if offer.future_release is not None and moment > offer.future_release.max_datetime:
        raise _bad(f"HOLDUNTIL is at most {format_datetime(offer.future_release.max_datetime)}")
    return moment


def _notify(value: str) -> frozenset[Notify]:
    words = value.upper().split(",")
    try:
        notify = frozenset(Notify(word) for word in words)
    except ValueError:
        raise _bad("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY with commas") from None
    if Notify.NEVER in notify and len(words) > 1:
        raise _bad("NOTIFY=NEVER stands alone")
    return notify


def _orcpt(value: str, offer: Offer) -> OriginalRecipient:
    addr_type, semicolon, address = value.partition(";")
    if not semicolon or not address or _ATOM.fullmatch(addr_type) is None:
        raise _bad("ORCPT is an address type, ';' and an address as xtext")
    if len(value.encode()) > MAX_ORCPT:
        raise _bad(f"ORCPT has at most {MAX_ORCPT} characters")
    if addr_type.lower() != "utf-8":
        text = _xtext("ORCPT", address)
    elif not address.isascii() and not offer.offers("SMTPUTF8"):
        raise _error(500, "5.5.2", "octets beyond ASCII outside of an address")
    else:
        text = xtext.decode_utf8_address(address)
    if not text.isprintable():  # RFC 3461 4.2; a line end would forge a field of a DSN
        raise _bad("ORCPT: control characters are no part of an address")
    return OriginalRecipient(addr_type, text, address)


def _xtext(keyword: str, value: str) -> str:
    if not value.isascii():
        raise _error(500, "5.5.2", "octets beyond ASCII outside of an address")
    try:
        return xtext.decode(value)
    except ValueError as error:
        raise _bad(f"{keyword}: not xtext") from error


def _bdat(argument: str, _: Offer) -> Command:
    found = _BDAT.fullmatch(argument)
    if found is None or int(found[1]) > MAX_CHUNK:
        raise _bad(f"syntax: {_VERBS['BDAT'].syntax}")
    return Bdat(int(found[1]), bool(found[2]))


def _vrfy(argument: str, offer: Offer) -> Command:
    return Vrfy(*_string_and_smtputf8("VRFY", argument, offer))


def _expn(argument: str, offer: Offer) -> Command:
    return Expn(*_string_and_smtputf8("EXPN", argument, offer))


def _string_and_smtputf8(verb: str, argument: str, offer: Offer) -> tuple[str, bool]:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise _error(500, "5.5.2", "octets that are not UTF-8") from None
    string, _, last = argument.rpartition(" ")
    smtputf8 = False
    if string and last.upper() == "SMTPUTF8" and offer.extended and offer.offers("SMTPUTF8"):
        argument, smtputf8 = string.rstrip(" "), True
    if not argument:
        raise _bad(f"syntax: {_VERBS[verb].syntax}")
    if not argument.isascii() and not offer.offers("SMTPUTF8"):
        raise _error(553, "5.6.7", "an address beyond ASCII, but SMTPUTF8 is not offered")
    return argument, smtputf8


def _help(argument: str, _: Offer) -> Command:
    return Help(argument)


def _etrn(argument: str, _: Offer) -> Command:
    if _WORD.fullmatch(argument) is None or len(argument) > MAX_DOMAIN + 1 or argument in ("@", "#"):
        raise _bad(f"syntax: {_VERBS['ETRN'].syntax}")
    return Etrn(argument)


def _auth(argument: str, offer: Offer) -> Command:
    words = argument.split()
    if not 1 <= len(words) <= 2:
        raise _bad(f"syntax: {_VERBS['AUTH'].syntax}")
    mechanism = words[0].upper()
    if mechanism not in offer.auth:
        raise _error(504, "5.5.4", "mechanism not known")
    if len(words) == 1:
        return Auth(mechanism)
    return Auth(mechanism, b"" if words[1] == "=" else decode_base64(words[1].encode()))


def decode_base64(octets: bytes) -> bytes:
    """A response of SASL on its line (RFC 4954 4); CommandError with 501 5.5.2 if it is not Base64."""
    try:
        return base64.b64decode(octets, validate=True)
    except binascii.Error as error:
        raise _error(501, "5.5.2", "not Base64") from error


def _without_argument(name: str, command: Command) -> Callable[[str, Offer], Command]:
    def parse(argument: str, _: Offer) -> Command:
        if argument:
            raise _bad(f"{name} has no argument")
        return command

    return parse


def _noop(_argument: str, _: Offer) -> Command:
    return Noop()


class _Verb(NamedTuple):
    parse: Callable[[str, Offer], Command]
    syntax: str
    keyword: str = ""
    """The extension that brings the command; empty: it is always there."""
    beyond_ascii: bool = False
    """The argument may have other characters than ASCII, and its parser sees to them."""


_VERBS: Final[dict[str, _Verb]] = {
    "HELO": _Verb(_helo, "HELO domain", beyond_ascii=True),
    "EHLO": _Verb(_ehlo, "EHLO domain", beyond_ascii=True),
    "LHLO": _Verb(_ehlo, "LHLO domain", beyond_ascii=True),
    "MAIL": _Verb(_mail, "MAIL FROM:<address> [parameters]", beyond_ascii=True),
    "RCPT": _Verb(_rcpt, "RCPT TO:<address> [parameters]", beyond_ascii=True),
    "DATA": _Verb(_without_argument("DATA", Data()), "DATA"),
    "BDAT": _Verb(_bdat, "BDAT size [LAST]", "CHUNKING"),
    "RSET": _Verb(_without_argument("RSET", Rset()), "RSET"),
    "NOOP": _Verb(_noop, "NOOP [anything]"),
    "QUIT": _Verb(_without_argument("QUIT", Quit()), "QUIT"),
    "VRFY": _Verb(_vrfy, "VRFY address", "VRFY", beyond_ascii=True),
    "EXPN": _Verb(_expn, "EXPN address", "EXPN", beyond_ascii=True),
    "HELP": _Verb(_help, "HELP [command]", "HELP"),
    "ETRN": _Verb(_etrn, "ETRN domain", "ETRN"),
    "STARTTLS": _Verb(_without_argument("STARTTLS", StartTls()), "STARTTLS", "STARTTLS"),
    "AUTH": _Verb(_auth, "AUTH mechanism [initial-response]", "AUTH"),
}

KNOWN_VERBS: Final = frozenset(_VERBS)

_NOT_IMPLEMENTED: Final = frozenset({"SEND", "SOML", "SAML", "TURN"})  # RFC 5321 F.1, F.6


class _Parameter(NamedTuple):
    field: str
    extension: str
    read: Callable[[str, Offer], object]


_MAIL_PARAMETERS: Final[dict[str, _Parameter]] = {
    "SIZE": _Parameter("size", "SIZE", _size),
    "BODY": _Parameter("body", "8BITMIME", _body),
    "SMTPUTF8": _Parameter("smtputf8", "SMTPUTF8", _smtputf8),
    "RET": _Parameter("ret", "DSN", _ret),
    "ENVID": _Parameter("envid", "DSN", _envid),
    "AUTH": _Parameter("auth", "AUTH", _auth_parameter),
    "BY": _Parameter("by", "DELIVERBY", _by),
    "HOLDFOR": _Parameter("hold_for", "FUTURERELEASE", _hold_for),
    "HOLDUNTIL": _Parameter("hold_until", "FUTURERELEASE", _hold_until),
}

_RCPT_PARAMETERS: Final[dict[str, _Parameter]] = {
    "NOTIFY": _Parameter("notify", "DSN", lambda value, _: _notify(value)),
    "ORCPT": _Parameter("orcpt", "DSN", _orcpt),
}

_WORD: Final = re.compile(r"[!-~]+", re.ASCII)
_PRINTABLE: Final = re.compile(r"[ -~]+", re.ASCII)
_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+", re.ASCII)
_PARAMETER: Final = re.compile("([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\ud7ff\ue000-\U0010ffff]+))?")
_BY: Final = re.compile(r"([+-]?[0-9]{1,9});([NRnr])([Tt]?)", re.ASCII)
_HOLD_FOR: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_BDAT: Final = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.ASCII | re.IGNORECASE)
_BDAT_VERB: Final = re.compile(rb"[Bb][Dd][Aa][Tt](?:[^!-~]|\Z)")
_BDAT_SIZE: Final = re.compile(rb"[Bb][Dd][Aa][Tt][ \t]+([0-9]{1,20})(?:[ \t]|\Z)")


# Rendering


def render_command(command: Command, *, smtputf8: bool = False) -> bytes:
    """The line on the wire, CRLF included.

    `smtputf8`: the transaction goes with SMTPUTF8 (MAIL says so itself).  Without it domains are written as A-labels
    and a local part beyond ASCII raises ValueError; so does a text that would break the line.
    """
    line = " ".join(_words(command, smtputf8=smtputf8))
    if any(character in line for character in "\r\n\0"):
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
            return ["MAIL", f"FROM:<{path}>", *_mail_words(parameters)]
        case Rcpt(forward_path, notify, orcpt):
            words = ["RCPT", f"TO:<{forward_path.wire(smtputf8=smtputf8)}>"]
            if notify is not None:
                words.append("NOTIFY=" + ",".join(case for case in Notify if case in notify))
            if orcpt is not None:
                words.append(f"ORCPT={orcpt.addr_type};{_orcpt_value(orcpt, smtputf8=smtputf8)}")
            return words
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


def _orcpt_value(orcpt: OriginalRecipient, *, smtputf8: bool) -> str:
    """As it came wherever the host can take that (RFC 3461 5.2.1); else, of the type utf-8, as RFC 6533 3 has it."""
    of_utf8 = orcpt.addr_type.lower() == "utf-8"
    if of_utf8 and smtputf8 and not orcpt.address.isascii():
        return xtext.unitext(orcpt.address) if orcpt.received.isascii() else orcpt.received
    if orcpt.received and orcpt.received.isascii():
        return orcpt.received
    return xtext.encode_utf8_address(orcpt.address) if of_utf8 else xtext.encode(orcpt.address)


def _mail_words(parameters: MailParameters) -> list[str]:
    words = []
    if parameters.size is not None:
        words.append(f"SIZE={parameters.size}")
    if parameters.body is not None:
        words.append(f"BODY={parameters.body}")
    if parameters.smtputf8:
        words.append("SMTPUTF8")
    if parameters.ret is not None:
        words.append(f"RET={parameters.ret}")
    if parameters.envid is not None:
        words.append(f"ENVID={xtext.encode(parameters.envid)}")
    if parameters.auth is not None:
        words.append(f"AUTH={xtext.encode(parameters.auth)}")
    if parameters.by is not None:
        by = parameters.by
        words.append(f"BY={by.seconds};{by.mode}{'T' if by.trace else ''}")
    if parameters.hold_for is not None:
        words.append(f"HOLDFOR={parameters.hold_for}")
    if parameters.hold_until is not None:
        words.append(f"HOLDUNTIL={format_datetime(parameters.hold_until)}")
    return words
