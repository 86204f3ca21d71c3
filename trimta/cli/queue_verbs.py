"""The actions that change the queue: `trimta queue retry`, `hold`, `release`, `remove` and `bounce`.

Each id of the command line has a transaction of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trimta.cli import streams
from trimta.cli.exits import EX_DATAERR, EX_NOUSER, EX_OK, CommandError
from trimta.cli.queue_on_disk import queue_time
from trimta.cli.text import print_json
from trimta.config.build_policy import policy_of
from trimta.config.render import route_text
from trimta.routing.destination import RoutedEnvelope, UnknownUser
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import HoldRoute, RejectRoute
from trimta.runtime.events import escape
from trimta.store.queue.errors import DamagedEntry, NoSuchEntry
from trimta.store.queue.values import EnvelopeState, NewEnvelope, message_id

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from trimta.config.model import Configuration
    from trimta.mail.address import Mailbox
    from trimta.routing.destination import Destination
    from trimta.routing.policy import Policy
    from trimta.routing.routes import Route
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import QueuedEnvelope, StoredMessage

_DONE: Final = {
    "retry": "is tried now",
    "hold": "is held",
    "release": "goes out now",
    "remove": "is removed",
    "bounce": "is returned to its sender now",
}
_LOGGED: Final = {
    "retry": "to be tried now, by the operator",
    "hold": "held by the operator",
    "release": "released by the operator",
    "remove": "removed by the operator",
    "bounce": "to be returned to its sender, by the operator",
}
_UNCHANGED: Final = {
    "retry": "is held and stays so; `trimta queue release` sends it",
    "hold": "is held already",
}


def steer(config: Configuration, queue: Queue | None, args: argparse.Namespace) -> int:
    """Run the action of the command line on each id; returns the exit code.

    An id with which something is wrong gets a line on stderr, and the action goes on with the others.
    """
    streams.output_is_secondary()
    if args.action == "retry" and not args.ids:
        return _retry_many(queue, args)
    code = EX_OK
    done: list[str] = []
    verb = _verb(config, args)
    for entry_id in args.ids:
        try:
            if queue is None:
                raise NoSuchEntry(entry_id)
            with queue.transaction():
                now = queue_time(queue)
                changed = verb(queue, entry_id, now)
                if changed:
                    text = f"{_LOGGED[args.action]}: {', '.join(changed)}"
                    queue.log.append(message_id(changed[0]), [text], now)
        except (NoSuchEntry, DamagedEntry) as cause:
            code = _complain(EX_DATAERR, str(cause))
        except CommandError as cause:
            code = _complain(cause.code, str(cause))
        else:
            done += changed
            if not args.json:
                lines = [f"{envelope_id} {_DONE[args.action]}" for envelope_id in changed]
                print("\n".join(lines or [f"{entry_id} {_UNCHANGED[args.action]}"]))
    if args.json:
        print_json({"ids": done})
    return code


def _complain(code: int, text: str) -> int:
    streams.say(f"trimta queue: {escape(text)}")
    return code


def _retry_many(queue: Queue | None, args: argparse.Namespace) -> int:
    count = 0
    if queue is not None:
        now = queue_time(queue)
        count = queue.operator.retry_all(now) if args.all else queue.operator.retry_domain(args.domain, now)
    if args.json:
        print_json({"count": count})
    else:
        print(f"{count} {'envelope is' if count == 1 else 'envelopes are'} tried now")
    return EX_OK


def _verb(config: Configuration, args: argparse.Namespace) -> Callable[[Queue, str, float], tuple[str, ...]]:
    """The function that runs an action on one id, in (queue, id, now); it returns the ids of the changed envelopes."""
    match args.action:
        case "retry":
            return lambda queue, entry_id, now: queue.operator.retry(entry_id, now)
        case "hold":
            return lambda queue, entry_id, _: queue.operator.hold(entry_id)
        case "remove":
            return lambda queue, entry_id, _: queue.remove(entry_id)
        case "bounce":
            return lambda queue, entry_id, now: queue.operator.bounce(entry_id, now)
        case _:
            return _Release(policy_of(config), args.via, args.to)


class _Release:
    """The action `release ID [--via ROUTE] [--to ADDRESS]`."""

    def __init__(self, policy: Policy, via: Route | None, to: Mailbox | None) -> None:
        self._policy = policy
        self._via = via
        self._to = to

    def __call__(self, queue: Queue, entry_id: str, now: float) -> tuple[str, ...]:
        message, envelopes = queue.entries.show(entry_id)
        rerouted = self._via is not None or self._to is not None
        chosen = [envelope for envelope in envelopes if rerouted or envelope.state is EnvelopeState.HELD]
        if not chosen:
            raise CommandError(EX_DATAERR, f"{entry_id} is not held; `trimta queue retry {entry_id}` tries it now")
        changed: tuple[str, ...] = ()
        for envelope in chosen:
            if self._to is not None:
                changed += queue.operator.redirect(envelope.id, self._redirected(message, envelope, self._to, now))
                continue
            if envelope.state is not EnvelopeState.HELD:
                queue.operator.hold(envelope.id)
            recipients = tuple(recipient.recipient for recipient in envelope.recipients)
            routed = self._routed(
                RoutedEnvelope(domain=envelope.domain, destination=UnknownUser(), recipients=recipients)
            )
            changed += queue.operator.release(envelope.id, now, via=self._via_text, next_hop=routed.next_hop)
        return changed

    @property
    def _via_text(self) -> str:
        return "" if self._via is None else route_text(self._via)

    def _routed(self, envelope: RoutedEnvelope) -> RoutedEnvelope:
        """The envelope with the destination that it is released to: --via, or its own route without `hold`."""
        destination: Destination
        address = envelope.recipients[0].address
        if self._via is not None:
            destination = MatchedRoute(self._via_text, self._via)
        else:
            destination = self._policy.destination(address, skip_hold=True)
        if isinstance(destination, MatchedRoute) and isinstance(destination.route, HoldRoute):
            raise CommandError(EX_DATAERR, f"{address} has no route but `hold`: say where to, with --via ROUTE")
        return replace(envelope, destination=destination)

    def _redirected(
        self, message: StoredMessage, envelope: QueuedEnvelope, to: Mailbox, now: float
    ) -> list[NewEnvelope]:
        """The envelopes that take the place of one that is redirected to an address: several if that is an alias."""
        before = envelope.recipients[0].recipient
        recipient = replace(before, address=to, original=before.original if len(envelope.recipients) == 1 else to)
        routed = self._policy.route([recipient]).envelopes
        if self._via is None:
            for routed_envelope in routed:
                self._check(routed_envelope)
        warn_at = None if envelope.warned else envelope.warn_at
        return [
            replace(NewEnvelope.of(self._routed(routed_envelope), next_try=now, warn_at=warn_at), via=self._via_text)
            for routed_envelope in routed
        ]

    def _check(self, envelope: RoutedEnvelope) -> None:
        """CommandError if the address of --to would be refused."""
        address = envelope.recipients[0].address
        match envelope.destination:
            case UnknownUser():
                raise CommandError(EX_NOUSER, f"--to {address}: there is no such user here")
            case MatchedRoute(route=RejectRoute() as reject):
                raise CommandError(EX_NOUSER, f"--to {address} would be refused: {reject.reply}")
