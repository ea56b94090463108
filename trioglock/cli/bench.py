"""``trioglock bench``: measure the throughput and the latency of an echo server."""

from __future__ import annotations

import base64
import itertools
import json
import math
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
import plotille
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from .._redact import printable, redact_url, shorten
from .._text import seconds_text
from ..client import connect
from ..connection import Connection
from ..disconnect import Disconnect
from ..errors import ConnectError, ConnectFailed, ConnectionClosed, InvalidOption, InvalidURL
from ..frames import Data
from ..headers import Headers
from ..hooks import ConnectionInfo, Reply, Socket
from ..options import DialOptions
from ..transports import check_url
from .options import CarefulCommand, header_option, seconds

__all__ = ["command"]

MAX_IN_FLIGHT = 2**30  # bytes; every message in flight is kept and compared with its echo
MAX_RESPONSE = 2**20  # bytes; a response longer than this and its message ends the connection
MAX_CONNECTING = 64  # opening handshakes at the same time
CLOSE_TIMEOUT = 2  # seconds
PERCENTILES = (50, 90, 99, 99.9)
SIGNIFICANT_BITS = 11  # of recorded times: three digits
BUSY = 0.9  # share of a CPU core above which the client itself may limit the results
COLORS = (("p90", "cyan"), ("p99", "yellow"), ("max", "red"))  # for latencies up to each value
BRAILLE_TO_ASCII = {0x2800 + dots: " ..:::###"[dots.bit_count()] for dots in range(256)}

EPILOG = """
\b
Exit codes:
  0    every message was echoed
  1    a connection failed, or the server does not echo
  2    invalid arguments
  3    could not connect
  130  Ctrl-C; the results so far are printed

\b
Examples:
  trioglock bench
  trioglock bench ws://127.0.0.1:8020/ --connections 100 --seconds 30
  trioglock bench wss://example.org/echo --header 'Authorization: Bearer TOKEN'
  trioglock bench --size 16384 --in-flight 32 --binary --json > results.json
"""


@click.command("bench", cls=CarefulCommand, short_help="Measure an echo server.", epilog=EPILOG)
@click.argument("url", required=False)
@click.option(
    "--connections",
    type=click.IntRange(1, 100_000),
    default=10,
    metavar="N",
    help="Number of concurrent connections.",
)
@click.option(
    "--size",
    type=click.IntRange(0, 2**26),
    default=64,
    metavar="BYTES",
    help="Size of a message.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 100_000),
    default=1,
    metavar="N",
    help="Messages in flight on each connection.",
)
@seconds("--seconds", help="Duration.  [default: 5]")
@click.option(
    "--messages", type=click.IntRange(1), metavar="N", help="Total number, instead of a duration."
)
@seconds("--warm-up", zero=True, help="Duration of traffic before the measurement.  [default: 1]")
@seconds("--timeout", default="10", help="Timeout of an opening handshake and of an echo.")
@click.option("--binary", is_flag=True, help="Send binary messages instead of text.")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@header_option("headers")
@click.option("--json", "as_json", is_flag=True, help="Print the results as a JSON object.")
def command(url: str | None, *, as_json: bool, **options: Any) -> int:
    """Measure messages per second and latencies of an echo server.

    Each connection sends a message, waits for its echo, compares the two, and sends the next.
    URL is the address of an echo server, such as one started with 'trioglock serve echo'. Without
    a URL, the command starts an echo server in a separate process and measures it.
    """
    try:
        if url is not None:
            check_url(DialOptions(url=url))
        benchmark = Benchmark(url=url, **options)
    except (InvalidURL, InvalidOption) as error:
        raise click.UsageError(str(error)) from None
    _raise_file_limit(benchmark.connections)
    with ExitStack() as stack:
        if url is None:
            benchmark.url = stack.enter_context(embedded_server())
        trio.run(_run, benchmark)
    results = benchmark.results()
    if as_json:
        click.echo(json.dumps(results))
    elif results["opened"] and sys.stdout is not None:
        _print_results(Console(highlight=False), benchmark, results)
    for failure in results["errors"]:
        line = f"{failure['count']} x {failure['what']}: {failure['detail']}"
        click.echo(f"trioglock bench: {line}", err=True)
    if benchmark.interrupted:
        click.echo(
            "trioglock bench: interrupted; the results cover the time up to that point", err=True
        )
        return 130
    if not results["opened"]:
        return 3
    return 1 if results["errors"] else 0


