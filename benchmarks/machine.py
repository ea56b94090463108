"""The environment of a run: the machine and the versions of the packages."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import ssl
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from shutil import which

from trioglock import version

__all__ = ["describe_machine"]

NODE_PACKAGES = Path(__file__).parent / "node" / "package.json"
PACKAGES = (
    "trio",
    "websockets",
    "trio-websocket",
    "wsproto",
    "picows",
    "uvloop",
    "aiohttp",
)


def describe_machine() -> dict[str, str]:
    """Return the environment as text, by item."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "TLS": ssl.OPENSSL_VERSION,
        "trioglock": version,
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "Node.js": _node(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _node() -> str:
    node = which("node")
    if node is None:
        return "not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    packages = json.loads(NODE_PACKAGES.read_text(encoding="utf-8"))["dependencies"]
    return ", ".join([version.stdout.strip(), *(f"{name} {packages[name]}" for name in packages)])


def _version(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "(not installed)"
