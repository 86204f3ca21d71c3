"""Answers of the DNS, as values: records, no record of this type, no such name, or the failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from trimta.config.model import MxRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Records(Generic[T]):
    """The records that were asked for, in the order of the answer; at least one."""

    values: tuple[T, ...]
    canonical: str
    """The name that holds the records, after CNAMEs: lower case, no last dot."""


@dataclass(frozen=True, slots=True)
class NoData:
    """The name exists, but has no record of the type."""


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """The name does not exist (NXDOMAIN)."""


@dataclass(frozen=True, slots=True)
class DnsFailure:
    """No nameserver gave an answer; a later question may get one."""

    text: str


Answer: TypeAlias = Records[T] | NoData | NoSuchName | DnsFailure

AnyRecords: TypeAlias = Records[MxRecord] | Records[str]


@dataclass(frozen=True, slots=True)
class Cname:
    """A CNAME at which the answer stops."""

    target: str
    ttl: float


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """An answer, and the seconds for which it holds."""

    answer: AnyRecords | NoData | NoSuchName
    ttl: float