async def _run(benchmark: Benchmark) -> None:
    console = Console(stderr=True)
    with trio.open_signal_receiver(signal.SIGINT) as signals:

        async def interrupt() -> None:
            await anext(signals)
            benchmark.interrupt()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            if console.is_terminal:
                nursery.start_soon(_show_progress, benchmark, console)
            await benchmark.run()
            nursery.cancel_scope.cancel()


def _raise_file_limit(connections: int) -> None:
    """Raise the limit on file descriptors for the connections, as far as the system permits."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not available on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 100 if hard == resource.RLIM_INFINITY else min(connections + 100, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def embedded_server() -> Iterator[str]:
    """Run an echo server in a separate process; yields its URL.

    The server ends when its standard input is closed, even if this process is killed. It has its
    own session, so that Ctrl-C at the terminal does not end it first.
    """
    command = [sys.executable, "-m", "trioglock.cli.echo"]
    with subprocess.Popen(  # noqa: S603 - our own
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()
        if not port:
            raise ConnectFailed("the embedded echo server did not start")
        yield f"ws://127.0.0.1:{port}/"


@dataclass(kw_only=True)
class Benchmark:
    """Opens connections, runs the traffic, and records times and failures; usable once."""

    url: str | None = field(repr=False)
    connections: int
    size: int
    in_flight: int
    seconds: float | None
    messages: int | None
    warm_up: float | None
    timeout: float
    binary: bool
    no_compression: bool
    headers: list[tuple[str, str]] = field(repr=False)

    def __post_init__(self) -> None:
        if self.messages is not None and (self.seconds is not None or self.warm_up is not None):
            raise InvalidOption("--messages cannot be combined with --seconds or --warm-up")
        if self.messages is None:
            self.seconds = 5.0 if self.seconds is None else self.seconds
            self.warm_up = 1.0 if self.warm_up is None else self.warm_up
        in_flight = self.connections * self.in_flight * self.size
        if in_flight > MAX_IN_FLIGHT:
            raise InvalidOption(
                f"{in_flight:,} bytes in flight (--connections x --in-flight x --size) are more "
                f"than the maximum of {MAX_IN_FLIGHT:,}"
            )
        self.use_proxy: bool = self.url is not None
        self.phase: str = "connecting"
        self.interrupted: bool = False
        self.clients: list[EchoClient] = []
        self.latencies: Histogram = Histogram()
        self.connect_times: Histogram = Histogram()
        self.sent: int = 0
        self.failures: dict[str, dict[str, Any]] = {}
        self.is_recording: bool = False
        self._started = self._elapsed = 0
        self._cpu = 0.0
        self._scope = trio.CancelScope()
        self._start = trio.Event()
        self._generator = self._generate()
        self._remaining = math.inf if self.messages is None else self.messages

    def _generate(self) -> Iterator[Data]:
        """Generate messages that differ from each other as far as their size allows.

        Their content is random: binary data does not compress, and text compresses to three
        quarters of its size.
        """
        noise = random.Random(20).randbytes(self.size)  # noqa: S311 - not a secret
        text = base64.b64encode(noise).decode()
        for number in itertools.count(1):
            digits = f"{number:x}"
            start = max(len(digits) - self.size, 0)  # the last digits differ most
            prefix = f"{digits} "[start : start + self.size]
            rest = slice(len(prefix), self.size)
            yield prefix.encode() + noise[rest] if self.binary else prefix + text[rest]

    def next_message(self) -> Data | None:
        """Return the next message to send; None at the end."""
        if self._remaining <= 0:
            return None
        self._remaining -= 1
        return next(self._generator)

    def record_failure(self, what: str, detail: str) -> None:
        """Count a kind of failure, with the details of its first occurrence."""
        failure = {"what": what, "count": 0, "detail": detail}
        self.failures.setdefault(what, failure)["count"] += 1

    @property
    def elapsed(self) -> float:
        """Seconds of the measurement so far."""
        now = time.perf_counter_ns() - self._started if self.is_recording else self._elapsed
        return now / 1e9

    def _stop_recording(self) -> None:
        if self.is_recording:
            self.is_recording = False
            self._elapsed = time.perf_counter_ns() - self._started
            self._cpu = time.process_time() - self._cpu

    def interrupt(self) -> None:
        """Drop all connections; the results so far remain."""
        self.interrupted = True
        self._scope.cancel()

    async def run(self) -> None:
        """Measure. Failures are recorded, not raised."""
        limiter = trio.CapacityLimiter(MAX_CONNECTING)
        with self._scope:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as connecting:
                    for _ in range(self.connections):
                        connecting.start_soon(connections.start, self._run_client, limiter)
                if self.clients:
                    async with trio.open_nursery() as checks:
                        checks.start_soon(self._check_timeouts)
                        await self._measure()
                        checks.cancel_scope.cancel()
        self._stop_recording()

    async def _measure(self) -> None:
        self.phase = "warming up"
        self._start.set()
        if self.warm_up:
            with trio.move_on_after(self.warm_up):
                await self._wait_done()
        self.phase = "measuring"
        self.is_recording = True
        self._started, self._cpu = time.perf_counter_ns(), time.process_time()
        with trio.move_on_after(math.inf if self.seconds is None else self.seconds):
            await self._wait_done()
        self._stop_recording()
        self.phase = "closing"
        self._remaining = 0
        await self._wait_done()

    async def _wait_done(self) -> None:
        for client in self.clients:
            await client.done.wait()

    async def _check_timeouts(self) -> None:
        while True:
            await trio.sleep(min(self.timeout / 4, 1))
            for client in self.clients:
                client.check_timeout(self.timeout)

    async def _run_client(
        self, limiter: trio.CapacityLimiter, *, task_status: trio.TaskStatus[None]
    ) -> None:
        assert self.url is not None
        client = EchoClient(self)
        try:
            async with AsyncExitStack() as stack:
                async with limiter:
                    started = time.perf_counter_ns()
                    opening = connect(
                        self.url,
                        client,
                        additional_headers=Headers(self.headers),
                        compression=None if self.no_compression else "deflate",
                        proxy=True if self.use_proxy else None,
                        open_timeout=self.timeout,
                        close_timeout=CLOSE_TIMEOUT,
                        max_size=max(self.size, MAX_RESPONSE),
                        write_limit=2 * MAX_IN_FLIGHT,
                    )
                    conn = await stack.enter_async_context(opening)
                self.connect_times.record(time.perf_counter_ns() - started)
                self.clients.append(client)
                task_status.started()
                await self._start.wait()
                client.start(conn)
                await client.done.wait()
        except ConnectError as error:
            self.record_failure("connection failed", printable(str(error)))
            task_status.started()
        except ConnectionClosed:
            pass  # recorded by EchoClient.terminate

    def results(self) -> dict[str, Any]:
        """The results, with times in seconds and sizes in bytes."""
        assert self.url is not None
        messages, elapsed = self.latencies.total, self.elapsed
        per_second = 1 / elapsed if elapsed else 0.0
        return {
            "url": redact_url(self.url),
            "opened": len(self.clients),
            **{key: getattr(self, key) for key in ("connections", "size", "binary", "in_flight")},
            "compressed": not self.no_compression,
            "seconds": elapsed,
            "messages": messages,
            "messages_per_second": messages * per_second,
            "bytes_sent_per_second": self.sent * self.size * per_second,
            "bytes_received_per_second": messages * self.size * per_second,
            "latency_seconds": self.latencies.summarize(),
            "connect_seconds": self.connect_times.summarize(),
            "client_load": self._cpu * per_second,
            "errors": list(self.failures.values()),
            "interrupted": self.interrupted,
        }


class EchoClient(Socket[None]):
    """Sends messages on one connection and compares them with their echoes."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.done: trio.Event = trio.Event()
        """Set when every echo has arrived and no more messages will be sent."""
        self._benchmark = benchmark
        self._in_flight: deque[tuple[Data, int]] = deque()  # with time.perf_counter_ns
        self._connection: Connection[Any, Any] | None = None

    def init_stream(self, info: ConnectionInfo) -> None:
        self._connection = info.connection

    def start(self, conn: Connection[None, Any]) -> None:
        """Send the first messages. Each echo then triggers the next message."""
        while not self.done.is_set() and len(self._in_flight) < self._benchmark.in_flight:
            message = self._benchmark.next_message()
            if message is None:
                break
            # All messages in flight are below write_limit: this never raises WouldBlock.
            conn.send_frame_nowait(message)
            self._add(message, time.perf_counter_ns())
        self._check_done()

    def _add(self, message: Data, now: int) -> None:
        self._in_flight.append((message, now))
        self._benchmark.sent += self._benchmark.is_recording

    def handle_receive(self, frame: Data, state: None) -> tuple[Reply | None, None]:
        now = time.perf_counter_ns()
        expected, sent = self._in_flight[0] if self._in_flight else (None, now)
        if frame != expected:
            what = "no message in flight" if expected is None else f"sent {shorten(expected)}"
            self.fail("not an echo", f"{what}, received {shorten(frame)}")
            return None, state
        self._in_flight.popleft()
        if self._benchmark.is_recording:
            self._benchmark.latencies.record(now - sent)
        message = None if self.done.is_set() else self._benchmark.next_message()
        if message is None:
            self._check_done()
            return None, state
        self._add(message, now)
        return Reply(message), state

    def _check_done(self) -> None:
        if not self._in_flight:
            self.done.set()

    def check_timeout(self, timeout: float) -> None:
        """Fail if the oldest message in flight is older than the timeout."""
        limit = time.perf_counter_ns() - timeout * 1e9
        if self._in_flight and self._in_flight[0][1] < limit:
            self.fail("echo timeout", f"no echo within {seconds_text(timeout)}")

    def fail(self, what: str, detail: str) -> None:
        """Record the first failure and drop the connection."""
        if self.done.is_set() or self._benchmark.interrupted:
            return
        self._benchmark.record_failure(what, detail)
        self._in_flight.clear()
        self.done.set()
        if self._connection is not None:
            self._connection.abort()

    def terminate(self, reason: Disconnect, state: None) -> None:
        self._connection = None
        self.fail("unexpected end", printable(str(reason)))


