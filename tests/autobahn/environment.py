"""Sets up the environment of the suite, which runs only on Python 2.7.

Current tools can no longer create environments of Python 2.7.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["SUITE_VERSION", "EnvironmentMissing", "python_with_suite"]

SUITE_VERSION = "25.10.1"

# The last version that supports Python 2.7.
VIRTUALENV = "virtualenv<20.22"


class EnvironmentMissing(Exception):
    """Python 2.7 was not found."""


def python_with_suite(folder: Path) -> Path:
    """Return a Python 2.7 with the suite, and install it in ``folder`` if necessary.

    Raises:
        EnvironmentMissing: no Python 2.7 was found.
        subprocess.CalledProcessError: the installation failed; it needs a C compiler.
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
    # Keep the pip of virtualenv, which is the last one for 2.7. The suite pins its dependencies.
    _run(python, "-m", "pip", "install", "--quiet", f"autobahntestsuite=={SUITE_VERSION}")
    done.touch()
    return python


def find_python() -> Path:
    """Find Python 2.7 in the versions of pyenv or on the PATH.

    Raises:
        EnvironmentMissing: Python 2.7 was not found.
    """
    for root in _pyenv_roots():
        for found in sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True):
            return found
    on_path = shutil.which("python2.7")
    if on_path is None:
        raise EnvironmentMissing(
            "python2.7 was not found; install it with pyenv or put it on the PATH"
        )
    return Path(on_path)


def _pyenv_roots() -> list[Path]:
    """Return the folders of pyenv. Its shim on the PATH works only for selected versions."""
    given = os.environ.get("PYENV_ROOT")
    return [Path(given)] if given else [Path.home() / ".pyenv"]


def _run(*command: str | Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, check=True, env=environment)  # noqa: S603 - our own commands
