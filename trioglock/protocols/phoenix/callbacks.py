"""The callbacks of ``run()``, their results, and the transport with which they send.

The interface follows ``Phoenix.Channels.GenSocketClient`` (phoenix_gen_socket_client for Elixir):
your callbacks decide when to connect, which topics to join, and whether to rejoin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

import trio

from ..._redact import HIDDEN, redact_url
from ...client.sources import Source, check_not_called
from ...disconnect import Disconnect
from ...errors import UsageError
from ...hooks import MaybeAwaitable as Maybe
from ...hooks import Stop
from ...options import check_seconds
from .channel import copy_payload
from .connect import PARAMS, Params
from .errors import BufferFull, NotJoined
from .hooks import PhoenixHooks
from .message import JOIN, LEAVE, PushReply, check_event, check_topic
from .state import ChannelPhase, Effect, GetPayload, SendMessage

__all__ = ["ChannelClient", "ChannelTransport", "Connect", "DeferredReply", "Result", "SentPush"]

MAX_UNSENT = 2**16
"""Maximum number of messages that callbacks may send before the server reads one."""

StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Connect:
    """Result of a callback: connect. It has no effect while connected or connecting.

    Args:
        url: another URL, for this and later attempts.
        params: other params, for this and later attempts.
        delay: seconds to wait before the attempt.

    Raises:
        InvalidOption: ``delay`` is not a number of seconds, or a function was called rather than
            passed.
    """

    url: Source[str] | None = None
    params: Source[Params] | None = None
    delay: float = 0

    def __repr__(self) -> str:
        # Params often contain credentials, as may the reprs of functions.
        url = repr(redact_url(self.url)) if isinstance(self.url, str) else _hide(self.url)
        return f"Connect(url={url}, params={_hide(self.params)}, delay={self.delay!r})"

    def __post_init__(self) -> None:
        check_not_called("url", self.url, "a str")
        check_not_called("params", self.params, PARAMS)
        if self.delay != 0:
            check_seconds("delay", self.delay, none=False)


def _hide(source: object) -> str:
    return "None" if source is None else HIDDEN


Result: TypeAlias = Connect | Stop | None
"""The result of a callback: what to do next."""


class DeferredReply:
    """A reply that is provided later. Return it from ``handle_call`` in place of the reply.

    ::

        def handle_call(self, request, transport, state):
            reply = DeferredReply()
            ref = transport.push("room:1", "ask", request)
            return reply, {**state, ref: reply}

        def handle_reply(self, topic, ref, reply, transport, state):
            state[ref].set(reply.response)
            return None, state

    The call waits until :meth:`set` or :meth:`fail` is called, in a callback or in any other task,
    but no longer than its ``timeout`` or the lifetime of the client.
    """

    def __init__(self) -> None:
        self._done = trio.Event()
        self._value: Any = None
        self._error: Exception | None = None

    def set(self, value: Any) -> None:
        """Let the call return ``value``; does nothing if the call already has a result."""
        if not self._done.is_set():
            self._value = value
            self._done.set()

    def fail(self, error: Exception) -> None:
        """Let the call raise ``error``; does nothing if the call already has a result."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    async def wait(self) -> Any:
        """Wait for the result, as the call does."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value


@dataclass(frozen=True, slots=True)
class SentPush:
    """A push or leave that a callback has sent and that has no outcome yet."""

    topic: str
    ref: str
    is_leave: bool = False


class ChannelTransport:
    """Joins, leaves and pushes inside callbacks, without waiting.

    Args:
        hooks: the hooks of the connection.
        effects: receives the effects to run after the callback.
        pushes: receives each push and leave, by its number.
        timeout: seconds for joins, pushes and leaves.
    """

    def __init__(
        self,
        hooks: PhoenixHooks,
        effects: deque[Effect],
        pushes: dict[int, SentPush],
        timeout: float,
    ) -> None:
        self._hooks = hooks
        self._machine = hooks.machine
        self._effects = effects
        self._pushes = pushes
        self._timeout = timeout

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._machine.connected

    def joined(self, topic: str) -> bool:
        """Return whether ``topic`` is joined."""
        channel = self._machine.channel(topic)
        return channel is not None and self._machine.phase(channel) is ChannelPhase.JOINED

    def join(self, topic: str, payload: Any = None) -> str:
        """Join a topic; ``handle_joined`` or ``handle_join_error`` receives the answer.

        Args:
            topic: the topic, such as ``"room:1"``.
            payload: the argument of the server's ``join/3``.

        Returns:
            The ref of the join.

        Raises:
            Disconnected: there is no connection.
            AlreadyJoined: the topic is joined, or being joined.
            BufferFull: 65,536 messages are waiting because the server is not reading.
            InvalidMessage, EncodeError, InvalidOption: an argument is invalid.
        """
        topic = check_topic(topic)
        payload = {} if payload is None else payload
        self._hooks.check(topic, JOIN, payload)
        deadline = self._new_deadline()
        channel, [ask] = self._machine.join(topic, self._timeout, deadline, offline=False)
        assert isinstance(ask, GetPayload)
        effects = self._machine.payload(channel, ask.attempt, payload)
        self._effects.extend(effects)
        return _sent_ref(effects)

    def leave(self, topic: str, payload: Any = None) -> str:
        """Leave a topic; ``handle_reply`` receives the reply, then ``handle_channel_closed``.

        Without a reply, only ``handle_channel_closed`` is called.

        Args:
            topic: the topic of a channel that has not ended.
            payload: a JSON value or bytes-like, which Phoenix itself ignores; by default ``{}``.

        Returns:
            The ref of the leave, which is passed to ``handle_reply``.

        Raises:
            Disconnected: there is no connection.
            NotJoined: the topic is not joined.
            BufferFull: 65,536 messages are waiting because the server is not reading.
            InvalidMessage, EncodeError: the payload cannot be sent; the topic is not left.
        """
        channel = self._channel(topic)
        payload = {} if payload is None else copy_payload(payload)
        self._hooks.check(topic, LEAVE, payload)
        leave, effects = self._machine.leave(channel, self._new_deadline(), payload)
        ref = _sent_ref(effects)
        self._pushes[leave] = SentPush(topic, ref, is_leave=True)
        self._effects.extend(effects)
        return ref

    def push(self, topic: str, event: str, payload: Any = None) -> str:
        """Push an event; ``handle_reply`` or ``handle_timeout`` receives the outcome.

        Args:
            topic: the topic of a joined channel.
            event: the name of the event.
            payload: a JSON value or bytes-like; by default ``{}``.

        Returns:
            The ref of the push, which is passed to these callbacks.

        Raises:
            Disconnected: there is no connection.
            NotJoined: the topic is not joined.
            BufferFull: 65,536 messages are waiting because the server is not reading.
            InvalidMessage, EncodeError, InvalidOption: an argument is invalid.
        """
        event = check_event(event)
        payload = {} if payload is None else payload
        channel = self._channel(topic)
        self._hooks.check(topic, event, payload)
        deadline = self._new_deadline()
        push, effects = self._machine.push(channel, event, payload, deadline, buffered=False)
        ref = _sent_ref(effects)
        self._pushes[push] = SentPush(topic, ref)
        self._effects.extend(effects)
        return ref

    def _new_deadline(self) -> float:
        if len(self._effects) + len(self._hooks.send_queue) >= MAX_UNSENT:
            raise BufferFull(
                f"{MAX_UNSENT} messages are already waiting for the server to read them"
            )
        return trio.current_time() + self._timeout

    def _channel(self, topic: str) -> int:
        channel = self._machine.channel(topic)
        if channel is None:
            self._machine.check_connected(topic)
            raise NotJoined(f"{topic!r} is not joined")
        return channel


def _sent_ref(effects: Iterable[Effect]) -> str:
    """Return the ref of the message that is sent."""
    [ref] = [effect.message.ref for effect in effects if isinstance(effect, SendMessage)]
    assert ref is not None
    return ref


class ChannelClient(Generic[StateT]):
    """The callbacks of :func:`run`.

    Override those that you need; each may be ``def`` or ``async def``.

    Callbacks run one at a time, in the order of the events, and each receives the state that the
    previous one returned. Unless documented otherwise, a callback returns ``(result, state)``. The
    result is

    * ``None``: do nothing;
    * ``Connect(...)``: connect;
    * ``Stop()``, see :class:`trioglock.Stop`: close the connection and end the client.

    An exception raised by a callback other than ``handle_call`` ends the client; :func:`run` raises
    it.
    """

    def init(self) -> Maybe[StateT]:
        """Called once, before everything else; returns the initial state. Default: None."""
        return cast("StateT", None)

    def handle_connected(
        self, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called after connecting. Join topics here.

        Args:
            transport: to join, leave and push.
            state: the current state.
        """
        return None, state

    def handle_disconnected(
        self, reason: Disconnect, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called after the connection is lost or an attempt to connect fails.

        Return ``Connect(delay=...)`` to try again. All channels have ended;
        ``handle_channel_closed`` is not called for them.

        Args:
            reason: a typed value, see :mod:`trioglock.disconnect`.
            state: the current state.
        """
        return None, state

    def handle_joined(
        self, topic: str, response: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the server has accepted the join of ``topic``.

        ``response`` is the result of the server's ``join/3``; for ``transport`` and ``state`` see
        :meth:`handle_connected`.
        """
        return None, state

    def handle_join_error(
        self, topic: str, response: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the server has refused the join of ``topic``, or has not answered it in time.

        ``response`` is the server's response, or ``{"reason": "timeout"}``; for ``transport`` and
        ``state`` see :meth:`handle_connected`.
        """
        return None, state

    def handle_channel_closed(
        self, topic: str, payload: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the channel of ``topic`` has been closed, has crashed or was left.

        You may join it again.

        ``payload`` is that of the message that ended it; for ``transport`` and ``state`` see
        :meth:`handle_connected`.
        """
        return None, state

    def handle_message(
        self, topic: str, event: str, payload: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called for each ``event`` that the server pushes or broadcasts on ``topic``.

        ``payload`` is a JSON value or bytes; for ``transport`` and ``state`` see
        :meth:`handle_connected`.
        """
        return None, state

    def handle_reply(
        self, topic: str, ref: str, reply: PushReply, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called for the ``reply`` to the push or leave on ``topic`` that returned ``ref``.

        For ``transport`` and ``state`` see :meth:`handle_connected`.
        """
        return None, state

    def handle_timeout(
        self, topic: str, ref: str, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the push on ``topic`` that returned ``ref`` received no reply in time.

        Not every event has a reply. For ``transport`` and ``state`` see :meth:`handle_connected`.
        """
        return None, state

    def handle_cast(
        self, message: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called for each ``handle.cast(message)``, which sends a message from another task.

        Without this callback, ``handle.cast`` raises UsageError.

        For ``transport`` and ``state`` see :meth:`handle_connected`.
        """
        raise UsageError(f"{type(self).__name__} has no handle_cast")

    def handle_call(
        self, request: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Any, StateT] | tuple[Any, Result, StateT]]:
        """Called for ``await handle.call(request)``, which raises the exceptions of this callback.

        Without this callback, ``call`` raises UsageError. For ``transport`` and ``state`` see
        :meth:`handle_connected`.

        Returns:
            ``(reply, state)`` or ``(reply, result, state)``. The reply may be a
            :class:`DeferredReply`.
        """
        raise UsageError(f"{type(self).__name__} has no handle_call")

    def terminate(self, reason: Disconnect, state: StateT) -> Maybe[None]:
        """Called once at the end: after ``Stop()``, an exception or a cancellation.

        Args:
            reason: why the last connection ended, see :mod:`trioglock.disconnect`.
            state: the last state, which ``run()`` returns.
        """
