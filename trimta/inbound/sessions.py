"""The factory of sessions: it gives each of them its parts, with the services of the moment at which it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.config.model import ListenTls
from trimta.inbound.authentication import Authentication
from trimta.inbound.server_conversation import ServerConversation
from trimta.inbound.session import Session, server_settings
from trimta.inbound.transaction import Transactions
from trimta.inbound.vrfy_expn_etrn import QueueStarter
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.server import ServerConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from trimta.config.model import Configuration, ListenSection
    from trimta.inbound.acceptance import Acceptance
    from trimta.inbound.client_address import ClientAddress
    from trimta.inbound.connection_counts import Admission
    from trimta.inbound.scripted_faults import FaultSource
    from trimta.runtime.disk import Disk
    from trimta.runtime.drain import Drain
    from trimta.runtime.events import Events
    from trimta.runtime.message_log import DialogueLog
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.queue_intake import QueueIntake
    from trimta.runtime.services import CurrentServices
    from trimta.runtime.wire import Wire
    from trimta.smtp.server_settings import ServerSettings

HASHERS: Final = 2
"""Passwords hashed at the same time, at most: a client that guesses must not take the whole machine."""


class Sessions:
    """Makes sessions."""

    def __init__(
        self,
        services: CurrentServices,
        *,
        clock: QueueClock,
        disk: Disk,
        spool: Path,
        queue: QueueIntake,
        events: Events,
        drain: Drain,
        faults: FaultSource,
        message_log: DialogueLog,
        acceptance: Acceptance,
        tls_context: Callable[[], ssl.SSLContext | None],
    ) -> None:
        """`spool` is the folder of large content; `tls_context` returns None where no listener has TLS."""
        self.delays_guesses = True
        """Whether the reply to a wrong password is delayed."""
        self._services = services
        self._clock = clock
        self._disk = disk
        self._spool = spool
        self._events = events
        self._drain = drain
        self._faults = faults
        self._message_log = message_log
        self._acceptance = acceptance
        self._tls_context = tls_context
        self._configuration: Configuration | None = None
        self._known_settings: dict[bool, tuple[ListenSection, ServerSettings]] = {}
        """The settings made with that configuration for the last client, on this machine or elsewhere."""
        self._hashing = disk.apart(HASHERS)
        self._queue_starter = QueueStarter(clock=clock, queue=queue, events=events)

    def _settings(self, configuration: Configuration, listen: ListenSection, client: ClientAddress) -> ServerSettings:
        """What a listener offers to a client: the same value for all of the same kind, since it is costly to make."""
        if listen.protocol is MailProtocol.SUBMISSION:  # a hold is counted from now
            return server_settings(configuration, listen, client, now=self._clock.now())
        if self._configuration is not configuration:
            self._configuration = configuration
            self._known_settings.clear()
        known = self._known_settings.get(client.is_loopback)
        if known is not None and known[0] is listen:  # to compare by value, a listener among many, takes longer
            return known[1]
        settings = server_settings(configuration, listen, client, now=self._clock.now())
        self._known_settings[client.is_loopback] = (listen, settings)
        return settings

    def session(
        self, listen: ListenSection, wire: Wire, client: ClientAddress, admission: Callable[[], Admission]
    ) -> Session:
        """A session with a client whose connection a listener has accepted.  `admission` tells at the greeting whether
        it is within the limits.
        """
        services = self._services()
        configuration = services.configuration
        settings = self._settings(configuration, listen, client)
        conversation = ServerConversation(
            ServerConnection(settings, tls=listen.tls is ListenTls.IMPLICIT),
            wire,
            client,
            clock=self._clock,
            events=self._events,
            drain=self._drain,
            faults=self._faults,
            tls_context=self._tls_context,
            idle=configuration.timeouts.idle,
            max_errors=configuration.limits.errors,
        )
        return Session(
            services,
            listen,
            conversation,
            transaction=Transactions(
                services,
                conversation,
                clock=self._clock,
                disk=self._disk,
                spool=self._spool,
                events=self._events,
                drain=self._drain,
                message_log=self._message_log,
                acceptance=self._acceptance,
            ),
            authentication=Authentication(
                self._services,
                conversation,
                hashing=self._hashing,
                events=self._events,
                delays_guesses=self.delays_guesses,
            ),
            queue_starter=self._queue_starter,
            admission=admission,
            drain=self._drain,
            events=self._events,
        )
