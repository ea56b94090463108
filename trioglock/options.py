"""The options of a connection, checked once, when they are passed.

Every option is written twice: its default and its check are in a dataclass, here or in the module
that uses the option, and its type and its documentation are in a ``TypedDict`` of keyword
arguments. ``accepts_options`` adds them to the signatures and docstrings of the functions that
accept them.
"""

from __future__ import annotations

import inspect
import re
import ssl
import sys
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, cast, get_args, get_type_hints

import trio

from ._hints import called_hint, describe_value
from ._redact import redact_repr, redact_subprotocols
from ._text import as_text
from ._version import __version__
from .errors import InvalidOption, UsageError
from .frames import BytesLike, Codec, Data
from .headers import Headers, HeadersLike, is_token

__all__ = [
    "USER_AGENT",
    "Compression",
    "Deflate",
    "DialOptions",
    "FlowKeywords",
    "FlowOptions",
    "MessageHeartbeat",
    "Overflow",
    "Rate",
    "RequestFormat",
    "ServerFlowOptions",
    "StallTimeout",
    "StreamSource",
]

USER_AGENT = f"trioglock/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"
"""The default ``User-Agent`` header of the opening handshake."""

Overflow: TypeAlias = Literal["wait", "drop_oldest", "drop_newest", "close"]
"""What happens when the receive queue is full; see :class:`FlowKeywords`."""

