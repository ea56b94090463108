"""The environment of a run: the machine and the versions of the packages."""

from __future__ import annotations

import datetime as dt
import os
import platform
import ssl
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

from trioglock import version

__all__ = ["describe_machine"]

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
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "(not installed)"
