"""`trimta sendmail` takes a message from a local program and puts it into the queue, with the server running or not."""

from __future__ import annotations

import errno
import os
import pwd
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from trimta.cli import streams
from trimta.cli.arguments import add_command
from trimta.cli.exits import (
    EX_CONFIG,
    EX_DATAERR,
    EX_IOERR,
    EX_NOPERM,
    EX_OK,
    EX_TEMPFAIL,
    EX_USAGE,
    CommandError,
)
from trimta.cli.queue_on_disk import queue_time, warn_of_loss
from trimta.cli.sendmail_flags import Flags, parse
from trimta.config.build_policy import local_domains, policy_of
from trimta.config.find import find
from trimta.config.load import load
from trimta.content.address_list import addresses, readable_addresses
from trimta.content.header_summary import HeaderSummary
from trimta.content.missing_fields import missing_fields
from trimta.content.sendmail_header import has_whole_header, header_recipients, passed_on
from trimta.content.sendmail_input import BareCrError, PipedText
from trimta.content.trace import submitted_field
from trimta.control import asking
from trimta.mail.address import AddressError, Mailbox
from trimta.mail.envelope import BodyKind, Recipient, Terms
from trimta.runtime import privileges
from trimta.runtime.ids import new_id
from trimta.runtime.privileges import AccountError
from trimta.store.queue.errors import QueueError, QueueUnreadable
from trimta.store.queue.meta import TIME_SCALE
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import NewEnvelope, StoredMessage
from trimta.store.spool import SpoolWriter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from trimta.cli.arguments import Subparsers
    from trimta.config.model import Configuration
    from trimta.mail.envelope import ReversePath
    from trimta.routing.policy import Policy
    from trimta.store.spool import Body

READ: Final = 64 * 1024
HEADER_LIMIT: Final = 1024 * 1024
"""Octets of a header, at most: it is held in memory as a whole."""

NOTHING_SENT: Final = "nothing was sent"


def add_parser(subparsers: Subparsers) -> None:
    """Add the flags that --help shows; `sendmail_flags` reads them, since argparse can't."""
    parser = add_command(
        subparsers,
        "sendmail",
        description=(
            "Take a message from standard input and queue it, as sendmail(1) does.  Works while the server is down:\n"
            "the message goes out when it starts.  Date, Message-ID and From are added where they are missing, and so\n"
            "is the domain of an address and the empty line behind the header; Bcc is taken out.\n"
            "sendmail's other usual flags are taken and have no effect.  A link named `sendmail` does the same."
        ),
        example="printf 'To: alice@dev.test\\nSubject: hello\\n\\nworld\\n' | trimta sendmail -t -i",
    )
    parser.add_argument(
        "-t",
        action="store_true",
        help="recipients from To, Cc and Bcc, too; one that is no address is named, the others get it",
    )
    parser.add_argument("-i", "-oi", action="store_true", help="a line of a lone dot does not end the message")
    parser.add_argument("-f", "-r", metavar="SENDER", help="the envelope's sender; '<>' for none; default: you")
    parser.add_argument("-F", metavar="NAME", help="your name, for a From that is missing")
    parser.add_argument("-N", metavar="WHEN", help="never, or a list of failure, delay, success: which reports to send")
    parser.add_argument("-R", metavar="WHAT", help="full or hdrs: how much of the message a report returns")
    parser.add_argument("-V", metavar="ENVID", help="the envelope id that a report names")
    parser.add_argument("-bs", action="store_true", help="speak SMTP on standard input and output")
    parser.add_argument("-bp", action="store_true", help="show the queue, as `trimta queue list` does")
    parser.add_argument("-q", action="store_true", help="without a message: try what is in the queue now")
    parser.add_argument(
        "recipients",
        metavar="RECIPIENT",
        nargs="*",
        help="an address; a name without a domain is local; one that is no address is named, the others get it",
    )
    parser.set_defaults(parser=parser)


