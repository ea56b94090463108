"""The entry: which commands there are, and what happens where they cannot run."""

from __future__ import annotations

import pytest

import trioglock.cli.group
from tests.scripts import run_python
from trioglock import InvalidOption, __version__
from trioglock._redact import HIDDEN
from trioglock.cli import main
from trioglock.cli.group import COMMANDS

WITHOUT = "import sys, runpy; sys.modules['{}'] = None; sys.argv = ['trioglock', {!r}];"
HINT = "(TRIOGLOCK_TRACEBACK=1 shows where)"
MODULE = "runpy.run_module('trioglock', run_name='__main__')"
SCRIPT = "from trioglock.cli import main; sys.exit(main())"


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with a sentence, on a line of its own."""
    assert main(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    told = {words[0]: words[1] for words in lines if len(words) == 2}
    for name in COMMANDS:
        assert told[name].endswith((".", "...")), name
        assert "Cannot be used" not in told[name]


@pytest.mark.parametrize("name", ["connect", "phoenix", "demo"])
def test_the_help_of_a_command_is_enough(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it does, its options, its exit codes and examples."""
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    for words in (f"Usage: trioglock {name}", "Options:", "Exit codes:\n", "Examples:\n"):
        assert words in text
    assert text.count(f"  trioglock {name}") + text.count(f"| trioglock {name}") >= 2
    assert max(map(len, text.splitlines())) <= 100


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``trioglock --version`` tells it."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"trioglock {__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["demo", "too", "much"]])
def test_a_command_line_that_makes_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what is wrong."""
    assert main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize("library", ["click", "rich", "prompt_toolkit"])
@pytest.mark.parametrize("start", [MODULE, SCRIPT])
async def test_without_the_extra(library: str, start: str) -> None:
    """One line says what to install; the exit code is 1."""
    done = await run_python("-c", WITHOUT.format(library, "demo") + start)
    wanted = "trioglock's command line needs: pip install 'trioglock[cli]'\n"
    assert (done.code, done.stdout, done.stderr) == (1, "", wanted)


async def test_a_command_that_cannot_be_imported_harms_no_other() -> None:
    """The help says so, it says so itself, and the others run."""
    broken = WITHOUT.format("trioglock.cli.publish", "{}") + MODULE
    done = await run_python("-c", broken.replace("'{}'", "'--help'"))
    assert done.code == 0
    assert "publish  Cannot be used here." in done.stdout
    assert "connect  Talk to" in done.stdout
    done = await run_python("-c", broken.replace("'{}'", "'publish', '--port', '1', 'x'"))
    assert done.code == 1
    assert "publish cannot be used here: " in done.stderr
    assert "Traceback" not in done.stderr
    done = await run_python("-c", broken.replace("'{}'", "'demo'"))
    assert (done.code, done.stderr) == (0, "")


async def test_a_command_imports_no_other() -> None:
    """Whoever wants the version waits for no terminal library."""
    program = (
        "import sys; from trioglock.cli import main; main(['--version']);"
        "print([name for name in ('prompt_toolkit', 'rich', 'trio_websocket.x') "
        "if name in sys.modules])"
    )
    done = await run_python("-c", program)
    assert done.stdout.splitlines()[1:] == ["[]"]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
        (InvalidOption("that is wrong"), 1, "trioglock: that is wrong\n"),
        (ExceptionGroup("", [ValueError("odd")]), 1, f"trioglock: ValueError: odd {HINT}\n"),
        (
            RuntimeError("odd ws://al:pw@host/?token=abc"),
            1,
            f"trioglock: RuntimeError: odd ws://host/?token={HIDDEN} {HINT}\n",
        ),
    ],
)
def test_what_a_command_raises(
    error: BaseException,
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line without secrets instead of a traceback; Ctrl-C is 130."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr("trioglock.cli.demo.trio.run", fail)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == told


def test_a_traceback_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TRIOGLOCK_TRACEBACK=1 the error comes out."""

    def fail(*_: object) -> int:
        raise RuntimeError("odd")

    monkeypatch.setenv("TRIOGLOCK_TRACEBACK", "1")
    monkeypatch.setattr("trioglock.cli.demo.trio.run", fail)
    with pytest.raises(RuntimeError, match="odd"):
        trioglock.cli.group.run(["demo"])
