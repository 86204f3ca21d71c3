"""The ESMTP parameters of MAIL and RCPT (RFC 5321 4.1.1.11): one table for reading and for writing each.

A server takes the parameters of `MAIL_PARAMETERS` and `RCPT_PARAMETERS` whose extensions are on offer, and a client
writes its parameters in their order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trimta.first_use.pattern import pattern
from trimta.mail.envelope import BodyKind, ByMode, Notify, OriginalRecipient, Ret
from trimta.mail.limits import MAX_ENVID, MAX_ORCPT
from trimta.smtp import xtext
from trimta.smtp.commands import By, MailParameters
from trimta.smtp.errors import CommandRefusedError
from trimta.smtp.extensions import format_datetime, parse_datetime

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from trimta.smtp.commands import Rcpt
    from trimta.smtp.extensions import Offer


# For the commands


def read_mail_parameters(text: str, offer: Offer, *, smtputf8: bool) -> MailParameters:
    """The parameters behind the path of MAIL.  `smtputf8`: whether the path implies SMTPUTF8.

    Raises CommandRefusedError for a wrong parameter.
    """
    if not text and not smtputf8:
        return _NO_PARAMETERS
    values = _read(text, MAIL_PARAMETERS, offer)
    if smtputf8:
        values["smtputf8"] = True
    if "hold_for" in values and "hold_until" in values:
        raise _bad("HOLDFOR and HOLDUNTIL exclude each other")
    return MailParameters(**values) if values else _NO_PARAMETERS


def read_rcpt_parameters(text: str, offer: Offer) -> dict[str, Any]:
    """The parameters behind the path of RCPT, as arguments for Rcpt.  Raises CommandRefusedError for a wrong one."""
    return _read(text, RCPT_PARAMETERS, offer)


def mail_words(parameters: MailParameters) -> list[str]:
    """The words of a MAIL command's parameters: `["SIZE=1000", "SMTPUTF8"]`."""
    return _write(parameters, MAIL_PARAMETERS, smtputf8=parameters.smtputf8)


def rcpt_words(rcpt: Rcpt, *, smtputf8: bool) -> list[str]:
    """The words of a RCPT command's parameters.  `smtputf8`: whether the transaction uses SMTPUTF8."""
    return _write(rcpt, RCPT_PARAMETERS, smtputf8=smtputf8)


def _read(text: str, table: dict[str, Parameter], offer: Offer) -> dict[str, Any]:
    given = _split(text)
    if not given:
        return {}
    for keyword in given:
        parameter = table.get(keyword)
        if parameter is None or not offer.extended or parameter.extension not in offer.keywords:
            raise CommandRefusedError.of(555, "5.5.4", f"{keyword[:40]} is not known")
    # In the order of the table, so that of two mistakes the same is reported, in whatever order the client has them.
    return {entry.field: entry.read(given[keyword], offer) for keyword, entry in table.items() if keyword in given}


def _split(text: str) -> dict[str, str]:
    """The values of parameters by their keywords: `" SIZE=1 SMTPUTF8"` gives `{"SIZE": "1", "SMTPUTF8": ""}`."""
    given: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        matched = _PARAMETER.fullmatch(word)
        if matched is None:
            if not word.isascii():
                raise _beyond_ascii()
            raise _bad("a parameter is written KEYWORD or KEYWORD=value")
        keyword, value = matched[1].upper(), matched[2]
        if not word.isascii() and keyword != "ORCPT":
            raise _beyond_ascii()
        if keyword in given:
            raise _bad(f"{keyword[:40]} is given twice")
        given[keyword] = value or ""
    return given


def _write(values: MailParameters | Rcpt, table: dict[str, Parameter], *, smtputf8: bool) -> list[str]:
    words = []
    for keyword, parameter in table.items():
        value = getattr(values, parameter.field)
        if value is not None and value is not False:
            text = parameter.write(value, smtputf8)
            words.append(f"{keyword}={text}" if text else keyword)
    return words


# Values


