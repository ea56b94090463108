"""``trioglock.js``: the JavaScript module with which web pages subscribe to channels."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from ..http import Request, Response

__all__ = ["browser_module"]


def browser_module(request: Request) -> Response:
    """Return ``trioglock.js``, an ES module with which a page subscribes to a channel.

    Call this function in ``process_request``. Pages of all origins may import the module. Browsers
    cache it and check each time whether it has changed (RFC 9111, section 4.3).

    Args:
        request: the request for the module.

    Returns:
        The module with status 200, or 304 if the client already has it.
    """
    module, tag = _read_module()
    headers = {
        "Content-Type": "text/javascript; charset=utf-8",
        "Cache-Control": "no-cache",
        "ETag": tag,
        "Access-Control-Allow-Origin": "*",
    }
    # A proxy that compresses the response makes the tag weak (RFC 9110, section 8.8.1).
    known = request.headers.get("If-None-Match", "").replace("W/", "").split(",")
    if tag in (part.strip() for part in known):
        return Response(304, headers=headers)
    return Response(200, module, headers)


@cache
def _read_module() -> tuple[bytes, str]:
    module = files(__package__).joinpath("trioglock.js").read_bytes()
    return module, f'"{hashlib.sha256(module).hexdigest()[:16]}"'
