"""The commands that documents show: each word of them is one that its program knows."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import click

from tests.scripts import ROOT
from trioglock.cli.group import group

__all__ = ["check_command", "commands_in", "sessions"]


def commands_in(block: str) -> Iterator[list[str]]:
    """The commands of a block of console, as lists of words.

    Where lines begin with ``$``, the others are what was printed. A backslash at the end of a line
    goes on in the next; what stands behind ``#`` is a remark; ``&&``, ``|`` and ``;`` separate.
    """
    lines = block.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        command: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        for word in lexer:
            if word and set(word) <= set("&|;"):
                yield command
                command = []
            else:
                command.append(word)
        if command:
            yield command


def check_command(words: list[str], text: str) -> None:
    """Raise AssertionError unless the command makes sense.

    Args:
        words: of the command.
        text: of the page, which names the files that a reader makes.
    """
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    words = _without_redirections(words)
    program = Path(words[0]).name
    check = PROGRAMS.get(program)
    assert check is not None, f"nobody knows the command {program}"
    check(words[1:], text)


def _without_redirections(words: list[str]) -> list[str]:
    for position, word in enumerate(words):
        if word in {">", ">>", "<"}:
            return words[:position] + _without_redirections(words[position + 2 :])
    return words


def sessions() -> list[str]:
    """The sessions of noxfile.py."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return re.findall(r"^@nox\.session.*?\n(?:@.*\n)*def (\w+)", text, re.MULTILINE)


def _trioglock(words: list[str], text: str) -> None:
    """Parsed by the real command line; nothing runs."""
    try:
        with group.make_context("trioglock", list(words)) as context:
            name, command, rest = group.resolve_command(context, context._protected_args)
            assert command is not None
            assert name is not None
            rest = [*rest, *context.args]
            with command.make_context(name, rest, parent=context):
                pass
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.ClickException as error:
        raise AssertionError(error.format_message()) from error


def _python(words: list[str], text: str) -> None:
    if words[0] == "-m":
        module, arguments = words[1], words[2:]
        assert find_spec(module) is not None, f"there is no module {module}"
        if module in PROGRAMS:
            PROGRAMS[module](arguments, text)
        elif module.startswith("tests.") or module == "benchmarks":
            _options_in(arguments, str(Path(*module.split("."))))
    else:
        _file(words[0], text)


def _file(name: str, text: str) -> None:
    """A file of the project, or one that the page tells its reader to make."""
    assert (ROOT / name).exists() or f"`{name}`" in text, f"there is no file {name}"


def _options_in(arguments: list[str], place: str) -> None:
    """Each option stands in quotes somewhere in the program."""
    path = ROOT / place
    files = path.rglob("*.py") if path.is_dir() else path.parent.glob(f"{path.name}*.py")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    for option in (word for word in arguments if word.startswith("--")):
        assert f'"{option}"' in source, f"{place} has no option {option}"


def _pytest(words: list[str], text: str) -> None:
    for word in words:
        if word.endswith(".py"):
            _file(word, text)


def _venv(words: list[str], text: str) -> None:
    assert len(words) == 1


def _pip(words: list[str], text: str) -> None:
    """Only this project is installed, with extras that it has; and the tools of its chores."""
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in (word for word in words[1:] if not word.startswith("-")):
        found = re.fullmatch(r"(\.|trioglock|nox)(?:\[([\w,-]+)\])?", word)
        assert found, f"{word} is not of this project"
        extras = set(filter(None, (found[2] or "").split(",")))
        assert extras <= project["optional-dependencies"].keys(), word


def _nox(words: list[str], text: str) -> None:
    options, _, arguments = " ".join(words).partition(" -- ")
    names = options.removeprefix("-s ").split() if options else []
    assert set(names) <= set(sessions()), options
    source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for name in names if arguments else ():
        body = re.search(rf"\ndef {name}\(.*?(?=\n\n\n|\Z)", source, re.DOTALL)
        assert body
        assert "session.posargs" in body[0], f"nox -s {name} takes no arguments"
        module = re.search(r'"python", "-m", "([\w.]+)"', body[0])
        if module:
            _options_in(shlex.split(arguments), module[1].replace(".", "/"))


def _hypercorn(words: list[str], text: str) -> None:
    spec = find_spec("hypercorn.__main__")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in source


def _redis_cli(words: list[str], text: str) -> None:
    command, channel, _message = words
    assert command == "PUBLISH"
    assert channel.startswith("trioglock/")


def _apt_get(words: list[str], text: str) -> None:
    assert words[0] == "install"


def _echo(words: list[str], text: str) -> None:
    assert words


PROGRAMS: dict[str, Callable[[list[str], str], None]] = {
    "apt-get": _apt_get,
    "echo": _echo,
    "jq": _echo,
    "hypercorn": _hypercorn,
    "nox": _nox,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "python3": _python,
    "redis-cli": _redis_cli,
    "trioglock": _trioglock,
    "venv": _venv,
}
