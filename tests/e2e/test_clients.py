"""Other people's clients: each can say what it offers to say, with TLS verified and passwords checked."""

from __future__ import annotations

import re
import smtplib
import ssl
from email.message import EmailMessage
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.process import TrimtaProcess
from tests.support.software import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIGURATION: Final = """
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
tls = "starttls"
[[listen]]
address = "127.0.0.1:0"
protocol = "submission"
tls = "starttls"
auth = "required"
[[listen]]
address = "127.0.0.1:0"
protocol = "submission"
tls = "implicit"
auth = "required"
[[listen]]
address = "127.0.0.1:0"
protocol = "lmtp"
[auth]
users = { ann = "secret" }
[local]
users = ["ann", "bob", "carol", "jörg"]
"""

PLAIN: Final = "smtp"
STARTTLS: Final = "smtp, tls starttls"
SUBMISSION: Final = "submission, tls starttls"
IMPLICIT: Final = "submission, tls implicit"

LONG: Final = "\r\n".join(f"{number} " + "." * (number % 70) for number in range(2_000))
"""A body with many dots at the start of lines, and longer than any buffer."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrimtaProcess]:
    with TrimtaProcess(tmp_path_factory.mktemp("clients"), CONFIGURATION) as server:
        yield server


@pytest.fixture
def newest(server: TrimtaProcess) -> Callable[[str], EmailMessage]:
    """Returns the one message that has come for a user during the test: it is there at the client's 250."""
    before = {user: len(server.messages(user)) for user in ("ann", "bob", "carol", "j%C3%B6rg", "remote")}

    def newest(user: str) -> EmailMessage:
        new = server.messages(user)[before[user] :]
        assert len(new) == 1, new
        return new[0]

    return newest


def is_report(message: EmailMessage) -> bool:
    return message.get_content_type() == "multipart/report"


def context(server: TrimtaProcess) -> ssl.SSLContext:
    """Verifies the server's certificate."""
    return ssl.create_default_context(cafile=server.ca)


# Python's own.


def smtp(server: TrimtaProcess, kind: str = PLAIN) -> smtplib.SMTP:
    return smtplib.SMTP("localhost", server.port_of(kind), timeout=10)


def test_smtplib_with_utf8_everywhere(server: TrimtaProcess, newest: Callable[[str], EmailMessage]) -> None:
    message = EmailMessage()
    message["From"] = "Bülent <bülent@übermail.test>"
    message["To"] = "jörg@dev.test"
    message["Subject"] = "grüße"
    message.set_content("schöne grüße\n")
    with smtp(server) as client:
        assert client.send_message(message) == {}
    received = newest("j%C3%B6rg")
    assert "UTF8SMTP" in received["Received"]
    assert (received["Subject"], received.get_content()) == ("grüße", "schöne grüße\n")
    assert received["Return-Path"] == "<bülent@übermail.test>"


def test_smtplib_asks_for_a_dsn(server: TrimtaProcess, newest: Callable[[str], EmailMessage]) -> None:
    with smtp(server) as client:
        client.sendmail(
            "carol@dev.test",
            ["bob@dev.test"],
            "Subject: important\n\nindeed\n",
            mail_options=["RET=HDRS", "ENVID=QQ314159"],
            rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Bob@old.example"],
        )
    newest("bob")
    report = server.wait_for_message("carol", is_report)
    _, machine, returned = report.iter_parts()
    of_message, of_recipient = machine.iter_parts()
    assert of_message["Original-Envelope-Id"] == "QQ314159"
    assert of_recipient["Original-Recipient"] == "rfc822; Bob@old.example"
    assert (of_recipient["Action"], of_recipient["Status"]) == ("delivered", "2.0.0")
    assert returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_smtplib_by_starttls_with_a_password(
    server: TrimtaProcess, newest: Callable[[str], EmailMessage], mechanism: str
) -> None:
    with smtp(server, SUBMISSION) as client:
        client.ehlo()
        assert client.mail("ann@dev.test")[0] == 530
        tls = context(server)
        tls.maximum_version = ssl.TLSVersion.TLSv1_2 if mechanism == "LOGIN" else ssl.TLSVersion.TLSv1_3
        client.starttls(context=tls)
        client.ehlo()
        assert set(client.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN"}
        client.user, client.password = "ann", "secret"
        client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
        client.sendmail("ann@dev.test", ["bob@dev.test"], "hi\n")
    received = newest("bob")
    assert "ESMTPSA" in received["Received"]
    assert re.search(r"\stls TLS_[A-Z0-9_]+; ", received["Received"]), "by its name in IANA's registry"
    assert {"Date", "Message-ID", "From"} <= set(received.keys()), "a submission is completed"


def test_smtplib_by_implicit_tls_with_a_wrong_password(server: TrimtaProcess) -> None:
    port = server.port_of(IMPLICIT)
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=10, context=context(server)) as client:
        client.ehlo()
        client.user, client.password = "ann", "not-this-one"
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.auth("PLAIN", client.auth_plain)
        assert refused.value.smtp_code == 535
        assert client.mail("ann@dev.test")[0] == 530
    assert "not-this-one" not in server.log


