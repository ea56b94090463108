"""Compiles some modules with mypyc while a wheel is built, if ``TRIOGLOCK_COMPILED=1`` is set.

The modules are listed in pyproject.toml. Their source stays in the wheel: Python prefers the
compiled module, and tracebacks and type checkers read the source. Without the variable, and for
editable installs, which must follow the source, the wheel is pure Python and needs no compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "trioglock"


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # generic in an internal class
    """The build hook; hatchling calls its methods."""

    _scratch: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """Return what compiling needs: mypyc, and the dependencies, for their types."""
        if not _is_wanted():
            return []
        return [self.config["mypyc"], *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the compiled modules to the wheel."""
        if not _is_wanted() or version == "editable":
            return
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        compiled = _compile(Path(self.root), folder, self.config["modules"])
        for path in compiled:
            build_data["force_include"][str(path)] = path.relative_to(folder).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - the interface
        """Delete the temporary files."""
        if self._scratch is not None:
            self._scratch.cleanup()


def _is_wanted() -> bool:
    return os.environ.get("TRIOGLOCK_COMPILED", "0") not in ("", "0")


def _compile(root: Path, folder: Path, modules: list[str]) -> list[Path]:
    """Compile modules of a copy of the package, so that nothing is left in the source tree."""
    shutil.copytree(
        root / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("*.so", "*.pyd")
    )
    command = [sys.executable, "-m", "mypyc", "--follow-imports=silent", *modules]
    levels = {"MYPYC_OPT_LEVEL": "3", "MYPYC_DEBUG_LEVEL": "0"}
    subprocess.run(command, cwd=folder, env={**os.environ, **levels}, check=True)
    # One library holds the code of all modules; each module is a small stub that loads it.
    suffix = ".pyd" if sys.platform == "win32" else ".so"
    return [*folder.glob(f"*{suffix}"), *folder.glob(f"{PACKAGE}/**/*{suffix}")]
