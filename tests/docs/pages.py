"""The documentation pages and the code in them.

sybil finds the blocks of a page. The Python blocks of one page share their names and may use
``await`` at the top level. :func:`example_server` answers for ``wss://example.org/``.
"""

from __future__ import annotations

import ast
import inspect
import io
import logging
import re
import types
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, redirect_stdout, suppress
from functools import partial
from threading import Thread
from typing import Any

import pytest
import trio
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser
from trio.testing import MockClock
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.docs.commands import check_commands
from tests.scripts import ROOT
from trioglock.testing import MockGossipServer, MockPhoenixServer, MockServer, echo

__all__ = ["PAGES", "Page", "example_server"]

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "newsfragments/README.md",
        ROOT / "tests/README.md",
    )
)
"""Every page, as a path relative to the root of the project."""

IDLE_SECONDS = 0.2
"""The example server closes a connection after this time without a message."""

FIXTURES: dict[str, Callable[[], Any]] = {
    "mock_server": MockServer,
    "echo_server": partial(MockServer, echo),
    "mock_phoenix_server": MockPhoenixServer,
    "mock_gossip_server": MockGossipServer,
}


class Page:
    """One page of the documentation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")

    def run(self, url: str) -> None:
        """Check every block, then call the tests that the Python blocks define."""
        document = SYBIL.parse(self.path)
        # Not the attributes of a module: from Python 3.15 on, a traceback with the code of a module
        # whose loader is None warns.
        document.namespace = {"__name__": "page", "URL": url, "printed": ""}
        for example in document.examples():
            example.evaluate()
        for name, value in list(document.namespace.items()):
            if name.startswith("test_"):
                run_test(value)
            elif name.startswith("Test"):
                tests = inspect.getmembers(value(), inspect.ismethod)
                for method, test in tests:
                    if method.startswith("test_") and not hasattr(test, "pytestmark"):
                        run_test(test)

    def links(self) -> list[str]:
        """The targets of all links within the project, those of tables of contents included."""
        targets = re.findall(r"\]\(((?!https?://|#trioglock\.)[^)\s]+)\)", self.text)
        for contents in re.findall(
            r"^```\{toctree\}\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL
        ):
            pages = re.findall(r"^(?:.*<)?([\w./-]+)>?$", contents, re.MULTILINE)
            targets += [f"{page}.md" for page in pages]
        return targets

    def anchors(self) -> set[str]:
        """The anchors of all headings."""
        headings = re.findall(r"^#+ (.+)$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}

    def mentions(self) -> set[str]:
        """Every ``code`` span outside of blocks."""
        text = re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)
        return set(re.findall(r"`([^`\n]+)`", text))

    def python_blocks(self) -> list[str]:
        """The source of the Python blocks, in order."""
        return re.findall(r"^```python\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the first table below a heading, without the table's head."""
        table = re.search(
            rf"\n##+ {re.escape(heading)}\n.*?\n((?:\|[^\n]*\n)+)", self.text, re.DOTALL
        )
        assert table, f"{self.name} has no table below {heading!r}"
        lines = table[1].splitlines()[2:]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def run_python(example: Example) -> None:
    """Run a block and remember what it printed."""
    names = example.namespace
    source = example.parsed.replace("wss://example.org/", names["URL"])
    # The blank lines give tracebacks the line numbers of the page.
    text = "\n" * (example.line + example.parsed.line_offset) + source
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(text, example.path, "exec", flags=flags, dont_inherit=True)
    with captured_output() as output:
        result = eval(code, names)  # noqa: S307 - the project's own documentation
        if inspect.iscoroutine(result):
            trio.run(await_within_10_seconds, result)
    names["printed"] = output.getvalue()


def check_output(example: Example) -> None:
    """Compare a block after "It prints:" with the output of the last Python block."""
    if example.document.text[: example.start].endswith("It prints:\n\n"):
        # The numbers of connections differ from run to run.
        expected, printed = (
            re.sub(r"#\d+", "#1", text) for text in (example.parsed, example.namespace["printed"])
        )
        assert printed == expected
    else:
        assert "├── " in example.parsed, 'a text block needs "It prints:" before it'


SYBIL = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("text", check_output),
        CodeBlockParser("console", lambda example: check_commands(example.parsed)),
    ],
    path=str(ROOT),
)


@contextmanager
def captured_output() -> Iterator[io.StringIO]:
    """Collect standard output and the log lines of trioglock."""
    output = io.StringIO()
    logger, handler = logging.getLogger("trioglock"), logging.StreamHandler(output)
    logger.addHandler(handler)
    try:
        with redirect_stdout(output):
            yield output
    finally:
        logger.removeHandler(handler)


async def await_within_10_seconds(coroutine: types.CoroutineType[Any, Any, None]) -> None:
    with trio.fail_after(10):
        await coroutine


def run_test(test: Callable[..., Any]) -> None:
    """Call a test with the fixtures that the pages use."""
    wanted = inspect.signature(test).parameters
    if not inspect.iscoroutinefunction(test):
        with pytest.MonkeyPatch.context() as patch:
            test(**{name: patch for name in wanted if name == "monkeypatch"})
        return
    clock = MockClock(autojump_threshold=0)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            values: dict[str, Any] = {"autojump_clock": clock}
            for name in wanted.keys() & FIXTURES.keys():
                values[name] = await stack.enter_async_context(FIXTURES[name]())
            await test(**{name: values[name] for name in wanted})

    trio.run(main, clock=clock if "autojump_clock" in wanted else None)


@contextmanager
def example_server() -> Iterator[str]:
    """Run the server that the pages call example.org in a thread, and yield its URL.

    It echoes, and closes with 1000 when a client is idle, so that loops over messages end.
    """

    def echo_until_idle(connection: ServerConnection) -> None:
        with suppress(TimeoutError, ConnectionClosed):
            while True:
                connection.send(connection.recv(timeout=IDLE_SECONDS))

    with serve(echo_until_idle, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        server.shutdown()
        thread.join()
