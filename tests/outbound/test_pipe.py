"""`pipe:` routes: how a command is called, and what its end means.  Real commands, hence real time."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.lab import open_lab
from tests.support.sending import recipient
from trimta.config.route_syntax import parse_route
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import ByMode, DeliverBy, Notify, Terms
from trimta.mail.outcome import Delivered, Handover
from trimta.outbound.transports import pipe
from trimta.runtime.disk import InlineDisk
from trimta.store.queue.values import StoredMessage
from trimta.store.spool import Body, BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trimta.mail.outcome import Outcome

DEADLINE = 20.0
CONTENT = b"Subject: hi\n\nFrom here on\n.\n"
NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
async def deadline() -> AsyncGenerator[None, None]:
    with trio.fail_after(DEADLINE):
        yield


def stored(
    content: bytes | Body = CONTENT, sender: str | None = "me@here.test", deliver_by: DeliverBy | None = None
) -> StoredMessage:
    return StoredMessage(
        id="m1",
        arrived=0.0,
        terms=Terms(reverse_path=parse_mailbox(sender) if sender else None, deliver_by=deliver_by),
        content=content if isinstance(content, Body) else Body.of(content),
        trace=b"Received: x\n",
    )


async def run(
    command: str,
    folder: Path,
    *,
    to: Sequence[str] = ("a@x.test",),
    message: StoredMessage | None = None,
    limit: float = DEADLINE,
) -> list[Outcome]:
    """Deliver by `pipe:` and this command line."""
    route: Any = parse_route(f"pipe:{command}", folder)
    recipients = [recipient(address) for address in to]
    return await pipe.deliver(
        route, message or stored(), recipients, "x.test", folder=folder, limit=limit, disk=InlineDisk(), now=NOW
    )


def sh(script: str) -> str:
    """A command line that runs a shell script."""
    return f"/bin/sh -c {shlex.quote(script)}"


def verdict(outcomes: Sequence[Outcome]) -> str:
    (outcome,) = outcomes
    return f"{type(outcome).__name__} {outcome.status}"


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def running(group: str) -> list[str]:
    """Processes of a group; those that have ended and wait to be reaped are none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if its_group == group and state not in "ZX":
                found.append(path.parent.name)
    return found


async def ended(group: str) -> None:
    """Until nothing of a group runs: what was killed ends in its own time."""
    while running(group):  # noqa: ASYNC110
        await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", "Delivered 2.0.0"),
        ("exit 75", "Deferred 4.3.0"),
        ("kill -9 $$", "Deferred 4.3.0"),
        ("kill -TERM $$", "Deferred 4.3.0"),
        ("exit 67", "Failed 5.1.1"),
        ("exit 77", "Failed 5.7.0"),
        ("exit 1", "Failed 5.3.0"),
        ("exit 64", "Failed 5.3.0"),
        ("exit 127", "Failed 5.3.0"),
        ("exit 255", "Failed 5.3.0"),
    ],
)
async def test_the_exit_code_decides(script: str, expected: str, tmp_path: Path) -> None:
    assert verdict(await run(sh(script), tmp_path)) == expected


async def test_all_recipients_share_it(tmp_path: Path) -> None:
    outcomes = await run(sh("exit 67"), tmp_path, to=["a@x.test", "b@x.test"])
    assert [str(outcome.recipient.address) for outcome in outcomes] == ["a@x.test", "b@x.test"]
    assert {str(outcome.status) for outcome in outcomes} == {"5.1.1"}


@pytest.mark.parametrize(
    ("words", "to", "sender", "expected"),
    [
        ("{recipients}", ["a@x.test"], "me@here.test", ["a@x.test"]),
        ("-r {nexthop}!rmail {recipients}", ["a@x.test", "b@x"], None, ["-r", "x.test!rmail", "a@x.test", "b@x"]),
        ("{sender} {id} {nexthop}", ["a@x.test"], "me@here.test", ["me@here.test", "m1", "x.test"]),
        ("{sender}", ["a@x.test"], None, [""]),
        ("-f{sender} {nexthop}{id}", ["a@x.test"], "me@here.test", ["-fme@here.test", "x.testm1"]),
        ("'two words' $HOME `id` '*'", ["a@x.test"], None, ["two words", "$HOME", "`id`", "*"]),
        ("{recipients}", ["`id`@x.test", '"; rm -rf"@x.test'], None, ["`id`@x.test", '"; rm -rf"@x.test']),
        ("{sender}", ["a@x.test"], "{id}{nexthop}@here.test", ["{id}{nexthop}@here.test"]),
        ("{recipients}", ["jürgen@x.test"], None, ["jürgen@x.test"]),
    ],
)  # fmt: skip
async def test_a_word_is_an_argument(
    words: str, to: list[str], sender: str | None, expected: list[str], tmp_path: Path
) -> None:
    script = "import os, sys; open('argv', 'wb').write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    outcomes = await run(
        f"{sys.executable} -c {shlex.quote(script)} {words}", tmp_path, to=to, message=stored(sender=sender)
    )
    assert {type(outcome).__name__ for outcome in outcomes} == {"Delivered"}
    assert (tmp_path / "argv").read_bytes().decode().split("\0") == expected


