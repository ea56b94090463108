"""Runs a module on Linux as if it ran on macOS or Windows: ``python -m tests.other_system``.

The modules of the package, and of the tests, get a standard library without the functions that the
other system lacks. Other modules get the real one, because trio depends on the real system::

    python -m tests.other_system win32 trioglock serve
    python -m tests.other_system darwin pytest tests/server
"""

from __future__ import annotations

import builtins
import itertools
import os
import runpy
import select
import signal
import socket
import stat
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["pretend"]

# From typeshed: what the package uses or might use.
NOT_ON_WINDOWS = {
    "os": (
        *("fork", "forkpty", "getgid", "getpgid", "getpriority", "getuid", "killpg", "mkfifo"),
        *("nice", "pread", "pwrite", "readv", "register_at_fork", "sendfile", "setsid", "statvfs"),
        *("uname", "wait", "writev"),
    ),
    "select": ("poll",),
    "signal": (
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
        *("SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "alarm", "pause", "pthread_kill"),
        *("pthread_sigmask", "setitimer", "sigwait"),
    ),
    "socket": (
        *("AF_UNIX", "CMSG_LEN", "MSG_DONTWAIT", "MSG_NOSIGNAL", "SO_REUSEPORT", "recv_fds"),
        *("send_fds", "sethostname"),
    ),
}
NOT_ON_MACOS_EITHER = {
    "os": ("eventfd", "memfd_create", "pidfd_open", "sched_getaffinity", "sched_setaffinity"),
    "select": ("epoll", *(name for name in dir(select) if name.startswith("EPOLL"))),
    "signal": ("sigtimedwait", "sigwaitinfo"),
    "socket": ("SO_BINDTODEVICE", "SO_DOMAIN", "SO_PEERCRED", "SO_PROTOCOL", "TCP_QUICKACK"),
}
POSIX_MODULES = frozenset({"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"})


def pretend(system: str) -> None:
    """Let modules of the package and the tests that are imported from now on see another system.

    Args:
        system: the value of ``sys.platform``: ``"darwin"`` or ``"win32"``.
    """
    assert system in ("darwin", "win32")
    assert "trioglock" not in sys.modules
    is_windows = system == "win32"
    missing = dict(NOT_ON_MACOS_EITHER)
    if is_windows:
        missing = {name: (*missing[name], *NOT_ON_WINDOWS[name]) for name in missing}
    changed: dict[str, dict[str, Any]] = {"sys": {"platform": system}}
    if is_windows:
        left = {s.name: s for s in signal.Signals if s.name not in missing["signal"]}
        changed["os"] = {"name": "nt", "read": _read, "write": _write}
        changed["select"] = {"select": _select}
        changed["signal"] = {"Signals": types.SimpleNamespace(__members__=left)}
    fakes = {
        module.__name__: _OtherModule(
            module, missing.get(module.__name__, ()), changed.get(module.__name__, {})
        )
        for module in (os, select, signal, socket, sys)
    }
    import_module = builtins.__import__

    def import_fake(
        name: str,
        globals: Any = None,  # noqa: A002
        locals: Any = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        importer = "" if globals is None else globals.get("__name__", "")
        if level == 0 and importer.partition(".")[0] in ("tests", "trioglock"):
            if is_windows and name in POSIX_MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in fakes:
                return fakes[name]
        return import_module(name, globals, locals, fromlist, level)

    builtins.__import__ = import_fake  # type: ignore[assignment]


class _OtherModule(types.ModuleType):
    """Like a module, but without some names, and with other values of some.

    Args:
        module: it has all other names, whose values tests may change.
        missing: the names that do not exist.
        changed: names and values.
    """

    def __init__(
        self, module: types.ModuleType, missing: Iterable[str], changed: dict[str, Any]
    ) -> None:
        super().__init__(module.__name__)
        names = self.__dict__
        names.update(module.__dict__)
        for name in missing:
            names.pop(name, None)
        names.update(changed, _module=module, _changed=frozenset(changed))

    def __getattribute__(self, name: str) -> Any:
        names = super().__getattribute__("__dict__")
        if name in names and name not in names["_changed"] and name in names["_module"].__dict__:
            return names["_module"].__dict__[name]
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name not in self._changed:
            setattr(self._module, name, value)


# On Windows a socket is not a file, and select() accepts nothing else.


def _read(fd: int, size: int) -> bytes:
    assert not stat.S_ISSOCK(os.fstat(fd).st_mode)
    return os.read(fd, size)


def _write(fd: int, data: bytes) -> int:
    assert not stat.S_ISSOCK(os.fstat(fd).st_mode)
    return os.write(fd, data)


def _select(*arguments: Any) -> Any:
    for file in itertools.chain(*arguments[:3]):
        fd = file if isinstance(file, int) else file.fileno()
        assert stat.S_ISSOCK(os.fstat(fd).st_mode)
    return select.select(*arguments)


if __name__ == "__main__":
    _, chosen, program, *rest = sys.argv
    sys.argv = [program, *rest]
    pretend(chosen)
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
