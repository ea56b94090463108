"""What a release needs is in order: fragments of the changelog, extras, the project's own pages."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import trioglock
from tests.docs.pages import Page
from tests.scripts import ROOT

FRAGMENTS = [path for path in (ROOT / "newsfragments").iterdir() if path.name != "README.md"]


def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_fragments_are_named_for_what_they_are() -> None:
    """Towncrier takes each of them, and puts it under one of the headings."""
    types = "|".join(kind["directory"] for kind in configuration()["tool"]["towncrier"]["type"])
    strange = [path.name for path in FRAGMENTS if not is_fragment(path.name, types)]
    assert strange == []


def is_fragment(name: str, types: str) -> bool:
    return re.fullmatch(rf"\+[a-z][a-z-]*\.({types})\.md", name) is not None


def test_strange_names_are_noticed() -> None:
    """No plus, no type, another type, another ending."""
    assert is_fragment("+report.added.md", "added|fixed")
    for name in (
        "report.added.md",
        "+report.md",
        "+report.new.md",
        "+report.added.rst",
        "+.added.md",
    ):
        assert not is_fragment(name, "added|fixed")


def test_fragments_are_sentences() -> None:
    """Something is told, and it ends with a full stop; headings are towncrier's to make."""
    for path in FRAGMENTS:
        text = path.read_text(encoding="utf-8")
        assert re.fullmatch(r"[A-Z`][^#]{20,}\.\n", text), path.name


def test_the_types_are_explained() -> None:
    """newsfragments/README.md lists those of the configuration, in their order."""
    kinds = configuration()["tool"]["towncrier"]["type"]
    text = Page("newsfragments/README.md").text
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [
        kind["directory"] for kind in kinds
    ]
    assert [kind["name"] for kind in kinds] == [kind["directory"].title() for kind in kinds]


def test_the_changelog_has_its_mark() -> None:
    """Above the latest section, where towncrier puts the next; sections are Keep a Changelog's."""
    text = Page("CHANGELOG.md").text
    mark = configuration()["tool"]["towncrier"]["start_string"]
    before, found, after = text.partition(mark)
    assert found
    assert "\n## " not in before
    versions = re.findall(r"^## (.*)$", after, re.MULTILINE)
    assert all(
        re.fullmatch(r"\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d\d-\d\d)", v) for v in versions
    )
    kinds = {kind["name"] for kind in configuration()["tool"]["towncrier"]["type"]}
    assert set(re.findall(r"^### (.*)$", after, re.MULTILINE)) <= kinds


def test_the_version_is_in_one_place() -> None:
    """The package, its metadata and the pages take it from trioglock/_version.py."""
    assert configuration()["tool"]["hatch"]["version"]["path"] == "trioglock/_version.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", trioglock.__version__)
    assert "`trioglock/_version.py`" in Page("docs/releasing.md").text


def test_every_extra_is_listed_with_what_it_brings() -> None:
    """docs/extras.md has the extras of pyproject.toml, each with its packages in their order."""
    extras = configuration()["project"]["optional-dependencies"]
    listed = {
        row[0].strip("`"): row[1].split(", ")
        for row in Page("docs/extras.md").rows("What there is")
    }
    brought = {
        extra: [re.split(r"[\[><=;]", package)[0] for package in packages]
        for extra, packages in extras.items()
    }
    assert listed == brought


def test_the_source_distribution_has_all_that_its_tests_read() -> None:
    """Whoever builds from it can run them."""
    included = configuration()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"trioglock", "tests", "examples", "docs", "newsfragments", "*.md"} <= set(included)
