"""Checks of Autobahn reports, and the tables generated from them, with small examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.autobahn.client import AGENT
from tests.autobahn.report import Result, problems, read_report, summary
from tests.autobahn.table import MARKERS, main, page_with, results_section
from tests.scripts import ROOT

Case = dict[str, object]

FACTS = {
    "date": "2030-01-02",
    "seconds": "12",
    "trioglock": "9.1",
    "websockets": "9.2",
    "trio": "9.3",
    "Python": "9.4",
    "autobahntestsuite": "9.5",
}


def case(behavior: str = "OK", close: str = "OK", code: int | None = 1000) -> Case:
    """Return a case in the format of the suite."""
    return {
        "behavior": behavior,
        "behaviorClose": close,
        "duration": 3,
        "remoteCloseCode": code,
        "reportfile": "trioglock_case.json",
    }


def report(tmp_path: Path, agent: str = AGENT, /, **cases: Case) -> list[Result]:
    """Write a report and read it. The keyword for case 1.2 is ``c1_2``."""
    named = {name[1:].replace("_", "."): found for name, found in cases.items()}
    index = tmp_path / "index.json"
    index.write_text(json.dumps({agent: named}), encoding="utf-8")
    return read_report(index, AGENT)


def test_a_clean_report_has_no_problems(tmp_path: Path) -> None:
    """OK and INFORMATIONAL are accepted, as behavior and as close."""
    informational = case("INFORMATIONAL", "INFORMATIONAL", None)
    results = report(tmp_path, c1_1=case(), c7_1_6=informational)
    assert problems(results, cases=2, non_strict=0) == []


def test_cases_are_sorted_as_they_are_numbered(tmp_path: Path) -> None:
    """2.10 comes after 2.9, and 10.1 after both."""
    results = report(tmp_path, c10_1=case(), c2_10=case(), c2_9=case())
    assert [result.case for result in results] == ["2.9", "2.10", "10.1"]


@pytest.mark.parametrize("expected", [1, 3])
def test_the_number_of_cases_must_be_exact(tmp_path: Path, expected: int) -> None:
    """Missing and additional cases are problems."""
    results = report(tmp_path, c1_1=case(), c1_2=case())
    [problem] = problems(results, cases=expected, non_strict=0)
    assert problem == f"the report has 2 cases, not {expected}"


def test_a_report_of_another_agent_is_empty(tmp_path: Path) -> None:
    """A report without results is a problem, even if no cases are expected."""
    results = report(tmp_path, "another", c1_1=case())
    assert problems(results, cases=1, non_strict=0) == ["no case ran"]
    assert problems([], cases=0, non_strict=0) == ["no case ran"]


@pytest.mark.parametrize("behavior", ["FAILED", "UNIMPLEMENTED", "UNKNOWN"])
def test_any_other_behavior_is_a_problem(tmp_path: Path, behavior: str) -> None:
    """The problem contains the number of the case, also for unknown behaviors."""
    results = report(tmp_path, c1_1=case(), c6_4_1=case(behavior, "OK", 1007))
    [problem] = problems(results, cases=2, non_strict=99)
    assert problem == f"6.4.1: {behavior}, close OK (1007)"


@pytest.mark.parametrize("close", ["FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT"])
def test_any_other_close_is_a_problem(tmp_path: Path, close: str) -> None:
    """A bad close is a problem even if the behavior is accepted."""
    results = report(tmp_path, c7_1_1=case("OK", close, None), c7_1_2=case("NON-STRICT", close))
    assert problems(results, cases=2, non_strict=1) == [
        f"7.1.1: OK, close {close} (None)",
        f"7.1.2: NON-STRICT, close {close} (1000)",
    ]


def test_non_strict_cases_are_allowed_up_to_a_limit(tmp_path: Path) -> None:
    """NON-STRICT cases are a problem only above the limit."""
    results = report(tmp_path, c3_2=case("NON-STRICT"), c3_10=case("NON-STRICT"), c4_1=case())
    assert problems(results, cases=3, non_strict=2) == []
    [problem] = problems(results, cases=3, non_strict=1)
    assert problem == "2 cases are NON-STRICT, more than 1: 3.2, 3.10"


def test_the_summary_counts_both_verdicts(tmp_path: Path) -> None:
    """The summary contains the number of each behavior and each close."""
    results = report(tmp_path, c1=case(), c2=case("NON-STRICT"), c3=case("OK", "UNCLEAN"))
    assert summary(results) == "3 cases: 2 OK, 1 NON-STRICT; close: 2 OK, 1 UNCLEAN"


def test_the_tables_show_versions_and_counts(tmp_path: Path) -> None:
    """There is a row for all cases, for each group that ran, and for each other library."""
    results = report(
        tmp_path, c2_1=case(), c2_2=case("NON-STRICT"), c13_1=case("FAILED", "WRONG CODE", 1002)
    )
    lines = results_section("client", [results], FACTS).splitlines()
    assert lines[:2] == [
        "Measured on 2030-01-02: trioglock 9.1 with trio 9.3, websockets 9.2, Python 9.4,",
        "by autobahntestsuite 9.5; the fastest run took 12 s.",
    ]
    assert "| **trioglock 9.1** | 1 | 1 | 1 | 0 | 0 | 1 |" in lines
    assert "| 2.\\* pings and pongs | 1 | 1 | 0 | 0 | 0 | 0 |" in lines
    assert "| 13.\\* compression, by parameters | 0 | 0 | 1 | 0 | 0 | 1 |" in lines
    assert not any("framing" in line for line in lines)
    assert any(line.startswith("| websockets ") for line in lines)
    assert lines[-1] == "NON-STRICT: 2.2."


def test_differences_between_runs_are_reported(tmp_path: Path) -> None:
    """The text below the tables lists the cases with different results."""
    good = report(tmp_path, c1_1=case(), c1_2=case())
    unclean = report(tmp_path, c1_1=case(), c1_2=case("OK", "UNCLEAN"))
    same = results_section("client", [good, good], FACTS).splitlines()
    assert same[-1] == "2 consecutive runs gave the same results in every case."
    other = results_section("client", [good, unclean, good], FACTS).splitlines()
    assert other[-1] == "3 consecutive runs gave the same results except 1.2."


def test_only_complete_runs_change_the_page(tmp_path: Path) -> None:
    """An incomplete run does not change the page."""
    folder = tmp_path / "run1"
    folder.mkdir()
    report(folder, c1_1=case())
    (folder / "facts.json").write_text(json.dumps(FACTS), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("unchanged", encoding="utf-8")
    assert main(["--reports", str(tmp_path), "--page", str(page)]) == 1
    assert page.read_text(encoding="utf-8") == "unchanged"
    assert main(["--reports", str(tmp_path / "run1"), "--page", str(page)]) == 1


@pytest.mark.parametrize("role", MARKERS)
def test_the_page_keeps_its_other_text(role: str) -> None:
    """Only the text between the markers is replaced; repeating it changes nothing."""
    page = f"before\n\n<!-- {role} -->\nold\n<!-- end of {role} -->\n\nafter\n"
    replaced = page_with(role, page, "new")
    assert replaced == f"before\n\n<!-- {role} -->\n\nnew\n\n<!-- end of {role} -->\n\nafter\n"
    assert page_with(role, replaced, "new") == replaced


@pytest.mark.parametrize("role", MARKERS)
def test_the_page_has_markers(role: str) -> None:
    """docs/conformance.md has the markers of both roles."""
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    replaced = page_with(role, page, "new")
    assert f"<!-- {role} -->\n\nnew\n\n<!-- end of {role} -->\n\n" in replaced
    assert replaced.splitlines()[-1] == page.splitlines()[-1]


def test_each_role_is_compared_with_the_same_role(tmp_path: Path) -> None:
    """The table of the server contains other servers, but no clients."""
    lines = results_section("server", [report(tmp_path, c1_1=case())], FACTS).splitlines()
    assert any(line.startswith("| server | OK |") for line in lines)
    assert any("websockets" in line and "server |" in line for line in lines)
    assert not any("client" in line for line in lines)