MAX_HEADER_SIZE = 2**15
"""Default of ``max_header_size`` in both roles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """The settings of permessage-deflate (RFC 7692): ``compression=Deflate(level=1)``.

    Settings whose names begin with ``peer_`` apply to the messages that the peer sends, all others
    to the messages that this side sends.
    The names of the corresponding parameters in RFC 7692, section 7.1, begin with ``client_`` or
    ``server_``, depending on which side sends the messages.

    Args:
        level: 1 is the fastest; 9 compresses best.
        window_bits: the window for messages that this side sends has at most ``2**window_bits``
            bytes; 9 to 15. zlib cannot compress with a window of 8 bits. None lets the server
            choose: a server uses 12, or less if the client requests it, and a client uses the value
            that the server requests, or 15. On a client, 15 does not permit the server to reduce
            the window.
        memory_level: memory of the compressor, 1 to 9: about ``2**(memory_level + 9)`` bytes, in
            addition to four times the window.
        no_context_takeover: compress each message independently. Idle connections then need no
            memory for the compressor, but similar short messages become much longer.
        min_size: messages of fewer bytes are sent uncompressed. It does not apply to messages in
            fragments, because their size is not known in advance. A :class:`PreparedMessage` is
            never compressed if it has fewer than 128 bytes.
        peer_window_bits: the limit for the messages that the peer sends, 9 to 15. On a server, None
            means 12, 15 means no limit, and a client that does not support limits uses 15. On a
            client, None sets no limit; a server that does not support a limit declines
            compression.
        peer_no_context_takeover: the peer must compress each message independently, so that idle
            connections need no memory for the decompressor.

    Raises:
        InvalidOption: an argument is of the wrong type or out of range.
    """

    level: int = 6
    window_bits: int | None = None
    memory_level: int = 5
    no_context_takeover: bool = False
    min_size: int = 0
    peer_window_bits: int | None = None
    peer_no_context_takeover: bool = False

    def __post_init__(self) -> None:
        _check_range(
            "level", self.level, 1, 9, "; use compression=None to send messages uncompressed"
        )
        _check_range("memory_level", self.memory_level, 1, 9)
        for name in ("window_bits", "peer_window_bits"):
            if (bits := getattr(self, name)) is not None:
                # Clients that use zlib fail the handshake if a server requests 8 bits.
                hint = "; zlib cannot compress with 8 bits" if bits == _WINDOW_8 else ""
                _check_range(name, bits, 9, 15, hint)
        check_whole("min_size", self.min_size, least=0, none=False)
        for name in ("no_context_takeover", "peer_no_context_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidOption(f"{name} must be True or False, not {getattr(self, name)!r}")


Compression: TypeAlias = Literal["deflate"] | Deflate | None
"""Whether and how messages are compressed; ``"deflate"`` is the same as ``Deflate()``."""


StreamSource: TypeAlias = trio.abc.Stream | Callable[[], Awaitable[trio.abc.Stream]]
"""An open stream, or an async function that opens one for every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DialOptions:
    """The options of one attempt to connect.

    ``url`` and ``additional_headers`` are the values for this attempt. The other fields are
    keyword arguments of :func:`trioglock.connect`.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    url: str = field(default="", repr=False)
    additional_headers: Headers = Headers()
    subprotocols: Sequence[str] = ()
    origin: str | None = None
    user_agent_header: str | None = USER_AGENT
    compression: Compression = "deflate"
    proxy: str | Literal[True] | None = field(default=True, repr=False)
    ssl_context: ssl.SSLContext | None = None
    server_hostname: str | None = None
    stream: StreamSource | None = None
    max_redirects: int = 10
    open_timeout: float | None = 10
    max_header_size: int = MAX_HEADER_SIZE
    max_size: int | None = 2**20
    fragments: bool = False

    def __repr__(self) -> str:
        return redact_repr(self)

    def __post_init__(self) -> None:
        object.__setattr__(self, "subprotocols", check_subprotocols(self.subprotocols))
        for name in ("origin", "user_agent_header"):
            if (value := getattr(self, name)) is not None:
                check_headers(name, [(name, value)])
                object.__setattr__(self, name, as_text(value))
        if self.server_hostname is not None and not isinstance(self.server_hostname, str):
            raise InvalidOption(f"server_hostname must be a str, not {self.server_hostname!r}")
        check_compression(self.compression)
        if not (self.proxy is None or self.proxy is True or isinstance(self.proxy, str)):
            raise InvalidOption(
                f"proxy must be True, None or a URL, not {type(self.proxy).__name__}"
            )
        check_ssl_context(self.ssl_context)
        if self.stream is not None and not (
            isinstance(self.stream, trio.abc.Stream) or callable(self.stream)
        ):
            hint = called_hint(self.stream)
            raise InvalidOption(
                f"stream must be a trio stream or a function, not {self.stream!r}{hint}"
            )
        check_seconds("open_timeout", self.open_timeout)
        check_whole("max_size", self.max_size, least=1)
        check_whole("max_redirects", self.max_redirects, least=0, none=False)
        check_whole("max_header_size", self.max_header_size, least=256, none=False)


def aim(options: DialOptions, url: str, additional_headers: Headers) -> DialOptions:
    """Return a copy with the values of one attempt, without checking the other fields again."""
    copy: DialOptions = object.__new__(DialOptions)
    for name in DialOptions.__slots__:
        object.__setattr__(copy, name, getattr(options, name))
    object.__setattr__(copy, "url", as_text(url) if isinstance(url, str) else url)
    object.__setattr__(copy, "additional_headers", additional_headers)
    return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeartbeat:
    """A heartbeat that sends messages, for servers that expect text instead of ping frames.

    Args:
        message: returns the message to send every ``ping_interval``: ``str`` or bytes-like. It
            does not pass through ``handle_send``.
        is_answer: returns whether a received message answers the heartbeat; such messages are
            not passed to ``handle_receive``.

    Raises:
        InvalidOption: an argument is not a function.
    """

    message: Callable[[], str | BytesLike]
    is_answer: Callable[[Data], bool]

    def __post_init__(self) -> None:
        for name in ("message", "is_answer"):
            if not callable(getattr(self, name)):
                raise InvalidOption(f"{name} must be a function, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit on the number of messages in a period of time.

    For the ``send_rate`` of a client, it is a strict sliding window: no more than ``messages``
    arrive at the server in any ``per`` seconds. Network delays vary, so the limit is enforced with
    a margin.

    For the limits of a server, such as ``message_rate`` and ``byte_rate``, a rate describes a token
    bucket: a client may send ``messages`` at once, and then ``messages / per`` per second.

    Args:
        messages: the number of messages, or of bytes for ``byte_rate``.
        per: the length of the window in seconds.
        margin: seconds added to the window of ``send_rate``. None means 5% of ``per``, but at most
            0.05.

    Raises:
        InvalidOption: an argument is of the wrong type or out of range.
    """

    messages: int
    per: float = field(default=1.0, kw_only=True)
    margin: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_whole("messages", self.messages, least=1, none=False)
        check_seconds("per", self.per, none=False)
        if self.margin != 0:
            check_seconds("margin", self.margin)

    @property
    def window(self) -> float:
        """The length of the window with the margin, in seconds."""
        return self.per + (min(0.05, 0.05 * self.per) if self.margin is None else self.margin)


