"""The version, in one place."""

from __future__ import annotations

__all__ = ["__version__", "version"]

__version__ = "0.2.0.dev0"

_is_compiled = __file__.endswith((".so", ".pyd"))

version: str = f"{__version__}+compiled" if _is_compiled else __version__
"""The version of this build: ``__version__``, and ``+compiled`` if modules are compiled."""
