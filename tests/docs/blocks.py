"""Blocks of code in documents that are not Python: what each language can be held to."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.docs.commands import check_command, commands_in
from tests.docs.pages import Page

__all__ = ["CHECKERS", "Block", "blocks_of"]


@dataclass(frozen=True)
class Block:
    """One block.

    Args:
        page: it is on.
        line: its first one, counted from 1.
        language: as it is written.
        source: without the indentation of its fence.
        argument: what stands behind the language.
    """

    page: Page
    line: int
    language: str
    source: str
    argument: str = ""


def blocks_of(page: Page) -> list[Block]:
    """Every block of a page, also those in lists."""
    fence = re.compile(r"^( *)```(\S*) ?(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
    return [
        Block(
            page,
            page.text.count("\n", 0, found.start(4)) + 1,
            found[2],
            re.sub(rf"^{found[1]}", "", found[4], flags=re.MULTILINE),
            found[3],
        )
        for found in fence.finditer(page.text)
    ]


def _check_python(block: Block) -> None:
    """The blocks that run are those that are not indented."""
    assert (block.line, block.source) in block.page.blocks("python")


def _check_console(block: Block) -> None:
    lines = block.source.splitlines()
    prompts = sum(line.startswith("$ ") for line in lines)
    assert prompts in (0, len(lines)), "nobody compares what a command is said to print"
    for command in commands_in(block.source):
        check_command(command, block.page.text)


def _check_json(block: Block) -> None:
    json.loads(block.source)


def _check_toml(block: Block) -> None:
    tomllib.loads(block.source)


def _check_js(block: Block) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    done = subprocess.run(  # noqa: S603 - our own documents
        [node, "--check", "-"], input=block.source, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr


def _check_ini(block: Block) -> None:
    """A unit of systemd: its sections and keys, and the commands that it runs."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string(block.source)
    assert set(parser.sections()) <= {"Unit", "Service", "Install"}
    for section in parser.sections():
        for key, value in parser[section].items():
            assert re.fullmatch(r"([A-Z][a-z]+|MAINPID|NOFILE)+", key), key
            if key == "ExecStart":
                [command] = commands_in(value)
                check_command(command, block.page.text)


def _check_nginx(block: Block) -> None:
    """Directives end with a semicolon or have a block; braces and quotes are in pairs."""
    depth = 0
    words: list[str] = []
    for token in re.findall(r"'[^']*'|\"[^\"]*\"|[{};]|[^\s{};'\"]+", block.source):
        if token == "}":
            assert not words, f"no semicolon behind {words}"
            depth -= 1
            assert depth >= 0
        elif token in ";{":
            assert words
            depth += token == "{"
            words = []
        else:
            words.append(token)
    assert not words
    assert depth == 0


def _check_elixir(block: Block) -> None:
    """Every ``do`` has its ``end``, in the right order; brackets are in pairs."""
    code = re.sub(r'"(?:[^"\\]|\\.)*"|#.*', "", block.source)
    depth = 0
    for word in re.findall(r"\bdo\b(?!:)|\bfn\b|\bend\b(?!:)", code):
        depth += -1 if word == "end" else 1
        assert depth >= 0
    assert depth == 0
    for opening, closing in ("()", "[]", "{}"):
        assert code.count(opening) == code.count(closing), opening


TREES = ("docs/errors.md", "docs/gossip.md")
"""Pages with a tree of errors, which tests of their own compare with the code."""


def _check_text(block: Block) -> None:
    """Somebody compares it: as what a block prints, or as a tree of errors."""
    shown = block.source in block.page.shown().values()
    tree = block.page.name in TREES and "├── " in block.source
    assert shown or tree, "nobody compares this text with anything"


def _check_contents(block: Block) -> None:
    """The files are looked for where links are."""
    assert block.page.name == "docs/index.md"


def _check_include(block: Block) -> None:
    """The file is there, and what is between two texts in it."""
    text = (block.page.path.parent / block.argument).read_text(encoding="utf-8")
    between = re.findall(r'^:(?:start-after|end-before): "(.*)"$', block.source, re.MULTILINE)
    assert len(between) == 2
    for mark in between:
        assert mark in text


def _check_reference(block: Block) -> None:
    """Directives of the reference, whose names have a test of their own."""
    known = r"\.\. (auto(module|class|exception|function|data)|currentmodule|alias|data):: \S+"
    for line in block.source.splitlines():
        assert not line or line.startswith("   ") or re.match(known, line), line


CHECKERS: dict[str, Callable[[Block], None]] = {
    "console": _check_console,
    "elixir": _check_elixir,
    "ini": _check_ini,
    "js": _check_js,
    "json": _check_json,
    "nginx": _check_nginx,
    "python": _check_python,
    "text": _check_text,
    "toml": _check_toml,
    "{eval-rst}": _check_reference,
    "{include}": _check_include,
    "{toctree}": _check_contents,
}
"""By language; a block in any other has nobody who looks at it."""
