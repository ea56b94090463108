"""Descriptors: one for each connection, and a few more."""

from __future__ import annotations

import sys

__all__ = ["allow_descriptors"]

SPARE = 100


def allow_descriptors(connections: int) -> None:
    """Raise this process's limit, and that of those it starts, as far as the system lets it."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
