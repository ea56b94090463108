"""Every error that trioglock raises.

::

    TrioglockError
    ├── InvalidURL (ValueError)              yours: the address
    ├── InvalidOption (ValueError)           yours: an argument of connect(), run(), aclose(), ...
    ├── InvalidFrame (ValueError)            yours: something that cannot be a frame
    ├── EncodeError (TypeError)              yours: a message that its codec cannot express
    ├── DecodeError (ValueError)             theirs: a frame that is not what it should be
    ├── UsageError (RuntimeError)            yours: a call that cannot work where it was made
    ├── BadHookResult (TypeError)            yours: a hook returned the wrong shape
    ├── CallTimeout (TimeoutError)           your hook took too long to answer a call()
    ├── BrokerUnavailable (TimeoutError)     pub/sub: the broker was not reached in time
    ├── BrokerError                        pub/sub: the broker said no
    ├── SlowConsumer                    pub/sub: more messages came than may wait
    ├── RestartLimit                         supervise(): services failed too often
    ├── ServiceReturned                      supervise(): a permanent service came to its end
    ├── ConnectError                         nobody's or theirs: no connection came about
    │   ├── ConnectFailed (OSError)          the network: nobody there, no route, no such name
    │   ├── OpenTimeout (TimeoutError)       it took longer than open_timeout
    │   ├── TLSFailed                        the certificate or the TLS handshake
    │   ├── ProxyFailed                      the proxy refused, or does not speak its protocol
    │   ├── HandshakeRefused                 the server said no: status, headers and body kept
    │   │   └── RedirectFailed             it sent us elsewhere, too often or where we may not go
    │   ├── InvalidHandshake                 the server's answer is not a WebSocket handshake
    │   └── ReconnectFailed                           reconnecting: every attempt failed
    └── ConnectionClosed                     the connection is closing or closed
        ├── ConnectionClosedOK               with 1000 or 1001
        └── ConnectionClosedError            with anything else, or without a closing handshake

What is somebody else's exception (a socket's, TLS's, a library's) is the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._redact import redact_line, shown
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
    "OpenTimeout",
    "ProxyFailed",
    "ReconnectFailed",
    "RedirectFailed",
    "RestartLimit",
    "ServiceReturned",
    "SlowConsumer",
    "TLSFailed",
    "TrioglockError",
    "UsageError",
]


class TrioglockError(Exception):
    """Base of everything below; catch it to catch all.

    Texts quote what was given, or what a peer has said, which ends up in logs and tracebacks: so
    each is one line, of 1000 characters at the most, with secrets hidden.
    """

    def __str__(self) -> str:
        return redact_line(super().__str__())

    def __repr__(self) -> str:
        return redact_line(super().__repr__())


class InvalidURL(TrioglockError, ValueError):
    """The address cannot be a WebSocket's. Your fault: correct the URL."""


class InvalidOption(TrioglockError, ValueError):
    """An argument is of the wrong type or out of range. Your fault: the text says what fits."""


class InvalidFrame(TrioglockError, ValueError):
    """Something other than text, bytes or a control frame was to be sent. Your fault.

    Encode it first, or override ``handle_send`` to do so for every message.
    """


class EncodeError(TrioglockError, TypeError):
    """A codec has no way to express a message, such as a set in JSON. Your fault."""


class DecodeError(TrioglockError, ValueError):
    """A frame is malformed, or what it says is not what the protocol promises. The peer's fault.

    Sockets with a codec do not raise it: they count and log it, see ``EventSocket``.
    """


class UsageError(TrioglockError, RuntimeError):
    """A call that cannot work where it was made, such as ``send`` inside a hook. Your fault.

    The text says what to do instead.
    """


class BadHookResult(TrioglockError, TypeError):
    """A hook returned something of the wrong shape. Your fault: the text names hook and value."""


class CallTimeout(TrioglockError, TimeoutError):
    """``handle_call`` did not answer within the ``timeout`` given to ``call()``.

    A request that no hook has begun is withdrawn; one that has begun goes on, its answer is lost.
    """


class BrokerUnavailable(TrioglockError, TimeoutError):
    """The broker of a hub could not be reached, or did not answer, within the time given.

    The network's or the broker's fault; the hub goes on trying. A message that was being published
    may have arrived or not. ``__cause__`` is the latest failure.
    """


class BrokerError(TrioglockError):
    """The broker answered with an error, such as a wrong password or a full memory.

    Its text says which. Trying again will not help until that is mended.
    """


class SlowConsumer(TrioglockError):
    """More messages came than may wait for a subscriber whose policy is ``"close"``.

    Yours: take them faster, or choose a policy that may drop some.
    """


class RestartLimit(TrioglockError):
    """Services under ``supervise()`` failed more often than it may start them again.

    The fault is that of the services: see ``causes``. The one that was too many is the
    ``__cause__``. Start again something larger, such as by a supervisor above, or let the program
    end.

    Args:
        causes: what the services raised within the period, oldest first, and then what the others
            raised at the same moment, or while they were stopped.
        within: seconds of the period.
    """

    def __init__(self, causes: Sequence[Exception], within: float) -> None:
        super().__init__(tuple(causes), within)
        self.causes: tuple[Exception, ...] = tuple(causes)
        self.within = within

    def __str__(self) -> str:
        last = f", the last: {shown(self.causes[-1])}" if self.causes else ""
        return redact_line(f"{len(self.causes)} failures within {self.within} seconds{last}")


