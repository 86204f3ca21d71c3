"""`trimta route ADDRESS…` explains where mail for an address would go, and sends nothing.

An explanation is made as a JSON document first; the text is written from it.
"""

from __future__ import annotations

import ipaddress
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, assert_never

import trio

from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_NOUSER, EX_OK, EX_TEMPFAIL
from trimta.cli.text import print_json
from trimta.config.build_policy import policy_of
from trimta.config.find import find
from trimta.config.load import load
from trimta.config.model import InetAddress
from trimta.control import asking
from trimta.inbound.listener import hosts_to_bind
from trimta.inbound.own_addresses import comes_to
from trimta.mail.address import AddressError, parse_mailbox
from trimta.outbound.resolver import MxHosts, Resolver
from trimta.routing.destination import LocalDestination, UnknownUser
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import (
    DiscardRoute,
    HoldRoute,
    HostRoute,
    MaildirRoute,
    MxRoute,
    PipeRoute,
    RejectRoute,
    describe,
)
from trimta.runtime.events import escape

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import TypeAlias

    from trimta.cli.arguments import Subparsers
    from trimta.config.model import Configuration
    from trimta.mail.address import Mailbox
    from trimta.outbound.resolver import Host, Routing
    from trimta.routing.destination import Target
    from trimta.routing.routes import Route

    Document: TypeAlias = dict[str, Any]

OK: Final = "ok"
HELD: Final = "held"
UNCLEAR: Final = "unclear"
"""DNS does not answer, or not usefully: mail would be deferred."""
REFUSED: Final = "refused"
"""Mail would be refused at RCPT, or fail for good when it is sent."""

STATUS_LIMIT: Final = 2.0
"""Seconds that a running server has to answer with the addresses on which it listens."""

_CODES: Final = {OK: EX_OK, HELD: EX_OK, UNCLEAR: EX_TEMPFAIL, REFUSED: EX_NOUSER}
_WORST_FIRST: Final = (REFUSED, UNCLEAR, HELD, OK)


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "route",
        description=(
            "Explain, without sending, where mail for addresses goes: how each parses, its aliases, the local mailbox\n"
            "or the route, the hosts and their addresses in the order in which they would be tried.  The exit code is\n"
            "67 if one would be refused, 75 if DNS does not answer."
        ),
        example="trimta route alice+lists@dev.test someone@example.com",
    )
    parser.add_argument("addresses", metavar="ADDRESS", nargs="+")
    parser.add_argument("--json", action="store_true", help="print one JSON array, with an object for each address")


def run(args: argparse.Namespace) -> int:
    config = load(find(args.config))
    explained: list[Document] = trio.run(_explain_all, config, args.addresses)
    if args.json:
        print_json(explained)
    else:
        for document in explained:
            sys.stdout.write("".join(f"{escape(line)}\n" for line in _lines(document)))
    return _CODES[_worst([document["verdict"] for document in explained])]


def _worst(verdicts: list[str]) -> str:
    return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), OK)


# The explanation, as a JSON document.


async def _explain_all(config: Configuration, addresses: list[str]) -> list[Document]:
    explainer = _Explainer(config)
    return [await explainer.explain(address) for address in addresses]


