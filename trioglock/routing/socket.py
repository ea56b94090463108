"""``EventSocket``: a Socket that decodes events, routes them to handlers and sends requests."""

from __future__ import annotations

import inspect
import uuid
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast

from .._hints import describe_value
from .._text import as_text
from .._types import DecodedT_co, StateT
from ..codecs import JSON, Codec
from ..connection import MALFORMED, Connection, InvalidMessages, Requests, Status
from ..connection.requests import has_link, request
from ..disconnect import Disconnect
from ..errors import BadHookResult, DecodeError, InvalidOption, UsageError
from ..frames import Close
from ..hooks import NOT_STATES, NOTHING, ConnectionInfo, Deliver, MaybeAwaitable, Reply, Socket
from ..options import check_codec, check_seconds
from .router import Router, is_async

__all__ = ["Emit", "EventSocket", "event_name", "event_ref"]

ResultT = TypeVar("ResultT")


def event_name(message: Any) -> Any:
    """Return ``message["event"]``, the default name of an event."""
    return message["event"]


def event_ref(message: Any) -> Any:
    """Return ``message["ref"]`` or the ``ref`` attribute, the default reference of an answer."""
    return message.get("ref") if isinstance(message, dict) else getattr(message, "ref", None)


class Emit:
    """Result of a handler: send messages, each encoded by the codec.

    Args:
        messages: the messages to send, in order.
        deliver: a value to deliver as well; by default none.
    """

    __slots__ = ("deliver", "messages")

    def __init__(self, *messages: Any, deliver: Any = NOTHING) -> None:
        self.messages: tuple[Any, ...] = messages
        self.deliver: Any = deliver

    def __repr__(self) -> str:
        shown = [repr(message) for message in self.messages]
        if self.deliver is not NOTHING:
            shown.append(f"deliver={self.deliver!r}")
        return f"Emit({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Emit):
            return NotImplemented
        return (self.messages, self.deliver) == (other.messages, other.deliver)

    __hash__: ClassVar[None]  # type: ignore[assignment]


NOT_STATES.add(Emit)


