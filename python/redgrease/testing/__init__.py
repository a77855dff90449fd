"""Tools for tests of gear functions: run them without a server, or start a server for them.

`run_local` runs a function in this process; `LocalServer` is a server of the test's own. The package also has fixtures
for pytest, which need no import: ``redgrease_server`` and ``redgrease_client`` (`redgrease.pytest_plugin`).

>>> from redgrease import KeysReader
>>> from redgrease.testing import run_local
>>> ages = KeysReader("person:*").values(type="hash").map(lambda person: int(person["age"]))
>>> run_local(ages.sort(), {"person:1": {"age": 40}, "person:2": {"age": 33}, "pet:1": {"age": 3}}).value
[33, 40]
"""

from __future__ import annotations

from .local import run_local
from .server import LocalServer

__all__ = ["LocalServer", "run_local"]
