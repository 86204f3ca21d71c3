"""Enhanced mail system status codes (RFC 3463): class, subject and detail, and a name for each that trimta uses.

A `Condition` is what happened, subject and detail; in a class it is an `EnhancedStatus`:
`NO_SUCH_MAILBOX.permanent` is 5.1.1, `TIME_EXPIRED.transient` is 4.4.7.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Self

from trimta.first_use.pattern import pattern

_SYNTAX: Final = pattern(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class EnhancedStatus:
    """class.subject.detail: `EnhancedStatus(5, 1, 1)` is written 5.1.1.

    ValueError for a class other than 2, 4 and 5, and for a subject or a detail that is not 0 to 999.
    """

    klass: int
    """2 success, 4 persistent transient failure, 5 permanent failure."""
    subject: int
    detail: int

    def __post_init__(self) -> None:
        if self.klass not in (2, 4, 5) or not (0 <= self.subject <= 999 and 0 <= self.detail <= 999):
            raise ValueError(f"not an enhanced status code: {self}")

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"

    @classmethod
    @lru_cache(maxsize=1024)  # every reply has one, and there are few
    def parse(cls, text: str) -> Self:
        """Read "5.1.1"; ValueError for anything else."""
        match = _SYNTAX.fullmatch(text)
        if match is None:
            raise ValueError(f"not an enhanced status code: {text!r}")
        return cls(*(int(number) for number in match.groups()))

    @property
    def condition(self) -> Condition:
        """Subject and detail."""
        return Condition(self.subject, self.detail)


class Condition(NamedTuple):
    """Subject and detail of a status: what happened, whether it lasts or not (RFC 3463 3)."""

    subject: int
    detail: int

    def in_class(self, klass: int) -> EnhancedStatus:
        """The status of this condition in class 2, 4 or 5; ValueError for another class."""
        return EnhancedStatus(klass, self.subject, self.detail)

    @property
    def success(self) -> EnhancedStatus:
        """The status of class 2."""
        return self.in_class(2)

    @property
    def transient(self) -> EnhancedStatus:
        """The status of class 4."""
        return self.in_class(4)

    @property
    def permanent(self) -> EnhancedStatus:
        """The status of class 5."""
        return self.in_class(5)


class Subject(enum.IntEnum):
    """The first number of a condition (RFC 3463 3); others are possible, and mean nothing here."""

    UNDEFINED = 0
    ADDRESS = 1
    MAILBOX = 2
    SYSTEM = 3
    NETWORK = 4
    PROTOCOL = 5
    CONTENT = 6
    POLICY = 7


# The conditions, each with the words of RFC 3463 (section 3), or of the RFC that registered it, where the name is not
# the same.
UNDEFINED: Final = Condition(0, 0)

ADDRESS_TROUBLE: Final = Condition(1, 0)  # other address status
NO_SUCH_MAILBOX: Final = Condition(1, 1)  # bad destination mailbox address
NO_SUCH_DOMAIN: Final = Condition(1, 2)  # bad destination system address
BAD_RECIPIENT_SYNTAX: Final = Condition(1, 3)  # bad destination mailbox address syntax
VALID_RECIPIENT: Final = Condition(1, 5)  # destination address valid
MAILBOX_MOVED: Final = Condition(1, 6)  # no forwarding address
BAD_SENDER_SYNTAX: Final = Condition(1, 7)  # bad sender's mailbox address syntax
NULL_MX: Final = Condition(1, 10)  # RFC 7505 4.1

MAILBOX_TROUBLE: Final = Condition(2, 0)  # other or undefined mailbox status
MAILBOX_DISABLED: Final = Condition(2, 1)
MAILBOX_FULL: Final = Condition(2, 2)
TOO_BIG_FOR_MAILBOX: Final = Condition(2, 3)  # message length exceeds administrative limit

SYSTEM_TROUBLE: Final = Condition(3, 0)  # other or undefined mail system status
SYSTEM_FULL: Final = Condition(3, 1)
NOT_ACCEPTING_MAIL: Final = Condition(3, 2)  # system not accepting network messages
NOT_CAPABLE: Final = Condition(3, 3)  # system not capable of selected features
MESSAGE_TOO_BIG: Final = Condition(3, 4)  # message too big for system
BAD_CONFIGURATION: Final = Condition(3, 5)  # system incorrectly configured

NO_ANSWER: Final = Condition(4, 1)  # no answer from host
BAD_CONNECTION: Final = Condition(4, 2)
DIRECTORY_FAILURE: Final = Condition(4, 3)  # directory server failure, such as DNS
UNROUTABLE: Final = Condition(4, 4)  # unable to route
ROUTING_LOOP: Final = Condition(4, 6)
TIME_EXPIRED: Final = Condition(4, 7)  # delivery time expired

PROTOCOL_TROUBLE: Final = Condition(5, 0)  # other or undefined protocol status
INVALID_COMMAND: Final = Condition(5, 1)
SYNTAX_ERROR: Final = Condition(5, 2)
TOO_MANY_RECIPIENTS: Final = Condition(5, 3)
INVALID_ARGUMENTS: Final = Condition(5, 4)  # invalid command arguments

CANNOT_CONVERT: Final = Condition(6, 3)  # conversion required but not supported
NON_ASCII_ADDRESS: Final = Condition(6, 7)  # RFC 6531 3.5: non-ASCII addresses not permitted

POLICY_TROUBLE: Final = Condition(7, 0)  # other or undefined security status
NOT_AUTHORIZED: Final = Condition(7, 1)  # delivery not authorized, message refused
SECURITY_UNSUPPORTED: Final = Condition(7, 4)  # security features not supported
CRYPTOGRAPHIC_FAILURE: Final = Condition(7, 5)
BAD_CREDENTIALS: Final = Condition(7, 8)  # RFC 4954 6
WEAK_MECHANISM: Final = Condition(7, 9)  # RFC 4954 6
ENCRYPTION_NEEDED: Final = Condition(7, 11)  # RFC 4954 6

DELIVERED: Final = UNDEFINED.success
EXPANDED: Final = VALID_RECIPIENT.success
"""The status of a recipient whose message has gone on to the members of a list."""
GIVEN_UP: Final = TIME_EXPIRED.transient
"""The status of a failure whose cause is time: RFC 3463 3.5 has it in class 4 only."""
