"""Answers to VRFY and EXPN (RFC 5321 3.5), which ask what a name means here, and to ETRN (RFC 1985)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta.mail.address import AddressError, Mailbox, parse_domain, parse_mailbox
from trimta.mail.reply import Reply
from trimta.routing.destination import LocalDestination, UnknownUser
from trimta.store.queue.errors import QueueError

if TYPE_CHECKING:
    from trimta.routing.policy import Policy
    from trimta.runtime.events import Events
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.queue_intake import QueueIntake


def vrfy(policy: Policy, string: str, *, may_relay: bool, utf8: bool = False) -> Reply:
    """250 for a listed user or an alias, 252 where any name has a mailbox and for other domains, 550 for nobody and for
    those to whom this client may not send.  Without `utf8` the reply is ASCII: 252 where it can't be.
    """
    return _in_ascii(_vrfy(policy, string, may_relay=may_relay), utf8=utf8)


def _vrfy(policy: Policy, string: str, *, may_relay: bool) -> Reply:
    try:
        mailbox = _read(policy, string)
    except AddressError as error:
        return Reply.of(501, "5.1.3", str(error))
    if policy.aliases.matches(mailbox):
        return Reply.of(250, "2.1.5", f"<{mailbox}>")
    resolved = policy.resolve(mailbox)
    refusal = policy.refusal(resolved, may_relay=may_relay)
    if refusal is not None:
        return refusal
    match resolved.targets[0].destination:
        case LocalDestination(mailbox=local) if policy.local.users != "any" or local.user == "postmaster":
            return Reply.of(250, "2.1.5", f"<{mailbox}>")
        case _:
            return Reply.of(252, "2.5.2", f"<{mailbox}>: cannot verify, but mail for it will be accepted")


def expn(policy: Policy, string: str, *, utf8: bool = False) -> Reply:
    """The members of an alias; a user's own address; 252 where any name has a mailbox; 550 for nobody.  `utf8` as for
    VRFY.
    """
    return _in_ascii(_expn(policy, string), utf8=utf8)


def _expn(policy: Policy, string: str) -> Reply:
    try:
        mailbox = _read(policy, string)
    except AddressError as error:
        return Reply.of(501, "5.1.3", str(error))
    if policy.aliases.matches(mailbox):
        return Reply.of(250, "2.1.5", *(f"<{member}>" for member in policy.aliases.expand(mailbox)))
    match policy.destination(mailbox):
        case UnknownUser():
            return Reply.of(550, "5.1.1", f"<{mailbox}>: no such list or user here")
        case LocalDestination(mailbox=local) if policy.local.users != "any" or local.user == "postmaster":
            return Reply.of(250, "2.1.5", f"<{mailbox}>")
        case _:
            return Reply.of(252, "2.5.2", f"<{mailbox}>: not a list")


def _read(policy: Policy, string: str) -> Mailbox:
    """A full address, perhaps in <>, or a local part at the first local domain; AddressError for anything else."""
    string = string.strip()
    if "@" not in string:
        name = string.removeprefix("<").removesuffix(">")
        return parse_mailbox(f"{name}@{policy.local.first}")
    return parse_mailbox(string)


def _in_ascii(reply: Reply, *, utf8: bool) -> Reply:
    """An address with its characters escaped would be another address: RFC 6531 3.7.4.2."""
    if utf8 or reply.klass != 2 or reply.text.isascii():
        return reply
    return Reply.of(252, "2.6.8", "the answer is beyond ASCII: ask again with SMTPUTF8 behind the address")


class QueueStarter:
    """Starts the queue of a domain for a client that asks by ETRN."""

    def __init__(self, *, clock: QueueClock, queue: QueueIntake, events: Events) -> None:
        self._clock = clock
        self._queue = queue
        self._events = events

    async def etrn(self, node: str, *, may_relay: bool) -> Reply:
        """Make what waits for a node due now: a domain, `@domain` with its subdomains (RFC 1985 5.3)."""
        if not may_relay:
            return Reply.of(459, "4.7.1", "you may not start this queue")
        if node.startswith("#"):
            return Reply.of(459, "4.5.0", "queues have no names here")
        try:
            domain = parse_domain(node.removeprefix("@"))
        except AddressError as error:
            return Reply.of(501, "5.5.4", str(error))
        now = self._clock.now()
        subdomains = node.startswith("@")
        try:
            count = await self._queue.retry_domain(domain, now, subdomains=subdomains)
        except QueueError as cause:
            self._events.emit("queue_trouble", reason=str(cause))
            return Reply.of(458, "4.3.0", "the queue can't be read now")
        self._queue.wake()
        if count:
            return Reply.of(253, "2.0.0", f"{count} pending messages for {domain} started")
        return Reply.of(251, "2.0.0", f"no messages waiting for {domain}")
