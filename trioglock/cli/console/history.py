"""The history: lines that were typed, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from prompt_toolkit.history import History, InMemoryHistory

__all__ = ["open_history", "state_folder"]

_KEPT = 1000
"""Lines; the file grows to twice as many before the oldest are dropped."""


def state_folder() -> Path:
    """Where the state of trioglock lives (XDG Base Directory Specification).

    Raises:
        RuntimeError: there is no home.
    """
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".local" / "state"
    return base / "trioglock"


def open_history(name: str | None) -> tuple[History, str | None]:
    """The history of one command.

    Args:
        name: of its file; None for a history that is forgotten.

    Returns:
        The history, and why it will be forgotten although it should not, or None.
    """
    if name is None:
        return InMemoryHistory(), None
    try:
        return FileHistory(state_folder() / name), None
    except (OSError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return InMemoryHistory(), f"the history cannot be kept: {problem}"


class FileHistory(History):
    """A file with one line of JSON for each line that was typed, which may contain line breaks.

    Args:
        path: made if it is not there, folders included.

    Raises:
        OSError: it can be neither read nor written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = self._read()
        if len(lines) > 2 * _KEPT:
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            with _private(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "w") as file:
                file.writelines(lines[-_KEPT:])
            fresh.replace(path)

    def _read(self) -> list[str]:
        with _private(self._path, os.O_RDWR | os.O_CREAT, "r+") as file:
            return file.readlines()

    def load_history_strings(self) -> Iterable[str]:
        """The lines, the latest first."""
        try:
            lines = self._read()
        except OSError:
            return
        for line in reversed(lines[-_KEPT:]):
            try:
                typed = json.loads(line)
            except ValueError:
                continue
            if isinstance(typed, str):
                yield typed

    def store_string(self, string: str) -> None:
        """Add a line. One that cannot be written is not worth an error."""
        with (
            suppress(OSError),
            _private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, "a") as file,
        ):
            file.write(json.dumps(string) + "\n")


def _private(path: Path, flags: int, mode: str) -> IO[Any]:
    """Open for the owner alone, also where the file was there and open to others."""
    descriptor = os.open(path, flags, 0o600)
    with suppress(OSError):  # not ours, or not possible there
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, mode, encoding="utf-8", errors="replace")
