"""`make calm`: how long others wait while something heavy happens, one situation after the other.

A PING loop in a process of its own runs beside each situation; its longest pause is printed, less the time in which the
server or the loop waited for a core. A pause above `BAR_MS` fails, unless it is what the documentation promises: one
record, or one sync function.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import redis
from calm import Pings, pinging
from server import MissingError, Server, default_server, find_server

BAR_MS = 25.0
DEADLINE_S = 120.0


@dataclass
class Situation:
    """Something heavy. `prepare` is not measured and gives what is measured."""

    name: str
    prepare: Callable[[Server, Path], Callable[[], object]]
    documented: str = ""


@dataclass
class Pause:
    """What the PING loop saw."""

    name: str
    pings: int
    p99_ms: float
    longest_ms: float
    caused_ms: float
    documented: str

    @property
    def passes(self) -> bool:
        return self.caused_ms <= BAR_MS or bool(self.documented)


def wait_until(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {DEADLINE_S:.0f} s still not: {what}")
        time.sleep(0.005)


def script(server: Server, text: str) -> object:
    return server.command("RG.PYEXECUTE", text)


def set_many(server: Server, prefix: str, count: int, value: str = "v") -> None:
    for start in range(0, count, 1000):
        server.redis.mset({f"{prefix}{number}": value for number in range(start, min(start + 1000, count))})


def registrations(server: Server) -> list[bytes]:
    return [row[1] for row in server.command("RG.DUMPREGISTRATIONS")]


def held(gate: Path, register: str) -> str:
    return (
        "import os, time\n"
        "def step(r):\n"
        f"    while not os.path.exists({str(gate)!r}): time.sleep(0.002)\n"
        f"GB().foreach(step).register({register})"
    )


# -- the situations


def nothing(server: Server, directory: Path) -> Callable[[], object]:
    return lambda: time.sleep(1)


def list_registrations(server: Server, directory: Path) -> Callable[[], object]:
    script(server, "for i in range(10000): GB().map(lambda x: 1).register('q%d' % i, readValue=False)")
    return lambda: server.command("RG.DUMPREGISTRATIONS")


def make_registrations(server: Server, directory: Path) -> Callable[[], object]:
    return lambda: script(server, "for i in range(10000): GB().map(lambda x: 1).register('q%d' % i, readValue=False)")


def remove_registrations(server: Server, directory: Path) -> Callable[[], object]:
    make_registrations(server, directory)()
    names = registrations(server)
    return lambda: [server.command("RG.UNREGISTER", name) for name in names]


def unmatched_events(server: Server, directory: Path) -> Callable[[], object]:
    make_registrations(server, directory)()
    return lambda: set_many(server, "other:", 2000)


def unregister_waiting(server: Server, directory: Path) -> Callable[[], object]:
    script(server, held(directory / "gate", "'*', readValue=False"))
    set_many(server, "w:", 90_000)
    [name] = registrations(server)
    return lambda: server.command("RG.UNREGISTER", name, "ABORTPENDING")


def many_events(server: Server, directory: Path) -> Callable[[], object]:
    script(server, "GB().foreach(lambda r: execute('incr', 'n')).register('w:*', readValue=False)")

    def work() -> None:
        set_many(server, "w:", 50_000)
        wait_until(lambda: server.redis.get("n") == b"50000", "all events are processed")

    return work


def stream_batch(server: Server, directory: Path) -> Callable[[], object]:
    for _ in range(30):
        pipeline = server.redis.pipeline(transaction=False)
        for number in range(10_000):
            pipeline.xadd("s", {"f": str(number)})
        pipeline.execute()

    def work() -> None:
        script(server, "GB('StreamReader').count().register('s', batch=1000000, duration=0)")
        wait_until(lambda: server.redis.xlen("s") == 0, "the stream is processed and trimmed")

    return work


def call_flood(server: Server, directory: Path) -> Callable[[], object]:
    server.redis.set("large", "x" * 400_000)
    text = """
