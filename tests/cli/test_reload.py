"""``trioglock serve --reload``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.cli.helpers import started
from tests.pubsub.redis_server import find_port
from trioglock import connect
from trioglock.cli.reload import SourceWatcher

SOURCE = """
from trioglock import Reply, Socket
from parts.answer import ANSWER

class SendAnswer(Socket):
    def handle_connect(self, info, state):
        return Reply(ANSWER), state
"""


def replace(file: Path, text: str) -> None:
    """Change a file in one step, so that nobody reads a part of it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


@pytest.mark.slow
async def test_a_server_starts_again_when_a_file_changes(tmp_path: Path) -> None:
    """Also after a syntax error, with which nothing is served. SIGTERM ends it with 0."""
    port = str(find_port())
    (tmp_path / "app.py").write_text(SOURCE)
    (tmp_path / "parts").mkdir()
    answer = tmp_path / "parts" / "answer.py"
    answer.write_text("ANSWER = '1'\n")

    async def ask() -> str:
        async with connect(f"ws://127.0.0.1:{port}/", open_timeout=10) as conn:
            return str(await conn.receive())

    options = ("app:SendAnswer", "--port", port, "--reload")
    async with started("serve", *options, PYTHONPATH=str(tmp_path)) as process:
        assert await process.line() == f"serving on 127.0.0.1:{port}"
        async with connect(f"ws://127.0.0.1:{port}/") as conn:
            assert await conn.receive() == "1"
            replace(answer, "ANSWER = '2'\n")
            await conn.wait_closed()
        assert await process.line() == f"{answer} has changed"
        assert await process.line() == f"serving on 127.0.0.1:{port}"
        assert await ask() == "2"
        replace(answer, "ANSWER = \n")
        await process.read_errors(b"waiting for a change\n")
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", int(port))
        replace(answer, "ANSWER = '3'\n")
        for _ in range(2):
            assert await process.line() == f"{answer} has changed"
        assert await process.line() == f"serving on 127.0.0.1:{port}"
        assert await ask() == "3"
        process.process.terminate()
        assert (await process.finish()).code == 0


@pytest.mark.slow
async def test_a_signal_ends_the_wait_for_a_change(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def\n")
    options = ("app:x", "--port", "0", "--reload")
    async with started("serve", *options, PYTHONPATH=str(tmp_path)) as process:
        errors = await process.read_errors(b"waiting for a change\n")
        assert errors.startswith(b"trioglock serve: cannot import app:x: invalid syntax (")
        process.interrupt()
        assert (await process.finish()).code == 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which modules are searched."""
    (tmp_path / "app.py").write_text("")
    os.utime(tmp_path / "app.py", (0, 0))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def lock(project: Path) -> None:
    """Create what Emacs creates for a file that is edited."""
    (project / ".#app.py").symlink_to("user@host.1234")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda project: (project / "app.py").write_text("x = 1"), "app.py"),
        (lambda project: os.utime(project / "app.py", (1, 1)), "app.py"),
        (lambda project: (project / "app.py").unlink(), "app.py"),
        (lambda project: (project / "new.py").write_text(""), "new.py"),
        (lambda project: (project / "notes.txt").write_text(""), None),
        (lambda project: (project / "site-packages" / "a.py").write_text(""), None),
        (lock, None),
    ],
)
async def test_changes(change: Callable[[Path], object], name: str | None, project: Path) -> None:
    """A source file that changes, appears or disappears; no other."""
    (project / "site-packages").mkdir()
    sys.path.append(str(project / "site-packages"))
    watcher = SourceWatcher()
    watcher._look()
    assert watcher.changed is None
    change(project)
    watcher._look()
    assert watcher.changed == (None if name is None else str(project / name))


async def test_a_change_during_the_import(project: Path) -> None:
    """The first look finds it."""
    watcher = SourceWatcher()
    (project / "app.py").write_text("x = 1")
    with trio.fail_after(300):
        await watcher.wait_changed()
    assert watcher.changed == str(project / "app.py")


async def test_the_file_of_an_exception(project: Path) -> None:
    """A package that cannot be imported."""
    package = project / "broken" / "__init__.py"
    package.parent.mkdir()
    package.write_text("1 / 0")
    watcher = SourceWatcher()
    os.utime(package, (0, 0))
    try:
        importlib.import_module("broken")
    except ZeroDivisionError as error:
        watcher.add_error(error)
    watcher._look()
    assert watcher.changed is None
    package.write_text("1 / 1")
    watcher._look()
    assert watcher.changed == str(package)
