"""trioglock from a shell: ``python -m trioglock``."""

from .main import main

__all__ = ["main"]
