"""Other people's mail servers, each with a configuration and a folder of its own, started and ended by a test run.

`Postfix`, `Exim` and `Dovecot` have the same shape: they know their domain, deliver for `ann` into a Maildir that
`mailbox()` reads, and take mail on a port of 127.0.0.1.  As other users than root they can't be started.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trustme

from tests.support.process import eventually, parsed
from tests.support.software import free_port, missing, require, require_root, run
from trimta.store.maildir import messages

if TYPE_CHECKING:
    import smtplib
    from email.message import EmailMessage
    from types import TracebackType
    from typing import Self


class Certificates:
    """A CA, and a certificate of it for this machine's loopback names."""

    def __init__(self, folder: Path) -> None:
        self.ca = folder / "ca.pem"
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        ca = trustme.CA()
        leaf = ca.issue_cert("localhost", "127.0.0.1", "::1")
        ca.cert_pem.write_to_path(self.ca)
        leaf.cert_chain_pems[0].write_to_path(self.certificate)
        leaf.private_key_pem.write_to_path(self.key)
        self.key.chmod(0o644)  # the servers read it as users of their own; it lives as long as the test run


class Daemon:
    """A server in the foreground.  The folder is open to all: the servers have users of their own."""

    domain: str
    command: tuple[str, ...]
    logs: str = "log"
    """Which files of the folder are its logs."""

    def __init__(self) -> None:
        require_root(type(self).__name__)
        self.folder = Path(tempfile.mkdtemp(prefix=f"trimta-{type(self).__name__.lower()}-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.certificates = Certificates(self.folder)
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        """Write the configuration, before the start."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.configure()
            with (self.folder / "output").open("wb") as output:
                self._process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            eventually(self._answers, lambda: f"{self.command[0]} does not start:\n{self.said}")
        except BaseException:  # Ctrl-C too; it is raised again
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"what {self.command[0]} says:\n{self.said}")
        self._end()

    @property
    def pid(self) -> int:
        """The process id of the running server, which may have children."""
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """Its output and its log."""
        files = [self.folder / "output", *sorted(self.folder.glob(self.logs))]
        return "".join(path.read_text(errors="backslashreplace") for path in files if path.is_file())

    def mailbox(self, user: str) -> Path:
        return self.folder / "mail" / user

    def wait_for_mail(self, user: str, subject: str) -> EmailMessage:
        """The message with this subject, when it has come."""

        def look() -> list[EmailMessage]:
            found = [parsed(path.read_bytes()) for path in messages(self.mailbox(user))]
            return [message for message in found if subject in message["Subject"]]

        return eventually(look, lambda: f"no mail {subject!r} for {user}:\n{self.said}")[0]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.recv(3) == b"220"
        except OSError:
            return False

    def _end(self) -> None:
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):  # it led a group of its own, and usually takes it along
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class Neighbour(Daemon):
    """An MTA that relays what is not for itself to the next, by STARTTLS and only if the certificate there is good.

    It takes mail for ann at its own domain, refuses others there, and accepts mail for `closed.test`, which it then
    bounces.
    """

    next_port: int
    next_ca: Path

    def relay_to(self, port: int, ca: Path) -> Self:
        """To localhost at this port; before the start."""
        self.next_port, self.next_ca = port, ca
        return self

    def submit(self, recipient: str, message: str) -> None:
        """Send as ann by its own sendmail."""
        raise NotImplementedError

    def log_in(self, client: smtplib.SMTP) -> None:
        """Become somebody who may send to everybody."""


class Postfix(Neighbour):
    """Postfix."""

    domain = "postfix.test"
    logs = "maillog"

    def __init__(self) -> None:
        master = require("master")
        super().__init__()
        self.etc = self.folder / "etc"
        self.command = (master, "-c", str(self.etc), "-d")

    def configure(self) -> None:
        nobody = pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", "nobody")
        shutil.copy(self.next_ca, self.folder / "next-ca.pem")
        checks = "check_recipient_access inline:{ closed.test=OK } reject_unlisted_recipient"
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self.folder / "queue",
            "data_directory": self.folder / "data",
            "maillog_file": self.folder / "maillog",
            "maillog_file_prefixes": self.folder,
            "myhostname": self.domain,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "alias_maps": "",
            "alias_database": "",
            "virtual_mailbox_domains": self.domain,
            "virtual_mailbox_maps": f"inline:{{ ann@{self.domain}=ann/ }}",
            "virtual_mailbox_base": self.folder / "mail",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "transport_maps": "inline:{ {closed.test = error:5.7.1 nobody reads mail here} }",
            "relay_domains": "closed.test",
            "smtpd_reject_unlisted_recipient": "no",
            "smtpd_recipient_restrictions": checks,
            "relayhost": f"[127.0.0.1]:{self.next_port}",
            "smtp_tls_security_level": "secure",
            "smtp_tls_CAfile": self.folder / "next-ca.pem",
            "smtp_tls_secure_cert_match": "localhost",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": self.certificates.certificate,
            "smtpd_tls_key_file": self.certificates.key,
            "smtpd_tls_received_header": "yes",
        }
        (self.etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self.etc / "master.cf").write_text(POSTFIX_SERVICES + f"127.0.0.1:{self.port} inet n - n - - smtpd\n")
        run(self.folder, "postfix", "-c", self.etc, "check")

    def submit(self, recipient: str, message: str) -> None:
        run(
            self.folder,
            "sendmail",
            *("-C", str(self.etc), "-i", "-f", f"ann@{self.domain}", recipient),
            text=message,
        )


POSTFIX_SERVICES: Final = """\
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
"""


class Exim(Neighbour):
    """Exim, as if it were old: without 8BITMIME and SMTPUTF8.

    For domains of others it works for ann with her password only; it keeps what is for zoe at `kept.test`.
    """

    domain = "exim.test"
    logs = "*log"
    password = "secret of ann"

    def __init__(self) -> None:
        self._exim = require("exim4")
        try:
            pwd.getpwnam("Debian-exim")
        except KeyError:
            missing("Exim as Debian builds it needs the user Debian-exim")
        super().__init__()
        self._conf = self.folder / "exim.conf"
        self.command = (self._exim, "-C", str(self._conf), "-bdf", "-oX", f"127.0.0.1:{self.port}")

    def configure(self) -> None:
        shutil.chown(self.folder, "Debian-exim")  # it makes its logs there
        for name in ("spool", "mail"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        shutil.copy(self.next_ca, self.folder / "next-ca.pem")
        self._conf.write_text(
            _EXIM_CONF.format(
                exim=self._exim,
                folder=self.folder,
                domain=self.domain,
                certificate=self.certificates.certificate,
                key=self.certificates.key,
                password=self.password,
                next_port=self.next_port,
            )
        )

    def submit(self, recipient: str, message: str) -> None:
        sender = f"ann@{self.domain}"
        run(self.folder, "exim4", "-C", self._conf, "-i", "-f", sender, recipient, text=message)

    def log_in(self, client: smtplib.SMTP) -> None:
        client.starttls(context=ssl.create_default_context(cafile=self.certificates.ca))
        client.login("ann", self.password)


_EXIM_CONF: Final = """\
exim_path = {exim}
primary_hostname = {domain}
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/exim.pid
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
dsn_advertise_hosts = *
accept_8bitmime = no
smtputf8_advertise_hosts =
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept

begin acl
check_recipient:
  accept domains = {domain}
         local_parts = ann
  deny domains = {domain}
       message = there is no $local_part here
  accept domains = closed.test
  accept authenticated = *
  deny message = relay not permitted

begin routers
closed:
  driver = redirect
  domains = closed.test
  allow_fail
  data = :fail: nobody reads mail here
mine:
  driver = accept
  domains = {domain}
  local_parts = ann
  transport = maildir
kept:
  driver = accept
  domains = kept.test
  local_parts = zoe
  transport = maildir
others:
  driver = manualroute
  domains = !{domain}
  route_list = * localhost::{next_port} byname
  host_find_failed = defer
  self = send
  transport = onward

begin transports
maildir:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add
  user = Debian-exim
onward:
  driver = smtp
  hosts_require_tls = *
  tls_verify_hosts = *
  tls_verify_certificates = {folder}/next-ca.pem
  tls_verify_cert_hostnames = *

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{ann}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


class Dovecot(Daemon):
    """Dovecot's LMTP, on a port and on a unix socket."""

    domain = "dovecot.test"

    def __init__(self) -> None:
        dovecot = require("dovecot")
        super().__init__()
        self.socket = self.folder / "lmtp"
        self.command = (dovecot, "-F", "-c", str(self.folder / "dovecot.conf"))

    def configure(self) -> None:
        (self.folder / "mail").mkdir()
        shutil.chown(self.folder / "mail", "nobody")
        nobody = pwd.getpwnam("nobody")
        (self.folder / "users").write_text(f"ann::{nobody.pw_uid}:{nobody.pw_gid}::{self.folder}/mail/ann::\n")
        (self.folder / "dovecot.conf").write_text(
            _DOVECOT_CONF.format(folder=self.folder, port=self.port, socket=self.socket)
        )


_DOVECOT_CONF: Final = """\
base_dir = {folder}/run
log_path = {folder}/log
protocols = lmtp
ssl = no
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{folder}/mail/%n
lmtp_save_to_detail_mailbox = no
recipient_delimiter = +
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener {socket} {{
    mode = 0666
  }}
}}
service stats {{
  chroot =
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
passdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
"""
