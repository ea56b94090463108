"""Targets: what ``trioglock serve`` is asked to serve, found by its name."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from ..errors import InvalidOption
from ..pubsub import Hub, RedisBroker
from .echo import Echo
from .settings import ECHO, Settings

__all__ = ["load_target"]


def load_target(settings: Settings) -> Any:
    """The target that the settings name: a Hub, or whatever :func:`trioglock.serve` takes.

    Raises:
        InvalidOption: there is none.
    """
    target = settings.target
    if target is None:
        redis, history = settings.redis, settings.history
        return Hub(settings.name, RedisBroker(redis, history=history) if redis else None)
    if target == ECHO:
        return Echo
    module, _, name = target.partition(":")
    if not module or not name:
        raise InvalidOption(f"a target is {ECHO}, or written module:name, not {target}")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a str, as the others in there
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InvalidOption(f"{target} cannot be imported: {error}") from error
    except AttributeError as error:
        if error.obj is not sys.modules.get(module):
            raise InvalidOption(_told(target, error)) from error
        raise InvalidOption(f"{module} has no {name}") from None
    except Exception as error:
        raise InvalidOption(_told(target, error)) from error


def _told(target: str, error: Exception) -> str:
    """What a module raised, and where: in its own code, not in what imported it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}, line {last.lineno}"
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
        return f"{target} cannot be imported: {error.msg} ({where})"
    return f"{target} cannot be imported: {type(error).__name__}: {error} ({where})"
