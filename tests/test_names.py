"""Names in the package: one class per name, one meaning per public name, no metaphors."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import trioglock

pytestmark = pytest.mark.slow

PACKAGE = Path(trioglock.__file__).parent

METAPHORS = frozenset({
    "beat", "desk", "door", "early", "gate", "house", "keeper", "lane", "outlet", "place", "plug",
    "press", "program", "reception", "room", "roster", "seam", "span", "way", "witness",
})  # fmt: skip
"""Words with another meaning in everyday English, which readers would have to learn."""

TERMS_OF_OTHERS = {("telemetry/opentelemetry.py", "span")}
"""Uses of these words as terms of another project: OpenTelemetry's spans."""

ENTRY_POINTS = frozenset({"broadcast", "connect", "publish", "run"})
"""Functions that several modules offer for their own protocol, such as ``phoenix.connect``."""

COUNTERPARTS = frozenset({"Channel", "JoinRefused", "Presence", "Push", "Stop"})
"""Terms of Phoenix for which the server in ``trioglock.channels`` has a class of its own, as has
the client or the rest of the package."""


@cache
def sources() -> dict[str, ast.Module]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in files}


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for name, tree in sources().items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ClassDef)
                and not node.name.startswith("_")
                and not (node.name in COUNTERPARTS and name.startswith("channels/"))
            ):
                homes[node.name].append(name)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_a_public_name_has_one_meaning() -> None:
    """A name that two packages export is the same object in both."""
    meanings: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for name in sources():
        if not name.endswith("__init__.py") or "_" in name.removesuffix("__init__.py"):
            continue
        module = importlib.import_module(
            ".".join(("trioglock", *Path(name).parent.parts)).rstrip(".")
        )
        for public in getattr(module, "__all__", ()):
            meanings[public][id(getattr(module, public))] = module.__name__
    twice = {name: sorted(found.values()) for name, found in meanings.items() if len(found) > 1}
    allowed = ENTRY_POINTS | COUNTERPARTS
    assert {name: found for name, found in twice.items() if name not in allowed} == {}


def words_of(name: str) -> Iterator[str]:
    """The words of a name in snake_case or CamelCase, in the singular."""
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
        yield word.lower()
        yield word.lower().removesuffix("s")


def named_in(file: str, tree: ast.Module) -> Iterator[str]:
    yield from Path(file).with_suffix("").parts
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (isinstance(node, ast.ClassDef) or node.name[0] != "_"):
            yield node.name


def test_no_metaphors() -> None:
    found = {
        (file, name)
        for file, tree in sources().items()
        for name in named_in(file, tree)
        for word in words_of(name)
        if word in METAPHORS and (file, word) not in TERMS_OF_OTHERS
    }
    assert found == set()


def test_the_words_of_a_name() -> None:
    assert set(words_of("early_Lanes")) >= {"early", "lane"}
    assert "beat" not in set(words_of("MessageHeartbeat"))
