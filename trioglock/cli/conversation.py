"""A conversation: from the opening handshake to an exit code.

One task prints received messages until the connection ends, which also ends the conversation.
Another reads lines; at the end of the input it closes the connection, and remaining messages are
printed. A third waits for signals. Closing has its own task, so that reading can be cancelled.
"""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import click
import trio

from .._redact import redact_text, redact_url
from .._scope import open_scope
from .._text import seconds_text
from ..connection import Status
from ..errors import ConnectError, ConnectionClosed, InvalidOption, InvalidURL, TrioglockError
from ..frames import Close, Data
from .commands import InvalidLine, Mode, PromptCommands, is_command
from .console import Console, print_reconnects, print_trace
from .line_reader import EndOfInput, PromptInterrupted, UnreadableInput
from .options import FAILED, NOT_CONNECTED, OK
from .output import Mark, describe_failure, describe_unsent
from .streams import OutputClosed, OutputFailed

__all__ = ["Conversation", "ConversationPlan", "run_conversation"]

QUIET_TIME = 1.0
"""By default, a script listens after its input until no message arrives for this many seconds."""

MAX_QUIET_WAIT = 10.0
"""The maximum number of seconds that a script listens by default after the end of its input."""

CLOSE_HINT_DELAY = 1.0
"""Seconds until a prompt shows how to drop a connection that does not close."""

PRINT_TIMEOUT = 2.0
"""Seconds to print the rest of the output after a signal."""

QUEUED = " (queued until connected)"

HANGUP = signal.Signals.__members__.get("SIGHUP")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPlan:
    """The beginning of a conversation and the conditions for its end.

    Args:
        url: the server's address, shown while connecting.
        wait: seconds to listen after the end of the input; None to listen until messages stop.
        once: end after one received message.
        pushes: lines to send before the input.
        reconnect: whether the connection reconnects; if so, a prompt appears before it is open.
    """

    url: str = ""
    wait: float | None = None
    once: bool = False
    pushes: Sequence[str] = ()
    reconnect: bool = False


