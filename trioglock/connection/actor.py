"""The actor: the state of one connection, and its hooks.

Every method from :meth:`Actor.connected` on is something that can happen to a connection. Each
does its job on the spot where it may, and otherwise posts it: see :mod:`.mailbox` for when.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from .._redact import shorten
from ..disconnect import Disconnect
from ..errors import BadHookResult
from ..frames import Run
from ..hooks import ConnectionInfo, Deliver, Reconnect, Socket, Stop
from ._sync import Waiters
from .hook_results import Hook, HookResults, hook_of, split, split_call
from .mailbox import PLAIN, Answer, Mailbox

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Actor"]

StateT = TypeVar("StateT")

MAX_PENDING = 2**16
"""The most jobs that may wait: ``cast`` raises ``trio.WouldBlock`` beyond, pings go unhooked."""


class Actor(Generic[StateT]):
    """Runs the hooks of one socket.

    Args:
        socket: the user's.
        effects: carries out what hooks ask for.
        failed: told the name of a hook, what it raised, and whether the connection ends by it:
            not if the hook belongs to a call.
        closed_error: makes the error for callers that come too late.
        spawn: starts the mailbox's task, when it is first needed.
    """

    state: StateT

    def __init__(
        self,
        socket: Socket[StateT],
        effects: HookResults,
        *,
        failed: Callable[[str, Exception, bool], None],
        closed_error: Callable[[], Exception],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.mailbox: Mailbox = Mailbox(spawn, closed_error)
        self.has_state: bool = False
        self.state = None  # type: ignore[assignment]  # until init_stream has run
        self.backlog: int = 0
        """Received messages that wait in the mailbox for an async hook."""
        self._socket = socket
        self._effects = effects
        self._failed = failed
        self._closed_error = closed_error
        self._run_now: Run = []
        self._room = Waiters()
        self.init_stream: Hook = hook_of(socket, "init_stream")
        self.connect: Hook = hook_of(socket, "handle_connect")
        self.send_hook: Hook = hook_of(socket, "handle_send")
        self.receive_hook: Hook = hook_of(socket, "handle_receive")
        self.ping: Hook = hook_of(socket, "handle_ping")
        self.pong: Hook = hook_of(socket, "handle_pong")
        self.cast_hook: Hook = hook_of(socket, "handle_cast")
        self.call_hook: Hook = hook_of(socket, "handle_call")
        self.disconnect: Hook = hook_of(socket, "handle_disconnect")
        self.terminate_hook: Hook = hook_of(socket, "terminate")

    def attach(self, connection: Connection[StateT]) -> None:
        """Give the socket its connection, before the first attempt."""
        self._socket._attach(connection)  # noqa: SLF001 - a hook of the package's own layers

    @property
    def socket_name(self) -> str:
        """The class of the hooks."""
        return type(self._socket).__qualname__

    def format_status(self) -> Any:
        """The state as the hook ``format_status`` shows it; its failure is shown, not raised."""
        if not self.has_state:
            return None
        try:
            shown = self._socket.format_status(self.state)
            if inspect.iscoroutine(shown):
                shown.close()
                return "not shown: format_status is async, and must not be"
        except Exception as error:
            # Its text may have what was to be hidden.
            return f"not shown: format_status raised {type(error).__name__}"
        return shown

    async def wait_backlog(self) -> None:
        """Wait until the hooks have caught up with what was received."""
        await self._room.park()

    def open_gates(self) -> None:
        """Let the reader task go on whatever waits for the hooks: the connection is closing."""
        self._room.unpark_all()

    def stop(self) -> None:
        """Run no further hook but terminate; whoever waits for one learns that it is over."""
        self._run_now.clear()
        self.mailbox.stop()

    # Running one hook.

    async def _invoke(self, hook: Hook, *args: Any) -> Any:
        self.mailbox.enter()
        try:
            returned = hook.call(*args)
            return await returned if hook.is_async else returned
        finally:
            self.mailbox.leave()

    async def _perform(self, hook: Hook, *args: Any) -> None:
        result, self.state = split(hook, await self._invoke(hook, *args, self.state))
        self._effects.apply(hook, result)

    async def _guarded(self, hook: Hook, *args: Any) -> None:
        """Run a hook that belongs to no call; its failure ends the connection."""
        try:
            await self._perform(hook, *args)
        except Exception as error:
            self._failed(hook.label, error, True)

    def _call_now(self, hook: Hook, *args: Any) -> Any:
        mailbox = self.mailbox
        mailbox.active = PLAIN
        try:
            return hook.call(*args)
        finally:
            mailbox.active = None

    def _perform_now(self, hook: Hook, *args: Any) -> None:
        result, self.state = split(hook, self._call_now(hook, *args, self.state))
        self._effects.apply(hook, result)

    def _idle(self, hook: Hook) -> bool:
        mailbox = self.mailbox
        return not (mailbox.pending or mailbox.active or hook.is_async)

    # What happens, in the order of a connection's life.

    def connected(
        self,
        stream: ConnectionInfo,
        done: Callable[[ConnectionInfo], None],
        is_current: Callable[[ConnectionInfo], bool],
    ) -> None:
        """A link is up: ``init_stream``, once, and ``handle_connect``. Never waits or raises.

        Args:
            stream: for the hooks.
            done: called once they have returned.
            is_current: whether that link is still the one; for another, nothing is replied.
        """
        if self.mailbox.stopped:
            return
        if self._idle(self.connect) and (self.has_state or not self.init_stream.is_async):
            try:
                if not self.has_state:
                    self._init(self._call_now(self.init_stream, stream))
                if not self.mailbox.stopped:
                    returned = self._call_now(self.connect, stream, self.state)
                    self._greet(returned, is_current(stream))
                done(stream)
            except Exception as error:
                self._greeting_failed(error)
            return

        async def job() -> None:
            try:
                if not self.has_state:
                    self._init(await self._invoke(self.init_stream, stream))
                if not self.mailbox.stopped:
                    returned = await self._invoke(self.connect, stream, self.state)
                    self._greet(returned, is_current(stream))
                done(stream)
            except Exception as error:
                self._greeting_failed(error)

        self.mailbox.put(job)

    def _greeting_failed(self, error: Exception) -> None:
        hook = self.connect if self.has_state else self.init_stream
        self._failed(hook.label, error, True)

    def _init(self, state: StateT) -> None:
        if inspect.iscoroutine(state):
            raise self.init_stream.complain(state)
        self.state = state
        self.has_state = True

    def _greet(self, returned: Any, current: bool) -> None:
        result, self.state = split(self.connect, returned)
        if current:
            self._effects.apply(self.connect, result, first=True)

    def receive(self, run: Run) -> None:
        """Messages came. Never waits; never raises."""
        if self.mailbox.stopped:
            return
        hook = self.receive_hook
        if not self._idle(hook):
            self.backlog += len(run)
            self.mailbox.put(partial(self._receive_later, run))
        elif hook.is_default:
            self._effects.receive_queue.extend(run)
        else:
            self._receive_now(run)

    def _receive_now(self, run: Run) -> None:
        hook = self.receive_hook
        call = hook.call
        receive_queue = self._effects.receive_queue
        deliver = receive_queue.filling().append
        state = self.state
        self.mailbox.active = PLAIN
        # Emptied by stop(), which ends the loop: a hook may crash, close or abort.
        self._run_now = run
        try:
            for frame in run:
                returned = call(frame, state)
                if returned.__class__ is not tuple:
                    returned = split(hook, returned)
                try:
                    result, state = returned
                except ValueError:
                    raise hook.complain(returned) from None
                self.state = state
                if result is None:
                    continue
                if result.__class__ is Deliver:
                    deliver(result.value)
                else:
                    self._effects.apply(hook, result)
        except Exception as error:
            self._failed(hook.label, error, True)
        finally:
            self.mailbox.active = None
        if receive_queue.items:
            receive_queue.settle()

    async def _receive_later(self, run: Run) -> None:
        try:
            for frame in run:
                if self.mailbox.stopped:
                    return
                await self._perform(self.receive_hook, frame)
                self.backlog -= 1
                if not self.backlog:
                    self._room.unpark_all()
        except Exception as error:
            self._failed(self.receive_hook.label, error, True)

    def control(self, hook: Hook, payload: bytes) -> None:
        """A ping or pong came. Never waits; never raises."""
        if hook.is_default or self.mailbox.stopped or self.mailbox.pending >= MAX_PENDING:
            return
        if not self._idle(hook):
            self.mailbox.put(partial(self._guarded, hook, payload))
            return
        try:
            self._perform_now(hook, payload)
        except Exception as error:
            self._failed(hook.label, error, True)

    def send_now(self, message: Any) -> None:
        """Run a plain ``handle_send`` and queue what it gives; raises what it raises."""
        hook = self.send_hook
        if hook.is_default:
            self._effects.send(hook, message)
            return
        mailbox = self.mailbox
        mailbox.active = PLAIN
        try:
            returned = hook.call(message, self.state)
            if returned.__class__ is not tuple or len(returned) != 2:
                returned = split(hook, returned)
            frame, state = returned
            self._effects.send(hook, frame)
        except Exception as error:
            self._failed(hook.label, error, False)
            raise
        finally:
            mailbox.active = None
        self.state = state

    @property
    def idle(self) -> bool:
        """Whether no hook runs, and none has work: then a send need not take its turn."""
        mailbox = self.mailbox
        return not (mailbox.pending or mailbox.active)

    async def send_here(self, message: Any) -> None:
        """Run an async ``handle_send`` in this very task, while :attr:`idle`."""
        hook = self.send_hook
        try:
            self._put_sent(await self.mailbox.run_here(hook.call(message, self.state)))
        except Exception as error:
            self._failed_in_call(hook, error)
            raise

    async def send(self, message: Any) -> None:
        """Run ``handle_send``, whatever it is, in its turn."""
        hook = self.send_hook

        async def job(answer: Answer) -> None:
            try:
                self._put_sent(await self._invoke(hook, message, self.state))
            except Exception as error:
                self._failed_in_call(hook, error)
                raise
            answer.set(None)

        await self.mailbox.ask(job)

    def _failed_in_call(self, hook: Hook, error: Exception) -> None:
        # If the hooks were stopped, it is the connection's end, and not the hook's failure.
        if not (hook.is_default or self.mailbox.stopped):
            self._failed(hook.label, error, False)

    def _put_sent(self, returned: Any) -> None:
        frame, state = split(self.send_hook, returned)
        if self.mailbox.stopped or self._effects.closed:
            raise self._closed_error()
        self._effects.send(self.send_hook, frame)
        self.state = state

    def cast(self, message: Any) -> None:
        """Leave a message for ``handle_cast``."""
        self.check_cast(message)
        if self.mailbox.pending >= MAX_PENDING:
            raise trio.WouldBlock
        self.mailbox.put(partial(self._guarded, self.cast_hook, message))

    def check_cast(self, message: Any) -> None:
        """Raise UsageError if there is no ``handle_cast``."""
        if self.cast_hook.is_default:
            self._socket.handle_cast(message, self.state)

    async def call(self, request: Any) -> Any:
        """Ask ``handle_call``; raises what it raises."""
        hook = self.call_hook
        if hook.is_default:
            self._socket.handle_call(request, self.state)

        async def job(answer: Answer) -> None:
            try:
                returned = await self._invoke(hook, request, self.state)
                reply, result, state = split_call(hook, returned)
                self._effects.apply(hook, result)
            except Exception as error:
                self._failed_in_call(hook, error)
                raise
            self.state = state
            answer.set(reply)

        return await self.mailbox.ask(job)

    async def disconnected(self, reason: Disconnect) -> Any:
        """Run ``handle_disconnect`` after all that happened before; its decision."""

        async def job(answer: Answer) -> None:
            try:
                answer.set(await self._decide(reason))
            except Exception as error:
                # At once, not when the waiting session wakes: no other hook may come between.
                self._failed(self.disconnect.label, error, True)

        if self.mailbox.stopped or not self._idle(self.disconnect):
            return await self.mailbox.ask(job)
        answer = Answer()
        await job(answer)
        if self.mailbox.stopped:
            raise self._closed_error()
        return await answer.wait()

    async def _decide(self, reason: Disconnect) -> Reconnect | Stop | None:
        hook = self.disconnect
        returned = await self._invoke(hook, reason, self.state)
        decision, state = split(hook, returned)
        if not (decision is None or isinstance(decision, Reconnect | Stop)):
            raise BadHookResult(
                f"{hook.label}: a decision is None, Reconnect(...) or Stop(), "
                f"not {shorten(decision)}"
            )
        self.state = state
        return decision

    async def terminate(self, reason: Disconnect) -> None:
        """Run ``terminate``; every other task of the connection has ended."""
        await self.mailbox.wait_idle()
        returned = await self._invoke(self.terminate_hook, reason, self.state)
        if inspect.iscoroutine(returned):
            raise self.terminate_hook.complain(returned)
