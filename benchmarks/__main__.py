"""Runs the benchmarks: ``python -m benchmarks``, or ``nox -s bench``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from .acceptance import verdicts
from .cases import Case, all_cases
from .chart import draw
from .descriptors import raise_limit
from .idle import IDLE, run_idle
from .processes import servers
from .report import insert_report, to_json, to_markdown
from .results import Results
from .rounds import Effort, Workers, run_case

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"

# The servers and the measurements need these. The libraries of other contenders are optional.
NEEDED = ("picows", "uvloop", "trustme", "psutil")

IDLE_CONNECTIONS = (1_000, 10_000)
SPARE_DESCRIPTORS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected benchmarks and return the exit code.

    Returns:
        0 on success, 1 if a job of a contender failed, 2 if a required package is not installed.
        Slow results do not change the exit code.
    """
    options = _options(arguments)
    if options.list:
        print(*(case.name for case in _cases(options)), IDLE, sep="\n")
        return 0
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        print(f"not installed: {', '.join(absent)}; try pip install -e '.[bench]'", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    effort = _effort(options)
    results = Results()
    _run(options, effort, results)
    for verdict in verdicts(results):
        print(f"{verdict.kept:4} {verdict.what}: {verdict.limit}: {verdict.measured}")
    report = to_markdown(results, effort)
    (options.out / "performance.md").write_text(report, encoding="utf-8")
    (options.out / "performance.json").write_text(to_json(results, effort), encoding="utf-8")
    charts = draw(results, options.out)
    print(f"written to {options.out}")
    if options.write_docs:
        insert_report(PAGE, report)
        if charts:
            shutil.copy(charts[0], PAGE.with_suffix(".svg"))
    for contender, error in results.missing.items():
        print(f"not installed: {contender} ({error})")
    for failure in results.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if results.failures else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=7, help="rounds of each case (default 7)")
    add(
        "--quick",
        action="store_true",
        help="run one very short round to check that everything works",
    )
    add(
        "--only",
        action="append",
        help="run cases whose name matches this text or pattern; repeatable",
    )
    add(
        "--contender",
        action="append",
        help="run contenders whose label matches this text or pattern; repeatable",
    )
    add("--list", action="store_true", help="list the names of the cases and exit")
    add("--out", type=Path, default=ROOT / "build" / "bench", help="folder of the results")
    add("--write-docs", action="store_true", help="insert the report into docs/performance.md")
    return parser.parse_args(arguments)


def _effort(options: argparse.Namespace) -> Effort:
    if options.quick:
        return Effort(rounds=1, seconds=0.01, max_messages=64, idle=(10,), window=0.1)
    idle = tuple(n for n in IDLE_CONNECTIONS if n + SPARE_DESCRIPTORS < raise_limit())
    # 20 seconds is the longest window in which every connection sends exactly one ping.
    return Effort(rounds=options.rounds, seconds=0.15, max_messages=2**21, idle=idle, window=20)


def _run(options: argparse.Namespace, effort: Effort, results: Results) -> None:
    cases = _cases(options)
    contenders = {entry.contender: None for case in cases for entry in case.entries}
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder)) as running,
        Workers(contenders, results) as workers,
    ):
        for case in cases:
            run_case(case, workers, running[case.server], effort, results, _print_line)
        if _matches(IDLE, options.only):
            run_idle(running["echo"], effort, results, _print_line)


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = [_select_entries(c, options) for c in all_cases() if _matches(c.name, options.only)]
    return [case for case in cases if case.entries]


def _select_entries(case: Case, options: argparse.Namespace) -> Case:
    entries = tuple(e for e in case.entries if _matches(e.label, options.contender))
    job = case.job
    if options.quick and "connections" in job:
        job = {**job, "connections": min(10, job["connections"])}
    return replace(case, entries=entries, job=job)


def _matches(name: str, patterns: Sequence[str] | None) -> bool:
    name = name.lower()
    return not patterns or any(fnmatch(name, f"*{p.lower()}*") for p in patterns)


def _print_line(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
