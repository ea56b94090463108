"""The environment of a run: the machine and the versions of the packages."""

from __future__ import annotations

import datetime as dt
import os
import platform
import ssl
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["describe_machine"]

PACKAGES = (
    "trioglock",
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
        "trioglock": "compiled" if _is_compiled() else "pure Python",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def _is_compiled() -> bool:
    spec = find_spec("trioglock.transports.native.decoder")
    return spec is not None and not str(spec.origin).endswith(".py")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
