"""The public API of a connection."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic

import trio

from .._hints import METHODS, OtherName
from .._redact import redact_url
from .._text import seconds_text
from .._timer import PeerTimeout
from .._types import MessageT_co, StateT
from ..errors import CallTimeout, InvalidOption, RequestTimeout, UsageError
from ..frames import Close, Data, Frame, Ping
from ..http import Request
from ..options import Overflow, check_seconds
from ..transports import Handshake
from .closing import Status
from .fragments.queue import FragmentQueue
from .fragments.receiver import Fragments
from .fragments.sender import send_fragments
from .mailbox import SuspendedHook
from .report import Statistics, StatusReport, make_report
from .requests import has_link, request
from .send_queue import checked_frame
from .session import Session
from .subscriptions.updates import Updates, make_updates_queue

__all__ = ["Connection"]

# A task that only sends lets other tasks run after this many messages or seconds.
SENDS_PER_TURN = 64
SECONDS_PER_TURN = 0.001


class Connection(Generic[StateT, MessageT_co]):
    """A live connection, returned by ``async with connect(...) as conn``.

    Iterate over it to receive the messages that ``handle_receive`` delivers::

        async for message in conn: ...

    The loop ends when the connection closes with 1000, 1001 or no code, and otherwise raises
    ConnectionClosedError. Any number of tasks may send, receive and close concurrently; each
    message goes to one receiver.

    A connection that reconnects uses several network connections one after another. Each of them
    is called a link.
    """

    # The __dict__ is for attributes that users set.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_actor",
        "_mailbox",
        "_receive_queue",
        "_send_queue",
        "_sends",
        "_session",
        "_turn_began",
        "_url",
        "_writer",
    )

    def __init__(self, session: Session[StateT], url: str) -> None:
        self._session = session
        self._actor = session.actor
        self._mailbox = session.actor.mailbox
        self._receive_queue = session.receive_queue
        self._send_queue = session.send_queue
        self._writer = session.writer
        self._url = url
        self._sends = 0
        self._turn_began = 0.0

    def __repr__(self) -> str:
        who = self._session.emitter.connection
        return f"<Connection {who} to {redact_url(self.url)}, {self.status.value}>"

    # Sending.

    async def send(self, message: Any) -> None:
        """Send a message through ``handle_send``.

        Waits while the send queue is full, or until ``send_rate`` allows the message.

        Either the whole message is queued, or the call raises an exception and nothing is queued.

        An async iterable is sent as one message, with a frame for each item (RFC 6455, section
        5.4): text if it yields ``str``, binary if it yields bytes-like objects or nothing. The call
        returns when the last frame has been passed to the operating system. In the meantime, other
        messages wait, but control frames are sent. If the iterable raises or the call is cancelled
        after the first item, the message cannot be completed, so the link closes with 1011.

        Args:
            message: the argument of ``handle_send``, by default ``str``, bytes-like or an async
                iterable of either.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            InvalidFrame, BadHookResult: the result of ``handle_send`` cannot be sent.
            MessageInterrupted: the link ended in the middle of an async iterable, and another link
                may follow. Messages queued behind it are kept.
            UsageError: called inside a hook of this connection.
            Exception: raised by ``handle_send``.
        """
        actor, mailbox, send_queue = self._actor, self._mailbox, self._send_queue
        if mailbox.active is not None:
            mailbox.reject_inside_hook("send")
        await trio.lowlevel.checkpoint_if_cancelled()
        has_turn = send_queue.size >= send_queue.threshold and not self._writer.make_space()
        if has_turn:
            await self._wait_turn()
        try:
            if send_queue.closed:
                raise self._session.close_state.error()
            if mailbox.pending or mailbox.active is not None:
                iterable = await actor.send_queued(message)
            else:
                sent = actor.send(message)
                if sent is not None and isinstance(sent, SuspendedHook):
                    sent = await actor.finish_send(sent)
                iterable = sent
        finally:
            if has_turn:
                send_queue.end_turn()
        if iterable is not None:
            await send_fragments(self._session, iterable)
        elif self._turn_is_over():
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _wait_turn(self) -> Awaitable[None]:
        """Wait for space in the send queue, or for its end."""
        if self._send_queue.message is not None:
            self._send_queue.message.reject_inside("send")
        # The queue of a connection that has ended may still be full.
        if self._session.emitter.emits_waits and not self._send_queue.closed:
            return self._wait_turn_reported()
        return self._send_queue.wait_turn()

    async def _wait_turn_reported(self) -> None:
        with self._session.emitter.waiting("sender", "send_queue"):
            await self._send_queue.wait_turn()

    def _turn_is_over(self) -> bool:
        """Whether other tasks must run, although the send does not have to wait."""
        self._sends += 1
        if self._sends == 1:
            self._turn_began = time.perf_counter()
            return False
        if (
            self._sends < SENDS_PER_TURN
            and time.perf_counter() - self._turn_began < SECONDS_PER_TURN
        ):
            return False
        self._sends = 0
        return True

    def send_nowait(self, message: Any) -> None:
        """Send a message through ``handle_send``, without waiting.

        Raises:
            trio.WouldBlock: the send queue is full, ``send_rate`` is used up, or an async hook is
                running.
            UsageError: ``handle_send`` is async; use ``await send()``.
            ConnectionClosed, InvalidFrame, BadHookResult, Exception: see :meth:`send`.
        """
        actor = self._actor
        if (
            self._send_queue.closed
            or self._send_queue.full
            or not actor.idle
            or actor.send_hook.is_async
        ):
            self._refuse_nowait()
        if actor.send(message) is not None:
            raise UsageError(
                "send_nowait() cannot send an async iterable, which takes time; use await send()"
            )

    def _refuse_nowait(self) -> None:
        self._mailbox.reject_inside_hook("send_nowait")
        if self._send_queue.closed:
            raise self._session.close_state.error()
        if self._actor.send_hook.is_async:
            raise UsageError(f"{self._actor.send_hook.label} is async; use await send()")
        raise trio.WouldBlock

    async def request(self, message: Any, timeout: float | None = 10) -> MessageT_co:
        """Send a message with a new id, and wait for the reply with the same id.

        The connection needs a codec. By default, the id is a number in ``message["id"]``, and a
        reply with an ``error`` raises RequestFailed; see :class:`RequestFormat`. The reply is not
        passed to ``handle_receive``. A reply that arrives after the timeout is received like any
        other message. The request waits during an outage, until the server accepts subscriptions,
        and while the send queue is full or ``send_rate`` is used up. The id is assigned after this
        wait, so requests are sent in the order of their ids, unless ``handle_send`` is async.

        Args:
            message: the message without its id. It passes through ``handle_send`` with the id.
            timeout: seconds to wait in total; None for no limit.

        Returns:
            The whole reply, decoded.

        Raises:
            RequestFailed: the reply is an error.
            RequestTimeout: no reply arrived in time; the peer may have executed the request.
            RequestLost: the link ended first. The peer may have executed the request, unless its
                message was still in the send queue; that message is then removed.
            ConnectionClosed: the connection is closing or closed.
            UsageError: the connection has no codec, the id cannot be used, or the call is made
                inside a hook of this connection.
            InvalidOption: ``timeout`` is not a positive number.
            EncodeError, Exception: as in :meth:`send`.
        """
        requests = self._session.requests
        if requests is None:
            if self._actor.makes_requests:
                raise UsageError(f"use the request() of the {self._actor.socket_name}")
            raise UsageError("request() needs a codec, as in connect(url, codec=JSON())")
        check_seconds("timeout", timeout)
        if self._mailbox.active is not None:
            self._mailbox.reject_inside_hook("request")
        waited, has_turn = 0.0, False
        send_queue = self._send_queue
        if send_queue.holds_data or send_queue.size >= send_queue.threshold:
            waited, has_turn = await self._wait_to_send(message, timeout)
        try:
            pending, message = requests.open_next(message, has_link=has_link(self))
        except BaseException:
            if has_turn:
                send_queue.end_turn()
            raise
        reply: MessageT_co = await request(
            self, pending, message, timeout, waited=waited, has_turn=has_turn
        )
        return reply

    async def _wait_to_send(self, message: Any, timeout: float | None) -> tuple[float, bool]:
        """Wait until a message can be queued immediately, so that ids are in message order.

        Returns:
            The seconds spent waiting, and whether the caller holds a sender's turn, in which case
            it must call :meth:`SendQueue.end_turn`.

        Raises:
            RequestTimeout: the message could not be queued in time.
        """
        began = trio.current_time()
        send_queue = self._send_queue
        with PeerTimeout(timeout):
            has_turn = False
            while not send_queue.closed:
                if send_queue.holds_data:
                    if has_turn:
                        send_queue.end_turn()
                        has_turn = False
                    await send_queue.wait_release()
                elif (
                    has_turn or send_queue.size < send_queue.threshold or self._writer.make_space()
                ):
                    break
                else:
                    await self._wait_turn()
                    has_turn = True
            return trio.current_time() - began, has_turn
        assert timeout is not None
        cause = "the connection was not open or not ready"
        if not send_queue.holds_data:
            cause = "send_rate was used up" if send_queue.is_paced else "the send queue was full"
        raise RequestTimeout(message, timeout, f"the request was not sent, because {cause}")

    @property
    def _pause(self) -> str:
        """Describe, for errors, why messages are not being read; "" if they are."""
        if self._receive_queue.reader_waiting:
            return (
                "the reply may not have been read, because the receive queue is full "
                f"({len(self._receive_queue.items)} waiting): receive its messages in another "
                "task, or increase max_queue"
            )
        subscriptions = self._session.subscriptions
        if subscriptions is not None and subscriptions.full_queue is not None:
            return "the reply may not have been read, because a subscription's updates are waiting"
        if self._actor.backlog:
            return f"messages waiting for a hook: {self._actor.backlog}"
        return ""

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame without calling ``handle_send``. Waits like :meth:`send`.

        Args:
            frame: ``str``, bytes-like, ``PreparedMessage``, ``Ping``, ``Pong`` or ``Close``.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            InvalidFrame: ``frame`` is none of these.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("send_frame")
        checked = checked_frame(frame)
        await trio.lowlevel.checkpoint()
        send_queue = self._send_queue
        if not (
            send_queue.size < send_queue.threshold
            or self._writer.make_space()
            or send_queue.is_exempt(checked)
        ):
            await self._wait_turn()
        if self._send_queue.closed:
            raise self._session.close_state.error()
        if isinstance(checked, Close):
            self._session.close(checked)
        else:
            self._writer.put(checked)
        self._send_queue.end_turn()

    def send_frame_nowait(self, frame: Frame, *, immediate: bool = False) -> None:
        """Send a frame without calling ``handle_send`` and without waiting. Allowed in hooks.

        Args:
            frame: as in :meth:`send_frame`. Use a :class:`PreparedMessage` to send the same
                message over many connections.
            immediate: write the frame before this call returns, if the socket accepts it. If False,
                it may be combined with the frames that are queued next.

        Raises:
            trio.WouldBlock: the send queue is full, or ``send_rate`` is used up.
            ConnectionClosed: the connection is closing or closed.
            InvalidFrame: ``frame`` is not a frame.
        """
        send_queue = self._send_queue
        if send_queue.closed:
            raise self._session.close_state.error()
        if send_queue.full and not send_queue.is_exempt(frame):
            raise trio.WouldBlock
        if immediate:
            self._writer.allow_immediate()
        if frame.__class__ is Close:
            self._session.close(frame)
        else:
            self._writer.put(frame)

    async def flush(self) -> None:
        """Wait until everything queued so far has been passed to the operating system.

        Raises:
            ConnectionClosed: the connection ended first, or the link broke during a write, so that
                some data may or may not have arrived.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("flush")
        if self._send_queue.message is not None and len(self._send_queue):
            self._send_queue.message.reject_inside("flush")
        barrier = self._send_queue.barrier()
        await trio.lowlevel.checkpoint()
        if not await self._send_queue.wait_written(barrier):
            raise self._session.close_state.error()

    def discard_unsent(self) -> tuple[Data, ...]:
        """Remove all queued messages that are not being written. Allowed in hooks.

        Call it in ``handle_disconnect`` if messages, such as orders, must not be sent late after an
        outage. A ``flush()`` that is waiting for them raises ConnectionClosed.

        The messages of subscriptions stay in the queue.

        Returns:
            The removed messages, oldest first.
        """
        driver = self._session.subscriptions
        return self._session.send_queue.discard() if driver is None else driver.discard_others()

    # Receiving.

    async def receive(self) -> MessageT_co:
        """Return the next delivered message. A cancelled call loses no message.

        Raises:
            ConnectionClosed: the connection has closed and no messages are left.
            UsageError: called inside a hook of this connection.
        """
        await self._wait_items("receive")
        item: MessageT_co = self._receive_queue.items.popleft()
        if self._receive_queue.reader_waiting:
            self._receive_queue.notify_taken()
        return item

    def receive_nowait(self) -> MessageT_co:
        """Return the next delivered message without waiting.

        Raises:
            trio.WouldBlock: no message is available.
            ConnectionClosed: the connection has closed and no messages are left.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("receive_nowait")
        if not (self._receive_queue.items or self._receive_queue.collect()):
            if self._receive_queue.ended:
                raise self._session.close_state.error()
            raise trio.WouldBlock
        item: MessageT_co = self._receive_queue.items.popleft()
        if self._receive_queue.reader_waiting:
            self._receive_queue.notify_taken()
        return item

    async def receive_batch(self) -> list[MessageT_co]:
        """Wait for at least one message, and return all available messages.

        Raises:
            ConnectionClosed: the connection has closed and no messages are left.
            UsageError: called inside a hook of this connection.
        """
        await self._wait_items("receive_batch")
        batch = list(self._receive_queue.items)
        self._receive_queue.items.clear()
        if self._receive_queue.reader_waiting:
            self._receive_queue.notify_taken()
        return batch

    def receive_fragments(self) -> Fragments:
        """Receive the next message in fragments, as they arrive.

        Requires ``fragments=True``.

        ::

            async with conn.receive_fragments() as fragments:
                async for fragment in fragments: ...

        The whole message is never held in memory: reading pauses while 256 KiB are waiting to be
        received. If several tasks receive, the next task waits until the block ends.

        Raises:
            UsageError: ``fragments=True`` was not passed to ``connect()`` or ``serve()``, or the
                call is made inside a hook of this connection. For other exceptions, see
                :class:`Fragments`.
        """
        self._mailbox.reject_inside_hook("receive_fragments")
        queue = self._receive_queue
        if not isinstance(queue, FragmentQueue):
            raise UsageError(
                "receive_fragments() needs connect(..., fragments=True) or "
                "serve(..., fragments=True)"
            )
        return Fragments(queue, self._session.close_state.error)

    async def _wait_items(self, call: str) -> None:
        if self._mailbox.active is not None:
            self._mailbox.reject_inside_hook(call)
        receive_queue = self._receive_queue
        if receive_queue.items or receive_queue.ended:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not receive_queue.items:
            if receive_queue.ended:
                raise self._session.close_state.error()
            await receive_queue.wait()

    def __aiter__(self) -> Connection[StateT, MessageT_co]:
        return self

    async def __anext__(self) -> MessageT_co:
        if self._mailbox.active is not None:
            self._mailbox.reject_inside_hook("receive")
        receive_queue = self._receive_queue
        if receive_queue.items or receive_queue.ended:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not receive_queue.items:
            if receive_queue.ended:
                raise self._end_of_iteration()
            await receive_queue.wait()
        item: MessageT_co = receive_queue.items.popleft()
        if receive_queue.reader_waiting:
            receive_queue.notify_taken()
        return item

    def _end_of_iteration(self) -> Exception:
        close_state = self._session.close_state
        return StopAsyncIteration() if close_state.normal else close_state.error()

    def subscribe(
        self, *keys: Hashable, max_queue: int | None = 1024, overflow: Overflow = "drop_oldest"
    ) -> Updates[Any]:
        """Subscribe to the updates of keys, for the duration of an ``async with`` block.

        ::

            async with conn.subscribe("BTC-USD") as updates:
                async for update in updates:
                    if isinstance(update, Gap): ...  # updates may be missing: load a snapshot

        The ``subscriptions`` argument of :func:`connect` describes the feed. Tasks that subscribe
        to the same key share its subscription, which is renewed after each reconnect.

        Args:
            keys: the keys; one message to the server can subscribe to several of them.
            max_queue: number of updates that may wait to be received; None for no limit.
            overflow: what happens at ``max_queue``: ``"drop_oldest"`` and ``"drop_newest"`` put a
                :class:`Gap` in place of the dropped updates; ``"close"`` ends the loop with
                SlowConsumer; ``"wait"`` stops reading, which also delays all other subscriptions
                and the replies to requests.

        Returns:
            An async context manager and async iterator.

        Raises:
            InvalidOption: an argument is invalid.
            UsageError: ``connect()`` was called without ``subscriptions``.
        """
        driver = self._session.subscriptions
        if driver is None:
            raise UsageError("subscribe() requires connect(..., subscriptions=...)")
        queue = make_updates_queue(keys, max_queue, overflow, self._session.emitter)
        return Updates(driver, queue, self._mailbox.reject_inside_hook)

    # The actor's mailbox.

    def cast(self, message: Any) -> None:
        """Queue ``message`` for ``handle_cast``. Allowed in hooks.

        Raises:
            ConnectionClosed: the connection has closed.
            trio.WouldBlock: 65,536 casts, calls and other events are already waiting.
            UsageError: the Socket has no ``handle_cast``.
        """
        if self._mailbox.stopped:
            raise self._session.close_state.error()
        self._actor.cast(message)

    def cast_after(self, seconds: float, message: Any) -> trio.CancelScope:
        """Queue ``message`` for ``handle_cast`` after ``seconds``. Allowed in hooks.

        Returns:
            A cancel scope; cancel it to withdraw the message.

        Raises:
            InvalidOption: ``seconds`` is not a positive number.
            ConnectionClosed, UsageError: see :meth:`cast`.
        """
        check_seconds("seconds", seconds)
        self._actor.check_cast(message)
        scope = trio.CancelScope()

        async def later() -> None:
            with scope:
                await trio.sleep(seconds)
                if not self._mailbox.stopped:
                    self._actor.cast(message)

        self._session.background.start_soon(later)
        return scope

    async def call(self, request: Any, timeout: float | None = None) -> Any:
        """Run ``handle_call`` and return its reply.

        Args:
            request: the argument of ``handle_call``.
            timeout: maximum seconds to wait; None for no limit.

        Raises:
            CallTimeout: no reply arrived in time; the request may still be handled.
            ConnectionClosed: the connection closed first.
            UsageError: the Socket has no ``handle_call``, or the caller is inside a hook.
            Exception: raised by ``handle_call``.
        """
        self._mailbox.reject_inside_hook("call")
        check_seconds("timeout", timeout)
        await trio.lowlevel.checkpoint()
        if self._mailbox.stopped:
            raise self._session.close_state.error()
        with trio.move_on_after(math.inf if timeout is None else timeout):
            return await self._actor.call(request)
        assert timeout is not None
        raise CallTimeout(f"{self._actor.call_hook.label} took longer than {seconds_text(timeout)}")

    # The heartbeat.

    async def ping(self) -> float:
        """Send a ping and wait for its pong (RFC 6455, section 5.5.2).

        Returns:
            The round-trip time in seconds. It includes the time during which unread messages
            prevent the reader from reading the pong.

        Raises:
            ConnectionClosed: the connection is not open, or the link ended first.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("ping")
        await trio.lowlevel.checkpoint()
        if self._send_queue.closed or not self._session.is_open:
            raise self._session.close_state.error()
        pings = self._session.pings
        payload = pings.new_payload()
        self._writer.put_urgent(Ping(payload))
        seconds = await pings.wait(payload)
        if seconds is None:
            raise self._session.close_state.error()
        return seconds

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest ping in seconds, or None before the first."""
        return self._session.pings.latency

    # Closing.

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Send the queued data and a Close frame, and wait for the end of the connection.

        The wait takes at most ``close_timeout`` seconds. If the connection is already closing or
        closed, the call sends nothing and only waits.

        Args:
            code: the code of the Close frame (RFC 6455, section 7.4).
            reason: the reason of the Close frame, at most 123 bytes of UTF-8.

        Raises:
            InvalidOption: the code or reason cannot be sent.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("aclose")
        try:
            frame = Close(code, reason)
        except (ValueError, AttributeError) as error:
            raise InvalidOption(str(error)) from None
        await self._session.aclose(frame)

    def abort(self) -> None:
        """End the connection immediately, without a closing handshake. Allowed in hooks."""
        self._session.abort()

    async def reconnect(self) -> None:
        """Replace the current link and wait until the new one is open.

        The state and queued messages are kept. If the connection is waiting between two attempts,
        the next attempt starts immediately.

        Raises:
            ConnectionClosed: the connection ended first.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("reconnect")
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._session.reconnect()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and ``terminate`` has run.

        Raises:
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.reject_inside_hook("wait_closed")
        await self._session.finished.wait()

    # Properties.

    @property
    def state(self) -> StateT:
        """The state returned by the latest hook."""
        return self._actor.state

    @property
    def status(self) -> Status:
        """The current status."""
        return self._session.status

    @property
    def url(self) -> str:
        """The URL after redirects, without user information."""
        handshake = self._session.handshake
        return self._url if handshake is None else handshake.url

    @property
    def name(self) -> str:
        """The name of the connection in logs."""
        return self._session.emitter.name

    @property
    def id(self) -> int:
        """The number of the connection, unique in the process; part of traces and events."""
        return self._session.emitter.id

    @property
    def handshake(self) -> Handshake | None:
        """The latest opening handshake, or None before the first."""
        return self._session.handshake

    @property
    def http_request(self) -> Request:
        """On a server, the request of the client, with the data that ``process_request`` stored.

        Raises:
            UsageError: this is the connection of a client.
        """
        handshake = self._session.handshake
        if handshake is None or handshake.request is None:
            raise UsageError(
                "only the connections of a server have an http_request: a client finds the headers "
                "of its request in conn.handshake.request_headers"
            )
        return handshake.request

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol, or None."""
        handshake = self._session.handshake
        return None if handshake is None else handshake.subprotocol

    @property
    def close_code(self) -> int | None:
        """The peer's close code (RFC 6455, section 7.1.5), or None before the end.

        1005 if the Close frame had no code, 1006 if there was no Close frame.
        """
        if self.status not in (Status.DECIDING, Status.CLOSED):
            return None
        received = self._session.close_state.received
        return 1006 if received is None else received.code

    @property
    def close_reason(self) -> str | None:
        """The reason sent with :attr:`close_code` (RFC 6455, section 7.1.6)."""
        if self.status not in (Status.DECIDING, Status.CLOSED):
            return None
        received = self._session.close_state.received
        return "" if received is None else received.reason

    def statistics(self) -> Statistics:
        """Return the counters and queue sizes."""
        session = self._session
        sent, received, messages = session.counters
        return Statistics(
            messages_sent=session.send_queue.written,
            messages_received=messages,
            bytes_sent=sent,
            bytes_received=received,
            receive_queue=len(self._receive_queue.items),
            send_queue=len(session.send_queue),
            send_queue_bytes=session.send_queue.size,
            mailbox=self._mailbox.pending,
            dropped=session.receive_queue.dropped,
            invalid=0 if session.invalid is None else session.invalid.count,
            in_doubt=session.send_queue.in_doubt_count,
            unsent=len(session.close_state.unsent),
            reconnects=max(0, session.upgrades - 1),
            latency=session.pings.latency,
        )

    def status_report(self) -> StatusReport:
        """Return a human-readable description of the connection. Allowed in hooks.

        The Socket's ``format_status`` determines how the state is shown.
        """
        return make_report(self._session, self.statistics())

    def trace(self, on: bool = True) -> None:
        """Start or stop the trace, which logs each event to the ``trioglock.trace`` logger.

        Args:
            on: whether to log events from now on.
        """
        self._session.emitter.trace(on=on)

    def start_soon(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run ``fn(*args)`` in a task that ends with the connection. Allowed in hooks.

        If it raises, the connection closes with 1011 and ``async with`` raises the exception.

        Raises:
            ConnectionClosed: the connection has ended.
        """
        self._session.background.start_soon(fn, *args)


for _name, _use in METHODS.items():
    setattr(Connection, _name, OtherName(_name, _use))
