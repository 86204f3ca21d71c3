"""Postfix as a peer: its defaults, without limits on connections and sizes, and virtual(8) delivers into Maildirs."""

from __future__ import annotations

import os
import pwd
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from tests.bench.processes import ProcessTree, UnavailableError, program
from tests.bench.servers import MANY, users
from tests.bench.sink import Sink
from tests.support.daemon import POSTFIX_SERVICES, Daemon
from tests.support.software import run

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Postfix(Daemon):
    """A private Postfix, which only root can start."""

    domain = "postfix.test"
    logs = "maillog"

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise UnavailableError("Postfix can be started by root only")
        master = program("master")
        super().__init__()
        self._etc = self.folder / "etc"
        self.command = (master, "-c", str(self._etc), "-d")
        self.sink = Sink(folder)

    def __enter__(self) -> Self:
        with ExitStack() as running:
            running.enter_context(self.sink)
            super().__enter__()
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(None, None, None)  # with an error it would add the log, which has lines by the thousand
        finally:
            self._running.__exit__(kind, error, trace)

    @property
    def tree(self) -> ProcessTree:
        """master(8) and the daemons that it started."""
        return ProcessTree(self.pid)

    def maildir(self, user: str) -> Path:
        """The mailbox of a local part."""
        return self.mailbox(user)

    def configure(self) -> None:
        """Write main.cf, master.cf and the table of mailboxes."""
        nobody = pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", "nobody")
        mailboxes = self.folder / "mailboxes"
        mailboxes.write_text("".join(f"{user}@{self.domain} {user}/\n" for user in users(MANY)))
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
            "virtual_mailbox_maps": f"texthash:{mailboxes}",
            "virtual_mailbox_base": self.folder / "mail",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "relayhost": f"[127.0.0.1]:{self.sink.port}",
            "smtpd_client_connection_count_limit": 0,
            "smtpd_client_connection_rate_limit": 0,
            "message_size_limit": 0,
            "virtual_mailbox_limit": 0,
        }
        (self._etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        # 0: as many smtpd as there are connections
        (self._etc / "master.cf").write_text(f"{POSTFIX_SERVICES}127.0.0.1:{self.port} inet n - n - 0 smtpd\n")
        run(self.folder, "postfix", "-c", self._etc, "check")
