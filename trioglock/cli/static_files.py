"""The files that ``trioglock serve --static`` serves."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from email.utils import formatdate
from mimetypes import MimeTypes
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes
from weakref import WeakValueDictionary

import trio

from ..errors import InvalidOption
from ..http import Request, Response

__all__ = ["MAX_FILE_SIZE", "StaticFiles"]

MAX_FILE_SIZE = 2**24
"""Maximum size of a file in bytes: a response is in memory while it is being sent."""

MAX_TOTAL_SIZE = 2**26
"""Maximum total size in bytes of all files that are being sent.

A file that is being sent to several clients counts only once.
"""

RETRY_AFTER = 1
"""Seconds after which a client may retry if :data:`MAX_TOTAL_SIZE` would be exceeded."""

# Types that are missing or outdated in some versions of the standard library (RFC 9239, and the
# IANA registry of media types).
TYPES = {
    ".avif": "image/avif",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}

# The types of the system may be wrong, for example those of a Windows registry.
_types = MimeTypes()
for _suffix, _type in TYPES.items():
    _types.add_type(_type, _suffix)


NOT_FOUND = Response(404, "not found\n")


class FileResponse(Response):
    """A response with the content of a file, shared by all clients that receive it."""

    __slots__ = ("__weakref__",)


class StaticFiles:
    """Answers requests with the files in a directory.

    Two kinds of files are not served: hidden files (those with a dot at the beginning of the name
    of the file or of one of its directories), and targets of symbolic links that are outside the
    directory.

    Args:
        directory: the directory. It may be replaced while files are being served.

    Raises:
        InvalidOption: there is no such directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory).absolute()
        if not self._directory.is_dir():
            raise InvalidOption(f"--static must be a directory, not {directory!r}")
        self._reading = trio.Lock()
        self._sending: WeakValueDictionary[tuple[Path, int, int], FileResponse] = (
            WeakValueDictionary()
        )

    async def respond(self, request: Request) -> Response:
        """Return the response to a request: a file, a redirect to a directory, or an error."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, "only GET and HEAD are allowed\n", {"Allow": "GET, HEAD"})
        path = _parse_path(request.path)
        found = None if path is None else await trio.to_thread.run_sync(self._find, path)
        if path is None or found is None:
            return NOT_FOUND
        file, status = found
        if stat.S_ISDIR(status.st_mode):
            query = f"?{request.query}" if request.query else ""
            return Response(301, headers={"Location": f"/{quote(path)}/{query}"})
        headers = {
            # Browsers cache the file, but check whether their copy is current.
            "Cache-Control": "no-cache",
            "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        }
        if _is_current(request, headers):
            return Response(304, headers=headers)
        headers["Content-Type"] = _find_type(path)
        headers["X-Content-Type-Options"] = "nosniff"
        async with self._reading:
            return await self._read(file, status, headers)

    def _find(self, path: str) -> tuple[Path, os.stat_result] | None:
        """Find a file, or a directory whose path lacks the trailing slash."""
        try:
            root = self._directory.resolve(strict=True)
            file = (root / path).resolve(strict=True)
            status = file.stat()
        except (OSError, RuntimeError):  # missing, no permission, name too long, a cycle of links
            return None
        names_directory = path.endswith("/") or not path
        if stat.S_ISDIR(status.st_mode):
            if names_directory:
                index = self._find(f"{path}index.html")
                return None if index is None or stat.S_ISDIR(index[1].st_mode) else index
        elif names_directory or not stat.S_ISREG(status.st_mode):
            return None
        if not file.is_relative_to(root) or _is_hidden(file.relative_to(root).parts):
            return None
        return file, status

    async def _read(self, file: Path, status: os.stat_result, headers: dict[str, str]) -> Response:
        key = (file, status.st_mtime_ns, status.st_size)
        shared = self._sending.get(key)
        if shared is not None:
            return shared
        sending = sum(len(response.body) for response in self._sending.values())
        if status.st_size <= MAX_FILE_SIZE and sending + status.st_size > MAX_TOTAL_SIZE:
            return Response(503, "too many downloads\n", {"Retry-After": str(RETRY_AFTER)})
        content = await trio.to_thread.run_sync(_read_file, file)
        if content is None:
            return NOT_FOUND
        if len(content) > MAX_FILE_SIZE:
            return Response(403, f"files larger than {MAX_FILE_SIZE} bytes are not served\n")
        response = self._sending[key] = FileResponse(200, content, headers)
        return response


def _parse_path(path: str) -> str | None:
    """Decode the path of a URL and make it relative; return None if it cannot be that of a file."""
    try:
        text = unquote_to_bytes(path.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None
    if not text.startswith("/") or "\0" in text or "\\" in text:
        return None
    names = text[1:].removesuffix("/").split("/") if text != "/" else []
    return None if "" in names or _is_hidden(names) else text[1:]


def _is_hidden(names: Sequence[str]) -> bool:
    """Whether a name begins with a dot, including the names ``.`` and ``..``."""
    return any(name.startswith(".") for name in names)


def _find_type(path: str) -> str:
    name = path.rpartition("/")[2] or "index.html"
    kind, encoding = _types.guess_type(f"/{name}")
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _is_current(request: Request, headers: dict[str, str]) -> bool:
    """Whether the client's copy is current (RFC 9110, sections 13.1.2 and 13.1.3)."""
    values = request.headers.get_all("If-None-Match")
    if values:
        tags = {tag.strip().removeprefix("W/") for value in values for tag in value.split(",")}
        return not tags.isdisjoint(("*", headers["ETag"]))
    # Clients send the date exactly as they received it.
    return request.headers.get("If-Modified-Since") == headers["Last-Modified"]


def _read_file(file: Path) -> bytes | None:
    """Read at most one byte more than the maximum size; return None if that fails."""
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_SIZE + 1)
    except OSError:
        return None
