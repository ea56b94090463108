"""Keys of the prompt, beside those that edit a line."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

__all__ = ["keys"]

_at_line = has_focus(DEFAULT_BUFFER)
_has_text = Condition(lambda: bool(get_app().current_buffer.text))


def keys(words: Callable[[], Sequence[str]], post: Callable[[str], object]) -> KeyBindings:
    """Tab, Ctrl-C on a line that is not empty, and Ctrl-Z where there is such a thing.

    Args:
        words: asked for what Tab completes at the beginning of a line.
        post: prints whole lines above the prompt.
    """
    bindings = KeyBindings()

    def complete(event: KeyPressEvent) -> None:
        typed = event.current_buffer.document.text_before_cursor
        fitting = [word for word in words() if typed and word.startswith(typed)]
        more = _common(fitting).removeprefix(typed)
        if more:
            event.current_buffer.insert_text(more)
        elif len(fitting) > 1:
            post("  ".join(fitting) + "\n")

    bindings.add("tab", filter=_at_line)(complete)
    bindings.add("c-c", filter=_at_line & _has_text)(_clear)
    if sys.platform != "win32":
        bindings.add("c-z")(lambda _event: run_in_terminal(_suspend))
    return bindings


def _common(words: Sequence[str]) -> str:
    """What all of them begin with."""
    first, last = min(words, default=""), max(words, default="")
    length = next((at for at, sign in enumerate(first) if last[at] != sign), len(first))
    return first[:length]


def _clear(event: KeyPressEvent) -> None:
    event.current_buffer.reset()


def _suspend() -> None:
    """Stop this process, and whatever the shell has joined to it by pipes.

    prompt-toolkit's own way takes for granted that ``kill`` returns when all is over, which is so
    in a process with one thread. Here the terminal must stay as it is until we have been stopped.
    """
    os.kill(0, signal.SIGTSTP)
    time.sleep(0.1)