def test_a_client_that_trusts_other_cas_is_not_served_and_harms_nobody(server: TrimtaProcess) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        smtplib.SMTP_SSL("localhost", server.port_of(IMPLICIT), timeout=10, context=ssl.create_default_context())
    with smtp(server) as client:
        assert client.noop()[0] == 250


def test_smtplib_speaks_lmtp(server: TrimtaProcess, newest: Callable[[str], EmailMessage]) -> None:
    with smtplib.LMTP("127.0.0.1", server.port_of("lmtp")) as client:
        client.ehlo()
        client.mail("ann@dev.test")
        assert [client.rcpt(f"{user}@dev.test")[0] for user in ("bob", "nobody", "carol")] == [250, 550, 250]
        assert client.data(b"Subject: hi\n\nthere\n")[0] == 250
        assert client.getreply()[0] == 250, "one reply for each recipient"
    assert "with LMTP" in newest("bob")["Received"]
    newest("carol")


# swaks.


@pytest.mark.parametrize(
    ("kind", "options", "protocol"),
    [
        (PLAIN, [], "ESMTP"),
        (PLAIN, ["--protocol", "SMTP"], "SMTP"),
        (PLAIN, ["--pipeline"], "ESMTP"),
        (PLAIN, ["--auth", "PLAIN"], "ESMTPA"),
        (PLAIN, ["--auth", "LOGIN"], "ESMTPA"),
        (STARTTLS, ["--tls"], "ESMTPS"),
        (STARTTLS, ["--tls", "--pipeline"], "ESMTPS"),
        (SUBMISSION, ["--tls", "--auth", "PLAIN"], "ESMTPSA"),
        (SUBMISSION, ["--tls", "--auth", "LOGIN", "--pipeline"], "ESMTPSA"),
        (IMPLICIT, ["--tls-on-connect", "--auth", "PLAIN"], "ESMTPSA"),
        ("lmtp", ["--protocol", "LMTP"], "LMTP"),
    ],
)
def test_swaks(
    server: TrimtaProcess,
    newest: Callable[[str], EmailMessage],
    kind: str,
    options: list[str],
    protocol: str,
) -> None:
    if any(option.startswith("--tls") for option in options):
        options = [*options, "--tls-verify", "--tls-ca-path", str(server.ca)]
    if "--auth" in options:
        options = [*options, "--auth-user", "ann", "--auth-password", "secret"]
    addresses = ("--from", "ann@dev.test", "--to", "bob@dev.test,carol@dev.test")
    target = ("--server", "localhost", "--port", str(server.port_of(kind)))
    run(server.folder, "swaks", *addresses, *target, "--body", LONG.replace("\r\n", "\n"), *options)
    for user in ("bob", "carol"):
        received = newest(user)
        assert f"with {protocol} id" in " ".join(received["Received"].split())
        assert received.get_content().rstrip("\n") == LONG.replace("\r\n", "\n")


# curl.


