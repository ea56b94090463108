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
from .case import BASELINE, COMPILED, Case
from .cases import all_cases, build_entry
from .chart import draw
from .descriptors import raise_limit
from .processes import servers
from .report import insert_reports, lost_goals, to_json, to_markdown
from .results import Results
from .rounds import Effort, Workers, run_case

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"

# The servers and the measurements need these. The libraries of other contenders are optional.
NEEDED = ("picows", "uvloop", "trustme", "psutil")

SPARE_DESCRIPTORS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected benchmarks and return the exit code.

    Returns:
        0 on success, 1 if a job of a contender failed or, with ``--gate``, a goal is lost, 2 if a
        required package is not installed.
    """
    options = _options(arguments)
    if options.list:
        print(*(name for case in _cases(options) for name in case.names), sep="\n")
        return 0
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        print(
            f"not installed: {', '.join(absent)}; pip install --group bench",
            file=sys.stderr,
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    effort = _effort(options)
    results = Results()
    _run(options, effort, results)
    lost = lost_goals(PAGE, results) if options.gate else []
    for verdict in verdicts(results):
        print(f"{verdict.kept:4} {verdict.what}: {verdict.limit}: {verdict.measured}")
    report = to_markdown(results, effort)
    (options.out / "performance.md").write_text(report, encoding="utf-8")
    (options.out / "performance.json").write_text(to_json(results, effort), encoding="utf-8")
    published = results.without(BASELINE)
    charts = draw(published, options.out)
    print(f"written to {options.out}")
    if options.write_docs:
        insert_reports(PAGE, published, effort)
        if charts:
            shutil.copy(charts[0], PAGE.with_suffix(".svg"))
    for contender, error in results.missing.items():
        print(f"not installed: {contender} ({error})")
    for failure in results.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    for goal in lost:
        print(f"LOST {goal}", file=sys.stderr)
    return 1 if results.failures or lost else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds of each case (default 5)")
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
        "--group",
        action="append",
        choices=("client", "server", "channels", "hub"),
        help="run the cases with this side of trioglock; repeatable",
    )
    add(
        "--contender",
        action="append",
        help="run contenders whose label matches this text or pattern; repeatable",
    )
    add(
        "--baseline",
        type=_build,
        help="directory of an older trioglock that takes part in every case",
    )
    add(
        "--compiled",
        type=_build,
        help="directory of a compiled trioglock that takes part in every case",
    )
    add(
        "--gate",
        action="store_true",
        help="fail if a goal is missed that docs/performance.md shows as met",
    )
    add("--list", action="store_true", help="list the names of the cases and exit")
    add("--out", type=Path, default=ROOT / "build" / "bench", help="folder of the results")
    add("--write-docs", action="store_true", help="insert the report into docs/performance.md")
    return parser.parse_args(arguments)


def _build(directory: str) -> Path:
    path = Path(directory).resolve()
    if not (path / "trioglock" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"there is no package trioglock in {directory}")
    return path


def _effort(options: argparse.Namespace) -> Effort:
    given = {BASELINE: options.baseline, COMPILED: options.compiled}
    builds = {name: path for name, path in given.items() if path is not None}
    if options.quick:
        return Effort(
            rounds=1,
            seconds=0.01,
            max_messages=64,
            max_connections=10,
            max_window=0.1,
            builds=builds,
        )
    return Effort(
        rounds=options.rounds,
        seconds=0.15,
        max_messages=2**21,
        max_connections=raise_limit() - SPARE_DESCRIPTORS,
        max_window=60,
        builds=builds,
    )


def _run(options: argparse.Namespace, effort: Effort, results: Results) -> None:
    cases = [case for case in _cases(options) if options.quick or _has_descriptors(case, effort)]
    cases = [_with_builds(case, effort) for case in cases]
    entries = [entry for case in cases if not case.fresh for entry in case.entries]
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {case.server for case in cases}) as running,
        Workers(entries, effort.builds, results) as workers,
    ):
        for case in cases:
            run_case(case, workers, running[case.server], effort, results, _print_line)


def _has_descriptors(case: Case, effort: Effort) -> bool:
    return bool(case.job.get("connections", 1) <= effort.max_connections)


def _with_builds(case: Case, effort: Effort) -> Case:
    """Add the entries of the other builds of trioglock."""
    others = [build_entry(entry, build) for build in effort.builds for entry in case.entries]
    return replace(case, entries=(*case.entries, *(e for e in others if e is not None)))


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = [
        _select_entries(case, options)
        for case in all_cases()
        if any(_matches(name, options.only) for name in case.names)
        and (not options.group or case.group in options.group)
    ]
    return [case for case in cases if case.entries]


def _select_entries(case: Case, options: argparse.Namespace) -> Case:
    entries = tuple(e for e in case.entries if _matches(e.label, options.contender))
    return replace(case, entries=entries)


def _matches(name: str, patterns: Sequence[str] | None) -> bool:
    name = name.lower()
    return not patterns or any(fnmatch(name, f"*{p.lower()}*") for p in patterns)


def _print_line(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