class Conversation:
    """Connects a console to a peer."""

    def __init__(self, console: Console, plan: ConversationPlan) -> None:
        self._console = console
        self._plan = plan
        self._mode: Mode | None = None
        self._commands = PromptCommands(console, plan.url, self.close, self._start_soon)
        self._whole = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._tasks: trio.Nursery
        self._sending = trio.Lock()
        self._queued = list(plan.pushes)
        self._closing = False
        self._muted = False
        self._code = OK
        self._signal_code: int | None = None
        self._answered = trio.Event()
        self._received_at = 0.0

    async def run(self, opening: AbstractAsyncContextManager[Mode]) -> int:
        """Connect and run the conversation; return the exit code."""
        with trio.open_signal_receiver(*_handled_signals()) as signals:
            async with open_scope() as nursery:
                nursery.start_soon(self._watch_signals, signals)
                with self._whole:
                    await self._connect(opening, nursery)
        return self._code if self._signal_code is None else self._signal_code

    async def _connect(
        self, opening: AbstractAsyncContextManager[Mode], nursery: trio.Nursery
    ) -> None:
        prompt_first = self._plan.reconnect and self._console.has_prompt
        try:
            async with AsyncExitStack() as stack:
                if prompt_first:
                    await stack.enter_async_context(self._console.open_input())
                    nursery.start_soon(self._read)
                mode = await stack.enter_async_context(opening)
                if not prompt_first:
                    await stack.enter_async_context(self._console.open_input())
                async with open_scope() as self._tasks:
                    self._commands.set_connection(mode.connection, mode.commands)
                    await self._tasks.start(self._send_queued, mode)
                    if not prompt_first:
                        nursery.start_soon(self._read)
                    end = await self._print_received(mode)
                    self._closing = True
                    self._reading.cancel()
                await self._print_end(mode, end)
        except ConnectError as error:
            await self._fail(describe_failure(error), NOT_CONNECTED)
        except TrioglockError as error:
            await self._fail(redact_text(str(error)), FAILED)

    def _start_soon(self, fn: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start_soon(fn)

    async def _fail(self, text: str, code: int) -> None:
        self._code = code
        if not self._muted:
            await self._console.print_event(Mark.PROBLEM, text)

    # Receiving.

    async def _print_received(self, mode: Mode) -> TrioglockError:
        """Print messages until the connection ends; return the reason."""
        while True:
            try:
                messages = await mode.receive()
            except TrioglockError as error:
                return error
            self._received_at = trio.current_time()
            await self._print_messages(messages)

    async def _print_messages(self, messages: Sequence[Data]) -> None:
        if self._plan.once:
            messages = () if self._answered.is_set() else messages[:1]
        if self._muted or not messages:
            return
        try:
            await self._console.print_messages(messages)
        except (OutputClosed, OutputFailed) as error:
            if isinstance(error, OutputFailed):
                await self._fail(f"cannot write to stdout: {error}", FAILED)
            self._muted = True
            self.close(Close(1000))
        self._answered.set()
        if self._plan.once and self._console.has_prompt:
            self.close(Close(1000))

    async def _print_end(self, mode: Mode, error: TrioglockError) -> None:
        if self._muted:
            return
        await self._console.close_input()
        code, text = mode.describe_end(error)
        if self._plan.once and not (self._answered.is_set() or self._signal_code or self._code):
            code, text = FAILED, f"{text}; no answer was received"
        self._code = self._code or code or int(mode.failed)
        if code != OK or self._console.has_prompt:
            await self._console.print_event(Mark.STATUS if code == OK else Mark.PROBLEM, text)

    # Reading and sending.

    async def _read(self) -> None:
        """Read the input, before and after the connection opens."""
        with self._reading:
            try:
                for number in itertools.count(1):
                    await self._process(await self._console.next_line(), number)
            except EndOfInput:
                await self._finish()
            except PromptInterrupted:
                self._interrupt(signal.SIGINT)
            except UnreadableInput as error:
                await self._fail(str(error), FAILED)
                self.close(Close(1000))

    async def _process(self, line: str, number: int) -> None:
        if self._mode is None and self._console.has_prompt:
            if is_command(line):
                await self._attempt(self._commands.run, line)
            else:
                line = line.removeprefix("/")
                self._queued.append(line)
                await self._console.print_event(Mark.SENT, line + QUEUED)
            return
        async with self._sending:
            if not self._console.has_prompt:
                await self._attempt(self._send, line, f"line {number}: ")
            elif is_command(line):
                await self._attempt(self._commands.run, line)
            else:
                await self._attempt(self._send, line.removeprefix("/"))

    async def _send_queued(
        self, mode: Mode, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Send the lines that were typed while connecting; lines typed later wait."""
        async with self._sending:
            self._mode = mode
            task_status.started()
            if self._console.has_prompt:
                url = redact_url(mode.connection.url)
                await self._console.print_event(Mark.STATUS, f"connected to {url}")
                if mode.greeting is not None:
                    await self._console.print_event(Mark.STATUS, mode.greeting)
            for line in self._queued:
                await self._attempt(self._send, line)

    async def _send(self, line: str) -> None:
        assert self._mode is not None
        is_waiting = self._mode.connection.status is Status.RECONNECTING
        await self._mode.send(line)
        if self._console.has_prompt:
            await self._console.print_event(Mark.SENT, line + QUEUED if is_waiting else line)

    async def _attempt(
        self, act: Callable[[str], Awaitable[None]], line: str, where: str = ""
    ) -> None:
        """Send or run a line, and print an error if it is invalid."""
        try:
            await act(line)
        except ConnectionClosed:
            pass  # the receiving task prints it
        except (InvalidLine, TrioglockError) as error:
            if not self._console.has_prompt:
                self._code = FAILED
            await self._console.print_event(Mark.PROBLEM, f"{where}{redact_text(str(error))}")

    async def _finish(self) -> None:
        """At the end of the input, wait for the answers to a script, and close."""
        async with self._sending:
            pass  # every line has been sent
        if self._mode is not None and not self._console.has_prompt:
            try:
                await self._mode.drain()
            except ConnectionClosed:
                return
            if self._plan.once:
                await self._wait_for_answer()
            elif self._plan.wait is not None:
                await trio.sleep(self._plan.wait)
            else:
                await self._wait_for_quiet()
        self.close(Close(1000))

    async def _wait_for_answer(self) -> None:
        seconds = math.inf if self._plan.wait is None else self._plan.wait
        with trio.move_on_after(seconds):
            await self._answered.wait()
            return
        await self._fail(f"no answer within {seconds_text(seconds)}", FAILED)

    async def _wait_for_quiet(self) -> None:
        self._received_at = trio.current_time()
        with trio.move_on_after(MAX_QUIET_WAIT):
            # A message only moves the deadline and wakes no task.
            while trio.current_time() < self._received_at + QUIET_TIME:  # noqa: ASYNC110
                await trio.sleep_until(self._received_at + QUIET_TIME)

    # Closing.

    def close(self, frame: Close) -> None:
        """Start the closing handshake, or cancel connecting."""
        if self._mode is None:
            self._code = NOT_CONNECTED
            unsent = f"; {describe_unsent(len(self._queued))}" if self._queued else ""
            self._console.print_event_nowait(Mark.STATUS, f"not connected{unsent}")
            self._reading.cancel()
            self._whole.cancel()
        elif not self._closing:
            self._closing = True
            self._reading.cancel()
            self._tasks.start_soon(self._close, self._mode, frame)

    async def _close(self, mode: Mode, frame: Close) -> None:
        await self._console.close_input()
        if self._console.has_prompt:
            self._tasks.start_soon(self._print_close_hint)
        await mode.connection.aclose(frame.code, frame.reason)
        if self._signal_code is not None:
            self._limit_printing()

    async def _print_close_hint(self) -> None:
        await trio.sleep(CLOSE_HINT_DELAY)
        text = "closing; press Ctrl-C again to drop the connection"
        await self._console.print_event(Mark.STATUS, text)

    def _limit_printing(self) -> None:
        """After a signal, do not wait for a stopped reader of the output."""
        self._whole.deadline = trio.current_time() + PRINT_TIMEOUT

    async def _watch_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._interrupt(number)

    def _interrupt(self, number: int) -> None:
        """Close after a signal or a typed Ctrl-C; drop the connection if it is already closing."""
        # Shells report a signal as 128 plus its number.
        self._signal_code = self._signal_code or 128 + number
        if self._mode is None:
            self._reading.cancel()
            self._whole.cancel()
        elif self._closing:
            hung_up = self._signal_code - 128 == HANGUP
            if number == HANGUP or (hung_up and number == signal.SIGINT):
                return  # closing a terminal may send several signals
            self._mode.connection.abort()
            self._limit_printing()
        else:
            self.close(Close(1000 if number == signal.SIGINT else 1001))


def _handled_signals() -> list[signal.Signals]:
    """Return SIGINT, SIGTERM, and SIGHUP unless ``nohup`` ignores it."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    return numbers


def run_conversation(
    console: Console,
    plan: ConversationPlan,
    open_mode: Callable[[], AbstractAsyncContextManager[Mode]],
    trace_file: str | None,
) -> int:
    """Run a conversation and return the exit code.

    Raises:
        click.UsageError: an option is invalid.
    """

    async def main() -> int:
        return await Conversation(console, plan).run(open_mode())

    with print_trace(console, trace_file), print_reconnects(console):
        try:
            return trio.run(main)
        except (InvalidURL, InvalidOption) as error:
            raise click.UsageError(str(error)) from None
