"""The packages of the Node.js servers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which

__all__ = ["NODE_DIRECTORY", "install_node_packages"]

NODE_DIRECTORY = Path(__file__).parent / "node"
SECONDS_TO_INSTALL = 120


def install_node_packages(name: str) -> None:
    """Install the locked packages, unless this one is installed.

    Args:
        name: the name of a package.

    Raises:
        ImportError: this is not possible.
    """
    npm = which("npm")
    if which("node") is None or npm is None:
        raise ImportError("there is no node or npm on this machine")
    if (NODE_DIRECTORY / "node_modules" / name).is_dir():
        return
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(
            install, cwd=NODE_DIRECTORY, timeout=SECONDS_TO_INSTALL, capture_output=True, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise ImportError(f"npm could not install {name}: {error}") from error
