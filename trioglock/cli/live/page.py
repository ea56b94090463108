"""The page: one answer of HTTP that needs nothing else, and a policy that lets it do little."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from ...http import Request, Response

__all__ = ["page_for", "page_text"]

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page_for(request: Request) -> Response:
    """The page, for a request whose Host is one of ours."""
    text, policy = _assembled()
    host = request.headers["Host"]
    # Not every browser counts a WebSocket to where the page came from as 'self'.
    policy = f"{policy}; connect-src 'self' ws://{host} wss://{host}"
    return Response(200, text, {**HEADERS, "Content-Security-Policy": policy})


def page_text() -> str:
    """The whole page."""
    return _assembled()[0]


@cache
def _assembled() -> tuple[str, str]:
    """The page with its style and its script in it, and a policy for just these two."""
    place = files(__package__)
    text, style, script = (
        place.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    text = text.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _hash(source: str) -> str:
    """What lets one inline block through (Content Security Policy Level 3, section 8.3)."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
