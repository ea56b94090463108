"""``run()``: a client that calls callbacks.

One connection serves the client from start to end. Until a callback requests a connection, the
attempt to connect waits in :class:`_OnDemandTransport`; casts and calls are handled in the
meantime.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, Unpack

import trio

from ..._hints import checks_keywords, describe_value
from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...client import ConnectOptions
from ...client.sources import Source
from ...connection import Connection
from ...disconnect import Aborted, Disconnect, HandshakeFailed, HookError, LocalClose
from ...errors import (
    BadHookResult,
    CallTimeout,
    ConnectError,
    ConnectionClosed,
    InvalidOption,
    OpenTimeout,
    UsageError,
)
from ...frames import Close, Data
from ...hooks import ConnectionInfo, Reconnect, Reply, Stop
from ...options import DialOptions, check_seconds
from ...transports import Link
from .callbacks import (
    ChannelClient,
    ChannelTransport,
    Connect,
    DeferredReply,
    Result,
    SentPush,
)
from .connect import (
    EndpointTransport,
    Params,
    check_serializer,
    check_timeout,
    open_connection,
)
from .errors import ChannelCrashed, Disconnected, JoinRefused, JoinTimeout, PushTimeout
from .hooks import PhoenixHooks
from .machine import Machine
from .message import PushReply
from .pushes import LEFT
from .serializer import Serializer
from .state import (
    ChannelEnded,
    ChannelJoined,
    DeliverMessage,
    Effect,
    ResolvePush,
    SendMessage,
)

__all__ = ["ClientHandle", "run"]

StateT = TypeVar("StateT")

TERMINATE_TIMEOUT = 10.0
"""Seconds for the ``terminate`` callback if there was no connection."""


class _OnDemandTransport(EndpointTransport):
    """Connects when a callback requests it."""

    def __init__(self, *args: Any, open_timeout: float | None) -> None:
        super().__init__(*args)
        check_seconds("open_timeout", open_timeout)
        self._open_timeout = open_timeout
        self._requested = trio.Event()
        self._delay = 0.0

    def request(self, connect: Connect) -> None:
        if not self._requested.is_set():
            self.change(connect.url, connect.params)
            self._delay = connect.delay
            self._requested.set()

    def reset(self) -> None:
        self._requested = trio.Event()

    def take_delay(self) -> float:
        delay, self._delay = self._delay, 0.0
        return delay

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        await self._requested.wait()
        await trio.sleep(self.take_delay())
        timeout = self._open_timeout
        with PeerTimeout(timeout):
            return await super().connect(options, nursery)
        assert timeout is not None
        raise OpenTimeout(f"could not connect within {seconds_text(timeout)}")


@dataclass(frozen=True, slots=True)
class _Failure:
    """The reply to a call whose callback raised an exception."""

    error: Exception


class _CallbackHooks(PhoenixHooks, Generic[StateT]):
    """Calls the callbacks for events, and converts their results to results of hooks."""

    state: StateT
    on_start: Callable[[], None]

    def __init__(
        self,
        client: ChannelClient[StateT],
        serializer: Serializer,
        timeout: float,
        endpoint: _OnDemandTransport,
    ) -> None:
        super().__init__(Machine(rejoin_delays=()), serializer)
        self.client: ChannelClient[StateT] = client
        self.endpoint: _OnDemandTransport = endpoint
        self.stopped: bool = False
        self.effects: deque[Effect] = deque()
        """Effects to run after the current callback."""
        self.pushes: dict[int, SentPush] = {}
        """The pushes and leaves without an outcome, by number."""
        self.ended: bool = False
        self.failed_attempt: HandshakeFailed | None = None
        """The latest attempt to connect, if it has failed."""
        self.deferred: dict[object, DeferredReply] = {}
        """The reply that each call is waiting for."""
        self.transport: ChannelTransport = ChannelTransport(
            self, self.effects, self.pushes, timeout
        )

    def _attach(self, connection: Connection[Any, Any]) -> None:
        super()._attach(connection)
        self.on_start()

    # Hooks.

    async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        self.machine.connect(trio.current_time())
        await self.invoke(self.client.handle_connected, self.transport)
        return await self._run_effects(), state

    async def handle_receive(self, frame: Data, state: None) -> tuple[Any, None]:
        if not self.stopped:
            self.effects.extend(self.received(frame))
        return await self._run_effects(), state

    def handle_send(self, message: None, state: None) -> tuple[None, None]:
        return None, state  # ClientHandle.call() only waits for space

    async def handle_cast(self, message: Any, state: None) -> tuple[Any, None]:
        if not self.stopped:
            effects = message()
            if inspect.isawaitable(effects):
                effects = await effects
            self.effects.extend(effects or ())
        return await self._run_effects(), state

    async def handle_call(self, request: Any, state: None) -> tuple[Any, Any, None]:
        if self.stopped:
            return _Failure(_ended()), None, state
        callback = self.client.handle_call
        reply: Any
        try:
            returned = await _await(callback(request, self.transport, self.state))
            if not isinstance(returned, tuple) or len(returned) not in (2, 3):
                raise _bad_result(
                    callback, "a tuple (reply, state) or (reply, result, state)", returned
                )
            result = returned[1] if len(returned) == 3 else None
            self.apply(result)
            reply, self.state = returned[0], returned[-1]
        except Exception as error:  # noqa: BLE001 - it is raised by the call
            reply = _Failure(error)
        return reply, await self._run_effects(), state

    async def handle_disconnect(self, reason: Disconnect, state: None) -> tuple[Any, None]:
        self.machine.disconnect(reason)
        self.connection.discard_unsent()
        self.effects.clear()
        self.pushes.clear()
        self.endpoint.reset()
        self.failed_attempt = reason if isinstance(reason, HandshakeFailed) else None
        if not self.stopped:
            if isinstance(reason, HandshakeFailed) and not isinstance(
                reason.error, ConnectError | OSError
            ):
                raise reason.error  # raised by a user's function
            await self.invoke(self.client.handle_disconnected, reason)
        if self.stopped:
            return Stop(), state
        return Reconnect(delay=self.endpoint.take_delay()), state

    async def terminate(self, reason: Disconnect, state: None) -> None:
        self.stopped = self.ended = True
        for reply in self.deferred.values():
            reply.fail(_ended())
        await _await(self.client.terminate(reason, self.state))

    async def finish(self, reason: Disconnect) -> None:
        """Call ``terminate`` if the connection has not called it because it was never open."""
        if not self.ended:
            with trio.move_on_after(TERMINATE_TIMEOUT, shield=True):
                await self.terminate(reason, None)

    # Callbacks.

    async def invoke(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call any callback except ``init`` and ``handle_call``."""
        returned = await _await(callback(*args, self.state))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise _bad_result(callback, "a tuple (result, state)", returned)
        if isinstance(returned[1], Connect | Stop):
            raise _bad_result(callback, "a tuple (result, state), in this order", returned)
        self.apply(returned[0])
        self.state = returned[1]

    def apply(self, result: Result) -> None:
        """Apply the result of a callback."""
        if isinstance(result, Stop):
            self.stopped = True
        elif isinstance(result, Connect):
            self.endpoint.request(result)
        elif result is not None:
            raise BadHookResult(
                f"a callback's result must be None, Connect(...) or Stop(), not {result!r:.200}"
            )

    async def _run_effects(self) -> Reply | Close | None:
        """Run effects until none is left; return the frames to send."""
        frames: list[Data | Close] = []
        effects = self.effects
        while effects:
            effect = effects.popleft()
            if isinstance(effect, SendMessage):
                frames.append(self.encode(effect.message))
            elif not self.stopped:
                await self._run_effect(effect)
        self.update_timer()
        if self.stopped:
            frames.append(Close(1000))
        return Reply(*frames) if frames else None

    async def _run_effect(self, effect: Effect) -> None:
        transport, client = self.transport, self.client
        match effect:
            case ChannelJoined(topic=topic, response=response):
                await self.invoke(client.handle_joined, topic, response, transport)
            case DeliverMessage(_, message):
                arguments = (message.topic, message.event, message.payload)
                await self.invoke(client.handle_message, *arguments, transport)
            case ChannelEnded(_, cause, payload, topic):
                await self._channel_ended(topic, cause, payload)
            case ResolvePush(number, outcome):
                await self._push_resolved(number, outcome)

    async def _channel_ended(self, topic: str, cause: Exception | None, payload: Any) -> None:
        transport, client = self.transport, self.client
        if isinstance(cause, JoinRefused):
            await self.invoke(client.handle_join_error, topic, cause.response, transport)
        elif isinstance(cause, JoinTimeout):
            await self.invoke(client.handle_join_error, topic, {"reason": "timeout"}, transport)
        elif isinstance(cause, ChannelCrashed) or payload is not None:
            await self.invoke(client.handle_channel_closed, topic, payload, transport)
        # Otherwise the channel was left, and the answer to the leave calls the callback.

    async def _push_resolved(self, number: int, outcome: PushReply | Exception) -> None:
        transport, client = self.transport, self.client
        push = self.pushes.pop(number)
        if isinstance(outcome, PushReply) and outcome is not LEFT:
            await self.invoke(client.handle_reply, push.topic, push.ref, outcome, transport)
        elif isinstance(outcome, PushTimeout) and not push.is_leave:
            await self.invoke(client.handle_timeout, push.topic, push.ref, transport)
        if push.is_leave and not self.stopped:
            await self.invoke(client.handle_channel_closed, push.topic, {}, transport)
        # A separate callback handles a channel that ends while a push is waiting.


