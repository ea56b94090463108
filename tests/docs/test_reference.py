"""The reference has every public name once, with documented arguments and exceptions."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.docs.pages import PAGES, Page

pytestmark = pytest.mark.docs

PUBLIC = (
    "trioglock",
    "trioglock.asgi",
    "trioglock.channels",
    "trioglock.retry",
    "trioglock.codecs",
    "trioglock.errors",
    "trioglock.frames",
    "trioglock.headers",
    "trioglock.http",
    "trioglock.options",
    "trioglock.protocols.gossip",
    "trioglock.protocols.jsonrpc",
    "trioglock.protocols.phoenix",
    "trioglock.pubsub",
    "trioglock.disconnect",
    "trioglock.routing",
    "trioglock.telemetry",
    "trioglock.telemetry.opentelemetry",
    "trioglock.testing",
    "trioglock.testing.conformance",
    "trioglock.testing.pytest_plugin",
    "trioglock.transports",
)
"""The modules that users import from."""


@dataclass(frozen=True)
class Entry:
    """One directive of the reference.

    Args:
        constructible: users call the class; otherwise the page shows it with empty brackets.
        options: such as ``:no-members:``, each on a line.
    """

    constructible: bool
    options: str

    def hides(self, member: str) -> bool:
        """Whether the page leaves out a member."""
        listed = re.findall(r":exclude-members: (.*)", self.options)
        return ":no-members:" in self.options or member in ", ".join(listed).split(", ")


@cache
def entries() -> dict[str, Entry]:
    """The entries of all reference pages by full name."""
    found: list[tuple[str, Entry]] = []
    for page in map(Page, filter(lambda name: name.startswith("docs/reference/"), PAGES)):
        module = ""
        for kind, name, brackets, options in re.findall(
            r"^\.\. (automodule|currentmodule|auto\w+|data):: ([\w.]+)(\(\))?\n((?:   :.*\n)*)",
            page.text,
            re.MULTILINE,
        ):
            if kind in {"automodule", "currentmodule"}:
                module = name
            else:
                full = name if name.startswith("trioglock.") else f"{module}.{name}"
                found.append((full, Entry(not brackets, options)))
    counts = Counter(name for name, _ in found)
    assert [name for name, count in counts.items() if count > 1] == []
    return dict(found)


def find(name: str) -> Any:
    module, _, member = name.rpartition(".")
    return getattr(importlib.import_module(module), member)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_one_entry(module: str) -> None:
    known = [(name, find(name)) for name in entries()]
    for name in importlib.import_module(module).__all__:
        value = find(f"{module}.{name}")
        same = [full for full, other in known if full.endswith(f".{name}") and other is value]
        assert len(same) == 1, f"{module}.{name} has the entries {same}"


def documented() -> Iterator[tuple[str, Any, str]]:
    """Every public function, class and method: its name, what is called, its docstring."""
    for name, entry in entries().items():
        value = find(name)
        if name.rpartition(".")[0] not in PUBLIC or not (
            inspect.isclass(value) or inspect.isfunction(value)
        ):
            continue
        if not inspect.isclass(value):
            yield name, value, inspect.getdoc(value) or ""
            continue
        bases = [base for base in value.__mro__ if base.__module__.startswith("trioglock")]
        text = "\n".join(base.__doc__ or "" for base in bases)
        if entry.constructible and not getattr(value, "_is_protocol", False):
            constructor = "__init__" in vars(value) or dataclasses.is_dataclass(value)
            yield name, value if constructor else None, text
        for member in {member for base in bases for member in vars(base)}:
            method: Any = getattr(value, member, None)
            method = inspect.unwrap(method)
            if member.startswith(("_", "test_")) or entry.hides(member):
                continue
            if inspect.isroutine(method):
                versions = [vars(base)[member] for base in bases if member in vars(base)]
                yield f"{name}.{member}", method, "\n".join(v.__doc__ or "" for v in versions)


def parameters(function: Any) -> list[str]:
    names = inspect.signature(function).parameters if function else ()
    return [name for name in names if name not in {"self", "cls"} and not name.startswith("_")]


def raised(function: Any) -> set[str]:
    """The exceptions that the body of a function raises by name."""
    if not inspect.isroutine(function):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raises = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    names = {ast.unparse(exc.func if isinstance(exc, ast.Call) else exc) for exc in raises}
    return {
        name.removeprefix("trio.") for name in names if re.fullmatch(r"(trio\.)?[A-Z]\w+", name)
    }


def test_docstrings_are_complete() -> None:
    """Each has a text that mentions every parameter and every exception raised by name."""
    internal = {"AssertionError", "NotImplementedError", "StopAsyncIteration"}
    missing = []
    for name, function, text in documented():
        # "See :meth:`send`" and "Call :meth:`send`" refer to the other docstring.
        if not text.strip():
            missing.append(name)
        if re.search(r"\b([Ss]ee|[Cc]all|[Aa]s|[Aa]rguments of)( \w+)? :(meth|func):", text):
            continue
        wanted = [*parameters(function), *(raised(function) - internal)]
        missing += [f"{name}: {word}" for word in wanted if not re.search(rf"\b{word}\b", text)]
    assert missing == [], "\n".join(missing)
