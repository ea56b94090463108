"""Checks the commands in the console blocks of the documentation."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click

from tests.scripts import ROOT
from trioglock.cli.group import group

__all__ = ["check_commands", "nox_sessions"]

OTHERS = {
    "apt-get",
    "echo",
    "export",
    "flask",
    "http.server",
    "hypercorn",
    "jq",
    "npm",
    "pre-commit",
    "pytest",
    "redis-cli",
}
OTHERS |= {"redis-server", "twine", "venv"}
"""Programs whose arguments are not checked."""

TUTORIALS = {"dashboard.py", "feed.py", "live.py", "notify.py"}
"""Files that readers of the tutorials write."""


def check_commands(block: str) -> None:
    """Raise AssertionError for an unknown program, command, option, nox session, extra or file."""
    for words in commands(block):
        program, arguments = Path(words[0]).name, words[1:]
        if program.startswith("python") and arguments[0] == "-m":
            program, arguments = arguments[1], arguments[2:]
            assert find_spec(program), f"there is no module {program}"
        match program:
            case "trioglock":
                check_trioglock(arguments)
            case "nox":
                names = re.findall(r"-s (\S+)", " ".join(arguments))
                assert set(names) <= set(nox_sessions()), names
            case "pip":
                check_pip(arguments)
            case "python":
                assert (ROOT / arguments[0]).exists() or arguments[0] in TUTORIALS
            case _:
                assert program in OTHERS or program.startswith(("tests.", "benchmarks")), program


def commands(block: str) -> Iterator[list[str]]:
    """Split a block into the words of its commands, without comments, prompts and redirections."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in lexer:
            if set(word) <= set("<>"):
                next(lexer)  # the file
            elif not set(word) <= set("&|;"):
                command += [] if re.match(r"[A-Z_]+=", word) else [word]
            elif command:
                yield command
                command = []
        if command:
            yield command


def check_trioglock(arguments: list[str]) -> None:
    """Parse with the real command line, without running anything."""
    try:
        with group.make_context("trioglock", list(arguments)) as context:
            name, command, rest = group.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            assert command
            assert name
            with command.make_context(name, rest, parent=context):
                pass
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.ClickException as error:
        raise AssertionError(error.format_message()) from error


def check_pip(arguments: list[str]) -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for extras in re.findall(r"(?:\.|trioglock)\[([\w,-]+)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= configuration["project"]["optional-dependencies"].keys()
    for option, value in pairwise(arguments):
        assert option != "--group" or value in configuration["dependency-groups"], value


def nox_sessions() -> list[str]:
    """The sessions of noxfile.py."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return re.findall(r"^@nox\.session.*?\n(?:@.*\n)*def (\w+)", text, re.MULTILINE)
