"""The reference is whole: every public name is in it once, and its docstring says what it must."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

import trioglock
from tests.docs.pages import PAGES, Page

DOORS = (
    "trioglock",
    "trioglock.asgi",
    "trioglock.backoff",
    "trioglock.codecs",
    "trioglock.errors",
    "trioglock.frames",
    "trioglock.headers",
    "trioglock.http",
    "trioglock.options",
    "trioglock.protocols.gossip",
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
"""Where users import from."""

ROOMS = (
    "trioglock.cli",
    "trioglock.client",
    "trioglock.connection",
    "trioglock.protocols",
    "trioglock.pubsub.redis",
    "trioglock._redact",
    "trioglock.server",
    "trioglock.testing.faults",
    "trioglock.transports.native",
    "trioglock.transports.native",
    "trioglock.transports.trio_websocket",
)
"""Packages that only other rooms import from."""


@dataclass
class Reference:
    """What the pages show.

    Args:
        entries: full names, each with what stands behind it in brackets.
        elsewhere: for each module, the full names that it has from another door.
        excluded: methods that the pages leave out: of those who run them, not of users.
    """

    entries: list[tuple[str, str]] = field(default_factory=list)
    elsewhere: dict[str, list[str]] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> frozenset[str]:
        """The full names of these methods."""
        return frozenset(self.excluded)

    @property
    def names(self) -> Counter[str]:
        """How often each name has an entry."""
        return Counter(name for name, _ in self.entries)

    def read(self, page: Page) -> None:
        """Add a page."""
        door = module = name = ""
        for line in page.text.splitlines():
            if found := re.fullmatch(r"\.\. (automodule|currentmodule):: (\S+)", line):
                module, name = found[2], ""
                door = module if found[1] == "automodule" else door
                self.elsewhere.setdefault(door, [])
            elif found := re.fullmatch(r"\.\. (?:auto\w+|alias|data):: ([\w.]+)(\(\))?", line):
                name = found[1] if found[1].startswith("trioglock.") else f"{module}.{found[1]}"
                self.entries.append((name, found[2] or ""))
            elif found := re.fullmatch(r" +:exclude-members: (.+)", line):
                self.excluded += [f"{name}.{member}" for member in found[1].split(", ")]
            elif line == "   :no-members:" and name:
                self.excluded += [f"{name}.{member}" for member in dir(find(name))]
            else:
                self.elsewhere.setdefault(door, []).extend(re.findall(r"\{py:obj\}`(\S+?)`", line))


@cache
def reference() -> Reference:
    shown = Reference()
    for name in PAGES:
        if name.startswith("docs/reference/"):
            shown.read(Page(name))
    return shown


def find(name: str) -> Any:
    """What a full name of a module's member stands for."""
    module, _, member = name.rpartition(".")
    return getattr(importlib.import_module(module), member)


def test_every_package_is_a_door_or_a_room() -> None:
    """A new package is thought of here."""
    walked = pkgutil.walk_packages(trioglock.__path__, "trioglock.")
    packages = {module.name for module in walked if module.ispkg and ".cli." not in module.name}
    assert packages <= {*DOORS, *ROOMS}
    assert not set(DOORS) & set(ROOMS)


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_shown_once(door: str) -> None:
    """An entry at this door, or a mention there of the one at another door; never both."""
    shown, names = reference(), reference().names
    expected = importlib.import_module(door).__all__
    other = {name.rpartition(".")[2]: name for name in shown.elsewhere.get(door, [])}
    for name in expected:
        value = find(f"{door}.{name}")
        twin = [full for full in names if full.endswith(f".{name}") and find(full) is value]
        assert len(twin) == 1, f"{door}.{name} has the entries {twin}"
        assert names[twin[0]] == 1, f"{twin[0]} has two entries"
        if twin != [f"{door}.{name}"] and door in shown.elsewhere and not _is_value(door):
            assert other.get(name) == twin[0], f"{door}.{name} is {twin[0]}: mention it"
    assert other.keys() <= set(expected)


def _is_value(door: str) -> bool:
    """Modules of the ground whose members are all at the first door."""
    return door in {"trioglock.errors", "trioglock.http", "trioglock.disconnect"}


def test_nothing_is_shown_twice() -> None:
    """A class or function has one entry, whatever it is called there."""
    subjects = [find(name) for name in reference().names]
    named = Counter(value for value in subjects if inspect.isclass(value) or callable(value))
    assert [value for value, times in named.items() if times > 1] == []


# Docstrings.


@dataclass(frozen=True)
class Text:
    """What one function, method or class says of itself.

    Args:
        name: for messages.
        text: the docstring, those that it takes over, and those that it refers to.
        parameters: of the call.
        raised: the names of what its own body raises.
    """

    name: str
    text: str
    parameters: tuple[inspect.Parameter, ...] = ()
    raised: frozenset[str] = frozenset()

    def about(self, parameter: str) -> str:
        """What is said of a parameter: its paragraph under Args, or the whole text."""
        paragraph = rf"^( +)\*{{0,2}}{parameter}: (.*\n(?:\1 +.*\n?)*)"
        found = re.findall(paragraph, self.text, re.MULTILINE)
        return " ".join(said for _, said in found) or self.text


