"""The limit of open files, which limits the number of connections of a process."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    import resource

__all__ = ["raise_limit"]


def raise_limit() -> int:
    """Raise the limit of open files as far as allowed, at most to 65,536, and return it."""
    if sys.platform == "win32":
        return 512
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 2**16 if hard == resource.RLIM_INFINITY else min(hard, 2**16)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