class EventSocket(Socket[StateT, DecodedT_co]):
    """A Socket for protocols whose messages are events with a name.

    It decodes each frame, finds the handler of the event and encodes the reply::

        socket = EventSocket(router)
        async with connect("wss://example.org/socket", socket) as conn:
            answer = await socket.request("games/status", {"game": "ExVenture"})

    A handler is ``(event, state) -> (result, state)``, plain or async. Its result is any result
    that ``handle_receive`` may return, or :class:`Emit` to send messages. A handler that raises
    :class:`~trioglock.errors.DecodeError` rejects the event as malformed; any other exception ends
    the connection.

    ``conn.send(message)`` encodes the message; ``conn.send(Close(...))`` closes the connection. An
    EventSocket belongs to one connection. Using it for a second connection before the first one has
    closed raises UsageError.

    Args:
        router: the handlers; no more can be added afterwards. By default, every event that does not
            answer a request is delivered.
        codec: by default :class:`~trioglock.codecs.JSON`.
        key: returns the name of a decoded event; by default ``event["event"]``. It is not called
            for the answer to a request.
        ref: returns the reference of an answer; by default ``event["ref"]``. If it raises
            LookupError, the event does not answer a request.

    Raises:
        InvalidOption: an argument has the wrong type.
    """

    _own_codec = "pass it to the socket, as in EventSocket(..., codec=...)"

    def __init__(
        self,
        router: Router | None = None,
        *,
        codec: Codec[Any] | None = None,
        key: Callable[[Any], Any] = event_name,
        ref: Callable[[Any], Any] = event_ref,
    ) -> None:
        self.router: Router = _check_router(router)
        self.codec: Codec[Any] = _check_codec(codec)
        self.requests: Requests = Requests()
        """The requests that are waiting for an answer."""
        self.invalid: InvalidMessages = InvalidMessages()
        """Counts malformed messages."""
        for name, function in (("key", key), ("ref", ref)):
            if not callable(function):
                raise InvalidOption(f"{name} must be a function of the event, not {function!r}")
        self._key = key
        self._ref = ref
        # Weak, because the connection refers to its socket.
        self._bound: weakref.ref[Connection[StateT, Any]] | None = None
        overridden = type(self).handle_receive is not EventSocket.handle_receive
        if not overridden and self._has_async_handlers:
            # A connection checks only once whether a hook is async. If all handlers are plain, the
            # hook remains plain, which is faster.
            this = weakref.ref(self)  # self would be a reference cycle

            async def handle_receive(frame: Any, state: StateT) -> tuple[Any, StateT]:
                return await EventSocket._receive_async(
                    cast("EventSocket[StateT, Any]", this()), frame, state
                )

            self.handle_receive = handle_receive  # type: ignore[method-assign]
        # Subclasses may override these hooks without calling super().
        self._run_before("handle_connect", "_link_opened")
        self._run_before("handle_disconnect", "_link_ended")
        self._run_before("terminate", "_connection_ended")

    def _check(self) -> None:
        if not hasattr(self, "_bound"):
            name = type(self).__name__
            raise UsageError(f"{name}.__init__() must call super().__init__() first")

    # Sending.

    async def request(self, event: str, payload: Any = None, *, timeout: float | None = 10) -> Any:
        """Send an event and wait for the message that answers it with the same ``ref``.

        The decoded answer is returned and not passed to a handler. An answer that arrives after
        the timeout is handled as an ordinary event. During an outage the request waits until the
        connection has been re-established.

        Args:
            event: the name of the event.
            payload: anything that the codec can encode; None for no payload.
            timeout: seconds to wait in total; None for no limit.

        Raises:
            RequestTimeout: no answer arrived in time.
            RequestLost: the network connection ended before the answer arrived.
            ConnectionClosed: the connection is closing or closed.
            EncodeError: the codec cannot encode the payload.
            UsageError: the socket is not connected, or the call is made inside a hook or handler of
                this socket, or another request with the same reference is waiting.
            InvalidOption: an argument or the result of ``make_ref`` is invalid.
        """
        if not isinstance(event, str) or not event:
            raise InvalidOption(f"event must be a name, not {event!r}")
        event = as_text(event)
        check_seconds("timeout", timeout)
        connection = self._connection
        if connection is None:
            raise UsageError(
                "the socket is not connected: use request() inside connect(url, socket)"
            )
        ref = _check_ref(self.make_ref())
        message = self.make_request(event, payload, ref)
        pending = self.requests.open(ref, event, has_link=has_link(connection))
        return await request(connection, pending, message, timeout)

    def make_ref(self) -> str | int:
        """Return the reference of the next request, by default a new UUID.

        Override it for servers that require numbers. A reference must not be used twice.
        """
        return str(uuid.uuid4())

    def make_request(self, event: str, payload: Any, ref: str | int) -> Any:
        """Return the message of a request: ``{"event": ..., "ref": ..., "payload": ...}``.

        Override it to send requests in another format. ``payload`` is omitted if it is None.

        Args:
            event: the name of the event.
            payload: the payload passed to :meth:`request`.
            ref: the reference that the answer must have.
        """
        message = {"event": event, "ref": ref}
        return message if payload is None else {**message, "payload": payload}

    def handle_send(self, message: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        return (message if isinstance(message, Close) else self.codec.encode(message)), state

    # Receiving.

    def handle_receive(self, frame: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        try:
            decoded = self._decode(frame)
            if decoded is None:
                return None, state
            name, event = decoded
            returned = self.handle_event(name, event, state)
        except DecodeError as error:
            return self._result(INVALID, self.handle_invalid(error, frame, state))
        return self._result(name, returned)

    async def _receive_async(self, frame: Any, state: StateT) -> tuple[Any, StateT]:
        try:
            decoded = self._decode(frame)
            if decoded is None:
                return None, state
            name, event = decoded
            returned = await _resolve(self.handle_event(name, event, state))
        except DecodeError as error:
            return self._result(INVALID, await _resolve(self.handle_invalid(error, frame, state)))
        return self._result(name, returned)

    def handle_event(
        self, name: str, event: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each event that does not answer a request.

        Runs the handler found by the router.

        Args:
            name: the name of the event.
            event: the decoded event.
            state: the state that the previous hook returned.

        Returns:
            ``(result, state)``.
        """
        returned: MaybeAwaitable[tuple[Any, StateT]] = self.router.find(name)(event, state)
        return returned

    def handle_invalid(
        self, error: DecodeError, frame: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for a frame that is malformed, has no event name or is rejected by its handler.

        Args:
            error: the problem with the message.
            frame: the frame as received.
            state: the state that the previous hook returned.

        Returns:
            ``(result, state)``. Default: the message is counted in ``self.invalid`` and logged, at
            most once per second.
        """
        self.invalid.note(error, frame)
        return None, state

    def _decode(self, frame: Any) -> tuple[str, Any] | None:
        """Return the name and the event, or None for the answer to a request."""
        try:
            event = self.codec.decode(frame)
            # Requests come first: in JSON-RPC and other protocols, an answer has no name.
            if self.requests and self._resolve_request(event):
                return None
            name = self._key(event)
            if not isinstance(name, str):
                raise DecodeError(f"the name of an event must be a str, not {name!r:.100}")
        except DecodeError:
            raise
        except MALFORMED as error:
            raise DecodeError(f"not an event: {error!r:.200}") from error
        return name, event

    def _resolve_request(self, event: Any) -> bool:
        """End the request that an event answers; return whether there is one."""
        try:
            ref = self._ref(event)
        except MALFORMED:
            return False
        return self.requests.resolve(ref, event)

    def _result(self, name: str, returned: Any) -> tuple[Any, StateT]:
        if returned.__class__ is tuple and len(returned) == 2:
            result, state = returned
            if state.__class__ in NOT_STATES:
                raise BadHookResult(
                    f"the handler of {name!r} must return a tuple (result, state), "
                    f"in this order: {state!r:.200} is not a state"
                )
            if result.__class__ is Emit:
                frames = map(self.codec.encode, result.messages)
                result = Reply(*frames, deliver=result.deliver)
            return result, state
        if inspect.iscoroutine(returned):
            returned.close()
            raise BadHookResult(
                f"the handler of {name!r} returned a coroutine: declare it with async def"
            )
        raise BadHookResult(
            f"the handler of {name!r} must return a tuple (result, state), not {returned!r:.200}"
        )

    # Links of the connection.

    @property
    def _connection(self) -> Connection[StateT, Any] | None:
        return None if self._bound is None else self._bound()

    @property
    def _has_async_handlers(self) -> bool:
        hooks = (self.handle_event, self.handle_invalid)
        return self.router.is_async or any(map(is_async, hooks))

    def _run_before(self, name: str, action: str) -> None:
        """Before each call of a hook, call the ``action`` method with the first argument."""
        function = getattr(type(self), name)
        this = weakref.ref(self)  # self would be a reference cycle

        def call(value: Any, state: StateT) -> Any:
            getattr(this(), action)(value)
            return function(this(), value, state)

        async def call_async(value: Any, state: StateT) -> Any:
            return await call(value, state)

        setattr(self, name, wraps(function)(call_async if is_async(function) else call))

    def _link_opened(self, info: ConnectionInfo) -> None:
        bound = self._connection
        if bound is not info.connection and bound is not None and bound.status is not Status.CLOSED:
            raise UsageError(
                f"this {type(self).__name__} belongs to {bound!r}: "
                "create another one for each connection"
            )
        self._bound = weakref.ref(info.connection)
        self.requests.add_link()

    def _link_ended(self, reason: Disconnect) -> None:
        unsent = self.requests.fail(reason)
        connection = self._connection
        if unsent and connection is not None:
            connection._send_queue.remove(unsent)  # noqa: SLF001 - part of the same package

    def _connection_ended(self, reason: Disconnect) -> None:
        self.requests.fail(reason, final=True)


INVALID = "malformed messages"


def _check_router(router: Router | None) -> Router:
    if router is None:
        router = Router()
        router.fallback(_deliver)
    if not isinstance(router, Router):
        raise InvalidOption(f"router must be a Router, not {describe_value(router)}")
    router.freeze()
    return router


def _check_codec(codec: Codec[Any] | None) -> Codec[Any]:
    check_codec(codec)
    return JSON() if codec is None else codec


def _check_ref(ref: object) -> str | int:
    if isinstance(ref, bool) or not isinstance(ref, str | int):
        raise InvalidOption(f"make_ref() must return a str or an int, not {ref!r}")
    return ref


def _deliver(event: Any, state: Any) -> tuple[Any, Any]:
    return Deliver(event), state


async def _resolve(returned: MaybeAwaitable[ResultT]) -> ResultT:
    return await returned if inspect.isawaitable(returned) else returned
