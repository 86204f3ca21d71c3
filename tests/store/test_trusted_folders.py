"""Root makes folders for others only where nobody can lead it astray."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.software import require_root
from trimta.runtime.privileges import become
from trimta.store import trusted_folders

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def nobody() -> pwd.struct_passwd:
    require_root("making folders for others")
    return pwd.getpwnam("nobody")


@pytest.fixture
def root_s() -> Iterator[Path]:
    """A folder of root's that others can look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_a_folder_of_root_s_gets_the_account_as_its_owner(root_s: Path, nobody: pwd.struct_passwd) -> None:
    (root_s / "real").mkdir()
    (root_s / "link").symlink_to("real")
    trusted_folders.make_for(root_s / "link" / "new", nobody.pw_uid, nobody.pw_gid)
    found = (root_s / "real" / "new").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (nobody.pw_uid, nobody.pw_gid, 0o700)


def test_nothing_is_made_below_what_is_another_s(root_s: Path, nobody: pwd.struct_passwd) -> None:
    (root_s / "etc").mkdir()
    (root_s / "hers").mkdir()
    (root_s / "hers" / "link").symlink_to(root_s / "etc")
    os.chown(root_s / "hers", nobody.pw_uid, nobody.pw_gid)
    for folder in (root_s / "hers" / "new", root_s / "hers" / "link" / "new"):
        with pytest.raises(PermissionError, match="belongs to user id"):
            trusted_folders.make_for(folder, nobody.pw_uid, nobody.pw_gid)
    assert list((root_s / "etc").iterdir()) == []


def test_nothing_is_made_where_everybody_may_rename(root_s: Path, nobody: pwd.struct_passwd) -> None:
    (root_s / "open").mkdir()
    (root_s / "open").chmod(0o777)
    with pytest.raises(PermissionError, match="everybody may change"):
        trusted_folders.make_for(root_s / "open" / "new", nobody.pw_uid, nobody.pw_gid)
    (root_s / "open").chmod(0o1777)  # as /tmp is
    trusted_folders.make_for(root_s / "open" / "new", nobody.pw_uid, nobody.pw_gid)


def test_links_that_go_round_are_an_error(root_s: Path, nobody: pwd.struct_passwd) -> None:
    (root_s / "a").symlink_to("b")
    (root_s / "b").symlink_to("a")
    with pytest.raises(PermissionError, match="too many links"):
        trusted_folders.make_for(root_s / "a" / "new", nobody.pw_uid, nobody.pw_gid)


def in_a_child(root_s: Path, folders: list[Path]) -> int:
    """`become` in a process of its own: there is no way back."""
    child = os.fork()
    if child == 0:
        try:
            become("nobody", folders)
        except Exception:  # noqa: BLE001 - whatever it is, this process ends here
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_the_account_may_make_it_makes_itself(root_s: Path, nobody: pwd.struct_passwd) -> None:
    (root_s / "hers").mkdir()
    os.chown(root_s / "hers", nobody.pw_uid, nobody.pw_gid)
    (root_s / "etc").mkdir()
    (root_s / "hers" / "link").symlink_to(root_s / "etc")
    assert in_a_child(root_s, [root_s / "hers" / "a" / "b"]) == 0
    assert (root_s / "hers" / "a" / "b").stat().st_uid == nobody.pw_uid
    assert in_a_child(root_s, [root_s / "mail" / "b"]) == 0
    assert (root_s / "mail" / "b").stat().st_uid == nobody.pw_uid
    assert in_a_child(root_s, [root_s / "hers" / "link" / "c"]) == 1, "a link of hers leads root nowhere"
    assert list((root_s / "etc").iterdir()) == []
