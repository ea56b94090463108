"""The TLS contexts of servers under test and of their clients."""

from __future__ import annotations

import ssl
from functools import cache

__all__ = ["server_context", "trusting_context"]


@cache
def server_context() -> ssl.SSLContext:
    """Return the context of a server on 127.0.0.1, with a new certificate."""
    import trustme  # noqa: PLC0415 - only servers need it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@cache
def trusting_context() -> ssl.SSLContext:
    """Return the context of a client that accepts any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
