"""The checker of Autobahn's reports, on small made-up ones; and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.autobahn.client import AGENT
from tests.autobahn.report import Result, problems, read_report, summary
from tests.autobahn.table import MARKS, main, page_with, results_section
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
    """One case as the suite writes it."""
    return {
        "behavior": behavior,
        "behaviorClose": close,
        "duration": 3,
        "remoteCloseCode": code,
        "reportfile": "trioglock_case.json",
    }


def report(tmp_path: Path, agent: str = AGENT, /, **cases: Case) -> list[Result]:
    """A report read back; the keywords are ``c1_2`` for case 1.2."""
    named = {name[1:].replace("_", "."): found for name, found in cases.items()}
    index = tmp_path / "index.json"
    index.write_text(json.dumps({agent: named}), encoding="utf-8")
    return read_report(index, AGENT)


def test_a_clean_report_has_no_problems(tmp_path: Path) -> None:
    """OK and INFORMATIONAL are fine, as behaviour and as close."""
    informational = case("INFORMATIONAL", "INFORMATIONAL", None)
    results = report(tmp_path, c1_1=case(), c7_1_6=informational)
    assert problems(results, cases=2, non_strict=0) == []


def test_cases_are_sorted_as_they_are_numbered(tmp_path: Path) -> None:
    """2.10 comes behind 2.9, and 10.1 behind both."""
    results = report(tmp_path, c10_1=case(), c2_10=case(), c2_9=case())
    assert [result.case for result in results] == ["2.9", "2.10", "10.1"]


@pytest.mark.parametrize("expected", [1, 3])
def test_the_number_of_cases_must_be_exact(tmp_path: Path, expected: int) -> None:
    """A report that misses cases, or has too many, is not a clean one."""
    results = report(tmp_path, c1_1=case(), c1_2=case())
    [problem] = problems(results, cases=expected, non_strict=0)
    assert problem == f"the report has 2 cases, not {expected}"


def test_a_report_of_somebody_else_is_empty(tmp_path: Path) -> None:
    """Where our client never came, or nothing was to be run, no case is a problem too."""
    results = report(tmp_path, "another", c1_1=case())
    assert problems(results, cases=1, non_strict=0) == ["no case ran"]
    assert problems([], cases=0, non_strict=0) == ["no case ran"]


@pytest.mark.parametrize("behavior", ["FAILED", "UNIMPLEMENTED", "UNHEARD OF"])
def test_any_other_behavior_is_a_problem(tmp_path: Path, behavior: str) -> None:
    """The offending case is named, also for words that nobody knows yet."""
    results = report(tmp_path, c1_1=case(), c6_4_1=case(behavior, "OK", 1007))
    [problem] = problems(results, cases=2, non_strict=99)
    assert problem == f"6.4.1: {behavior}, close OK (1007)"


@pytest.mark.parametrize("close", ["FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT"])
def test_any_other_close_is_a_problem(tmp_path: Path, close: str) -> None:
    """A good behaviour does not make up for a bad close, nor does a NON-STRICT one."""
    results = report(tmp_path, c7_1_1=case("OK", close, None), c7_1_2=case("NON-STRICT", close))
    assert problems(results, cases=2, non_strict=1) == [
        f"7.1.1: OK, close {close} (None)",
        f"7.1.2: NON-STRICT, close {close} (1000)",
    ]


def test_non_strict_cases_are_allowed_up_to_a_limit(tmp_path: Path) -> None:
    """At the limit all is well; above it they are named."""
    results = report(tmp_path, c3_2=case("NON-STRICT"), c3_10=case("NON-STRICT"), c4_1=case())
    assert problems(results, cases=3, non_strict=2) == []
    [problem] = problems(results, cases=3, non_strict=1)
    assert problem == "2 cases are NON-STRICT, more than 1: 3.2, 3.10"


def test_the_summary_counts_both_verdicts(tmp_path: Path) -> None:
    """One line tells how many cases behaved, and closed, in which way."""
    results = report(tmp_path, c1=case(), c2=case("NON-STRICT"), c3=case("OK", "UNCLEAN"))
    assert summary(results) == "3 cases: 2 OK, 1 NON-STRICT; close: 2 OK, 1 UNCLEAN"


def test_the_tables_show_versions_and_figures(tmp_path: Path) -> None:
    """Date, versions, a row for all cases, one for each group that ran, and the others'."""
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


def test_runs_that_differ_are_told(tmp_path: Path) -> None:
    """Whether several runs gave the same, case by case, stands below the tables."""
    good = report(tmp_path, c1_1=case(), c1_2=case())
    unclean = report(tmp_path, c1_1=case(), c1_2=case("OK", "UNCLEAN"))
    same = results_section("client", [good, good], FACTS).splitlines()
    assert same[-1] == "2 consecutive runs gave the same results in every case."
    other = results_section("client", [good, unclean, good], FACTS).splitlines()
    assert other[-1] == "3 consecutive runs gave the same results except 1.2."


def test_only_whole_runs_make_a_table(tmp_path: Path) -> None:
    """The page never shows a part of the suite as if it were all."""
    folder = tmp_path / "run1"
    folder.mkdir()
    report(folder, c1_1=case())
    (folder / "facts.json").write_text(json.dumps(FACTS), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("as it was", encoding="utf-8")
    assert main(["--reports", str(tmp_path), "--page", str(page)]) == 1
    assert page.read_text(encoding="utf-8") == "as it was"
    assert main(["--reports", str(tmp_path / "run1"), "--page", str(page)]) == 1


@pytest.mark.parametrize("role", MARKS)
def test_the_page_keeps_its_words(role: str) -> None:
    """Only what stands between the role's marks is replaced; once more changes nothing."""
    page = f"before\n\n<!-- {role} -->\nold\n<!-- end of {role} -->\n\nafter\n"
    renewed = page_with(role, page, "new")
    assert renewed == f"before\n\n<!-- {role} -->\n\nnew\n\n<!-- end of {role} -->\n\nafter\n"
    assert page_with(role, renewed, "new") == renewed


@pytest.mark.parametrize("role", MARKS)
def test_the_page_has_its_marks(role: str) -> None:
    """docs/conformance.md is a page that can be renewed, for both roles."""
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    renewed = page_with(role, page, "new")
    assert f"<!-- {role} -->\n\nnew\n\n<!-- end of {role} -->\n\n" in renewed
    assert renewed.splitlines()[-1] == page.splitlines()[-1]


def test_each_role_is_shown_beside_others_of_its_kind(tmp_path: Path) -> None:
    """The server's row stands beside servers, not clients."""
    lines = results_section("server", [report(tmp_path, c1_1=case())], FACTS).splitlines()
    assert any(line.startswith("| server | OK |") for line in lines)
    assert any("websockets" in line and "server |" in line for line in lines)
    assert not any("client" in line for line in lines)
