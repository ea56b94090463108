"""Hints in error messages: suggested corrections.

Many users know other WebSocket libraries. The tables map the names in those libraries to the names
in this one; misspelled names are found by similarity.
"""

from __future__ import annotations

import difflib
import errno
import inspect
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import wraps
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import trio

from .errors import ConnectError, InvalidOption, UsageError

__all__ = [
    "METHODS",
    "OtherName",
    "called_hint",
    "checks_keywords",
    "describe_value",
    "hide_frames",
    "is_hashable",
    "network_hint",
    "require_trio",
    "tls_hint",
    "unknown_option",
]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _invert(table: dict[str, str]) -> dict[str, list[str]]:
    inverted: dict[str, list[str]] = {}
    for own, others in table.items():
        for other in others.split():
            inverted.setdefault(other, []).append(own)
    return inverted


# An option of this package or a phrase, and the corresponding options of websockets, aiohttp,
# trio-websocket and others.
_OPTIONS = _invert({
    "additional_headers": "headers header extra_headers custom_headers cookies cookie auth",
    "process_request": "headers extra_headers auth",
    "ssl_context": "ssl sslopt ssl_options tls verify verify_ssl insecure cacerts cert certfile "
    "keyfile context disable_ssl_certificate_validation",
    "ping_interval": "ping autoping keepalive heartbeat heartbeat_interval",
    "open_timeout": "timeout connect_timeout handshake_timeout opening_timeout connection_timeout",
    "close_timeout": "disconnect_timeout closing_timeout",
    "stall_timeout": "idle_timeout data_timeout silence_timeout inactivity_timeout",
    "send_rate": "rate rate_limit ratelimit rateLimit throttle enableRateLimit",
    "trio.fail_after() around receive()": "receive_timeout recv_timeout read_timeout",
    "max_size": "max_msg_size max_message_size max_payload max_frame_size",
    "max_queue": "message_queue_size queue_size maxsize",
    "compression": "compress deflate permessage_deflate per_message_deflate enable_compression",
    "subprotocols": "protocol protocols",
    "the query of the URL": "params query",
    "proxy": "http_proxy https_proxy proxies proxy_url http_proxy_host",
    "user_agent_header": "user_agent",
    "server_hostname": "sni assert_hostname",
    "max_restarts": "retries max_retries max_attempts intensity",
    "within": "period max_seconds",
    "reconnect": "retry retries max_retries max_attempts auto_reconnect reconnect_interval backoff "
    "process_exception",
    "unix_path": "path unix",
    "listeners": "sock sockets",
    "stream": "sock path unix create_connection",
    "origins": "origin allowed_origins cors",
    "max_connections": "max_clients",
    "broker": "redis",
    "the option of the broker, as in Hub(broker=MemoryBroker(history=5))": "history "
    "history_seconds",
    "logging.getLogger('trioglock')": "logger log",
    "trio.run(main)": "loop",
})  # fmt: skip

METHODS: dict[str, str] = {
    other: own
    for own, others in {
        "await receive()": "recv get_message receive_message receive_str receive_bytes receive_json"
        " read_message",
        "async with receive_fragments()": "recv_streaming",
        "await send(message)": "send_message send_str send_bytes send_text send_json send_binary"
        " write_message",
        "await aclose(), or leave the block": "close disconnect",
        "status": "closed open connected",
        "handshake.peer": "remote_address remote",
        "handshake.request_headers": "request_headers",
        "handshake.response_headers": "response_headers",
        "await send_frame(Pong()); pings are answered automatically": "pong",
    }.items()
    for other in others.split()
}
"""The methods and attributes of connections in other libraries, and their replacements."""


class OtherName:
    """A placeholder for a nonexistent attribute; its AttributeError names the one to use.

    ``__getattr__`` would make every access to the existing attributes slower.

    Args:
        name: the name of the attribute.
        use: what to use instead.
    """

    __slots__ = ("_name", "_use")

    def __init__(self, name: str, use: str) -> None:
        self._name = name
        self._use = use

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"{owner.__name__} has no {self._name!r}: use {self._use}",
            name=self._name,
            obj=None,  # otherwise Python suggests an attribute with a similar name
        )


