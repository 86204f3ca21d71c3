"""Mail servers for test suites: each test has a server of its own, on a free port, with mailboxes in temporary folders.

    async with open_server() as server:                 # Trio
        await send(server.host, server.port)
        message = await server.wait_for(to="alice@dev.test")

    with run_server() as server:                        # anything synchronous: unittest, Django, plain scripts
        send(server.host, server.port)
        message = server.wait_for(to="alice@dev.test")

    async with run_server() as server:                  # asyncio
        await send(server.host, server.port)
        message = await server.wait_for(to="alice@dev.test")

With pytest, the fixture `trimta` is such a server.  It is the same server that `trimta serve` runs.  Leaving the block
stops it, raises what went wrong inside it, and checks that none of its files and descriptors are left.
"""

from trimta.testing.async_server import Server, open_server
from trimta.testing.blocking import BlockingServer, run_server
from trimta.testing.configuration import ConfigurationSource as Configuration
from trimta.testing.handle import NotArrivedError
from trimta.testing.leftovers import LeftBehindError
from trimta.testing.queue_entries import QueueEntry, QueueRecipient, QueueView
from trimta.testing.scripting import Faults
from trimta.testing.thread import ForkedError, ServerEndedError

__all__ = [
    "BlockingServer",
    "Configuration",
    "Faults",
    "ForkedError",
    "LeftBehindError",
    "NotArrivedError",
    "QueueEntry",
    "QueueRecipient",
    "QueueView",
    "Server",
    "ServerEndedError",
    "open_server",
    "run_server",
]
