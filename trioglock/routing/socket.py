"""``EventSocket``: a Socket that speaks in events: a codec, a router, and requests."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ..codecs import JSON, Codec
from ..disconnect import Disconnect
from ..errors import BadHookResult, DecodeError, InvalidOption
from ..frames import Close
from ..hooks import Deliver, MaybeAwaitable, Reconnect, Reply, Socket, Stop
from .emit import Emit
from .invalid import InvalidMessages
from .requests import Requests
from .router import Router, is_async

__all__ = ["EventSocket", "by_event", "by_ref"]

StateT = TypeVar("StateT")
ResultT = TypeVar("ResultT")

NOT_AN_EVENT = (ValueError, LookupError, TypeError, AttributeError)
"""What codecs and key functions raise where a message is not what it should be."""


def by_event(message: Any) -> Any:
    """The default key: ``message["event"]``."""
    return message["event"]


def by_ref(message: Any) -> Any:
    """The default reference of an answer: ``message["ref"]``, or the attribute ``ref``."""
    return message.get("ref") if isinstance(message, dict) else getattr(message, "ref", None)


class EventSocket(Socket[StateT]):
    """Decodes each frame, routes it by its key, and encodes what its handler replies.

    A handler is ``(event, state) -> (result, state)``, plain or async. Its result is that of a
    receiving hook, or :class:`Emit` to send messages. What a handler raises ends the connection,
    but for :class:`~trioglock.errors.DecodeError`: then the event is malformed.

    Messages given to ``send`` are encoded by the codec; a ``Close`` closes. Hooks that you
    override: call ``super()`` in ``handle_disconnect`` and ``terminate``, which end requests.

    Args:
        router: the handlers; it takes no further ones. By default every event is handed to
            whoever iterates the connection.
        codec: by default :class:`~trioglock.codecs.JSON`.
        key: the name of a decoded event; by default ``event["event"]``.
        ref: the reference of an answer; by default ``event["ref"]``.

    Raises:
        InvalidOption: an argument is not what it should be.
    """

    def __init__(
        self,
        router: Router | None = None,
        *,
        codec: Codec | None = None,
        key: Callable[[Any], Any] = by_event,
        ref: Callable[[Any], Any] = by_ref,
    ) -> None:
        self.router: Router = _checked(router)
        self.codec: Codec = _checked_codec(codec)
        self.requests: Requests = Requests()
        """Those that wait for an answer."""
        self.invalid: InvalidMessages = InvalidMessages()
        """Counts what was malformed."""
        for name, function in (("key", key), ("ref", ref)):
            if not callable(function):
                raise InvalidOption(f"{name} is a function of the event, not {function!r}")
        self._key = key
        self._ref = ref
        overridden = type(self).handle_receive is not EventSocket.handle_receive
        if not overridden and self._is_async:
            # Whether a hook is async is asked of the hook, once: plain handlers stay quick.
            self.handle_receive = self._receive_async  # type: ignore[method-assign]

    @property
    def _is_async(self) -> bool:
        hooks = (self.handle_event, self.handle_invalid)
        return self.router.is_async or any(map(is_async, hooks))

    # Out.

    def handle_send(self, message: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each ``send``: encodes the message.

        Returns:
            ``(frame, state)``.

        Raises:
            EncodeError: at the call that sends.
        """
        return (message if isinstance(message, Close) else self.codec.encode(message)), state

    def make_request(self, event: str, payload: Any, ref: str) -> Any:
        """The message of a request: ``{"event": ..., "ref": ..., "payload": ...}``.

        Override it for another envelope. There is no ``payload`` where it is None.

        Args:
            event: its name.
            payload: whatever the codec takes.
            ref: that the answer will have.
        """
        message = {"event": event, "ref": ref}
        return message if payload is None else {**message, "payload": payload}

    # In.

    def handle_receive(self, frame: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each frame: decodes and routes it.

        Args:
            frame: as it came.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``, of the handler. What is no event goes with a DecodeError to
            :meth:`handle_invalid`.
        """
        try:
            event = self.codec.decode(frame)
            name = self._key(event)
            if not isinstance(name, str):
                raise DecodeError(f"the name of an event is a str, not {name!r:.100}")
            if self.requests and self.requests.settle(self._ref(event), event):
                return None, state
        except NOT_AN_EVENT as error:
            return self._invalid(self.handle_invalid(_as_decode_error(error), frame, state))
        try:
            returned = self.handle_event(name, event, state)
        except DecodeError as error:
            return self._invalid(self.handle_invalid(error, frame, state))
        return self._result(name, returned)

    async def _receive_async(self, frame: Any, state: StateT) -> tuple[Any, StateT]:
        try:
            event = self.codec.decode(frame)
            name = self._key(event)
            if not isinstance(name, str):
                raise DecodeError(f"the name of an event is a str, not {name!r:.100}")
            if self.requests and self.requests.settle(self._ref(event), event):
                return None, state
        except NOT_AN_EVENT as error:
            returned = self.handle_invalid(_as_decode_error(error), frame, state)
            return self._invalid(await _finished(returned))
        try:
            returned = await _finished(self.handle_event(name, event, state))
        except DecodeError as error:
            return self._invalid(await _finished(self.handle_invalid(error, frame, state)))
        return self._result(name, returned)

    def handle_event(
        self, name: str, event: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each event that answers no request: finds its handler and runs it.

        Args:
            name: of the event.
            event: as it was decoded.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``.
        """
        returned: MaybeAwaitable[tuple[Any, StateT]] = self.router.find(name)(event, state)
        return returned

    def handle_invalid(
        self, error: DecodeError, frame: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for what is no event: no JSON, no name, a handler's DecodeError.

        Args:
            error: what is wrong with it.
            frame: as it came.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``. Default: it is counted in ``self.invalid``, logged at most once
            in a second, and nothing follows.
        """
        self.invalid.note(error, frame)
        return None, state

    def _invalid(self, returned: Any) -> tuple[Any, StateT]:
        return self._result("malformed messages", returned)

    def _result(self, name: str, returned: Any) -> tuple[Any, StateT]:
        if returned.__class__ is tuple and len(returned) == 2:
            result, state = returned
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

    # Ends.

    def handle_disconnect(
        self, reason: Disconnect, state: StateT
    ) -> MaybeAwaitable[tuple[Reconnect | Stop | None, StateT]]:
        """Called when a link has ended: requests that it carried raise RequestLost."""
        self.requests.lose(reason)
        return None, state

    def terminate(self, reason: Disconnect, state: StateT) -> MaybeAwaitable[object]:
        """Called at the end: requests that still wait raise RequestLost."""
        self.requests.lose(reason)
        return None


def _checked(router: Router | None) -> Router:
    if router is None:
        router = Router()
        router.fallback(_deliver)
    if not isinstance(router, Router):
        raise InvalidOption(f"router is a Router, not {router!r}")
    router.freeze()
    return router


def _checked_codec(codec: Codec | None) -> Codec:
    if codec is None:
        return JSON()
    methods = (getattr(codec, name, None) for name in ("encode", "decode"))
    if isinstance(codec, type) or not all(map(callable, methods)):
        # Else every message would count as malformed.
        raise InvalidOption(
            f"codec has the methods encode and decode, as JSON() has, not {codec!r}"
        )
    return codec


def _deliver(event: Any, state: Any) -> tuple[Any, Any]:
    return Deliver(event), state


def _as_decode_error(error: Exception) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    invalid = DecodeError(f"not an event: {error!r:.200}")
    invalid.__cause__ = error
    return invalid


async def _finished(returned: MaybeAwaitable[ResultT]) -> ResultT:
    return await returned if inspect.isawaitable(returned) else returned