def _read_size(value: str, offer: Offer) -> int:
    if not value or len(value) > 20 or not value.isdigit():
        raise _bad("SIZE is a number of octets, of at most 20 digits")
    size = int(value)
    if offer.size_limit and size > offer.size_limit:
        raise CommandRefusedError.of(552, "5.3.4", f"the message is larger than {offer.size_limit} octets")
    return size


def _read_body(value: str, offer: Offer) -> BodyKind:
    try:
        body = BodyKind(value.upper())
    except ValueError:
        raise _bad("BODY is 7BIT, 8BITMIME or BINARYMIME") from None
    if body is BodyKind.BINARY and not offer.offers("BINARYMIME"):
        raise CommandRefusedError.of(555, "5.5.4", "BODY=BINARYMIME is not known")
    return body


def _read_smtputf8(value: str, _: Offer) -> bool:
    if value:
        raise _bad("SMTPUTF8 has no value")
    return True


def _read_ret(value: str, _: Offer) -> Ret:
    try:
        return Ret(value.upper())
    except ValueError:
        raise _bad("RET is FULL or HDRS") from None


def _read_envid(value: str, _: Offer) -> str:
    text = _decoded("ENVID", value)
    if not 0 < len(text) <= MAX_ENVID or _PRINTABLE.fullmatch(text) is None:
        raise _bad(f"ENVID is 1 to {MAX_ENVID} printable ASCII characters, as xtext")
    return text


def _read_auth(value: str, _: Offer) -> str:
    text = _decoded("AUTH", value)
    if not text:
        raise _bad("AUTH is a mailbox as xtext, or <>")
    return text


def _read_by(value: str, _: Offer) -> By:
    matched = _BY.fullmatch(value)
    if matched is None:
        raise _bad("BY is a number of seconds, ';', N or R, and perhaps T")
    by = By(int(matched[1]), ByMode(matched[2].upper()), bool(matched[3]))
    if by.mode is ByMode.RETURN and by.seconds <= 0:
        raise _bad("BY with mode R needs more than 0 seconds")
    return by


def _write_by(by: By, _: bool) -> str:
    return f"{by.seconds};{by.mode}{'T' if by.trace else ''}"


def _read_hold_for(value: str, offer: Offer) -> int:
    if _HOLD_FOR.fullmatch(value) is None:
        raise _bad("HOLDFOR is a number of seconds, of at most 9 digits, more than 0")
    seconds = int(value)
    if offer.future_release is not None and seconds > offer.future_release.max_interval:
        raise _bad(f"HOLDFOR is at most {offer.future_release.max_interval}")
    return seconds


def _read_hold_until(value: str, offer: Offer) -> datetime:
    try:
        moment = parse_datetime(value)
    except ValueError as error:
        raise _bad(f"HOLDUNTIL: {error}") from error
    if offer.future_release is not None and moment > offer.future_release.max_datetime:
        raise _bad(f"HOLDUNTIL is at most {format_datetime(offer.future_release.max_datetime)}")
    return moment


def _read_notify(value: str, _: Offer) -> frozenset[Notify]:
    words = value.upper().split(",")
    try:
        notify = frozenset(Notify(word) for word in words)
    except ValueError:
        raise _bad("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY with commas") from None
    if Notify.NEVER in notify and len(words) > 1:
        raise _bad("NOTIFY=NEVER stands alone")
    return notify


def _write_notify(notify: frozenset[Notify], _: bool) -> str:
    return ",".join(keyword for keyword in Notify if keyword in notify)


def _read_orcpt(value: str, offer: Offer) -> OriginalRecipient:
    addr_type, semicolon, address = value.partition(";")
    if not semicolon or not address or _ATOM.fullmatch(addr_type) is None:
        raise _bad("ORCPT is an address type, ';' and an address as xtext")
    if len(value.encode()) > MAX_ORCPT:
        raise _bad(f"ORCPT has at most {MAX_ORCPT} characters")
    if addr_type.lower() != "utf-8":
        text = _decoded("ORCPT", address)
    elif not address.isascii() and not offer.offers("SMTPUTF8"):
        raise _beyond_ascii()
    else:
        text = xtext.decode_utf8_address(address)
    if not text.isprintable():  # RFC 3461 4.2; a line end would forge a field of a DSN
        raise _bad("ORCPT: control characters are no part of an address")
    return OriginalRecipient(addr_type, text, address)


