"""Other MTAs on both sides of us: STARTTLS with verification each way, and reports of each for the other."""

from __future__ import annotations

import re
import smtplib
from email import policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import pytest

from tests.support.daemon import Exim, Neighbour, Postfix
from tests.support.process import TrimtaProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIGURATION: Final = """
hostname = "trimta.test"
[[listen]]
address = "127.0.0.1:0"
tls = "starttls"
[local]
users = ["alice", "zoë"]
[tls]
ca = "{ca}"
[routes]
".test" = {{ transport = "smtp", host = "localhost", port = {port}, tls = "verify" }}
"kept.test" = {{ transport = "smtp", host = "localhost", port = {port}, tls = "verify", username = "ann", \
password_file = "good.secret" }}
"spoiled.test" = {{ transport = "smtp", host = "localhost", port = {port}, tls = "verify", username = "ann", \
password_file = "bad.secret" }}
"""

BODY: Final = "\n".join([".", "..", "schöne Grüße", "a line of 900 " + "x" * 886, "From here", "", *(300 * ["." * 70])])


class Pair(NamedTuple):
    us: TrimtaProcess
    them: Neighbour


@pytest.fixture(scope="module", params=[Postfix, Exim])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    them = cast("type[Neighbour]", request.param)()
    folder = tmp_path_factory.mktemp("neighbours")
    (folder / "good.secret").write_text(Exim.password + "\n")
    (folder / "bad.secret").write_text("wrong\n")
    with (
        TrimtaProcess(folder, CONFIGURATION.format(port=them.port, ca=them.certificates.ca)) as us,
        them.relay_to(us.port, us.ca),
    ):
        yield Pair(us, them)


def message(subject: str, body: str = BODY) -> EmailMessage:
    made = EmailMessage()
    made["From"] = "Somebody <somebody@example.test>"
    made["To"] = "somebody else <other@example.test>"
    made["Subject"] = subject
    made.set_content(body, cte="8bit")
    return made


def send(us: TrimtaProcess, subject: str, recipient: str, *rcpt_options: str, body: str = BODY) -> None:
    """From alice, by us."""
    with smtplib.SMTP("127.0.0.1", us.port, timeout=10) as client:
        octets = message(subject, body).as_bytes().replace(b"\n", b"\r\n")
        options = ["BODY=8BITMIME", "ENVID=E-42"]
        client.sendmail("alice@dev.test", [recipient], octets, mail_options=options, rcpt_options=rcpt_options)


def report(us: TrimtaProcess, subject: str) -> EmailMessage:
    """The report for alice about the message with this subject, when it has come."""

    def is_it(found: EmailMessage) -> bool:
        return found.get_content_type() == "multipart/report" and subject in found.as_string()

    return us.wait_for_message("alice", is_it)


def machine_part(found: EmailMessage) -> Sequence[EmailMessage]:
    """The groups of fields of a report, that of the message first."""
    _, status, *_ = found.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    return cast("Sequence[EmailMessage]", list(status.iter_parts()))


def test_mail_from_us_arrives_as_it_was_by_tls(pair: Pair) -> None:
    us, them = pair
    send(us, "from us", f"ann@{them.domain}")
    found = them.wait_for_mail("ann", "from us")
    assert found.get_content() == BODY + "\n"
    assert (found["Content-Transfer-Encoding"] == "8bit") == isinstance(them, Postfix), (
        "re-encoded only where it must be"
    )
    theirs, ours = (" ".join(field.split()) for field in found.get_all("Received", []))
    assert "by trimta.test" in ours
    assert re.search("TLSv?1", theirs)
    assert found["Return-Path"] == "<alice@dev.test>"
    us.wait_for(rf' delivered .*to=ann@{them.domain} host="localhost \[127\.0\.0\.1\]:{them.port}" status=2\.0\.0')


def test_a_large_message_arrives(pair: Pair) -> None:
    us, them = pair
    body = BODY * 40
    send(us, "a large one", f"ann@{them.domain}", body=body)
    assert them.wait_for_mail("ann", "a large one").get_content() == body + "\n"


def test_a_transaction_of_which_they_refuse_a_part(pair: Pair) -> None:
    us, them = pair
    with smtplib.SMTP("127.0.0.1", us.port, timeout=10) as client:
        recipients = [f"{user}@{them.domain}" for user in ("nobody", "ann", "no.one")]
        client.sendmail("alice@dev.test", recipients, message("to some", "hi\n").as_bytes())
    them.wait_for_mail("ann", "to some")
    _, *of_recipients = machine_part(report(us, "to some"))
    assert [one["Final-Recipient"].split()[1] for one in of_recipients] == [recipients[0], recipients[2]]


