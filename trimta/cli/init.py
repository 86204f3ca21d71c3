"""`trimta init` writes a commented conf.toml to begin with.  An existing file is never overwritten."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from trimta.cli import streams
from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_CANTCREAT, EX_OK, EX_USAGE, CommandError
from trimta.config.find import FILE_NAME

if TYPE_CHECKING:
    import argparse

    from trimta.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "init",
        description="Write a commented conf.toml, valid as it stands.  Never overwrites one.",
        example="trimta init ~/mail && cd ~/mail && trimta check",
    )
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", help="where to write it, made if need be; default: the current folder"
    )


def run(args: argparse.Namespace) -> int:
    streams.output_is_secondary()
    if args.folder is not None and args.config is not None:
        raise CommandError(EX_USAGE, "give DIR or -c FILE, not both")
    target = Path(args.config) if args.config is not None else Path(args.folder or ".") / FILE_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_new(target, template())
    except FileExistsError:
        problem = (
            "is there already; it stays as it is" if target.parent.is_dir() else "can't be made: a file is in the way"
        )
        raise CommandError(EX_CANTCREAT, f"{target} {problem}") from None
    except OSError as error:
        raise CommandError(EX_CANTCREAT, f"{target} can't be written: {error.strerror}") from None
    print(f"wrote {target}; `trimta check` looks it over")
    return EX_OK


def template() -> bytes:
    """The octets of the conf.toml that comes with trimta."""
    return (resources.files("trimta.cli") / "conf.toml").read_bytes()


def _write_new(target: Path, content: bytes) -> None:
    with target.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            target.unlink()  # else a part of a configuration would be left, and stop the next `trimta init`
            raise
