"""The pages: their code runs, their links resolve, and what they list is complete."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import trioglock
from tests.cases import case_of
from tests.docs.commands import check_commands, commands, nox_sessions
from tests.docs.pages import PAGES, Page, example_server
from tests.scripts import ROOT, assert_lines, run_python
from trioglock import (
    Backoff,
    Rate,
    Reconnect,
    Socket,
    StallTimeout,
    TrioWebsocketTransport,
    connect,
    disconnect,
    errors,
    pubsub,
    serve,
)
from trioglock.protocols import gossip, phoenix
from trioglock.transports import Capabilities

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with example_server() as url:
        yield url


# Pages whose code takes more than half a second.
SLOW_PAGES = (
    *("README.md", "docs/tutorial.md", "docs/coming-from.md", "docs/transports.md"),
    *("docs/clients/pacing.md", "docs/clients/stalls.md"),
    *("docs/asyncio.md", "docs/fastapi.md"),
    *("docs/authentication.md", "docs/live-applications.md"),
)


# Pages whose code needs a library that is not installed everywhere.
LIBRARIES = {"docs/fastapi.md": "fastapi", "docs/live-dashboard.md": "flask"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW_PAGES else ())
        for name in PAGES
        if "```" in Page(name).text
    ],
)
def test_blocks(name: str, url: str) -> None:
    """Python runs and prints what the page shows, commands parse, the page's own tests pass."""
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name], reason=f"needs {LIBRARIES[name]}: pip install it")
    Page(name).run(url)


@pytest.mark.parametrize(
    ("name", "count"), [("docs/tutorial.md", 8), ("docs/live-applications.md", 4)]
)
def test_every_step_of_a_tutorial_shows_its_output(name: str, count: int) -> None:
    text = Page(name).text
    steps = re.findall(r"^trio\.run\(main\)\n```(\n\nIt prints:\n)?", text, re.MULTILINE)
    assert len(steps) >= count
    assert all(steps)


def test_links() -> None:
    """Every link leads to an existing file, and to a heading in it."""
    anchors = cache(lambda file: Page(file.relative_to(ROOT).as_posix()).anchors())
    for name in PAGES:
        page = Page(name)
        for link in page.links():
            with case_of(name, link):
                file, _, anchor = link.partition("#")
                target = (page.path.parent / file).resolve() if file else page.path
                assert target.exists()
                assert not anchor or anchor in anchors(target)


def test_the_start_page_links_to_every_page() -> None:
    index = Page("docs/index.md")
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links()}
    assert {ROOT / name for name in PAGES} - linked == {index.path}


