"""The quickstart: start a server, run every example in it, check what comes out, and tidy up.

``make quickstart`` builds what is missing and runs this. The server is started on a free port of this host, in memory
only, and is stopped at the end; servers that run already are never touched. The exit code is not 0 when anything did
not come out as it should.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import automatic_expiry
import basics
import cache_get_command
import common
import dataset
import delete_by_prefix
import keyspace_notification
import monte_carlo_pi
import redgrease
import reliable_keyspace_notification
import stream_processing
import thumbnails
import word_count
from image_server import ImageServer

COMPARISONS = (
    word_count,
    delete_by_prefix,
    stream_processing,
    automatic_expiry,
    keyspace_notification,
    reliable_keyspace_notification,
    monte_carlo_pi,
)
PICTURES = 4
START_SECONDS = 30.0


class Report:
    """Prints headings and checks, and counts the checks that failed."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.passed = 0
        self.failed = 0

    def heading(self, text: str) -> None:
        """Begin a part."""
        print(f"\n{text}\n{'─' * len(text)}", flush=True)

    def check(self, what: str, is_so: bool) -> None:
        """Print whether something came out as it should."""
        self.passed += is_so
        self.failed += not is_so
        print(f"  {'✓' if is_so else '✗ NOT SO:'} {what}", flush=True)

    def end(self) -> int:
        """Print the sum; the exit code of the program."""
        seconds = time.perf_counter() - self.began
        self.heading("Result")
        print(f"  {self.passed} checks passed, {self.failed} failed, in {seconds:.1f} s")
        return 0 if self.failed == 0 else 1


class Server:
    """A server of our own, started by `redgrease serve` on a free port."""

    def __init__(self, command: str, directory: Path) -> None:
        self.log_file = directory / "server.log"
        self._output = directory / "output.txt"
        self.port = _free_port()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [command, "serve", "--port", str(self.port), "--", "--logfile", str(self.log_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
            )

    def wait_ready(self) -> str:
        """Wait until the server answers; what it said about how to connect."""
        end = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            said = self._output.read_text().strip()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"PING\r\n")
                if said and probe.recv(16).startswith(b"+PONG"):
                    return said
            time.sleep(0.01)
        output = self._output.read_text().strip()
        raise RuntimeError(f"`redgrease serve` did not start a server: {output or 'it said nothing'}")

    def log_lines(self, *words: str) -> list[str]:
        """Lines of the server's log that hold all of these words."""
        return [line for line in self.log_file.read_text().splitlines() if all(word in line for word in words)]

    def stop(self) -> int:
        """Stop the server as Ctrl-C does; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command() -> str:
    """The `redgrease` command: of this environment, or on PATH."""
    beside = Path(sys.executable).with_name("redgrease")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("redgrease")
    if found is None:
        sys.exit("the command `redgrease` is missing: run `make build` first")
    return found


@contextlib.contextmanager
def our_server() -> Iterator[Server]:
    """A running server, stopped and cleaned up at the end."""
    directory = Path(tempfile.mkdtemp(prefix="redgrease-quickstart-"))
    server = Server(_command(), directory)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def table(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def shorten(value: Any, width: int = 66) -> str:
    """The text of a value, cut to a width."""
    text = str(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def indented(function: Callable[[], Any]) -> Any:
    """Call a function, and print what it prints a little to the right."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        value = function()
    print(textwrap.indent(output.getvalue(), "  "), end="")
    return value


# -- the parts


def show_basics(r: Any, report: Report) -> None:
    """(a) ordinary commands, Gears commands, functions as strings and as objects."""
    report.heading("a. The basics")
    found = indented(lambda: basics.main(r))
    report.check("a server without functions lists none", found["registrations"] == [])
    report.check("no function at all answers True", found["nothing"] is True)
    report.check("there are five keys, and five records", found["count"] == len(found["records"]) == r.dbsize() == 5)
    report.check("the object counts like the string", found["object count"] == found["count"])
    report.check("the fighters' sum is that of the client", found["sum"] == sum(basics.FIGHTERS.values()) == 1337)
    common.clean_up(r)