def run(args: argparse.Namespace) -> int:
    flags = parse(args.rest)
    if flags.help:
        args.parser.parse_args(["--help"])
    config_option = flags.config if flags.config is not None else args.config
    match flags.mode:
        case "i":
            return EX_OK  # newaliases: the configuration is read at every start and SIGHUP
        case "p":
            return _queue(config_option, "list")
        case "s":
            _check_input()
            if not streams.is_open(streams.STANDARD_OUTPUT, os.O_WRONLY):
                raise CommandError(EX_IOERR, f"standard output is closed: replies have no way out; {NOTHING_SENT}")
            return _speak_smtp(load(find(config_option)))
    if flags.flush and not flags.from_header and not flags.recipients:
        return _queue(config_option, "retry", "--all")
    _check_input()
    submission = Submission.of(flags, load(find(config_option)))
    submission.queue_message(flags)
    return EX_OK


def _check_input() -> None:
    if not streams.is_open(streams.STANDARD_INPUT, os.O_RDONLY):
        raise CommandError(EX_IOERR, f"standard input is closed; {NOTHING_SENT}")


def _queue(config_option: str | None, *arguments: str) -> int:
    from trimta.cli.main import main  # `main` imports this module

    named = [] if config_option is None else ["-c", config_option]
    return main([*named, "queue", *arguments])


