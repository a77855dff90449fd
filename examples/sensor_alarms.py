"""Stream event processing: watch measurements as they arrive, and raise an alarm when a sensor stays too hot.

Sensors append to the stream ``measurements``. A function processes each batch in the background: it keeps the latest
value and the number of hot measurements in a row for each sensor, and appends to the stream ``alarms`` when there are
three. The state is in Redis, so it survives restarts, and every client can look at it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import common
import redgrease

MEASUREMENTS = (
    ("oven", 180.0),
    ("fridge", 4.0),
    ("oven", 230.0),
    ("oven", 231.5),
    ("fridge", 5.5),
    ("oven", 232.0),
    ("oven", 190.0),
)


def watch(limit: float, in_a_row: int) -> redgrease.ClosedGearFunction[Any]:
    """A gear function that raises an alarm after ``in_a_row`` measurements above ``limit``."""

    def process(entry: dict[str, Any]) -> None:
        cmd = redgrease.cmd
        sensor, celsius = entry["value"]["sensor"], float(entry["value"]["celsius"])
        state = f"sensor:{sensor}"
        cmd.hset(state, mapping={"celsius": celsius, "entry": entry["id"]})
        if celsius <= limit:
            cmd.hset(state, "hot", 0)
        elif cmd.hincrby(state, "hot", 1) == in_a_row:
            cmd.xadd("alarms", {"sensor": sensor, "celsius": celsius})
            redgrease.log(f"{sensor} is at {celsius} degrees", level=redgrease.LogLevel.Warning)

    return (
        redgrease.StreamReader(desc="alarms of hot sensors")
        .foreach(process)
        .register("measurements", mode="async_local", batch=10, duration=20)
    )


@dataclass(frozen=True)
class Outcome:
    """The alarms, and the latest values."""

    alarms: list[tuple[str, float]]
    latest: dict[str, float]


def main(
    r: Any, measurements: Sequence[tuple[str, float]] = MEASUREMENTS, limit: float = 200, in_a_row: int = 3
) -> Outcome:
    """Send ``measurements`` and wait until all are processed."""
    watch(limit, in_a_row).on(r)
    for sensor, celsius in measurements:
        r.xadd("measurements", {"sensor": sensor, "celsius": celsius})
    common.wait_until(lambda: r.xlen("measurements") == 0, "all measurements are processed")
    alarms = [(entry[b"sensor"].decode(), float(entry[b"celsius"])) for _, entry in r.xrange("alarms")]
    latest = {name: float(r.hget(f"sensor:{name}", "celsius")) for name, _ in measurements}
    common.clean_up(r)
    return Outcome(alarms, latest)


if __name__ == "__main__":
    outcome = main(common.connect(common.arguments(__doc__).parse_args()))
    print("Alarms:", *(f"{sensor} at {celsius} degrees" for sensor, celsius in outcome.alarms))
    print("Latest values:", outcome.latest)
    sys.exit(0)
