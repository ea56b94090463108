"""A target for atheris: the decoder returns the same events however its input is split.

``python -m tests.machines.fuzz_decoder [libFuzzer's options] [folder of the corpus]``. The first
bytes of an input select role, compression, limit and chunks; the rest is the data.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tests.transports.native.frame_bytes import Item, flat, new_deflate, single_bytes
from trioglock.frames import Ping, Violation
from trioglock.transports.native import Decoder, Encoder
from trioglock.transports.native.decoder import INFLATE_BUDGET

__all__ = ["check", "main", "seeds"]

HEAD = 6
LIMITS = (300, 70_000, 2**20)


def check(data: bytes) -> None:
    """Decode the data at once and in chunks. Raises AssertionError if the results differ."""
    if len(data) < HEAD:
        return
    head, wire = data[:HEAD], data[HEAD:]
    masked, deflate = bool(head[0] & 1), bool(head[0] & 2)
    max_size = LIMITS[head[0] // 4 % len(LIMITS)]
    whole = _decode([wire], masked=masked, deflate=deflate, max_size=max_size)
    pieces = _decode(_cut(wire, head[1:]), masked=masked, deflate=deflate, max_size=max_size)
    assert pieces == whole, (pieces, whole)


def _cut(wire: bytes, how: bytes) -> list[bytes]:
    if how[0] == 0:
        return single_bytes(wire)
    cuts = sorted({int.from_bytes(how[at : at + 2]) % (len(wire) + 1) for at in range(len(how))})
    return [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


def _decode(chunks: list[bytes], *, masked: bool, deflate: bool, max_size: int) -> list[Item]:
    decoder = Decoder(masked=masked, max_size=max_size, deflate=new_deflate() if deflate else None)
    found: list[Item] = []
    for chunk in chunks:
        found += _feed(decoder, chunk, max_size)
        while decoder.backlog:
            found += _feed(decoder, b"", max_size)
    ends = [at for at, item in enumerate(found) if isinstance(item, Violation)]
    assert ends in ([], [len(found) - 1]), found
    return [Violation(item.code, "") if isinstance(item, Violation) else item for item in found]


def _feed(decoder: Decoder, chunk: bytes, max_size: int) -> list[Item]:
    """Decode one chunk and check the memory limit."""
    items = flat(decoder.feed(chunk))
    sizes = [len(item.encode() if isinstance(item, str) else item) for item in _data(items)]
    assert max(sizes, default=0) <= max_size, sizes
    # What was begun before may be as large as a message, and so may what exceeds the budget.
    assert sum(sizes) <= INFLATE_BUDGET + 2 * max_size + len(chunk) + 2**16, sum(sizes)
    return items


def _data(items: list[Item]) -> list[str | bytes]:
    return [item for item in items if isinstance(item, str | bytes)]


def seeds() -> list[bytes]:
    """Create valid inputs for the corpus: both roles, plain and compressed."""
    inputs = []
    for flags in range(4):
        deflate = new_deflate() if flags & 2 else None
        encoder = Encoder(mask=bool(flags & 1), deflate=deflate)
        wire = encoder.encode(["text \u2603", b"binary" * 30, Ping(b"ping"), "x" * 400])
        inputs.append(bytes((flags + 4, 1, 9, 77, 3, 200)) + wire)
        inputs.append(bytes((flags, 0, 0, 0, 0, 0)) + wire)
    return inputs


def _instrument(module: ModuleType, atheris: Any) -> None:
    """Instrument the functions and methods of a module for atheris."""
    for owner in (module, *vars(module).values()):
        if owner is not module and not isinstance(owner, type):
            continue
        for name, function in list(vars(owner).items()):
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                setattr(owner, name, atheris.instrument_func(function))


def main(arguments: list[str]) -> None:
    """Run atheris. Does not return."""
    atheris = importlib.import_module("atheris")
    for name in ("decoder", "deflate", "fast_path"):
        _instrument(importlib.import_module(f"trioglock.transports.native.{name}"), atheris)
    folders = [Path(argument) for argument in arguments[1:] if not argument.startswith("-")]
    if folders:
        folders[0].mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds()):
            Path(folders[0], f"seed-{number}").write_bytes(data)
    atheris.Setup(arguments, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
