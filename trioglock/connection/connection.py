"""The connection as a program sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import trio

from .._redact import redact_url
from ..errors import CallTimeout, InvalidOption, UsageError
from ..frames import Close, Data, Frame, Ping
from ..options import check_seconds
from ..transports import Handshake
from .closing import OK_CODES, Status
from .outgoing import checked_frame
from .report import StatusReport, report_on
from .session import Session
from .statistics import Statistics

__all__ = ["Connection"]

StateT = TypeVar("StateT")

# A program that only ever sends lets the writer task run after so many messages, or so many
# seconds of its own time, whichever comes first.
SENDS_PER_TURN = 64
SECONDS_PER_TURN = 0.001


class Connection(Generic[StateT]):
    """A live connection; what ``async with connect(...) as conn`` gives.

    Iterate it for the messages that ``handle_receive`` hands on::

        async for message in conn: ...

    The loop ends quietly when the connection closes with 1000 or 1001, and raises
    ConnectionClosedError on anything else. Any number of tasks may send, receive and close at
    the same time; each message goes to one receiver.
    """

    def __init__(self, session: Session[StateT], url: str) -> None:
        self._session = session
        self._actor = session.actor
        self._mailbox = session.actor.mailbox
        self._receive_queue = session.receive_queue
        self._send_queue = session.send_queue
        self._url = url
        self._sends = 0
        self._turn_began = 0.0

    def __repr__(self) -> str:
        who = self._session.emitter.connection
        return f"<Connection {who} to {redact_url(self.url)}, {self.status.value}>"

    # Sending.

    async def send(self, message: Any) -> None:
        """Send a message through ``handle_send``; wait while the send queue is full.

        Either the whole message is queued, or the call raises and none of it is.

        Args:
            message: whatever ``handle_send`` takes; by default ``str`` or bytes-like.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            InvalidFrame, BadHookResult: what came out of ``handle_send`` cannot be sent.
            UsageError: called inside a hook of this connection.
            Exception: whatever ``handle_send`` raises.
        """
        actor = self._actor
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._send_queue.closed or self._send_queue.full or not actor.idle:
            await self._send_in_turn(message)
        elif actor.send_hook.is_async:
            await actor.send_here(message)
        else:
            actor.send_now(message)
        if self._turn_is_over():
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _send_in_turn(self, message: Any) -> None:
        self._mailbox.refuse_inside("send")
        await self._wait_room()
        if not self._actor.idle:
            await self._actor.send(message)
        elif self._actor.send_hook.is_async:
            await self._actor.send_here(message)
        else:
            self._actor.send_now(message)

    async def _wait_room(self) -> None:
        """Return once the send queue takes more; raises ConnectionClosed if it never will."""
        send_queue = self._send_queue
        if send_queue.full and not send_queue.closed:
            with self._session.emitter.waiting("sender", "send_queue"):
                while send_queue.full and not send_queue.closed:
                    await send_queue.wait_room()
        if send_queue.closed:
            raise self._session.closed_error()

    def _turn_is_over(self) -> bool:
        """Whether it is time to let the writer task run, though the program need not wait."""
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
        """Send a message through ``handle_send``, or raise at once.

        Raises:
            trio.WouldBlock: the send queue is full, or an async hook is running.
            UsageError: ``handle_send`` is async: use ``await send()``.
            ConnectionClosed, InvalidFrame, BadHookResult, Exception: as :meth:`send`.
        """
        actor = self._actor
        if (
            self._send_queue.closed
            or self._send_queue.full
            or not actor.idle
            or actor.send_hook.is_async
        ):
            self._refuse_nowait()
        actor.send_now(message)

    def _refuse_nowait(self) -> None:
        self._mailbox.refuse_inside("send_nowait")
        if self._send_queue.closed:
            raise self._session.closed_error()
        if self._actor.send_hook.is_async:
            raise UsageError(f"{self._actor.send_hook.label} is async: use await send()")
        raise trio.WouldBlock

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame as it is, past ``handle_send``; wait while the send queue is full.

        Args:
            frame: ``str``, bytes-like, ``PreparedMessage``, ``Ping``, ``Pong`` or ``Close``.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            InvalidFrame: it is none of these.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("send_frame")
        checked = checked_frame(frame)
        await trio.lowlevel.checkpoint()
        await self._wait_room()
        if isinstance(checked, Close):
            self._session.close(checked)
        else:
            self._send_queue.put(checked)

    def send_frame_nowait(self, frame: Frame, *, immediate: bool = False) -> None:
        """Send a frame past ``handle_send``, or raise at once; allowed anywhere, also in hooks.

        Args:
            frame: as for :meth:`send_frame`; what goes to many connections is best a
                :class:`PreparedMessage`.
            immediate: write it in this very step if the socket takes it, where it would otherwise
                wait to leave together with what is queued next.

        Raises:
            trio.WouldBlock: the send queue is full.
            ConnectionClosed: the connection is closing or closed.
            InvalidFrame: it is no frame.
        """
        send_queue = self._send_queue
        if send_queue.closed:
            raise self._session.closed_error()
        if send_queue.full:
            raise trio.WouldBlock
        if immediate:
            send_queue.hurry()
        if frame.__class__ is Close:
            self._session.close(frame)
        else:
            send_queue.put(frame)

    async def flush(self) -> None:
        """Wait until all that is queued now is with the operating system.

        Raises:
            ConnectionClosed: the connection ended before, or the link broke while part of it was
                being written: then nobody can tell whether it arrived.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("flush")
        marks = self._send_queue.flush_marks()
        await trio.lowlevel.checkpoint()
        if not await self._send_queue.wait_flushed(marks):
            raise self._session.closed_error()

    def discard_unsent(self) -> tuple[Data, ...]:
        """Take back all messages that are queued and not being written; allowed anywhere.

        For what must not leave late, such as orders after an outage: call it in
        ``handle_disconnect``. A ``flush()`` that waits for them raises.

        Returns:
            The frames, oldest first.
        """
        return self._session.send_queue.discard()

    # Receiving.

    async def receive(self) -> Any:
        """The next delivered message; a cancelled call loses none.

        Raises:
            ConnectionClosed: the connection has closed and all messages were taken.
            UsageError: called inside a hook of this connection.
        """
        await self._wait_items("receive")
        item = self._receive_queue.items.popleft()
        if self._receive_queue.held:
            self._receive_queue.taken()
        return item

    def receive_nowait(self) -> Any:
        """The next delivered message, if there is one.

        Raises:
            trio.WouldBlock: there is none yet.
            ConnectionClosed: there will be none.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("receive_nowait")
        if not self._receive_queue.items:
            if self._receive_queue.ended:
                raise self._session.closed_error()
            raise trio.WouldBlock
        item = self._receive_queue.items.popleft()
        if self._receive_queue.held:
            self._receive_queue.taken()
        return item

    async def receive_batch(self) -> list[Any]:
        """All delivered messages that are there, at least one; waits for the first.

        Raises:
            ConnectionClosed: the connection has closed and all messages were taken.
            UsageError: called inside a hook of this connection.
        """
        await self._wait_items("receive_batch")
        batch = list(self._receive_queue.items)
        self._receive_queue.items.clear()
        if self._receive_queue.held:
            self._receive_queue.taken()
        return batch

    async def _wait_items(self, call: str) -> None:
        if self._mailbox.active is not None:
            self._mailbox.refuse_inside(call)
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._receive_queue.items:
            if self._receive_queue.ended:
                raise self._session.closed_error()
            await self._receive_queue.wait()

    def __aiter__(self) -> Connection[StateT]:
        return self

    async def __anext__(self) -> Any:
        if self._mailbox.active is not None:
            self._mailbox.refuse_inside("receive")
        await trio.lowlevel.checkpoint_if_cancelled()
        receive_queue = self._receive_queue
        while not receive_queue.items:
            if receive_queue.ended:
                error = self._session.closed_error()
                if error.code in OK_CODES and error.__cause__ is None:
                    raise StopAsyncIteration
                raise error
            await receive_queue.wait()
        item = receive_queue.items.popleft()
        if receive_queue.held:
            receive_queue.taken()
        return item

    # The actor's mailbox.

    def cast(self, message: Any) -> None:
        """Leave ``message`` for ``handle_cast``; allowed anywhere, also in hooks.

        Raises:
            ConnectionClosed: the connection has closed.
            trio.WouldBlock: 65,536 jobs wait for the hooks already.
            UsageError: the Socket has no ``handle_cast``.
        """
        if self._mailbox.stopped:
            raise self._session.closed_error()
        self._actor.cast(message)

    def cast_after(self, seconds: float, message: Any) -> trio.CancelScope:
        """Leave ``message`` for ``handle_cast`` after ``seconds``.

        Returns:
            A scope; cancel it to take the message back.

        Raises:
            InvalidOption: ``seconds`` is not a positive number.
            ConnectionClosed, UsageError: as :meth:`cast`.
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
        """Ask ``handle_call`` and wait for its reply.

        Args:
            request: whatever ``handle_call`` takes.
            timeout: seconds to wait at the most; None for ever.

        Raises:
            CallTimeout: no reply in time; the request may still be handled.
            ConnectionClosed: the connection closed before.
            UsageError: there is no ``handle_call``, or this is called inside a hook.
            Exception: whatever ``handle_call`` raises.
        """
        self._mailbox.refuse_inside("call")
        check_seconds("timeout", timeout)
        await trio.lowlevel.checkpoint()
        if self._mailbox.stopped:
            raise self._session.closed_error()
        with trio.move_on_after(math.inf if timeout is None else timeout):
            return await self._actor.call(request)
        raise CallTimeout(f"{self._actor.call_hook.label} took longer than {timeout} seconds")

    # The heartbeat.

    async def ping(self) -> float:
        """Send a ping and wait for its pong (RFC 6455, section 5.5.2).

        Returns:
            Seconds of the round trip. While messages wait unread and hold the reader back, the
            pong waits behind them.

        Raises:
            ConnectionClosed: the connection is not open, or the link ended before the pong came.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("ping")
        await trio.lowlevel.checkpoint()
        if self._send_queue.closed or not self._session.is_open:
            raise self._session.closed_error()
        pings = self._session.pings
        payload = pings.new_payload()
        self._send_queue.put(Ping(payload))
        seconds = await pings.wait(payload)
        if seconds is None:
            raise self._session.closed_error()
        return seconds

    @property
    def latency(self) -> float | None:
        """Seconds of the latest ping's round trip, or None before the first."""
        return self._session.pings.latency

    # Ends.

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Send what is queued, then Close; wait for the peer's, at most ``close_timeout`` seconds.

        Harmless on a connection that is closing or closed: the first close wins.

        Args:
            code: of the Close frame (RFC 6455, section 7.4).
            reason: its text, at most 123 bytes of UTF-8.

        Raises:
            InvalidOption: the code or reason may not be sent.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("aclose")
        try:
            frame = Close(code, reason)
        except (ValueError, AttributeError) as error:
            raise InvalidOption(str(error)) from None
        await self._session.aclose(frame)

    def abort(self) -> None:
        """Drop the connection on the spot, without a closing handshake; allowed anywhere."""
        self._session.abort()

    async def reconnect(self) -> None:
        """Leave the present link for a new one; wait until that is open.

        State and queued messages are kept. If the policy is waiting between two attempts, the
        next attempt starts immediately.

        Raises:
            ConnectionClosed: the connection ended instead.
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("reconnect")
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._session.reconnect()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and ``terminate`` has run.

        Raises:
            UsageError: called inside a hook of this connection.
        """
        self._mailbox.refuse_inside("wait_closed")
        await self._session.finished.wait()

    # What is known.

    @property
    def state(self) -> StateT:
        """The state that the latest hook returned."""
        return self._actor.state

    @property
    def status(self) -> Status:
        """Where the connection stands."""
        return self._session.status

    @property
    def url(self) -> str:
        """The address, without user information; after redirects, where they led."""
        handshake = self._session.handshake
        return self._url if handshake is None else handshake.url

    @property
    def name(self) -> str:
        """What logs call this connection."""
        return self._session.emitter.name

    @property
    def id(self) -> int:
        """The number that no other connection of this process has; traces and events tell it."""
        return self._session.emitter.id

    @property
    def handshake(self) -> Handshake | None:
        """What the two sides told each other; None before the first upgrade."""
        return self._session.handshake

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol, or None."""
        handshake = self._session.handshake
        return None if handshake is None else handshake.subprotocol

    @property
    def close_code(self) -> int | None:
        """The peer's close code; 1005 if it gave none, 1006 if it sent no Close frame.

        None while the connection is not closed (RFC 6455, section 7.1.5).
        """
        if self.status not in (Status.DECIDING, Status.CLOSED):
            return None
        received = self._session.ending.received
        return 1006 if received is None else received.code

    @property
    def close_reason(self) -> str | None:
        """The text that came with :attr:`close_code` (RFC 6455, section 7.1.6)."""
        if self.status not in (Status.DECIDING, Status.CLOSED):
            return None
        received = self._session.ending.received
        return "" if received is None else received.reason

    def statistics(self) -> Statistics:
        """What the connection has done so far."""
        session = self._session
        sent, received, messages = session.figures
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
            in_doubt=session.send_queue.doubtful,
            unsent=len(session.ending.unsent),
            reconnects=max(0, session.upgrades - 1),
            latency=session.pings.latency,
        )

    def status_report(self) -> StatusReport:
        """The connection at a glance, for a person; allowed anywhere, at any time.

        The Socket's ``format_status`` decides what of the state is in it.
        """
        return report_on(self._session, self.statistics())

    def trace(self, on: bool = True) -> None:
        """Write a line for each step to the logger ``trioglock.trace``, or do so no longer.

        Args:
            on: whether it is written from now on.
        """
        self._session.emitter.trace(on=on)

    def start_soon(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run ``fn(*args)`` in a task that ends with the connection; allowed anywhere.

        If it raises, the connection closes with 1011 and the exception comes out of the block.

        Raises:
            ConnectionClosed: the connection has ended.
        """
        self._session.background.start_soon(fn, *args)
