"""The processes of a run: servers, contenders, and spinners that keep the cores awake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .job import Job

__all__ = ["Failed", "Missing", "Server", "Worker", "servers", "spinners"]

ROOT = Path(__file__).parent.parent

# The longest job is to open 10,000 connections and to watch them.
JOB_SECONDS = 300

# Busy at the lowest priority, until the process that started it has ended.
SPINNER = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""


class Missing(Exception):
    """The contender is not installed."""


class Failed(Exception):
    """The contender could not do the job."""


class Child:
    """A process of ours that answers with lines of JSON and ends with its standard input."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def write(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed("the process has ended") from None

    def read(self, seconds: float = JOB_SECONDS) -> Any:
        """The next answer."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise Failed(f"the process ended with {self._process.wait()}, or took too long")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    port: int
    tls_port: int
    cafile: str

    def address(self, *, tls: bool) -> dict[str, Any]:
        """The fields of a job that lead to it."""
        if tls:
            return {"server": f"wss://127.0.0.1:{self.tls_port}", "cafile": self.cafile}
        return {"server": f"ws://127.0.0.1:{self.port}"}


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, Server]]:
    """Run the servers, by role."""
    cafiles = {role: str(folder / f"{role}.pem") for role in ("echo", "flood", "sink")}
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
    """A contender in its process."""

    def __init__(self, contender: str) -> None:
        self._contender = contender
        self._child = Child("worker", contender)

    def wait_ready(self) -> None:
        """Wait until it has been loaded.

        Raises:
            Missing: it is not installed.
        """
        answer = self._child.read()
        if "missing" in answer:
            self._child.close()
            raise Missing(answer["missing"])

    def run(self, job: Job) -> tuple[Any, float]:
        """Have a job done; what it measured, and the seconds of CPU that all of it took.

        Raises:
            Failed: it could not; a process that is gone is started again.
        """
        try:
            self._child.write(json.dumps(asdict(job)))
            answer = self._child.read()
        except Failed:
            self._child.close()
            self._child = Child("worker", self._contender)
            self.wait_ready()
            raise
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"], answer["cpu"]

    def close(self) -> None:
        """End it."""
        self._child.close()


@contextmanager
def spinners() -> Iterator[None]:
    """Keep every core awake: an idle one of a virtual machine takes long to wake up."""
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