async def test_an_address_is_never_an_option(tmp_path: Path) -> None:
    outcomes = await run(f"/usr/bin/touch {tmp_path}/{{id}} {{recipients}}", tmp_path, to=["-rf@x.test", "a@x.test"])
    assert [(str(o.recipient.address), type(o).__name__) for o in outcomes] == [
        ("a@x.test", "Delivered"),
        ("-rf@x.test", "Failed"),
    ]
    assert names(tmp_path) == ["a@x.test", "m1"]
    assert verdict(await run("/bin/true {recipients}", tmp_path, to=["-x@x.test"])) == "Failed 5.1.3"
    dashed = stored(sender="-x@here.test")
    assert verdict(await run("/bin/true {sender}", tmp_path, message=dashed)) == "Failed 5.1.7"
    assert verdict(await run("/bin/true -f{sender}", tmp_path, message=dashed)) == "Delivered 2.0.0"
    assert verdict(await run("/bin/cat", tmp_path, to=["-x@x.test"], message=dashed)) == "Delivered 2.0.0"


@pytest.mark.parametrize("sender", ["me@here.test", None])
async def test_standard_input_is_the_message(sender: str | None, tmp_path: Path) -> None:
    await run(sh("cat > got"), tmp_path, message=stored(sender=sender))
    path = b"<me@here.test>" if sender else b"<>"
    assert (tmp_path / "got").read_bytes() == b"Return-Path: " + path + b"\nReceived: x\n" + CONTENT


async def test_a_large_message_comes_whole(tmp_path: Path) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"Subject: large\n\n" + b"0123456789abcde\n" * 100_000)
    body = Body(spooled.stat().st_size, 100_002, None, spooled)
    await run(sh("cat > got"), tmp_path, message=stored(body))
    assert (tmp_path / "got").read_bytes().endswith(spooled.read_bytes())


async def test_the_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    await run(sh("env > got; pwd >> got; ls /proc/self/fd > fds"), tmp_path)
    *variables, folder = (tmp_path / "got").read_text().splitlines()
    known = {variable.partition("=")[0] for variable in variables}
    assert known - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LANG"}
    assert (Path(folder) / "got").samefile(tmp_path / "got")
    assert len((tmp_path / "fds").read_text().split()) <= 5


async def test_the_last_of_its_output_is_kept(tmp_path: Path) -> None:
    (outcome,) = await run(sh("seq 100000; echo the end >&2; exit 1"), tmp_path)
    said = outcome.cause.diagnostic.partition(": ")[2]
    assert said.endswith("\n99999\n100000\nthe end")
    assert 4000 < len(said) <= pipe.OUTPUT


@pytest.mark.parametrize("script", ["sleep 600", "trap '' TERM; sleep 600 & wait; sleep 600", "exec cat /dev/zero"])
async def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(script: str, tmp_path: Path) -> None:
    outcomes = await run(sh(f"echo $$ > pid; {script}"), tmp_path, limit=0.3)
    assert verdict(outcomes) == "Deferred 4.3.0"
    assert "longer than 0.3 s" in outcomes[0].cause.diagnostic
    await ended((tmp_path / "pid").read_text().strip())


async def test_a_command_that_does_not_listen_may_still_succeed(tmp_path: Path) -> None:
    large = stored(b"x\n" * 1_000_000)
    assert verdict(await run(sh("exit 0"), tmp_path, message=large)) == "Delivered 2.0.0"
    assert verdict(await run(sh("exec <&-; exit 0"), tmp_path, message=large)) == "Delivered 2.0.0"


