"""The prompt: the user edits a line while messages appear above it.

prompt_toolkit runs on asyncio and trioglock on trio, so the prompt has its own thread and event
loop. Trio keeps the main thread and the signals, and a slow terminal blocks only the prompt's
thread. One application runs for the whole session: it does not end with each line, so the terminal
never leaves raw mode, and no key is lost or echoed twice.

The threads communicate in three ways:

* A typed line is appended to a queue; ``run_sync_soon`` wakes trio.
* Text to print is queued under a lock; ``call_soon_threadsafe`` wakes the loop, which erases the
  prompt, writes the whole queue and draws the prompt again. ``patch_stdout`` is not used: its queue
  has no limit, and closing it waits for a terminal that may be stopped.
* Either thread may end the prompt. The prompt's thread then writes the rest of the queue. Other
  code must not write to the terminal until it has done so.

Trio never waits for the thread without a deadline, because the terminal may be gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from .line_reader import EndOfInput, PromptInterrupted

__all__ = ["Prompt", "open_history", "state_folder"]

END_TIMEOUT = 1.0
"""Seconds to wait for the prompt's thread."""

MAX_LINES = 1000
"""Maximum number of typed lines waiting to be read; further lines stay in the prompt."""

MAX_HISTORY = 1000
"""Maximum number of history lines to load. The file may grow to twice this number before it is
truncated."""

MAX_CHARACTERS = 2**18
"""Maximum number of characters waiting to be written before :meth:`Prompt.print` waits."""


def _key_bindings() -> KeyBindings:
    """Return the key bindings for Ctrl-C on a line with text, and for Ctrl-Z if supported."""
    bindings = KeyBindings()
    has_text = Condition(lambda: bool(get_app().current_buffer.text))
    bindings.add("c-c", filter=has_focus(DEFAULT_BUFFER) & has_text)(
        lambda event: event.current_buffer.reset()
    )
    if sys.platform != "win32":
        bindings.add("c-z")(lambda _event: run_in_terminal(_suspend))
    return bindings


def _suspend() -> None:
    """Stop this process and those in the same pipeline.

    prompt_toolkit's own binding assumes that ``kill`` returns after the process has continued,
    which is only true with a single thread. The terminal must not change before this process stops.
    """
    os.kill(0, signal.SIGTSTP)  # type: ignore[attr-defined, unused-ignore]
    time.sleep(0.1)


