"""The basics: ordinary commands, Gears commands, and gear functions as strings and as objects."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from operator import add
from typing import Any

import common
import redgrease

FIGHTERS = {"Foo-fighter": 2021, "Bar-fighter": 63, "Baz-fighter": -747}


def main(r: Any, fighters: Mapping[str, int] = FIGHTERS) -> dict[str, Any]:
    """Run everything on the connection ``r`` and return what was found, by name."""
    found: dict[str, Any] = {}

    # Normal Redis Commands
    for name, value in fighters.items():
        r.set(name, value)
    r.hset("noodle", mapping={"spam": "eggs", "meaning": 42})
    r.xadd("transactions:0", {"msg": "First!", "from": 0, "to": 2, "amount": 1000})

    # Redis Gears Commands
    # How much memory does the Python runtime of the server use?
    found["stats"] = r.gears.pystats()
    print(f"Gears Python runtime stats: {found['stats']}")

    # Which functions are registered? None, so far.
    found["registrations"] = list(r.gears.dumpregistrations())
    print(f"Registered Gear functions: {found['registrations']}")

    # No function at all does nothing, and does it well.
    found["nothing"] = r.gears.pyexecute().value
    print(f"Result of nothing: {found['nothing']}")

    # A function in a string: read all keys.
    found["records"] = r.gears.pyexecute("GearsBuilder('KeysReader').run()").records
    print("All-records gear results: [")
    for record in found["records"]:
        print(f"    {record}")
    print("]")

    # The same with one more operation: count them.
    found["count"] = int(r.gears.pyexecute("GearsBuilder('KeysReader').count().run()"))
    print(f"Total number of keys: {found['count']}")

    # GearFunctions
    # The same again, composed of objects instead of a string.
    count_keys = redgrease.KeysReader().count().run()
    found["object count"] = int(r.gears.pyexecute(count_keys))
    print(f"Total number of keys: {found['object count']}")

    # Simple Aggregation
    # Add the values of all keys whose name ends in "-fighter".
    add_values = redgrease.KeysReader("*-fighter").map(lambda record: int(record["value"])).aggregate(0, add, add)
    found["sum"] = int(add_values.run(on=r))
    print(f"Sum of '-fighter'-keys values: {found['sum']}")

    return found


if __name__ == "__main__":
    connection = common.connect(common.arguments(__doc__).parse_args())
    try:
        main(connection)
    finally:
        sys.exit(0 if common.clean_up(connection) else 1)