def _speak_smtp(config: Configuration) -> int:
    import trio

    from trimta.runtime.tls import TlsError
    from trimta.server import stdio

    _become(config)
    try:
        with _open_queue(config) as queue:
            failure = trio.run(stdio.converse, config, queue)
    except TlsError as error:
        raise CommandError(EX_CONFIG, f"tls: {error}") from error
    if failure is not None and failure.errno != errno.EPIPE:  # else the client has hung up, as clients do
        problem = f"standard output can't be written: {failure.strerror}"
        raise CommandError(EX_IOERR, f"{problem}; the client was not answered")
    return EX_OK


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission: its author, its reverse-path, and the recipients that the command line names."""

    config: Configuration
    user_id: int
    reverse_path: ReversePath
    author: Mailbox
    recipients: tuple[Mailbox, ...]
    problems: tuple[str, ...]
    """What is wrong with each recipient of the command line that is no address; the others get the message."""

    @classmethod
    def of(cls, flags: Flags, config: Configuration) -> Submission:
        """The submission of a command line.  Raises CommandError for a sender that is no address, and
        where no recipient is one.
        """
        user_id = os.getuid()
        author = _mailbox_of(user_id, config.hostname)
        domain = local_domains(config).first
        sender = author if flags.sender is None else _sender(flags.sender, domain)
        if not flags.recipients and not flags.from_header:
            raise CommandError(
                EX_USAGE, "no recipients: name them behind the flags, or say -t to take them from To, Cc, Bcc"
            )
        recipients: list[Mailbox] = []
        problems: list[str] = []
        for text in flags.recipients:
            named = readable_addresses(text, domain)
            recipients += named.mailboxes
            problems += named.problems
            if not named.mailboxes and not named.problems:
                problems.append(f"{text!a} is no address")
        if problems and not recipients and not flags.from_header:
            raise CommandError(EX_DATAERR, f"{_bad_recipients(problems, ())}; {NOTHING_SENT}")
        return cls(config, user_id, sender, sender or author, tuple(recipients), tuple(problems))

    def queue_message(self, flags: Flags) -> str:
        """Read the message from standard input and put it into the queue; returns its id.  Raises CommandError."""
        config = self.config
        _become(config)
        with _open_queue(config) as queue:
            spool = SpoolWriter(queue.spool)
            try:
                with _explained(config):
                    return self._queue_message(flags, queue, spool)
            finally:
                spool.discard()

    def _queue_message(self, flags: Flags, queue: Queue, spool: SpoolWriter) -> str:
        text = _Input(PipedText(dot_ends=not flags.dot_is_data), self.config.limits.message_size)
        recipients = self.recipients
        domain = local_domains(self.config).first
        given = text.header()
        in_header: tuple[str, ...] = ()
        if flags.from_header:
            named = header_recipients(given, domain)
            recipients += named.recipients
            in_header = named.problems
        bad = _bad_recipients(self.problems, in_header)
        if bad and not recipients:
            raise CommandError(EX_DATAERR, f"{bad}; {NOTHING_SENT}")
        if not recipients:
            raise CommandError(EX_USAGE, f"no recipients: there are none in To, Cc and Bcc; {NOTHING_SENT}")
        head = passed_on(given, domain)
        header = HeaderSummary.of(head)
        if header.received_count > self.config.limits.hops:
            received = header.received_count
            raise CommandError(EX_DATAERR, f"{received} Received fields: this message is in a loop; {NOTHING_SENT}")
        spool.append(head)
        for piece in text:
            spool.append(piece)
        message_id = self._store(flags, queue, spool.finish(), header, recipients, eight_bit=text.eight_bit)
        if bad:
            raise CommandError(EX_DATAERR, f"{bad}; the others get the message")
        return message_id

    def _store(
        self,
        flags: Flags,
        queue: Queue,
        body: Body,
        header: HeaderSummary,
        recipients: Sequence[Mailbox],
        *,
        eight_bit: bool,
    ) -> str:
        config = self.config
        message_id = new_id()
        date = datetime.now(UTC).astimezone()
        now = queue_time(queue)
        trace = submitted_field(by=config.hostname, user_id=self.user_id, id=message_id, date=date)
        trace += missing_fields(
            header,
            author=self.author,
            author_name=flags.name,
            message_id=f"{message_id}@{config.hostname}",
            date=date,
        )
        terms = Terms(
            reverse_path=self.reverse_path,
            body=BodyKind.EIGHT_BIT if eight_bit else BodyKind.SEVEN_BIT,
            smtputf8=not all(str(mailbox).isascii() for mailbox in (*recipients, self.reverse_path or "")),
            envid=flags.envid,
            ret=flags.ret,
        )
        message = StoredMessage(
            id=message_id,
            arrived=now,
            terms=terms,
            content=body,
            trace=trace,
            origin=f"trimta sendmail, userid {self.user_id}",
        )
        # The server may have been started with --time-scale; the queue's database has its value.
        policy = policy_of(config, time_scale=float(queue.meta.get(TIME_SCALE) or 1.0))
        warn_at = None
        if self.reverse_path is not None:
            warn_at = policy.retry.warning_at(now, expiry=policy.retry.expiry(now))
        routed = policy.route(
            Recipient(address=mailbox, original=mailbox, notify=flags.notify) for mailbox in recipients
        )
        envelopes = [NewEnvelope.of(envelope, next_try=now, warn_at=warn_at) for envelope in routed.envelopes]
        with queue.transaction():
            if routed.expanded and self.reverse_path is not None:
                self._report_expansion(queue, policy, message, routed.expanded, now)
            queue.accept(message, envelopes)
            sender = "" if self.reverse_path is None else self.reverse_path
            lines = [f"from userid {self.user_id} by sendmail: <{sender}>"]
            lines += [f"for <{recipient}>" for recipient in recipients]
            queue.log.append(message_id, lines, now)
        asking.tell(config.data_dir, {"command": "submitted", "id": message_id})
        return message_id

    def _report_expansion(
        self, queue: Queue, policy: Policy, message: StoredMessage, recipients: Sequence[Recipient], now: float
    ) -> None:
        """Queue the DSN that tells the sender which recipients were sent on to the members of an alias, if it is asked
        for.  All other DSNs are the server's to send.
        """
        from trimta.content.dsn.returned import RETURN_LIMIT
        from trimta.content.dsn.values import DsnKind
        from trimta.outbound.reports import expanded, report

        about = expanded(recipients)
        if not about or self.reverse_path is None:
            return
        returned = message.trace + message.content.head(RETURN_LIMIT + 1)
        expansion = report(
            policy, message, DsnKind.EXPANDED, about, self.reverse_path, head=returned, now=now, last_attempt=now
        )
        queue.accept(*expansion)


def _bad_recipients(named: Sequence[str], in_header: Sequence[str]) -> str:
    """What is wrong with recipients of the command line and of the header, for people; empty if nothing is."""
    parts = [f"bad recipient: {'; '.join(named)}"] if named else []
    parts += [f"bad recipient in {'; '.join(in_header)}"] if in_header else []
    return "; ".join(parts)


class _Input:
    """Standard input, read as content with LF line ends."""

    def __init__(self, text: PipedText, limit: int) -> None:
        self.eight_bit = False
        self._text = text
        self._limit = limit
        self._size = 0
        """Octets of the content on the wire, as far as it was read."""
        self._pieces = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def header(self) -> bytes:
        """The beginning of the content, with the whole header in it.  Raises CommandError for too long a header."""
        head = bytearray()
        enough = READ
        for piece in self._pieces:
            head += piece
            if len(head) < enough:
                continue
            if has_whole_header(bytes(head)):
                break
            if len(head) > HEADER_LIMIT:
                raise CommandError(EX_DATAERR, f"the header is longer than {HEADER_LIMIT} octets; {NOTHING_SENT}")
            enough = 2 * len(head)
        return bytes(head)

    def _read(self) -> Iterator[bytes]:
        while not self._text.ended:
            octets = _read_some()
            piece = self._text.feed(octets) if octets else self._text.finish()
            self._size += len(piece) + piece.count(b"\n")
            if self._size > self._limit:
                raise CommandError(
                    EX_DATAERR,
                    f"the message is larger than limits.message_size ({self._limit} octets); {NOTHING_SENT}",
                )
            self.eight_bit = self.eight_bit or not piece.isascii()
            if piece:
                yield piece
            if not octets:
                return


def _read_some() -> bytes:
    try:
        return os.read(streams.STANDARD_INPUT, READ)
    except OSError as error:
        raise CommandError(EX_IOERR, f"standard input can't be read: {error.strerror}; {NOTHING_SENT}") from error


def _mailbox_of(user_id: int, hostname: str) -> Mailbox:
    """The address of a local account; one without a usable name is `uidN`."""
    try:
        login = pwd.getpwuid(user_id).pw_name
    except KeyError:
        login = os.environ.get("LOGNAME") or f"uid{user_id}"
    try:
        return Mailbox(login, hostname)
    except AddressError:
        return Mailbox(f"uid{user_id}", hostname)


def _sender(text: str, domain: str) -> ReversePath:
    if text.strip() in ("", "<>"):
        return None
    try:
        senders = [*addresses(text, domain)]
    except AddressError as error:
        raise CommandError(EX_DATAERR, f"bad sender: {error}; {NOTHING_SENT}") from error
    if len(senders) != 1:
        raise CommandError(EX_DATAERR, f"bad sender: {text!a} is not one address; {NOTHING_SENT}")
    return senders[0]


def _become(config: Configuration) -> None:
    """Change a process of root to the server's account, which must own the files that are made in data_dir."""
    try:
        if privileges.is_root() and config.user:
            privileges.become(config.user, privileges.folders(config))
        else:
            privileges.become_owner(config.data_dir)
    except AccountError as cause:
        raise CommandError(EX_NOPERM, str(cause)) from cause
    except OSError as cause:
        raise _not_stored(config, cause) from cause


