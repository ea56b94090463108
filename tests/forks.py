"""Runs many scripts, each in a process that is forked from one that has imported the package.

That takes a small part of the time that as many interpreters need. :func:`run_forks` starts this
file as a script.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from tests.scripts import ROOT

__all__ = ["Fork", "run_forks"]

PARALLEL = 3


@dataclass(frozen=True, kw_only=True)
class Fork:
    """A script or a module to run, and the files to which its output goes."""

    script: str
    arguments: Sequence[str] = ()
    cwd: str = "."
    stdout: str
    stderr: str


async def run_forks(
    forks: Sequence[Fork], imports: Sequence[str], env: dict[str, str] | None = None
) -> list[int]:
    """Run each of them, with warnings as errors, and return their exit codes.

    Args:
        forks: what to run.
        imports: the modules to import beforehand.
        env: the environment variables, by default those of this process.
    """
    with trio.fail_after(120):
        done = await trio.run_process(
            [sys.executable, "-X", "utf8", "-W", "error", "-m", "tests.forks", *imports],
            stdin=json.dumps([asdict(fork) for fork in forks]).encode(),
            capture_stdout=True,
            cwd=ROOT,
            env=env,
        )
    codes: list[int] = json.loads(done.stdout)
    return codes


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # at its end, a process would copy the memory of all objects that it collects
    forks = [Fork(**values) for values in json.load(sys.stdin)]
    codes, running = [0] * len(forks), dict[int, int]()
    for number, fork in enumerate(forks):
        if len(running) == PARALLEL:
            wait(running, codes)
        process = os.fork()
        if process == 0:
            run(fork)
            return
        running[process] = number
    while running:
        wait(running, codes)
    print(json.dumps(codes))


def wait(running: dict[int, int], codes: list[int]) -> None:
    """Wait for one of them and store its exit code."""
    process, status = os.wait()
    codes[running.pop(process)] = os.waitstatus_to_exitcode(status)


def run(fork: Fork) -> None:
    """Run it in this process."""
    for path, descriptor in ((os.devnull, 0), (fork.stdout, 1), (fork.stderr, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
    os.chdir(fork.cwd)
    sys.argv = [fork.script, *fork.arguments]
    if fork.script.endswith(".py"):
        sys.path[0] = str(Path(fork.script).parent)
        runpy.run_path(fork.script, run_name="__main__")
    else:
        runpy.run_module(fork.script, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
