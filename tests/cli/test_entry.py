"""The entry point: help, errors, and installations without the extra."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

import trioglock.cli.group
from tests.cli.helpers import COMMAND, SECONDS, environment
from tests.cli.serving import serve_in_thread, target_in_thread
from tests.forks import open_fork
from tests.scripts import run_python
from trioglock import Backoff, InvalidOption, version
from trioglock._redact import HIDDEN
from trioglock.cli import main
from trioglock.cli.echo import Echo
from trioglock.cli.group import COMMANDS

WITHOUT_LIBRARIES = """
import runpy, sys
sys.argv = ["trioglock", "demo"]
for name in ("click", "rich", "prompt_toolkit"):
    sys.modules[name] = None
runpy.run_module("trioglock", run_name="__main__")
"""
MISSING = "trioglock's command line needs: pip install 'trioglock[cli]'\n"
HINT = "(TRIOGLOCK_TRACEBACK=1 shows a traceback)"


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has a sentence."""
    assert main(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    listed = {words[0]: words[1] for words in lines if len(words) == 2}
    for name in COMMANDS:
        assert listed[name].endswith((".", "...")), name
        assert "Not available" not in listed[name]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``trioglock --version`` prints it."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"trioglock {version}\n"


@pytest.mark.parametrize("library", ["click", "rich", "prompt_toolkit"])
def test_a_missing_library(
    library: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names what to install; the exit code is 1."""
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == MISSING


@pytest.mark.slow
async def test_without_the_extra() -> None:
    """The entry point imports none of its libraries."""
    done = await run_python("-c", WITHOUT_LIBRARIES)
    assert (done.code, done.stdout, done.stderr) == (1, "", MISSING)


def test_a_command_that_cannot_be_imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its help and its error say so, and the other commands work."""
    monkeypatch.setitem(sys.modules, "trioglock.cli.publish", None)
    monkeypatch.setattr("trioglock.cli.demo.BACKOFF", Backoff(initial=0.01))
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "publish  Not available here." in text
    assert "connect  Talk to" in text
    assert main(["publish", "--port", "1", "x"]) == 1
    assert "publish is not available: " in capsys.readouterr().err
    assert main(["demo", "--messages", "20"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
async def test_only_the_used_command_is_imported() -> None:
    """``--version`` loads no terminal library, and no second WebSocket implementation.

    Neither does a server.
    """
    program = (
        "import sys; from trioglock.cli import main; main(['--version']);"
        "unwanted = {'plotille', 'prompt_toolkit', 'rich', 'trio_websocket', 'wsproto'};"
        "print(unwanted & sys.modules.keys());"
        "import trioglock.cli.serve;"
        "print(unwanted & sys.modules.keys())"
    )
    done = await run_python("-c", program)
    assert done.stdout.splitlines()[1:] == ["set()", "set()"]


@pytest.mark.parametrize(
    ("error", "code", "printed"),
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
def test_an_exception(
    error: BaseException,
    code: int,
    printed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It becomes a line without secrets instead of a traceback; Ctrl-C is 130."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr("trioglock.cli.demo.trio.run", fail)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == printed


def test_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TRIOGLOCK_TRACEBACK=1 the exception is raised."""

    def fail(*_: object) -> int:
        raise RuntimeError("odd")

    monkeypatch.setenv("TRIOGLOCK_TRACEBACK", "1")
    monkeypatch.setattr("trioglock.cli.demo.trio.run", fail)
    with pytest.raises(RuntimeError, match="odd"):
        trioglock.cli.group.run(["demo"])


BENCH = ["bench", "--messages", "20", "--connections", "2"]  # starts a server of its own


async def run_redirected(arguments: Sequence[str], stdout: str, stderr: str) -> int:
    """Run a command whose output goes to these files, and return its exit code."""
    with Path(stdout).open("ab") as output, Path(stderr).open("ab") as errors:
        process = await open_fork(
            "-m",
            "trioglock",
            *arguments,
            env=environment(),
            stdout=output.fileno(),
            stderr=errors.fileno(),
        )
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.fail_after(SECONDS):
            return await process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_fault_40_the_exit_code_does_not_depend_on_messages(tmp_path: Path) -> None:
    """A message that was published is not reported as unpublished because nothing was printed.

    A command whose output is its purpose fails without it.
    """
    file = str(tmp_path / "output")
    with serve_in_thread() as at, target_in_thread(Echo) as echo:
        cases = [
            (["publish", "x", "y", "--to", f"ws://{at}"], "/dev/full", file, 0),
            (["publish", "x", "y", "--to", "ws://127.0.0.1:1"], file, "/dev/full", 1),
            (["publish", "x", "y", "--to", "nonsense"], file, "/dev/full", 2),
            (["nonsense"], file, "/dev/full", 2),
            ([*BENCH, echo, "--json"], "/dev/full", file, 1),
            (["demo", "--messages", "3"], "/dev/full", file, 1),
            (["--help"], "/dev/full", file, 1),
        ]
        codes = [
            await run_redirected(arguments, stdout, stderr)
            for arguments, stdout, stderr, _ in cases
        ]
    assert codes == [code for *_, code in cases]
    assert "Traceback" not in Path(file).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "redirection"),
    [
        (["publish", "x", "y", "--to", "HUB"], ">&- 2>&-"),
        ([*BENCH, "ECHO"], ">&-"),
        ([*BENCH, "--json"], ">&- 2>&-"),
    ],
)
def test_fault_40_streams_that_are_closed(arguments: Sequence[str], redirection: str) -> None:
    """The command succeeds."""
    with serve_in_thread() as at, target_in_thread(Echo) as echo:
        urls = {"HUB": f"ws://{at}", "ECHO": echo}
        words = [urls.get(word, word) for word in arguments]
        done = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, *words],
            capture_output=True,
            check=False,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_fault_35_an_embedded_server_whose_parent_has_ended_prints_nothing() -> None:
    """Ctrl-C during the start of ``trioglock bench`` printed the server's traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "trioglock.cli.echo"],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