@contextmanager
def _open_queue(config: Configuration) -> Iterator[Queue]:
    try:
        warn_of_loss(config)
        queue = Queue(config.data_dir)
    except (QueueUnreadable, OSError) as error:
        raise _not_stored(config, error) from error
    with closing(queue):
        yield queue


@contextmanager
def _explained(config: Configuration) -> Iterator[None]:
    """A block in which each error that ends a submission becomes a CommandError."""
    try:
        yield
    except BareCrError as error:
        raise CommandError(EX_DATAERR, f"{error}; {NOTHING_SENT}") from error
    except (QueueError, OSError) as error:
        raise _not_stored(config, error) from error


def _not_stored(config: Configuration, error: QueueError | OSError) -> CommandError:
    refused = isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)
    if refused or (isinstance(error, QueueUnreadable) and error.path.exists() and not _may_use(error.path)):
        problem = f"no permission for the queue in {config.data_dir}; be the user whose server it is"
        return CommandError(EX_NOPERM, f"{problem}; {NOTHING_SENT}")
    if isinstance(error, OSError):
        return CommandError(
            EX_TEMPFAIL, f"cannot store the message in {config.data_dir}: {error.strerror}; {NOTHING_SENT}"
        )
    return CommandError(EX_TEMPFAIL, f"{error}; {NOTHING_SENT}")


def _may_use(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)