class Prompt:
    """A prompt in a thread.

    Args:
        text: the text before the line.
        history: the history of typed lines.
        completions: returns the words that Tab completes at the beginning of a line.
    """

    def __init__(
        self, text: str, history: History, completions: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        self._end: Exception = EndOfInput()
        self._lines: deque[str] = deque()
        # Shared with the thread, under the lock.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = False
        self._drained = False
        self._texts: list[str] = []
        self._characters = 0
        output = create_output(always_prefer_tty=True)
        if isinstance(output, Vt100_Output):
            # Only menus need the position of the cursor. A terminal that does not report it would
            # delay every print.
            output.enable_cpr = False
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", text)],
            history=history,
            erase_when_done=True,
            completer=WordCompleter(lambda: list(completions()), sentence=True),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=_key_bindings(),
            interrupt_exception=PromptInterrupted,
            eof_exception=EndOfInput,
            output=output,
        )
        self._app = self._session.app
        self._session.default_buffer.accept_handler = lambda buffer: self._accept(buffer.text)

    # In trio's thread.

    def start(self) -> None:
        """Show the prompt."""
        trio.lowlevel.start_thread_soon(
            self._run, lambda _: self._call_trio(self._set_ended), name="trioglock prompt"
        )

    async def next_line(self) -> str:
        """Return the next typed line.

        Raises:
            EndOfInput: Ctrl-D was typed, or the terminal was closed.
            PromptInterrupted: Ctrl-C was typed.
        """
        while not self._lines:
            if self._ended.is_set():
                raise self._end
            await self._changed.park()
        return self._lines.popleft()

    async def print(self, text: str) -> bool:
        """Print rendered lines above the prompt; wait while too much text is queued.

        Returns:
            False if the prompt has ended; nothing was printed in that case.
        """
        if not self.print_nowait(text):
            return False
        while self._characters > MAX_CHARACTERS and not self._ended.is_set():
            await self._changed.park()
        return True

    def print_nowait(self, text: str) -> bool:
        """Print as :meth:`print` does, without waiting."""
        with self._lock:
            if self._drained:
                return False
            self._texts.append(text)
            self._characters += len(text)
            if len(self._texts) == 1:
                self._call_loop(self._print_queue)
            return True

    async def end(self) -> None:
        """Remove the prompt and restore the terminal."""
        with self._lock:
            self._ending = True
            self._call_loop(self._exit)
        with trio.move_on_after(END_TIMEOUT, shield=True):
            await self._ended.wait()

    def _call_loop(self, fn: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # closed, but not yet cleared by the thread
                self._loop.call_soon_threadsafe(fn)

    def _set_ended(self) -> None:
        self._ended.set()
        self._changed.unpark_all()

    # In the prompt's thread.

    def _run(self) -> None:
        try:
            self._session.prompt(pre_run=self._on_start, set_exception_handler=False)
        except PromptInterrupted as error:
            self._end = error
        except Exception:  # noqa: BLE001 - whatever it is, the terminal no longer works
            self._end = EndOfInput()
        with self._lock:
            self._loop = None
        while not self._drained:
            with suppress(OSError):
                self._write_queue()
            with self._lock:
                self._drained = not self._texts

    def _call_trio(self, fn: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):  # trio has not waited for this thread
            self._token.run_sync_soon(fn)

    def _on_start(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(lambda _loop, _context: self._exit())
            self._loop.call_soon(self._exit if self._ending else self._print_queue)

    def _exit(self) -> None:
        if self._app.is_running and not self._app.is_done:
            self._app.exit(exception=EndOfInput())

    def _accept(self, line: str) -> bool:
        """Accept a typed line; return True to keep it in the prompt."""
        if len(self._lines) >= MAX_LINES:
            return True
        if line:
            self._lines.append(line)
            self._call_trio(self._changed.unpark_all)
        return False

    def _print_queue(self) -> None:
        if self._app.is_done or not self._texts:
            return
        self._app.renderer.erase()
        self._write_queue()
        self._app.invalidate()

    def _write_queue(self) -> None:
        with self._lock:
            texts, self._texts, self._characters = self._texts, [], 0
        output = self._session.output
        output.write_raw("".join(texts))
        output.flush()
        self._call_trio(self._changed.unpark_all)


class PrivateHistory(FileHistory):
    """A history file that only its owner can read; created with its folders if necessary."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(path)
        lines = list(super().load_history_strings())
        if len(lines) > 2 * MAX_HISTORY:
            short = path.with_name(f"{path.name}.{os.getpid()}")
            short.unlink(missing_ok=True)
            _make_private(short)
            copy = FileHistory(short)
            for line in reversed(lines[:MAX_HISTORY]):
                copy.store_string(line)
            short.replace(path)

    # Failures after the start are ignored.

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())[:MAX_HISTORY]
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with suppress(OSError):  # another user's file
        path.chmod(0o600)


def state_folder() -> Path:
    """Return the folder for trioglock's state (XDG Base Directory Specification)."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".local" / "state"
    return base / "trioglock"


def open_history(name: str | None) -> tuple[History, str | None]:
    """Open the history file with this name; for None, keep the history in memory.

    Returns:
        The history, and the reason why it cannot be saved, or None.
    """
    if name is None:
        return InMemoryHistory(), None
    try:
        return PrivateHistory(state_folder() / name), None
    except (OSError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return InMemoryHistory(), f"the history cannot be saved: {problem}"
