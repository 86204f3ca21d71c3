"""`open_server`: a server beside a test in Trio."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trimta.config.errors import ConfigErrors
from trimta.server.start import StartError
from trimta.testing import NotArrivedError, Server, ServerEndedError, open_server

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.testing import Configuration

DEADLINE = 20.0


def deliver(server: Server, *to: str, sender: str = "app@app.test", subject: str = "hello", text: str = "hi\n") -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, ", ".join(to), subject
    message.set_content(text)
    with smtplib.SMTP(server.host, server.port, local_hostname="app.test", timeout=DEADLINE) as client:
        client.send_message(message)


async def send(server: Server, *to: str, sender: str = "app@app.test", subject: str = "hello") -> None:
    with trio.fail_after(DEADLINE):
        await trio.to_thread.run_sync(partial(deliver, server, *to, sender=sender, subject=subject))


# Mailboxes.


async def test_what_is_sent_is_in_the_mailbox_when_sending_returns() -> None:
    async with open_server() as server:
        await send(server, "alice@dev.test")
        (message,) = server.mailbox("alice")
        assert message["Subject"] == "hello"
        assert message.get_content() == "hi\n"
        assert server.mailbox("bob") == []


async def test_messages_are_in_the_order_of_their_delivery() -> None:
    async with open_server() as server:
        for number in range(5):
            await send(server, "alice@dev.test", subject=str(number))
        assert [message["Subject"] for message in server.mailbox("alice")] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("alice", ["1", "2"]),
        ("Alice", ["1", "2"]),
        ("alice@dev.test", ["1"]),
        ("ALICE@Dev.Test", ["1"]),
        ("alice@localhost", ["2"]),
        ("alice+lists@dev.test", ["1"]),
        ("bob@example.com", ["3", "4"]),
        ("carol@example.com", ["3"]),
        ("carol@example.org", ["3"]),
        ("nobody@example.com", []),
        ("nobody", []),
    ],
)
async def test_a_mailbox_has_a_name_or_an_address(name: str, found: list[str]) -> None:
    async with open_server() as server:
        await send(server, "alice+lists@dev.test", subject="1")
        await send(server, "alice@localhost", subject="2")
        await send(server, "bob@example.com", "carol@example.com", "carol@example.org", subject="3")
        await send(server, "bob@example.com", subject="4")
        assert [message["Subject"] for message in server.mailbox(name)] == found


async def test_mail_for_others_is_captured() -> None:
    async with open_server() as server:
        await send(server, "alice@dev.test", "bob@example.com", "carol@example.org")
        assert [message["Delivered-To"] for message in server.captured()] == ["bob@example.com", "carol@example.org"]
        assert [message["Delivered-To"] for message in server.captured("example.org")] == ["carol@example.org"]
        assert server.captured("dev.test") == []
        assert server.queue == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("team", "alias: look for alice@localhost, bob@localhost"),
        ("nobody", "no such user"),
        ("bob@partner.test", "its mail goes to discard"),
        ("a@b@c", "a@b@c"),
    ],
)
async def test_a_name_without_a_mailbox_is_a_mistake_of_the_test(name: str, problem: str) -> None:
    config = {
        "aliases": {"team": ["alice", "bob"]},
        "local": {"users": ["alice", "bob"]},
        "routes": {"partner.test": "discard"},
    }
    async with open_server(config) as server:
        with pytest.raises(ValueError, match=problem):
            server.mailbox(name)


async def test_header_fields_in_utf_8_are_read_as_such() -> None:
    async with open_server() as server:
        text = "From: app@app.test\r\nSubject: Grüße aus Köln\r\n\r\nhi\r\n"
        await trio.to_thread.run_sync(raw, server, text.encode())
        (message,) = server.mailbox("alice")
        assert message["Subject"] == "Grüße aus Köln"
        (path,) = (server.maildir("alice") / "new").iterdir()
        assert path.read_bytes().endswith(text.replace("\r\n", "\n").encode())


def raw(server: Server, content: bytes) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=DEADLINE) as client:
        client.sendmail("app@app.test", ["alice@dev.test"], content)


# Waiting.


async def test_waiting_begins_before_the_message_comes() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(send, server, "alice@dev.test")
        message = await server.wait_for(to="alice", timeout=DEADLINE)
        assert message["Subject"] == "hello"


@pytest.mark.parametrize(
    ("wanted", "subject"),
    [
        ({}, "[Shop] one"),
        ({"to": "alice"}, "[Shop] one"),
        ({"to": "bob@dev.test"}, "two"),
        ({"to": "BOB@DEV.TEST"}, "two"),
        ({"to": "bob", "from_": "<>"}, None),
        ({"from_": "shop@app.test"}, "two"),
        ({"from_": "shop@app.test", "to": "carol"}, "two"),
        ({"subject": "two"}, "two"),
        ({"subject": "t*"}, "two"),
        ({"subject": "[Shop] one"}, "[Shop] one"),
        ({"subject": "[[]Shop] *"}, "[Shop] one"),
        ({"subject": "one"}, None),
        ({"to": "bob", "subject": "[Shop] one"}, None),
        ({"to": "dave"}, None),
    ],
)
async def test_the_oldest_message_that_matches_is_found(wanted: dict[str, Any], subject: str | None) -> None:
    async with open_server() as server:
        await send(server, "alice@dev.test", subject="[Shop] one")
        await send(server, "bob@dev.test", "carol@example.com", sender="shop@app.test", subject="two")
        if subject is None:
            with pytest.raises(NotArrivedError):
                await server.wait_for(**wanted, timeout=0.01)
        else:
            assert (await server.wait_for(**wanted, timeout=DEADLINE))["Subject"] == subject


async def test_who_waits_in_vain_is_told_what_came_instead() -> None:
    config = {"local": {"users": ["alice"]}, "routes": {"later.test": "hold"}}
    async with open_server(config) as server:
        await send(server, "alice@dev.test", "carol@later.test", subject="not this one")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            await send(server, "bob@dev.test")
        with pytest.raises(AssertionError) as caught:
            await server.wait_for(to="bob", subject="hello", timeout=0.01)
        text = str(caught.value)
        for part in (
            "no message to 'bob', subject 'hello' within 0.01 s",
            "to alice@dev.test from <app@app.test>, subject 'not this one'",
            "held after 0 tries, to carol@later.test: not tried",
            "550 5.1.1",
        ):
            assert part in text


async def test_who_waits_in_vain_is_told_what_was_returned_to_its_sender() -> None:
    config = {"local": {"domains": ["partner.test"], "users": ["alice"]}}
    async with open_server(config) as next_hop, open_server({"routes": {"*": f"smtp:{next_hop.address}"}}) as server:
        await send(server, "bob@partner.test")
        await server.settle(DEADLINE)
        with pytest.raises(AssertionError, match=r"refused:\n  to bob@partner\.test reply 550 5\.1\.1"):
            await server.wait_for(to="bob@partner.test", timeout=0.01)


# The queue and its clock.


async def test_a_test_moves_the_clock_through_retries() -> None:
    partner = {"local": {"domains": ["partner.test"]}}
    async with open_server(partner) as next_hop:
        config = {"routes": {"partner.test": f"smtp:{next_hop.address}"}, "queue": {"retry": ["1m", "1h"]}}
        async with open_server(config) as server:
            next_hop.faults.add(stage="rcpt", reply="451 4.7.1 greylisted", times=2)
            await send(server, "bob@partner.test")
            await server.settle(DEADLINE)
            (entry,) = server.queue
            assert (entry.state, entry.attempts, entry.domain) == ("deferred", 1, "partner.test")
            assert [(one.address, one.status) for one in entry.recipients] == [("bob@partner.test", "4.7.1")]
            assert entry.next_try is not None
            assert 55 < (entry.next_try - server.now).total_seconds() <= 60
            await server.advance("1m")
            assert [entry.attempts for entry in server.queue] == [2]
            assert next_hop.mailbox("bob") == []
            await server.advance(3600)
            assert server.queue == []
            assert len(next_hop.mailbox("bob")) == 1


async def test_what_can_not_be_delivered_comes_back_when_its_time_is_over() -> None:
    async with open_server() as next_hop, open_server({"routes": {"*": f"smtp:{next_hop.address}"}}) as server:
        next_hop.faults.add(stage="connect", reply="421 4.3.2 busy")
        await send(server, "bob@partner.test", sender="alice@dev.test")
        await server.advance("5d")
        assert server.queue == []
        warning = await server.wait_for(to="alice", from_="<>", timeout=DEADLINE)
        assert warning.get_content_type() == "multipart/report"
        assert len(server.mailbox("alice")) == 2


async def test_the_queue_is_steered_like_trimta_queue_does() -> None:
    async with open_server({"routes": {"later.test": "hold"}}) as server:
        for number in range(3):
            await send(server, f"{number}@later.test")
        first, second, third = server.queue
        assert {(entry.state, entry.next_try) for entry in server.queue} == {("held", None)}
        server.queue.release(first.id)
        server.queue.remove(second.id)
        await server.settle(DEADLINE)
        assert server.queue == [third]
        assert [message["Delivered-To"] for message in server.captured()] == ["0@later.test"]
        server.queue.release(third.id, via="discard")
        await server.settle(DEADLINE)
        assert not server.queue
        with pytest.raises(ValueError, match="teleport"):
            server.queue.release(third.id, via="teleport:home")


async def test_retry_and_hold_act_at_once() -> None:
    async with open_server() as next_hop, open_server({"routes": {"*": f"smtp:{next_hop.address}"}}) as server:
        next_hop.faults.add(stage="mail", reply="451 4.3.0 later", times=2)
        await send(server, "bob@example.com")
        await server.settle(DEADLINE)
        (entry,) = server.queue
        server.queue.hold(entry.id)
        server.queue.retry()
        await server.settle(DEADLINE)
        assert [(entry.state, entry.attempts) for entry in server.queue] == [("held", 1)]
        server.queue.release(entry.id)
        await server.settle(DEADLINE)
        assert [(entry.state, entry.attempts) for entry in server.queue] == [("deferred", 2)]
        server.queue.retry(domain="Example.COM")
        await server.settle(DEADLINE)
        assert server.queue == []


# The configuration.


@pytest.mark.parametrize("form", ["dict", "text", "path", "path in a text"])
async def test_a_configuration_is_like_conf_toml(form: str, tmp_path: Path) -> None:
    text = 'hostname = "mx.app.test"\n[local]\ndomains = ["app.test"]\nmaildir = "mail/{user}"\n'
    path = tmp_path / "conf.toml"
    path.write_text(text)
    forms: dict[str, Configuration] = {
        "dict": {
            "hostname": "mx.app.test",
            "local": {"domains": ("app.test",), "maildir": tmp_path / "mail" / "{user}"},
        },
        "text": text,
        "path": path,
        "path in a text": str(path),
    }
    async with open_server(forms[form]) as server:
        await send(server, "alice@app.test")
        assert len(server.mailbox("alice")) == 1
        assert (tmp_path / "mail" / "alice").is_dir() is (form != "text")  # relative to the file, else to a folder
        assert "by mx.app.test" in server.mailbox("alice")[0]["Received"]
        assert not server.data_dir.is_relative_to(tmp_path)


async def test_a_data_dir_of_the_test_outlives_the_server(tmp_path: Path) -> None:
    config = {"data_dir": tmp_path, "routes": {"later.test": "hold"}}
    async with open_server(config) as server:
        await send(server, "bob@later.test")
    async with open_server(config) as server:
        assert [entry.domain for entry in server.queue] == ["later.test"]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"queue": {"retries": ["1m"]}}, r"config:1: \[queue\] retries: unknown key"),
        ("[queue]\n\nretry = 5", r"config:3: \[queue\] retry: found the number 5"),
        ({"local": "alice"}, r"local: found .* expected a table"),
        ({"listen": [{"protocol": "gopher"}]}, r"protocol: found"),
        ("hostname =", r"config:1: not TOML"),
    ],
)
async def test_a_mistake_in_it_is_told_as_trimta_check_tells_it(config: Configuration, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=problem):
        async with open_server(config):
            raise AssertionError("it has started")


async def test_every_listener_is_on_a_port_of_its_own(tmp_path: Path) -> None:
    listen = [{}, {"protocol": "submission"}, {"protocol": "lmtp"}, {"address": f"unix:{tmp_path / 'lmtp'}"}]
    async with open_server({"listen": listen}) as server:
        assert server.address == f"{server.host}:{server.port}" == server.addresses[0]
        assert len({*server.addresses}) == 4
        assert server.addresses[3] == f"unix:{tmp_path / 'lmtp'}"


async def test_tls_comes_with_an_authority_to_trust() -> None:
    async with open_server({"listen": [{"tls": "starttls"}]}) as server:
        assert server.ca is not None
        assert server.ca.read_text().startswith("-----BEGIN CERTIFICATE-----")


async def test_a_port_in_use_is_told_before_the_block() -> None:
    async with open_server() as server:
        with pytest.raises(StartError, match="in use"):
            async with open_server({"listen": [{"address": server.address}]}):
                raise AssertionError("it has started")


async def test_many_servers_do_not_disturb_each_other() -> None:
    async with open_server() as one, open_server() as two:
        await send(one, "alice@dev.test", subject="one")
        await send(two, "alice@dev.test", subject="two")
        assert [message["Subject"] for message in one.mailbox("alice")] == ["one"]
        assert [message["Subject"] for message in two.mailbox("alice")] == ["two"]


# Faults.


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"stage": "rset", "drop": True}, 'stage: found "rset"'),
        ({"stage": "rcpt"}, "nothing that happens"),
        ({"stage": "rcpt", "reply": "nonsense"}, "reply: found"),
        ({"stage": "rcpt", "delay": "soon"}, "duration"),
        ({"stage": "rcpt", "delay": -1}, "time goes forward"),
        ({"stage": "mail", "recipient": "a*", "drop": True}, "recipient"),
    ],
)
async def test_a_fault_that_can_not_be_is_refused(fault: dict[str, Any], problem: str) -> None:
    async with open_server() as server:
        with pytest.raises(ValueError, match=problem):
            server.faults.add(**fault)


async def test_events_tell_what_happened() -> None:
    async with open_server() as server:
        await send(server, "alice@dev.test")
        names = [event.name for event in server.events]
        assert names.index("accepted") < names.index("delivered")


# The end.


async def test_after_the_end_nothing_can_be_asked_of_the_queue() -> None:
    async with open_server() as server:
        pass
    with pytest.raises(ServerEndedError):
        _ = server.queue
    assert not server.data_dir.exists()
