"""The table of a session's states: whole, walked move by move, and held to what the receiving core does."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

import trimta.smtp
from tests.smtp.support import BAD_ORDER, MAIL, QUEUED, RCPT, Peer
from trimta.mail.reply import Reply
from trimta.smtp.commands import (
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Etrn,
    Expn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from trimta.smtp.errors import LocalProtocolError
from trimta.smtp.server import ServerConnection
from trimta.smtp.server_events import CLOSED, AuthResponse
from trimta.smtp.server_settings import AuthPolicy, ServerSettings
from trimta.smtp.state import BETWEEN_COMMANDS, NEXT, READING, Move, Occurrence, SessionMachine, SessionState

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS: tuple[type[Command], ...] = get_args(Command)
MOVES: tuple[Move, ...] = (*COMMANDS, *Occurrence)

LINES: dict[type[Command], str] = {
    Ehlo: "EHLO c",
    Helo: "HELO c",
    Mail: "MAIL FROM:<a@dev.test>",
    Rcpt: "RCPT TO:<b@dev.test>",
    Data: "DATA",
    Bdat: "BDAT 1",
    Rset: "RSET",
    Noop: "NOOP",
    Quit: "QUIT",
    Vrfy: "VRFY a",
    Expn: "EXPN a",
    Help: "HELP",
    Etrn: "ETRN a.test",
    StartTls: "STARTTLS",
    Auth: "AUTH PLAIN AGEAYg==",
}

REACHED: dict[SessionState, str] = {
    SessionState.CONNECTED: "",
    SessionState.READY: "EHLO c\r\n",
    SessionState.MAIL_GIVEN: "EHLO c\r\n" + MAIL,
    SessionState.RCPT_GIVEN: "EHLO c\r\n" + MAIL + RCPT,
    SessionState.DATA: "EHLO c\r\n" + MAIL + RCPT + "DATA\r\n",
    SessionState.CHUNK: "EHLO c\r\n" + MAIL + RCPT + "BDAT 2\r\nx",
    SessionState.CHUNKS: "EHLO c\r\n" + MAIL + RCPT + "BDAT 1\r\nx",
    SessionState.AUTH: "EHLO c\r\nAUTH LOGIN\r\n",
    SessionState.CLOSED: "QUIT\r\n",
}
"""What a client says to bring a session into each state but the two in which the server is to act."""


def brought_to(state: SessionState) -> Peer:
    peer = Peer(starttls=True, auth=AuthPolicy.OPTIONAL, auth_in_clear=True, handshake=False)
    if state is SessionState.TLS:
        peer.say("EHLO c\r\nSTARTTLS\r\n")
    elif REACHED[state]:
        peer.say(REACHED[state])
    assert peer.connection.state is state
    return peer


# The table


def test_the_table_reaches_every_state() -> None:
    reached = {SessionState.GREETING}
    while more := {after for (state, _), after in NEXT.items() if state in reached} - reached:
        reached |= more
    assert reached == {*SessionState}


def test_every_state_but_the_last_has_a_way_out_and_can_be_hung_up_on() -> None:
    assert {state for state, _ in NEXT} == {*SessionState} - {SessionState.CLOSED}
    for state in SessionState:
        assert ((state, Occurrence.HUNG_UP) in NEXT) is (state is not SessionState.CLOSED)


def test_every_command_and_every_occurrence_has_its_place() -> None:
    assert {move for _, move in NEXT} == {*MOVES}


def test_the_client_is_read_in_every_state_in_which_it_may_speak() -> None:
    silent = {SessionState.GREETING, SessionState.TLS, SessionState.CLOSED}
    assert {*READING} == {*SessionState} - silent
    assert {state for state, move in NEXT if move is Occurrence.INPUT_ENDED} == {*READING}
    assert {state for state, move in NEXT if move is Noop} == {*BETWEEN_COMMANDS}


@pytest.mark.parametrize("state", SessionState)
@pytest.mark.parametrize("move", MOVES)
def test_a_move_that_the_table_does_not_have_is_refused_and_leaves_the_state(state: SessionState, move: Move) -> None:
    machine = SessionMachine()
    machine.state = state
    after = NEXT.get((state, move))
    if isinstance(move, type):
        assert machine.may(move) is (after is not None)
    if after is None:
        with pytest.raises(LocalProtocolError):
            machine.move(move)
        assert machine.state is state
    else:
        machine.move(move)
        assert machine.state is after


def assignments_to_state(path: Path) -> Iterator[str]:
    """The functions of a module in which something's `state` is set."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store):
                    yield f"{path.stem}.{function.name}"


def test_nothing_else_sets_a_state() -> None:
    folder = Path(trimta.smtp.__file__).parent
    assert [name for path in sorted(folder.glob("*.py")) for name in assignments_to_state(path)] == [
        "state.__init__",
        "state.move",
    ]


# The core


