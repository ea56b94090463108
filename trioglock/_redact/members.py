"""Members: names and their values in a text, be it JSON, a repr, a form, a header.

The text may be inside another: JSON in a repr, or in a string of JSON. Then quotes have backslashes
before them, and a value goes on to the next quote that has no more of them than its first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .names import HIDDEN, holds_secret, holds_secrets, is_secret, takes_line

__all__ = ["without_members"]

# No pattern tries the same run of characters twice: the texts may be a peer's, and long.
_NAME = re.compile(
    r"""
      (?<![\w%-]) (?P<name> [\w%-]++ ) \]? \\*+ ['"]? \s*+ [:=] \s*+   # name=, "name":, a[name]=
    | [(\[] b? \\*+ ['"] (?P<first> [\w-]++ ) \\*+ ['"] , \s*+ (?= b? \\*+ ['"] )  # ("name", ".."
    """,
    re.VERBOSE,
)
_QUOTE = re.compile(r"(?<!\\)(\\*+)(['\"])")
_OPENING = re.compile(r"b?(\\*+)(['\"])")
_STEP = re.compile(r"(?<!\\)(\\*+)(['\"])|[(\[{]|[)\]}]")
_WORD = re.compile(r"[^\s,;&'\"{}\[\]()]++")
_REST_OF_LINE = re.compile(r"[^\r\n]++")
_END_OF_PAIR = re.compile(r"\\*+['\"]\s*+[)\]]")


class _Value(NamedTuple):
    """Where a value is: without its quotes."""

    start: int
    end: int


def without_members(text: str) -> Iterator[str]:
    """The text in pieces, without what stands behind secret names."""
    done = 0
    for found in _NAME.finditer(text):
        name = found["name"] or found["first"]
        if found.start() < done or not is_secret(name):
            continue
        value = _value_at(text, found.end(), name)
        if value.start == value.end:
            continue
        if found["first"] and not _END_OF_PAIR.match(text, value.end):
            continue  # a list of names
        yield text[done : value.start] + HIDDEN
        done = value.end
    yield text[done:]


def _value_at(text: str, start: int, name: str) -> _Value:
    """The value of a secret name; an empty one if there is none, or it is no secret."""
    nothing = _Value(start, start)
    opening = _OPENING.match(text, start)
    if opening is not None:
        begin = opening.end()
        return _Value(begin, _end_of_string(text, begin, len(opening[1]), opening[2]))
    if text.startswith(("(", "[", "{"), start):
        return _Value(start, _end_of_group(text, start)) if holds_secrets(name) else nothing
    word = _WORD.match(text, start)
    if word is not None and not holds_secret(name, word[0]):
        return nothing
    if takes_line(name):
        rest = _REST_OF_LINE.match(text, start)
        return nothing if rest is None else _Value(start, rest.end())
    if word is None:
        return nothing
    called = text.startswith(("(", "[", "{"), word.end())  # as in token=Token('...')
    return _Value(start, _end_of_group(text, word.end()) if called else word.end())


def _end_of_string(text: str, start: int, depth: int, quote: str) -> int:
    """Where the string ends whose first quote has ``depth`` backslashes before it."""
    for found in _QUOTE.finditer(text, start):
        if found[2] == quote and len(found[1]) <= depth:
            return found.start()
    return len(text)


def _end_of_group(text: str, start: int) -> int:
    """The place behind the bracket that closes the one at ``start``."""
    at, depth = start, 0
    while found := _STEP.search(text, at):
        at = found.end()
        if found[2]:
            closing = _QUOTE.match(text, _end_of_string(text, at, len(found[1]), found[2]))
            at = len(text) if closing is None else closing.end()
            continue
        depth += 1 if found[0] in "([{" else -1
        if not depth:
            break
    return at if found else len(text)
