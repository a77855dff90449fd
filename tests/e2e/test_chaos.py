"""The chaos test (`chaos.py`), short, and faults that it must find."""

from __future__ import annotations

import contextlib
import re

import pytest

from . import chaos, chaos_cluster, load_requests
from .chaos import Chaos, new_seed
from .chaos_cluster import ClusterChaos
from .chaos_faults import FAULTS, Fault
from .cluster import call
from .servers import MODULE, ServerKind, UnavailableError, selected_kinds

#: Fewer clients than in `make chaos`: other tests run at the same time.
CLIENTS, PAUSE_S = 4, 0.04
SECONDS = 30


@pytest.fixture(scope="module")
def kind() -> ServerKind:
    """The first kind of server that is selected and available: one is enough."""
    assert MODULE.exists(), f"{MODULE} does not exist: run `make build` first"
    reasons = []
    for each in selected_kinds():
        try:
            each.binary()
        except UnavailableError as reason:
            reasons.append(f"{each.name}: {reason}")
        else:
            return each
    pytest.skip("; ".join(reasons))


@pytest.mark.timeout(270)
def test_nothing_is_lost_stuck_or_leaked_while_workers_and_the_server_are_killed(kind):
    report = Chaos(kind, SECONDS, new_seed(), clients=CLIENTS, pause_s=PAUSE_S).run()
    print(report)
    assert not report.findings.violations, f"\n{report}"


@pytest.mark.timeout(400)
def test_a_cluster_answers_rightly_or_with_an_error_while_its_shards_and_links_fail(kind):
    report = ClusterChaos(kind, SECONDS, new_seed(), clients=CLIENTS, pause_s=2 * PAUSE_S).run()
    print(report)
    assert not report.findings.violations, f"\n{report}"


def change_word(cluster):
    call(cluster.servers[1], "FLUSHALL")


def register_on_one_shard(cluster):
    """A registration that nobody made as a client of the test."""
    script = "GB(desc='unknown').foreach(lambda r: 1).register('none:*')"
    call(cluster.servers[2], "RG.PYEXECUTE", script)


def kill_for_good(cluster):
    cluster.servers[2].kill()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("fault", "violation"),
    [
        (change_word, "wrong (counts of words|number of keys)"),
        (register_on_one_shard, "nobody registered unknown"),
        (kill_for_good, "the server [0-9]+ has ended with -9"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_in_a_cluster_is_found(kind, fault, violation, monkeypatch):
    for deadline in ("SETTLE_DEADLINE_S", "RECOVERY_DEADLINE_S"):
        monkeypatch.setattr(chaos_cluster, deadline, 8.0)
    run = ClusterChaos(kind, 6, new_seed(), clients=CLIENTS, pause_s=PAUSE_S)
    run.disturb = fault
    report = run.run()
    assert any(re.search(violation, found.what) for found in report.findings.violations), f"\n{report}"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(kind, fault: Fault, monkeypatch):
    monkeypatch.setattr(load_requests, "REQUEST_DEADLINE_S", 2.0)
    for deadline in ("SETTLE_DEADLINE_S", "PROCESS_DEADLINE_S"):
        monkeypatch.setattr(chaos, deadline, 5.0)
    with contextlib.ExitStack() as stack:
        run = Chaos(kind, 6, new_seed(), clients=CLIENTS, pause_s=PAUSE_S, load_args=fault.load_args)
        cleanup: list = []
        stack.callback(lambda: [undo() for undo in reversed(cleanup)])
        run.disturb = lambda: fault.plant(run, cleanup)
        report = run.run(keep_files=False)
    found = [violation.what for violation in report.findings.violations]
    assert any(re.search(fault.violation, what) for what in found), f"not found: {fault.violation}\n{report}"
