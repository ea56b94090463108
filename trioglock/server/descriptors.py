"""The number of files and sockets that the process may open (RLIMIT_NOFILE)."""

from __future__ import annotations

import sys
from contextlib import suppress

with suppress(ImportError):  # Windows has no such limit
    import resource

__all__ = ["descriptor_limit", "raise_descriptor_limit"]

# The kernel's default maximum on Linux. It is also used on macOS, which reports no maximum. A much
# higher limit would slow down child processes that close all descriptors one by one.
_ENOUGH = (2**20, 10240)


def descriptor_limit() -> int | None:
    """Return the limit, or None if there is none, as on Windows."""
    if sys.platform == "win32":
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard limit, but to no more than 1,048,576; never lower it."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    for enough in _ENOUGH:
        wanted = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
        if wanted <= soft:
            return
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
