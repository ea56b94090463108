"""Requests that are waiting for the reply with the same id.

A request fails with RequestLost as soon as the link that carries it has ended. A request made
while there is no link waits for the next one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Hashable, Iterator, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import trio

from .._hints import is_hashable
from .._timer import CHECKS, Entry, current_timer
from ..disconnect import Disconnect
from ..errors import RequestFailed, RequestLost, RequestTimeout, UsageError
from ..options import RequestFormat
from .closing import Status
from .decoding import MALFORMED
from .fragments.sender import send_fragments
from .mailbox import SuspendedHook

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["PendingRequest", "Requests", "request"]


class PendingRequest:
    """A request that is waiting for its reply, while a ``with`` statement runs.

    Args:
        requests: the table that contains it.
        key: its key in the table.
        event: the request, for error messages.
        has_link: whether an open link carries the request.
    """

    __slots__ = (
        "_connection",
        "_error",
        "_key",
        "_reply",
        "_requests",
        "_sending",
        "_task",
        "deadline",
        "event",
        "has_link",
        "is_resolved",
        "parts",
        "timeout",
        "unsent",
    )

    def __init__(self, requests: Requests, key: Hashable, event: Any, *, has_link: bool) -> None:
        self.event: Any = event
        """The name of the request, or its message."""
        self.has_link: bool = has_link
        """Whether the request ends with the current link."""
        self.is_resolved: bool = False
        """Whether the request has ended."""
        self.parts: list[Any] | None = None
        """The replies collected so far, for a request with several replies."""
        self.unsent: Sequence[Any] = ()
        """The frames that had to be queued; they may have been sent in the meantime."""
        self._requests = requests
        self._key = key
        self._sending: trio.CancelScope | None = None
        self._task: trio.lowlevel.Task | None = None
        self._reply: Any = None
        self._error: Exception | None = None
        self.deadline: float = math.inf
        """The time at which the request times out, on trio's clock.

        Pauses of the program extend it.
        """
        self.timeout: float = math.inf
        """The time limit of the request in seconds, for error messages."""
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> PendingRequest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop waiting for a reply."""
        # After the reply, another request may already use the same id.
        if not self.is_resolved:
            del self._requests.pending[self._key]

    def limit(self, connection: Connection[Any, Any], timeout: float, waited: float) -> None:
        """End the request with RequestTimeout after the given time.

        Args:
            connection: the connection that carries the request.
            timeout: seconds in total. Pauses of the program do not count.
            waited: the seconds that have already passed.
        """
        # A cancel scope would take longer than the rest of the request.
        self._connection, self.timeout = connection, timeout
        self._requests.timer.add(self, timeout - waited)

    def time_out(self) -> None:
        """End the request because its deadline has passed."""
        if self._connection is not None and not self.is_resolved:
            pause = self._connection._pause  # noqa: SLF001 - one package
            self.resolve(None, RequestTimeout(self.event, self.timeout, pause))

    async def send(self, connection: Connection[Any, Any], message: Any) -> None:
        """Send the message of the request; stop waiting for the send queue if the link ends.

        Args:
            connection: the connection to send over.
            message: the message, not yet encoded.

        Raises:
            RequestLost: the link ended.
            Exception: as for :meth:`Connection.send`.
        """
        with trio.CancelScope() as self._sending:
            await connection.send(message)
        self._sending = None
        if self._error is not None:
            self._raise()

    async def wait(self) -> Any:
        """Return the reply.

        Raises:
            RequestLost: the link ended.
            Exception: the error passed to :meth:`resolve`.
        """
        await self.wait_resolved()
        return self.take()

    def wait_resolved(self) -> Awaitable[None]:
        """Wait until the request has ended, for :meth:`take`. Await the result immediately."""
        if self.is_resolved:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller awaits it
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105

    def take(self) -> Any:
        """Return the reply to a request that has ended; raise like :meth:`wait`, but only once."""
        if self._error is not None:
            self._raise()
        return self._reply

    def _raise(self) -> NoReturn:
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # it refers to this frame

    def _abort(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def resolve(self, reply: Any, error: Exception | None = None) -> None:
        """End the request, with a reply or with an exception.

        Args:
            reply: returned by :meth:`wait`.
            error: raised by :meth:`wait` instead.
        """
        del self._requests.pending[self._key]
        self._reply, self._error, self.is_resolved = reply, error, True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
        elif self._sending is not None and error is not None:
            self._sending.cancel()


class RequestTimer:
    """Ends requests whose deadline has passed, with one scheduled check for each connection.

    Most replies arrive early, so a request only records its deadline.

    Args:
        pending: the requests that are waiting for a reply.
    """

    __slots__ = ("_due", "_entry", "_pending", "_step", "is_suspect")

    def __init__(self, pending: Mapping[Hashable, PendingRequest]) -> None:
        self.is_suspect: bool = False
        """Whether a deadline has passed, so that the next check ends the request."""
        self._pending = pending
        self._entry: Entry | None = None
        self._due = math.inf
        self._step = math.inf

    def add(self, request: PendingRequest, seconds: float) -> None:
        """End ``request`` after ``seconds`` seconds."""
        now = trio.current_time()
        request.deadline = now + seconds
        # A pause of the program is detected if a check was due during it.
        step = seconds / CHECKS
        if now + step < self._due:
            self.stop()
            self._due, self._step = now + step, step
            self._entry = current_timer().add(self, self._due)

    def stop(self) -> None:
        """Remove the scheduled check."""
        self.is_suspect = False
        self._due = self._step = math.inf
        if self._entry is not None:
            entry, self._entry = self._entry, None
            current_timer().remove(entry)

    def check(self, now: float, due: float) -> float:
        """End late requests, after the readers have run; return the time of the next check."""
        if self.is_suspect:
            self.is_suspect = False
            for request in [one for one in self._pending.values() if one.deadline <= now]:
                request.time_out()
        else:
            for request in self._pending.values():
                request.deadline += now - due
        earliest = min((one.deadline for one in self._pending.values()), default=math.inf)
        if earliest == math.inf:
            self.stop()
            return math.inf
        self.is_suspect = earliest <= now
        self._due = now if self.is_suspect else min(earliest, now + self._step)
        return self._due


class Requests:
    """The requests of one connection that are waiting for a reply, by their id.

    Args:
        form: the position of ids in requests and replies.
    """

    __slots__ = ("_form", "_ids", "pending", "timer")

    def __init__(self, form: RequestFormat | None = None) -> None:
        self.pending: dict[Hashable, PendingRequest] = {}
        self.timer: RequestTimer = RequestTimer(self.pending)
        self._form = form or _FORM
        self._ids: Iterator[Hashable] = (
            itertools.count(1) if self._form.ids is None else iter(self._form.ids)
        )

    def __len__(self) -> int:
        return len(self.pending)

    def get(self, ref: object) -> PendingRequest | None:
        """Return the pending request with the id ``ref``, or None."""
        return self.pending.get(ref if ref.__class__ in _PLAIN else key_of(ref))

    def open(self, ref: object, event: Any, *, has_link: bool) -> PendingRequest:
        """Register a request for the body of a ``with`` statement.

        Args:
            ref: the id that the reply will have.
            event: the name of the request, or its message.
            has_link: whether an open link carries the request.

        Raises:
            UsageError: no reply can have this id, or a pending request already uses it.
        """
        key = ref if ref.__class__ in _PLAIN else key_of(ref)
        if key is None:
            raise UsageError(f"the id of a request must be hashable and must not be None: {ref!r}")
        if key in self.pending:
            other = self.pending[key].event
            raise UsageError(f"the id {ref!r} belongs to a request that is waiting: {other!r:.200}")
        request = self.pending[key] = PendingRequest(self, key, event, has_link=has_link)
        return request

    def open_next(self, message: Any, *, has_link: bool) -> tuple[PendingRequest, Any]:
        """Register a request with the next id.

        Args:
            message: the message without an id.
            has_link: whether an open link carries the request.

        Returns:
            The request, and the message with its id.

        Raises:
            UsageError: there are no more ids, or the id cannot be added to the message.
        """
        try:
            ref = next(self._ids)
        except StopIteration:
            raise UsageError(
                "RequestFormat.ids has no more ids: use an infinite iterator, such as "
                "itertools.count(1)"
            ) from None
        sent = self._form.add_id(message, ref)
        return self.open(ref, message, has_link=has_link), sent

    def resolve(self, ref: object, reply: Any, error: Exception | None = None) -> bool:
        """End the request with this id.

        Args:
            ref: the id in the reply.
            reply: the reply.
            error: the exception that the request raises instead.

        Returns:
            Whether a request was waiting.
        """
        request = self.get(ref)
        if request is None:
            return False
        request.resolve(reply, error)
        return True

    def take_reply(self, message: Any) -> bool:
        """End the request that a message answers.

        Args:
            message: a decoded message.

        Returns:
            Whether a request was waiting.
        """
        form = self._form
        try:
            ref = form.ref_of(message)
        except MALFORMED:
            return False
        if ref is None:
            return False
        request = self.pending.get(ref) if ref.__class__ in _PLAIN else self.get(ref)
        if request is None:
            return False
        error: Exception | None = None
        try:
            failure = form.error_of(message)
            if failure is not None and failure is not False:
                error = RequestFailed(request.event, message, failure)
        except Exception as raised:
            error = raised
        request.resolve(message, error)
        return True

    def add_link(self) -> None:
        """Record that a new link is open; it carries the requests that were waiting for a link."""
        for request in self.pending.values():
            request.has_link = True

    def fail(self, reason: Disconnect, *, final: bool = False) -> list[Any]:
        """Raise RequestLost in the requests whose link has ended.

        Args:
            reason: why the link ended.
            final: whether this was the last link. If so, all requests fail.

        Returns:
            Their frames that may still be in the send queue. On another link, no request would wait
            for the replies, and the peer may require that ids increase.
        """
        unsent: list[Any] = []
        for request in list(self.pending.values()):
            if final or request.has_link:
                unsent += request.unsent
                request.resolve(None, RequestLost(request.event, reason))
        if final:
            self.timer.stop()
        return unsent


_FORM = RequestFormat()


async def request(
    connection: Connection[Any, Any],
    pending: PendingRequest,
    message: Any,
    timeout: float | None,
    *,
    waited: float = 0.0,
    has_turn: bool = False,
) -> Any:
    """Send the message of a pending request and wait for the reply.

    Args:
        connection: the connection to send over.
        pending: the request.
        message: the message with its id, not yet encoded.
        timeout: seconds in total; None for no limit.
        waited: the seconds that have already passed.
        has_turn: whether the caller has waited for its turn to use the send queue.

    Raises:
        RequestTimeout: no reply arrived in time.
        Exception: as for :meth:`PendingRequest.send` and :meth:`PendingRequest.wait`.
    """
    actor, mailbox = connection._actor, connection._mailbox  # noqa: SLF001 - one package
    send_queue = connection._send_queue  # noqa: SLF001
    try:
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if timeout is not None:
                pending.limit(connection, timeout, waited)
            sends_now = not (
                send_queue.closed
                or (send_queue.size >= send_queue.threshold and not has_turn)
                or mailbox.pending
                or mailbox.active
                or actor.send_hook.is_async
            )
            if sends_now:
                queued = len(send_queue)
                iterable = actor.send(message)
                added = len(send_queue) - queued
                if added > 0:
                    pending.unsent = send_queue.newest(added)
        finally:
            if has_turn:
                send_queue.end_turn()
        if not sends_now:
            await pending.send(connection, message)
        elif iterable is not None:
            assert not isinstance(iterable, SuspendedHook)
            await send_fragments(connection._session, iterable)  # noqa: SLF001
        await pending.wait_resolved()
        return pending.take()
    finally:
        pending.close()


# An id of one of these types is its own key; nearly all ids have such a type.
_PLAIN = frozenset({str, int})


def key_of(ref: object) -> Hashable | None:
    """Return the key of an id, or None if no reply can have this id.

    An id and its JSON representation have equal keys; other ids have different keys.
    """
    match ref:
        case bool():
            return (bool, ref)  # True == 1
        case Enum():
            return key_of(ref.value)
        case UUID():
            return str(ref)
        case list() | tuple():
            keys = tuple(map(key_of, ref))
            return None if None in keys else keys
    return ref if is_hashable(ref) else None


def has_link(connection: Connection[Any, Any]) -> bool:
    """Whether a message that is sent now goes over the current link, and not the next one."""
    return connection.status is Status.OPEN and not connection._send_queue.link_lost  # noqa: SLF001