def show_comparisons(r: Any, report: Report) -> None:
    """(b) the same functions as vanilla strings and as RedGrease objects."""
    report.heading("b. Each function twice: as a vanilla string, and as RedGrease objects")
    for example in COMPARISONS:
        began = time.perf_counter()
        comparison = example.main(r)
        seconds = time.perf_counter() - began
        print(f"  {comparison.title} ({seconds:.2f} s)")
        table([("   vanilla", shorten(comparison.vanilla)), ("   RedGrease", shorten(comparison.redgrease))])
        report.check("both forms give the same, and something", comparison.same and bool(comparison.vanilla))


def show_dataset(r: Any, report: Report) -> None:
    """(c) a question to a real data set."""
    report.heading("c. When should I visit Seattle? Four years of weather, asked where they lie")
    rows = dataset.seattle_weather()
    answer = dataset.main(r, rows)
    indented(answer.show)
    pleasant = sum(float(row["precipitation"]) == 0 and float(row["temp_max"]) >= 20 for row in rows)
    report.check(f"all {len(rows)} rows took part", len(rows) == answer.rows == sum(m.days for m in answer.months))
    report.check("the client counts as many pleasant days", pleasant == sum(m.pleasant for m in answer.months))
    shares = [month.share for month in answer.months]
    report.check("the months are sorted", len(shares) == 12 and shares == sorted(shares, reverse=True))


def show_cache(r: Any, report: Report, server: Server) -> None:
    """(d) the caching command, against a local source that counts."""
    report.heading("d. The command cache_get, with requirements=['requests']")
    with ImageServer() as source, tempfile.TemporaryDirectory() as directory:
        urls = source.urls(PICTURES)
        outcome = cache_get_command.main(r, urls, Path(directory))
        indented(outcome.show)
        table([("  file", "bytes"), *((f"  {file.name}", str(file.stat().st_size)) for file in outcome.files)])
        print("  In the server's log:")
        lines = server.log_lines("GEARS: Cache", urls[0])
        for line in lines:
            print(f"    {line}")
        report.check(f"{PICTURES} pictures were saved", len(outcome.files) == PICTURES)
        report.check(
            "each was downloaded once", dict(source.downloads) == {f"/image-{n}.png": 1 for n in range(PICTURES)}
        )
        report.check("a hit is faster than a miss", outcome.hit_seconds < outcome.miss_seconds)
        for words in (("Cache request #1",), ("Cache miss #1",), ("Cache update #1", ": 200"), ("Cache request #2",)):
            report.check(f"the log has the line {words[0]!r}", any(all(w in line for w in words) for line in lines))

        print("  The same command from a client that knows nothing of redgrease:")
        plain = redgrease.client.redis.Redis(host="localhost", port=server.port)
        [content] = plain.execute_command("RG.TRIGGER", "cache_get", urls[0])
        print(f"    RG.TRIGGER cache_get {urls[0]} → {len(content)} bytes, beginning with {content[:4]!r}")
        report.check("it gives the very bytes of the file", content == outcome.files[0].read_bytes())
        report.check("and downloads nothing again", source.downloads["/image-0.png"] == 1)
        plain.close()


def show_both_caches(r: Any, report: Report) -> None:
    """(e) pictures in the server, what is made of them as files."""
    report.heading("e. Expensive work once, in two sizes: cache_get and the file cache")
    with ImageServer() as source, tempfile.TemporaryDirectory() as directory:
        outcome = thumbnails.main(r, source.urls(PICTURES), Path(directory) / "thumbnails")
        indented(outcome.show)
        downloads = dict(source.downloads)
        report.check("each picture was downloaded once", downloads == {f"/image-{n}.png": 1 for n in range(PICTURES)})
        report.check("each thumbnail was made once", outcome.outcomes["created"] == PICTURES)
        report.check("all workers have the same ones", outcome.same and len(set(outcome.files)) == PICTURES)


def main() -> int:
    """Run all parts; the exit code."""
    report = Report()
    report.heading("A server of our own")
    with our_server() as server:
        print(textwrap.indent(server.wait_ready(), "  "))
        r = redgrease.RedisGears(host="localhost", port=server.port)
        report.check("it answers, and is empty", bool(r.ping()) and r.dbsize() == 0)
        show_basics(r, report)
        show_comparisons(r, report)
        show_dataset(r, report)
        show_cache(r, report, server)
        common.clean_up(r)
        show_both_caches(r, report)
        report.check("afterwards everything could be cleaned up", common.clean_up(r))
        r.close()
        report.check("the server stopped cleanly", server.stop() == 0)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
