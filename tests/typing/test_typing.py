"""Type checks of code that uses trioglock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

HERE = Path(__file__).parent


@pytest.mark.slow
def test_programs_are_fully_typed(tmp_path: Path) -> None:
    """``mypy --strict`` infers the types in api.py and reports its expected errors.

    Type errors in other programs are reported, so trioglock provides its types. Both are in one
    run, because mypy fails if two processes create its cache at the same time.
    """
    program = tmp_path / "program.py"
    program.write_text(
        "from trioglock import Close, Connection, Socket, connect, serve\n"
        "def use(conn: Connection[int]) -> str:\n"
        "    return conn.state\n"
        "Close(reason=1)\n"
        "connect('ws://h', Socket, max_queue=1)\n"
        "connect('ws://h', overflow='drop')\n"
        "connect('ws://h', codec=5)\n"
        "serve(Socket(), port='80')\n"
        "serve(Socket, max_siz=1)\n"
    )
    checked = subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
        [sys.executable, "-m", "mypy", "--strict", str(HERE / "api.py"), str(program)],
        cwd=HERE.parent.parent,  # it contains the cache
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert checked.returncode == 1, checked.stdout + checked.stderr
    lines = checked.stdout.splitlines()
    # Early versions of mypy add where a function is defined.
    assert all("program.py:" in line or ": note: " in line for line in lines[:-1]), checked.stdout
    assert 'program.py:3: error: Incompatible return value type (got "int"' in checked.stdout
    assert "program.py:4: error: Argument" in checked.stdout
    # Without overloads, no error shows all options.
    assert all(any(f"program.py:{line}: error" in one for one in lines) for line in range(5, 10))
    assert max(map(len, lines)) < 500, checked.stdout
