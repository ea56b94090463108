"""The history file of the prompt."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from prompt_toolkit.history import InMemoryHistory

from trioglock.cli.prompt import open_history, state_folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the history file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "trioglock" / "some_history"


def saved() -> list[str]:
    """Open the history again and return its lines, the newest first."""
    history, problem = open_history("some_history")
    assert problem is None
    return list(history.load_history_strings())


def test_lines_are_saved(file: Path) -> None:
    """Lines of any script are loaded as they were typed, also with line breaks."""
    history, _ = open_history("some_history")
    for line in ("one", 'two\n"three"', "ü€", "odd \udcff"):
        history.store_string(line)
    assert saved() == ["odd ?", "ü€", 'two\n"three"', "one"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_readable_file_becomes_private(file: Path) -> None:
    """An existing file loses the permissions of group and others."""
    file.parent.mkdir()
    file.write_text("# date\n+old\n")
    file.chmod(0o644)
    assert saved() == ["old"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_unknown_content_is_ignored(file: Path) -> None:
    """A file with other lines in it is neither an error nor a loss."""
    file.parent.mkdir()
    file.write_bytes(b'+one\nnonsense\n\xff\n["list"]\n+two\n')
    assert saved() == ["two", "one"]


def test_the_file_is_shortened(file: Path) -> None:
    """Of more than 2000 lines the newest 1000 are kept, in a private file."""
    file.parent.mkdir()
    file.write_text("".join(f"\n# date\n+{number}\n" for number in range(2001)))
    newest = [str(number) for number in range(2000, 1000, -1)]
    assert saved() == newest
    assert saved() == newest
    assert file.read_text().count("+") == 1000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["some_history"]


def test_a_file_that_disappears(file: Path) -> None:
    """Failures to load and save are ignored."""
    history, _ = open_history("some_history")
    file.unlink()
    file.parent.rmdir()
    history.store_string("lost")
    assert list(history.load_history_strings()) == []
    file.mkdir(parents=True)
    assert list(history.load_history_strings()) == []


def test_no_history(file: Path) -> None:
    """Without a name there is no file."""
    history, problem = open_history(None)
    assert isinstance(history, InMemoryHistory)
    assert problem is None
    assert not file.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no XDG directories")
def test_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows the XDG Base Directory Specification; relative paths are ignored."""
    monkeypatch.setenv("XDG_STATE_HOME", "/some/where")
    assert state_folder() == Path("/some/where/trioglock")
    monkeypatch.setenv("HOME", str(tmp_path))
    for invalid in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", invalid)
        assert state_folder() == tmp_path / ".local" / "state" / "trioglock"


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home directory the history is in memory, and the reason is returned."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    history, problem = open_history("some_history")
    assert isinstance(history, InMemoryHistory)
    assert problem == "the history cannot be saved: Could not determine home directory."