@dataclass(frozen=True, slots=True)
class StallTimeout:
    """A stall timeout for a feed that is sometimes silent, such as one of a market that closes.

    Args:
        seconds: the timeout in seconds.
        when: returns whether silence is abnormal now. A link has stalled only if silence was
            abnormal for the whole timeout. The function is called a few times per
            timeout, so it must return quickly. None means that silence is always abnormal.

    Raises:
        InvalidOption: an argument is of the wrong type or out of range.
    """

    seconds: float
    when: Callable[[], bool] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds, none=False)
        if self.when is not None and not callable(self.when):
            raise InvalidOption(f"when must be a function or None, not {self.when!r}")
        if inspect.iscoroutinefunction(self.when):
            raise InvalidOption("when must be a plain function, not an async one")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFormat:
    """Where the messages of ``conn.request()`` carry their ids, and which replies are errors.

    The defaults fit JSON-RPC, the Chrome DevTools protocol, Home Assistant and others::

        {"id": 1, "method": "add", "params": [2, 3]}    the request
        {"id": 1, "result": 5}                          its reply
        {"id": 1, "error": {"code": -32601}}            a reply that raises RequestFailed

    A key below is the key of a dict, or the name of an attribute of any other object.

    Args:
        ids: hashable ids, each of which may be used by only one pending request at a time. A list
            or another iterable starts over in each connection; an iterator is shared. By default
            ``itertools.count(1)``, for each connection.
        id: the key of the id in a request; or a function that takes the message and the id and
            returns the message to send.
        ref: the key of the id in a reply; or a function that takes any received message and returns
            the id. A message is not a reply if it has no such key, or if the function returns None
            or raises LookupError, TypeError, AttributeError or ValueError.
        error: the key of the error in a reply; or a function that takes the reply and returns the
            error. The request succeeds if the error is absent, None or False.

    Raises:
        InvalidOption: an argument has the wrong type.
    """

    ids: Iterable[Hashable] | None = None
    id: str | Callable[[Any, Any], Any] = "id"
    ref: str | Callable[[Any], Any] = "id"
    error: str | Callable[[Any], Any] = "error"
    add_id: Callable[[Any, Any], Any] = field(init=False, repr=False, compare=False)
    """Returns a message with an id."""
    ref_of: Callable[[Any], Any] = field(init=False, repr=False, compare=False)
    """Returns the id of the request that a message answers, or None."""
    error_of: Callable[[Any], Any] = field(init=False, repr=False, compare=False)
    """Returns the error in a reply, or None or False."""

    def __post_init__(self) -> None:
        if not (self.ids is None or isinstance(self.ids, Iterable)) or isinstance(self.ids, str):
            raise InvalidOption(
                f"ids must be an iterable, such as itertools.count(1), not {self.ids!r}"
            )
        for name, function, make in (
            ("id", "add_id", _adder_of),
            ("ref", "ref_of", _getter_of),
            ("error", "error_of", _getter_of),
        ):
            value = getattr(self, name)
            if not (isinstance(value, str) or callable(value)):
                raise InvalidOption(f"{name} must be a name or a function, not {value!r}")
            object.__setattr__(self, function, make(value) if isinstance(value, str) else value)


