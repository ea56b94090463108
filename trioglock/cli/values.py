"""Values: what is written behind an option, checked; complaints show no secrets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import click

from ..errors import InvalidOption
from ..options import check_headers, check_subprotocols

__all__ = ["headers", "json_value", "pairs", "seconds", "subprotocols", "topic_name"]

Check: TypeAlias = Callable[[click.Context, click.Parameter, Any], Any]
"""What click calls with the text of an option."""


def seconds(*, zero: bool = False, none: bool = False) -> Check:
    """Checks a number of seconds.

    Args:
        zero: whether 0 is allowed.
        none: whether the word ``none``, for never, is.
    """
    allowed = "a number of seconds, " + ("0 or more" if zero else "more than 0")
    if none:
        allowed += ", or none"

    def check(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
        if text is None or (none and text == "none"):
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (number > 0 or (zero and number == 0)):
            raise click.BadParameter(f"{text!r} is not {allowed}.")
        return number

    return check


def headers(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of name and value; a complaint shows neither, for either may be a secret."""
    found = []
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon:
            raise click.BadParameter("a header is written 'Name: value', in quotes.")
        try:
            check_headers("header", [(name.strip(), value.strip())])
        except InvalidOption as error:
            reserved = "handshake" in str(error)
            raise click.BadParameter(
                f"{name.strip()} is set by the opening handshake itself."
                if reserved
                else "a header is written 'Name: value'; the name has letters, digits and signs "
                "such as - and _, the value no line breaks and only characters of latin-1."
            ) from None
        found.append((name.strip(), value.strip()))
    return found


def subprotocols(_: click.Context, __: click.Parameter, names: Sequence[str]) -> Sequence[str]:
    """Names of subprotocols, each once."""
    try:
        return check_subprotocols(names)
    except InvalidOption as error:
        raise click.BadParameter(f"{error}.") from None


def pairs(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """``name=value``; a complaint does not show what may be a secret."""
    for text in texts:
        if "=" not in text or text.startswith("="):
            raise click.BadParameter("a param is written name=value.")
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def topic_name(_: click.Context, __: click.Parameter, text: str) -> str:
    """A topic that can be joined."""
    if text in ("", "phoenix"):
        raise click.BadParameter(f"a topic is a name such as room:1, not {text!r}.")
    return text


def json_value(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """What JSON says; a complaint names the place, and does not show the text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"no JSON: {error.msg} at column {error.colno}.") from None
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"no JSON that can be read: {error}.") from None
