"""All exceptions that trioglock raises.

::

    TrioglockError
    ├── InvalidURL (ValueError)              your code: the URL
    ├── InvalidOption (ValueError)           your code: an argument
    ├── InvalidFrame (ValueError)            your code: a frame that cannot be sent
    ├── EncodeError (TypeError)              your code: a message that the codec cannot encode
    ├── DecodeError (ValueError)             the peer: a frame that cannot be decoded
    ├── UsageError (RuntimeError)            your code: a call that is not allowed in this context
    ├── BadHookResult (TypeError)            your code: a hook returned the wrong type
    ├── CallTimeout (TimeoutError)           your code: handle_call took too long
    ├── RequestFailed                        the peer: a reply that is an error
    ├── RequestTimeout (TimeoutError)        the peer did not reply in time
    ├── RequestLost                          the link ended before the reply arrived
    ├── SubscriptionRefused                  the server refused or ended a subscription
    ├── SubscriptionTimeout (TimeoutError)   the server did not confirm a subscription in time
    ├── MessageInterrupted                   the link ended in the middle of a fragmented message
    ├── BrokerUnavailable (TimeoutError)     pub/sub: the broker could not be reached in time
    ├── BrokerError                          pub/sub: the broker returned an error
    ├── SlowConsumer                         too many messages are waiting for a subscriber
    ├── RestartLimit                         supervise(): services failed too often
    ├── ServiceReturned                      supervise(): a permanent service returned
    ├── ConnectError                         could not connect
    │   ├── ConnectFailed (OSError)          the network: no DNS entry, no route, no listener
    │   ├── OpenTimeout (TimeoutError)       connecting took longer than open_timeout
    │   ├── TLSFailed                        the TLS handshake failed
    │   ├── ProxyFailed                      the proxy refused, or its response was invalid
    │   ├── HandshakeRefused                 the server refused, with status, headers and body
    │   │   └── RedirectFailed               too many redirects, or an invalid one
    │   ├── InvalidHandshake                 the server's response is not a WebSocket handshake
    │   └── ReconnectFailed                  all attempts to reconnect failed
    └── ConnectionClosed                     the connection is closing or closed
        ├── ConnectionClosedOK               with 1000, 1001 or no code
        └── ConnectionClosedError            with another code, or without a closing handshake

If another library or the operating system raised the original exception, that exception is the
``__cause__``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._redact import redact_line, safe_repr, shorten
from ._text import count, seconds_text
from .disconnect import Disconnect
from .frames import Close
from .headers import Headers

__all__ = [
    "BadHookResult",
    "BrokerError",
    "BrokerUnavailable",
    "CallTimeout",
    "ConnectError",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DecodeError",
    "EncodeError",
    "HandshakeRefused",
    "InvalidFrame",
    "InvalidHandshake",
    "InvalidOption",
    "InvalidURL",
    "MessageInterrupted",
    "OpenTimeout",
    "ProxyFailed",
    "ReconnectFailed",
    "RedirectFailed",
    "RequestFailed",
    "RequestLost",
    "RequestTimeout",
    "RestartLimit",
    "ServiceReturned",
    "SlowConsumer",
    "SubscriptionRefused",
    "SubscriptionTimeout",
    "TLSFailed",
    "TrioglockError",
    "UsageError",
]


class TrioglockError(Exception):
    """The base class of all trioglock exceptions.

    Messages may quote data from a peer. Each is therefore a single line of at most 1000 characters,
    with secrets hidden.
    """

    def __str__(self) -> str:
        return redact_line(super().__str__())

    def __repr__(self) -> str:
        return redact_line(super().__repr__())


class InvalidURL(TrioglockError, ValueError):
    """The URL is not a valid WebSocket URL. Correct it in your code."""


class InvalidOption(TrioglockError, ValueError):
    """An argument has the wrong type or is out of range. The message describes valid values."""


class InvalidFrame(TrioglockError, ValueError):
    """A value that is not text, bytes or a control frame cannot be sent.

    Encode it in your code, or override ``handle_send`` to encode every message.
    """


class EncodeError(TrioglockError, TypeError):
    """The codec cannot encode a message from your code, such as a set in JSON."""


class DecodeError(TrioglockError, ValueError):
    """The peer sent a frame that is malformed or violates the protocol.

    A Socket with a codec counts and logs such frames instead of raising; see ``EventSocket``.
    """


class UsageError(TrioglockError, RuntimeError):
    """The call is not allowed in this context, for example ``send`` inside a hook.

    The message describes what to do instead.
    """


class BadHookResult(TrioglockError, TypeError):
    """A hook of your Socket returned an invalid value. The message names the hook and the value.

    It is also raised for the methods of :class:`~trioglock.Subscriptions`.
    """


class CallTimeout(TrioglockError, TimeoutError):
    """``handle_call`` did not reply within the ``timeout`` of ``call()``.

    If the hook has not started, the request is withdrawn. Otherwise the hook continues, and its
    reply is discarded.
    """


class RequestFailed(TrioglockError):
    """The reply to a request is an error; see :class:`trioglock.RequestFormat`.

    Args:
        request: the message that was passed to ``request()``, or the name of its event.
        reply: the whole reply.
        error: the error in the reply.
    """

    def __init__(self, request: Any, reply: Any, error: Any) -> None:
        super().__init__(request, reply, error)
        self.request = request
        self.reply = reply
        self.error = error

    def __str__(self) -> str:
        return redact_line(f"the peer refused {shorten(self.request)}: {shorten(self.error)}")


class RequestTimeout(TrioglockError, TimeoutError):
    """No reply arrived in time. The peer may have executed the request nevertheless.

    Args:
        request: the message that was passed to ``request()``, or the name of its event.
        timeout: the timeout in seconds.
        pause: why this side may not have read a reply; "" if it was reading.
    """

    def __init__(self, request: Any, timeout: float, pause: str = "") -> None:
        super().__init__(request, timeout, pause)
        self.request = request
        self.timeout = timeout
        self.pause = pause

    def __str__(self) -> str:
        text = f"no reply to {shorten(self.request)} within {seconds_text(self.timeout)}"
        return redact_line(f"{text}; {self.pause}" if self.pause else text)


class RequestLost(TrioglockError):
    """The link ended before the reply arrived. The peer may have executed the request.

    Args:
        request: the message that was passed to ``request()``, or the name of its event.
        reason: why the link ended.
    """

    def __init__(self, request: Any, reason: Disconnect) -> None:
        super().__init__(request, reason)
        self.request = request
        self.reason = reason

    def __str__(self) -> str:
        return redact_line(
            f"the connection ended before {shorten(self.request)} was answered: {self.reason}"
        )


class SubscriptionRefused(TrioglockError):
    """The server has refused a subscription, or has ended an active one.

    Args:
        key: the key.
        message: the server's whole message, decoded by the codec.
        ended: whether the subscription was active.
    """

    def __init__(self, key: object, message: object, *, ended: bool = False) -> None:
        super().__init__(key, message)
        self.key = key
        self.message: Any = message
        self.ended = ended

    def __str__(self) -> str:
        verb = "ended" if self.ended else "refused"
        return redact_line(
            f"the server has {verb} the subscription to {self.key!r}: {shorten(self.message)}"
        )


class SubscriptionTimeout(TrioglockError, TimeoutError):
    """The server did not confirm a subscription within the ``timeout`` of your ``Subscriptions``.

    It may have sent a confirmation that ``confirmed()`` does not recognize. If reading is paused
    because a receive queue is full, no confirmation can be received.

    Args:
        key: the key.
        seconds: the timeout.
        is_ready: whether ``is_ready()`` had returned True.
    """

    def __init__(self, key: object, seconds: float, *, is_ready: bool = True) -> None:
        super().__init__(key, seconds)
        self.key = key
        self.seconds = seconds
        self.is_ready = is_ready

    def __str__(self) -> str:
        problem = (
            f"the server did not confirm the subscription to {self.key!r}"
            if self.is_ready
            else f"is_ready() did not return True for the subscription to {self.key!r}"
        )
        return redact_line(f"{problem} within {seconds_text(self.seconds)}")


class MessageInterrupted(TrioglockError):
    """The link ended before all fragments of a message were sent or received.

    The connection may open another link, but a message cannot continue there (RFC 6455, section
    5.4): send it again from the beginning. If no other link follows, :exc:`ConnectionClosed` is
    raised instead.
    """


class BrokerUnavailable(TrioglockError, TimeoutError):
    """The broker of a hub could not be reached or did not respond in time.

    The cause is the network or the broker, and the hub keeps trying to reconnect. A message that
    was being published may or may not have arrived. ``__cause__`` is the latest failure.
    """


class BrokerError(TrioglockError):
    """The broker returned an error, for example because of a wrong password or a lack of memory.

    The message quotes that error. Retrying does not help until the cause is fixed.
    """


class SlowConsumer(TrioglockError):
    """Too many messages are waiting for a subscriber whose overflow policy is ``"close"``.

    Receive them faster, or choose a policy that drops messages.
    """


class RestartLimit(TrioglockError):
    """Services under ``supervise()`` failed more often than allowed within the period.

    ``__cause__`` is the last failure. Restart a larger part of the program, for example with an
    outer ``supervise()``, or let the program exit.

    Args:
        causes: the exceptions that services raised within the period, oldest first, followed by
            those of the other services that failed at the same time or while they were being
            stopped.
        within: the period in seconds.
    """

    def __init__(self, causes: Sequence[Exception], within: float) -> None:
        super().__init__(tuple(causes), within)
        self.causes: tuple[Exception, ...] = tuple(causes)
        self.within = within

    def __str__(self) -> str:
        last = f"; the last one was {safe_repr(self.causes[-1])}" if self.causes else ""
        failures = count(len(self.causes), "failure")
        return redact_line(f"{failures} within {seconds_text(self.within)}{last}")


class ServiceReturned(TrioglockError):
    """A service under ``supervise(..., restart="permanent")`` returned.

    It is one of the ``causes`` of a RestartLimit. Use ``restart="transient"`` if the service may
    end.
    """


class ConnectError(TrioglockError):
    """The client could not connect. The subclasses describe the cause."""


class ConnectFailed(ConnectError, OSError):
    """The network failed: the name does not resolve, or the host or port cannot be reached.

    Retrying later may help. ``__cause__`` is the operating system's error.
    """


class OpenTimeout(ConnectError, TimeoutError):
    """Connecting and the opening handshake took longer than ``open_timeout`` seconds.

    The network or the server is slow. Retrying or a longer timeout may help.
    """


class TLSFailed(ConnectError):
    """The TLS handshake failed, often because the certificate is not trusted.

    Correct the server's certificate or your ``ssl_context``. Retrying does not help. If the network
    or the server fails during the handshake, :exc:`ConnectFailed` is raised instead.
    """


class ProxyFailed(ConnectError):
    """The proxy refused to connect, or its response was invalid. Check the proxy and its URL."""


class HandshakeRefused(ConnectError):
    """The server answered the opening handshake with a status other than 101.

    For a 4xx status, check the credentials, the path and the origin. A 5xx status is a server
    error; retry later.

    Args:
        status: the HTTP status (RFC 9110, section 15).
        headers: the headers of the response.
        body: the body of the response, possibly truncated.
        phrase: the reason phrase of the status line.
    """

    def __init__(self, status: int, headers: Headers, body: bytes = b"", phrase: str = "") -> None:
        super().__init__(status, headers, body, phrase)
        self.status = status
        self.headers = headers
        self.body = body
        self.phrase = phrase

    def __repr__(self) -> str:
        status = f"{self.status} {self.phrase}".rstrip()
        return redact_line(
            f"{type(self).__name__}({status!r}, {len(self.body)} bytes, {self.headers!r})"
        )

    def __str__(self) -> str:
        status = f"{self.status} {self.phrase}".rstrip()
        return redact_line(f"the server refused the handshake: {status}")


class RedirectFailed(HandshakeRefused):
    """The server redirected more than ``max_redirects`` times, or to an invalid location.

    The fault lies with the server. The attributes of :exc:`HandshakeRefused` describe its last
    response.

    Args:
        refused: the last response.
        problem: a description of the problem.
    """

    def __init__(self, refused: HandshakeRefused, problem: str) -> None:
        super().__init__(refused.status, refused.headers, refused.body, refused.phrase)
        self.args: tuple[object, ...] = (refused, problem)
        self.problem = problem

    def __str__(self) -> str:
        return redact_line(f"{self.problem} (status {self.status})")


class InvalidHandshake(ConnectError):
    """The server's response is not a valid WebSocket handshake (RFC 6455, section 4.1).

    The server violates the protocol, or it is not a WebSocket server: check the URL.
    """


class ReconnectFailed(ConnectError):
    """All attempts to reconnect failed.

    Args:
        attempts: the reason for each failed attempt, oldest first.
        short_links: how many of them connected, but for less than ``stable_after`` seconds.
        stable_after: as in the :class:`~trioglock.Backoff`.
    """

    def __init__(
        self, attempts: Sequence[Disconnect], short_links: int = 0, stable_after: float = 0.0
    ) -> None:
        super().__init__(tuple(attempts))
        self.attempts: tuple[Disconnect, ...] = tuple(attempts)
        self.short_links = short_links
        self.stable_after = stable_after

    def __str__(self) -> str:
        last = f"; {self.attempts[-1]}" if self.attempts else ""
        return redact_line(f"{describe_attempts(self)}{last}")


def describe_attempts(error: ReconnectFailed) -> str:
    """Describe the number of failed attempts, and how many of them connected briefly."""
    total = len(error.attempts)
    text = f"gave up after {count(total, 'attempt')}"
    if not error.short_links:
        return text
    connected = "all" if error.short_links == total else error.short_links
    subject = "which" if total == 1 else f"{connected} of which"
    limit = f"{seconds_text(error.stable_after)} (stable_after)"
    return f"{text}, {subject} connected, but for less than {limit}"


class ConnectionClosed(TrioglockError):
    """The connection is closing or closed; nothing can be sent or received.

    Args:
        received: the peer's Close frame, or None.
        sent: the Close frame that this side sent, or None.
        cause: why the connection ended, or None while it is still closing.
        unsent: the messages that were queued but not passed to the operating system.
        in_doubt: the messages that were being written when the link broke, and may or may not have
            arrived.
    """

    def __init__(
        self,
        received: Close | None,
        sent: Close | None,
        cause: Disconnect | None = None,
        unsent: Sequence[object] = (),
        in_doubt: Sequence[object] = (),
    ) -> None:
        super().__init__(received, sent, cause)
        self.received = received
        self.sent = sent
        self.cause = cause
        self.unsent: tuple[object, ...] = tuple(unsent)
        self.in_doubt: tuple[object, ...] = tuple(in_doubt)
        self.origin: object = None
        """An opaque value that identifies the connection that raised the exception."""

    @property
    def code(self) -> int:
        """The code of ``received``; if that is None, of ``sent``; if both are None, 1006."""
        close = self.received or self.sent
        return 1006 if close is None else close.code

    @property
    def reason(self) -> str:
        """The close reason sent with :attr:`code`."""
        close = self.received or self.sent
        return "" if close is None else close.reason

    def __repr__(self) -> str:
        fields = [("received", self.received), ("sent", self.sent), ("cause", self.cause)]
        shown = ", ".join(f"{name}={value!r}" for name, value in fields if value is not None)
        return redact_line(f"{type(self).__name__}({shown})")

    def __str__(self) -> str:
        if self.cause is not None:
            text = str(self.cause)
        else:
            close = self.received or self.sent
            status = "" if close is None else f": {close.code} {close.reason}".rstrip()
            text = redact_line(f"the connection is closing{status}")
        if not self.unsent:
            return text
        verb = "was" if len(self.unsent) == 1 else "were"
        return f"{text}; {count(len(self.unsent), 'message')} {verb} not sent"


class ConnectionClosedOK(ConnectionClosed):
    """The connection closed normally, with 1000, 1001 or a Close frame without a code (1005)."""


class ConnectionClosedError(ConnectionClosed):
    """The connection closed with another code, or was lost without a closing handshake.

    ``code`` and ``cause`` describe why: 1006 is a network failure; 1002, 1007 and 1009 mean that
    one side sent data that the other cannot accept; 1011 is an internal error on the side that sent
    it; codes from 3000 are defined by the application.
    """
