"""Reads and checks the reports of the Autobahn suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALL_CASES", "CLEAN", "Result", "problems", "read_report", "summary"]

ALL_CASES = 517
"""The number of cases in the suite. A report with fewer cases is incomplete."""

CLEAN = frozenset({"OK", "INFORMATIONAL"})
"""Results that are not problems. A behavior may also be ``NON-STRICT``: allowed, but not ideal."""


@dataclass(frozen=True)
class Result:
    """The result of one case."""

    case: str
    behavior: str
    close: str
    close_code: int | None
    milliseconds: int

    @property
    def verdict(self) -> tuple[str, str]:
        """The part of the result that must be the same in every run."""
        return self.behavior, self.close

    def __str__(self) -> str:
        return f"{self.case}: {self.behavior}, close {self.close} ({self.close_code})"


def read_report(index: Path, agent: str) -> list[Result]:
    """Return the results of ``agent`` in the ``index.json`` of the suite, sorted by case."""
    cases: Mapping[str, Mapping[str, object]]
    cases = json.loads(index.read_text(encoding="utf-8")).get(agent, {})
    return [_result(case, cases[case]) for case in sorted(cases, key=case_key)]


def case_key(case: str) -> list[int]:
    """Return a sort key that orders cases by number: 2.10 comes after 2.9."""
    return [int(part) for part in case.split(".")]


def _result(case: str, found: Mapping[str, object]) -> Result:
    code, duration = found["remoteCloseCode"], found["duration"]
    assert code is None or isinstance(code, int)
    assert isinstance(duration, int)
    return Result(case, str(found["behavior"]), str(found["behaviorClose"]), code, duration)


def problems(results: list[Result], *, cases: int, non_strict: int) -> list[str]:
    """Return a description of each problem in a report.

    Args:
        results: the results of all cases that ran.
        cases: the expected number of results.
        non_strict: the maximum number of NON-STRICT results.
    """
    return list(_problems(results, cases, non_strict))


def _problems(results: list[Result], cases: int, non_strict: int) -> Iterator[str]:
    if not results:
        yield "no case ran"
    elif len(results) != cases:
        yield f"the report has {len(results)} cases, not {cases}"
    lenient = [result for result in results if result.behavior == "NON-STRICT"]
    if len(lenient) > non_strict:
        names = ", ".join(result.case for result in lenient)
        yield f"{len(lenient)} cases are NON-STRICT, more than {non_strict}: {names}"
    for result in results:
        if result.behavior not in CLEAN | {"NON-STRICT"} or result.close not in CLEAN:
            yield str(result)


def summary(results: list[Result]) -> str:
    """Return one line with the number of cases for each behavior and each kind of close."""
    behaviors = Counter(result.behavior for result in results)
    closes = Counter(result.close for result in results)
    return f"{len(results)} cases: {_counts(behaviors)}; close: {_counts(closes)}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())
