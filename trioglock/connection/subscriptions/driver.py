"""The driver of the subscription state machine: connects it to links, queues and a timer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import trio

from ..._hints import describe_value, is_hashable
from ..._redact import shorten
from ..._timer import Entry, current_timer
from ...errors import BadHookResult, ConnectionClosed, InvalidOption
from ...frames import Codec, Data, PreparedMessage
from ...hooks import overrides
from ...options import check_seconds, check_whole
from .._sync import ignore
from ..closing import CloseState
from ..rates.paced_queue import PacedSendQueue
from ..send_queue import SendQueue
from ..writer import Writer
from .machine import SubscriptionMachine, Subscriptions
from .updates import UpdateQueue

__all__ = ["SubscriptionDriver", "check_subscriptions"]

CODEC_HINT = (
    "Without a codec, messages are str or bytes: use connect(..., codec=JSON()), or encode and "
    "decode them yourself"
)


class SubscriptionDriver:
    """Connects a :class:`SubscriptionMachine` to the links of a connection.

    Args:
        subscriptions: the user's object.
        writer: sends the requests.
        send_queue: the queue of the writer.
        close_state: creates the exception for calls after the end.
        fail: called with an exception raised by ``subscriptions``.
        codec: encodes the messages of ``subscriptions``; None if they are ``str`` or ``bytes``.
    """

    __slots__ = (
        "_blocking",
        "_close_state",
        "_codec",
        "_fail",
        "_frames",
        "_has_connected",
        "_is_ready",
        "_key_of",
        "_machine",
        "_queues",
        "_reads_ready",
        "_responses",
        "_send_queue",
        "_subscriptions",
        "_timer_entry",
        "_writer",
        "is_suspect",
    )

    def __init__(
        self,
        subscriptions: Subscriptions[Any, Any],
        writer: Writer,
        send_queue: SendQueue,
        close_state: CloseState,
        fail: Callable[[BaseException], None],
        codec: Codec[Any] | None,
    ) -> None:
        self._subscriptions = subscriptions
        self._codec = codec
        self._key_of = _reader(subscriptions, "key_of", codec)
        self._reads_ready = _reader(subscriptions, "is_ready", codec)
        confirms = overrides(subscriptions, Subscriptions, "confirmed")
        confirms_leaving = overrides(subscriptions, Subscriptions, "unsubscribed")
        self._machine = SubscriptionMachine(
            batch=subscriptions.batch,
            timeout=subscriptions.timeout,
            confirms=confirms,
            confirms_leaving=confirms_leaving,
            delays=send_queue.is_paced,
        )
        if isinstance(send_queue, PacedSendQueue):
            send_queue.on_written = self._requests_written
        self._responses = {
            name: _reader(subscriptions, name, codec)
            for name in ("confirmed", "refused", "unsubscribed")
            if overrides(subscriptions, Subscriptions, name)
        }
        self._writer = writer
        self._send_queue = send_queue
        self._close_state = close_state
        self._fail = fail
        self._has_connected = False
        self._is_ready = True
        self._queues: dict[UpdateQueue, None] = {}
        self._blocking: dict[UpdateQueue, None] = {}  # those that may pause the reader
        self._frames: list[tuple[PreparedMessage, list[Any]]] = []  # of this link, and their keys
        self._timer_entry: Entry | None = None
        self.is_suspect: bool = False
        """Whether a deadline has passed and the reader is given some more time."""

    # The session.

    @property
    def awaits_login(self) -> bool:
        """Whether data is held until :meth:`Subscriptions.is_ready` returns True."""
        return not self._is_ready

    def open_link(self) -> None:
        """Start a link."""
        self._is_ready = not overrides(self._subscriptions, Subscriptions, "is_ready")
        try:
            self._subscriptions.reset()
        except Exception as error:
            self._fail(error)

    def connected(self) -> bool:
        """Continue after ``handle_connect``; return whether the program's data may be sent."""
        self._has_connected = True
        self._machine.open_link(trio.current_time())
        if self._is_ready:
            self._resubscribe()
        self._start_timer()
        return self._is_ready

    def _resubscribe(self) -> None:
        self._machine.set_ready()
        self.flush(first=True)

    def close_link(self) -> None:
        """End the link."""
        self._has_connected = False
        self._machine.close_link()
        self.remove_requests()

    def remove_requests(self) -> None:
        """Remove from the send queue the requests of this link that have not been written."""
        self._send_queue.remove([frame for frame, _ in self._frames])
        self._frames.clear()

    def discard_others(self) -> tuple[Data, ...]:
        """Remove and return the queued data, except the requests of this link."""
        send_queue = self._send_queue
        ids = send_queue.queued_ids()
        queued = [frame for frame, _ in self._frames if id(frame) in ids]
        send_queue.remove(queued)
        discarded = send_queue.discard()
        send_queue.put_front(queued)
        return discarded

    def start_closing(self) -> None:
        """Let the reader continue despite full queues: the connection is closing."""
        for queue in self._queues:
            queue.start_closing()

    def end(self) -> None:
        """End all consumers: the connection has ended."""
        for queue in self._queues:
            queue.end()
        self._stop_timer()

    def release_session(self) -> None:
        """Drop the reference to the session, which has ended."""
        self._fail = ignore

    # Consumers.

    def join(self, queue: UpdateQueue) -> None:
        """Add a consumer; :meth:`flush` sends the necessary requests.

        Raises:
            ConnectionClosed: the connection is closing or closed.
        """
        if self._send_queue.closed:
            raise self.closed_error()
        self._queues[queue] = None
        if queue.pause_at < math.inf:
            self._blocking[queue] = None
        now = trio.current_time()
        for key in queue.keys:
            self._machine.join(key, queue, now)
        self._start_timer()

    def leave(self, queue: UpdateQueue) -> None:
        """Remove a consumer; :meth:`flush` sends the necessary requests."""
        self._queues.pop(queue, None)
        self._blocking.pop(queue, None)
        for key in queue.keys:
            self._machine.leave(key, queue)
        queue.items.clear()
        queue.end()

    def has(self, queue: UpdateQueue) -> bool:
        """Whether a consumer has not left."""
        return queue in self._queues

    def closed_error(self) -> ConnectionClosed:
        """Create the exception for calls after the end."""
        return self._close_state.error()

    @property
    def closed_normally(self) -> bool:
        """Whether the connection closed normally."""
        return self._close_state.normal

    # The server's messages.

    def receive(self, run: list[Any]) -> list[Any]:
        """Handle a run of messages; return those that are not for subscriptions."""
        others: list[Any] = []
        key: Any = None
        key_of, update = self._key_of, self._machine.update
        try:
            for message in run:
                key = key_of(message)
                if not (self._respond(message) if key is None else update(key, message)):
                    others.append(message)
        except Exception as error:
            self._fail(error if is_hashable(key) else self._unhashable("key_of", key))
        if self._machine.has_requests:
            self.flush()
        return others

    def _respond(self, message: Any) -> bool:
        """Handle a message that is not an update; return whether it was for subscriptions."""
        machine, handled = self._machine, False
        if not self._is_ready and self._reads_ready(message):
            self._is_ready = True
            if self._has_connected:
                self._resubscribe()
                self._writer.release()
        for name, read in self._responses.items():
            for key in self._keys_in(name, read(message)):
                if not is_hashable(key):
                    raise self._unhashable(name, key)
                handled = handled or machine.knows(key)
                if name == "confirmed":
                    machine.subscribed(key)
                elif name == "refused":
                    machine.refused(key, message)
                else:
                    machine.unsubscribed(key, message)
        return handled

    def _keys_in(self, name: str, keys: Any) -> Iterable[Any]:
        if keys is None:
            return ()
        if (
            isinstance(keys, str | bytes | bool)
            or not isinstance(keys, Iterable)
            or (isinstance(keys, tuple) and is_hashable(keys) and self._machine.knows(keys))
        ):
            raise BadHookResult(
                f"{type(self._subscriptions).__name__}.{name} must return a list of keys or None, "
                f"not {shorten(keys)}"
            )
        return keys

    def _unhashable(self, name: str, key: object) -> BadHookResult:
        return BadHookResult(
            f"{type(self._subscriptions).__name__}.{name} returned {shorten(key)}, but keys must "
            "be hashable; JSON arrays are decoded into lists, so use tuple(...)"
        )

    # Requests.

    def flush(self, *, first: bool = False) -> None:
        """Send the machine's requests.

        Args:
            first: send them before the data that is already queued.
        """
        if self._send_queue.closed or not self._machine.has_requests:
            return
        frames: list[tuple[PreparedMessage, list[Any]]] = []
        try:
            while self._machine.has_requests:
                for subscribe, keys in self._machine.take_requests(trio.current_time()):
                    # Each frame is a separate object, so close_link() can find it by identity.
                    frames += [
                        (self._prepare(message, subscribe=subscribe), keys)
                        for message in self._messages(keys, subscribe=subscribe)
                    ]
        except Exception as error:
            self._fail(error)
            return
        queued = self._send_queue.queued_ids()
        self._frames = [sent for sent in self._frames if id(sent[0]) in queued]
        self._frames += frames
        if first:
            self._send_queue.put_front([frame for frame, _ in frames])
        else:
            self._send_all([frame for frame, _ in frames])
        self._start_timer()

    def _prepare(self, message: Any, *, subscribe: bool) -> PreparedMessage:
        if self._codec is not None:
            return PreparedMessage(self._codec.encode(message))
        if isinstance(message, str | bytes | bytearray | memoryview):
            return PreparedMessage(message)
        name = "subscribe" if subscribe else "unsubscribe"
        raise BadHookResult(
            f"{type(self._subscriptions).__name__}.{name} returned the message {shorten(message)}. "
            f"{CODEC_HINT}"
        )

    def _requests_written(self) -> None:
        """Start the timeouts of the requests that ``send_rate`` has delayed until now."""
        if not self._frames:
            return
        queued = self._send_queue.queued_ids()
        written = [sent for sent in self._frames if id(sent[0]) not in queued]
        self._frames = [sent for sent in self._frames if id(sent[0]) in queued]
        if written:
            unsent = {key for _, keys in self._frames for key in keys}
            now = trio.current_time()
            for key in dict.fromkeys(key for _, keys in written for key in keys):
                if key not in unsent:
                    self._machine.written(key, now)
            self.flush()

    def _send_all(self, frames: list[PreparedMessage]) -> None:
        corks = len(frames) > 1 and self._writer.cork()
        for frame in frames:
            self._writer.put(frame)
        if corks:
            self._writer.uncork()

    def _messages(self, keys: list[Any], *, subscribe: bool) -> Iterable[Any]:
        subscriptions = self._subscriptions
        create = subscriptions.subscribe if subscribe else subscriptions.unsubscribe
        messages = create(tuple(keys))
        if isinstance(messages, str | bytes | dict) or not isinstance(messages, Iterable):
            raise BadHookResult(
                f"{type(subscriptions).__name__}.{create.__name__} must return a list of messages, "
                f"not {shorten(messages)}"
            )
        return messages

    # Backpressure.

    @property
    def full_queue(self) -> UpdateQueue | None:
        """The queue of a consumer that stops the reader, or None."""
        for queue in self._blocking:
            # While a consumer is waiting for a confirmation, the reader must continue to read it.
            if queue.full and not queue.inactive:
                return queue
        return None

    # Timeouts.

    def _start_timer(self) -> None:
        if self._timer_entry is None and self._machine.next_deadline < math.inf:
            self._timer_entry = current_timer().add(self, self._machine.next_deadline)

    def _stop_timer(self) -> None:
        self.is_suspect = False
        if self._timer_entry is not None:
            entry, self._timer_entry = self._timer_entry, None
            current_timer().remove(entry)

    def check(self, now: float, due: float) -> float:  # noqa: ARG002 - called by the timer
        """Handle missing confirmations, after the reader has had some time to read them."""
        if self._send_queue.closed:
            # subscribe() raises ConnectionClosed instead.
            self._stop_timer()
            return math.inf
        deadline = self._machine.next_deadline
        if deadline <= now and not self.is_suspect:
            self.is_suspect = True
            return now
        self.is_suspect = False
        if deadline <= now:
            queued = self._send_queue.queued_ids()
            unsent = {key for frame, keys in self._frames if id(frame) in queued for key in keys}
            self._machine.expire(now, unsent)
            self.flush()
            deadline = self._machine.next_deadline
        if deadline == math.inf:
            self._stop_timer()
        return deadline


