"""Started as root: what root touches before it gives itself up, in folders that others have prepared."""

from __future__ import annotations

import os
import pwd
import smtplib
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.process import TrimtaProcess, run_trimta
from tests.support.software import require_root
from trimta.runtime import privileges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BECOME: Final = (
    "import sys; from pathlib import Path; from trimta.runtime import privileges;"
    "privileges.become('nobody', map(Path, sys.argv[1:]))"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root's that all can get to; in it `theirs`, a folder of nobody's, and `roots`, one of root's."""
    require_root("becoming somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("theirs", "roots"):
            (folder / part).mkdir(0o755)
        os.chown(folder / "theirs", nobody().pw_uid, nobody().pw_gid)
        (folder / "roots" / "file").write_text("root's\n")
        yield folder


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def owners(folder: Path) -> dict[str, int]:
    """Every path below a folder, and whose it is."""
    return {str(path.relative_to(folder)): path.lstat().st_uid for path in sorted(folder.rglob("*"))}


def become_nobody(*folders: Path) -> str:
    """Returns why it could not be done; nothing if it could."""
    done = subprocess.run(
        [sys.executable, "-c", BECOME, *map(str, folders)], capture_output=True, text=True, timeout=30, check=False
    )
    return "" if done.returncode == 0 else done.stderr.splitlines()[-1]


def test_what_only_root_can_make_is_made_and_is_the_accounts(place: Path) -> None:
    assert become_nobody(place / "roots" / "new" / "deep", place / "roots") == ""
    assert owners(place / "roots") == {"file": 0, "new": nobody().pw_uid, "new/deep": nobody().pw_uid}
    assert (place / "roots" / "new").stat().st_mode & 0o777 == 0o700
    assert (place / "roots" / "new").stat().st_gid == nobody().pw_gid


def test_a_link_of_roots_is_followed(place: Path) -> None:
    (place / "link").symlink_to("roots")
    (place / "absolute").symlink_to(place / "link")
    assert become_nobody(place / "absolute" / "new") == ""
    assert owners(place / "roots") == {"file": 0, "new": nobody().pw_uid}


def links(place: Path) -> dict[str, Path]:
    """Ways into root's folder that somebody else has laid."""
    theirs = place / "theirs"
    (theirs / "link").symlink_to(place / "roots")
    (theirs / "dangling").symlink_to(place / "roots" / "made")
    (theirs / "up").symlink_to("../roots")
    (theirs / "folder").mkdir()
    return {
        "a link": theirs / "link" / "new",
        "a dangling link": theirs / "dangling",
        "a relative link": theirs / "up" / "new",
        "behind a folder": theirs / "folder" / ".." / "link" / "new",
        "back to root's": theirs / ".." / "theirs" / "link" / "new",
        "a file": theirs / "link" / "file",
    }


@pytest.mark.parametrize(
    "way",
    [
        "a link",
        "a dangling link",
        "a relative link",
        "behind a folder",
        "back to root's",
        "a file",
    ],
)
def test_root_makes_and_gives_away_nothing_behind_what_others_have_put_there(way: str, place: Path) -> None:
    path = links(place)[way]
    before = owners(place)
    become_nobody(path)
    assert owners(place) == before


def test_a_hostile_data_dir_gives_nothing_of_roots_away(place: Path) -> None:
    """The whole server, in a folder of the account's that is full of links to root's."""
    theirs, roots = place / "theirs", place / "roots"
    names = ("var", "mail", "control.sock", "lock", "lmtp.sock")
    for name in names:
        (theirs / name).symlink_to(roots / name)
    configuration = f"""
        user = "nobody"
        data_dir = "{theirs}/var/deeper"
        [local]
        maildir = "{theirs}/mail/{{user}}"
        [routes]
        "*" = "maildir:{theirs}/mail/remote"
        [[listen]]
        address = "127.0.0.1:0"
        [[listen]]
        address = "unix:{theirs}/lmtp.sock"
        protocol = "lmtp"
    """
    (place / "conf.toml").write_text(configuration)
    before = owners(roots)
    done = run_trimta(place, "serve", "-c", "conf.toml")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert owners(roots) == before


def test_a_fifo_in_the_place_of_the_lock_keeps_nobody_waiting(place: Path) -> None:
    (place / "theirs" / "var").mkdir()
    os.mkfifo(place / "theirs" / "var" / "lock")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (place / "conf.toml").write_text(
            f'user = "nobody"\ndata_dir = "theirs/var"\n[[listen]]\naddress = "{address}"\n'
        )
        done = run_trimta(place, "serve", "-c", "conf.toml")
    assert done.returncode == os.EX_UNAVAILABLE
    assert address in done.stderr


def test_a_socket_in_a_folder_of_the_accounts_is_the_accounts(place: Path) -> None:
    configuration = """
        user = "nobody"
        data_dir = "theirs/var"
        [local]
        maildir = "theirs/mail/{user}"
        [routes]
        "*" = "maildir:theirs/mail/remote"
        [[listen]]
        address = "127.0.0.1:0"
        [[listen]]
        address = "unix:theirs/lmtp.sock"
        protocol = "lmtp"
    """
    for _ in range(2):
        with TrimtaProcess(place, configuration) as server:
            assert (place / "theirs" / "lmtp.sock").stat().st_uid == nobody().pw_uid
            with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
                client.sendmail("bob@dev.test", ["alice@dev.test", "x@far.test"], "Subject: hi\n\nthere\n")
            server.command("queue", "list")
            server.command("sendmail", "x@far.test", text="Subject: s\n\n")
        assert not (place / "theirs" / "lmtp.sock").exists()
    assert set(owners(place / "theirs").values()) == {nobody().pw_uid}


def test_root_looks_at_a_queue_as_its_owner(place: Path) -> None:
    (place / "conf.toml").write_text('data_dir = "theirs/var"\n[[listen]]\naddress = "127.0.0.1:0"\n')
    for _ in range(2):  # the first makes data_dir, in a folder of the account's
        assert run_trimta(place, "sendmail", "x@later.test", text="Subject: s\n\n").returncode == 0
    assert run_trimta(place, "queue", "list").returncode == 0
    assert run_trimta(place, "queue", "retry", "--all").returncode == 0
    assert set(owners(place / "theirs").values()) == {nobody().pw_uid}


def as_the_account(folder: Path) -> tuple[int, int]:
    with privileges.hands_for("nobody", folder):
        return os.geteuid(), os.getegid()


@pytest.mark.parametrize(
    ("name", "who"), [("roots", lambda: (0, os.getegid())), ("theirs", lambda: (nobody().pw_uid, nobody().pw_gid))]
)
def test_whose_hands_change_a_folder(name: str, who: Callable[[], tuple[int, int]], place: Path) -> None:
    before = (os.geteuid(), os.getegid(), os.getgroups())
    assert as_the_account(place / name) == who()
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