class ServiceReturned(TrioglockError):
    """A service under ``supervise(..., restart="permanent")`` returned. One of the ``causes``.

    Its fault, unless it may end: then ``restart="transient"`` fits.
    """


class ConnectError(TrioglockError):
    """No connection came about. The subclasses say whose fault it was."""


class ConnectFailed(ConnectError, OSError):
    """The network's fault: the name does not resolve, nobody listens, there is no route.

    Trying again later may help. ``__cause__`` is the operating system's error.
    """


class OpenTimeout(ConnectError, TimeoutError):
    """Dialling and the opening handshake took longer than ``open_timeout`` seconds.

    The network or the server is slow or silent. Trying again, or a longer time-out, may help.
    """


class TLSFailed(ConnectError):
    """The TLS handshake failed, often for a certificate that is not trusted.

    Usually the server's or the ``ssl_context``'s fault; trying again will not help.
    """


class ProxyFailed(ConnectError):
    """The proxy refused to connect us, or did not answer as a proxy does."""


class HandshakeRefused(ConnectError):
    """The server answered the opening handshake with another status than 101.

    A 4xx is usually yours (credentials, path, origin), a 5xx the server's: try that again later.

    Args:
        status: the HTTP status (RFC 9110, section 15).
        headers: the response's headers.
        body: what the response carried, as far as it was read.
        phrase: the text of the status line.
    """

    def __init__(self, status: int, headers: Headers, body: bytes = b"", phrase: str = "") -> None:
        super().__init__(status, headers, body, phrase)
        self.status = status
        self.headers = headers
        self.body = body
        self.phrase = phrase

    def __repr__(self) -> str:
        said = f"{self.status} {self.phrase}".rstrip()
        return redact_line(
            f"{type(self).__name__}({said!r}, {len(self.body)} bytes, {self.headers!r})"
        )

    def __str__(self) -> str:
        said = f"{self.status} {self.phrase}".rstrip()
        return redact_line(f"the server refused the handshake: {said}")


class RedirectFailed(HandshakeRefused):
    """The server redirected more often than ``max_redirects``, or to where it may not be followed.

    The server's fault. The fields of :exc:`HandshakeRefused` are those of its last answer.

    Args:
        refused: the last answer.
        problem: what is wrong with where it leads.
    """

    def __init__(self, refused: HandshakeRefused, problem: str) -> None:
        super().__init__(refused.status, refused.headers, refused.body, refused.phrase)
        self.args: tuple[object, ...] = (refused, problem)
        self.problem = problem

    def __str__(self) -> str:
        return redact_line(f"{self.problem} (status {self.status})")


class InvalidHandshake(ConnectError):
    """The server's answer is not a valid WebSocket handshake (RFC 6455, section 4.1).

    The server's fault, or it is no WebSocket server.
    """


class ReconnectFailed(ConnectError):
    """Reconnecting ended without success.

    Args:
        attempts: the reason of every failed attempt, oldest first.
    """

    def __init__(self, attempts: Sequence[Disconnect]) -> None:
        super().__init__(tuple(attempts))
        self.attempts: tuple[Disconnect, ...] = tuple(attempts)

    def __str__(self) -> str:
        last = f"; {self.attempts[-1]}" if self.attempts else ""
        return redact_line(f"gave up after {len(self.attempts)} attempts{last}")


class ConnectionClosed(TrioglockError):
    """The connection is closing or closed; nothing more can be sent or received.

    Args:
        received: the peer's Close frame, or None.
        sent: ours, or None.
        cause: why the connection ended, or None while it is still closing.
        unsent: the frames that were queued and never handed to the operating system.
        in_doubt: the frames that were being written when the link broke: with the operating
            system whole, in part or not at all, and nobody can tell which.
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
        """Tells errors of different connections apart; no more than that is promised."""

    @property
    def code(self) -> int:
        """The peer's close code; ours while it has not answered; 1006 where there is neither."""
        close = self.received or self.sent
        return 1006 if close is None else close.code

    @property
    def reason(self) -> str:
        """The text that goes with :attr:`code`."""
        close = self.received or self.sent
        return "" if close is None else close.reason

    def __str__(self) -> str:
        if self.cause is not None:
            text = str(self.cause)
        else:
            close = self.received or self.sent
            said = "" if close is None else f": {close.code} {close.reason}".rstrip()
            text = redact_line(f"the connection is closing{said}")
        unsent = len(self.unsent)
        return f"{text}; {unsent} frames never sent" if unsent else text


class ConnectionClosedOK(ConnectionClosed):
    """Closed in good order, with 1000 or 1001. Nobody's fault."""


class ConnectionClosedError(ConnectionClosed):
    """Closed with another code, or lost without a closing handshake.

    ``code`` and ``cause`` tell whose fault: 1006 is the network's, 1002, 1007 and 1009 mean that
    one side sent what the other may not accept, 1011 and above are the peer's own words.
    """
