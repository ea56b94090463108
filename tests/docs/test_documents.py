"""The documents tell the truth: their Python runs, their links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

import trioglock
from tests.docs.pages import PAGES, Page, Program, example_server
from tests.scripts import ROOT, assert_lines, run_python
from trioglock import (
    Backoff,
    Reconnect,
    Socket,
    TrioglockError,
    TrioWebsocketTransport,
    connect,
    disconnect,
    errors,
    pubsub,
    serve,
)
from trioglock.protocols import phoenix
from trioglock.transports import Capabilities

WITH_PYTHON = [name for name in PAGES if Page(name).blocks("python")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with example_server() as url:
        yield url


def test_every_page_is_there() -> None:
    """Nothing that the README promises to read is missing, and its Python is found."""
    expected = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    assert expected <= set(PAGES)
    assert {"README.md", *(f"docs/{name}.md" for name in ("hooks", "errors", "testing"))} <= set(
        WITH_PYTHON
    )


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_runs(name: str, url: str) -> None:
    """Every block of Python runs as it stands, in the order of the page; so do its tests."""
    assert Program(Page(name), url).run() >= 1


def test_the_tutorial_shows_what_it_prints() -> None:
    """Each step that runs is followed by its output, which is compared with the real one."""
    page = Page("docs/tutorial.md")
    steps = [line for line, source in page.blocks("python") if "trio.run(main)" in source]
    assert len(steps) >= 8
    assert steps == list(page.shown())


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """Links between documents name a file that is there, and a heading that is in it."""
    page = Page(name)
    for link in page.links():
        file, _, anchor = link.partition("#")
        target = (page.path.parent / file) if file else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in Page(target.resolve().relative_to(ROOT).as_posix()).anchors(), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    """Whoever begins with the README finds all of it."""
    reached, waiting = {"README.md"}, ["README.md"]
    while waiting:
        page = Page(waiting.pop())
        for link in page.links():
            target = (page.path.parent / link.partition("#")[0]).resolve()
            name = target.relative_to(ROOT).as_posix()
            if name in PAGES and name not in reached:
                reached.add(name)
                waiting.append(name)
    assert reached == set(PAGES)


def test_the_contents_have_every_page() -> None:
    """docs/index.md, from which the HTML is made, lists each page once."""
    index = Page("docs/index.md")
    listed = [
        (index.path.parent / link).resolve().relative_to(ROOT).as_posix()
        for link in index.links(contents=True)
    ]
    assert sorted(listed) == sorted(set(PAGES) - {"docs/index.md"})


# What the pages list is all there is.


def test_the_error_tree_is_that_of_the_code() -> None:
    """docs/errors.md draws every error below its base, and names the builtin it also is."""
    [(_, tree)] = Page("docs/errors.md").blocks("text")
    drawn: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in tree.splitlines():
        found = re.fullmatch(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?", line)
        assert found, line
        depth = len(found[1]) // 4
        del above[depth:]
        drawn[found[2]] = tuple(filter(None, (above[-1] if above else "Exception", found[3])))
        above.append(found[2])
    classes = [getattr(errors, name) for name in errors.__all__]
    assert drawn == {cls.__name__: tuple(b.__name__ for b in cls.__bases__) for cls in classes}


def test_every_error_has_its_advice() -> None:
    """Each error and each reason that a user may meet is explained in docs/errors.md."""
    page = Page("docs/errors.md")
    bases = {"TrioglockError", "Disconnect", "ConnectError"}
    assert set(errors.__all__) - bases <= page.mentions()
    assert set(disconnect.__all__) - bases <= page.mentions()
    assert issubclass(errors.ConnectError, TrioglockError)


def test_every_hook_has_its_section() -> None:
    """docs/hooks.md explains every hook of Socket with its parameters, and README lists it."""
    headings = " ".join(re.findall(r"^### (.*)$", Page("docs/hooks.md").text, re.MULTILINE))
    table = " ".join(row[0] for row in Page("README.md").rows("The hooks"))
    for name, hook in inspect.getmembers(Socket, inspect.isfunction):
        if not name.startswith("_"):
            called = f"`{name}({', '.join(list(inspect.signature(hook).parameters)[1:])})`"
            assert called in headings
            assert called in table


def test_every_capability_is_explained() -> None:
    """docs/transports.md knows all capabilities, and what trio-websocket lacks."""
    page = Page("docs/transports.md")
    fields = [field.name for field in dataclasses.fields(Capabilities)]
    assert [row[0].strip("`") for row in page.rows("Capabilities")] == fields
    lacking = [name for name in fields if not getattr(TrioWebsocketTransport.capabilities, name)]
    assert [row[0].strip("`") for row in page.rows("What trio-websocket cannot do")] == lacking


# Other people's code, and their words for ours.


def test_the_options_that_others_words_lead_to_exist() -> None:
    """Every `option=` on our side of the tables in docs/coming-from.md is one of a call of ours."""
    calls: list[Any] = [connect, serve, Backoff, Reconnect, phoenix.connect, phoenix.run]
    calls += [phoenix.Connect, pubsub.Hub, pubsub.publish]
    known = {option for call in calls for option in inspect.signature(call).parameters}
    text = Page("docs/coming-from.md").text
    ours = re.findall(r"^\|.*?(?<!\\)\| (.*) \|$", text, re.MULTILINE)
    named = {option for cell in ours for option in re.findall(r"\b(\w+)=", cell)}
    assert len(named) > 20
    assert named <= known


# What the pages name exists.


def members() -> dict[str, Any]:
    """Every class and function of trioglock by its name."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(trioglock.__path__, "trioglock."):
        if not module.name.endswith(("__main__", ".conformance", ".plugin")):
            # Where two rooms use one name, the lower one is meant: it comes first.
            found = vars(importlib.import_module(module.name)) | found
    return found


