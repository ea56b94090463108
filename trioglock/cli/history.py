"""The history of the prompt: a file that only its owner can read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

__all__ = ["open_history", "state_folder"]

MAX_LINES = 1000
"""The number of lines that are loaded. The file grows to twice as many before it is truncated."""


class PrivateHistory(FileHistory):
    """A history file that only its owner can read.

    Args:
        path: the path of the file; created with its folders if it does not exist.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(path)
        lines = list(super().load_history_strings())
        if len(lines) > 2 * MAX_LINES:
            short = path.with_name(f"{path.name}.{os.getpid()}")
            short.unlink(missing_ok=True)
            _make_private(short)
            copy = FileHistory(short)
            for line in reversed(lines[:MAX_LINES]):
                copy.store_string(line)
            short.replace(path)

    def load_history_strings(self) -> Iterable[str]:
        """Return the latest lines, the newest first."""
        try:
            return list(super().load_history_strings())[:MAX_LINES]
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """Append a line; failures are ignored."""
        with suppress(OSError):
            super().store_string(string)


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with suppress(OSError):  # another user's file
        path.chmod(0o600)


def state_folder() -> Path:
    """Return the folder of trioglock's state (XDG Base Directory Specification).

    Raises:
        RuntimeError: there is no home directory.
    """
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".local" / "state"
    return base / "trioglock"


def open_history(name: str | None) -> tuple[History, str | None]:
    """Open the history of a command.

    Args:
        name: the name of the file; None for a history in memory.

    Returns:
        The history, and the reason why it cannot be saved, or None.
    """
    if name is None:
        return InMemoryHistory(), None
    try:
        return PrivateHistory(state_folder() / name), None
    except (OSError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return InMemoryHistory(), f"the history cannot be saved: {problem}"
