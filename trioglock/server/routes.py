"""The targets of a server, and the paths at which they are served."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from .._hints import called_hint, describe_value
from .._redact import label
from ..connection import Connection
from ..errors import InvalidOption
from ..hooks import Socket, refuse_codec
from ..http import Request, Response
from ..options import FlowOptions
from ..transports import UpgradeOptions

__all__ = [
    "ConnectionHandler",
    "HandshakeTarget",
    "Route",
    "Routes",
    "ServeTarget",
    "ServeTargets",
]

ConnectionHandler: TypeAlias = Callable[[Connection[None, Any]], Awaitable[object]]
"""``async def handler(conn)``: the connection closes with 1000 when the handler returns."""


class HandshakeTarget(ABC):
    """A target that takes part in the opening handshake. Internal."""

    _codec_hint: str
    """The end of the error message that rejects a codec: a suggested correction."""

    @abstractmethod
    def _select_subprotocol(self, request: Request, offered: Sequence[str]) -> str | None:
        """Select the subprotocol, unless an option of the server does."""

    @abstractmethod
    async def _admit(self, request: Request) -> object:
        """Accept or refuse a client whose request is a valid opening handshake.

        Returns:
            A Response to refuse the client. Any other value accepts it and is passed to
            :meth:`_make_socket`.
        """

    @abstractmethod
    def _make_socket(self, admitted: object) -> Socket[Any, Any]:
        """Create the Socket of a client that was accepted."""


ServeTarget: TypeAlias = Callable[[], Socket[Any, Any]] | ConnectionHandler | HandshakeTarget
"""A Socket class, a function that creates a Socket for each connection, a handler, or the
``socket`` of :class:`trioglock.channels.Channels`."""

ServeTargets: TypeAlias = ServeTarget | Mapping[str, ServeTarget | Response]
"""One target for all paths, or the target of each path; see :func:`serve`."""


class Route(NamedTuple):
    """The target or response that is served at a path."""

    prefix: str
    """The part of the path before the ``*`` of the pattern; "/" without a ``*``."""
    target: ServeTarget | Response
    is_handler: bool
    upgrades: UpgradeOptions
    is_wildcard: bool = False
    """Whether the pattern ends with ``*``."""

    def respond(self, request: Request) -> Response | None:
        """Return the response to a plain HTTP request, or None if the path is for WebSockets."""
        if not isinstance(self.target, Response):
            return None
        if request.method not in _METHODS:
            # RFC 9110, section 15.5.6.
            return Response(405, "method not allowed\n", {"Allow": ", ".join(_METHODS)})
        return self.target


class Routes:
    """Finds the route of a path.

    Args:
        targets: one target for all paths, or a mapping of patterns to targets.
        flow: the options of all connections.
        upgrades: the upgrades that the server accepts.

    Raises:
        InvalidOption: a pattern or target cannot be used.
    """

    def __init__(self, targets: ServeTargets, flow: FlowOptions, upgrades: UpgradeOptions) -> None:
        self._exact: dict[str, Route] = {}
        self._prefixes: list[tuple[str, Route]] = []  # the longest first
        if not isinstance(targets, Mapping):
            check_target(targets, flow)
            self._prefixes.append(("", _make_route("/", targets, upgrades)))
            return
        if not targets:
            raise InvalidOption("no paths are served: the mapping is empty")
        for pattern, target in targets.items():
            prefix = _check_pattern(pattern)
            if not isinstance(target, Response):
                try:
                    check_target(target, flow)
                except InvalidOption as error:
                    raise InvalidOption(f"{pattern!r}: {error}") from None
            if pattern.endswith("*"):
                route = _make_route(prefix, target, upgrades)._replace(is_wildcard=True)
                self._prefixes.append((prefix, route))
            else:
                self._exact[pattern] = _make_route("/", target, upgrades)
        self._prefixes.sort(key=lambda item: -len(item[0]))

    def __iter__(self) -> Iterator[Route]:
        yield from self._exact.values()
        for _, route in self._prefixes:
            yield route

    def find(self, path: str) -> Route | None:
        """Return the route of a percent-encoded path, or None if the path has no target."""
        route = self._exact.get(path)
        if route is None:
            for prefix, route in self._prefixes:
                if path.startswith(prefix):
                    return route
            return None
        return route


def _make_route(prefix: str, target: ServeTarget | Response, upgrades: UpgradeOptions) -> Route:
    if isinstance(target, HandshakeTarget) and not (
        upgrades.subprotocols or upgrades.select_subprotocol
    ):
        upgrades = replace(upgrades, select_subprotocol=target._select_subprotocol)  # noqa: SLF001
    handler = not isinstance(target, Response) and is_handler(target)
    return Route(prefix, target, handler, upgrades)


_METHODS = ("GET", "HEAD")

# RFC 3986, section 3.3, without the asterisk.
_is_path = re.compile(r"/(?:[\w.~!$&'()+,;=:@/-]|%[0-9A-Fa-f]{2})*", re.ASCII).fullmatch


def _check_pattern(pattern: object) -> str:
    """Return the part of a pattern before its ``*``."""
    if not isinstance(pattern, str):
        raise InvalidOption(f"a path must be a str, not {describe_value(pattern)}")
    prefix = pattern.removesuffix("*")
    problem = ""
    if not pattern.startswith("/"):
        problem = "it must start with '/'"
    elif "?" in pattern or "#" in pattern:
        problem = "leave out the query, and read it from conn.http_request.query"
    elif "*" in prefix or (prefix != pattern and not prefix.endswith("/")):
        problem = "'*' stands for the rest of the path and follows the last '/', as in '/live/*'"
    elif "{" in pattern or "<" in pattern:
        problem = "parameters are not supported: use '/*' and conn.http_request.subpath"
    elif not _is_path(prefix):
        problem = f"it must be percent-encoded, as in {quote(pattern, safe='/*%')!r}"
    if problem:
        raise InvalidOption(f"{pattern!r} is not the path of a target: {problem}")
    return prefix


def is_handler(target: ServeTarget) -> bool:
    """Whether ``target`` is an async function, or an object whose ``__call__`` is one."""
    if isinstance(target, type):
        return False
    call = getattr(target, "__call__", None)  # noqa: B004 - its kind matters, not that it exists
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call)


def check_target(target: ServeTarget, flow: FlowOptions) -> None:
    """Raise InvalidOption unless the target can be run."""
    if isinstance(target, Socket):
        kind = type(target).__name__
        raise InvalidOption(
            f"every connection needs its own Socket: write serve({kind}, ...), "
            f"or a function that creates one, such as lambda: {kind}(...)"
        )
    if isinstance(target, HandshakeTarget):
        if flow.codec is not None:
            raise InvalidOption(
                f"{label(target)} encodes its own messages, so the connection cannot have a codec: "
                f"{target._codec_hint}"  # noqa: SLF001 - the same package
            )
        return
    if not callable(target) or (isinstance(target, type) and not issubclass(target, Socket)):
        # A Hub, for example, has a target as an attribute.
        hint = "; pass its socket, as in hub.socket" if hasattr(target, "socket") else ""
        hint = hint or called_hint(target)
        raise InvalidOption(
            f"target must be a Socket class or an async handler, not {target!r}{hint}"
        )
    if flow.codec is not None and isinstance(target, type):
        refuse_codec(target)
    arguments = (object(),) if is_handler(target) else ()
    try:
        inspect.signature(target).bind(*arguments)
    except TypeError:
        if {"scope", "receive", "send"} <= inspect.signature(target).parameters.keys():
            raise InvalidOption(
                f"{label(target)} is an ASGI application: run it with an ASGI server on trio, such "
                "as hypercorn --worker-class trio"
            ) from None
        raise InvalidOption(
            f"{label(target)} cannot be called: a handler is async def handler(conn), "
            "and a class or function that creates a Socket takes no arguments; a Response or "
            "process_request answers plain HTTP"
        ) from None
    except ValueError:
        pass  # a callable in C has no signature
