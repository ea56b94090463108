"""The prompt: a line that is edited while messages appear above it.

prompt-toolkit runs on asyncio, everything else here on trio, so the prompt gets a thread and an
event loop of its own. Trio keeps the main thread, its speed and the signals; a slow terminal
holds up only that thread. The alternative, trio as a guest of asyncio's loop, would put every
socket behind that loop for the sake of a few keys.

One application runs for the whole conversation. It does not end with a line and begin again, so
the terminal is never for a moment in the wrong mode, and no key is lost or echoed twice. What the
two threads hand each other goes three ways:

* a line that was typed: appended to a queue here, and trio is told by ``run_sync_soon``;
* text to be printed: queued under a lock by trio, and the loop is told by
  ``call_soon_threadsafe``. Its callback takes the prompt off the screen, writes all that is
  queued, and has the prompt drawn again below;
* the end: either thread may want it. What is still queued then is written by the thread itself,
  and only after that may others write to the terminal.

Nothing waits for the thread without a deadline: a terminal may have gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.history import History
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.vt100 import Vt100_Output

from .errors import EndOfInput, Interrupted
from .keys import keys

__all__ = ["Prompt"]

SECONDS_TO_END = 1.0

MAX_LINES = 1000
"""That wait to be taken; further ones stay in the prompt."""

MAX_CHARACTERS = 2**18
"""That wait to be printed before whoever prints has to wait."""


class Prompt:
    """A prompt in a thread.

    Args:
        text: that it shows.
        history: of what was typed.
        words: asked for what the Tab key completes at the beginning of a line.
    """

    def __init__(
        self, text: str, history: History, words: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        self._why: Exception = EndOfInput()
        self._lines: deque[str] = deque()
        # Shared with the thread, under the lock.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = False
        self._over = False
        self._texts: list[str] = []
        self._characters = 0
        output = create_output(always_prefer_tty=True)
        if isinstance(output, Vt100_Output):
            # Where the cursor is matters only for menus; a terminal that does not say so would
            # make every print wait.
            output.enable_cpr = False
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", text)],
            history=history,
            erase_when_done=True,
            key_bindings=keys(words, self.post),
            interrupt_exception=Interrupted,
            eof_exception=EndOfInput,
            output=output,
        )
        self._session.default_buffer.accept_handler = lambda buffer: self._accept(buffer.text)

    # In trio's thread.

    def start(self) -> None:
        """Show it."""
        trio.lowlevel.start_thread_soon(
            self._live, lambda _: self._tell(self._thread_ended), name="trioglock prompt"
        )

    async def next(self) -> str:
        """The next line that was typed.

        Raises:
            EndOfInput: Ctrl-D, or the terminal has gone.
            Interrupted: Ctrl-C.
        """
        while not self._lines:
            if self._ended.is_set():
                raise self._why
            await self._changed.park()
        return self._lines.popleft()

    async def print(self, text: str) -> bool:
        """Print above the prompt; wait while too much waits already.

        Args:
            text: whole lines, painted.

        Returns:
            False once there is no prompt any more: then nothing was printed.
        """
        if not self.post(text):
            return False
        while self._characters > MAX_CHARACTERS and not self._ended.is_set():
            await self._changed.park()
        return True

    def post(self, text: str) -> bool:
        """The same without waiting."""
        with self._lock:
            if self._over:
                return False
            self._texts.append(text)
            self._characters += len(text)
            if len(self._texts) == 1:
                self._soon(self._print_queued)
            return True

    async def end(self) -> None:
        """Take it off the screen, and give the terminal back as it was."""
        with self._lock:
            self._ending = True
            self._soon(self._exit)
        with trio.move_on_after(SECONDS_TO_END, shield=True):
            await self._ended.wait()

    def _soon(self, fn: Callable[[], object]) -> None:
        """Call ``fn`` in the prompt's loop, unless that has not begun, or is over."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed, a moment before the thread tells us
                self._loop.call_soon_threadsafe(fn)

    def _thread_ended(self) -> None:
        self._ended.set()
        self._changed.unpark_all()

    # In the prompt's thread.

    def _live(self) -> None:
        try:
            self._session.prompt(pre_run=self._started, set_exception_handler=False)
        except Interrupted as error:
            self._why = error
        except Exception:  # noqa: BLE001 - whatever it is, the terminal works no more
            self._why = EndOfInput()
        self._leave()

    def _leave(self) -> None:
        """Print what waits; from then on nobody may wait for this thread."""
        with self._lock:
            self._loop = None
        while not self._over:
            with suppress(OSError):
                self._write_queued()
            with self._lock:
                self._over = not self._texts

    def _tell(self, fn: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):  # it did not wait for us
            self._token.run_sync_soon(fn)

    def _started(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(lambda _loop, _context: self._exit())
            self._loop.call_soon(self._exit if self._ending else self._print_queued)

    def _exit(self) -> None:
        if self._app.is_running and not self._app.is_done:
            self._app.exit(exception=EndOfInput())

    @property
    def _app(self) -> Application[str]:
        return self._session.app

    def _accept(self, line: str) -> bool:
        """A line was typed; True keeps it in the prompt."""
        if len(self._lines) >= MAX_LINES:
            return True
        if not line:
            return False
        self._lines.append(line)
        self._tell(self._changed.unpark_all)
        return False

    def _print_queued(self) -> None:
        if self._app.is_done or not self._texts:
            return
        self._app.renderer.erase()
        self._write_queued()
        self._app.invalidate()

    def _write_queued(self) -> None:
        with self._lock:
            texts, self._texts, self._characters = self._texts, [], 0
        output = self._session.output
        output.write_raw("".join(texts))
        output.flush()
        self._tell(self._changed.unpark_all)