@pytest.mark.parametrize(
    ("scheme", "kind", "options"),
    [
        ("smtp", PLAIN, ["--login-options", "AUTH=LOGIN"]),
        ("smtp", STARTTLS, ["--ssl-reqd"]),
        ("smtp", SUBMISSION, ["--ssl-reqd", "--login-options", "AUTH=PLAIN"]),
        ("smtps", IMPLICIT, []),
    ],
)
def test_curl(
    server: TrimtaProcess,
    newest: Callable[[str], EmailMessage],
    tmp_path: Path,
    scheme: str,
    kind: str,
    options: list[str],
) -> None:
    (tmp_path / "mail.txt").write_bytes(f"Subject: by curl\r\n\r\n{LONG}\r\n".encode())
    url = f"{scheme}://localhost:{server.port_of(kind)}/here.test"
    addresses = ("--mail-from", "ann@dev.test", "--mail-rcpt", "bob@dev.test", "--mail-rcpt", "x@example.com")
    security = ("--cacert", server.ca, "--user", "ann:secret")
    run(tmp_path, "curl", "-sS", url, *addresses, *security, "--upload-file", "mail.txt", *options)
    assert newest("bob").get_content() == LONG.replace("\r\n", "\n") + "\n"
    assert newest("remote")["Delivered-To"] == "x@example.com"


def test_curl_asks_whether_somebody_exists(server: TrimtaProcess, tmp_path: Path) -> None:
    url = f"smtp://127.0.0.1:{server.port_of(PLAIN)}"
    assert "250" in run(tmp_path, "curl", "-sS", "-v", url, "--mail-rcpt", "bob", "-X", "VRFY")
    run(tmp_path, "curl", "-sS", url, "--mail-rcpt", "nobody", "-X", "VRFY", exit_code=8)


# msmtp, s-nail.


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PLAIN, ["--tls=off", "--auth=off"]),
        (PLAIN, ["--tls=off", "--auth=plain"]),
        (SUBMISSION, ["--tls=on", "--tls-starttls=on", "--auth=login"]),
        (IMPLICIT, ["--tls=on", "--tls-starttls=off", "--auth=on"]),
    ],
)
def test_msmtp(
    server: TrimtaProcess,
    newest: Callable[[str], EmailMessage],
    tmp_path: Path,
    kind: str,
    options: list[str],
) -> None:
    target = ("--host=localhost", f"--port={server.port_of(kind)}", f"--tls-trust-file={server.ca}")
    identity = ("--user=ann", "--passwordeval=echo secret", "--from=ann@dev.test")
    dsn = ("-N", "success", "-R", "hdrs")
    subject = f"by msmtp {' '.join(options)}"
    message = f"To: bob@dev.test\nSubject: {subject}\n\n{LONG}\n".replace("\r\n", "\n")
    run(tmp_path, "msmtp", *target, *identity, *dsn, *options, "bob@dev.test", text=message)
    assert newest("bob").get_content() == LONG.replace("\r\n", "\n") + "\n"
    server.wait_for_message("ann", lambda found: is_report(found) and subject in found.as_string())


@pytest.mark.parametrize(
    ("scheme", "kind", "settings"),
    [
        ("smtp", PLAIN, ["smtp-config=-all,ehlo", "tls-verify=ignore"]),
        ("submission", SUBMISSION, ["smtp-config=-all,ehlo,starttls,login", "tls-verify=strict"]),
        ("submissions", IMPLICIT, ["smtp-config=-all,ehlo,plain", "tls-verify=strict"]),
    ],
)
def test_s_nail(
    server: TrimtaProcess,
    newest: Callable[[str], EmailMessage],
    tmp_path: Path,
    scheme: str,
    kind: str,
    settings: list[str],
) -> None:
    settings = [
        *settings,
        "v15-compat",
        f"mta={scheme}://ann:secret@localhost:{server.port_of(kind)}",
        f"tls-ca-file={server.ca}",
        "tls-ca-no-defaults",
        "from=ann@dev.test",
        "sendwait",
        "ttycharset=utf-8",
    ]
    options = [f"-S{setting}" for setting in settings]
    run(tmp_path, "s-nail", "-:/", *options, "-s", "grüße", "bob@dev.test", text="from s-nail\n")
    received = newest("bob")
    assert (received["Subject"], received.get_content()) == ("grüße", "from s-nail\n")
