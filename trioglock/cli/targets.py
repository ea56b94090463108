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

__all__ = ["check_target", "load_target"]


def check_target(settings: Settings) -> None:
    """Look whether a target can be meant by this, before anything is imported.

    Raises:
        InvalidOption: the name is none, or a new Hub cannot be made as it is asked for.
    """
    if settings.target is None:
        _new_hub(settings)
    elif settings.target != ECHO and not all(settings.target.partition(":")):
        raise InvalidOption(f"a target is {ECHO}, or written module:name, not {settings.target}")


def load_target(settings: Settings) -> Any:
    """The target that the settings name: a Hub, or whatever :func:`trioglock.serve` takes.

    Raises:
        InvalidOption: there is none.
    """
    check_target(settings)
    target = settings.target
    if target is None:
        return _new_hub(settings)
    if target == ECHO:
        return Echo
    module, _, name = target.partition(":")
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


def _new_hub(settings: Settings) -> Hub:
    redis, history = settings.redis, settings.history
    return Hub(settings.name, RedisBroker(redis, history=history) if redis else None)


def _told(target: str, error: Exception) -> str:
    """What a module raised, and where: in its own code, not in what imported it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}, line {last.lineno}"
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
        return f"{target} cannot be imported: {error.msg} ({where})"
    return f"{target} cannot be imported: {type(error).__name__}: {error} ({where})"
