"""Writing to standard streams: errors, pipes that block, streams that are missing."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from pathlib import Path

import pytest
import trio

from trioglock.cli.streams import LineHandler, OutputClosed, OutputFailed, OutputStream, print_line


async def test_a_stream_without_a_descriptor() -> None:
    """It is written to as text."""
    stream = io.StringIO()
    await OutputStream(stream).write("ü\n".encode())
    assert stream.getvalue() == "ü\n"


async def test_a_missing_stream() -> None:
    """A process may have no stdout."""
    with pytest.raises(OutputClosed):
        await OutputStream(None).write(b"x")


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EIO, OutputClosed), (errno.ENOSPC, OutputFailed)]
)
async def test_write_errors(
    number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that has gone is closed; any other failure has the system's message."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    stream = OutputStream(sys.__stdout__)
    monkeypatch.setattr("trioglock.cli.streams.os.write", fail)
    with pytest.raises(error) as raised:
        await stream.write(b"x")
    assert str(raised.value) == ("" if error is OutputClosed else os.strerror(number))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be made non-blocking")
async def test_a_non_blocking_output() -> None:
    """Another process may have made a pipe non-blocking."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(write, "w") as stream:
        async with trio.open_nursery() as nursery:
            data = b"x" * 200_000
            nursery.start_soon(OutputStream(stream).write, data)
            async with trio.lowlevel.FdStream(read) as source:
                received = b""
                while len(received) < len(data):
                    received += await source.receive_some(2**16)
    assert received == data


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("problem", ["full disk", "closed pipe", "full pipe", "closed", "missing"])
def test_fault_40_a_line_that_cannot_be_printed_is_dropped(
    problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither raises nor blocks, nor does a log record, nor what Python prints at its exit."""
    read, write = os.pipe()
    stream = Path("/dev/full").open("w") if problem == "full disk" else os.fdopen(write, "w")  # noqa: SIM115
    if problem == "full pipe":
        os.set_blocking(write, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(write, b"x" * 4096)
        os.set_blocking(write, True)
    if problem == "closed":
        stream.close()
    if problem != "full pipe":
        os.close(read)
    print_line("text", stream)
    monkeypatch.setattr("sys.stderr", None if problem == "missing" else stream)
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%d", ("wrong",), None)
    LineHandler().handle(record)
    stream.close()  # nothing is left in its buffer
    if problem == "full disk":
        os.close(write)


def test_a_line() -> None:
    """It appears at once, whatever it contains."""
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read, "rb") as source:
        print_line("ü\udcff", stream)
        assert source.readline() == "ü\\udcff\n".encode()