@pytest.mark.parametrize("script", ["sleep 30 & exit 0", "sleep 30 </dev/null & exit 0", "(sleep 30; echo x) & exit 0"])
async def test_a_child_in_the_background_keeps_nobody_waiting_and_lives_on(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "LINGER", 0.1)
    with trio.fail_after(10):
        outcomes = await run(sh(f"echo $$ > pid; {script}"), tmp_path, message=stored(b"x\n" * 1_000_000))
    assert verdict(outcomes) == "Delivered 2.0.0"
    group = (tmp_path / "pid").read_text().strip()
    assert running(group)
    os.killpg(int(group), signal.SIGKILL)


@pytest.mark.parametrize("command", ["/nonexistent/command", "/", "/etc/hostname"])
async def test_a_command_that_cannot_be_run_is_this_servers_fault(command: str, tmp_path: Path) -> None:
    outcomes = await run(command, tmp_path)
    assert verdict(outcomes) == "Deferred 4.3.5"
    assert command in outcomes[0].cause.diagnostic


@pytest.mark.parametrize("spoil", ["missing", "short"])
async def test_a_command_never_takes_half_a_message_for_a_whole(spoil: str, tmp_path: Path) -> None:
    spooled = tmp_path / "spooled"
    if spoil == "short":
        spooled.write_bytes(b"x" * 1000)
    with pytest.raises(BodyDamagedError):
        await run(sh("cat > half && mv half whole"), tmp_path, message=stored(Body(2000, 0, None, spooled)))
    assert not (tmp_path / "whole").exists()


async def test_who_is_cancelled_leaves_no_process_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")

    def wait() -> None:
        (tmp_path / "started").read_text()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, sh("echo $$ > pid; echo > started; sleep 600"), tmp_path)
        await trio.to_thread.run_sync(wait)
        nursery.cancel_scope.cancel()
    await ended((tmp_path / "pid").read_text().strip())


async def test_a_command_relays_and_does_not_deliver(tmp_path: Path) -> None:
    """RFC 3461 5.2.4: what becomes of the message behind it is not known."""
    (outcome,) = await run(sh("cat > /dev/null"), tmp_path)
    assert isinstance(outcome, Delivered)
    assert outcome.handover is Handover.RELAYED
    assert not outcome.deadline_dropped


@pytest.mark.parametrize(
    ("by", "expected", "dropped"),
    [
        (DeliverBy(NOW + 60, ByMode.NOTIFY), "Delivered 2.0.0", True),
        (DeliverBy(NOW - 60, ByMode.NOTIFY), "Delivered 2.0.0", False),
        (DeliverBy(NOW + 60, ByMode.RETURN), "Failed 5.3.3", False),
        (DeliverBy(NOW + 60, ByMode.RETURN, trace=True), "Failed 5.3.3", False),
    ],
)
async def test_a_command_is_as_a_host_without_deliverby(
    tmp_path: Path, by: DeliverBy, expected: str, *, dropped: bool
) -> None:
    """RFC 2852 4.1.5."""
    outcomes = await run(sh("cat > taken"), tmp_path, message=stored(deliver_by=by))
    assert verdict(outcomes) == expected
    assert getattr(outcomes[0], "deadline_dropped", False) is dropped
    assert (names(tmp_path) == ["taken"]) is expected.startswith("Delivered")


@pytest.mark.parametrize(
    ("notify", "by", "told"),
    [
        (frozenset({Notify.SUCCESS}), None, ["relayed 2.0.0"]),
        (None, None, []),
        (None, DeliverBy(NOW + 60, ByMode.NOTIFY), ["relayed 2.0.0"]),
        (frozenset({Notify.NEVER}), DeliverBy(NOW + 60, ByMode.NOTIFY), []),
        (None, DeliverBy(NOW + 60, ByMode.RETURN), ["failed 5.3.3"]),
    ],
)
async def test_the_sender_is_told_of_a_command_as_of_a_relay(
    tmp_path: Path, notify: frozenset[Notify] | None, by: DeliverBy | None, told: list[str]
) -> None:
    async with open_lab(tmp_path, config=f'[routes]\n"*" = "pipe:{shutil.which("cat")}"', wall=lambda: NOW) as lab:
        await lab.submit(recipient("a@x.test", notify=notify), deliver_by=by)
        await lab.idle()
        assert [verdict for dsn in lab.dsns() for verdict in dsn.verdicts.values()] == told
