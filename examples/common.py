"""What the example programs share: connecting, waiting, comparing two results, cleaning up."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redgrease


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser for the command line of an example: where the server is."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="localhost", help="host of the server (default: %(default)s)")
    parser.add_argument("--port", type=int, default=6379, help="port of the server (default: %(default)s)")
    return parser


def connect(options: argparse.Namespace) -> Any:
    """A connection to the server of the command line, which must be empty: examples clean up after themselves."""
    r = redgrease.RedisGears(host=options.host, port=options.port)
    keys, registrations = r.dbsize(), len(r.gears.dumpregistrations())
    if keys or registrations:
        sys.exit(
            f"{options.host}:{options.port} holds {keys} keys and {registrations} registered functions. The examples "
            "empty the database when they are done, so give them a server of their own: redgrease serve --port 7000"
        )
    return r


def clean_up(r: Any) -> bool:
    """Unregister all functions, drop all executions, delete all keys. True when nothing is left."""
    for registration in r.gears.dumpregistrations():
        r.gears.unregister(registration.id)
    for execution in r.gears.dumpexecutions():
        r.gears.abortexecution(execution.executionId)
        wait_until(lambda e=execution: _dropped(r, e.executionId), "an aborted execution ends")
    r.flushall()
    return bool(r.dbsize() == 0)


def _dropped(r: Any, execution_id: Any) -> bool:
    try:
        return bool(r.gears.dropexecution(execution_id))
    except redgrease.client.redis.ResponseError as error:
        return "does not exist" in str(error)


def wait_until(look: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """Call ``look`` until its result is truthy, and return that. Raises `TimeoutError` after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} seconds still not: {what}")
        time.sleep(0.01)
    return value


@dataclass(frozen=True)
class Comparison:
    """What the same function gave in its two forms: as a string of vanilla code, and as RedGrease objects."""

    title: str
    vanilla: Any
    redgrease: Any

    @property
    def same(self) -> bool:
        """Whether both forms gave the same."""
        return bool(self.vanilla == self.redgrease)

    def show(self) -> int:
        """Print both results; the exit code of the program."""
        print(f"{self.title}\n  vanilla:   {self.vanilla}\n  RedGrease: {self.redgrease}")
        print("  The two forms give the same." if self.same else "  THE TWO FORMS DIFFER!")
        return 0 if self.same else 1
