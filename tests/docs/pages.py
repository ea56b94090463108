"""The documents, as tests see them: their Python, their links, their tables."""

from __future__ import annotations

import ast
import inspect
import io
import logging
import re
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    redirect_stdout,
)
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

from tests.scripts import ROOT
from trioglock.testing import MockGossipServer, MockPeer, MockPhoenixServer, MockServer, echo

__all__ = ["PAGES", "Page", "Program", "example_server"]

ValueT = TypeVar("ValueT")

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "newsfragments/README.md")
)
"""Every document, as a path from the root of the project."""

# The server of the documents is done with a client that has said nothing for so many seconds.
SILENCE = 0.2

EXAMPLE_URL = re.compile(r"wss://example\.org/")
NUMBER = re.compile(r"#\d+")


class Page:
    """One document."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path: Path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[tuple[int, str]]:
        """The code blocks of one language, each with the number of its first line."""
        pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
        return [
            (self.text.count("\n", 0, found.start(1)) + 1, found[1])
            for found in pattern.finditer(self.text)
        ]

    def shown(self) -> dict[int, str]:
        """What blocks of Python are said to print, by the number of their first line."""
        pattern = re.compile(
            r"^```python\n((?:(?!```)[^\n]*\n)*)```\n\nIt prints:\n\n```text\n(.*?)^```$",
            re.MULTILINE | re.DOTALL,
        )
        return {
            self.text.count("\n", 0, found.start(1)) + 1: found[2]
            for found in pattern.finditer(self.text)
        }

    def links(self, *, contents: bool = False) -> list[str]:
        """Every link to somewhere in this project, or those of its tables of contents alone."""
        targets = [] if contents else re.findall(r"\]\(([^)\s]+)\)", self.text)
        tables = "".join(block for _, block in self.blocks(r"\{toctree\}"))
        pages = re.findall(r"^(?!:)(?:.*<)?([^<>\n]+)>?$", tables, re.MULTILINE)
        # [name](#trioglock.name) is an entry of the reference, which Sphinx resolves.
        outside = ("http://", "https://", "#trioglock.")
        return [
            *(target for target in targets if not target.startswith(outside)),
            *(f"{page}.md" for page in pages),
        ]

    def anchors(self) -> set[str]:
        """What may stand behind the # of a link to this page."""
        headings = re.findall(r"^#+ (.+)$", self.text, re.MULTILINE)
        kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
        return {heading.replace(" ", "-") for heading in kept}

    def mentions(self) -> set[str]:
        """Everything that stands in the text as `code`."""
        without_blocks = re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)
        return set(re.findall(r"`([^`\n]+)`", without_blocks))

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the first table below a heading, without its head."""
        section = self.text.split(f"\n## {heading}\n", 1)[1]
        lines = section[section.index("\n|") + 1 :].splitlines()[2:]
        table = (line for line in lines[: next(_ends(lines))])
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def _ends(lines: list[str]) -> Iterator[int]:
    yield from (number for number, line in enumerate(lines) if not line.startswith("|"))
    yield len(lines)


class Program:
    """The Python of one page: its blocks share their names, as a reader expects.

    ``await`` and ``async with`` may stand at the top of a block, ``wss://example.org/`` is the
    given server, and afterwards the tests that the page defines are run. A block that is followed
    by "It prints:" and a block of text prints just that.
    """

    def __init__(self, page: Page, url: str) -> None:
        self._page = page
        self._url = url
        self._shown = page.shown()
        # A real module: dataclasses look their own up.
        self._names = types.ModuleType("page").__dict__

    def run(self) -> int:
        """Run all blocks and tests; how many of both."""
        blocks = self._page.blocks("python")
        for line, source in blocks:
            self._run_block(line, source)
        tests = list(self._tests())
        for test in tests:
            _run_test(test)
        return len(blocks) + len(tests)

    def _run_block(self, line: int, source: str) -> None:
        # Blank lines in front give errors the numbers of the page's own lines.
        text = "\n" * (line - 1) + EXAMPLE_URL.sub(self._url, source)
        top_level_await = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(text, self._page.path, "exec", flags=top_level_await, dont_inherit=True)
        if line not in self._shown:
            self._execute(code)
            return
        with _terminal() as written:
            self._execute(code)
        # Connections are numbered, over all that the process has had.
        printed, shown = (
            NUMBER.sub("#1", text) for text in (written.getvalue(), self._shown[line])
        )
        assert printed == shown, f"{self._page.name}, line {line}"

    def _execute(self, code: types.CodeType) -> None:
        returned = eval(code, self._names)  # noqa: S307 - our own documents
        if inspect.iscoroutine(returned):
            trio.run(_awaited, returned)

    def _tests(self) -> Iterator[Callable[..., Any]]:
        for name, value in list(self._names.items()):
            if name.startswith("test_"):
                yield value
            elif name.startswith("Test"):
                instance = value()
                found = (getattr(instance, name) for name in dir(value) if name.startswith("test_"))
                yield from (test for test in found if not hasattr(test, "pytestmark"))


@contextmanager
def _terminal() -> Iterator[io.StringIO]:
    """What a program writes where its user sees it: its output, and the lines of our loggers."""
    written = io.StringIO()
    logger, handler = logging.getLogger("trioglock"), logging.StreamHandler(written)
    logger.addHandler(handler)
    try:
        with redirect_stdout(written):
            yield written
    finally:
        logger.removeHandler(handler)


async def _awaited(coroutine: types.CoroutineType[Any, Any, ValueT]) -> ValueT:
    with trio.fail_after(10):
        return await coroutine


def _run_test(test: Callable[..., Any]) -> None:
    """Call a test as pytest-trio would, with the fixtures that the documents use."""
    if not inspect.iscoroutinefunction(test):
        test()
        return
    wanted = inspect.signature(test).parameters
    autojump = "autojump_clock" in wanted
    clock = MockClock(autojump_threshold=0)
    trio.run(_with_fixtures, test, clock, clock=clock if autojump else None)


async def _with_fixtures(test: Callable[..., Any], clock: MockClock) -> None:
    makers: dict[str, Callable[[], AbstractAsyncContextManager[object]]] = {
        "mock_server": MockServer,
        "echo_server": partial(MockServer, echo),
        "mock_phoenix_server": MockPhoenixServer,
        "mock_gossip_server": MockGossipServer,
    }
    async with AsyncExitStack() as stack:
        values: dict[str, object] = {"autojump_clock": clock}
        wanted = inspect.signature(test).parameters
        for name in wanted.keys() & makers.keys():
            values[name] = await stack.enter_async_context(makers[name]())
        await test(**{name: values[name] for name in wanted})


@contextmanager
def example_server() -> Iterator[str]:
    """The server that documents call example.org, in a thread of its own; its URL.

    Documents run trio themselves, so it cannot live in their run. It echoes, and closes with
    1000 when the client has been silent for a moment: loops over its messages end.
    """
    opened: list[tuple[str, trio.lowlevel.TrioToken, trio.CancelScope]] = []
    thread = Thread(target=trio.run, args=(_serve, opened), name="example.org")
    thread.start()
    try:
        while not opened and thread.is_alive():
            thread.join(0.001)
        url, token, scope = opened[0]
        try:
            yield url
        finally:
            token.run_sync_soon(scope.cancel)
    finally:
        thread.join()


async def _serve(opened: list[tuple[str, trio.lowlevel.TrioToken, trio.CancelScope]]) -> None:
    with trio.CancelScope() as scope:
        async with _echo_until_silent() as server:
            opened.append((server.url, trio.lowlevel.current_trio_token(), scope))
            await trio.sleep_forever()


@asynccontextmanager
async def _echo_until_silent() -> AsyncIterator[MockServer]:
    async def handler(peer: MockPeer) -> None:
        try:
            while True:
                with trio.fail_after(SILENCE):
                    message = await peer.receive()
                await peer.send(message)
        except (trio.TooSlowError, AssertionError):
            pass  # silent, or gone: the server closes

    async with MockServer(handler) as server:
        yield server
