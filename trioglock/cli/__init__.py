"""The command line: ``trioglock``, or ``python -m trioglock``."""

from .main import main

__all__ = ["main"]
