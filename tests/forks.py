"""Runs Python programs in processes that are forked from one that has imported the package.

A fork takes a small part of the time of a new interpreter, which imports trio, the package and the
libraries of the command line first. This file is also the program of the process that forks.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, NoReturn

import trio

from tests.scripts import ROOT, Finished

__all__ = ["INTERPRETER", "Forked", "close_forks", "forked", "open_fork", "run_fork"]

INTERPRETER = (sys.executable, "-X", "utf8", "-W", "error")
IMPORTED = (
    "trioglock.channels",
    "trioglock.pubsub",
    "trioglock.testing",
    *(f"trioglock.cli.{path.stem}" for path in sorted((ROOT / "trioglock" / "cli").glob("*.py"))),
)
SIGNALS = [
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)
]


class Forked:
    """A running process, with the interface of :class:`trio.Process`.

    Args:
        pid: its process id.
        control: the connection to its parent.
        stdin: its input.
        stdout: its output, if it is a pipe.
        stderr: its errors, if they are a pipe.
    """

    def __init__(
        self,
        pid: int,
        control: trio.socket.SocketType,
        stdin: trio.abc.SendStream,
        stdout: trio.abc.ReceiveStream | None,
        stderr: trio.abc.ReceiveStream | None,
    ) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._control = control
        self._lock = trio.Lock()

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        async with self._lock:
            if self.returncode is None:
                self.returncode = int(await self._control.recv(100))
                self._control.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless :meth:`wait` has returned."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


async def open_fork(
    *arguments: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdout: int = PIPE,
    stderr: int = PIPE,
) -> trio.Process | Forked:
    """Start a program with warnings as errors; its input is a pipe.

    On other systems than Linux it runs in a new interpreter.

    Args:
        arguments: as of ``python``: ``-m`` and the name of a module, or the path of a script, and
            the arguments of the program.
        cwd: its working directory.
        env: the environment variables, by default those of this process. Of those that Python
            itself reads, only ``PYTHONPATH`` has an effect.
        stdout: the descriptor for its output, by default a pipe.
        stderr: the descriptor for its errors, by default a pipe.
    """
    if sys.platform != "linux":
        return await trio.lowlevel.open_process(
            [*INTERPRETER, *arguments], stdin=PIPE, stdout=stdout, stderr=stderr, cwd=cwd, env=env
        )
    request = {
        "arguments": arguments,
        "cwd": str(cwd),
        "env": dict(env or os.environ),
        "ignored": [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN],
    }
    control, theirs = trio.socket.socketpair()
    stdin, write = os.pipe()
    output, stdout = os.pipe() if stdout == PIPE else (None, os.dup(stdout))
    errors, stderr = os.pipe() if stderr == PIPE else (None, os.dup(stderr))
    files = [stdin, stdout, stderr]
    with theirs:
        message = json.dumps(request).encode()
        socket.send_fds(_server(), [message], [theirs.fileno(), *files])
    for descriptor in files:
        os.close(descriptor)
    streams = [None if fd is None else trio.lowlevel.FdStream(fd) for fd in (output, errors)]
    pid = int(await control.recv(100))
    return Forked(pid, control, trio.lowlevel.FdStream(write), *streams)


@asynccontextmanager
async def forked(*arguments: str, **options: Any) -> AsyncIterator[trio.Process | Forked]:
    """Yield the process of :func:`open_fork`; kill it if it has not ended with the block."""
    process = await open_fork(*arguments, **options)
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()


async def run_fork(*arguments: str | Path, cwd: Path = ROOT) -> Finished:
    """Run a program without input to its end; see :func:`open_fork`."""
    output = {"stdout": b"", "stderr": b""}

    async def read(name: str) -> None:
        async with getattr(process, name) as stream:
            output[name] = b"".join([chunk async for chunk in stream])

    with trio.fail_after(300):
        process = await open_fork(*map(str, arguments), cwd=cwd)
        assert process.stdin is not None
        await process.stdin.aclose()
        async with trio.open_nursery() as nursery:
            for name in output:
                nursery.start_soon(read, name)
        code = await process.wait()
    return Finished(code, output["stdout"].decode(), output["stderr"].decode())


_open = ExitStack()


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    with theirs:
        process = Popen(  # noqa: S603 - this file
            [*INTERPRETER, "-m", __name__],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            cwd=ROOT,
            env=env,
        )
    _open.enter_context(process)
    return _open.enter_context(ours)  # is closed first, which ends the process


def close_forks() -> None:
    """End the process that forks."""
    _open.close()
    _server.cache_clear()


def main() -> None:
    """Fork a process for each request until there are no more."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # at its end, a process would copy the memory of all objects that it collects
    with socket.socket(fileno=os.dup(0)) as requests:
        while True:
            message, files, *_ = socket.recv_fds(requests, 2**20, 4)
            if not message:
                return
            if os.fork() == 0:
                break
            for descriptor in files:
                os.close(descriptor)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    control, *files = files
    if pid := os.fork():
        for descriptor in files:
            os.close(descriptor)
        watch(pid, socket.socket(fileno=control))
    os.close(control)
    run(files, **json.loads(message))


def watch(pid: int, control: socket.socket) -> NoReturn:
    """Tell the client the process id of its program and, at the end, the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # as for Ctrl-C, which all processes get
    control.setblocking(True)  # trio's sockets are not, at both ends
    control.send(str(pid).encode())
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert end is not None
    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    with suppress(OSError):
        control.send(str(code).encode())
        control.recv(1)  # the client sends no signals from now on, so the id may be used again
    os.waitpid(pid, 0)
    os._exit(0)


def run(
    files: Sequence[int],
    arguments: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    ignored: Sequence[int],
) -> None:
    """Run the program in this process."""
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in SIGNALS:
        standard = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in ignored else standard)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.orig_argv = [*INTERPRETER, *arguments]
    module = arguments[1] if arguments[0] == "-m" else None
    sys.argv = list(arguments[1 if module else 0 :])
    sys.path[:1] = [cwd if module else str(Path(arguments[0]).parent)]
    sys.path[1:1] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