async def _await(returned: Any) -> Any:
    return await returned if inspect.isawaitable(returned) else returned


def _bad_result(callback: Callable[..., Any], wanted: str, returned: object) -> BadHookResult:
    name = getattr(callback, "__qualname__", repr(callback))
    return BadHookResult(f"{name} must return {wanted}, not {returned!r:.200}")


def _ended() -> Disconnected:
    return Disconnected("the client has ended")


class ClientHandle(Generic[StateT]):
    """A running client, returned by ``nursery.start(phoenix.run, ...)``."""

    def __init__(self, hooks: _CallbackHooks[StateT]) -> None:
        self._hooks = hooks

    @property
    def state(self) -> StateT:
        """The state returned by the latest callback."""
        return self._hooks.state

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._hooks.machine.connected

    @property
    def ignored(self) -> int:
        """Number of ignored messages: late, duplicate, from an earlier join, unknown or invalid."""
        return self._hooks.machine.ignored + self._hooks.invalid.count

    def cast(self, message: Any) -> None:
        """Queue ``message`` for ``handle_cast``. Allowed anywhere, including in callbacks.

        Args:
            message: the argument of ``handle_cast``.

        Raises:
            UsageError: the client has no ``handle_cast``.
            trio.WouldBlock: 65,536 casts and calls are already waiting, or the send queue is full
                because the server is not reading.
            Disconnected: the client has ended.
        """
        hooks = self._hooks
        if type(hooks.client).handle_cast is ChannelClient.handle_cast:
            raise UsageError(f"{type(hooks.client).__name__} has no handle_cast")
        if hooks.send_queue.full and not hooks.stopped:
            raise trio.WouldBlock
        self._cast(partial(hooks.invoke, hooks.client.handle_cast, message, hooks.transport))

    async def call(self, request: Any, timeout: float | None = None) -> Any:
        """Pass ``request`` to ``handle_call`` and wait for its reply.

        Also waits while the send queue is full because the server is not reading.

        Args:
            request: the argument of ``handle_call``.
            timeout: seconds to wait; None for no limit.

        Raises:
            CallTimeout: no reply arrived in time; the request may still be handled.
            Disconnected: the client has ended.
            UsageError: called inside a callback, or there is no ``handle_call``.
            Exception: an exception raised by ``handle_call``.
        """
        hooks = self._hooks
        if hooks.stopped:
            raise _ended()
        check_seconds("timeout", timeout)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            if hooks.send_queue.full:
                with suppress(ConnectionClosed):
                    await hooks.connection.send(None)
            try:
                reply = await hooks.connection.call(request)
            except ConnectionClosed:
                raise _ended() from None
            if isinstance(reply, _Failure):
                raise reply.error
            return await self._wait(reply) if isinstance(reply, DeferredReply) else reply
        assert timeout is not None
        raise CallTimeout(f"handle_call took longer than {seconds_text(timeout)}")

    async def _wait(self, reply: DeferredReply) -> Any:
        if self._hooks.ended:
            reply.fail(_ended())
        call = object()
        self._hooks.deferred[call] = reply
        try:
            return await reply.wait()
        finally:
            del self._hooks.deferred[call]

    def joined(self, topic: str) -> bool:
        """Return whether ``topic`` is joined."""
        return self._hooks.transport.joined(topic)

    def connect(self, connect: Connect | None = None) -> None:
        """Connect, as if a callback had returned ``Connect()``.

        Args:
            connect: the URL, params and delay; by default the previous ones, without a delay.

        Raises:
            trio.WouldBlock: 65,536 casts and calls are already waiting.
            Disconnected: the client has ended.
        """
        self._cast(partial(self._hooks.apply, connect or Connect()))

    def stop(self) -> None:
        """Close the connection and end the client, as if a callback had returned ``Stop()``."""
        self._hooks.stopped = True
        connection = self._hooks.connection
        with suppress(ConnectionClosed):
            connection.start_soon(connection.aclose)

    def _cast(self, message: Callable[[], Any]) -> None:
        if self._hooks.stopped or not self._hooks.cast(message):
            raise _ended()