class _Explainer:
    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._policy = policy_of(config)
        self._resolver = Resolver(
            config.dns, hostname=config.hostname, is_self=self._is_self, allowed=config.egress.allows
        )

    async def explain(self, text: str) -> Document:
        """The explanation of one address: its parts, its aliases, and for each target the verdict and the hosts."""
        try:
            mailbox = parse_mailbox(text)
        except AddressError as error:
            return {"address": text, "verdict": REFUSED, "reply": f"501 5.1.3 {error}"}
        document: Document = {
            "address": text,
            "local_part": mailbox.local_part,
            "domain": mailbox.domain_key or self._config.hostname,
        }
        resolved = self._policy.resolve(mailbox)
        refusal = self._policy.refusal(resolved, may_relay=True)
        if refusal is not None:
            document |= {"verdict": REFUSED, "reply": str(refusal)}
        aliases = [*self._aliases(mailbox)]
        if aliases:
            document["aliases"] = aliases
        targets = [await self._target(target) for target in resolved.targets]
        document["targets"] = targets
        document.setdefault("verdict", _worst([target["verdict"] for target in targets]))
        return document

    def _aliases(self, mailbox: Mailbox) -> Iterator[Document]:
        """The aliases through which an address goes, each with its members; the alias of the address itself first."""
        waiting, seen = [mailbox], set()
        while waiting:
            address = waiting.pop(0)
            key = self._policy.aliases.matches(address)
            if key is None or key in seen:  # a member that is the alias itself stands for the mailbox of that name
                continue
            seen.add(key)
            members = self._policy.aliases.members(address)
            yield {"alias": key, "address": str(address), "members": [str(member) for member in members]}
            waiting += members

    async def _target(self, target: Target) -> Document:
        """The explanation of a target: where mail for its address goes."""
        document: Document = {"address": str(target.address)}
        match target.destination:
            case LocalDestination(mailbox=mailbox, maildir=maildir):
                document |= {"verdict": OK, "local": True, "user": mailbox.user, "maildir": str(maildir)}
                if mailbox.detail:
                    document["detail"] = mailbox.detail
            case UnknownUser():
                document |= {"verdict": REFUSED, "local": True, "problem": "5.1.1 no such user here"}
            case MatchedRoute(key, route):
                document |= {"local": False, "key": key, "route": str(route), "description": describe(route)}
                document |= await self._by_route(target.address, route)
        return document

    async def _by_route(self, mailbox: Mailbox, route: Route) -> Document:
        match route:
            case MxRoute():
                return self._hosts(await self._resolver.resolve_mx(mailbox.domain_key, port=route.port))
            case HostRoute(unix_path=None):
                return self._hosts(await self._resolver.resolve_host(route.host, port=route.port))
            case HostRoute() | PipeRoute() | DiscardRoute():
                return {"verdict": OK}
            case MaildirRoute():
                return {"verdict": OK, "maildir": route.path(mailbox.domain_key)}
            case RejectRoute():
                return {"verdict": REFUSED, "problem": route.reply}
            case HoldRoute():
                return {"verdict": HELD}
            case _:
                assert_never(route)

    def _hosts(self, routing: Routing) -> Document:
        document: Document = {"notes": list(routing.notes)} if routing.notes else {}
        if not isinstance(routing, MxHosts):
            verdict = REFUSED if routing.status.klass == 5 else UNCLEAR
            return document | {"verdict": verdict, "problem": f"{routing.status} {routing.text}"}
        hosts = [self._host(host) for host in routing.hosts]
        allowed = any(address["allowed"] for host in hosts for address in host["addresses"])
        return document | {"verdict": OK if allowed else HELD, "hosts": hosts}

    def _host(self, host: Host) -> Document:
        return {
            "name": host.name,
            "preference": host.preference,
            "port": host.port,
            "addresses": [
                {"address": address, "allowed": self._config.egress.allows(ipaddress.ip_address(address))}
                for address in host.addresses
            ],
        }

    def _is_self(self, address: str, port: int) -> bool:
        """Whether trimta itself listens on an address and port."""
        return comes_to(self._listening, address, port)

    @cached_property
    def _listening(self) -> list[tuple[str, int]]:
        """The addresses and ports on which the running server listens; without a server, those of the configuration.

        The server is asked, since its --listen may differ from the configuration.
        """
        config = self._config
        try:
            shown = asking.ask_once(config.data_dir, {"command": "status"}, timeout=STATUS_LIMIT)["listening"]
        except (asking.NotRunning, asking.NoAnswer, PermissionError):
            return [
                (host, listen.address.port)
                for listen in config.listen
                if isinstance(listen.address, InetAddress)
                for host in hosts_to_bind(listen, config.listen)
            ]
        pairs = [address.rpartition(":") for address in shown if not address.startswith("unix:")]
        return [(host.strip("[]"), int(port)) for host, _, port in pairs]


# The explanation, as text.


def _lines(document: Document) -> Iterator[str]:
    yield document["address"]
    if "domain" not in document:
        yield f"  refused: {document['reply']}"
        return
    yield f"  local part {document['local_part']}, domain {document['domain']}"
    if "reply" in document:
        yield from (f"  {_route_line(target)}" for target in document["targets"] if not target["local"])
        yield f"  refused: {document['reply']}"
        return
    for alias in document.get("aliases", ()):
        yield f"  alias {alias['alias']}: {alias['address']} means {', '.join(alias['members'])}"
    for target in document["targets"]:
        indent = "  "
        if document.get("aliases"):
            yield f"  {target['address']}"
            indent = "    "
        for line in _target_lines(target):
            yield indent + line


def _target_lines(target: Document) -> Iterator[str]:
    if target["local"]:
        if "problem" in target:
            yield f"local, and refused: {target['problem']}"
            return
        detail = f" (detail {target['detail']})" if "detail" in target else ""
        yield f"local mailbox {target['user']}{detail}, in the Maildir {target['maildir']}"
        return
    yield _route_line(target)
    if "maildir" in target:
        yield f"in the Maildir {target['maildir']}"
    for note in target.get("notes", ()):
        yield f"note: {note}"
    for number, host in enumerate(target.get("hosts", ()), start=1):
        yield f"{number}. {host['name']}, preference {host['preference']}"
        for address in host["addresses"]:
            verdict = "" if address["allowed"] else ": not in egress.allow"
            where = f"[{address['address']}]" if ":" in address["address"] else address["address"]
            yield f"   {where}:{host['port']}{verdict}"
    if "problem" in target:
        yield f"{'refused' if target['verdict'] == REFUSED else 'deferred'}: {target['problem']}"
    elif target["verdict"] == HELD:
        yield "would be held in the queue until `trimta queue release`"


def _route_line(target: Document) -> str:
    return f'route "{target["key"]}" = {target["route"]}: {target["description"]}'
