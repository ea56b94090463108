"""Inserts the latest results into docs/conformance.md: ``python -m tests.autobahn.table``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.autobahn.client import AGENT
from tests.autobahn.report import ALL_CASES, CLEAN, Result, read_report
from tests.autobahn.run import REPORTS, SERVER_REPORTS
from tests.scripts import ROOT

__all__ = ["main", "page_with", "results_section"]

PAGE = ROOT / "docs" / "conformance.md"

MARKERS = {
    "client": ("<!-- client -->\n", "<!-- end of client -->\n"),
    "server": ("<!-- server -->\n", "<!-- end of server -->\n"),
}
"""The markers around the results of each role."""

BEHAVIORS = ("OK", "NON-STRICT", "FAILED", "UNIMPLEMENTED", "INFORMATIONAL")

GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits and speed",
    "10": "automatic fragmentation",
    "12": "compression, by payload",
    "13": "compression, by parameters",
}

# Other libraries, with all cases of the suite: the number of each behavior and of closes not OK.
OTHERS: Mapping[str, Mapping[str, tuple[int, int, int, int, int, int | str]]] = {
    "client": {
        "websockets 17.4, trio client": (502, 11, 1, 0, 3, 1),
        "trio-websocket 0.12.2, client": (213, 10, 75, 216, 3, 105),
    },
    "server": {
        "websockets 17.4, trio server": (501, 12, 1, 0, 3, "sometimes a few in 7.\\*"),
        "trio-websocket 0.12.2, server": (291, 7, 0, 216, 3, "not recorded"),
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Insert the results of all runs in a folder into the page; return the exit code."""
    parser = argparse.ArgumentParser(prog="table", description=__doc__)
    parser.add_argument("--server", action="store_true", help="insert the results of the server")
    parser.add_argument("--reports", type=Path, help="folder of the reports")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to change")
    options = parser.parse_args(arguments)
    role = "server" if options.server else "client"
    reports = options.reports or (SERVER_REPORTS if options.server else REPORTS)
    folders = sorted(reports.glob("run[0-9]*"), key=_run_number)
    runs = [read_report(folder / "index.json", AGENT) for folder in folders]
    if not runs or any(len(results) != ALL_CASES for results in runs):
        print(f"{reports} must contain complete runs of all {ALL_CASES} cases")
        return 1
    facts = [json.loads((each / "facts.json").read_text(encoding="utf-8")) for each in folders]
    section = results_section(role, runs, facts[-1] | _fastest(facts))
    page = page_with(role, options.page.read_text(encoding="utf-8"), section)
    options.page.write_text(page, encoding="utf-8")
    return 0


def _fastest(facts: list[dict[str, str]]) -> dict[str, str]:
    """Return the shortest time, which other programs on the machine affected least."""
    return {"seconds": min((each["seconds"] for each in facts), key=int)}


def _run_number(folder: Path) -> int:
    return int(folder.name.removeprefix("run"))


def page_with(role: str, page: str, section: str) -> str:
    """Return the page with the results of the role replaced by ``section``."""
    begin, end = MARKERS[role]
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{section}\n\n{end}{after}"


def results_section(role: str, runs: list[list[Result]], facts: Mapping[str, str]) -> str:
    """Return the tables of the last run, and the differences between the runs."""
    last = runs[-1]
    return "\n".join([*_overview(role, last, facts), "", *_groups(last), "", *_closing(runs)])


def _overview(role: str, results: list[Result], facts: Mapping[str, str]) -> Iterator[str]:
    versions = ", ".join(f"{name} {facts[name]}" for name in ("trio", "websockets", "Python"))
    yield f"Measured on {facts['date']}: trioglock {facts['trioglock']} with {versions},"
    suite = f"autobahntestsuite {facts['autobahntestsuite']}"
    yield f"by {suite}; the fastest run took {facts['seconds']} s."
    yield ""
    yield from _head(role)
    yield _row(f"**trioglock {facts['trioglock']}**", _counts(results))
    for name, counts in OTHERS[role].items():
        yield _row(name, counts)


def _groups(results: list[Result]) -> Iterator[str]:
    yield from _head("cases")
    for number, name in GROUPS.items():
        group = [result for result in results if result.case.split(".")[0] == number]
        if group:
            yield _row(f"{number}.\\* {name}", _counts(group))


def _head(first: str) -> Iterator[str]:
    yield f"| {first} | {' | '.join(BEHAVIORS)} | close not OK |"
    yield "|---" * (len(BEHAVIORS) + 2) + "|"


def _row(name: str, counts: Iterable[int | str]) -> str:
    return f"| {name} | {' | '.join(map(str, counts))} |"


def _counts(results: list[Result]) -> Iterator[int]:
    behaviors = Counter(result.behavior for result in results)
    yield from (behaviors[behavior] for behavior in BEHAVIORS)
    yield sum(result.close not in CLEAN for result in results)


def _closing(runs: list[list[Result]]) -> Iterator[str]:
    """Yield the NON-STRICT cases, and whether all runs gave the same results."""
    lenient = [result.case for result in runs[-1] if result.behavior == "NON-STRICT"]
    if lenient:
        yield f"NON-STRICT: {', '.join(lenient)}."
    if len(runs) > 1:
        seen = [{result.case: result.verdict for result in results} for results in runs]
        unsteady = [case for case in seen[-1] if len({run.get(case) for run in seen}) > 1]
        same = f"except {', '.join(unsteady)}" if unsteady else "in every case"
        yield f"{len(runs)} consecutive runs gave the same results {same}."


if __name__ == "__main__":
    sys.exit(main())
