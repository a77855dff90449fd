"""Nothing accumulates: descriptors, memory and processes after many sessions."""

from __future__ import annotations

import time

from .processes import process, zombies_of
from .waiting import wait_until

#: The bar: after 1,200 sessions memory is within 5 % or 2 MB of what it was after 200, descriptors are the same.
WARM_UP, TOTAL = 200, 1200
MEMORY_SHARE, MEMORY_BYTES = 0.05, 2_000_000

SCRIPT = """
import json
words = ['w%d' % i for i in range(100)]
GB().map(lambda r: json.dumps(words)[:10]).count().run('k:*')
"""


class Footprint:
    """Current resources of the server and its workers."""

    def __init__(self, db) -> None:
        server = process(db.server.pid)
        assert server is not None
        everybody = [server, *db.server.workers()]
        self.processes = len(everybody)
        self.descriptors = sum(p.descriptors() for p in everybody)
        self.rss = sum(p.rss() for p in everybody)

    def __repr__(self) -> str:
        return f"{self.processes} processes, {self.descriptors} descriptors, {self.rss / 1e6:.1f} MB"


#: Descriptors of a worker and of the server for it: one more spare worker is not a leak.
DESCRIPTORS_PER_WORKER = 20
QUIET_SECONDS = 0.3


def settled(db) -> Footprint:
    """The resources when no session is in progress and the spare workers have started."""
    db.wait_quiet()
    seen: list[tuple[tuple[int, int], float]] = []

    def unchanged_for() -> float:
        now = Footprint(db)
        state = (now.processes, now.descriptors)
        if not seen or seen[-1][0] != state:
            seen.append((state, time.monotonic()))
        return time.monotonic() - seen[-1][1]

    wait_until(unchanged_for, "processes and descriptors are stable", until=lambda s: s >= QUIET_SECONDS)
    return Footprint(db)


def wait_as_before(db, before: Footprint) -> None:
    """Wait until there are no more processes, descriptors and bytes than ``before``, within the bar."""
    limit = before.rss + max(before.rss * MEMORY_SHARE, MEMORY_BYTES)

    def grown(now: Footprint) -> int:
        return max(0, now.processes - before.processes)

    wait_until(
        lambda: Footprint(db),
        f"processes and descriptors as before ({before})",
        until=lambda now: (
            grown(now) <= 1 and now.descriptors <= before.descriptors + DESCRIPTORS_PER_WORKER * grown(now)
        ),
    )
    wait_until(lambda: Footprint(db), f"memory as before ({before})", until=lambda now: now.rss <= limit, deadline=20)


def test_twelve_hundred_sessions_leave_nothing_behind(fresh_server):
    db = fresh_server()
    db.r.mset({f"k:{i}": i for i in range(50)})

    def sessions(count: int) -> None:
        for number in range(count):
            assert db.results(SCRIPT) == ["50"]
            if number % 50 == 0:
                db.refused("1/0")
                db.errors("GB('ShardsIDReader').map(lambda _: 1/0).run()")

    sessions(WARM_UP)
    before = settled(db)
    sessions(TOTAL - WARM_UP)
    wait_as_before(db, before)


def test_registering_and_unregistering_leaves_nothing_behind(fresh_server):
    db = fresh_server()

    def rounds(count: int) -> None:
        for _ in range(count):
            db.ok("GB('CommandReader').map(lambda x: len(x)).register(trigger='t')")
            assert db.trigger("t") == ["1"]
            db.unregister(db.registration().id)

    rounds(30)
    before = settled(db)
    rounds(120)
    wait_as_before(db, before)


def test_workers_that_die_leave_no_zombies_and_no_descriptors(fresh_server):
    db = fresh_server()
    db.results("GB('ShardsIDReader').run()")
    for _ in range(3):
        db.failure("import os\nGB('ShardsIDReader').map(lambda _: os._exit(1)).run()")
    db.results("GB('ShardsIDReader').run()")
    before = settled(db)
    for _ in range(10):
        db.failure("import os\nGB('ShardsIDReader').map(lambda _: os._exit(1)).run()")
    db.results("GB('ShardsIDReader').run()")
    wait_until(
        lambda: Footprint(db).descriptors,
        f"descriptors as before ({before})",
        until=lambda n: n <= before.descriptors + DESCRIPTORS_PER_WORKER,
    )
    assert zombies_of(db.server.pid) == []


def test_connections_that_wait_and_leave_are_not_kept(db):
    server = process(db.server.pid)

    def come_and_go() -> None:
        for _ in range(50):
            wire = db.wire()
            wire.send("RG.PYEXECUTE", "import time\nGB('ShardsIDReader').map(lambda _: time.sleep(0.01)).run()")
            wire.close()
        db.wait_quiet()

    come_and_go()  # this many at once need more workers, which are kept as spares
    before = server.descriptors()
    come_and_go()
    wait_until(server.descriptors, f"as many descriptors as before ({before})", until=lambda n: n <= before + 5)


COUNT_FUNCTIONS = """
import gc
def left(_):
    gc.collect()
    return sum(getattr(each, '__name__', '') == 'step_of_a_run' for each in gc.get_objects())
GB('CommandReader').map(left).register(trigger='left')

async def nested(_):
    def step_of_a_run(record):
        return record
    return (await GB('ShardsIDReader').map(step_of_a_run).run())[0]
GB('CommandReader').map(nested).register(trigger='nested')
"""


def test_functions_of_runs_do_not_stay_in_a_worker_that_goes_on(fresh_server):
    db = fresh_server(load_args={"MaxWorkers": 1})
    db.ok(COUNT_FUNCTIONS)
    for _ in range(5):
        db.execute("def step_of_a_run(x): return x\nGB('ShardsIDReader').map(step_of_a_run).run()")
        db.execute("def step_of_a_run(x): raise ValueError\nGB('ShardsIDReader').map(step_of_a_run).run()")
    wait_until(lambda: db.trigger("left"), "the functions of scripts are gone", until=lambda left: left == ["0"])
    for _ in range(5):
        db.trigger("nested")
    wait_until(lambda: db.trigger("left"), "the functions of nested runs are gone", until=lambda left: left == ["0"])
