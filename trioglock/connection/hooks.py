"""The hooks of a socket: checks their return values and applies them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Sequence
from functools import cache
from typing import Any

from .._redact import shorten
from ..errors import BadHookResult, EncodeError, InvalidFrame
from ..frames import Close, Codec, Frame, Ping, Pong, PreparedMessage
from ..hooks import NOT_STATES, NOTHING, Deliver, Reply, Socket, overrides
from ..telemetry import EventEmitter
from ._sync import ignore
from .receive_queue import ReceiveQueue
from .send_queue import QueuedFrame, SendQueue, checked_frame
from .writer import Writer

__all__ = ["EncodingHookResults", "Hook", "HookResults", "frames_to_send", "hook_of", "split"]

PAIR = "a tuple (result, state)"

_SHAPES = {
    "handle_send": "a tuple (frame, state)",
    "handle_call": "a tuple (reply, state) or (reply, result, state)",
    "init_stream": "the state",
    "handle_disconnect": "a tuple (decision, state)",
}


class Hook:
    """One hook of one socket.

    Args:
        socket: the user's socket.
        name: the name of the hook.
    """

    __slots__ = ("call", "is_async", "is_default", "label", "name")

    def __init__(self, socket: Socket[Any, Any], name: str) -> None:
        self.name: str = name
        self.call: Callable[..., Any] = getattr(socket, name)
        self.label: str = f"{type(socket).__name__}.{name}"
        self.is_async: bool = inspect.iscoroutinefunction(self.call)
        self.is_default: bool = not overrides(socket, Socket, name)
        if inspect.isasyncgenfunction(self.call) or inspect.isgeneratorfunction(self.call):
            raise BadHookResult(f"{self.label} is a generator; a hook must return its result")

    def bad_state(self, state: object) -> BadHookResult:
        """Create the exception for a result in place of the state: the two were swapped."""
        wanted = _SHAPES.get(self.name, PAIR)
        return BadHookResult(
            f"{self.label} must return {wanted}, in this order: {shorten(state)} is not a state"
        )

    def bad_result(self, returned: object) -> BadHookResult:
        """Create the exception for a return value of the wrong shape."""
        if inspect.iscoroutine(returned):
            returned.close()
            return BadHookResult(f"{self.label} returned a coroutine; declare it with async def")
        wanted = _SHAPES.get(self.name, PAIR)
        return BadHookResult(f"{self.label} must return {wanted}, not {shorten(returned)}")


def hook_of(socket: Socket[Any, Any], name: str) -> Hook:
    """Return the ``name`` hook of ``socket``; all sockets share the default hooks."""
    return Hook(socket, name) if overrides(socket, Socket, name) else _default_hook(name)


@cache
def _default_hook(name: str) -> Hook:
    return Hook(Socket(), name)


def split(hook: Hook, returned: Any) -> tuple[Any, Any]:
    """Check the pair that most hooks return.

    Raises:
        BadHookResult: it is not a pair.
    """
    if isinstance(returned, tuple) and len(returned) == 2:
        if returned[1].__class__ in NOT_STATES:
            raise hook.bad_state(returned[1])
        return returned
    raise hook.bad_result(returned)


def split_call(hook: Hook, returned: Any) -> tuple[Any, Any, Any]:
    """Return the reply, result and state of ``handle_call``.

    Raises:
        BadHookResult: it returned anything else.
    """
    if isinstance(returned, tuple) and len(returned) in (2, 3):
        if returned[-1].__class__ in NOT_STATES:
            raise hook.bad_state(returned[-1])
        if len(returned) == 2:
            return returned[0], None, returned[1]
        return returned
    raise hook.bad_result(returned)


def frames_to_send(hook: Hook, frame: Any) -> list[Frame]:
    """Check and return the frames that ``handle_send`` returned.

    Raises:
        BadHookResult: one of them is not a frame.
    """
    if frame is None and not hook.is_default:
        return []
    frames = frame if isinstance(frame, tuple | list) else (frame,)
    try:
        return [checked_frame(one) for one in frames]
    except InvalidFrame as error:
        if hook.is_default:
            hint = _iterable_hint(frame) or f"{_ENCODE}, or override handle_send"
            raise InvalidFrame(f"{error}; {hint}") from None
        hint = "" if hook.name != "handle_send" else f"; {_hint(frame)}"
        raise BadHookResult(f"{hook.label}: {error}{hint}") from None


_ENCODE = "encode it, for example with json.dumps()"


def _hint(frame: object) -> str:
    if isinstance(frame, Reply | Deliver):
        return "handle_send must return the frame itself"
    return _iterable_hint(frame) or _ENCODE


def _iterable_hint(frame: object) -> str | None:
    """Return the advice for an object that was probably meant to be an async iterable."""
    if inspect.isasyncgenfunction(frame):
        return "call the function: send() accepts the async iterable that it returns"
    if inspect.isgenerator(frame) or inspect.isgeneratorfunction(frame):
        return "to send it in fragments, pass an async iterable, such as an async generator"
    return None


class HookResults:
    """Applies the results of hooks.

    Args:
        receive_queue: receives the delivered messages.
        writer: sends the replies.
        send_queue: the queue of the writer.
        close: starts the closing handshake.
        emitter: emits an event for each reply.
    """

    __slots__ = ("_close", "_emitter", "_send_queue", "_writer", "receive_queue", "replied")

    def __init__(
        self,
        receive_queue: ReceiveQueue,
        writer: Writer,
        send_queue: SendQueue,
        close: Callable[[Close], None],
        emitter: EventEmitter,
    ) -> None:
        self.receive_queue: ReceiveQueue = receive_queue
        self.replied: bool = False
        """Whether a hook has replied since this was last reset."""
        self._writer = writer
        self._send_queue = send_queue
        self._close = close
        self._emitter = emitter

    def release_session(self) -> None:
        """Drop the reference to the session, which has ended."""
        self._close = ignore

    @property
    def closed(self) -> bool:
        """Whether sends are refused."""
        return self._send_queue.closed

    def apply(self, hook: Hook, result: Any, *, first: bool = False) -> None:
        """Apply one result.

        Args:
            hook: the hook that returned it.
            result: the result.
            first: send replies before the data that is already queued.

        Raises:
            BadHookResult: a Reply contains an invalid frame.
        """
        kind = result.__class__
        if result is None:
            return
        if kind is Reply:
            self.replied = True
            if result.frames or result.deliver is not NOTHING:
                self._reply(hook, result, first=first)
        elif kind is Close:
            self._close(result)
        else:
            self.receive_queue.add(result.value if kind is Deliver else result)

    def _reply(self, hook: Hook, reply: Reply, *, first: bool) -> None:
        first = first or self._send_queue.awaits_login
        if len(reply.frames) == 1 and reply.deliver is NOTHING:
            frame = reply.frames[0]
            kind = frame.__class__
            if (kind is bytes or (kind is str and frame.isascii())) and not (
                first or self._emitter.emits_frames
            ):
                # Nearly all replies take this path.
                if not self._send_queue.closed:
                    self._writer.put(frame)
                return
        try:
            frames = [checked_frame(frame) for frame in reply.frames]
        except InvalidFrame as error:
            raise BadHookResult(f"{hook.label}: {error}") from None
        if self._emitter.emits_frames:
            self._emitter.hook_replied(hook.name, frames)
        close: Close | None = None
        for at, frame in enumerate(frames):
            if frame.__class__ is Close:
                # Nothing may follow a Close frame (RFC 6455, section 5.5.1).
                close = frame
                del frames[at:]
                break
        if not self._send_queue.closed:
            if first:
                self._writer.put_first(frames)
            else:
                self._put_all(frames)
        if close is not None:
            self._close(close)
        if reply.deliver is not NOTHING:
            self.receive_queue.add(reply.deliver)

    def _put_all(self, frames: Sequence[QueuedFrame]) -> None:
        """Send frames in one write."""
        corks = len(frames) > 1 and self._writer.cork()
        for frame in frames:
            self._writer.put(frame)
        if corks:
            self._writer.uncork()

    def send(self, hook: Hook, frame: Any) -> AsyncIterable[Any] | None:
        """Send the frames that ``handle_send`` returned.

        Returns:
            An async iterable, which the caller must send in fragments; usually None.

        Raises:
            BadHookResult, InvalidFrame: one of them is not a frame; then none is sent.
        """
        kind = frame.__class__
        if kind is bytes or (kind is str and frame.isascii()):
            self._writer.put(frame)
            return None
        if kind is not str and kind is not PreparedMessage and hasattr(kind, "__aiter__"):
            return frame  # type: ignore[no-any-return]
        for checked in frames_to_send(hook, frame):
            if checked.__class__ is Close:
                # Nothing may follow a Close frame (RFC 6455, section 5.5.1).
                self._close(checked)
                break
            self._writer.put(checked)
        return None


class EncodingHookResults(HookResults):
    """Applies the results of hooks on a connection with a codec, which encodes their messages.

    Args:
        codec: encodes everything but control frames, prepared messages and async iterables.
        results: the other arguments of :class:`HookResults`.
    """

    __slots__ = ("_codec",)

    def __init__(self, codec: Codec[Any], *results: Any) -> None:
        super().__init__(*results)
        self._codec = codec

    def _reply(self, hook: Hook, reply: Reply, *, first: bool) -> None:
        try:
            frames = map(self._encode, reply.frames)
            super()._reply(hook, Reply(*frames, deliver=reply.deliver), first=first)
        except EncodeError as error:
            raise BadHookResult(f"{hook.label}: {error}") from error

    def send(self, hook: Hook, frame: Any) -> AsyncIterable[Any] | None:
        if frame is None and not hook.is_default:
            return None
        encoded = self._encode(frame)
        kind = encoded.__class__
        if kind is bytes or (kind is str and encoded.isascii()):
            self._writer.put(encoded)
            return None
        if isinstance(encoded, tuple | list):
            raise InvalidFrame(f"the codec must return str or bytes, not {shorten(encoded)}")
        return super().send(hook, encoded)

    def _encode(self, message: Any) -> Any:
        kind = message.__class__
        if kind is not dict and (isinstance(message, _UNENCODED) or hasattr(kind, "__aiter__")):
            return message
        return self._codec.encode(message)


_UNENCODED = (Close, Ping, Pong, PreparedMessage)