def test_utf8_addresses_go_only_where_they_are_understood(pair: Pair) -> None:
    us, them = pair
    with smtplib.SMTP("127.0.0.1", us.port, timeout=10) as client:
        client.ehlo()
        octets = message("grüße").as_bytes(policy=policy.SMTPUTF8)
        client.sendmail("zoë@dev.test", [f"ann@{them.domain}"], octets, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    if isinstance(them, Postfix):
        found = them.wait_for_mail("ann", "grüße")
        assert found["Return-Path"] == "<zoë@dev.test>"
        return
    _, of_recipient = machine_part(us.wait_for_message("zo%C3%AB", lambda _: True))
    assert of_recipient["Status"] == "5.6.7"


def test_their_refusal_is_in_our_report(pair: Pair) -> None:
    us, them = pair
    send(us, "to nobody", f"nobody@{them.domain}")
    of_message, of_recipient = machine_part(report(us, "to nobody"))
    assert of_message["Reporting-MTA"] == "dns; trimta.test"
    assert of_message["Original-Envelope-Id"] == "E-42"
    assert of_recipient["Final-Recipient"] == f"rfc822; nobody@{them.domain}"
    assert of_recipient["Remote-MTA"] == "x-local-hostname; localhost"
    assert (of_recipient["Action"], of_recipient["Status"][:2]) == ("failed", "5.")
    assert of_recipient["Diagnostic-Code"].startswith("smtp; 550 ")


def test_their_report_about_our_mail_comes_back(pair: Pair) -> None:
    us, them = pair
    send(us, "to the closed", "x@closed.test", "NOTIFY=FAILURE", "ORCPT=rfc822;y@old.test")
    found = report(us, "to the closed")
    of_message, of_recipient = machine_part(found)
    assert found["Return-Path"] == "<>"
    assert of_message["Reporting-MTA"] == f"dns; {them.domain}"
    assert of_message["Original-Envelope-Id"] == "E-42"
    assert of_recipient["Original-Recipient"].replace(" ", "") == "rfc822;y@old.test"
    assert of_recipient["Action"] == "failed"
    assert "nobody reads mail here" in found.as_string()


def test_their_success_report_comes_back(pair: Pair) -> None:
    us, them = pair
    send(us, "tell me", f"ann@{them.domain}", "NOTIFY=SUCCESS")
    of_message, of_recipient = machine_part(report(us, "tell me"))
    assert of_message["Reporting-MTA"] == f"dns; {them.domain}"
    assert of_recipient["Final-Recipient"].replace(" ", "") == f"rfc822;ann@{them.domain}"
    assert of_recipient["Action"] == "delivered"


def test_their_mail_arrives_as_it_was_by_tls(pair: Pair) -> None:
    us, them = pair
    them.submit("alice@dev.test", message("from them").as_bytes().decode())
    found = us.wait_for_message("alice", lambda one: one["Subject"] == "from them")
    assert found.get_content() == BODY + "\n"
    assert "with ESMTPS id" in " ".join(found["Received"].split())


def test_our_refusal_is_in_their_report(pair: Pair) -> None:
    them = pair.them
    them.submit("nobody@dev.test", message("to nobody there").as_bytes().decode())
    found = them.wait_for_mail("ann", "eturn")
    _, of_recipient = machine_part(found)
    assert of_recipient["Action"] == "failed"
    assert "550 5.1.1 <nobody@dev.test>: no such user here" in " ".join(of_recipient["Diagnostic-Code"].split())


def test_our_success_report_comes_to_them(pair: Pair) -> None:
    them = pair.them
    with smtplib.SMTP("localhost", them.port, timeout=10) as client:
        them.log_in(client)
        client.sendmail(
            f"ann@{them.domain}",
            ["alice@dev.test"],
            message("tell me, too").as_bytes(),
            mail_options=["ENVID=E-43"],
            rcpt_options=["NOTIFY=SUCCESS"],
        )
    found = them.wait_for_mail("ann", "Mail delivered")
    of_message, of_recipient = machine_part(found)
    assert of_message["Reporting-MTA"] == "dns; trimta.test"
    assert of_message["Original-Envelope-Id"] == "E-43"
    assert of_recipient["Action"] == "delivered"


class TestAuthentication:
    """Exim as a smarthost that wants a password."""

    def test_a_password(self, pair: Pair) -> None:
        us, them = pair
        if not isinstance(them, Exim):
            return
        send(us, "by a smarthost", "zoe@kept.test")
        assert "esmtpsa" in them.wait_for_mail("zoe", "by a smarthost")["Received"]

    def test_a_wrong_password_defers(self, pair: Pair) -> None:
        us, them = pair
        if not isinstance(them, Exim):
            return
        send(us, "with a wrong password", "zoe@spoiled.test")
        us.wait_for(r" deferred .*to=zoe@spoiled\.test .*535")