import threading
def step(_):
    threads = [threading.Thread(target=lambda: [execute('GET', 'large') for _ in range(100)]) for _ in range(50)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
GB('ShardsIDReader').foreach(step).run()
"""
    return lambda: script(server, text)


def call_threads(server: Server, directory: Path) -> Callable[[], object]:
    server.redis.set("large", "x" * 1_000_000)
    text = """
import threading
def step(_):
    threads = [threading.Thread(target=lambda: execute('GET', 'large')) for _ in range(200)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
GB('ShardsIDReader').foreach(step).run()
"""
    return lambda: [script(server, text) for _ in range(3)]


def closed_sockets(server: Server, directory: Path) -> Callable[[], object]:
    # Each session keeps its worker; all close their sockets at the same moment, and live on.
    for number in range(12):
        script(
            server,
            "import os, socket, time\n"
            "def close(x):\n"
            f"    while not os.path.exists({str(directory / 'gate')!r}): time.sleep(0.001)\n"
            "    for fd in range(64):\n"
            "        try: socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_WR)\n"
            "        except OSError: pass\n"
            "    time.sleep(5)\n"
            f"GB().foreach(close).register('close:{number}', readValue=False)",
        )

    def work() -> None:
        for number in range(12):
            server.redis.set(f"close:{number}", "v")
        (directory / "gate").touch()
        died = "workers_died"
        wait_until(
            lambda: int(next(v for k, v in rg_info(server).items() if k.endswith(died))) >= 1,
            "the workers are replaced",
        )
        time.sleep(2)

    return work


def rg_info(server: Server) -> dict[str, str]:
    reply = server.command("INFO", "rg")
    if isinstance(reply, dict):
        return {str(key): str(value) for key, value in reply.items()}
    return dict(line.split(":", 1) for line in reply.decode().split("\r\n") if ":" in line)


def large_error(server: Server, directory: Path) -> Callable[[], object]:
    def work() -> None:
        for _ in range(3):
            try:
                script(server, "raise ValueError('x' * 50_000_000)")
            except redis.ResponseError:
                continue
            raise RuntimeError("the script did not fail")

    return work


def large_hash(server: Server, directory: Path) -> Callable[[], object]:
    for start in range(0, 500_000, 10_000):
        server.redis.hset("hash", mapping={f"field{number}": "v" for number in range(start, start + 10_000)})
    return lambda: script(server, "GB().map(lambda r: len(r['value'])).run('hash')")


def expiry(server: Server, directory: Path) -> Callable[[], object]:
    script(
        server,
        "GB().foreach(lambda r: execute('INCR', 'n')).register('e:*', mode='sync', readValue=False, "
        "eventTypes=['expired'])",
    )

    def work() -> None:
        for start in range(0, 20_000, 2000):
            pipeline = server.redis.pipeline(transaction=False)
            for number in range(start, start + 2000):
                pipeline.set(f"e:{number}", "v", px=200 + number % 50)
            pipeline.execute()
        wait_until(lambda: server.redis.get("n") == b"20000", "all expiries are processed")

    return work


def scan(server: Server, directory: Path) -> Callable[[], object]:
    set_many(server, "k:", 200_000, "nine words of text stand in each of them here")
    return lambda: script(
        server, "GB().map(lambda r: len(r['value'])).aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run('k:*')"
    )


def killed_workers(server: Server, directory: Path) -> Callable[[], object]:
    def work() -> None:
        for _ in range(20):
            script(server, "import os\nGB('ShardsIDReader').map(lambda _: os.kill(os.getpid(), 9)).run()")

    return work


def requirements(server: Server, directory: Path) -> Callable[[], object]:
    def run() -> None:
        client = server.connect()
        for _ in range(15):
            client.execute_command("RG.PYEXECUTE", "GB('ShardsIDReader').run()", "REQUIREMENTS", "redis")
        client.close()

    def work() -> None:
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return work


def sync_function(server: Server, directory: Path) -> Callable[[], object]:
    script(server, "import time\nGB('CommandReader').map(lambda x: time.sleep(0.2)).register(trigger='t', mode='sync')")
    return lambda: server.command("RG.TRIGGER", "t")


SITUATIONS = [
    Situation("nothing", nothing),
    Situation("list 10,000 registrations", list_registrations),
    Situation("a script that makes 10,000 registrations", make_registrations),
    Situation("remove 10,000 registrations", remove_registrations),
    Situation("2,000 events past 10,000 registrations", unmatched_events),
    Situation("unregister with 90,000 events waiting", unregister_waiting),
    Situation("50,000 events with one execute each", many_events),
    Situation("a stream of 300,000 entries as one batch", stream_batch),
    Situation("5,000 calls GET of 400 kB from 50 threads", call_flood),
    Situation("200 threads with GET of 1 MB", call_threads),
    Situation("12 workers close their sockets", closed_sockets),
    Situation("error texts of 50 MB", large_error),
    Situation("20,000 keys expire, a sync function for each", expiry),
    Situation("map + sum over 200,000 keys", scan),
    Situation("20 workers killed", killed_workers),
    Situation("60 scripts with requirements", requirements),
    Situation("a hash of 500,000 fields as one record", large_hash, "one record"),
    Situation("a sync function of 200 ms", sync_function, "one sync function"),
]


def measure(binary: Path, chosen: list[Situation]) -> Iterator[Pause]:
    for situation in chosen:
        with Server(binary) as server, tempfile.TemporaryDirectory() as directory:
            work = situation.prepare(server, Path(directory))
            pings = Pings()
            try:
                with pinging(server, pings):
                    # PINGs before and after what may be over at once.
                    time.sleep(0.05)
                    work()
                    time.sleep(0.05)
            finally:
                # What waits for its gate ends, and the server can stop.
                (Path(directory) / "gate").touch()
            quantiles = pings.quantiles()
            yield Pause(
                situation.name,
                len(pings.durations),
                quantiles["p99"],
                pings.worst[0],
                pings.worst_caused[0],
                situation.documented,
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make calm", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--server", default=default_server(), help="redis-7, valkey, redis-8, or a path (%(default)s)")
    parser.add_argument("--only", metavar="TEXT", help="only situations whose names contain TEXT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    chosen = [situation for situation in SITUATIONS if not arguments.only or arguments.only in situation.name]
    if not chosen:
        parser.error(f"no situation contains {arguments.only!r}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = []
    try:
        binary = find_server(arguments.server)
        if not arguments.json:
            print(f"{os.path.basename(binary)} ({arguments.server}); pauses in ms; bar {BAR_MS:g} ms")
            print(f"{'situation':<46} {'PINGs':>7} {'p99':>7} {'longest':>8} {'caused':>8}")
        for pause in measure(binary, chosen):
            found.append(pause)
            if not arguments.json:
                note = pause.documented if pause.caused_ms > BAR_MS and pause.documented else ""
                verdict = "" if pause.passes else "ABOVE THE BAR"
                print(
                    f"{pause.name:<46} {pause.pings:>7} {pause.p99_ms:>7.2f} {pause.longest_ms:>8.1f} "
                    f"{pause.caused_ms:>8.1f}  {note}{verdict}",
                    flush=True,
                )
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([asdict(pause) for pause in found], indent=2))
    return 0 if all(pause.passes for pause in found) else 1


if __name__ == "__main__":
    sys.exit(main())
