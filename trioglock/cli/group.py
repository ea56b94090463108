"""The group: which commands there are. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import click

from .._redact import redact_text
from .._scope import leaves
from .._version import __version__
from ..errors import TrioglockError

__all__ = ["group", "run"]

COMMANDS = {
    "connect": "trioglock.cli.connect:command",
    "serve": "trioglock.cli.serve:command",
    "publish": "trioglock.cli.publish:command",
    "phoenix": "trioglock.cli.phoenix:command",
    "bench": "trioglock.cli.bench:command",
    "demo": "trioglock.cli.demo:command",
}
"""Where each command lives, in the order of the help."""

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, as shells have it."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and only that one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or one that tells why it cannot be had."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            return _unavailable(cmd_name, str(error))
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for; Ctrl-C is no error."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error)):
                return INTERRUPTED
            raise


def _unavailable(name: str, why: str) -> click.Command:
    def tell(**_: object) -> None:
        raise click.ClickException(f"{name} cannot be used here: {why}")

    return click.Command(
        name,
        callback=tell,
        short_help="Cannot be used here.",
        add_help_option=False,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
    )


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trioglock", message="%(prog)s %(version)s")
def group() -> None:
    """WebSocket applications for trio, from a shell.

    Each command explains itself: trioglock connect --help.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` name; the exit code."""
    try:
        code = group.main(list(arguments), prog_name="trioglock", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("TRIOGLOCK_TRACEBACK"):
            raise
        click.echo(f"trioglock: {_words(error)}", err=True)
        return 1
    return int(code or 0)


def _words(error: Exception) -> str:
    """An error of ours explains itself; any other was not expected."""
    first = leaves(error)[0]
    text = redact_text(str(first))
    if isinstance(first, TrioglockError):
        return text
    return f"{type(first).__name__}: {text} (TRIOGLOCK_TRACEBACK=1 shows where)"
