"""The multi-process test of the proof of concept that the file cache succeeds, by its name and with its command line.

    python examples/test_poc_cache_mproc.py --processes 6 --duration 30 --write-prob 0.20

The flags, their defaults and the report are those of the original; a server is expected at redis://localhost:6379/0
(``redgrease serve`` starts one), or ``--no-redis`` does without. Nothing has to be cleaned between two runs. Behind the
original's report stand rates, latencies and the invariants that were proved; the exit code is not 0 when one is broken.
"""

from __future__ import annotations

from redgrease.filecache.stress import main

if __name__ == "__main__":
    main()
