"""The history of the prompt: a file for its owner alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from prompt_toolkit.history import InMemoryHistory

from trioglock.cli.console.history import open_history, state_folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "trioglock" / "some_history"


def kept() -> list[str]:
    """What is remembered, the latest first."""
    history, problem = open_history("some_history")
    assert problem is None
    return list(history.load_history_strings())


def test_lines_are_kept(file: Path) -> None:
    """Each as it was typed, also over several lines, and in every script."""
    history, _ = open_history("some_history")
    for line in ("one", 'two\n"three"', "ü€\udcff"):
        history.store_string(line)
    assert kept() == ["ü€\udcff", 'two\n"three"', "one"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_others_could_read(file: Path) -> None:
    """Is closed to them."""
    file.parent.mkdir()
    file.write_text('"old"\n')
    file.chmod(0o644)
    assert kept() == ["old"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_no_history_is_passed_over(file: Path) -> None:
    """A file that something else has written in loses nothing and breaks nothing."""
    file.parent.mkdir()
    file.write_bytes(b'"one"\nnonsense\n\xff\n["list"]\n"two"\n')
    assert kept() == ["two", "one"]


def test_it_does_not_grow_for_ever(file: Path) -> None:
    """Of more than 2000 lines the latest 1000 stay."""
    file.parent.mkdir()
    file.write_text("".join(f"{json.dumps(str(number))}\n" for number in range(2001)))
    assert kept() == [str(number) for number in range(2000, 1000, -1)]
    assert len(file.read_text().splitlines()) == 1000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["some_history"]


def test_a_file_that_goes_away(file: Path) -> None:
    """What cannot be kept is not worth an error."""
    history, _ = open_history("some_history")
    file.unlink()
    file.parent.rmdir()
    history.store_string("lost")
    assert list(history.load_history_strings()) == []


def test_none_is_wanted(file: Path) -> None:
    """Then there is no file."""
    history, problem = open_history(None)
    assert isinstance(history, InMemoryHistory)
    assert problem is None
    assert not file.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows finds its home elsewhere")
def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the XDG Base Directory Specification; a path that is not absolute is ignored."""
    monkeypatch.setenv("XDG_STATE_HOME", "/some/where")
    assert state_folder() == Path("/some/where/trioglock")
    monkeypatch.setenv("HOME", str(tmp_path))
    for odd in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", odd)
        assert state_folder() == tmp_path / ".local" / "state" / "trioglock"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told that nothing can be kept."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    history, problem = open_history("some_history")
    assert isinstance(history, InMemoryHistory)
    assert problem == "the history cannot be kept: Could not determine home directory."