def _write_orcpt(orcpt: OriginalRecipient, smtputf8: bool) -> str:
    """The value of ORCPT: as received if the host can take that (RFC 3461 5.2.1), else of type utf-8 (RFC 6533 3)."""
    of_utf8 = orcpt.addr_type.lower() == "utf-8"
    if of_utf8 and smtputf8 and not orcpt.address.isascii():
        address = xtext.unitext(orcpt.address) if orcpt.received.isascii() else orcpt.received
    elif orcpt.received and orcpt.received.isascii():
        address = orcpt.received
    else:
        address = xtext.encode_utf8_address(orcpt.address) if of_utf8 else xtext.encode(orcpt.address)
    return f"{orcpt.addr_type};{address}"


def _decoded(keyword: str, value: str) -> str:
    if not value.isascii():
        raise _beyond_ascii()
    try:
        return xtext.decode(value)
    except ValueError as error:
        raise _bad(f"{keyword}: not xtext") from error


def _bad(text: str) -> CommandRefusedError:
    return CommandRefusedError.of(501, "5.5.4", text)


def _beyond_ascii() -> CommandRefusedError:
    return CommandRefusedError.of(500, "5.5.2", "octets beyond ASCII outside of an address")


# The tables


class Parameter(NamedTuple):
    """A parameter of MAIL or RCPT."""

    field: str
    """The name of the field of MailParameters, or of Rcpt, that holds the value."""
    extension: str
    """The EHLO keyword of the extension to which the parameter belongs."""
    read: Callable[[str, Offer], object]
    """Reads the text behind the "=", empty without one, as the value.  Raises CommandRefusedError."""
    write: Callable[[Any, bool], str]
    """Writes the value as the text behind the "="; empty for no "=".  Also takes whether SMTPUTF8 is used."""


def _plain(value: object, _: bool) -> str:
    return str(value)


def _xtext(value: str, _: bool) -> str:
    return xtext.encode(value)


MAIL_PARAMETERS: Final[dict[str, Parameter]] = {
    "SIZE": Parameter("size", "SIZE", _read_size, _plain),
    "BODY": Parameter("body", "8BITMIME", _read_body, _plain),
    "SMTPUTF8": Parameter("smtputf8", "SMTPUTF8", _read_smtputf8, lambda _, __: ""),
    "RET": Parameter("ret", "DSN", _read_ret, _plain),
    "ENVID": Parameter("envid", "DSN", _read_envid, _xtext),
    "AUTH": Parameter("auth", "AUTH", _read_auth, _xtext),
    "BY": Parameter("by", "DELIVERBY", _read_by, _write_by),
    "HOLDFOR": Parameter("hold_for", "FUTURERELEASE", _read_hold_for, _plain),
    "HOLDUNTIL": Parameter("hold_until", "FUTURERELEASE", _read_hold_until, lambda moment, _: format_datetime(moment)),
}

RCPT_PARAMETERS: Final[dict[str, Parameter]] = {
    "NOTIFY": Parameter("notify", "DSN", _read_notify, _write_notify),
    "ORCPT": Parameter("orcpt", "DSN", _read_orcpt, _write_orcpt),
}

_NO_PARAMETERS: Final = MailParameters()

_PRINTABLE: Final = pattern(r"[ -~]+", re.ASCII)
_ATOM: Final = pattern(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+", re.ASCII)
_PARAMETER: Final = pattern("([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\ud7ff\ue000-\U0010ffff]+))?")
_BY: Final = pattern(r"([+-]?[0-9]{1,9});([NRnr])([Tt]?)", re.ASCII)
_HOLD_FOR: Final = pattern(r"[1-9][0-9]{0,8}", re.ASCII)