@pytest.mark.parametrize("state", BETWEEN_COMMANDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_of_states_is_what_happens(state: SessionState, command: type[Command]) -> None:
    peer = brought_to(state)
    replies = peer.say(LINES[command] + "\r\n")
    after = NEXT.get((state, command))
    if command is Bdat:
        assert replies == []  # a chunk comes in before its BDAT is answered, also that of a BDAT that is refused
        assert peer.connection.receiving_content
        assert peer.connection.state is (after or state)
        assert peer.say("x") == [QUEUED if after else BAD_ORDER]
        assert peer.connection.state is (SessionState.CHUNKS if after else state)
    elif after is None:
        assert replies == [BAD_ORDER]
        assert peer.connection.state is state
    else:
        assert len(replies) == 1
        assert replies[0][0] in "23"
        assert peer.connection.state is after


@pytest.mark.parametrize("state", BETWEEN_COMMANDS)
@pytest.mark.parametrize("command", [command for command in COMMANDS if command is not Bdat])
def test_a_command_that_is_refused_changes_nothing(state: SessionState, command: type[Command]) -> None:
    peer = brought_to(state)
    if (state, command) not in NEXT or command is Quit:
        return
    peer.policy = lambda _: Reply.of(450, "4.3.0", "later")
    assert peer.say(LINES[command] + "\r\n") == ["450 4.3.0"]
    assert peer.connection.state is state is NEXT[state, Occurrence.REFUSED]


def test_quit_ends_the_session_whatever_it_is_answered_with() -> None:
    peer = brought_to(SessionState.READY)
    peer.policy = lambda _: Reply.of(450, "4.3.0", "later")
    assert peer.say("QUIT\r\n") == ["450 4.3.0"]
    assert peer.closed


@pytest.mark.parametrize("state", [*BETWEEN_COMMANDS, SessionState.AUTH])
@pytest.mark.parametrize("line", [*LINES.values(), "FOO", "", "*", "YQ=="])
def test_every_line_has_one_answer_in_every_state_that_reads_lines(state: SessionState, line: str) -> None:
    peer = brought_to(state)
    assert (
        len(peer.say(f"{line}\r\n" + ("x" if peer.connection.state in BETWEEN_COMMANDS and "BDAT" in line else "")))
        == 1
    )


@pytest.mark.parametrize("line", [*LINES.values(), "FOO", "", "*"])
def test_no_line_is_a_command_where_content_is_due(line: str) -> None:
    peer = brought_to(SessionState.DATA)
    assert peer.say(f"{line}\r\n") == []
    assert peer.say(".\r\n") == [QUEUED]
    assert peer.messages == [f"{line}\n".encode()]
    assert peer.connection.state is SessionState.READY
    peer = brought_to(SessionState.CHUNKS)
    assert peer.say(f"BDAT {len(line)} LAST\r\n{line}") == [QUEUED]
    assert peer.messages == [b"x" + line.encode()]
    assert peer.connection.state is SessionState.READY


@pytest.mark.parametrize("response", ["YQ==", "*", "no Base64", "QUIT"])
def test_a_response_to_auth_leads_back_or_to_the_next(response: str) -> None:
    peer = brought_to(SessionState.AUTH)
    peer.policy = lambda event: Reply.of(334, "", "") if event == AuthResponse(b"a") else None
    replies = peer.say(f"{response}\r\n")
    challenged = replies == ["334"]
    assert challenged is (response == "YQ==")
    assert peer.connection.state is (SessionState.AUTH if challenged else SessionState.READY)


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.CLOSED])
def test_a_421_ends_the_session_in_every_state(state: SessionState) -> None:
    if state is SessionState.GREETING:
        connection = ServerConnection(ServerSettings(hostname="mx.dev.test"))
    else:
        connection = brought_to(state).connection
    connection.reply(Reply.of(421, "4.3.2", "stopping"))
    assert connection.data_to_send() == b"421 4.3.2 stopping\r\n"
    assert connection.next_event() is CLOSED
    with pytest.raises(LocalProtocolError):
        connection.reply(Reply.of(421, "4.3.2", "stopping"))


@pytest.mark.parametrize("state", [state for state in SessionState if state in READING])
def test_the_end_of_the_clients_octets_ends_the_session_in_every_state(state: SessionState) -> None:
    peer = brought_to(state)
    peer.connection.receive_data(b"")
    assert peer.connection.next_event() is CLOSED
    assert peer.connection.state is SessionState.CLOSED


def test_a_greeting_opens_the_session_or_ends_it() -> None:
    for reply, state in (
        (Reply.of(220, "", "mx.dev.test"), SessionState.CONNECTED),
        (Reply.of(554, "", "no"), SessionState.CLOSED),
    ):
        connection = ServerConnection(ServerSettings(hostname="mx.dev.test"))
        assert connection.state is SessionState.GREETING
        with pytest.raises(LocalProtocolError):
            connection.next_event()
        connection.reply(reply)
        assert connection.state is state


def test_the_handshake_begins_the_session_anew() -> None:
    connection = brought_to(SessionState.TLS).connection
    connection.start_tls_done()
    assert connection.state is SessionState.CONNECTED
    with pytest.raises(LocalProtocolError):
        connection.start_tls_done()
