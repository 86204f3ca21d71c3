"""The command line around the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimta import __version__
from trimta.cli import check
from trimta.cli.main import COMMANDS, command_name, main


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["check"], "check"),
        (["-c", "check", "init"], "init"),
        (["--config", "x", "init"], "init"),
        (["--config=x", "init"], "init"),
        (["-cx", "init", "check"], "init"),
        (["--help"], None),
        (["-c"], None),
        ([], None),
    ],
)
def test_the_command_is_the_first_word_that_is_no_option(arguments: list[str], name: str | None) -> None:
    assert command_name(arguments) == name


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "trimta: a command is needed; see trimta --help"),
        (["chek"], "trimta: no such command: chek; did you mean check?; see trimta --help"),
        (["frobnicate"], "trimta: no such command: frobnicate; see trimta --help"),
        (["check", "--bogus"], "trimta: unrecognized arguments: --bogus; see trimta --help"),
        (["check", "-c"], "trimta check: argument -c/--config: expected one argument; see trimta check --help"),
        (
            ["serve", "--time-scale", "0"],
            "trimta serve: argument --time-scale: "
            'found "0", expected a number from 0.001 to 1e9; see trimta serve --help',
        ),
        (["check", "--conf", "x"], "trimta: unrecognized arguments: --conf x; see trimta --help"),
    ],
)
def test_wrong_usage_is_one_line_and_64(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 64
    assert capsys.readouterr() == ("", line + "\n")


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=["trimta", *COMMANDS])
def test_every_help_has_an_example_and_the_configuration(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example:\n  " in text
    assert "-c FILE" in text


def test_the_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {line}" in text for name, line in COMMANDS.items())


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"trimta {__version__}\n"


@pytest.mark.parametrize("arguments", [["-c", "FILE", "check"], ["check", "-c", "FILE"], ["--config=FILE", "check"]])
def test_the_configuration_is_named_before_or_after_the_command(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.toml"
    file.write_text('hostname = "named.test"')
    assert main([argument.replace("FILE", str(file)) for argument in arguments]) == 0
    assert 'hostname = "named.test"' in capsys.readouterr().out


def test_an_interrupted_command_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "run", interrupted)
    assert main(["check"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    repository = Path(__file__).parents[2]
    with os.fdopen(write, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", "trimta", "check"], stdout=pipe, stderr=subprocess.PIPE, cwd=repository, check=False
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["status", "queue", "log", "tail", "time", "wait"])
def test_a_command_that_asks_or_reads_starts_without_trio(command: str) -> None:
    program = f"import sys, trimta.cli.{command}; print('trio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_program_is_not_looked_through_for_garbage() -> None:
    script = """if True:
        import gc, sys
        from trimta import __main__
        from trimta.cli import check
        def run(args):
            print(gc.isenabled(), gc.get_freeze_count() > 10_000)
            return 0
        check.run = run
        sys.argv = ["trimta", "check"]
        sys.exit(__main__.main())
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
