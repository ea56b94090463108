"""Chromium and running examples, for tests of pages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import ROOT

__all__ = ["FOREIGN", "browser", "close_browser", "example", "expect", "keep_screenshot"]

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

FOREIGN = "foreign.example"
"""A name that the browser resolves to this machine, as after DNS rebinding."""

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1",
]
MILLISECONDS = 120_000
"""Time limit for the page to show something."""

expect: Any = playwright.expect


_opened = ExitStack()


@pytest.fixture(scope="module")
def browser() -> Any:
    """Chromium, as installed on the system; modules that run one after another share it.

    Its headless shell takes less than half of the CPU time, as it has no windows.
    """
    return _open()


@cache
def _open() -> Any:
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None:
        pytest.skip("needs chromium: install the system's package")
    expect.set_options(timeout=MILLISECONDS)
    tools = _opened.enter_context(playwright.sync_playwright())
    chromium = tools.chromium.launch(executable_path=path, args=FLAGS)
    _opened.callback(chromium.close)
    return chromium


def close_browser() -> None:
    """End Chromium, if it runs; the next test that needs it starts it again."""
    _open.cache_clear()
    _opened.close()


@contextmanager
def example(*arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an example; yield its process and the URL that it prints."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open http://"), line
        yield process, line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
        assert code == 0


def keep_screenshot(page: Any, name: str, tmp_path: Path) -> None:
    """Save a screenshot, in the directory of the environment variable SCREENSHOTS if it is set."""
    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"{name}.png"
    page.screenshot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