@pytest.mark.parametrize(
    "line",
    [
        "nox -s nothing",
        "pip install '.[nothing]'",
        "python -m nothing_of_that_name",
        "python nothing.py",
        "trioglock dance",
        "trioglock serve --nothing",
        "echo hi | trioglock serve --port x",
        "python -m trioglock bench --size -1",
        "true && nox -s nothing",
        "rm -rf /",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check_commands(line)


def test_commands_are_split() -> None:
    block = "nox -s lint   # comment\nA=1 nox \\\n  -s docs && nox > 'a file'\n$ echo 'a b' | jq ."
    assert list(commands(block)) == [
        ["nox", "-s", "lint"],
        ["nox", "-s", "docs"],
        ["nox"],
        ["echo", "a b"],
        ["jq", "."],
    ]


# Lists in the pages are complete.


def test_the_error_tree_is_that_of_the_code() -> None:
    """docs/errors.md shows every error below its base, with a second base in brackets."""
    tree = Page("docs/errors.md").text.split("```text\n")[1].split("```")[0]
    shown: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in tree.splitlines():
        found = re.fullmatch(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?", line)
        assert found, line
        del above[len(found[1]) // 4 :]
        shown[found[2]] = tuple(filter(None, (above[-1] if above else "Exception", found[3])))
        above.append(found[2])
    classes = [getattr(errors, name) for name in errors.__all__]
    assert shown == {cls.__name__: tuple(b.__name__ for b in cls.__bases__) for cls in classes}


def test_every_error_and_reason_is_explained() -> None:
    bases = {"TrioglockError", "Disconnect", "ConnectError"}
    explained = Page("docs/errors.md").mentions()
    assert {*errors.__all__, *disconnect.__all__} - bases <= explained


def test_every_hook_has_a_section_and_a_row() -> None:
    headings = " ".join(re.findall(r"^### (.*)$", Page("docs/hooks.md").text, re.MULTILINE))
    table = " ".join(row[0] for row in Page("docs/hooks.md").rows("The hooks"))
    for name, hook in inspect.getmembers(Socket, inspect.isfunction):
        if not name.startswith("_"):
            call = f"`{name}({', '.join(list(inspect.signature(hook).parameters)[1:])})`"
            assert call in headings
            assert call in table


def test_every_capability_is_explained() -> None:
    page = Page("docs/transports.md")
    fields = [field.name for field in dataclasses.fields(Capabilities)]
    assert [row[0].strip("`") for row in page.rows("Capabilities")] == fields
    missing = [name for name in fields if not getattr(TrioWebsocketTransport.capabilities, name)]
    assert [row[0].strip("`") for row in page.rows("What trio-websocket cannot do")] == missing


def test_options_in_the_migration_guide_exist() -> None:
    """Each ``option=`` in the right columns of docs/coming-from.md is a parameter of ours."""
    calls: list[Any] = [connect, serve, Backoff, Reconnect, phoenix.connect, phoenix.run]
    calls += [Rate, StallTimeout, phoenix.Connect, pubsub.Hub, pubsub.publish, gossip.connect]
    known = {option for call in calls for option in inspect.signature(call).parameters}
    text = Page("docs/coming-from.md").text
    cells = re.findall(r"^\|.*?(?<!\\)\| (.*) \|$", text, re.MULTILINE)
    named = {option for cell in cells for option in re.findall(r"\b(\w+)=", cell)}
    assert len(named) > 20
    assert named <= known


def test_every_difference_from_phoenix_has_a_reason() -> None:
    rows = Page("docs/channels.md").rows("Differences from Phoenix")
    assert len(rows) > 15
    assert [row for row in rows if len(row) != 3 or not all(row)] == []


GLOCK = """
use Glock.Socket Glock.Stream Feed.stream opts start_link host port path headers
init_stream conn protocols handle_push handle_send handle_receive push push_async frame state
ok close text binary data message connect_opts connect_timeout retry retry_timeout transport tls
ws_opts compress closing_timeout keepalive handler_init_args true
"""
"""The names of Glock 0.1.1, the latest release, that the guide mentions."""


def test_fault_66_the_migration_guide_names_what_glock_has() -> None:
    """Its development version has more, which nobody can install from Hex."""
    cells = " ".join(row[0] for row in Page("docs/coming-from.md").rows("Glock: equivalents"))
    named = {
        word
        for code in re.findall(r"`(.*?)`", cells)
        for word in re.findall(r"[A-Za-z][\w.]*", code)
    }
    assert len(named) > 20
    assert named <= set(GLOCK.split())


SOCK_DRAWER = Page("docs/coming-from.md").text.partition("### sock-drawer: differences")[2]


def test_fault_59_the_migration_guide_states_what_ruby_servers_do_differently() -> None:
    """With messages that have no channel, and with paths."""
    assert "published without a channel" in SOCK_DRAWER
    assert "percent-decodes paths" in SOCK_DRAWER


def test_fault_67_the_migration_guide_warns_of_binary_data_beside_ruby_servers() -> None:
    """It ends the Ruby process."""
    assert "**Publish only text** while a Ruby server is listening." in SOCK_DRAWER


def test_architecture_names_what_exists() -> None:
    """Every file and every ``Class.member`` in ARCHITECTURE.md and tests/README.md exists."""
    known: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(trioglock.__path__, "trioglock."):
        if not module.name.endswith(("__main__", ".conformance", ".pytest_plugin")):
            for name, value in inspect.getmembers(
                importlib.import_module(module.name), inspect.isclass
            ):
                known.setdefault(name, []).append(value)
    mentions = Page("ARCHITECTURE.md").mentions() | Page("tests/README.md").mentions()
    files = {name for name in mentions if re.match(r"(trioglock|tests|docs)/", name)}
    methods = {name for name in mentions if re.fullmatch(r"[A-Z]\w+\.\w+", name)}
    assert len(files) > 20
    assert len(methods) > 20
    assert [name for name in files if not (ROOT / name).exists()] == []
    for name in methods:
        owner, _, attribute = name.partition(".")
        assert any(
            hasattr(cls, attribute) or f"self.{attribute}" in inspect.getsource(cls)
            for cls in known[owner]
        ), name


def test_architecture_lists_every_package() -> None:
    tops = {f"trioglock/{path.parent.name}/" for path in (ROOT / "trioglock").glob("*/__init__.py")}
    tops |= {f"trioglock/{path.name}" for path in (ROOT / "trioglock").glob("[a-z]*.py")}
    table = " ".join(row[0] for row in Page("ARCHITECTURE.md").rows("Packages"))
    assert {name for name in tops if f"`{name}`" not in table} == set()


def test_contributing_lists_the_sessions() -> None:
    table = [row[0].strip("`") for row in Page("CONTRIBUTING.md").rows("Checks")]
    assert sorted(table) == sorted(nox_sessions())


def test_the_requirements_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = f"Python {project['requires-python'].removeprefix('>=')} or later"
    text = Page("docs/extras.md").text
    assert version in text
    assert version in Page("README.md").text
    for dependency in project["dependencies"]:
        name, least = dependency.partition(";")[0].split(">=")
        assert re.search(rf"\[{name}\]\(\S+\)\s+{least} or later", text), dependency


def test_the_readme_is_short() -> None:
    assert len(Page("README.md").text.splitlines()) < 200


@pytest.mark.slow
async def test_the_demo_needs_no_test_tools() -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(['pytest', 'pytest_trio', 'hypothesis']);"
        "from trioglock.cli import main; sys.exit(main(['demo', '--messages', '10']))"
    )
    done = await run_python("-c", program)
    assert (done.code, done.stderr) == (0, "")
    assert_lines(done.stdout, [r"echo server at ws://.*", r"final state: .*sent=10, received=10.*"])


def test_workflows_only_call_sessions_that_exist() -> None:
    called = set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        runs = re.findall(r"- run: (.*)|^ +run: (.*)", text, re.MULTILINE)
        for command in map("".join, runs):
            if command != "python -m pip install nox":
                match = re.search(r"nox\)?\"? -s \"?(\$?\w+)", command)
                assert match is not None, command
                called.add(match[1])
        for matrix in re.findall(r"session: \[(.*)\]", text):
            called |= set(matrix.split(", "))
    assert called - {"$SESSION"} <= set(nox_sessions())
