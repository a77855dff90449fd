"""The chaos test (`chaos.py`), short, and faults that it must find."""

from __future__ import annotations

import contextlib
import re

import pytest

from . import chaos, load_requests
from .chaos import Chaos, new_seed
from .chaos_faults import FAULTS, Fault
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