def test_architecture_names_what_exists() -> None:
    """Each file and each method that ARCHITECTURE.md names is where it says."""
    known = members()
    mentions = Page("ARCHITECTURE.md").mentions()
    files = {name for name in mentions if name.startswith("trioglock/")}
    methods = {name for name in mentions if re.fullmatch(r"[A-Z]\w+\.\w+", name)}
    assert len(files) > 20
    assert len(methods) > 30
    for name in files:
        assert (ROOT / name).exists(), name
    for name in methods:
        owner, _, attribute = name.partition(".")
        source = inspect.getsource(known[owner])
        assert hasattr(known[owner], attribute) or f"self.{attribute}" in source, name


def test_architecture_shows_every_room() -> None:
    """No package or module at the top is left out of its table."""
    rooms = {f"trioglock/{path.name}/" for path in (ROOT / "trioglock").glob("[a-z]*/")}
    rooms |= {f"trioglock/{path.name}" for path in (ROOT / "trioglock").glob("[a-z]*.py")}
    shown = " ".join(row[0] for row in Page("ARCHITECTURE.md").rows("The rooms, top to bottom"))
    missing = {room for room in rooms if f"`{room}`" not in shown}
    assert missing == {"trioglock/_version.py"}


def test_contributing_lists_the_sessions() -> None:
    """The table of checks in CONTRIBUTING.md is that of noxfile.py."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = re.findall(r"^@nox\.session.*?\n(?:@.*\n)*def (\w+)", text, re.MULTILINE)
    table = [row[0].strip("`") for row in Page("CONTRIBUTING.md").rows("Checks")]
    assert sorted(table) == sorted(sessions)


def test_the_readme_asks_for_what_the_package_asks_for() -> None:
    """Extras that the documents install exist; the required Python is the one in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {extra for name in PAGES for extra in re.findall(r"'\.\[(\w+)\]'", Page(name).text)}
    assert installed == {"test", "socks", "cli"}
    assert installed <= project["optional-dependencies"].keys()
    readme = Page("README.md").text
    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in readme
    for dependency in project["dependencies"]:
        name, version = dependency.split(">=")
        assert re.search(rf"\[{name}\]\(\S+\)\s+{version} or later", readme), dependency


async def test_the_demo_needs_nothing_but_the_package() -> None:
    """The README's demo runs where no test tool is installed."""
    program = (
        "import sys; sys.modules |= dict.fromkeys(['pytest', 'pytest_trio', 'hypothesis']);"
        "from trioglock.cli import main; sys.exit(main(['demo', '--messages', '10']))"
    )
    done = await run_python("-c", program)
    assert (done.code, done.stderr) == (0, "")
    assert_lines(done.stdout, [r"echo server at ws://.*", r"final state: .*sent=10, received=10.*"])
