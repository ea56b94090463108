"""Running a conversation, from a command's values to its exit code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import click
import trio

from ..errors import InvalidOption, InvalidURL
from .console import Console
from .conversation import Conversation, Plan
from .dialect import Dialect
from .outages import telling_outages
from .tracing import tracing

__all__ = ["run_conversation"]


def run_conversation(
    console: Console,
    plan: Plan,
    open_dialect: Callable[[], AbstractAsyncContextManager[Dialect]],
    trace_file: str | None,
) -> int:
    """Talk until the end.

    Args:
        console: of who wants it.
        plan: how it ends.
        open_dialect: called inside trio; makes the connection.
        trace_file: takes the trace, if given.

    Returns:
        The exit code.

    Raises:
        click.UsageError: an option cannot be used.
    """

    async def main() -> int:
        return await Conversation(console, plan).run(open_dialect())

    with tracing(console, trace_file), telling_outages(console):
        try:
            return trio.run(main)
        except (InvalidURL, InvalidOption) as error:
            raise click.UsageError(str(error)) from None
