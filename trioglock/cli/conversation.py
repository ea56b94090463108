"""The conversation: from the opening handshake to an exit code.

Its tasks: one prints what is heard until the connection ends, and with that all is over. One reads
lines until there are none, and then closes; what still comes is printed by the first. One waits
for signals. Whoever wants to close starts a task for it, so that reading can be stopped meanwhile.
"""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass

import trio

from .._redact import redact_text, redact_url
from ..connection import Status
from ..errors import ConnectError, ConnectionClosed, TrioglockError
from ..frames import Close, Data
from .commands import Commands, is_command
from .console import (
    Console,
    EndOfInput,
    Interrupted,
    Mark,
    OutputClosed,
    OutputFailed,
    UnreadableInput,
)
from .dialect import Dialect, Refused
from .early import WAITS, Early
from .exits import FAILED, NOT_CONNECTED, OK, words_of_failure

__all__ = ["Conversation", "Plan"]

QUIET = 1.0
"""Seconds without a message after the end of the input, where nothing else is said..."""

PATIENCE = 10.0
"""... and the most seconds to wait for that."""

SECONDS_TO_ANSWER = 1.0
"""To a Close frame, before a person is told what the program waits for."""

SECONDS_TO_PRINT = 2.0
"""What is left of the output after a signal has ended the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a conversation ends by itself.

    Args:
        wait: seconds to listen after the end of the input; None until it is quiet.
        once: whether one message is all that is wanted.
        opening: sent before the first line that is read.
        awaited: the address, where attempts to connect go on for as long as it takes: then a
            prompt is there at once.
    """

    wait: float | None = None
    once: bool = False
    opening: Sequence[str] = ()
    awaited: str | None = None


