"""Node.js and the packages that tests install with npm."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

__all__ = ["find_node", "find_node_with_websocket", "install_packages"]

SECONDS = 60
"""Time limit for npm."""


def find_node() -> str:
    """Return the path of Node; skip the test without it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    return node


def find_node_with_websocket() -> list[str]:
    """Return the command of Node with WebSocket; skip the test without it."""
    node = find_node()
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    major = int(version.stdout[1:].split(".")[0])
    if major < 20:
        pytest.skip("needs Node 20 or later, for WebSocket")
    # Node 20 has it behind a flag.
    return [node, "--no-warnings", *(["--experimental-websocket"] if major < 22 else [])]


def install_packages(folder: Path) -> Path:
    """Install the locked packages of a folder unless they are there; skip the test if npm cannot.

    Args:
        folder: contains ``package.json`` and ``package-lock.json``.

    Returns:
        ``node_modules`` in this folder. It appears at once, as several processes may install it.
    """
    modules = folder / "node_modules"
    if modules.is_dir():
        return modules
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"there is no npm on this machine to install the packages of {folder.name}")
    with tempfile.TemporaryDirectory(dir=folder, prefix="node_modules-") as temporary:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, temporary)
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(  # noqa: S603 - our own package.json
                install, cwd=temporary, timeout=SECONDS, capture_output=True, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"npm could not install the packages of {folder.name}: {error}")
        with suppress(OSError):  # another process was faster
            (Path(temporary) / "node_modules").rename(modules)
    return modules
