"""The command group: imports a command when it is used, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from .._redact import redact_text
from .._scope import leaves
from .._version import version
from ..errors import TrioglockError
from .options import FAILED, INTERRUPTED
from .streams import drop_output, flush_output, is_stopped, print_line

__all__ = ["group", "run"]

COMMANDS = ("connect", "serve", "publish", "phoenix", "bench", "demo")
"""Modules of this package, each with a ``command``, in the order of the help."""


CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "show_default": True}


class LazyGroup(click.Group):
    """A group that imports only the command that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            command = importlib.import_module(f".{cmd_name}", __package__).command
        except (ImportError, AttributeError) as error:
            return _unavailable(cmd_name, str(error))
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error)):
                return INTERRUPTED
            raise


def _unavailable(name: str, why: str) -> click.Command:
    def fail(**_: object) -> None:
        raise click.ClickException(f"{name} is not available: {why}")

    return click.Command(
        name,
        callback=fail,
        short_help="Not available here.",
        add_help_option=False,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
    )


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(version, prog_name="trioglock", message="%(prog)s %(version)s")
def group() -> None:
    """WebSocket clients and servers on the command line.

    See the help of each command, such as: trioglock connect --help.
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    code = _run(arguments)
    if is_stopped():
        os._exit(code)
    drop_output()
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        code = group.main(list(arguments), prog_name="trioglock", standalone_mode=False)
        flush_output()
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        print_line(text.getvalue().removesuffix("\n"), sys.stderr)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("TRIOGLOCK_TRACEBACK"):
            raise
        print_line(f"trioglock: {_describe(error)}", sys.stderr)
        return FAILED
    return int(code or 0)


def _describe(error: Exception) -> str:
    first = leaves(error)[0]
    text = redact_text(str(first))
    if isinstance(first, TrioglockError):
        return text
    return f"{type(first).__name__}: {text} (TRIOGLOCK_TRACEBACK=1 shows a traceback)"