class Conversation:
    """Holds one connection between a console and a peer.

    Args:
        console: of who wants it.
        plan: how it ends.
    """

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._dialect: Dialect | None = None
        self._opening = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._tasks: trio.Nursery
        self._outer: trio.Nursery
        self._early: Early | None = None
        self._closing = False
        self._silent = False
        self._code = OK
        self._signalled: int | None = None
        self._answered = trio.Event()
        self._heard_at = 0.0
        self._failure: BaseException | None = None

    async def run(self, opening: AbstractAsyncContextManager[Dialect]) -> int:
        """Connect, and talk until the end; the exit code."""
        with trio.open_signal_receiver(*_signals()) as signals:
            async with trio.open_nursery() as nursery:
                self._outer = nursery
                nursery.start_soon(self._watch, signals)
                try:
                    with self._opening:
                        await self._whole(opening)
                except Exception as error:  # noqa: BLE001 - raised again outside the nursery
                    self._failure = error
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return self._code if self._signalled is None else self._signalled

    async def _whole(self, opening: AbstractAsyncContextManager[Dialect]) -> None:
        try:
            async with self._reading_early(), opening as dialect:
                await self._hold(dialect)
        except ConnectError as error:
            await self._fail(words_of_failure(error), NOT_CONNECTED)
        except TrioglockError as error:
            await self._fail(redact_text(str(error)), FAILED)

    @asynccontextmanager
    async def _reading_early(self) -> AsyncIterator[None]:
        """Show the prompt before there is a connection, where that may take long."""
        if self._plan.awaited is None or not self._console.has_prompt:
            yield
            return
        async with self._console.reading():
            self._early = Early(
                self._console,
                self._plan.awaited,
                self._leave,
                lambda: self._interrupt(signal.SIGINT),
            )
            self._outer.start_soon(self._early.run)
            try:
                yield
            finally:
                self._early.stop()

    def _leave(self) -> None:
        """Nobody waits for a connection any more."""
        if self._dialect is None:
            self._code = NOT_CONNECTED
            waiting = len(self._early.lines) if self._early is not None else 0
            unsent = f"; not sent: {waiting} of your messages" if waiting else ""
            self._console.post(Mark.STATUS, f"no connection came about{unsent}")
            self._opening.cancel()
        else:
            self.close(Close(1000))

    async def _hold(self, dialect: Dialect) -> None:
        reading = self._console.reading() if self._early is None else nullcontext()
        async with reading, trio.open_nursery() as self._tasks:
            self._dialect = dialect
            if self._console.has_prompt:
                url = redact_url(dialect.connection.url)
                await self._console.tell(Mark.STATUS, f"connected to {url}")
            if self._early is not None:
                await self._early.stopped()
            self._tasks.start_soon(self._read, dialect)
            end = await self._listen(dialect)
            self._closing = True
            self._tasks.cancel_scope.cancel()
        await self._tell_end(end)

    async def _fail(self, words: str, code: int) -> None:
        self._code = code
        if not self._silent:
            await self._console.tell(Mark.PROBLEM, words)

    # Listening.

    async def _listen(self, dialect: Dialect) -> TrioglockError:
        """Print what comes; how it ended."""
        while True:
            try:
                messages = await dialect.hear()
            except TrioglockError as error:
                return error
            self._heard_at = trio.current_time()
            await self._print(messages)

    async def _print(self, messages: Sequence[Data]) -> None:
        if self._plan.once:
            messages = () if self._answered.is_set() else messages[:1]
        if self._silent or not messages:
            return
        try:
            await self._console.received(messages)
        except OutputClosed:
            self._silent = True
            self.close(Close(1000))
        except OutputFailed as error:
            await self._fail(f"stdout cannot be written: {error}", FAILED)
            self._silent = True
            self.close(Close(1000))
        if not self._answered.is_set():
            self._answered.set()
            if self._plan.once and self._console.has_prompt:
                self.close(Close(1000))

    async def _tell_end(self, error: TrioglockError) -> None:
        if self._silent:
            return
        assert self._dialect is not None
        code, words = self._dialect.judge(error)
        if self._plan.once and not (self._answered.is_set() or self._signalled or self._code):
            code, words = FAILED, f"{words}; no answer came"
        self._code = self._code or code or int(self._dialect.failed)
        if code != OK or self._console.has_prompt:
            mark = Mark.STATUS if code == OK else Mark.PROBLEM
            await self._console.tell(mark, words)

    # Reading.

    async def _read(self, dialect: Dialect) -> None:
        with self._reading:
            try:
                for line in self._plan.opening:
                    await self._guard(self._say, line, "")
                with suppress(EndOfInput):
                    await self._read_lines(dialect)
                await self._finish(dialect)
            except Interrupted:
                self._interrupt(signal.SIGINT)
            except UnreadableInput as error:
                await self._fail(str(error), FAILED)
                self.close(Close(1000))
            except ConnectionClosed:
                pass  # whoever listens tells it

    async def _read_lines(self, dialect: Dialect) -> None:
        commands = Commands(
            self._console, dialect.connection, self.close, self._tasks.start_soon, dialect.commands
        )
        self._console.words = commands.names
        for line in self._early.lines if self._early is not None else ():
            await self._guard(self._say, line.removeprefix("/"), "")
        for number in itertools.count(1):
            line = await self._console.next_line()
            if not self._console.has_prompt:
                await self._guard(self._say, line, f"line {number}: ")
            elif is_command(line):
                await self._guard(commands.run, line, "")
            else:
                await self._guard(self._say, line.removeprefix("/"), "")

    async def _say(self, line: str) -> None:
        assert self._dialect is not None
        waits = self._dialect.connection.status is Status.RECONNECTING
        await self._dialect.say(line)
        if self._console.has_prompt:
            await self._console.tell(Mark.SENT, line + WAITS if waits else line)

    async def _guard(self, act: Callable[[str], Awaitable[None]], line: str, where: str) -> None:
        """Let a line be sent or carried out, and tell what is wrong with it."""
        try:
            await act(line)
        except ConnectionClosed:
            raise
        except (Refused, TrioglockError) as error:
            if not self._console.has_prompt:
                self._code = FAILED
            await self._console.tell(Mark.PROBLEM, f"{where}{redact_text(str(error))}")

    async def _finish(self, dialect: Dialect) -> None:
        """The input has ended: wait for what answers it, and close."""
        if not self._console.has_prompt:
            await dialect.settle()
            if self._plan.once:
                await self._wait_answer()
            elif self._plan.wait is not None:
                await trio.sleep(self._plan.wait)
            else:
                await self._wait_quiet()
        self.close(Close(1000))

    async def _wait_answer(self) -> None:
        seconds = math.inf if self._plan.wait is None else self._plan.wait
        with trio.move_on_after(seconds):
            await self._answered.wait()
            return
        await self._fail(f"no answer within {seconds:g} seconds", FAILED)

    async def _wait_quiet(self) -> None:
        self._heard_at = trio.current_time()
        with trio.move_on_after(PATIENCE):
            # A message only moves the deadline, and costs nothing.
            while trio.current_time() < self._heard_at + QUIET:  # noqa: ASYNC110
                await trio.sleep_until(self._heard_at + QUIET)

    # Closing.

    def close(self, frame: Close) -> None:
        """Start the closing handshake, once; what still comes is printed."""
        if not self._closing:
            self._closing = True
            self._reading.cancel()
            self._tasks.start_soon(self._close, frame)

    async def _close(self, frame: Close) -> None:
        assert self._dialect is not None
        await self._console.stop_reading()
        if self._console.has_prompt:
            self._tasks.start_soon(self._tell_closing)
        await self._dialect.connection.aclose(frame.code, frame.reason)
        if self._signalled is not None:
            self._hurry()

    async def _tell_closing(self) -> None:
        await trio.sleep(SECONDS_TO_ANSWER)
        await self._console.tell(Mark.STATUS, "closing; Ctrl-C again drops the connection")

    def _hurry(self) -> None:
        """Whoever reads what is printed may stand still; a signal waits for that no longer."""
        self._opening.deadline = trio.current_time() + SECONDS_TO_PRINT

    async def _watch(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._interrupt(number)

    def _interrupt(self, number: int) -> None:
        """A signal, or Ctrl-C at the prompt: close; while closing, drop the connection."""
        # As shells have it: 130 for Ctrl-C.
        self._signalled = self._signalled or 128 + number
        if self._dialect is None:
            self._opening.cancel()
        elif self._closing:
            hangup = signal.Signals.__members__.get("SIGHUP")
            first = self._signalled - 128
            if number == hangup or (first == hangup and number == signal.SIGINT):
                return  # the terminal is gone, and told so twice: nobody is impatient
            self._dialect.connection.abort()
            self._hurry()
        else:
            self.close(Close(1000 if number == signal.SIGINT else 1001))


def _signals() -> list[signal.Signals]:
    """Those that end a conversation; a program started by ``nohup`` does not mind SIGHUP."""
    taken = [signal.SIGINT, signal.SIGTERM]
    hangup = signal.Signals.__members__.get("SIGHUP")
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        taken.append(hangup)
    return taken