def unknown_option(call: str, name: str, known: Iterable[str]) -> TypeError:
    """Create the exception for a keyword argument that does not exist.

    Args:
        call: the function, as users write it.
        name: the keyword.
        known: the keywords that exist.
    """
    known = list(known)
    close = [one for one in _OPTIONS.get(name, ()) if one in known or not one.isidentifier()]
    close = close or difflib.get_close_matches(name, known, 1, cutoff=0.8)
    if not close:
        hint = f"help({call}) lists the options"
    elif close[0].isidentifier():
        hint = f"did you mean {close[0]!r}?"
    else:
        hint = f"use {close[0]}"
    return TypeError(f"{call}() got an unexpected option {name!r}; {hint}")


def checks_keywords(call: str, keywords: type | None = None) -> Callable[[FunctionT], FunctionT]:
    """Check calls of a public function: the keywords and, if it is async, that trio runs it.

    Args:
        call: the function, as users write it.
        keywords: the TypedDict of its ``**options``.
    """

    def decorate(function: FunctionT) -> FunctionT:
        known = dict.fromkeys(
            name
            for name, one in inspect.signature(function).parameters.items()
            if one.kind in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY}
        )
        known |= dict.fromkeys(() if keywords is None else keywords.__annotations__)

        def check(given: Iterable[str]) -> None:
            for name in given:
                if name not in known:
                    raise unknown_option(call, name, known)

        @wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            check(given)
            return function(*args, **given)

        @wraps(function)
        async def checked_async(*args: Any, **given: Any) -> Any:
            check(given)
            require_trio(f"{call}(...)")
            try:
                return await function(*args, **given)
            except (ConnectError, InvalidOption) as error:
                hide_frames(error)
                raise

        return checked_async if inspect.iscoroutinefunction(function) else checked  # type: ignore[return-value]

    return decorate


def is_hashable(value: object) -> bool:
    """Whether a value can be a key; a tuple that contains a list cannot."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def describe_value(value: object) -> str:
    """Describe a wrong argument for a message of the form "must be ..., not ...".

    The most common mistake is passing a class in place of an instance.
    """
    if isinstance(value, type):
        return f"the class {value.__name__}: write {value.__name__}()"
    return repr(value)


def called_hint(value: object) -> str:
    """Return a hint if an async function was called instead of passed; "" if not."""
    if not inspect.iscoroutine(value):
        return ""
    value.close()  # otherwise Python warns that it was never awaited
    return f": pass the function {value.__name__} without calling it"


def require_trio(call: str) -> None:
    """Raise UsageError unless trio runs the current task.

    Args:
        call: the call as users write it.
    """
    if not trio.lowlevel.in_trio_run():
        raise UsageError(
            f"{call} needs trio: start the program with trio.run(main), "
            "not with asyncio.run(main()); in an ASGI server, choose its worker for trio, such as "
            "hypercorn --worker-class trio"
        )


# Failures to connect.


def network_hint(error: OSError) -> str:
    """Return a hint about an operating system error; "" if there is none."""
    if isinstance(error, socket.gaierror):
        return "; check the host name"
    if error.errno == errno.ECONNREFUSED:
        return "; is the server running, and on this port?"
    return ""


# By OpenSSL's X509_V_ERR_*.
_CERTIFICATES = {
    **dict.fromkeys(
        (18, 19, 20, 21),
        "if you trust the issuer of the certificate, pass "
        "ssl_context=ssl.create_default_context(cafile=...)",
    ),
    **dict.fromkeys(
        (62, 64), "connect to a name in the certificate, or pass such a name as server_hostname"
    ),
    10: "the server needs a new certificate",
    9: "check the clocks of both computers",
}
# The errors for responses that are not TLS, in several versions of OpenSSL.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


def tls_hint(error: BaseException) -> str:
    """Return a hint about a failed TLS handshake; "" if there is none."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _CERTIFICATES.get(error.verify_code)
    elif isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
        hint = "the server does not use TLS on this port: write ws:// instead of wss://"
    else:
        hint = None
    return "" if hint is None else f"; {hint}"


# Tracebacks.

_LIBRARIES = frozenset({"trioglock", "trio", "contextlib", "outcome"})


def hide_frames(error: BaseException) -> None:
    """Remove the frames of this package and of trio from an exception and its causes.

    The frames that remain are those of the user.
    """
    link: BaseException | None = error
    seen: list[BaseException] = []
    while link is not None and link not in seen:
        seen.append(link)
        link.__traceback__ = _users_frames(link.__traceback__)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _users_frames(traceback: TracebackType | None) -> TracebackType | None:
    kept = []
    while traceback is not None:
        module: str = traceback.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _LIBRARIES:
            kept.append(traceback)
        traceback = traceback.tb_next
    chain: TracebackType | None = None
    for one in reversed(kept):
        chain = TracebackType(chain, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return chain