def _adder_of(name: str) -> Callable[[Any, Any], Any]:
    def add(message: Any, value: Any) -> Any:
        if isinstance(message, dict):
            if name in message:
                raise UsageError(f"request() adds {name!r}, which the message already has")
            return {**message, name: value}
        kind = type(message)
        if is_dataclass(kind):
            return replace(message, **{name: value})
        if hasattr(kind, "__struct_fields__") and not isinstance(message, type):
            return sys.modules["msgspec"].structs.replace(message, **{name: value})
        raise UsageError(
            f"request() cannot add {name!r} to {describe_value(message):.100}: send a dict, a "
            "dataclass or a Struct, or pass a function as RequestFormat(id=...)"
        )

    return add


def _getter_of(name: str) -> Callable[[Any], Any]:
    def get(message: Any) -> Any:
        if message.__class__ is dict:
            return message.get(name)
        return getattr(message, name, None)

    return get


class FlowKeywords(TypedDict, total=False):
    """Keyword arguments of clients and servers: the heartbeat, queues and their timeouts.

    Args:
        close_timeout: seconds from the decision to close a connection to its end; None for no
            limit.
        ping_interval: seconds between pings; None sends none.
        ping_timeout: seconds to wait for any byte from the peer after a ping, before the
            connection is considered lost; None for no limit.
        write_timeout: seconds that a write may go without progress before the connection is
            considered lost; None for no limit.
        heartbeat: messages instead of ping frames; see :class:`MessageHeartbeat`.
        stall_timeout: seconds without a data message before the link ends with the reason
            :class:`Stalled`, or a :class:`StallTimeout` if silence is sometimes normal; None for no
            limit. Control frames and the answers to heartbeat messages are not data.
        max_queue: number of messages that may wait to be received before reading stops; None for
            no limit.
        write_limit: number of bytes that may wait to be written before ``send`` waits and a
            broadcast skips the connection.
        overflow: what happens at ``max_queue``: ``"wait"`` stops reading, ``"drop_oldest"`` and
            ``"drop_newest"`` discard messages and count them, and ``"close"`` closes with
            1008.
        fragments: receive messages in fragments, with :meth:`Connection.receive_fragments`.
            ``max_size`` limits each fragment, and the messages of :meth:`Connection.receive`;
            ``max_queue`` does not apply. A server needs a handler, and a client's Socket must not
            override ``handle_receive``.
        requests: where the ids of :meth:`Connection.request` are; see :class:`RequestFormat`.
    """

    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    write_timeout: float | None
    heartbeat: MessageHeartbeat | None
    stall_timeout: float | StallTimeout | None
    max_queue: int | None
    write_limit: int
    overflow: Overflow
    fragments: bool
    requests: RequestFormat | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """Timeouts and limits of a connection: keyword arguments of :func:`trioglock.connect`.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    close_timeout: float | None = 10
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    write_timeout: float | None = 60
    heartbeat: MessageHeartbeat | None = None
    stall_timeout: float | StallTimeout | None = None
    max_queue: int | None = 16
    write_limit: int = 2**16
    overflow: Overflow = "wait"
    fragments: bool = False
    codec: Codec[Any] | None = None
    requests: RequestFormat | None = None

    def __post_init__(self) -> None:
        for name in ("ping_interval", "ping_timeout", "close_timeout", "write_timeout"):
            check_seconds(name, getattr(self, name))
        check_whole("max_queue", self.max_queue, least=1)
        check_whole("write_limit", self.write_limit, least=1, none=False)
        check_choice("overflow", self.overflow, get_args(Overflow))
        if self.heartbeat is not None and not isinstance(self.heartbeat, MessageHeartbeat):
            raise InvalidOption(
                f"heartbeat must be a MessageHeartbeat or None, not {self.heartbeat!r}; "
                "for ping frames use ping_interval"
            )
        check_codec(self.codec)
        if not isinstance(self.requests, RequestFormat | None):
            raise InvalidOption(
                f"requests must be a RequestFormat, not {describe_value(self.requests)}"
            )
        if self.requests is not None and self.codec is None:
            raise InvalidOption("requests needs a codec, such as codec=JSON()")
        if not isinstance(self.stall_timeout, StallTimeout):
            if not isinstance(self.stall_timeout, int | float | None):
                raise InvalidOption(
                    "stall_timeout must be a number of seconds, a StallTimeout or None, "
                    f"not {self.stall_timeout!r}"
                )
            check_seconds("stall_timeout", self.stall_timeout)
        if self.max_queue is None and self.overflow != "wait":
            raise InvalidOption(f"overflow={self.overflow!r} requires a max_queue")
        check_choice("fragments", self.fragments, (True, False))
        if self.fragments and self.overflow != "wait":
            raise InvalidOption(
                f"overflow={self.overflow!r} cannot drop fragments of a message: with "
                "fragments=True it must be 'wait'"
            )
        if self.fragments and self.heartbeat is not None:
            raise InvalidOption(
                "heartbeat needs whole messages: with fragments=True use ping_interval"
            )
        if self.fragments and self.codec is not None:
            raise InvalidOption(
                "codec needs whole messages: with fragments=True, decode the fragments yourself"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlowOptions(FlowOptions):
    """Timeouts and limits of a server's connection: keyword arguments of :func:`trioglock.serve`.

    Raises:
        InvalidOption: a field is of the wrong type or out of range.
    """

    message_rate: Rate | None = None
    byte_rate: Rate | None = None

    def __post_init__(self) -> None:
        FlowOptions.__post_init__(self)
        check_rate("message_rate", self.message_rate)
        check_rate("byte_rate", self.byte_rate)

    @property
    def limits_rates(self) -> bool:
        """Whether the rates of clients are limited."""
        return self.message_rate is not None or self.byte_rate is not None


# Set by the opening handshake itself (RFC 6455, section 4.1).
_RESERVED_HEADERS = frozenset({"connection", "upgrade"})


def check_headers(name: str, headers: HeadersLike | None) -> Headers:
    """Check the headers given for the option called ``name``."""
    if not isinstance(headers, Iterable | None):
        raise InvalidOption(
            f"{name}: headers must be a dict or a list of pairs, not {type(headers).__name__}"
        )
    try:
        checked = Headers(() if headers is None else headers)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"{name}: {error}") from None
    for header in checked:
        if header.lower() in _RESERVED_HEADERS or header.lower().startswith("sec-websocket-"):
            raise InvalidOption(f"{name}: {header} is set by the opening handshake itself")
    return checked


def check_subprotocols(subprotocols: Sequence[str] | None) -> tuple[str, ...]:
    """Check the names of subprotocols: each must be a token (RFC 6455, section 4.1)."""
    if subprotocols is None:
        return ()
    if isinstance(subprotocols, str):
        raise InvalidOption(
            f"subprotocols must be a list of names, not the str {_names(subprotocols)}"
        )
    if not isinstance(subprotocols, Iterable):
        raise InvalidOption(f"subprotocols must be a list of names, not {subprotocols!r}")
    names = tuple(subprotocols)
    for name in names:
        if not isinstance(name, str) or not is_token(name):
            raise InvalidOption(f"{_names(name)} is not a valid subprotocol name")
    names = tuple(map(as_text, names))
    if len(set(names)) < len(names):
        raise InvalidOption(f"subprotocols must not contain duplicates: {_names(list(names))}")
    return names


def _names(given: object) -> str:
    # Web pages send tokens as subprotocols, because browsers do not let them set headers.
    return redact_subprotocols(repr(given))


_DAY = 86_400


def check_seconds(name: str, value: float | None, *, none: bool = True) -> None:
    """Raise InvalidOption unless ``value`` is a positive number of seconds, or None."""
    if value.__class__ is int and 0 < value < _DAY:
        return  # the usual timeout of a request
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(
            f"{name} must be a number of seconds{' or None' if none else ''}, not {value!r}"
        )
    try:
        positive = float(value) > 0
    except OverflowError:
        positive = False
    if not positive:
        or_none = ", or None" if none else ""
        raise InvalidOption(f"{name} must be more than 0 seconds{or_none}, not {value!r}")


def check_whole(name: str, value: int | None, *, least: int, none: bool = True) -> None:
    """Raise InvalidOption unless ``value`` is a whole number of at least ``least``, or None."""
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise InvalidOption(f"{name} must be at least {least}, not {value}")


def check_rate(name: str, value: object) -> None:
    """Raise InvalidOption unless ``value`` is a Rate without a margin, or None."""
    if value is None or (isinstance(value, Rate) and value.margin is None):
        return
    raise InvalidOption(
        f"{name} must be a Rate without a margin, such as Rate(1000, per=10), or None, not "
        f"{describe_value(value)}"
    )


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise InvalidOption unless ``value`` is one of ``choices``."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise InvalidOption(f"{name} must be {', '.join(others)} or {last}, not {value!r}")


def check_compression(value: object) -> None:
    """Raise InvalidOption unless ``value`` is a :data:`Compression`."""
    if not (value is None or value == "deflate" or isinstance(value, Deflate)):
        raise InvalidOption(
            f"compression must be 'deflate', a trioglock.Deflate or None, not {value!r}"
        )


def _check_range(name: str, value: object, least: int, most: int, hint: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidOption(
            f"{name} must be a whole number from {least} to {most}, not {value!r}{hint}"
        )


_WINDOW_8 = 8

DEFLATE = Deflate()


def deflate_settings(compression: Compression) -> Deflate | None:
    """Return the settings of an option that has been checked."""
    return DEFLATE if compression == "deflate" else compression


def check_ssl_context(value: ssl.SSLContext | None) -> None:
    """Raise InvalidOption unless ``value`` is an SSL context or None."""
    if value is not None and not isinstance(value, ssl.SSLContext):
        raise InvalidOption(f"ssl_context must be an ssl.SSLContext or None, not {value!r}")


def check_codec(codec: Codec[Any] | None) -> None:
    """Raise InvalidOption unless ``codec`` has the methods of a codec, or is None."""
    methods = (getattr(codec, name, None) for name in ("encode", "decode"))
    if codec is not None and (isinstance(codec, type) or not all(map(callable, methods))):
        # With the class instead of an instance, every message would count as malformed.
        raise InvalidOption(
            f"codec must be an object with encode and decode, not {describe_value(codec)}"
        )


# From keyword arguments to dataclasses.

OptionsT = TypeVar("OptionsT")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def take_options(kind: type[OptionsT], given: dict[str, Any]) -> OptionsT:
    """Create a ``kind`` from the arguments for its fields, and remove them from ``given``."""
    key: Any = kind  # mypy: a type variable is not hashable
    own = {name: given.pop(name) for name in _fields(key) if name in given}
    return kind(**own) if own else cast("OptionsT", _default(key))


def accepts_options(
    keywords: Sequence[type], kinds: Sequence[type]
) -> Callable[[FunctionT], FunctionT]:
    """For a function that takes ``**options``, show the options in its signature and docstring.

    Args:
        keywords: the TypedDict of its options, followed by the TypedDicts that it inherits from.
        kinds: the dataclasses with the defaults; if several have the same field, the first is used.
    """
    known = {name: one for kind in reversed(kinds) for name, one in _fields(kind).items()}
    # Inherited keys are resolved through their own classes: their types may be unknown here.
    inherited = {name: kind for base in keywords[1:] for name, kind in get_type_hints(base).items()}
    every = keywords[0].__annotations__
    types = {name: kind for name, kind in every.items() if name not in inherited} | inherited

    def decorate(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)
        parameters = [
            *(one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD),
            *(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=known[name].default,
                    annotation=getattr(annotation, "__forward_arg__", annotation),
                )
                for name, annotation in types.items()
            ),
        ]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        text = "".join(_documentation(kind) for kind in keywords)
        function.__doc__ = re.sub(
            r" {4}options: .*\n( {8}.*\n)*",
            lambda _: text,
            inspect.cleandoc(function.__doc__ or ""),
        )
        return function

    return decorate


@cache
def _default(kind: type) -> object:
    """Return the default options, which are shared by all connections without options."""
    return kind()


@cache
def _fields(kind: type) -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(kind)}


def _documentation(keywords: type) -> str:
    """Return the lines below ``Args:`` in the docstring of a TypedDict."""
    return inspect.cleandoc(keywords.__doc__ or "").partition("Args:\n")[2].rstrip() + "\n"
