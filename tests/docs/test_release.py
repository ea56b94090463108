"""The changelog fragments, the version and the extras are ready for a release."""

from __future__ import annotations

import importlib
import re
import tomllib
from itertools import chain
from typing import Any

import pytest

import trioglock
from tests.docs.pages import Page
from tests.scripts import ROOT

pytestmark = pytest.mark.docs

FRAGMENTS = [path for path in (ROOT / "newsfragments").iterdir() if path.name != "README.md"]


def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def kinds() -> list[dict[str, Any]]:
    types: list[dict[str, Any]] = configuration()["tool"]["towncrier"]["type"]
    return types


def test_fault_51_a_package_has_one_lowest_version() -> None:
    """``nox -s lowest`` runs the tests with the versions that the extras and the tests name."""
    project = configuration()["project"]
    extras, groups = project["optional-dependencies"], configuration()["dependency-groups"]
    lowest: dict[str, set[str]] = {}
    for requirement in chain(project["dependencies"], *extras.values(), *groups.values()):
        if isinstance(requirement, dict):
            continue  # another group
        name, _, version = requirement.partition(";")[0].strip().partition(">=")
        assert version, f"{requirement} has no lowest version"
        lowest.setdefault(name.partition("[")[0], set()).add(version)
    assert {name: found for name, found in lowest.items() if len(found) > 1} == {}


def test_versions_of_python_are_listed_everywhere() -> None:
    """Those of the classifiers are tested, and there are compiled wheels for them."""
    prefix = "Programming Language :: Python :: "
    project = configuration()["project"]
    versions = [
        name.removeprefix(prefix) for name in project["classifiers"] if name.startswith(prefix)
    ]
    assert project["requires-python"] == f">={versions[0]}"
    listed = ", ".join(f'"{version}"' for version in versions)
    assert f"@nox.session(python=[{listed}])\ndef tests(" in Page("noxfile.py").text
    assert f"python: [{listed}]" in Page(".github/workflows/checks.yml").text
    wheels = [f"cp{version.replace('.', '')}-*" for version in versions]
    assert configuration()["tool"]["cibuildwheel"]["build"] == wheels


def test_fragments_have_valid_names() -> None:
    """Such as ``+report.added.md``, with a type that towncrier knows."""
    pattern = rf"\+[a-z][a-z-_]*\.({'|'.join(kind['directory'] for kind in kinds())})\.md"
    assert [path.name for path in FRAGMENTS if not re.fullmatch(pattern, path.name)] == []


def test_fragments_are_sentences() -> None:
    """They may have bullets; towncrier adds the headings."""
    for path in FRAGMENTS:
        text = path.read_text(encoding="utf-8")
        assert re.fullmatch(r"(- )?[A-Z`][^#]{20,}\.\n", text), path.name


def test_the_types_are_explained() -> None:
    """newsfragments/README.md lists those of the configuration, in order."""
    rows = re.findall(r"^\| `(\w+)` \|", Page("newsfragments/README.md").text, re.MULTILINE)
    assert rows == [kind["directory"] for kind in kinds()]
    assert [kind["name"] for kind in kinds()] == [kind["directory"].title() for kind in kinds()]


def test_the_changelog_has_its_mark() -> None:
    """Towncrier puts a new section below the mark; sections are those of Keep a Changelog."""
    text = Page("CHANGELOG.md").text
    before, mark, after = text.partition(configuration()["tool"]["towncrier"]["start_string"])
    assert mark
    assert "\n## " not in before
    for version in re.findall(r"^## (.*)$", after, re.MULTILINE):
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d\d-\d\d)", version)
    assert set(re.findall(r"^### (.*)$", after, re.MULTILINE)) <= {kind["name"] for kind in kinds()}


def test_the_version_has_one_source() -> None:
    assert configuration()["tool"]["hatch"]["version"]["path"] == "trioglock/_version.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", trioglock.__version__)
    assert "`trioglock/_version.py`" in Page("docs/releasing.md").text


def test_the_version_shows_whether_modules_are_compiled() -> None:
    """Either all modules that pyproject.toml lists for it are compiled, or none."""
    wheel = configuration()["tool"]["hatch"]["build"]["targets"]["wheel"]
    names = [
        path.removesuffix(".py").replace("/", ".") for path in wheel["hooks"]["custom"]["modules"]
    ]
    compiled = {not str(importlib.import_module(name).__file__).endswith(".py") for name in names}
    suffix = "+compiled" if True in compiled else ""
    assert len(compiled) == 1
    assert trioglock.version == trioglock.__version__ + suffix


def test_every_extra_is_listed_with_its_packages() -> None:
    """docs/extras.md lists the extras of pyproject.toml."""
    extras = configuration()["project"]["optional-dependencies"]
    expected = {
        extra: [re.split(r"[\[><=;]", name)[0] for name in packages]
        for extra, packages in extras.items()
    }
    rows = Page("docs/extras.md").rows("Available extras")
    assert {row[0].strip("`"): row[1].split(", ") if row[1] else [] for row in rows} == expected


def test_the_source_distribution_has_what_its_tests_read() -> None:
    included = configuration()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    expected = {"trioglock", "tests", "examples", "docs", "newsfragments", "*.md", "hatch_build.py"}
    assert expected <= set(included)
