"""Autobahn's environment: the suite runs on Python 2.7 only, which no present tool installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["SUITE_VERSION", "EnvironmentMissing", "python_with_suite"]

SUITE_VERSION = "25.10.1"

# Later ones no longer make environments of Python 2.7.
VIRTUALENV = "virtualenv<20.22"


class EnvironmentMissing(Exception):
    """There is no Python 2.7 on this computer."""


def python_with_suite(folder: Path) -> Path:
    """A Python 2.7 that has the suite, set up in ``folder`` unless it is there already.

    Raises:
        EnvironmentMissing: no Python 2.7 was found.
        subprocess.CalledProcessError: the suite does not install; it needs a C compiler.
    """
    python = folder / "python2.7" / "bin" / "python"
    done = folder / f"has-{SUITE_VERSION}"
    if done.exists():
        return python
    found = find_python()
    print(f"setting up {folder} with {found}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    tools = folder / "tools"
    _run(sys.executable, "-m", "venv", tools)
    _run(tools / "bin" / "python", "-m", "pip", "install", "--quiet", VIRTUALENV)
    _run(tools / "bin" / "virtualenv", "--quiet", "-p", found, folder / "python2.7")
    # Its metadata pins all else; no cache, no newer pip: those of virtualenv are the last for 2.7.
    _run(python, "-m", "pip", "install", "--quiet", f"autobahntestsuite=={SUITE_VERSION}")
    done.touch()
    return python


def find_python() -> Path:
    """Python 2.7: pyenv's, or the one on the path."""
    for root in _pyenv_roots():
        for found in sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True):
            return found
    on_path = shutil.which("python2.7")
    if on_path is None:
        raise EnvironmentMissing("Autobahn needs python2.7 on the PATH, or pyenv's")
    return Path(on_path)


def _pyenv_roots() -> list[Path]:
    """Where pyenv keeps its versions. Its shim on the PATH works only for the chosen ones."""
    given = os.environ.get("PYENV_ROOT")
    return [Path(given)] if given else [Path.home() / ".pyenv"]


def _run(*command: str | Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, check=True, env=environment)  # noqa: S603 - ours
