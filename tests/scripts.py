"""Runs Python scripts in a separate process."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

__all__ = ["ROOT", "Finished", "assert_lines", "run_python"]

ROOT = Path(__file__).parent.parent
"""The root directory of the project."""


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a process."""

    code: int
    stdout: str
    stderr: str


async def run_python(*arguments: str | Path, cwd: Path = ROOT, seconds: float = 300) -> Finished:
    """Run the current interpreter, with warnings as errors, and wait until it exits.

    Args:
        arguments: of the interpreter.
        cwd: the working directory.
        seconds: the timeout, which only ends a script that hangs.
    """
    command = [sys.executable, "-X", "utf8", "-W", "error", *map(str, arguments)]
    with trio.fail_after(seconds):
        done = await trio.run_process(
            command, cwd=cwd, capture_stdout=True, capture_stderr=True, check=False
        )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_lines(output: str, patterns: Sequence[str]) -> None:
    """Assert that each pattern matches a line, in this order; other lines may come between."""
    lines = iter(output.splitlines())
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"{pattern} not in:\n{output}"