def _reader(
    subscriptions: Subscriptions[Any, Any], name: str, codec: Codec[Any] | None
) -> Callable[[Any], Any]:
    """Return a method that reads messages. Without a codec, its errors suggest passing one."""
    method: Callable[[Any], Any] = getattr(subscriptions, name)
    if codec is not None:
        return method
    label = f"{type(subscriptions).__name__}.{name}"

    def read(message: Any) -> Any:
        try:
            return method(message)
        except (TypeError, AttributeError) as error:
            raise BadHookResult(
                f"{label} raised {type(error).__name__} for {shorten(message)}. {CODEC_HINT}"
            ) from error

    return read


def check_subscriptions(subscriptions: object) -> None:
    """Raise InvalidOption unless ``subscriptions`` is None or can be used."""
    if subscriptions is None:
        return
    if not isinstance(subscriptions, Subscriptions):
        hint = "an instance of" + ("" if isinstance(subscriptions, type) else " a subclass of")
        raise InvalidOption(
            f"subscriptions must be {hint} trioglock.Subscriptions, "
            f"not {describe_value(subscriptions)}"
        )
    name = type(subscriptions).__name__
    check_whole(f"{name}.batch", subscriptions.batch, least=1)
    check_seconds(f"{name}.timeout", subscriptions.timeout)