def texts() -> Iterator[Text]:
    """Of everything public: functions, classes with their constructors, methods, properties."""
    shown = reference()
    doors = {f"{door}.{name}" for door in DOORS for name in importlib.import_module(door).__all__}
    for name, brackets in shown.entries:
        value = find(name)
        if name not in doors or hasattr(value, "__required_keys__"):
            continue
        if inspect.isclass(value):
            yield _of_class(name, value, constructor=not brackets)
            yield from _of_methods(name, value, shown.left_out)
        elif inspect.isfunction(value):
            yield _of_function(name, value, _doc(value, value))


def _of_class(name: str, cls: type, *, constructor: bool) -> Text:
    own = [vars(cls)[name] for name in ("__init__", "__post_init__") if name in vars(cls)]
    bases = [base for base in cls.__mro__ if base.__module__.startswith("trioglock")]
    text = "\n".join(_doc(base, base) for base in bases)
    if not constructor or getattr(cls, "_is_protocol", False):
        return Text(name, text)
    raised = frozenset[str]().union(*(_raised(function) for function in own))
    makes = own or dataclasses.is_dataclass(cls)
    return Text(name, text, _parameters(cls) if makes else (), raised)


def _of_methods(name: str, cls: type, left_out: frozenset[str]) -> Iterator[Text]:
    bases = [base for base in cls.__mro__ if base.__module__.startswith("trioglock")]
    members = {member: value for base in reversed(bases) for member, value in vars(base).items()}
    for member, value in members.items():
        if member.startswith(("_", "test_")) or f"{name}.{member}" in left_out:
            continue
        called = value.fget if isinstance(value, property) else inspect.unwrap(getattr(cls, member))
        # What overrides a method keeps what its docstring says.
        versions = [vars(base)[member] for base in bases if member in vars(base)]
        text = "\n".join(_doc(version, *bases) for version in versions)
        if isinstance(value, property):
            yield Text(f"{name}.{member}", text, (), _raised(called))
        elif inspect.isfunction(called) or inspect.ismethod(called):
            yield _of_function(f"{name}.{member}", called, text)


def _of_function(name: str, function: Any, text: str) -> Text:
    return Text(name, text, _parameters(function), _raised(function))


def _doc(value: Any, *around: Any) -> str:
    """A docstring, and those that it says to hold as well: "as :meth:`send`"."""
    text = inspect.getdoc(value) or ""
    asks = (
        r"\b(?:[Aa]s|[Aa]s for|[Aa]s in|[Aa]s of|[Ss]ee|arguments of) :(?:func|meth):`~?([\w.]+)`"
    )
    return "\n".join((text, *(_named(name, *around) for name in re.findall(asks, text))))


def _named(name: str, *around: Any) -> str:
    """The docstring of what a text refers to."""
    last = name.rpartition(".")[2]
    classes = [vars(trioglock), *map(vars, around)]
    module = inspect.getmodule(around[0])
    owner, _, member = name.rpartition(".")
    for place in (vars(module), *classes):
        value = place.get(member) if not owner else getattr(place.get(owner), member, None)
        if value is not None:
            return inspect.getdoc(value) or ""
    return inspect.getdoc(getattr(trioglock, last, None)) or "" if last in trioglock.__all__ else ""


def _parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    return tuple(
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in {"self", "cls"} and not parameter.name.startswith("_")
    )


def _raised(function: Any) -> frozenset[str]:
    """What ``raise`` statements of its own name."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return frozenset()
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            names.add(ast.unparse(named))
    return frozenset(name for name in names if re.fullmatch(r"(trio\.)?[A-Z]\w+", name))


@cache
def written() -> tuple[Text, ...]:
    return tuple(texts())


def test_everything_has_a_docstring() -> None:
    """Functions, classes, methods and properties."""
    assert len(written()) > 400
    assert [text.name for text in written() if not text.text.strip()] == []


def test_every_parameter_is_explained() -> None:
    """Under Args, or by its name in the text."""
    missing = [
        f"{text.name}({parameter.name})"
        for text in written()
        for parameter in text.parameters
        if not re.search(rf"\b{parameter.name}\b", text.text)
    ]
    assert missing == []


SECONDS = r"second|deadline|a time of"
COUNTS = r"seconds|bytes|number|how (many|often)|code|port|messages|times|status|most|jobs|frames"


def test_numbers_have_their_units() -> None:
    """A float says that it is seconds, or times what; an int that is an option what it counts."""
    missing = []
    for text in written():
        for parameter in text.parameters:
            kind = str(parameter.annotation)
            says = f"{parameter.name} {text.about(parameter.name)}"
            optional = parameter.default is not inspect.Parameter.empty
            if re.search(r"\bfloat\b", kind) and parameter.name not in NOT_SECONDS:
                unit = SECONDS
            elif re.search(r"\bint\b", kind) and optional:
                unit = COUNTS
            else:
                continue
            if not re.search(unit, says):
                missing.append(f"{text.name}({parameter.name}: {kind})")
    assert missing == []


NOT_SECONDS = {"multiplier", "bytes_per_second", "capacity"}
"""A float for other reasons."""


def test_what_is_raised_is_told() -> None:
    """Whatever a body raises by name is in its docstring."""
    missing = [
        f"{text.name}: {name}"
        for text in written()
        for name in text.raised - {"AssertionError", "NotImplementedError", "StopAsyncIteration"}
        if not re.search(rf"\b{name.removeprefix('trio.')}\b", text.text)
    ]
    assert missing == []
