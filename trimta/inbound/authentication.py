"""AUTH on the server's side (RFC 4954): the exchange of one session, and what a wrong password costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trimta.mail.reply import Reply
from trimta.smtp.errors import CommandRefusedError
from trimta.smtp.sasl import Challenge, ServerExchange, server_exchange

if TYPE_CHECKING:
    from trimta.inbound.server_conversation import ServerConversation
    from trimta.runtime.disk import Disk
    from trimta.runtime.events import Events
    from trimta.runtime.services import CurrentServices

GUESS_DELAY: Final = 1.0
MAX_GUESS_DELAY: Final = 8.0
"""Seconds that a wrong password costs: the first of a session, and at most; each costs twice the one before."""


class Authentication:
    """The AUTH commands of one session."""

    def __init__(
        self,
        services: CurrentServices,
        conversation: ServerConversation,
        *,
        hashing: Disk,
        events: Events,
        delays_guesses: bool,
    ) -> None:
        """`hashing` runs what compares passwords.  `delays_guesses`: whether a wrong password costs time; a server
        inside a test has no thief to fear.
        """
        self._services = services
        self._conversation = conversation
        self._hashing = hashing
        self._events = events
        self._delays_guesses = delays_guesses
        self._exchange: ServerExchange | None = None
        self._wrong_passwords = 0

    async def begin(self, mechanism: str, initial: bytes | None, *, lenient: bool) -> None:
        """Answer AUTH.  `initial` is the decoded initial response, if there is one; `lenient`: any password will do."""
        self._exchange = server_exchange(mechanism, lenient=lenient)
        await self.go_on(initial)

    async def go_on(self, response: bytes | None) -> None:
        """Answer a client's response with a challenge, or with the end of the exchange."""
        assert self._exchange is not None
        conversation = self._conversation
        try:
            step = self._exchange.step(response)
        except CommandRefusedError as error:
            conversation.reply(error.reply)
            return
        if isinstance(step, Challenge):
            conversation.transcript.server("334")
            conversation.core.challenge(step.data)
            return
        client = str(conversation.client)
        if await self._hashing.run(self._services().authenticator.verify, step.name, step.password):
            conversation.core.authenticated(step.name)
            self._events.emit("authenticated", client=client, user=step.name)
            conversation.reply(Reply.of(235, "2.7.0", "authentication succeeded"))
            return
        self._events.emit("wrong_password", client=client, user=step.name)
        delay = min(GUESS_DELAY * 2**self._wrong_passwords, MAX_GUESS_DELAY)
        self._wrong_passwords += 1
        await trio.sleep(delay if self._delays_guesses else 0)
        conversation.reply(Reply.of(535, "5.7.8", "name or password is wrong"))
