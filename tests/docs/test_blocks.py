"""Blocks of code in the documents that are not Python say what is so."""

from __future__ import annotations

import pytest

from tests.docs.blocks import CHECKERS, Block, blocks_of
from tests.docs.commands import check_command, commands_in
from tests.docs.pages import PAGES, Page

BLOCKS = [block for name in PAGES for block in blocks_of(Page(name))]

README = Page("README.md")


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{block.page.name}:{block.line}") for block in BLOCKS]
)
def test_a_block_holds(block: Block) -> None:
    """Its language has a checker, and that finds nothing."""
    assert block.language in CHECKERS, f"nobody checks blocks of {block.language!r}"
    CHECKERS[block.language](block)


def test_all_blocks_are_found() -> None:
    """Every fence that opens is one of them."""
    fences = sum(Page(name).text.count("```") for name in PAGES)
    assert fences == 2 * len(BLOCKS)


@pytest.mark.parametrize(
    "line",
    [
        "nox -s nothing",
        "nox -s lint -- --quick",
        "nox -s bench -- --slow",
        "pip install '.[nothing]'",
        "pip install requests",
        "python -m nothing_of_that_name",
        "python nothing.py",
        "python -m pytest tests/nothing.py",
        "trioglock dance",
        "trioglock serve --nothing",
        "trioglock serve --port x",
        "python -m trioglock bench --size -1",
        "true && nox -s nothing",
        "redis-cli PUBLISH elsewhere x",
        "rm -rf /",
    ],
)
def test_wrong_commands_are_noticed(line: str) -> None:
    """A program, a session, an extra, a file or an option that is not there."""
    with pytest.raises(AssertionError):
        for command in commands_in(line):
            check_command(command, README.text)


def test_commands_are_told_apart() -> None:
    """Remarks, lines that go on, prompts, what was printed."""
    assert list(commands_in("nox -s lint   # a remark\nnox \\\n  -s docs && nox")) == [
        ["nox", "-s", "lint"],
        ["nox", "-s", "docs"],
        ["nox"],
    ]
    assert list(commands_in("$ trioglock --version\ntrioglock 1.2.3\n")) == [
        ["trioglock", "--version"]
    ]


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("console", "$ nox -l\n* lint\n"),
        ("json", "{"),
        ("toml", "a ="),
        ("js", "const = 1;"),
        ("ini", "[Service]\nExecStart=/bin/python -m trioglock dance\n"),
        ("ini", "[Nothing]\nA=1\n"),
        ("nginx", "server { listen 80 }"),
        ("nginx", "server { listen 80;"),
        ("elixir", "def a do\n"),
        ("text", "nobody printed this\n"),
        ("{eval-rst}", ".. image:: x.png"),
    ],
)
def test_wrong_blocks_are_noticed(language: str, source: str) -> None:
    """Each checker has something to find."""
    with pytest.raises((AssertionError, ValueError)):
        CHECKERS[language](Block(README, 1, language, source))
