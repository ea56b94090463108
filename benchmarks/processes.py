"""The processes of a run: servers, contenders, and busy loops that keep the cores awake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .job import Job

__all__ = ["Failed", "Missing", "Server", "Worker", "servers", "spinners"]

ROOT = Path(__file__).parent.parent

# The longest job opens 10,000 connections and measures them.
JOB_SECONDS = 300

# A busy loop that ends with its parent process.
SPINNER = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""


class Missing(Exception):
    """The contender is not installed."""


class Failed(Exception):
    """The job failed."""


class Child:
    """A process that writes lines of JSON and ends when its standard input is closed."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def write(self, line: str) -> None:
        """Write a line to standard input."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed("the process has exited") from None

    def read(self, seconds: float = JOB_SECONDS) -> Any:
        """Read the next line from standard output and parse it.

        Raises:
            Failed: the process has exited, or did not answer in time and was killed.
        """
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            code = self._process.wait()
            raise Failed(f"the process exited with {code}, or did not answer in {seconds:g} s")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with self._process:
            self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()


@dataclass(frozen=True)
class Server:
    """The ports of a server and the file of its CA certificate."""

    port: int
    tls_port: int
    cafile: str

    def address(self, *, tls: bool) -> dict[str, Any]:
        """Return the fields of a job that address the server."""
        if tls:
            return {"server": f"wss://127.0.0.1:{self.tls_port}", "cafile": self.cafile}
        return {"server": f"ws://127.0.0.1:{self.port}"}


@contextmanager
def servers(folder: Path, roles: Iterable[str]) -> Iterator[dict[str, Server]]:
    """Run a server for each role during the block, and yield them by role."""
    cafiles = {role: str(folder / f"{role}.pem") for role in roles}
    children = {role: Child("server", role, cafile) for role, cafile in cafiles.items()}
    try:
        yield {role: _server(child, cafiles[role]) for role, child in children.items()}
    finally:
        for child in children.values():
            child.close()


def _server(child: Child, cafile: str) -> Server:
    port, tls_port = child.read(seconds=30)
    return Server(port, tls_port, cafile)


class Worker:
    """The process of a contender.

    Args:
        contender: the module in ``benchmarks.contenders``.
        build: the directory from which the process imports trioglock; by default this one.
    """

    def __init__(self, contender: str, build: Path | None = None) -> None:
        self.name = contender
        self._arguments = ("worker", contender, *(() if build is None else (str(build),)))
        self._child = Child(*self._arguments)

    def wait_ready(self) -> None:
        """Wait until the contender is imported.

        Raises:
            Missing: the contender is not installed.
        """
        answer = self._child.read()
        if "missing" in answer:
            self._child.close()
            raise Missing(answer["missing"])

    def run(self, job: Job) -> dict[str, float]:
        """Run a job; return its values by item, with the CPU time in seconds as ``cpu``.

        Raises:
            Failed: the job failed. A process that has exited is replaced.
        """
        try:
            self._child.write(json.dumps(asdict(job)))
            answer = self._child.read()
        except Failed:
            self._child.close()
            self._child = Child(*self._arguments)
            self.wait_ready()
            raise
        if "error" in answer:
            raise Failed(answer["error"])
        result = answer["result"]
        values = result if isinstance(result, dict) else {"seconds": result}
        return {"cpu": answer["cpu"], **values}

    def close(self) -> None:
        """End the process."""
        self._child.close()


@contextmanager
def spinners() -> Iterator[None]:
    """Keep every core busy during the block: waking up an idle virtual core takes a long time."""
    nice = shutil.which("nice")
    count = (os.cpu_count() or 1) if nice else 0
    command = [str(nice), "-n", "19", sys.executable, "-c", SPINNER, str(os.getpid())]
    running = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