@checks_keywords("phoenix.run", ConnectOptions)
async def run(
    url: Source[str],
    client: ChannelClient[StateT],
    *,
    connect: bool = True,
    params: Source[Params] | None = None,
    auth_token: Source[str] | None = None,
    serializer: Serializer | None = None,
    timeout: float = 10,
    task_status: trio.TaskStatus[ClientHandle[StateT]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ConnectOptions],
) -> StateT:
    """Run the callbacks of a client until one of them returns :class:`trioglock.Stop`.

    ``nursery.start`` returns the :class:`ClientHandle` immediately, connected or not::

        handle = await nursery.start(phoenix.run, "wss://example.org/socket", Lobby())

    Args:
        url: as in :func:`connect`.
        client: the callbacks.
        connect: whether to connect immediately; False waits until a callback returns
            :class:`Connect`.
        params: as in :func:`connect`.
        auth_token: as in :func:`connect`.
        serializer: as in :func:`connect`.
        timeout: seconds for joins, pushes and leaves.
        task_status: passed by ``nursery.start``.
        options: the keyword arguments of :func:`trioglock.connect`, except ``reconnect``:
            ``handle_disconnected`` decides whether to reconnect.

    Returns:
        The state that the last callback returned.

    Raises:
        InvalidURL, InvalidOption: an argument is invalid.
        BadHookResult: a callback returned an invalid result.
        Exception: an exception raised by a callback, or by a function for URL, params or token.
    """
    _check_client(client)
    check_timeout(timeout)
    if options.get("reconnect"):
        raise InvalidOption(
            "reconnect cannot be set here: return Connect(delay=...) from handle_disconnected"
        )
    open_timeout = options.pop("open_timeout", 10)
    endpoint = _OnDemandTransport(url, params, auth_token, options, open_timeout=open_timeout)
    hooks = _CallbackHooks(client, check_serializer(serializer), timeout, endpoint)
    # The endpoint itself limits the duration of an attempt. The time before a callback requests the
    # attempt does not count.
    opening = open_connection(endpoint, hooks, {**options, "open_timeout": None})
    hooks.state = await _await(client.init())
    hooks.on_start = lambda: task_status.started(ClientHandle(hooks))
    if connect:
        endpoint.request(Connect())
    try:
        async with opening as connection:
            await connection.wait_closed()
    except BaseException as error:
        failed = hooks.failed_attempt
        if failed is None or error is not failed.error or not hooks.stopped:
            is_error = isinstance(error, Exception)
            await hooks.finish(HookError(error=error) if is_error else Aborted())
            raise
        # A callback has stopped the client because the attempt failed.
        await hooks.finish(failed)
    else:
        await hooks.finish(LocalClose())
    return hooks.state


def _check_client(client: object) -> None:
    if not isinstance(client, ChannelClient):
        raise InvalidOption(f"client must be a ChannelClient, not {describe_value(client)}")
