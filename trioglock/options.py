"""The settings of a connection, checked once, at the call that brought them."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio

from ._redact import redact_repr, redact_subprotocols
from ._version import __version__
from .errors import InvalidOption
from .frames import BytesLike, Data
from .headers import TOKEN, Headers, HeadersLike

__all__ = [
    "USER_AGENT",
    "DialOptions",
    "FlowOptions",
    "MessageHeartbeat",
    "Overflow",
    "StreamSource",
]

USER_AGENT = f"trioglock/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"
"""What the opening handshake says of us by default."""

Overflow: TypeAlias = Literal["wait", "drop_oldest", "drop_newest", "close"]
"""What a full receive queue does; see :class:`FlowOptions`."""

StreamSource: TypeAlias = trio.abc.Stream | Callable[[], Awaitable[trio.abc.Stream]]
"""An open stream, or a function that opens one for every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DialOptions:
    """How to reach the server and what to ask of it: all that one attempt needs.

    The fields are the keyword arguments of :func:`trioglock.connect` and mean the same.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    url: str = field(default="", repr=False)
    additional_headers: Headers = Headers()
    subprotocols: tuple[str, ...] = ()
    origin: str | None = None
    user_agent_header: str | None = USER_AGENT
    compression: Literal["deflate"] | None = "deflate"
    proxy: str | Literal[True] | None = field(default=True, repr=False)
    ssl_context: ssl.SSLContext | None = None
    server_hostname: str | None = None
    stream: StreamSource | None = None
    open_timeout: float | None = 10
    max_size: int | None = 2**20
    max_redirects: int = 10

    def __repr__(self) -> str:
        return redact_repr(self)

    def __post_init__(self) -> None:
        for name in ("origin", "user_agent_header"):
            _check_header_value(name, getattr(self, name))
        if self.server_hostname is not None and not isinstance(self.server_hostname, str):
            raise InvalidOption(f"server_hostname is a str, not {self.server_hostname!r}")
        if self.compression not in ("deflate", None):
            raise InvalidOption(f"compression is 'deflate' or None, not {self.compression!r}")
        if not (self.proxy is None or self.proxy is True or isinstance(self.proxy, str)):
            raise InvalidOption(f"proxy is True, None or a URL, not {type(self.proxy).__name__}")
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise InvalidOption(f"ssl_context is an ssl.SSLContext, not {self.ssl_context!r}")
        if self.stream is not None and not (
            isinstance(self.stream, trio.abc.Stream) or callable(self.stream)
        ):
            raise InvalidOption(f"stream is a trio stream, not {self.stream!r}")
        check_seconds("open_timeout", self.open_timeout)
        check_whole("max_size", self.max_size, least=1)
        check_whole("max_redirects", self.max_redirects, least=0, none=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeartbeat:
    """A heartbeat in messages, for servers that want text instead of ping frames.

    Args:
        message: makes what is sent every ``ping_interval``, past ``handle_send``: ``str`` or
            bytes-like.
        is_answer: whether a received message answers it; those do not reach ``handle_receive``.

    Raises:
        InvalidOption: one of these is no function.
    """

    message: Callable[[], str | BytesLike]
    is_answer: Callable[[Data], bool]

    def __post_init__(self) -> None:
        for name in ("message", "is_answer"):
            if not callable(getattr(self, name)):
                raise InvalidOption(f"{name} is a function, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """Time-outs, limits and what to do when they are reached.

    The fields are the keyword arguments of :func:`trioglock.connect` and mean the same.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    close_timeout: float | None = 10
    write_timeout: float | None = 60
    max_queue: int | None = 16
    write_limit: int = 2**16
    overflow: Overflow = "wait"
    heartbeat: MessageHeartbeat | None = None

    def __post_init__(self) -> None:
        for name in ("ping_interval", "ping_timeout", "close_timeout", "write_timeout"):
            check_seconds(name, getattr(self, name))
        check_whole("max_queue", self.max_queue, least=1)
        check_whole("write_limit", self.write_limit, least=1, none=False)
        if self.overflow not in ("wait", "drop_oldest", "drop_newest", "close"):
            raise InvalidOption(
                "overflow is 'wait', 'drop_oldest', 'drop_newest' or 'close', "
                f"not {self.overflow!r}"
            )
        if self.heartbeat is not None and not isinstance(self.heartbeat, MessageHeartbeat):
            raise InvalidOption(f"heartbeat is a MessageHeartbeat or None, not {self.heartbeat!r}")
        if self.max_queue is None and self.overflow != "wait":
            raise InvalidOption(f"overflow={self.overflow!r} needs a max_queue")


# What the opening handshake itself says (RFC 6455, section 4.1).
_RESERVED_HEADERS = frozenset({"connection", "upgrade"})


def check_headers(name: str, headers: HeadersLike | None) -> Headers:
    """Headers from what the user gave for the option called ``name``."""
    try:
        checked = Headers(() if headers is None else headers)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"{name}: {error}") from None
    for header in checked:
        if header.lower() in _RESERVED_HEADERS or header.lower().startswith("sec-websocket-"):
            raise InvalidOption(f"{name}: {header} is set by the opening handshake itself")
    return checked


def check_subprotocols(subprotocols: Sequence[str] | None) -> tuple[str, ...]:
    """The names of subprotocols, each a token (RFC 6455, section 4.1)."""
    if subprotocols is None:
        return ()
    if isinstance(subprotocols, str):
        raise InvalidOption(f"subprotocols is a list of names, not the str {_names(subprotocols)}")
    try:
        names = tuple(subprotocols)
    except TypeError:
        raise InvalidOption(f"subprotocols is a list of names, not {subprotocols!r}") from None
    for name in names:
        if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
            raise InvalidOption(f"{_names(name)} is not the name of a subprotocol")
    if len(set(names)) < len(names):
        raise InvalidOption(f"subprotocols are named twice in {_names(list(names))}")
    return names


def _names(given: object) -> str:
    # Browsers have made it a habit to send a token as one of the names.
    return redact_subprotocols(repr(given))


def _check_header_value(name: str, value: str | None) -> None:
    if value is None:
        return
    try:
        Headers([(name, value)])
    except ValueError as error:
        raise InvalidOption(f"{name}: {error}") from None


def check_seconds(name: str, value: float | None, *, none: bool = True) -> None:
    """Raise InvalidOption unless ``value`` is a positive number of seconds, or None for never."""
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(
            f"{name} is a number of seconds{' or None' if none else ''}, not {value!r}"
        )
    try:
        positive = float(value) > 0
    except OverflowError:
        positive = False
    if not positive:
        never = ", or None for never" if none else ""
        raise InvalidOption(f"{name} is more than 0 seconds{never}, not {value!r}")


def check_whole(name: str, value: int | None, *, least: int, none: bool = True) -> None:
    """Raise InvalidOption unless ``value`` is a whole number of at least ``least``, or None."""
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise InvalidOption(f"{name} is at least {least}, not {value}")