class Histogram:
    """Counts whole numbers with three significant digits; its memory usage hardly grows."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        """The count of each recorded value, with its lower bits cleared."""
        self.total: int = 0

    def record(self, value: int) -> None:
        lower_bits = max(value.bit_length() - SIGNIFICANT_BITS, 0)
        self.counts[value >> lower_bits << lower_bits] += 1
        self.total += 1

    def summarize(self) -> dict[str, float] | None:
        """Minimum, mean, percentiles and maximum of nanoseconds, in seconds; None without any."""
        if not self.total:
            return None
        values = sorted(self.counts)
        mean = sum(value * count for value, count in self.counts.items()) / self.total
        found = {"min": values[0] / 1e9, "mean": mean / 1e9}
        counted = list(itertools.accumulate(self.counts[value] for value in values))
        for percentile in PERCENTILES:
            rank = math.ceil(percentile / 100 * self.total)
            found[f"p{percentile:g}"] = values[bisect_left(counted, rank)] / 1e9
        found["max"] = values[-1] / 1e9
        return found


async def _show_progress(benchmark: Benchmark, console: Console) -> None:
    """Show a progress bar until cancelled."""
    with Progress(
        "{task.description:<11}",
        BarColumn(bar_width=None),
        "{task.fields[info]:>16}",
        TimeRemainingColumn(),
        console=console,
        auto_refresh=False,  # a thread would compete with the measurement
        transient=True,
        expand=True,
    ) as progress:
        task = progress.add_task("", total=None, info="")
        while True:
            if progress.tasks[0].description != benchmark.phase:
                progress.reset(task, description=benchmark.phase)
            done, total, info = _progress(benchmark, progress.tasks[0].elapsed or 0.0)
            total = None if total == math.inf else total
            progress.update(task, completed=done, total=total, info=info, refresh=True)
            await trio.sleep(0.1)


def _progress(benchmark: Benchmark, seconds: float) -> tuple[float, float | None, str]:
    """Return the progress of this phase, its total, and a text."""
    if benchmark.phase == "connecting":
        opened = len(benchmark.clients)
        return opened, benchmark.connections, f"{opened:,} open"
    if benchmark.phase == "warming up":
        return seconds, benchmark.warm_up, ""
    messages, elapsed = benchmark.latencies.total, benchmark.elapsed
    info = f"{messages / elapsed:,.0f}/s" if elapsed else ""
    if benchmark.messages is not None:
        return messages, benchmark.messages, info
    return elapsed, benchmark.seconds, info


def _print_results(console: Console, benchmark: Benchmark, results: dict[str, Any]) -> None:
    encoding, is_unicode = console.encoding, not console.options.ascii_only
    headline = _headline(results).encode(encoding, "backslashreplace").decode(encoding)
    console.print(Text(headline, style="bold"))
    if results["messages"]:
        rates = Table.grid(
            Column(style="cyan"), Column(justify="right"), Column(style="dim"), padding=(0, 2)
        )
        total = f"{results['messages']:,} in total"
        rates.add_row("messages", f"{results['messages_per_second']:,.0f}/s", total)
        for name in ("sent", "received"):
            megabytes = results[f"bytes_{name}_per_second"] / 1e6
            rates.add_row(name, f"{_three_digits(megabytes)} MB/s", "payload")
        console.print(Text(), rates, sep="\n")
    summaries = {name: results[f"{name}_seconds"] for name in ("latency", "connect")}
    summaries = {name: summary for name, summary in summaries.items() if summary}
    times = Table(Column(style="cyan"), *(Column(name, justify="right") for name in summaries))
    for row in summaries["connect"]:
        cells = [_duration(summary[row], is_unicode) for summary in summaries.values()]
        times.add_row(row, *cells)
    console.print(times)
    if results["client_load"] > BUSY and results["messages"]:
        hint = "The client used a whole CPU core: the server may be faster than the results show."
        console.print(Text(hint, style="yellow"))
    if "latency" in summaries:
        _print_plot(console, benchmark.latencies, summaries["latency"], is_unicode)


def _headline(results: dict[str, Any]) -> str:
    count = f"{results['opened']:,}"
    if results["opened"] < results["connections"]:
        count += f" of {results['connections']:,}"
    kind = "binary" if results["binary"] else "text"
    return (
        f"{results['url']}\n{count} connection{'s' * (count != '1')}, {results['in_flight']} x "
        f"{results['size']:,} bytes of {kind} in flight on each, {results['seconds']:.1f} s"
    )


def _print_plot(
    console: Console, latencies: Histogram, summary: dict[str, float], is_unicode: bool
) -> None:
    """Print the distribution of the latencies on a logarithmic scale, as wide as the console."""
    width = max(console.width - 14, 20)  # plotille prints 14 characters beside the plot
    columns = 2 * width  # a character of braille has two columns of dots
    left = math.log10(max(summary["min"], 1e-9) / 1.05)
    right = math.log10(max(summary["max"], 1e-9) * 1.05)
    shares = [0.0] * columns
    for value, count in latencies.counts.items():
        position = math.log10(max(value, 1) / 1e9) - left
        column = min(max(int(position / (right - left) * columns), 0), columns - 1)
        shares[column] += count / latencies.total
    figure = plotille.Figure()
    figure.width, figure.height = width, 10
    figure.color_mode = "names"
    figure.origin = False
    figure.linesep = "\n"
    figure.x_label, figure.y_label = "", "share"
    figure.x_ticks_fkt = lambda low, _: _duration(10.0 ** float(low), is_unicode)
    figure.y_ticks_fkt = lambda low, _: f"{100 * float(low):.1f} %"
    figure.set_x_limits(left, right)
    figure.set_y_limits(0, max(shares))
    for column, share in enumerate(shares):
        if share:
            x = left + column * (right - left) / columns
            colors = (color for name, color in COLORS if 10**x <= summary[name])
            figure.plot([x, x], [0, share], lc=next(colors, COLORS[-1][1]))
    legend = Text("share of the messages by latency: ")
    for name, color in COLORS:
        legend.append(f" {name}", style=color)
    console.print(legend, no_wrap=True, overflow="crop")
    for line in figure.show().splitlines():
        # plotille writes the label of the axis after an arrow, beyond the width.
        shown = line.removesuffix("-> ()").rstrip()
        shown = shown if is_unicode else shown.translate(BRAILLE_TO_ASCII)
        console.print(Text.from_ansi(shown), no_wrap=True, overflow="crop")


def _duration(seconds: float, is_unicode: bool) -> str:
    """Format with three digits and a unit, such as ``412 µs``."""
    if seconds < 1e-3:
        return f"{_three_digits(seconds * 1e6)} {'µs' if is_unicode else 'us'}"
    if seconds < 1:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds)} s"


def _three_digits(number: float) -> str:
    decimals = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{decimals}f}"
