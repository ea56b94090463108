"""``trioglock serve --reload``: detects changed source files and restarts the process."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import NoReturn, TypeAlias

import trio

__all__ = ["SourceWatcher", "restart"]

POLL_INTERVAL = 0.5
"""Seconds between two checks of the files."""

CLOCK_STEP = 20_000_000
"""Nanoseconds by which the clock of modification times may be behind that of the program."""

LIBRARIES = frozenset({"site-packages", "dist-packages"})
"""Names of the directories of installed packages (PEP 370, and Debian's Python policy)."""

Files: TypeAlias = dict[str, tuple[int, int]]
"""The paths of files in a directory, with their modification times in nanoseconds and sizes."""


class SourceWatcher:
    """Detects changes to ``.py`` files in the directories of the project.

    These are the directories of imported modules and those in which Python searches for modules,
    except those of the standard library and of installed packages. Create the watcher before the
    modules are imported.
    """

    def __init__(self) -> None:
        self.changed: str | None = None
        """The file that has changed."""
        self._created = time.time_ns() - CLOCK_STEP
        self._standard = tuple(
            os.path.join(sysconfig.get_path(name), "")  # noqa: PTH118 - compared as str
            for name in ("stdlib", "platstdlib")
        )
        self._directories: dict[str, Files | None] = {}
        self._modules = 0  # the number of modules when the directories were collected

    def add_error(self, error: BaseException | None) -> None:
        """Also watch the directories of an exception's files, which may not be imported modules."""
        while error is not None:
            names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
            if isinstance(error, SyntaxError) and error.filename is not None:
                names.append(error.filename)
            for name in names:
                self._add(str(Path(name).parent))
            error = error.__cause__

    async def wait_changed(self) -> None:
        """Wait until a file has changed, appeared or disappeared."""
        while True:
            # In a thread, because a file system may be slow.
            await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            if self.changed is not None:
                return
            await trio.sleep(POLL_INTERVAL)

    def _look(self) -> None:
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            for directory in _find_directories():
                self._add(directory)
        for directory, known in self._directories.items():
            files = dict(_scan(directory))
            if known is None:
                # The first check: files may have changed since their modules were imported.
                now = time.time_ns()
                changed = {name for name, (at, _) in files.items() if self._created < at <= now}
            else:
                changed = {name for name, _ in files.items() ^ known.items()}
            self._directories[directory] = files
            for name in changed:
                self.changed = name
                # Python does not notice a second change within the same second (PEP 552), and would
                # use the outdated compiled file.
                with suppress(OSError, NotImplementedError):
                    Path(cache_from_source(name)).unlink()

    def _add(self, directory: str) -> None:
        path = os.path.join(directory, "")  # noqa: PTH118
        if not (path.startswith(self._standard) or LIBRARIES.intersection(Path(path).parts)):
            self._directories.setdefault(directory, None)


def _find_directories() -> Iterator[str]:
    """Yield the directories of imported modules and those in which Python searches for modules."""
    yield from sys.path
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield str(Path(file).parent)


def _scan(directory: str) -> Iterator[tuple[str, tuple[int, int]]]:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                with suppress(OSError):  # deleted in the meantime, or the lock file of an editor
                    status = entry.stat()
                    yield entry.path, (status.st_mtime_ns, status.st_size)


def restart() -> NoReturn:
    """Replace this process with a new one that has the same command line."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own arguments
